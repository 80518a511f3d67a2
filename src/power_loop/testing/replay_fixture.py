"""Makes a regression test of a recorded session: its archive, and beside it every request word by word."""

from __future__ import annotations

import os
from pathlib import Path

from power_loop import LLMResponse, StatefulAgentLoop, StopReason, open_store
from power_loop.errors import ConfigError
from power_loop.events import Redaction
from power_loop.records import Replayed
from power_loop.storage import ModelCall
from power_loop.testing.cassette import normal_request, value_differences
from power_loop.testing.cassette_file import Entry, read_cassette, write_cassette
from power_loop.testing.normal_form import NormalForm
from power_loop.testing.traffic import info_value, response_value

#: Model calls of one read.
PAGE = 500


async def write_replay_fixture(loop: StatefulAgentLoop, archive: bytes, path: str | os.PathLike[str]) -> Replayed:
    """Write the archive of a session to `path`, and beside it, as `<name>.cassette.jsonl`, what `loop` asks its model
    in it, for `check_replay_fixture` to compare with.

    The second file is a `Cassette` of the session as well. Both hold what was said: read them before you commit them.
    Raises an AssertionError where `loop` asks something else than was recorded, `archive.invalid`.
    """
    found = await loop.replay(archive)
    found.raise_for_difference()
    store = await open_store(":memory:")
    try:
        session_id = await store.import_session(archive)
        log = {record.seq: record.message for record in await store.get_messages(session_id)}
        calls: dict[int, ModelCall] = {}
        before: int | None = None
        while page := await store.get_model_calls(session_id, before_seq=before, limit=PAGE):
            calls.update((one.reply_seq, one.call) for one in page)
            before = page[-1].reply_seq
    finally:
        await store.aclose()
    entries = []
    for seq, request in found.requests.items():
        form = _form()
        asked = normal_request(request, form)
        reply = LLMResponse(log[seq], StopReason(calls[seq].stop), calls[seq].usage, model=calls[seq].model)
        entries.append(Entry(asked, [], {"reply": form.of(response_value(reply))}))
    write_cassette(_beside(path), info_value(loop.llm.info), entries)
    _write(path, archive)
    return found


async def check_replay_fixture(
    loop: StatefulAgentLoop, path: str | os.PathLike[str], *, upto: int | None = None
) -> Replayed:
    """Replay what `write_replay_fixture` wrote with the code of today. Raises an AssertionError that says at the first
    call which differs what does, system prompt and tools word by word; `config.invalid` for a file that is not there.
    """
    archive, entries = _read(path)
    found = await loop.replay(archive, upto=upto)
    for entry, (seq, request) in zip(entries, found.requests.items()):  # noqa: B905 - it may have stopped earlier
        lines = value_differences(entry.request, normal_request(request, _form()))
        if lines:
            raise AssertionError(
                f"call {seq} of {os.fspath(path)!r} differs:" + "".join(f"\n- {line}" for line in lines)
            )
    found.raise_for_difference()
    return found


def _form() -> NormalForm:
    # What the environment holds differs from machine to machine, and the archive has it anyway.
    return NormalForm(redaction=Redaction(uses_environment=False))


def _write(path: str | os.PathLike[str], archive: bytes) -> None:
    Path(path).write_bytes(archive)


def _read(path: str | os.PathLike[str]) -> tuple[bytes, list[Entry]]:
    try:
        return Path(path).read_bytes(), read_cassette(_beside(path))[1]
    except OSError as error:
        raise ConfigError(f"there is no fixture {error.filename!r}: make it with write_replay_fixture()") from error


def _beside(path: str | os.PathLike[str]) -> Path:
    whole = Path(path)
    return whole.with_name(f"{whole.stem}.cassette.jsonl")
