"""Is a model that was recorded: it answers from a file what another one answered when it was asked the same."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

from power_loop import LLMDelta, LLMRequest, LLMResponse, LLMService
from power_loop.context import request_differences
from power_loop.errors import ConfigError, LLMError
from power_loop.events import Redaction
from power_loop.llm import Emit, ModelInfo
from power_loop.testing.cassette_file import Entry, read_cassette, write_cassette
from power_loop.testing.normal_form import NormalForm, Scrub
from power_loop.testing.traffic import (
    Value,
    canonical,
    delta_values,
    deltas_of,
    error_of,
    error_value,
    info_of,
    info_value,
    request_of,
    request_value,
    response_of,
    response_value,
)
from power_loop.tools import choice_of


class RecordMode(str, Enum):
    """Is what is recorded: nothing, a file that is not there yet, what is not in the file, or all of it anew."""

    NONE = "none"
    ONCE = "once"
    NEW = "new"
    ALL = "all"


class MatchMode(str, Enum):
    """Is how a call finds its recorded one: it is the next one, or any that was asked the same."""

    ORDER = "order"
    CONTENT = "content"


class CassetteMismatchError(AssertionError):
    """Says that a model is asked what was not recorded, or is not asked what was."""


@dataclass(frozen=True)
class RecordedCall:
    """Is one call of a cassette: the request in normal form, the pieces that came, and the reply or the failure.

    Both are None for a call that was cancelled.
    """

    request: LLMRequest
    deltas: tuple[LLMDelta, ...] = ()
    response: LLMResponse | None = None
    error: LLMError | None = None


class Cassette:
    """Records what a model is asked and answers, and plays it back with its pieces and failures, without the model.

        with Cassette("tests/shop.jsonl", create_llm_service_from_env, record="once") as llm:
            async with StatefulAgentLoop(llm=llm, dsn=":memory:", tool_registry=tools) as loop:
                ...

    The file holds requests and replies as the kernel knows them and not as a provider's API does, so that it stands for
    a model behind any wire. `llm` is the model to record, or a function that makes it when it is needed. The file is
    written by `close()`, and `with` does that unless its block fails. Of what was said nothing is secret to the file
    but what looks like a key, what the environment holds under the name of a key, and headers: `scrub` gets every text
    and returns what may stand.

    Two requests are the same if they are but for ids: those of sessions and calls are numbered, the ids of this run
    stand in what is played, and a conversation's `cache_key` and the model that said a message do not count. A request
    that was not recorded raises `CassetteMismatchError`, which says where it differs; the kernel reports it as a
    failure of the model, and the end of the `with` block raises it again.

    `may_repeat` lets the last of the calls that were asked the same be played again and again. `info` is what the model
    pretends to be, if not what was recorded. Raises `config.invalid`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        llm: LLMService | Callable[[], LLMService] | None = None,
        *,
        record: RecordMode | str = RecordMode.NONE,
        match: MatchMode | str = MatchMode.ORDER,
        may_repeat: bool = False,
        scrub: Scrub | None = None,
        info: ModelInfo | None = None,
    ) -> None:
        self._path = Path(path)
        self._mode = choice_of(RecordMode, record, "record")
        self._match = choice_of(MatchMode, match, "match")
        self._may_repeat = may_repeat
        self._scrub = scrub
        self._info = info
        self._llm = llm
        self._redaction = Redaction()
        self._entries: list[Entry] = []
        self._recorded_info: Value | None = None
        # The first of those that are not to be played, because they were recorded by this very run.
        self._fresh = 0
        self._played: list[bool] = []
        self._asked = 0
        self._problems: list[str] = []
        if may_repeat and self._match is MatchMode.ORDER:
            raise ConfigError("may_repeat=True: calls that are played in order are played once; give match='content'")
        if self._mode is not RecordMode.ALL and self._path.exists():
            self._recorded_info, self._entries = read_cassette(self._path)
            self._fresh = len(self._entries)
        elif self._mode is RecordMode.NONE:
            raise ConfigError(f"there is no cassette {str(self._path)!r}: record it with record='once' and a model")
        self._played = [False] * len(self._entries)
        self._records = self._mode in (RecordMode.NEW, RecordMode.ALL) or self._recorded_info is None
        if self._records and llm is None:
            raise ConfigError(f"record={self._mode.value!r} records {str(self._path)!r} of a model: give it as llm")

    @property
    def info(self) -> ModelInfo:
        """What the model is that was recorded, or is."""
        if self._info is not None:
            return self._info
        return info_of(self._recorded_info) if self._recorded_info is not None else self._model().info

    @property
    def calls(self) -> tuple[RecordedCall, ...]:
        """The calls that are recorded, in order."""
        return tuple(_call_of(entry) for entry in self._entries if entry.outcome)

    @property
    def unplayed(self) -> tuple[int, ...]:
        """The numbers, from 1 on, of the calls that were recorded earlier and not played."""
        return tuple(number for number, is_played in enumerate(self._played, start=1) if not is_played)

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Play the recorded call, or ask the model and record it."""
        form = NormalForm(self._scrub, redaction=self._redaction)
        asked = normal_request(request, form)
        self._asked += 1
        entry = self._find(asked)
        if entry is None:
            return await self._record(request, emit, asked, form)
        return await _play(entry, emit, form)

    def check(self) -> None:
        """Raise `CassetteMismatchError` if a request was not recorded, or a call that was due in order never came."""
        problems = list(self._problems)
        if not problems and self._match is MatchMode.ORDER and self.unplayed:
            count, first = len(self.unplayed), self.unplayed[0]
            problems.append(
                f"{self._name} has {len(self._played)} calls, and {count} of them {'was' if count == 1 else 'were'} not"
                f" asked for, from call {first} on: record it anew with record='all' if that is right"
            )
        if problems:
            raise CassetteMismatchError("\n".join(problems))

    def close(self) -> None:
        """Write what was recorded."""
        entries = [entry for entry in self._entries if entry.outcome]
        if len(entries) > self._fresh or (self._mode is RecordMode.ALL and entries):
            info = self._recorded_info or info_value(self._model().info)
            write_cassette(self._path, info, entries)

    def __enter__(self) -> Cassette:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.check()
            self.close()

    @property
    def _name(self) -> str:
        return f"the cassette {str(self._path)!r}"

    def _model(self) -> LLMService:
        llm: Any = self._llm
        if not hasattr(llm, "generate"):
            llm = self._llm = llm()
        made: LLMService = llm
        return made

    # ---- which recorded call it is ----

    def _find(self, asked: Value) -> Entry | None:
        """Return the call to play; None if it is to be recorded. Raises CassetteMismatchError."""
        at = self._next_in_order(asked) if self._match is MatchMode.ORDER else self._with_content(asked)
        if at is not None:
            self._played[at] = True
            return self._entries[at]
        if self._records:
            return None
        raise self._mismatch(asked)

    def _next_in_order(self, asked: Value) -> int | None:
        at = self._asked - 1
        if at >= self._fresh:
            return None
        if _content(self._entries[at].request) != _content(asked):
            raise self._mismatch(asked)
        return at

    def _with_content(self, asked: Value) -> int | None:
        content = _content(asked)
        same = [at for at in range(self._fresh) if _content(self._entries[at].request) == content]
        left = [at for at in same if not self._played[at]]
        if left:
            return left[0]
        return same[-1] if same and self._may_repeat else None

    def _mismatch(self, asked: Value) -> CassetteMismatchError:
        text = f"call {self._asked} is not the recorded one{self._what_differs(asked)}"
        text += f"\nrecord {self._name} anew with record='all' if that is right"
        self._problems.append(text)
        return CassetteMismatchError(text)

    def _what_differs(self, asked: Value) -> str:
        if self._match is MatchMode.ORDER:
            if self._asked > self._fresh:
                return f": {self._name} has {self._fresh} calls, and one more is asked"
            return _listed(value_differences(self._entries[self._asked - 1].request, asked))
        compared = [(value_differences(entry.request, asked), at) for at, entry in enumerate(self._entries)]
        if not compared:
            return f": {self._name} has no calls"
        lines, at = min(compared, key=lambda one: (len(one[0]), one[1]))
        if not lines:
            return f": call {at + 1} was asked the same and is played already; may_repeat=True plays it again"
        return f"; the closest is call {at + 1}{_listed(lines)}"

    # ---- recording ----

    async def _record(self, request: LLMRequest, emit: Emit, asked: Value, form: NormalForm) -> LLMResponse:
        entry, heard = Entry(asked), list[LLMDelta]()
        # Its place is that of its question: calls that run side by side end in any order.
        self._entries.append(entry)

        def hear(delta: LLMDelta) -> None:
            heard.append(delta)
            emit(delta)

        outcome: Value = {}
        try:
            response = await self._model().generate(request, hear)
            outcome = {"reply": form.of(response_value(response))}
            return response
        except asyncio.CancelledError:
            outcome = {"cancelled": True}
            raise
        except LLMError as error:
            outcome = {"error": form.of(error_value(error))}
            raise
        except Exception as error:  # a model of somebody's own may raise anything
            outcome = {"error": form.of(error_value(LLMError(f"{type(error).__name__}: {error}")))}
            raise
        finally:
            entry.deltas = [_normal_run(run, form) for run in delta_values(heard)]
            entry.outcome = outcome


def normal_request(request: LLMRequest, form: NormalForm) -> Value:
    """Return a request as it is written down and compared."""
    value = request_value(request)
    if "extra" in value:
        value["extra"] = form.redaction.value(value["extra"])
    normal: Value = form.of(value)
    return normal


def value_differences(recorded: Value, asked: Value) -> tuple[str, ...]:
    """Return in words where a request differs from a recorded one, both as they are written down."""
    return request_differences(request_of(copy.deepcopy(recorded)), request_of(copy.deepcopy(asked)))


def content_of_request(request: LLMRequest) -> str:
    """Return text that is the same for requests that differ in ids only."""
    return _content(normal_request(request, NormalForm(redaction=Redaction(uses_environment=False))))


def _content(value: Value) -> str:
    """Return what two requests that are the same have in common: whichever model a message came from."""
    messages = [{name: one[name] for name in ("role", "parts")} for one in value["messages"]]
    return canonical({**value, "messages": messages})


def _normal_run(run: list[Any], form: NormalForm) -> list[Any]:
    """Return a run of pieces; what stood across two of them and must not stand there joins them."""
    joined = "".join(run[1])
    normal = form.text(joined)
    return run if normal == joined else [run[0], [normal], *run[2:]]


async def _play(entry: Entry, emit: Emit, form: NormalForm) -> LLMResponse:
    for delta in deltas_of(form.own(entry.deltas)):
        # Lets other tasks run between the pieces, as a model over a wire does.
        await asyncio.sleep(0)
        emit(delta)
    await asyncio.sleep(0)
    if "error" in entry.outcome:
        raise error_of(form.own(entry.outcome["error"]))
    if "cancelled" in entry.outcome:
        await asyncio.get_running_loop().create_future()
    return response_of(form.own(entry.outcome["reply"]))


def _call_of(entry: Entry) -> RecordedCall:
    reply, error = entry.outcome.get("reply"), entry.outcome.get("error")
    return RecordedCall(
        request_of(copy.deepcopy(entry.request)),
        tuple(deltas_of(entry.deltas)),
        None if reply is None else response_of(reply),
        None if error is None else error_of(error),
    )


def _listed(lines: tuple[str, ...]) -> str:
    return ":" + "".join(f"\n- {line}" for line in lines)
