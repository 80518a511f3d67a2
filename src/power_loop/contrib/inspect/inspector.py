"""Is the inspector: a page on loopback that shows the sessions of a store, and answers and stops them where it may."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from types import TracebackType
from typing import Any

from power_loop import Answer, Approve, Deny, Give, PowerLoopError, StatefulAgentLoop
from power_loop.contrib.inspect import views
from power_loop.contrib.inspect.door import SAFETY, Door
from power_loop.contrib.inspect.http_server import HttpServer, RefusedRequest, Request, Response
from power_loop.contrib.inspect.live import Ears
from power_loop.contrib.inspect.prompts import Requests, prompt_view
from power_loop.errors import ConfigError, InputError, RunNotFoundError, StoreError
from power_loop.workflow import cancel_run, resume_run, signal_run

_JSON = "application/json"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/inspector.js": ("inspector.js", "text/javascript; charset=utf-8"),
    "/inspector.css": ("inspector.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
# A refusal comes at once; what takes longer is a turn that runs, whose rows say the rest.
_REFUSAL_S = 0.3
# Behind every other hook, so that what it sees is what goes out.
_LAST = 2**31


class Inspector:
    """Serves the page; `url` is what is opened in a browser. Made by `attach_inspector` and `power-loop inspect`."""

    def __init__(
        self, loop: StatefulAgentLoop, *, can_write: bool = False, can_drive: bool = False, is_attached: bool = False
    ) -> None:
        """Show the store of `loop`. With `can_write` the page may fork and cancel, with `can_drive` also resume and
        answer, for which `loop` has to be the application's own. `is_attached` hears the events of `loop`."""
        self._loop = loop
        self._can_write = can_write
        self._can_drive = can_write and can_drive
        self._is_attached = is_attached
        self._door = Door()
        self._server = HttpServer(self._answer, headers=SAFETY)
        self._requests = Requests()
        self._ears: Ears | None = None
        self._hook: Any = None
        self._driven: set[asyncio.Task[Any]] = set()
        self._reads: Mapping[str, Callable[[Request], Awaitable[Any]]] = {
            "/api/about": self._about,
            "/api/overview": self._overview,
            "/api/sessions": self._sessions,
            "/api/session": self._session,
            "/api/tree": self._tree,
            "/api/message": self._message,
            "/api/prompt": self._prompt,
        }
        self._writes: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[Response]]] = {
            "/api/fork": self._fork,
            "/api/cancel": self._cancel,
            "/api/resume": self._resume,
            "/api/signal": self._signal,
        }

    @property
    def url(self) -> str:
        """The address with its token: whoever has it sees everything that the inspector shows."""
        return self._door.address

    def make_link(self) -> str:
        """Return an address that opens once, for where others can read it, such as a browser's command line."""
        return self._door.make_link()

    async def start(self, port: int = 0) -> Inspector:
        """Begin to serve on a port of loopback, a free one if that is 0. Raises `config.invalid`."""
        try:
            await self._server.start(port)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"port {port!r} cannot be served: {error}; give another one, or 0 for a free one"
            ) from error
        self._door.port = self._server.port
        self._ears = Ears(self._loop.event_bus if self._is_attached else None)
        if self._is_attached:
            self._hook = self._loop.hooks.add("llm.before", self._requests.see, name=views.OWN_HOOK, order=_LAST)
        return self

    async def aclose(self) -> None:
        """Serve no longer. A turn that the page drives here is cancelled."""
        if self._hook is not None:
            self._hook.remove()
        if self._ears is not None:
            self._ears.close()
        await self._server.aclose()
        for task in self._driven:
            task.cancel()
        await asyncio.gather(*self._driven, return_exceptions=True)

    async def __aenter__(self) -> Inspector:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # ---- answers ----

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._routed(request)
        except RefusedRequest as refused:
            return _value({"error": str(refused), "code": None}, status=refused.status)
        except PowerLoopError as error:
            status = 500 if isinstance(error, StoreError) else 409 if request.method == "POST" else 404
            return _value({"error": error.message, "code": error.code}, status=status)

    async def _routed(self, request: Request) -> Response:
        self._door.check_name(request)
        if request.path in _FILES:
            _check_method(request, "GET")
            name, kind = _FILES[request.path]
            return Response(200, _file(name), kind)
        if request.path == "/api/enter":
            _check_method(request, "POST")
            self._door.check_origin(request)
            cookie = self._door.give_pass(_object(request.body).get("token"))
            return Response(204, headers={"Set-Cookie": cookie})
        self._door.check_pass(request)
        if request.path == "/api/live":
            _check_method(request, "GET")
            return self._live(request)
        if request.path in self._reads:
            _check_method(request, "GET")
            return _value(await self._reads[request.path](request))
        if request.path in self._writes:
            _check_method(request, "POST")
            self._door.check_origin(request)
            return await self._writes[request.path](_object(request.body))
        raise RefusedRequest(404, "there is nothing at this address")

    async def _about(self, request: Request) -> Any:
        return {"can_write": self._can_write, "can_drive": self._can_drive, "is_attached": self._is_attached}

    async def _overview(self, request: Request) -> Any:
        return await views.overview(self._loop, is_attached=self._is_attached or self._can_drive)

    async def _sessions(self, request: Request) -> Any:
        limit = _number(request, "limit", views.PAGE_SESSIONS, most=views.MAX_SESSIONS)
        return await views.sessions_view(self._loop, cursor=request.query.get("cursor"), limit=limit or 1)

    async def _session(self, request: Request) -> Any:
        return await views.session_view(
            self._loop,
            _session_id(request),
            after_seq=_number(request, "after", None),
            before_seq=_number(request, "before", None),
        )

    async def _tree(self, request: Request) -> Any:
        return await views.tree_view(self._loop, _session_id(request))

    async def _message(self, request: Request) -> Any:
        return await views.message_view(self._loop, _session_id(request), _number(request, "seq", 1) or 1)

    async def _prompt(self, request: Request) -> Any:
        return await prompt_view(self._loop, self._requests, _session_id(request), _number(request, "call", 0) or 0)

    def _live(self, request: Request) -> Response:
        assert self._ears is not None
        session_id = request.query.get("session")
        limit = _number(request, "limit", views.PAGE_SESSIONS, most=views.MAX_SESSIONS) or 1

        async def mark() -> object:
            listed = await views.mark_of_sessions(self._loop, limit=limit)
            return listed, session_id and await views.mark_of_session(self._loop, session_id)

        return Response(200, type="text/event-stream", pieces=self._ears.pieces(session_id, mark))

    # ---- writes ----

    async def _fork(self, asked: Mapping[str, Any]) -> Response:
        self._check_write(self._can_write)
        store: Any = await self._loop.get_store()
        return _value({"session_id": await store.fork_session(_text(asked, "session_id"), at=asked.get("at"))})

    async def _cancel(self, asked: Mapping[str, Any]) -> Response:
        self._check_write(self._can_write)
        session_id = _text(asked, "session_id")
        cancel = cancel_run if await self._is_run(session_id) else StatefulAgentLoop.cancel
        return await self._drive(session_id, cancel(self._loop, session_id, reason="cancelled in the inspector"))

    async def _resume(self, asked: Mapping[str, Any]) -> Response:
        self._check_write(self._can_drive)
        given = asked.get("answers") or {}
        if not isinstance(given, dict):
            raise RefusedRequest(400, "answers are given by the id of the call")
        session_id = _text(asked, "session_id")
        if await self._is_run(session_id):
            return await self._drive(session_id, resume_run(self._loop, None, session_id))
        answers = {call_id: _answer_of(one) for call_id, one in given.items()}
        return await self._drive(session_id, self._loop.resume(session_id, answers=answers))

    async def _signal(self, asked: Mapping[str, Any]) -> Response:
        self._check_write(self._can_drive)
        run_id, name = _text(asked, "session_id"), _text(asked, "name")
        return await self._drive(run_id, signal_run(self._loop, run_id, name, asked.get("value")))

    async def _is_run(self, session_id: str) -> bool:
        store: Any = await self._loop.get_store()
        try:
            await store.get_run(session_id)
        except RunNotFoundError:
            return False
        return True

    def _check_write(self, may: bool) -> None:
        if not may:
            more = " --app my_app:make_loop" if self._can_write else ""
            raise RefusedRequest(403, f"this inspector only looks: start it with --write{more}")

    async def _drive(self, session_id: str, work: Awaitable[Any]) -> Response:
        """Do what may take as long as a turn; what fails later is told to the pages that show the session."""
        task = asyncio.ensure_future(work)
        self._driven.add(task)
        done, _ = await asyncio.wait({task}, timeout=_REFUSAL_S)
        if done:
            self._driven.discard(task)
            await task
            return _value({"is_done": True})

        def ended(task: asyncio.Task[Any]) -> None:
            self._driven.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None and self._ears is not None:
                text = error.message if isinstance(error, PowerLoopError) else f"{type(error).__name__}: {error}"
                self._ears.notify(session_id, text, getattr(error, "code", None))

        task.add_done_callback(ended)
        return _value({"is_done": False}, status=202)


