"""Bad input and broken storage at the public door: a coded error that says what to do, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import power_loop
from power_loop import LLMResponse, LoopConfig, SchemaPolicy, SendStatus, StatefulAgentLoop, ToolContext, tool
from power_loop.errors import (
    InputError,
    InvalidDsnError,
    NotADatabaseError,
    SessionNotFoundError,
    StoreCorruptError,
    StoreNewerError,
    StoreSchemaError,
    StoreUnavailableError,
)
from power_loop.messages import ToolCallPart
from power_loop.testing import ScriptedLLM, call
from tests.agent.parts import within_limit

pytestmark = pytest.mark.promise("bad-input")

_SOURCE = Path(power_loop.__file__).resolve().parents[1]
_CHILD = Path(__file__).with_name("storage_child.py")

Make = Callable[..., StatefulAgentLoop]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes loops, closed at the end."""
    made: list[StatefulAgentLoop] = []

    def build(dsn: Any, *steps: Any, **options: Any) -> StatefulAgentLoop:
        made.append(StatefulAgentLoop(llm=ScriptedLLM(steps), dsn=dsn, **options))
        return made[-1]

    yield build
    for loop in made:
        await within_limit(loop.aclose())


async def there(path: Path, make: Make, session_id: str = "s") -> None:
    """Make a database whose session has had one exchange, and close it."""
    async with make(str(path), "Hello to you.") as loop:
        await loop.new_session(session_id=session_id)
        await loop.send("Hello.", session_id=session_id)


