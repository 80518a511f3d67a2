"""Lets a worker call a model through its parent: it asks over the pipe, and has neither the key nor the network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from power_loop.contracts import errors
from power_loop.contracts.errors import LLMError
from power_loop.contracts.llm import DeltaKind, Emit, LLMDelta, LLMRequest, LLMResponse, LLMService, ModelInfo, Usage
from power_loop.contracts.record_values import InvalidValueError, record_of, value_of
from power_loop.core.stray import said
from power_loop.workflow.worker_frames import BrokenFrameError, Frame, member

#: Model calls of one leaf that may run at the same time, and that it may make in all.
MAX_OPEN_CALLS, MAX_CALLS = 8, 10_000
_ERROR_FIELDS = ("provider", "model", "status", "provider_code", "retry_after_s", "may_retry")

Send = Callable[[Frame], Awaitable[None]]


class ProxyLLM:
    """Is a model on the other side of the pipe."""

    def __init__(self, info: ModelInfo, leaf: str, send: Send) -> None:
        self._info = info
        self._leaf = leaf
        self._send = send
        self._count = 0
        self._calls: dict[int, tuple[asyncio.Future[LLMResponse], Emit]] = {}

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        return self._info

    async def generate(self, request: LLMRequest, emit: Emit) -> LLMResponse:
        """Have the parent make the call. Raises the `LLMError` that it met."""
        self._count += 1
        number = self._count
        reply: asyncio.Future[LLMResponse] = asyncio.get_running_loop().create_future()
        self._calls[number] = (reply, emit)
        try:
            await self._send({"type": "model", "leaf": self._leaf, "call": number, "request": value_of(request)})
            return await reply
        except asyncio.CancelledError:
            await self._send({"type": "drop", "leaf": self._leaf, "call": number})
            raise
        finally:
            del self._calls[number]

    def take(self, frame: Frame) -> None:
        """Take what the parent says about a call."""
        reply, emit = self._calls.get(member(frame, "call", int), (None, None))
        if reply is None or emit is None or reply.done():
            return  # it was dropped meanwhile
        if frame["type"] == "deltas":
            for kind, text, index, name in frame["deltas"]:
                emit(LLMDelta(DeltaKind(kind), text, index, name))
        elif frame["type"] == "reply":
            reply.set_result(record_of(LLMResponse, frame["response"]))
        else:
            reply.set_exception(error_of(frame["error"]))


class ModelDesk:
    """Makes the model calls of one leaf for it, with the model that its run lends."""

    def __init__(self, llm: LLMService, send: Send) -> None:
        self._llm = llm
        self._send = send
        self._tasks: dict[int, asyncio.Task[None]] = {}
        # The calls of the model that run for these tasks.
        self._made: dict[int, asyncio.Future[LLMResponse]] = {}
        self._asked = 0
        #: What the replies took that the model gave, whatever the leaf says of it.
        self.usage = Usage()

    def ask(self, frame: Frame) -> None:
        """Begin a call. Raises `BrokenFrameError` for a request that is none, or one too many."""
        number = member(frame, "call", int)
        self._asked += 1
        if number != self._asked or self._asked > MAX_CALLS or len(self._tasks) >= MAX_OPEN_CALLS:
            raise BrokenFrameError(f"model call {number} is out of turn, or one too many")
        try:
            request = record_of(LLMRequest, frame.get("request"))
        except InvalidValueError as error:
            raise BrokenFrameError(f"a request is none: {error}") from error
        task = asyncio.get_running_loop().create_task(self._answer(number, request))
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._tasks.pop(number))

    def drop(self, frame: Frame) -> None:
        """End a call that the leaf does not wait for any more."""
        made = self._made.get(member(frame, "call", int))
        if made is not None:
            made.cancel()

    async def aclose(self) -> None:
        """End the calls that run, and return when they have ended."""
        for task in self._tasks.values():
            task.cancel()
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _answer(self, number: int, request: LLMRequest) -> None:
        deltas = _Deltas(number, self._send)
        made = self._made[number] = asyncio.ensure_future(self._llm.generate(request, deltas.put))
        try:
            await asyncio.wait((made,))
            await deltas.flush()
            if made.cancelled():
                return  # it was dropped, and nobody waits for it
            error = made.exception()
            if error is None:
                response = made.result()
                self.usage = self.usage + (response.usage or Usage())
                frame = {"type": "reply", "call": number, "response": value_of(response)}
            else:
                frame = self._failed(number, error)
            try:
                await self._send(frame)
            except BrokenFrameError as too_large:
                await self._send(self._failed(number, too_large))
        finally:
            made.cancel()
            await deltas.aclose()
            await asyncio.wait((made,))
            del self._made[number]

    def _failed(self, number: int, error: BaseException) -> Frame:
        # The model and the hooks around it are strangers, and may raise anything.
        failure = error if isinstance(error, LLMError) else LLMError(said(error), model=self._llm.info.model)
        return {"type": "failed", "call": number, "error": error_value(failure)}


class _Deltas:
    """Sends the pieces of a reply, together those that come while others are on their way."""

    def __init__(self, call: int, send: Send) -> None:
        self._call = call
        self._send = send
        self._waiting: list[list[Any]] = []
        self._sender: asyncio.Task[None] | None = None

    def put(self, delta: LLMDelta) -> None:
        self._waiting.append([delta.kind.value, delta.text, delta.index, delta.name])
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(self._send_all())

    async def flush(self) -> None:
        if self._sender is not None:
            await self._sender
        await self._send_all()

    async def aclose(self) -> None:
        if self._sender is not None and not self._sender.done():
            self._sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sender

    async def _send_all(self) -> None:
        while self._waiting:
            deltas, self._waiting = self._waiting, []
            await self._send({"type": "deltas", "call": self._call, "deltas": deltas})


def error_value(error: LLMError) -> dict[str, Any]:
    """Return a failed model call as JSON."""
    fields = {name: getattr(error, name) for name in _ERROR_FIELDS}
    return {"code": error.code, "message": error.message, **{k: v for k, v in fields.items() if v is not None}}


def error_of(value: dict[str, Any]) -> LLMError:
    """Return the failure behind what `error_value` gave."""
    given = {name: value[name] for name in _ERROR_FIELDS if name in value}
    return _KINDS.get(value["code"], LLMError)(value["message"], **given)


# A class of somebody's own comes over as `llm.failed`, or as what its code says.
_KINDS: dict[str, type[LLMError]] = {
    one.code: one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, LLMError)
}