async def attach_inspector(loop: StatefulAgentLoop, *, write: bool = False, port: int = 0) -> Inspector:
    """Serve the inspector of a loop from its own process: its events stream into the page as they happen.

    The page is at `inspector.url`, on loopback only; `await inspector.aclose()` ends it. It only looks unless `write`
    lets it fork, cancel, resume and answer. Raises `config.invalid` for a port that cannot be had.
    """
    return await Inspector(loop, can_write=write, can_drive=write, is_attached=True).start(port)


def _answer_of(value: Any) -> Answer:
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == "approve":
        return Approve(value.get("arguments"))
    if kind == "deny":
        return Deny(str(value.get("reason") or ""))
    if kind == "give":
        return Give(value.get("result"), bool(value.get("is_error")))
    raise RefusedRequest(400, "an answer is of the kind approve, deny or give")


def _check_method(request: Request, method: str) -> None:
    if request.method != method:
        raise RefusedRequest(405, f"this address takes {method}")


def _session_id(request: Request) -> str:
    return request.query.get("session", "")


def _number(request: Request, name: str, default: int | None, *, most: int = 2**53) -> int | None:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 16:
        raise RefusedRequest(400, f"{name} is no number")
    return min(int(text), most)


def _text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str):
        raise InputError(f"{name} is {value!r:.80}: give text")
    return value


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RefusedRequest(400, "give a JSON object")
    return value


def _value(value: Any, *, status: int = 200) -> Response:
    return Response(status, json.dumps(value).encode("ascii"), _JSON)


@functools.cache
def _file(name: str) -> bytes:
    return resources.files(__package__).joinpath("page").joinpath(name).read_bytes()
