"""Replays a recorded session with today's code: the recorded answers are given again as long as it asks the same.

Every send is driven anew in a database of the replay's own, from the log as it stood before it, so that one send never
suffers from another. No model is asked and no tool runs; what the store was told of a call is what it gives again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from power_loop.agent.config import LoopConfig
from power_loop.contracts.clock import SystemClock
from power_loop.contracts.errors import (
    ConfigError,
    InputError,
    LLMInvalidRequestError,
    OutputError,
    PowerLoopError,
    ResultPrunedError,
)
from power_loop.contracts.folding import Folded, FoldTask
from power_loop.contracts.llm import Emit, LLMRequest, LLMResponse, LLMRetryPolicy, ModelInfo, StopReason
from power_loop.contracts.messages import ContentPart, Message, Role
from power_loop.contracts.records import MessageRecord, ModelCallRecord, SendRecord, SessionRecord
from power_loop.contracts.replays import ReplayDifference, Replayed
from power_loop.contracts.results import StatefulResult
from power_loop.contracts.states import Effect, SendStatus, WaitKind
from power_loop.contracts.tools import ToolContext, ToolDefinition, ToolResult, Waiting
from power_loop.core.context.fold_texts import inputs_of
from power_loop.core.context.recorded import Recording, compare
from power_loop.core.turn.options import SendOptions
from power_loop.runtime.store.store import SqlSessionStore
from power_loop.tools.registry import ToolRegistry

_PAGE = 500
#: A send that rests like this was stopped from outside: where it would have gone on is not known.
_STOPPED = frozenset(SendStatus) - {
    SendStatus.COMPLETED,
    SendStatus.TRUNCATED,
    SendStatus.REFUSED,
    SendStatus.CONTENT_FILTERED,
    SendStatus.EMPTY,
    SendStatus.ROUNDS_EXCEEDED,
    SendStatus.TOOL_CALLS_EXCEEDED,
    SendStatus.OUTPUT_INVALID,
}

#: Drives one send in a session of a replay's own: session, content, tools, options, model, config.
Drive = Callable[["ReplayedSend"], Awaitable[StatefulResult]]
#: Leaves a further input for a session whose turn runs.
FollowUp = Callable[[str, tuple[ContentPart, ...]], Awaitable[Any]]


@dataclass
class ReplayedSend:
    """Is one send as it is driven again."""

    session_id: str
    content: tuple[ContentPart, ...]
    options: SendOptions
    tools: ToolRegistry
    config: LoopConfig
    model: RecordedModel


@dataclass
class _Recorded:
    """Is everything that was recorded of a session."""

    session: SessionRecord
    recording: Recording
    calls: dict[int, list[ModelCallRecord]]
    whole_results: dict[str, tuple[ContentPart, ...]]
    messages: dict[int, list[MessageRecord]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for record in self.recording.messages:
            self.messages.setdefault(record.send_index, []).append(record)


class RecordedModel:
    """Is the model of one send: it gives the recorded reply to whoever asks what was asked, and stops at the first who
    does not."""

    def __init__(
        self, info: ModelInfo, recorded: _Recorded, calls: list[ModelCallRecord], send: SendRecord, upto: int | None
    ) -> None:
        self.info = info
        self.follow_up: FollowUp | None = None
        self.session_id = ""
        self.asked = 0
        self.is_over = False
        self.difference: ReplayDifference | None = None
        self.unchecked: dict[str, None] = {}
        self.requests: dict[int, LLMRequest] = {}
        self._recorded = recorded
        self._calls = calls
        self._send = send
        self._upto = upto
        self._replies = {one.seq: one for one in recorded.messages.get(send.index, ())}

    @property
    def left(self) -> list[ModelCallRecord]:
        """The recorded calls that nobody asked for yet, up to where the replay ends."""
        calls = self._calls[self.asked :]
        return calls if self._upto is None else [one for one in calls if one.reply_seq <= self._upto]

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Give the next recorded reply."""
        if self.asked == len(self._calls):
            if self._send.status not in _STOPPED:
                self._differs(None, f"the model is asked once more, where the send had ended {self._send.status.value}")
            raise self._over("nothing more was recorded")
        call = self._calls[self.asked]
        if self._upto is not None and call.reply_seq > self._upto:
            raise self._over("the replay ends here")
        self.requests[call.reply_seq] = replace(request, messages=tuple(request.messages))
        compared = compare(call, request, self._recorded.recording)
        self.unchecked |= dict.fromkeys(compared.unchecked)
        if compared.lines:
            self._differs(call.reply_seq, *compared.lines)
            raise self._over("it is asked something else")
        self.asked += 1
        await self._leave_inputs(call)
        record = self._replies[call.reply_seq]
        return LLMResponse(record.message, StopReason(call.call.stop), call.call.usage, model=call.call.model)

    async def _leave_inputs(self, call: ModelCallRecord) -> None:
        """Leave the inputs that came while the turn ran, so that it takes them in where it had."""
        behind = self._calls[self.asked].reply_seq if self.asked < len(self._calls) else None
        is_repair = (
            bool(self._send.options.get("output_schema")) and not self._replies[call.reply_seq].message.tool_calls
        )
        for record in self._replies.values():
            if record.message.role is not Role.USER or record.seq < call.reply_seq:
                continue
            if behind is not None and record.seq > behind:
                break
            if is_repair:
                is_repair = False  # the kernel asks for it by itself
            elif self.follow_up is not None:
                await self.follow_up(self.session_id, _content(record.message))

    def _differs(self, call: int | None, *lines: str) -> None:
        self.difference = self.difference or ReplayDifference(self._send.index, call, lines)

    def ends(self, status: SendStatus) -> None:
        """Compare how the send came to rest with how it had."""
        if self.is_over or self.difference is not None:
            return
        if self.left:
            seq = self.left[0].reply_seq
            self._differs(seq, f"the send ends {status.value}, where the model had been asked once more")
        elif self._send.status not in _STOPPED and status is not self._send.status and not self._is_cut:
            self._differs(None, f"the send ends {status.value}, and had ended {self._send.status.value}")

    @property
    def _is_cut(self) -> bool:
        return self.asked < len(self._calls)

    def _over(self, why: str) -> PowerLoopError:
        self.is_over = True
        return LLMInvalidRequestError(f"the replay has stopped: {why}")


