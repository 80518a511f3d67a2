"""Whatever a model gives the tools of the full preset, it gets answers that it can read; nothing outside changes."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from power_loop import (
    Deny,
    HookPoint,
    LoopConfig,
    RuntimeEnv,
    SendStatus,
    Skills,
    StatefulAgentLoop,
    TextPart,
    ToolDefinition,
    tool_preset,
)
from power_loop.errors import ToolError
from power_loop.records import CallState
from power_loop.runtime.host.pdf import can_read_pdf
from power_loop.sandbox import EnvLimits
from power_loop.testing import ScriptedLLM, calls
from tests.tools.test_presets import PNG, snapshot
from tests.tools.test_recall import fold
from tests.tools.test_skills import write_skill

SECRET = "the secret of another folder"
# Far more than any of it takes, also on a machine that does much else.
LIMIT_S = 300.0

PATCH = "--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-line 0.\n+line 0!\n"
# So long that what a call puts into a line makes no binary file of it, and each call has a line of its own.
LINES = 3_000
FIRST_LINE = 2_000
#: A call of each tool that can be made; each of its arguments is replaced by each hostile value in turn. `#` stands for
#: the number of the call.
USUAL: dict[str, dict[str, Any]] = {
    "read_file": {"path": "a.txt", "offset": 1, "limit": 1},
    "glob": {"pattern": "*.txt", "path": "."},
    "grep": {"pattern": "a", "path": ".", "glob": "*.txt"},
    "view_image": {"path": "a.png"},
    "read_pdf": {"path": "a.pdf", "offset": 1},
    "current_time": {"zone": "UTC"},
    "schedule_wakeup": {"note": "Look again.", "in_minutes": 5, "zone": "UTC"},
    "list_wakeups": {"zone": "UTC"},
    "cancel_wakeup": {"wakeup_id": "tmr_1"},
    "load_skill": {"name": "pdf", "file": "more.md", "offset": 1},
    "write_file": {"path": "new/file.txt", "content": "x"},
    "edit_file": {"path": "a.txt", "old_text": "line #.", "new_text": "b", "replace_all": True},
    "apply_patch": {"patch": PATCH},
    "bash": {"command": "true", "timeout_s": 120},
    "todo": {"items": [{"text": "a", "status": "done"}]},
    "background_run": {"command": "true"},
    "background_list": {},
    "background_check": {"job": "job_1"},
    "background_wait": {"job": "job_1", "timeout_s": 1},
    "background_stop": {"job": "job_1"},
    "note_write": {"title": "a", "text": "b"},
    "note_read": {"title": "a"},
    "note_list": {},
    "note_remove": {"title": "a"},
    "request_user_input": {"prompt": "?", "choices": ["a"], "allows_other": True},
    "recall_compacted": {"query": "a", "from_seq": 1, "to_seq": 2, "cursor": "1:0"},
    "recall_send": {"send_index": 1, "cursor": "1:0"},
}

PATHS = (
    *("..", "../outside/secret.txt", "/etc/passwd", "~", "~root/x", "file:///etc/passwd", "/proc/self/root/etc/passwd"),
    *(
        "/dev/zero",
        "/dev/stdin",
        "pipe",
        "out/secret.txt",
        "loop",
        "a.txt/x",
        "a/../../outside/x",
        "./" * 2_000,
        "C:\\x",
    ),
)
TEXTS = (
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\ud800",
        "x\udc00",
        "a\nb",
        "\r",
        "\x1b[31m",
        "\u202e\u2028\x85",
        "\ufeff",
        "-rf",
        "--pre=x",
    ),
    *("%s%n", "*", "**/" * 100, "(a+)+$", "[", "{a,b", "<<EOF", '"', "'", "😀" * 50, "x" * 300_000, "\n" * 50_000),
    *("</notes>", "{{x}}", "../" * 500 + "etc/passwd", PATCH.replace("a.txt", "../outside/secret.txt")),
    "999999999999999999:999999999999",
)
OTHERS = (
    *(None, True, 0, -1, 1.5, 1e308, 2**31, 10**18, 10**30, [], [[]], {}, {"a": {"b": []}}, [None, 1], ["\ud800", ""]),
    *([{"text": 1}], [{"text": "\0", "status": "done"}]),
)
VALUES: list[Any] = [*PATHS, *TEXTS, *OTHERS]

#: What is no object of arguments at all.
WHOLES = (
    *("x", "[]", "null", '"x"', "1", "{", '{"a": NaN}', '{"path": "a", "path": "b"}', "[" * 100_000, '{"unknown": 1}'),
    *('{"": ""}', '{"\\ud800": 1}', "1" * 5_000, "\0", '{"a": "' + "x" * 5_000_000 + '"}'),
)


#: What a session has done before, so that calls find what they are about.
BEFORE = (
    ("read_file", {"path": "a.txt"}),
    ("note_write", {"title": "a", "text": "b"}),
    ("background_run", {"command": "true"}),
)


class World:
    """Is a workspace with what may lie in one, beside a folder that nobody may touch."""

    def __init__(self, folder: Path) -> None:
        self.workspace, self.outside = folder / "workspace", folder / "outside"
        self.workspace.mkdir(parents=True)
        self.outside.mkdir()
        (self.outside / "secret.txt").write_text(SECRET)
        (self.workspace / "a.txt").write_text("".join(f"line {number}.\n" for number in range(LINES)))
        (self.workspace / "a.png").write_bytes(PNG)
        (self.workspace / "a.pdf").write_bytes(b"%PDF-1.4 broken")
        (self.workspace / "out").symlink_to("../outside")
        (self.workspace / "loop").symlink_to("loop")
        os.mkfifo(self.workspace / "pipe")
        write_skill(folder / "skills", "pdf")
        (folder / "skills" / "pdf" / "more.md").write_text("more")
        self._untouched = (self.outside, folder / "skills")
        self._before = [snapshot(one) for one in self._untouched]
        self.dsn = str(folder / "app.db")
        self._skills = Skills([folder / "skills"])

    def tools(self) -> tuple[ToolDefinition, ...]:
        env = RuntimeEnv(self.workspace, limits=EnvLimits(max_search_s=5))
        return tool_preset("full", env, skills=self._skills)

    async def give(self, *given: tuple[str, str]) -> list[CallState]:
        """Have a model make calls with these argument texts, and see that each is answered and nothing else happens.

        Return what became of each.
        """
        llm = ScriptedLLM(
            [calls(*BEFORE), "Hi.", calls(*given, ids=[f"c{number}" for number in range(len(given))]), "Done."]
        )
        config = LoopConfig(compaction=None)
        async with StatefulAgentLoop(llm=llm, dsn=self.dsn, tool_registry=self.tools(), config=config) as loop:
            errors: list[BaseException] = []
            loop.hooks.add(HookPoint.TOOL_ERROR, lambda context: errors.append(context.error))
            sid = await loop.new_session()
            await loop.send("Hello.", session_id=sid)
            await fold(loop, sid, to_seq=6)
            result = await loop.send("Go.", session_id=sid)
            if result.status is SendStatus.WAITING_FOR_INPUT:
                assert {call.name for call in result.pending} == {"request_user_input"}
                result = await loop.resume(sid, answers={call.call_id: Deny() for call in result.pending})
            assert result.status is SendStatus.COMPLETED
            records = (await (await loop.get_store()).get_calls(sid))[len(BEFORE) :]
            assert len(records) == len(given)
            assert {record.state for record in records} <= {CallState.SUCCEEDED, CallState.FAILED}
            # What it cannot do a tool says in words of its own: it raises nothing else, and comes to its end in time.
            assert [error for error in errors if not isinstance(error, ToolError)] == []
            for message in llm.requests[3].messages:
                if message.tool_result is not None:
                    self._check(message.tool_result.content)
        assert [snapshot(one) for one in self._untouched] == self._before
        return [record.state for record in records]

    def _check(self, content: Any) -> None:
        text = "".join(part.text for part in content if isinstance(part, TextPart))
        assert content
        assert SECRET not in text


def hostile_texts(name: str, schema: Any) -> list[str]:
    """Return argument texts for one tool: each hostile value in each argument, each argument missing, none at all."""
    usual = USUAL[name]
    given = [{**usual, key: value} for key in schema["properties"] for value in VALUES]
    given += [{key: value for key, value in usual.items() if key != left} for left in usual]
    texts = [
        json.dumps(one).replace("line #.", f"line {number}.") for number, one in enumerate([usual, *given], FIRST_LINE)
    ]
    return [*texts, *WHOLES]


@pytest.mark.promise("hostile-model")
@pytest.mark.parametrize("name", [name for name in USUAL if name != "read_pdf" or can_read_pdf()])
async def test_each_hostile_value_in_each_argument_gets_an_answer(name: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    schemas = {tool.name: tool.input_schema for tool in world.tools()}
    assert schemas.keys() == USUAL.keys() - ({"read_pdf"} if not can_read_pdf() else set()), "a tool is missing here"
    given = [(name, text) for text in hostile_texts(name, schemas[name])]
    states = await asyncio.wait_for(world.give(*given), LIMIT_S)
    # The usual call comes first: what makes it one that works is tried as well.
    assert (
        states[0] is (CallState.FAILED if name in ("read_pdf", "cancel_wakeup") else CallState.SUCCEEDED)
        or name == "request_user_input"
    )


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def hostile_calls(draw: st.DrawFn) -> list[tuple[str, str]]:
    given = []
    for name in draw(st.lists(st.sampled_from(sorted(USUAL)), min_size=1, max_size=6)):
        arguments = dict(USUAL[name])
        for key in draw(st.lists(st.sampled_from(sorted(arguments) or ["x"]), max_size=3)):
            # A shell runs what it is given: it gets no words that a generator makes up.
            arguments[key] = draw(st.sampled_from(VALUES) if key == "command" else _JSON)
        given.append((name, json.dumps(arguments)))
    return given


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(given=hostile_calls())
def test_hostile_calls_of_one_reply_are_all_answered(given: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder).resolve())
        asyncio.run(asyncio.wait_for(world.give(*given), LIMIT_S))
