"""A permission policy judges each call before it runs, can only be narrowed, and nothing goes round its no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop import (
    Approve,
    Effect,
    HookPoint,
    LoopConfig,
    Permission,
    PermissionMode,
    PermissionPolicy,
    PermissionRule,
    SendStatus,
    StatefulAgentLoop,
    ToolDefinition,
    tool,
)
from power_loop.errors import ConfigError
from power_loop.hooks import RequireApproval, Rewrite, ToolBeforeContext
from power_loop.records import CallState
from power_loop.testing import ScriptedLLM, call, calls
from tests.agent.parts import answers, error_answers

ALLOW, ASK, DENY = Permission.ALLOW, Permission.ASK, Permission.DENY
allow, ask, deny = PermissionRule.allow, PermissionRule.ask, PermissionRule.deny


def a_tool(name: str, effect: Effect = Effect.ONCE) -> ToolDefinition:
    return ToolDefinition(name, "A tool.", {"type": "object"}, effect=effect)


LOOK, WRITE, BASH = a_tool("look", Effect.READ), a_tool("write_file"), a_tool("bash")


def says(policy: PermissionPolicy, tool: ToolDefinition = BASH, **arguments: Any) -> Permission:
    return policy.verdict(tool, arguments).permission


# ---- modes and rules ----


@pytest.mark.parametrize(
    ("mode", "of_a_read", "of_a_write"),
    [("read_only", ALLOW, DENY), ("ask_writes", ALLOW, ASK), ("auto", ALLOW, ALLOW)],
)
def test_a_mode_decides_where_no_rule_does(mode: str, of_a_read: Permission, of_a_write: Permission) -> None:
    policy = PermissionPolicy(mode=PermissionMode(mode))
    assert says(policy, LOOK) is of_a_read
    assert says(policy, WRITE, path="a") is of_a_write
    assert says(policy, command="ls") is of_a_write


def test_writes_are_asked_about_unless_something_else_is_said() -> None:
    assert says(PermissionPolicy(), WRITE) is ASK


def test_the_first_rule_that_fits_decides() -> None:
    policy = PermissionPolicy((deny("write_*", path="secret/*"), allow("write_file"), deny("*")))
    assert says(policy, WRITE, path="secret/a") is DENY
    assert says(policy, WRITE, path="a") is ALLOW
    assert says(policy, LOOK) is DENY, "a rule stands above what the mode would allow"


def test_all_patterns_of_a_rule_have_to_fit() -> None:
    policy = PermissionPolicy((allow("write_file", path="src/*", mode="new"),))
    assert says(policy, WRITE, path="src/a", mode="new") is ALLOW
    assert says(policy, WRITE, path="src/a", mode="old") is ASK
    assert says(policy, WRITE, path="src/a") is ASK


@pytest.mark.parametrize(
    "path", ["src/../secret", "src/./../secret", "src/a/../../secret", "src//../secret", "/src/a", "srca", "./secret"]
)
def test_no_spelling_of_a_path_is_allowed_as_another(path: str) -> None:
    assert says(PermissionPolicy((allow("write_file", path="src/*"),)), WRITE, path=path) is ASK


@pytest.mark.parametrize(
    "path", ["secret/a", "./secret/a", "src/../secret/a", "secret//a", ".//secret/a", "secret/./a"]
)
def test_every_spelling_of_a_path_is_refused(path: str) -> None:
    policy = PermissionPolicy((deny("write_file", path="secret/*"),), PermissionMode.AUTO)
    assert says(policy, WRITE, path=path) is DENY


@pytest.mark.parametrize("path", ["/etc/x", "//etc/x", "/./etc/x", "/a/../etc/x", "/../etc/x"])
def test_an_absolute_path_has_its_spellings_too(path: str) -> None:
    policy = PermissionPolicy((deny("write_file", path="/etc/*"),), PermissionMode.AUTO)
    assert says(policy, WRITE, path=path) is DENY


def test_an_address_is_read_as_one() -> None:
    policy = PermissionPolicy((allow("fetch", url="https://docs.example/public/*"),))
    fetch = a_tool("fetch")
    assert says(policy, fetch, url="https://docs.example/public/a") is ALLOW
    assert says(policy, fetch, url="https://docs.example/public/../private") is ASK
    assert says(policy, fetch, url="https://evil.example/?https://docs.example/public/") is ASK


def test_a_value_that_is_no_text_is_compared_as_json() -> None:
    policy = PermissionPolicy(
        (deny("write_file", force="true"), deny("write_file", paths='*"a"*')), PermissionMode.AUTO
    )
    assert says(policy, WRITE, force=True) is DENY
    assert says(policy, WRITE, force=False) is ALLOW
    assert says(policy, WRITE, paths=["b", "a"]) is DENY


# ---- commands ----

GIT = PermissionPolicy(
    (allow("bash", command="git status"), allow("bash", command="git log *"), deny("bash", command="rm *"))
)


@pytest.mark.parametrize(
    ("command", "permission"),
    [
        ("git status", ALLOW),
        ("git  'status'", ALLOW),
        ("git status 2>/dev/null", ALLOW),
        ("git status; git log -n 3", ALLOW),
        ("git log", ALLOW),
        ("git log --format='$(x); rm'", ALLOW),
        ("git status -s", ASK),
        ("git status --git-dir=x", ASK),
        ("git push", ASK),
        ("./git status", ASK),
        ("/tmp/git status", ASK),
        ("git status; make", ASK),
        ("rm a", DENY),
        ("rm", DENY),
        ("/bin/rm a", DENY),
        ("git status; rm -rf /", DENY),
        ("git status && rm -rf /", DENY),
        ("git status\nrm -rf /", DENY),
        ("git log | rm -rf /", DENY),
        ("git status $(rm -rf /)", ASK),
        ("git status `rm -rf /`", ASK),
        ("git log <(rm -rf /)", ASK),
        ("X=1 git status", ASK),
        ("git status & rm -rf /", ASK),
        ("git status > out", ASK),
        ("git status # fine", ASK),
        ("sudo git status", ASK),
        ("git \\\nstatus", ASK),
    ],
)
def test_each_program_of_a_command_is_judged_and_the_strictest_verdict_counts(
    command: str, permission: Permission
) -> None:
    assert says(GIT, command=command) is permission


def test_what_is_unclear_is_asked_where_a_rule_might_hold_it_back() -> None:
    policy = PermissionPolicy((deny("bash", command="rm *"),), PermissionMode.AUTO)
    assert says(policy, command="ls") is ALLOW
    assert says(policy, command="$(echo rm) a") is ASK
    assert says(PermissionPolicy((allow("bash", command="*"),), PermissionMode.READ_ONLY), command="ls $x") is DENY
    verdict = policy.verdict(BASH, {"command": "$(echo rm) a"})
    assert verdict.why == "it is not clear what the command runs: the shell makes something of '$'"


def test_a_rule_about_a_whole_tool_needs_no_clear_command() -> None:
    assert says(PermissionPolicy((allow("bash"),)), command="ls $x") is ALLOW
    assert says(PermissionPolicy((deny("bash"),)), command="ls $x") is DENY
    assert says(PermissionPolicy((deny("bash", command="rm *"), allow("bash"))), command="ls $x") is ASK
    assert says(PermissionPolicy((allow("bash"), deny("bash", command="rm *"))), command="rm x") is ALLOW


def test_a_rule_about_commands_says_nothing_of_tools_without_one() -> None:
    assert says(PermissionPolicy((allow("*", command="*"),)), WRITE, path="a") is ASK
    assert says(PermissionPolicy((allow("bash", command="*"),)), command=["ls"]) is ASK


@pytest.mark.parametrize(
    ("command", "permission"),
    [("cat src/a", ALLOW), ("cat src/../secret", ASK), ("cat src/a src/b", ASK), ("cat src/a/../b", ALLOW)],
)
def test_a_pattern_of_a_path_in_a_command_is_not_left_by_going_up(command: str, permission: Permission) -> None:
    assert says(PermissionPolicy((allow("bash", command="cat src/*"),)), command=command) is permission


# ---- under a parent ----

NAMES = st.sampled_from(["look", "write_file", "bash", "*", "write_*"])
WORDS = st.sampled_from(["git status", "git *", "rm *", "*", "rm a", "* a", "/bin/rm *"])
RULES = st.builds(
    PermissionRule,
    st.sampled_from(list(Permission)),
    NAMES,
    st.none() | WORDS,
    st.dictionaries(st.just("path"), st.sampled_from(["src/*", "*", "a"]), max_size=1),
)
PLAIN = st.builds(PermissionPolicy, st.lists(RULES, max_size=4).map(tuple), st.sampled_from(list(PermissionMode)))
POLICIES = st.recursive(PLAIN, lambda some: st.builds(PermissionPolicy.under, some, some), max_leaves=4)
COMMANDS = st.lists(
    st.sampled_from(["git status", "rm a", "/bin/rm a", "; ", " && ", "|", "$(rm a)", "\n", " a", "ls", "X=1 "]),
    max_size=5,
).map("".join)
ARGUMENTS = st.fixed_dictionaries(
    {}, optional={"command": COMMANDS | st.none(), "path": st.sampled_from(["src/a", "src/../a", "a", ""])}
)


@settings(max_examples=300)
@given(POLICIES, POLICIES, st.sampled_from([LOOK, WRITE, BASH]), ARGUMENTS)
@pytest.mark.promise("permissions")
def test_a_child_is_never_allowed_what_its_parent_is_not(
    child: PermissionPolicy, parent: PermissionPolicy, tool: ToolDefinition, arguments: Mapping[str, Any]
) -> None:
    of_both = child.under(parent).verdict(tool, arguments).permission.strictness
    of_each = [one.verdict(tool, arguments).permission.strictness for one in (child, parent)]
    assert of_both == max(of_each)


@settings(max_examples=200)
@given(PLAIN, st.sampled_from(["git status", "rm a", "ls"]), COMMANDS)
def test_a_longer_command_is_never_allowed_more_than_one_of_its_programs(
    policy: PermissionPolicy, command: str, more: str
) -> None:
    alone = says(policy, command=command)
    together = says(policy, command=f"{command}; {more}")
    # What is unclear is asked, and a person sees all of it: a refusal of one program may become a question.
    assert together.strictness >= min(alone.strictness, ASK.strictness)


# ---- what a policy is made of ----


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PermissionRule("maybe", "a"), "give allow, ask or deny"),  # type: ignore[arg-type]
        (lambda: allow(""), "has the pattern ''"),
        (lambda: allow("a", command=" "), "has the pattern ' '"),
        (lambda: allow("a", path="x" * 501), "at most 500 characters"),
        (lambda: PermissionRule(ALLOW, "a", None, {"command": "git*"}), "give it as command="),
        (lambda: PermissionRule(ALLOW, "a", None, ["b"]), "give a dict of patterns"),  # type: ignore[arg-type]
        (lambda: deny("a", reason="x" * 501), "give at most 500"),
        (lambda: PermissionPolicy(mode="yolo"), "give one of 'read_only', 'ask_writes', 'auto'"),
        (lambda: PermissionPolicy(("bash",)), "give a list of PermissionRules"),  # type: ignore[arg-type]
        (lambda: PermissionPolicy((allow("a"),) * 1_001), "at most 1000 are taken"),
        (lambda: PermissionPolicy(above=("a",)), "use policy.under"),  # type: ignore[arg-type]
        (lambda: PermissionPolicy().under("a"), "give a PermissionPolicy"),  # type: ignore[arg-type]
        (lambda: LoopConfig(permissions="auto"), "permissions"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_policy_is_refused_with_what_to_give(make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


# ---- in a loop ----

RAN: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


@tool
def run(command: str) -> str:
    """Run a command."""
    RAN.append(command)
    return f"ran {command}"


@tool(requires_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    RAN.append(f"pay {amount}")
    return "paid"


POLICY = PermissionPolicy(
    (
        allow("run", command="git status"),
        deny("run", command="rm *", reason="Move files to trash/ instead."),
        deny("run", command="dd *"),
    )
)


def loop_of(*script: Any, policy: PermissionPolicy = POLICY, dsn: str = ":memory:") -> StatefulAgentLoop:
    return StatefulAgentLoop(
        llm=ScriptedLLM(list(script)), dsn=dsn, tool_registry=[run, pay], config=LoopConfig(permissions=policy)
    )


async def test_what_is_allowed_runs_and_a_refusal_tells_the_model_what_to_do() -> None:
    script = calls(
        ("run", {"command": "git status"}), ("run", {"command": "rm -rf /"}), ("run", {"command": "git status; dd a"})
    )
    async with loop_of(script, "Done.") as loop:
        result = await loop.send("go", session_id=await loop.new_session())
        assert result.status is SendStatus.COMPLETED
        assert RAN == ["git status"]
        first, second = error_answers(loop.llm.requests[-1])
        assert first == "'run' was not run, because it was not allowed: Move files to trash/ instead."
        assert "the rule is: deny run with command='dd *'" in second
        assert "Reach the goal in another way" in second


@pytest.mark.promise("permissions")
async def test_what_is_asked_waits_durably_and_runs_when_it_is_approved_elsewhere(tmp_path: Any) -> None:
    dsn = str(tmp_path / "a.db")
    async with loop_of(calls(("run", {"command": "make $x"}), ids=("c1",)), dsn=dsn) as loop:
        sid = await loop.new_session()
        result = await loop.send("go", session_id=sid)
        assert result.status is SendStatus.WAITING_FOR_INPUT
        [asked] = result.pending
        assert (asked.call_id, asked.prompt) == ("c1", "Run run (make $x)?")
        assert RAN == []
    async with loop_of("Done.", dsn=dsn) as other:
        result = await other.resume(sid, answers={"c1": Approve()})
        assert result.status is SendStatus.COMPLETED
        assert RAN == ["make $x"]
        assert answers(other.llm.requests[0]) == ["ran make $x"]


async def test_a_call_has_not_started_before_it_is_judged() -> None:
    async with loop_of(calls(("run", {"command": "make $x"}), ids=("c1",)), "Done.") as loop:
        sid = await loop.new_session()
        await loop.send("go", session_id=sid)
        store = await loop.get_store()
        [asked] = await store.get_calls(sid)
        # One that had started could not be told, where its process died, from one that ran.
        assert (asked.state, asked.attempt, asked.started_at_ms) == (CallState.WAITING, 0, None)
        await loop.resume(sid, answers={"c1": Approve()})
        [ran] = await store.get_calls(sid)
        assert (ran.state, ran.attempt) == (CallState.SUCCEEDED, 1)


async def test_a_question_shows_what_a_terminal_would_obey_and_not_more_than_a_person_reads() -> None:
    async with loop_of(calls(("run", {"command": "make \x1b[2K\r" + "x" * 1_000}))) as loop:
        [asked] = (await loop.send("go", session_id=await loop.new_session())).pending
        assert asked.prompt.startswith("Run run (make \\x1b[2K\\rxxx")
        assert len(asked.prompt) < 400


async def test_an_approval_is_for_the_arguments_that_were_shown() -> None:
    async with loop_of(calls(("run", {"command": "make a"}), ids=("c1",)), "Done.") as loop:
        sid = await loop.new_session()
        await loop.send("go", session_id=sid)
        loop.hooks.add(HookPoint.TOOL_BEFORE, lambda context: Rewrite(arguments={"command": "make everything"}))
        result = await loop.resume(sid, answers={"c1": Approve()})
        assert result.status is SendStatus.WAITING_FOR_INPUT
        assert result.pending[0].arguments == {"command": "make everything"}
        assert RAN == []


@pytest.mark.parametrize("asks_first", [True, False])
@pytest.mark.promise("permissions")
async def test_no_approval_goes_round_a_refusal(asks_first: bool) -> None:
    """A policy may have been made stricter while the call waited."""
    lenient, strict = PermissionPolicy(), PermissionPolicy((deny("run"),), PermissionMode.AUTO)
    async with loop_of(calls(("run", {"command": "make"}), ids=("c1",)), "Done.", policy=lenient) as loop:
        sid = await loop.new_session()
        if asks_first:
            await loop.send("go", session_id=sid)
            loop.hooks.add(HookPoint.TOOL_BEFORE, strict)
            result = await loop.resume(sid, answers={"c1": Approve()})
        else:
            loop.hooks.add(HookPoint.TOOL_BEFORE, strict)
            result = await loop.send("go", session_id=sid)
        assert result.status is SendStatus.COMPLETED
        assert RAN == []
        assert "not allowed" in error_answers(loop.llm.requests[-1])[0]


async def test_a_hook_that_asks_does_not_soften_a_refusal_nor_what_a_hook_rewrites() -> None:
    def ask_always(context: ToolBeforeContext) -> RequireApproval:
        return RequireApproval("Sure?")

    async with loop_of(call("run", {"command": "rm x"}), call("run", {"command": "git status"}), "Done.") as loop:
        sid = await loop.new_session()
        loop.hooks.add(HookPoint.TOOL_BEFORE, ask_always)
        result = await loop.send("go", session_id=sid)
        assert "trash" in error_answers(loop.llm.requests[1])[0], "refused, and nobody asked"
        assert result.status is SendStatus.WAITING_FOR_INPUT, "what the policy allows is asked, as the hook wants"
        assert result.pending[0].prompt == "Sure?"
        assert RAN == []


async def test_the_arguments_of_a_hook_are_judged_and_not_those_of_the_model() -> None:
    async with loop_of(call("run", {"command": "git status"}), "Done.") as loop:
        loop.hooks.add(HookPoint.TOOL_BEFORE, lambda context: Rewrite(arguments={"command": "rm x"}))
        await loop.send("go", session_id=await loop.new_session())
        assert RAN == []
        assert "trash" in error_answers(loop.llm.requests[-1])[0]


async def test_a_tool_that_wants_approval_is_asked_even_where_the_policy_allows_it() -> None:
    async with loop_of(call("pay", {"amount": 5}), policy=PermissionPolicy(mode=PermissionMode.AUTO)) as loop:
        result = await loop.send("go", session_id=await loop.new_session())
        assert result.status is SendStatus.WAITING_FOR_INPUT
        assert RAN == []


async def test_read_only_agents_are_told_that_they_may_only_read() -> None:
    policy = PermissionPolicy(mode=PermissionMode.READ_ONLY)
    async with loop_of(call("run", {"command": "ls"}), "Done.", policy=policy) as loop:
        await loop.send("go", session_id=await loop.new_session())
        [said] = error_answers(loop.llm.requests[-1])
        assert "this agent may only read, and 'run' can change something. Go on with what reads" in said