class _RecordedFolds:
    """Gives again the summaries that were recorded."""

    def __init__(self, recorded: _Recorded) -> None:
        self._by_seq = {fold.to_seq: fold for fold in recorded.recording.folds}

    async def fold(self, task: FoldTask) -> Folded:
        """Return the recorded summary. Raises `config.invalid` where none was made."""
        fold = self._by_seq.get(task.to_seq)
        if fold is None:
            raise ConfigError(f"no fold up to message {task.to_seq} was recorded")
        return Folded(inputs_of(fold.summary)[0], model=fold.model, model_calls=fold.model_calls, usage=fold.usage)


async def replay(
    archive: bytes,
    store: SqlSessionStore,
    *,
    info: ModelInfo,
    tools: ToolRegistry,
    config: LoopConfig,
    upto: int | None,
    drive: Drive,
) -> Replayed:
    """Replay the session of an archive in a store of the replay's own, which the caller closes."""
    session_id = await store.import_session(archive)
    recorded = await _read(store, session_id)
    if recorded.session.agent is not None:
        raise InputError(
            f"session {session_id!r} is that of a sub-agent, whose limits are its parent's: replay the parent's, where"
            " the call of the sub-agent gives its recorded answer"
        )
    quiet = _quiet(config, recorded)
    unchecked: dict[str, None] = {}
    requests: dict[int, LLMRequest] = {}
    asked = 0
    difference: ReplayDifference | None = None
    for index in sorted(recorded.calls):
        send = await store.get_send(session_id, index=index)
        if send is None or (upto is not None and recorded.calls[index][0].reply_seq > upto):
            continue
        model = RecordedModel(info, recorded, recorded.calls[index], send, upto)
        first = next((one for one in recorded.messages.get(index, ()) if one.seq == send.first_seq), None)
        fork_id = None if first is None else await _stand(store, recorded, send)
        if first is None or fork_id is None:
            unchecked[f"send {index}, whose messages were pruned"] = None
            continue
        model.session_id = fork_id
        options = SendOptions.from_json(send.options)
        offered, missing = _offered(tools, options, recorded)
        if missing:
            difference = ReplayDifference(index, None, (f"tools that it was begun with are not here: {missing}",))
            break
        ended = await _ended(drive(ReplayedSend(fork_id, _content(first.message), options, offered, quiet, model)))
        if ended is not None:
            model.ends(ended)
        asked += model.asked
        requests |= model.requests
        unchecked |= model.unchecked
        difference = model.difference
        if difference is not None:
            break
    return Replayed(session_id, asked, difference, tuple(unchecked), requests)


