"""Is the workflow language, in tables: which nodes there are, and which keys each may have.

The parser reads by them, and the JSON Schema is made of them.
"""

from __future__ import annotations

from typing import Any

from power_loop.contracts.json_schema.problems import Path, shown
from power_loop.contracts.permissions import Permission, PermissionMode
from power_loop.workflow import bounds
from power_loop.workflow.conditions import BINARY, SYNONYMS, UNARY
from power_loop.workflow.kinds import (
    AnyObject,
    Anything,
    Choice,
    Flag,
    Key,
    ListOf,
    Notes,
    Number,
    NumberOr,
    Record,
    Text,
    TextOr,
)
from power_loop.workflow.plain import REFUSED
from power_loop.workflow.refs import MAX_REFERENCE_CHARS, NAME_PATTERN, REFERENCE_PATTERN
from power_loop.workflow.spec import OnExhausted

#: Names that mean something everywhere, or in fallbacks and compensations, so that no node may have them.
RESERVED_NAMES = ("input", "error")


class _Node:
    """Takes a node of any type."""

    expected = "a node: an object with a type"

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Read it by the table of its type."""
        if value is REFUSED:
            return REFUSED
        if not isinstance(value, dict):
            notes.add(path, f"it is {shown(value)}", expected=self.expected)
            return REFUSED
        kind = value.get("type", REFUSED)
        record = NODES.get(kind) if isinstance(kind, str) else None
        if record is not None:
            return record.read(value, path, notes)
        if kind is REFUSED and "type" not in value:
            notes.add((path, "type"), "the node lacks 'type'", expected=_KINDS.expected, suggestion=_guess(value))
        else:
            _KINDS.read(kind, (path, "type"), notes)
        return REFUSED

    def schema(self) -> Any:
        """Return its schema."""
        return {"$ref": "#/$defs/node"}


class _Condition:
    """Takes a condition."""

    expected = 'a condition: {"ref", "op", "value"}, or {"all"}, {"any"} or {"not"}'

    def read(self, value: Any, path: Path, notes: Notes) -> Any:
        """Read it by the table of its form."""
        if value is REFUSED:
            return REFUSED
        if not isinstance(value, dict):
            notes.add(path, f"it is {shown(value)}", expected=self.expected)
            return REFUSED
        for name, record in COMBINATIONS.items():
            if name in value:
                return record.read(value, path, notes)
        op = value.get("op")
        if isinstance(op, str) and op in UNARY:
            return UNARY_COMPARISON.read(value, path, notes)
        if isinstance(op, str) and op in BINARY:
            return BINARY_COMPARISON.read(value, path, notes)
        return _UNKNOWN_COMPARISON.read(value, path, notes)

    def schema(self) -> Any:
        """Return its schema."""
        return {"$ref": "#/$defs/condition"}


NODE = _Node()
CONDITION = _Condition()

_REFERENCE = Text(
    MAX_REFERENCE_CHARS, pattern=REFERENCE_PATTERN, in_words="a reference without braces, like `plan.subtopics[0]`"
)
_NAME = Text(
    bounds.MAX_NAME_CHARS,
    pattern=rf"^{NAME_PATTERN}$",
    in_words=f"a name of letters, digits, _ and -, at most {bounds.MAX_NAME_CHARS} characters",
)
_TEXT = Text(bounds.MAX_TEXT_CHARS, has_references=True)
_DESCRIPTION = Text(bounds.MAX_DESCRIPTION_CHARS)
_SECONDS = Number(0, bounds.MAX_SECONDS, is_above=True)
_CONCURRENCY = Number(1, bounds.MAX_CONCURRENCY, is_whole=True)
_COUNT = Number(1, 10**12, is_whole=True)
_CALLS = Number(0, 10**12, is_whole=True)


# --- conditions -----------------------------------------------------------------------------------------------------

_PARTS = ListOf(CONDITION, bounds.MAX_STEPS)
COMBINATIONS = {
    "all": Record("all", (Key("all", _PARTS, "Holds if each of these does.", is_required=True),)),
    "any": Record("any", (Key("any", _PARTS, "Holds if one of these does.", is_required=True),)),
    "not": Record("not", (Key("not", CONDITION, "Holds if this does not.", is_required=True),)),
}
_REF = Key("ref", _REFERENCE, "What is looked at, without braces.", is_required=True)
_VALUE = Key("value", Anything(), "What it is compared with; references may stand in it.", is_required=True)
BINARY_COMPARISON = Record(
    "comparison",
    (_REF, Key("op", Choice(tuple(BINARY), SYNONYMS), "How it is compared.", is_required=True), _VALUE),
)
UNARY_COMPARISON = Record(
    "test", (_REF, Key("op", Choice(tuple(UNARY), SYNONYMS), "What is asked of it.", is_required=True))
)
_ANY_OPERATOR = Key("op", Choice((*BINARY, *UNARY), SYNONYMS), "How it is looked at.", is_required=True)
_UNKNOWN_COMPARISON = Record("comparison", (_REF, _ANY_OPERATOR, Key("value", Anything(), "What it is compared with.")))


# --- what every node may have ---------------------------------------------------------------------------------------

_BACKOFF = Record(
    "backoff",
    (
        Key("first_s", Number(0, bounds.MAX_SECONDS), "Seconds before the first retry.", default=1),
        Key("factor", Number(1, 100), "How many times as long each further retry waits.", default=2),
        Key("max_s", Number(0, bounds.MAX_SECONDS), "The longest wait, in seconds.", default=60),
    ),
)
_FAILURE = Text(
    100,
    pattern=r"^(any|transient|timeout|[a-z_]+\.([a-z_]+|\*))$",
    in_words="'any', 'transient', 'timeout', or the code of an error like 'llm.rate_limited' or 'llm.*'",
)
_RETRY = Record(
    "retry",
    (
        Key(
            "attempts",
            Number(1, bounds.MAX_ATTEMPTS, is_whole=True),
            "How often it is tried in all.",
            is_required=True,
        ),
        Key("backoff", NumberOr(Number(0, bounds.MAX_SECONDS), _BACKOFF), "The wait before a retry: seconds, or more."),
        Key("on", ListOf(_FAILURE, 50, 1), "After which failures it is tried again.", default=["any"]),
    ),
)
_ON_ERROR = TextOr(
    Choice(("halt", "continue"), {"fail": "halt", "stop": "halt", "raise": "halt", "ignore": "continue"}),
    Record("on_error", (Key("fallback", NODE, "Runs instead, and gives the node's output.", is_required=True),)),
)
COMMON = (
    Key("id", _NAME, "The name by which its output is referred to; no other node may have it."),
    Key("description", _DESCRIPTION, "What it is for; nobody acts on it."),
    Key("when", CONDITION, "The node is skipped, and its output is null, unless this holds."),
    Key("retry", _RETRY, "How often it is tried again after a failure."),
    Key("timeout_s", _SECONDS, "How long one attempt may take, in seconds."),
    Key(
        "on_error",
        _ON_ERROR,
        "What a failure means: 'halt' fails what it belongs to, 'continue' makes its output null.",
        default="halt",
    ),
    Key("compensate", NODE, "Undoes what the node did, when what it belongs to fails later on."),
)


def _node(kind: str, doc: str, *keys: Key, one_of: tuple[tuple[str, ...], ...] = ()) -> Record:
    key = Key("type", Choice((kind,)), "What kind of node it is.", is_required=True)
    article = "an" if kind[0] in "aeiou" else "a"
    return Record(f"{article} {kind} node", (key, *COMMON, *keys), one_of=one_of, doc=doc)


# --- the nodes ------------------------------------------------------------------------------------------------------

_LIMITS = Record(
    "limits",
    (
        Key("max_rounds", _COUNT, "Model calls."),
        Key("max_tokens", _COUNT, "Tokens of all its model calls."),
        Key("max_tool_calls", _CALLS, "Tool calls."),
        Key("max_seconds", _SECONDS, "Seconds of wall time."),
    ),
)
_BUDGET = Record(
    "budget",
    (
        Key("max_tokens", Number(1, 10**15, is_whole=True), "Tokens, with those of its own sub-agents."),
        Key(
            "max_cost",
            Text(30, pattern=r"^[0-9]{1,7}(\.[0-9]{1,9})?$", in_words='money as a text, like "0.50"'),
            "Money by the loop's prices, as a text.",
        ),
        Key("max_tool_calls", Number(0, 10**15, is_whole=True), "Tool calls, with those of its own sub-agents."),
        Key("max_seconds", _SECONDS, "Seconds of wall time."),
    ),
)
_RULE = Record(
    "rule",
    (
        Key("permission", Choice(tuple(one.value for one in Permission)), "What holds.", is_required=True),
        Key("tool", Text(128, is_said=True), "The tool's name, or a pattern with `*`.", is_required=True),
        Key("command", Text(500, is_said=True), "A pattern for a shell command."),
    ),
)
_AGENT_SPEC = Record(
    "spec",
    (
        Key(
            "system_prompt",
            Text(bounds.MAX_TEXT_CHARS, has_references=True, is_said=True),
            "What the agent is and does.",
            is_required=True,
        ),
        Key(
            "name",
            Text(bounds.MAX_NAME_CHARS, has_references=True, is_said=True),
            "What it is called; the node's id where nothing is said.",
        ),
        Key("description", Text(bounds.MAX_DESCRIPTION_CHARS, has_references=True), "What it is for."),
        Key(
            "tools",
            ListOf(Text(128, is_said=True), 500),
            "The names of the tools that it may use; all where nothing is said.",
        ),
        Key(
            "model",
            Text(200, has_references=True, is_said=True),
            "A name of the loop's models; the loop's own where nothing is said.",
        ),
        Key("limits", _LIMITS, "What its turn may take."),
        Key("budget", _BUDGET, "What it may take with all that it sets going."),
        Key("permission_mode", Choice(tuple(one.value for one in PermissionMode)), "What holds where no rule does."),
        Key("permission_rules", ListOf(_RULE, 200), "What it may do."),
    ),
)
_OUTPUT_SCHEMA = Record(
    "output_schema",
    (
        Key("schema", AnyObject(), "The JSON Schema that its answer has to fit.", is_required=True),
        Key(
            "name",
            Text(64, pattern="^[A-Za-z0-9_-]+$", in_words="a name of letters, digits, _ and -"),
            "What the answer is called.",
            default="output",
        ),
        Key("description", _DESCRIPTION, "What the answer is."),
    ),
)
_STEPS = ListOf(NODE, bounds.MAX_STEPS, 1)
_CASE = Record(
    "case",
    (
        Key("when", CONDITION, "The case is taken if this holds and no case before it did.", is_required=True),
        Key("then", NODE, "What runs then.", is_required=True),
    ),
)

NODES: dict[str, Record] = {
    "agent": _node(
        "agent",
        "Asks an agent. Its output is the answer: the parsed one if it has an output_schema, else the text.",
        Key("spec", _AGENT_SPEC, "What the agent is.", is_required=True),
        Key("input", _TEXT, "What it is told.", default="{{input}}"),
        Key("inputs_from", ListOf(_REFERENCE, 100), "What else it is told: these outputs, behind its input."),
        Key("output_schema", _OUTPUT_SCHEMA, "What its answer has to fit."),
    ),
    "sequence": _node(
        "sequence",
        "Runs its steps one after the other. Its output is that of the last one.",
        Key("steps", _STEPS, "The nodes, in order.", is_required=True),
    ),
    "parallel": _node(
        "parallel",
        "Runs its steps side by side. Its output holds theirs, by their ids.",
        Key("steps", _STEPS, "The nodes.", is_required=True),
        Key("max_concurrency", _CONCURRENCY, "How many run at one time; all where nothing is said."),
    ),
    "foreach": _node(
        "foreach",
        "Runs its body once for each item of a list. Its output is the list of theirs, in the order of the items.",
        Key("items_from", _REFERENCE, "Where the list comes from."),
        Key("items", ListOf(Anything(), bounds.MAX_ITEMS), "The list itself; references may stand in it."),
        Key("as", _NAME, "The name of the item within the body.", default="item"),
        Key("index_as", _NAME, "The name of the item's place within the body, from 0."),
        Key("parallel", Flag(), "Whether items run side by side.", default=False),
        Key(
            "max_concurrency",
            _CONCURRENCY,
            "How many items run at one time; all where nothing is said.",
            needs="parallel",
        ),
        Key("body", NODE, "What runs for each item.", is_required=True),
        one_of=(("items_from", "items"),),
    ),
    "branch": _node(
        "branch",
        "Runs the first case whose condition holds. Its output is that of what ran, or null.",
        Key("cases", ListOf(_CASE, bounds.MAX_STEPS, 1), "The cases, in order.", is_required=True),
        Key("else", NODE, "What runs if no case holds."),
    ),
    "loop": _node(
        "loop",
        "Runs its body again and again until a condition holds. Its output is that of the last time.",
        Key("body", NODE, "What runs.", is_required=True),
        Key("until", CONDITION, "Asked behind the body, whose nodes it may refer to.", is_required=True),
        Key(
            "max_iterations",
            Number(1, bounds.MAX_ITERATIONS, is_whole=True),
            "The most often it runs.",
            is_required=True,
        ),
        Key("as", _NAME, "The name of the output of the time before within the body; null at first."),
        Key("index_as", _NAME, "The name of the count of times before within the body, from 0."),
        Key(
            "on_exhausted",
            Choice(tuple(one.value for one in OnExhausted)),
            "What it means that it ran so often and the condition does not hold.",
            default="accept",
        ),
    ),
    "tool": _node(
        "tool",
        "Calls a tool. Its output is what the tool gives back.",
        Key("tool", Text(128, is_said=True), "The name of a registered tool.", is_required=True),
        Key("args", AnyObject(), "Its arguments; a text that is one reference becomes what that gives, of any type."),
    ),
    "wait": _node(
        "wait",
        "Waits. Its output is what the signal brought, or the person's answer, or null for a time.",
        Key("signal", _NAME, "The name of a signal that is sent to the run."),
        Key("person", Text(bounds.MAX_TEXT_CHARS, has_references=True, is_said=True), "The question to a person."),
        Key(
            "choices",
            ListOf(Text(1_000, is_said=True), 50, 1),
            "The answers that a person may choose from.",
            needs="person",
        ),
        Key("delay_s", Number(0, bounds.MAX_SECONDS), "How many seconds to wait."),
        Key(
            "at",
            Text(MAX_REFERENCE_CHARS, has_references=True, is_said=True),
            'Until when, like "2030-01-31T09:00:00Z".',
        ),
        one_of=(("signal", "person", "delay_s", "at"),),
    ),
}
_KINDS = Choice(
    tuple(NODES), {"map": "foreach", "for_each": "foreach", "if": "branch", "switch": "branch", "while": "loop"}
)

WORKFLOW = Record(
    "the workflow",
    (
        Key("name", Text(200, is_said=True), "What it is called.", is_required=True),
        Key("description", _DESCRIPTION, "What it is for; nobody acts on it."),
        Key("input", Anything(), "What it starts from: `{{input}}`."),
        Key("root", NODE, "The node that is run.", is_required=True),
        Key("max_concurrency", _CONCURRENCY, "How many steps run at one time in the whole run."),
        Key("undo_on_cancel", Flag(), "Whether compensations run when the run is cancelled, too.", default=False),
    ),
)


def _guess(value: dict[str, Any]) -> str:
    """Return the type of which a node without a type has most keys, if there is one."""
    own = {kind: sum(key.name in value for key in record.keys[1 + len(COMMON) :]) for kind, record in NODES.items()}
    best = max(own, key=lambda kind: own[kind])
    return best if own[best] else ""