def edit(path: Path, *statements: str) -> None:
    """Change a database behind the kernel's back."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0
    finally:
        connection.close()


def make_read_only(path: Path) -> None:
    """Let nobody write to a closed database, which is one file then, and to its folder."""
    edit(path, "PRAGMA journal_mode=DELETE")
    path.chmod(0o444)
    path.parent.chmod(0o555)


def child(act: str, folder: Path, *, under: Sequence[str] = ()) -> Any:
    """Return what a process with bad luck met."""
    command = [*under, sys.executable, "-I", "-S", str(_CHILD), str(_SOURCE), act, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- files ----


async def test_a_file_that_is_no_database_is_named_and_untouched(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("My notes. " * 100)
    loop = make(str(path), "Hello.")
    for _ in range(2):
        with pytest.raises(NotADatabaseError, match="name a new file or a SQLite database") as caught:
            await loop.new_session(session_id="s")
        assert (caught.value.code, str(path) in caught.value.message) == ("store.not_a_database", True)
    assert path.read_text() == "My notes. " * 100
    assert os.listdir(tmp_path) == ["notes.txt"]
    # What is mended is tried again by the same handle.
    path.unlink()
    await loop.new_session(session_id="s")
    assert (await loop.send("Hello?", session_id="s")).final_text == "Hello."


async def test_a_pipe_is_no_database_and_hangs_nobody_up(tmp_path: Path, make: Make) -> None:
    os.mkfifo(tmp_path / "app.db")
    for path in (tmp_path / "app.db", "/dev/null", tmp_path):
        with pytest.raises(NotADatabaseError):
            await within_limit(make(str(path), "Never.").new_session())
    assert os.listdir(tmp_path) == ["app.db"]


async def test_a_database_of_a_newer_version_is_refused_and_untouched(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "app.db"
    await there(path, make)
    edit(path, "INSERT INTO pl_schema_migrations (version, name, applied_at_ms) VALUES (99, 'later', 0)")
    edit(path, "PRAGMA journal_mode=DELETE")
    before = hashlib.sha256(path.read_bytes()).digest()
    with pytest.raises(StoreNewerError, match="upgrade power-loop") as caught:
        await make(str(path), "Never.").send("Hello?", session_id="s")
    assert (caught.value.code, caught.value.found) == ("store.schema_newer", 99)
    assert hashlib.sha256(path.read_bytes()).digest() == before


async def test_tables_that_may_not_be_made_come_as_statements_that_make_them(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "app.db"
    options = {"schema": SchemaPolicy.VERIFY}
    with pytest.raises(StoreSchemaError) as caught:
        await make(str(path), "Never.", **options).new_session()
    assert not path.exists()
    connection = sqlite3.connect(path)
    connection.executescript(caught.value.ddl)
    connection.close()
    loop = make(str(path), "Hello.", **options)
    assert (await loop.send("Hello?", session_id=await loop.new_session())).final_text == "Hello."


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are the user's alone."""
    folder = Path(tempfile.mkdtemp(prefix="power-loop-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


async def test_where_nothing_can_be_written_the_log_can_be_read(public_folder: Path, make: Make) -> None:
    await there(public_folder / "there.db", make)
    make_read_only(public_folder / "there.db")
    met = child("read_only", public_folder)
    assert met["fresh"]["code"] == met["write"]["code"] == "store.read_only"
    assert "read-only" in met["fresh"]["message"]
    assert "writable" in met["write"]["message"] or "read-only" in met["write"]["message"]
    assert met["read"] == met["after"] == ["Hello.", "Hello to you."]
    assert met["files"] == ["there.db"]


def test_a_disk_that_is_full_in_the_middle_of_a_turn_and_then_is_not(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=2m none {tmp_path}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here: that takes root and Linux")
    met = child("full_disk", tmp_path, under=["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"])
    assert met["turn"]["code"] == met["again"]["code"] == "store.full"
    assert "free space" in met["turn"]["message"]
    assert met["kept"] == ["user", "assistant"]
    assert (met["result"], met["whole"], met["then"]) == (["completed", "Done."], 400 * 1024, "Then seven.")
    assert met["log"] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    # It is idempotent, so that it ran once more for each time that its result did not fit, and no more often.
    assert met["ran"] == 3


async def test_a_damaged_row_is_named_and_other_sessions_go_on(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "app.db"
    await there(path, make)
    await there(path, make, "other")
    edit(path, "UPDATE pl_messages SET body = '{\"parts\": [{' WHERE session_id = 's' AND seq = 2")
    loop = make(str(path), "I am well.", "Never.")
    for work in (loop.get_messages("s"), loop.send("Hello?", session_id="s")):
        with pytest.raises(StoreCorruptError, match="message 2 of session 's'") as caught:
            await work
        assert caught.value.code == "store.corrupt"
    assert (await loop.send("How are you?", session_id="other")).final_text == "I am well."
    # Nobody is left holding the damaged one: a mended row is all that it takes.
    assert (await loop.get_session("s")).owner is None
    body = json.dumps({"parts": [{"type": "text", "text": "Mended."}]})
    edit(path, f"UPDATE pl_messages SET body = '{body}' WHERE session_id = 's' AND seq = 2")
    assert [record.message.text for record in await loop.get_messages("s")] == ["Hello.", "Mended.", "Hello?"]
    assert (await loop.resume("s")).final_text == "Never."


async def test_a_database_that_somebody_else_locks_is_unavailable_until_it_is_not(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "app.db"
    await there(path, make)
    loop = make(f"{path}?busy_timeout_s=0.02", "Here I am.")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="try again") as caught:
        await loop.send("Hello?", session_id="s")
    assert caught.value.retryable
    assert len(await loop.get_messages("s")) == 2
    other.execute("ROLLBACK")
    other.close()
    assert (await loop.send("Hello?", session_id="s")).final_text == "Here I am."


async def test_a_database_whose_file_was_deleted_is_not_written_into_nowhere(tmp_path: Path, make: Make) -> None:
    path = tmp_path / "app.db"
    await there(path, make)
    old = make(str(path), "Into nowhere?")
    await old.get_session("s")
    for name in os.listdir(tmp_path):
        (tmp_path / name).unlink()
    # A handle that is made behind that has a new database, and says that it holds no such session.
    fresh = make(str(path), "Hello.")
    with pytest.raises(SessionNotFoundError):
        await fresh.send("Hello?", session_id="s")
    assert (await fresh.send("Hello?", session_id=await fresh.new_session())).final_text == "Hello."


# ---- DSNs ----

DSNS: list[tuple[str, Any, str]] = [
    ("a typo of the scheme", "sqllite:///app.db", "did you mean sqlite://"),
    ("a typo in a parameter of a server", "postgresql://me:hunter2@db/app?pool_sise=3", "did you mean 'pool_size'"),
    ("a typo of another database", "postgre://me:hunter2@db/app", "did you mean postgres"),
    ("a driver in the scheme", "mysql+pymysql://me:hunter2@db/app", "unknown database"),
    ("two slashes", "sqlite://app.db", "three slashes"),
    ("a password in a file's place", "sqlite://me:hunter2@db/app.db", "three slashes"),
    ("nothing", "", "empty"),
    ("blanks", "  ", "empty"),
    ("a NUL", "app\0.db", "NUL"),
    ("half a character", "app\ud800.db", "characters that no path can have"),
    ("a file URI", "file:app.db?nolock=1", "file: URIs are not taken"),
    ("an unknown parameter", "app.db?synchronus=full", "did you mean 'synchronous'"),
    ("a parameter without a value", "app.db?synchronous", "without a value"),
    ("a parameter twice", "app.db?synchronous=full&synchronous=off", "twice"),
    ("a wrong value", "app.db?synchronous=maybe", "give one of"),
    ("no number", "app.db?busy_timeout_s=soon", "give seconds"),
    ("no number at all", "app.db?busy_timeout_s=nan", "give seconds"),
    ("a number", 5, "give a file name or a URL"),
    ("bytes", b"app.db", "give a file name or a URL"),
    ("a folder that is missing", "missing/app.db", "make it first"),
]


@pytest.mark.parametrize(("dsn", "advice"), [row[1:] for row in DSNS], ids=[row[0] for row in DSNS])
async def test_a_malformed_dsn_says_what_is_wrong_and_never_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make, dsn: Any, advice: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidDsnError) as caught:
        await make(dsn, "Never.").new_session()
    assert caught.value.code == "store.invalid_dsn"
    assert advice in caught.value.message
    assert "hunter2" not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"
    assert os.listdir(tmp_path) == []


# ---- sessions ----

METHODS: dict[str, Callable[[StatefulAgentLoop, str], Awaitable[Any]]] = {
    "send": lambda loop, sid: loop.send("Hello?", session_id=sid),
    "send with request_id": lambda loop, sid: loop.send("Hello?", session_id=sid, request_id="r"),
    "send with heal_pending": lambda loop, sid: loop.send("Hello?", session_id=sid, heal_pending=True),
    "resume": lambda loop, sid: loop.resume(sid),
    "submit_tool_result": lambda loop, sid: loop.submit_tool_result(sid, "call_1", "x"),
    "heal_pending": lambda loop, sid: loop.heal_pending(sid),
    "abort_pending": lambda loop, sid: loop.abort_pending(sid),
    "get_pending": lambda loop, sid: loop.get_pending(sid),
    "get_messages": lambda loop, sid: loop.get_messages(sid),
    "get_session": lambda loop, sid: loop.get_session(sid),
    "get_session_stats": lambda loop, sid: loop.get_session_stats(sid),
    "get_tool_result": lambda loop, sid: loop.get_tool_result(sid, "call_1"),
    "update_session": lambda loop, sid: loop.update_session(sid, metadata={}),
    "close_session": lambda loop, sid: loop.close_session(sid),
    "prewarm": lambda loop, sid: loop.prewarm(sid),
}


@pytest.mark.parametrize(
    "session_id", ["sess_unknown", "", "S", "a\0b", "ü", "x" * 1000, "'; DROP TABLE pl_messages; --"]
)
@pytest.mark.parametrize("method", METHODS)
async def test_an_unknown_session_is_not_found_by_any_method(
    tmp_path: Path, make: Make, method: str, session_id: str
) -> None:
    path = tmp_path / "app.db"
    loop = make(str(path), "Hello to you.", "Never.")
    await loop.new_session(session_id="s")
    await loop.send("Hello.", session_id="s")
    with pytest.raises(SessionNotFoundError) as caught:
        await METHODS[method](loop, session_id)
    assert (caught.value.code, caught.value.session_id) == ("session.not_found", session_id)
    assert "new_session()" in caught.value.message
    assert [record.message.text for record in await loop.get_messages("s")] == ["Hello.", "Hello to you."]
    assert len((await loop.list_sessions()).items) == 1


async def test_a_stream_on_an_unknown_session_is_not_found(tmp_path: Path, make: Make) -> None:
    loop = make(str(tmp_path / "app.db"), "Never.")

    async def watch() -> None:
        async with loop.stream("Hello?", session_id="sess_unknown") as events:
            async for _ in events:
                pass

    with pytest.raises(SessionNotFoundError):
        await watch()


# ---- characters and sizes ----

_SPOILED, _CLEAN = "a\0b\ud800c\udc00d", "a\ufffdb\ufffdc\ufffdd"


async def test_nuls_and_half_characters_are_replaced_wherever_they_come_in(tmp_path: Path, make: Make) -> None:
    @tool(effect="read")
    def spoil(context: ToolContext) -> str:
        """Give and keep what no database takes."""
        context.state["kept"] = _SPOILED
        return _SPOILED

    path = tmp_path / "app.db"
    loop = make(str(path), call("spoil"), _SPOILED, tool_registry=[spoil])
    sid = await loop.new_session(system_prompt=_SPOILED, metadata={"of": _SPOILED, _SPOILED: [1]})
    result = await loop.send(_SPOILED, session_id=sid, request_id="r")
    assert (result.status, result.final_text) == (SendStatus.COMPLETED, _CLEAN)
    texts = [record.message for record in await loop.get_messages(sid)]
    assert (texts[0].text, texts[3].text) == (_CLEAN, _CLEAN)
    shown = texts[2].tool_result
    assert shown is not None
    assert [getattr(part, "text", "") for part in shown.content] == [_CLEAN]
    # A process that knows the file alone reads the same.
    await loop.aclose()
    cold = make(str(path), "Yes.", tool_registry=[spoil])
    again = await cold.send(_SPOILED, session_id=sid, request_id="r")
    assert (again.final_text, again.is_replayed) == (_CLEAN, True)
    assert (await cold.get_session(sid)).system_prompt == _CLEAN
    assert (await cold.send("Are you there?", session_id=sid)).final_text == "Yes."


@pytest.mark.parametrize(
    "content",
    ["", " \n", [], [""], 5, None, b"bytes", {"text": "x"}, [5], ["fine", object()]],
    ids=lambda value: type(value).__name__ + repr(value)[:10],
)
async def test_an_input_that_is_none_stores_nothing(tmp_path: Path, make: Make, content: Any) -> None:
    loop = make(str(tmp_path / "app.db"), "Hello.")
    sid = await loop.new_session()
    with pytest.raises(InputError) as caught:
        await loop.send(content, session_id=sid)
    assert caught.value.code == "input.invalid"
    assert await loop.get_messages(sid) == ()
    assert (await loop.send("Hello?", session_id=sid)).final_text == "Hello."


@pytest.mark.parametrize(
    "metadata", [{"a": object()}, {"a": float("nan")}, {"a": {1, 2}}], ids=["object", "nan", "set"]
)
async def test_metadata_that_is_no_json_makes_no_session(tmp_path: Path, make: Make, metadata: Any) -> None:
    loop = make(str(tmp_path / "app.db"), "Hello.")
    with pytest.raises(InputError):
        await loop.new_session(session_id="s", metadata=metadata)
    assert (await loop.list_sessions()).items == ()


async def test_ten_megabytes_of_input_answer_and_result_come_back_whole(tmp_path: Path, make: Make) -> None:
    big = "é" * (5 * 1024 * 1024)

    @tool(effect="read")
    def dump() -> dict[str, str]:
        """Give everything."""
        return {"all": big}

    reply = LLMResponse.of_calls(ToolCallPart("call_1", "dump", "{}"), text=big)
    path = tmp_path / "app.db"
    unfolded = LoopConfig(compaction=None)
    loop = make(str(path), reply, big, tool_registry=[dump], config=unfolded)
    sid = await loop.new_session()
    result = await loop.send(big, session_id=sid)
    assert result.final_text == big
    await loop.aclose()
    cold = make(str(path), "Fine.", tool_registry=[dump], config=unfolded)
    log = [record.message for record in await cold.get_messages(sid)]
    assert (log[0].text, log[1].text, log[3].text) == (big, big, big)
    whole = await cold.get_tool_result(sid, log[1].tool_calls[0].id)
    assert whole is not None
    assert json.loads("".join(getattr(part, "text", "") for part in whole)) == {"all": big}
    assert (await cold.send("And now?", session_id=sid)).final_text == "Fine."