async def _ended(turn: Awaitable[StatefulResult]) -> SendStatus | None:
    """Return how a send came to rest; None where the replay stopped it, or its model would have failed."""
    try:
        return (await turn).status
    except OutputError:
        return SendStatus.OUTPUT_INVALID
    except LLMInvalidRequestError:
        return None


async def _stand(store: SqlSessionStore, recorded: _Recorded, send: SendRecord) -> str | None:
    """Return a session that stands as the recorded one did before a send; None where it cannot be made any more."""
    if send.first_seq > 1:
        try:
            return await store.fork_session(recorded.session.id, at=send.first_seq - 1)
        except InputError:
            return None
    session_id = SystemClock().new_id("sess")
    await store.create_session(
        session_id, system_prompt=recorded.session.system_prompt, metadata=recorded.session.metadata
    )
    return session_id


async def _read(store: SqlSessionStore, session_id: str) -> _Recorded:
    session = await store.get_session(session_id)
    view = await store.read_view(session_id, projected=True)
    recording = Recording(await store.get_messages(session_id), await store.get_folds(session_id), view.projected)
    calls: dict[int, list[ModelCallRecord]] = {}
    before: int | None = None
    while page := await store.get_model_calls(session_id, before_seq=before, limit=_PAGE):
        for one in page:
            calls.setdefault(one.send_index, []).insert(0, one)
        before = page[-1].reply_seq
    whole: dict[str, tuple[ContentPart, ...]] = {}
    for record in recording.messages:
        result = record.message.tool_result
        if result is None:
            continue
        try:
            content = await store.get_tool_result(session_id, result.call_id)
        except (ResultPrunedError, PowerLoopError):
            content = None
        whole[result.call_id] = result.content if content is None else content
    return _Recorded(session, recording, calls, whole)


def _content(message: Message) -> tuple[ContentPart, ...]:
    return message.parts  # type: ignore[return-value]  # a user's message holds nothing else


def _quiet(config: LoopConfig, recorded: _Recorded) -> LoopConfig:
    """Return a configuration that shapes requests as the loop's own does, and touches nothing outside of them."""
    compaction = config.compaction
    if compaction is not None:
        compaction = replace(compaction, strategy=_RecordedFolds(recorded))
    return replace(
        config,
        compaction=compaction,
        retry=LLMRetryPolicy(max_attempts=1),
        memory=None,
        live=(),
        permissions=None,
        budget=None,
        prices=None,
    )


def _offered(tools: ToolRegistry, options: SendOptions, recorded: _Recorded) -> tuple[ToolRegistry, str]:
    """Return today's tools of a send, which give what was recorded, and the names of those that are not here."""
    names = tools.names if options.tools is None else options.tools
    missing = [name for name in names if name not in tools]
    results = _results(recorded)
    chosen = [_silenced(one, results) for one in tools if one.name in names]
    return ToolRegistry(chosen), ", ".join(missing)


def _results(recorded: _Recorded) -> Mapping[str, ToolResult]:
    found = {}
    for record in recorded.recording.messages:
        result = record.message.tool_result
        if result is not None:
            found[result.call_id] = ToolResult(recorded.whole_results[result.call_id], result.is_error)
    return found


def _silenced(definition: ToolDefinition, results: Mapping[str, ToolResult]) -> ToolDefinition:
    """Return a tool that a model sees as it is today, and that gives the recorded results and does nothing."""

    async def give(power_loop_call: ToolContext, **arguments: Any) -> Any:
        found = results.get(power_loop_call.call_id)
        return Waiting("no result was recorded", WaitKind.RESULT) if found is None else found

    return ToolDefinition(
        definition.name,
        definition.description,
        definition.input_schema,
        give,
        effect=Effect.READ,
        timeout_s=None,
        max_result_chars=definition.max_result_chars,
        takes_context="power_loop_call",
        project=definition.project,
        guidance=definition.guidance,
    )
