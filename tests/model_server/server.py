"""The server: listens, records what arrives, checks it as the provider would, and answers from the script."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, cast

from .anthropic_format import anthropic_error, anthropic_frames, anthropic_headers, anthropic_models, anthropic_whole
from .anthropic_rules import check_anthropic_request
from .bench import BenchResponder
from .connection import Connection
from .identity import Identity, Ledger, token
from .openai_format import openai_error, openai_frames, openai_headers, openai_models, openai_whole
from .openai_rules import Problem, check_openai_request
from .reply import Reply, ScriptError, encode_json
from .request import Request, Wire
from .script import Answer, Conduct, Failure, Responder, Script, Step

# How long a test waits for something that should come at once, on a machine that may have much else to do.
WAIT_S = 60.0


class ModelServer:
    """A model behind both wire formats, on this machine.

    `script` is a list of answers given in order (each an `Answer`, a `Failure`, or a function of the request that
    gives one), or one such function for all requests. A request that breaks a rule of its provider gets the
    provider's 400 and uses up no answer. `models` are listed by `/v1/models`. `api_key` refuses other keys when
    given. `validate=False` checks nothing; `strict=False` lets unknown fields pass; `reasoning_fields` and
    `alternates` are the policies of `check_openai_request`.
    `seed` makes the ids repeatable. `log_path` gets one JSON line an event. `bench` is the zero-latency endpoint.
    """

    def __init__(
        self,
        script: Script = (),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        models: tuple[str, ...] = ("gpt-test", "claude-test"),
        api_key: str | None = None,
        validate: bool = True,
        strict: bool = True,
        reasoning_fields: str = "any",
        alternates: bool = False,
        seed: str | None = None,
        log_path: str | os.PathLike[str] | None = None,
        bench: bool = False,
    ) -> None:
        """Nothing listens yet: `start`, or `async with`."""
        self.requests: list[Request] = []
        self.connections_total = 0
        self.connections_peak = 0
        self.served_at_once = 0
        self.hanging: list[str] = []
        self.errors: list[BaseException] = []
        self.ledger = Ledger()
        self._script = script
        self._next = 0
        self._host, self._port = host, port
        self._models = models
        self._api_key = api_key
        self._validate, self._strict, self._reasoning_fields = validate, strict, reasoning_fields
        self._alternates = alternates
        self._seed = seed if seed is not None else os.urandom(8).hex()
        self._log_path = log_path
        self._log: IO[str] | None = None
        self._bench = BenchResponder() if bench else None
        self._listener: asyncio.Server | None = None
        self._open: set[Connection] = set()
        self._gates: dict[str, asyncio.Event] = {}
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # --- life ---

    async def __aenter__(self) -> ModelServer:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop; a script that was itself wrong fails the test here, if nothing else did."""
        await self.stop()
        if self.errors and exc_info[0] is None:
            raise self.errors[0]

    async def start(self) -> None:
        """Listen."""
        if self._log_path is not None:
            self._log = _open_log(self._log_path)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self), self._host, self._port, backlog=1024)
        self._port = self._listener.sockets[0].getsockname()[1]
        self._write_log(event="listening", url=self.url)

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._listener is not None:
            self._listener.close()
        self.release()
        for connection in list(self._open):
            connection.abort()
        await self.wait_until(lambda: not self._open)
        if self._log is not None:
            self._log.close()

    @property
    def url(self) -> str:
        """The root address."""
        return f"http://{self._host}:{self._port}"

    @property
    def port(self) -> int:
        """The port."""
        return self._port

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return self.url + "/v1"

    @property
    def anthropic_base_url(self) -> str:
        """What an Anthropic client takes as its base URL."""
        return self.url

    @property
    def connections_open(self) -> int:
        """How many connections are open."""
        return len(self._open)

    # --- what a test does with it ---

    def extend(self, *steps: Step | Responder) -> None:
        """Add answers to the end of the script."""
        self._script = [*cast("Sequence[Step | Responder]", self._script), *steps]

    @property
    def answers_left(self) -> int:
        """How many answers of a list script were not asked for."""
        return len(cast("Sequence[Any]", self._script)) - self._next

    def release(self, gate: str | None = None) -> None:
        """Let everything go on that hangs at this gate; at every gate without a name."""
        for name, event in list(self._gates.items()):
            if gate is None or name == gate:
                event.set()
                del self._gates[name]

    async def wait_until(self, claim: Callable[[], bool], *, timeout_s: float = WAIT_S) -> None:
        """Wait until a claim about this server is true; it is looked at whenever something happens here."""
        if claim():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((claim, future))
        try:
            await asyncio.wait_for(future, timeout_s)
        except asyncio.TimeoutError:
            raise TimeoutError(
                f"the model server waited {timeout_s} s in vain: {len(self.requests)} requests, {self.connections_open}"
                f" connections open, hanging: {self.hanging!r}, errors: {self.errors!r}"
            ) from None
        finally:
            self._waiters = [waiter for waiter in self._waiters if waiter[1] is not future]

    async def wait_for_requests(self, count: int, *, timeout_s: float = WAIT_S) -> Request:
        """Wait until so many requests have arrived; returns the one of that number."""
        await self.wait_until(lambda: len(self.requests) >= count, timeout_s=timeout_s)
        return self.requests[count - 1]

    async def wait_for_hang(self, count: int = 1, *, timeout_s: float = WAIT_S) -> None:
        """Wait until so many replies hang."""
        await self.wait_until(lambda: len(self.hanging) >= count, timeout_s=timeout_s)

    async def wait_for_open_connections(self, count: int, *, timeout_s: float = WAIT_S) -> None:
        """Wait until exactly so many connections are open."""
        await self.wait_until(lambda: self.connections_open == count, timeout_s=timeout_s)

    # --- what the connections report ---

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        self.connections_total += 1
        connection.number = self.connections_total
        self._open.add(connection)
        self.connections_peak = max(self.connections_peak, len(self._open))
        self._happened(event="open", connection=connection.number)

    def closed(self, connection: Connection) -> None:
        """A connection has ended."""
        self._open.discard(connection)
        self._happened(event="close", connection=connection.number)

    def respond_at_once(self, head: bytes, body: bytes) -> bytes | None:
        """The whole response of the benchmark endpoint, None where the script answers."""
        if self._bench is None:
            return None
        self.served_at_once += 1
        return self._bench.respond(head, body)

    def record(self, connection: Connection, head: bytes, body: bytes) -> Request:
        """Keep a request that has arrived."""
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        pairs = (line.split(":", 1) for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        request = Request(len(self.requests) + 1, connection.number, method, path.split("?")[0], headers, body)
        if method == "POST":
            self.requests.append(request)
            request.problems = self._problems(request)
            self._happened(
                event="request",
                number=request.number,
                connection=connection.number,
                path=path,
                headers=headers,
                body=request.body,
                problems=request.problems,
            )
        return request

    def finished(self, request: Request) -> None:
        """A reply has left whole."""
        request.finished = True
        self._happened(event="answered", number=request.number, status=request.status)

    def failed(self, exc: Exception) -> None:
        """The script could not be carried out."""
        self.errors.append(exc)
        self._happened(event="error", error=repr(exc))

    async def hang(self, gate: str) -> None:
        """Stay until the gate is released."""
        self.hanging.append(gate)
        self._happened(event="hang", gate=gate)
        try:
            await self._gates.setdefault(gate, asyncio.Event()).wait()
        finally:
            self.hanging.remove(gate)
            self._happened()

    def _happened(self, **fields: Any) -> None:
        if fields:
            self._write_log(**fields)
        for claim, future in self._waiters:
            if not future.done() and claim():
                future.set_result(None)

    def _write_log(self, **fields: Any) -> None:
        if self._log is not None and not self._log.closed:
            self._log.write(json.dumps({"at_s": time.time(), **fields}) + "\n")
            self._log.flush()

    # --- answers ---

    async def decide(self, request: Request) -> tuple[Reply, Conduct, str]:
        """The reply to a request, what the connection does, and at which gate it hangs if it does."""
        refusal = self._refusal(request)
        if refusal is None and request.method == "GET":
            return self._get(request), Conduct.ANSWER, ""
        step = refusal or await self._next_step(request)
        if isinstance(step, Failure):
            return self._failure_reply(request, step), step.conduct, step.gate
        return self._answer_reply(request, step), Conduct.ANSWER, ""

    def _refusal(self, request: Request) -> Failure | None:
        """What stands before any answer: a wrong address, a missing header, a broken rule."""
        known = {"GET": ("/health", "/v1/models"), "POST": ("/v1/chat/completions", "/v1/messages")}
        if request.path not in known.get(request.method, ()):
            texts = (f"Invalid URL ({request.method} {request.path})", "Not found")
            return Failure(404, ("invalid_request_error", "not_found_error"), texts)
        if request.method == "GET":
            return None
        if self._api_key is not None:
            bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
            if self._api_key not in (bearer, request.headers.get("x-api-key")):
                texts = ("Incorrect API key provided.", "invalid x-api-key")
                kinds = ("invalid_request_error", "authentication_error")
                return Failure(401, kinds, texts, code="invalid_api_key")
        if request.problems:
            problem = request.problems[0]
            param, code = (problem.param, problem.code) if isinstance(problem, Problem) else (None, None)
            kinds = ("invalid_request_error", "invalid_request_error")
            return Failure(400, kinds, (str(problem), str(problem)), code=code, param=param)
        return None

    def _problems(self, request: Request) -> list[str]:
        if not self._validate:
            return []
        if request.wire is Wire.OPENAI:
            if request.body is None:
                return [Problem("We could not parse the JSON body of your request.")]
            unreadable = _has_lone_surrogates(request)
            if unreadable:
                return [
                    Problem(
                        "Invalid body: failed to parse JSON value. Please check the value to ensure it is valid JSON."
                    )
                ]
            return check_openai_request(
                request.body,
                strict=self._strict,
                reasoning_fields=self._reasoning_fields,
                alternates=self._alternates,
            )
        if "anthropic-version" not in request.headers:
            return ["anthropic-version: header is required"]
        if request.body is None:
            return ["The request body is not valid JSON."]
        if _has_lone_surrogates(request):
            return ["The request body is not valid JSON: no low surrogate in string"]
        return check_anthropic_request(request.body, strict=self._strict, ledger=self.ledger)

    async def _next_step(self, request: Request) -> Step:
        script = self._script
        if callable(script):
            step: Any = script
        elif self._next < len(script):
            step = script[self._next]
            self._next += 1
        else:
            text = f"the script of the model server has no answer left for request {request.number}"
            self.failed(ScriptError(text))
            return Failure(400, ("invalid_request_error", "invalid_request_error"), (text, text))
        if callable(step):
            step = step(request)
            if inspect.isawaitable(step):
                step = await step
        return cast(Step, step)

    def _get(self, request: Request) -> Reply:
        reply = Reply(request.wire, headers=[("content-type", "application/json")])
        if request.path == "/health":
            reply.body = b'{"status":"ok"}'
        else:
            listing = openai_models if request.wire is Wire.OPENAI else anthropic_models
            reply.body = listing(self._models)
        return reply

    def _request_token(self, request: Request) -> str:
        return token(21, self._seed, "request", request.number)

    def _headers(self, request: Request, content_type: str) -> list[tuple[str, str]]:
        build = openai_headers if request.wire is Wire.OPENAI else anthropic_headers
        return [("content-type", content_type), *build(self._request_token(request))]

    def _answer_reply(self, request: Request, answer: Answer) -> Reply:
        identity = Identity(self._seed, request, answer)
        streaming = request.streaming and not answer.whole
        content_type = "text/event-stream; charset=utf-8" if streaming else "application/json"
        reply = Reply(request.wire, headers=self._headers(request, content_type))
        reply.headers += answer.headers
        if request.wire is Wire.OPENAI and streaming:
            reply.frames = openai_frames(answer, identity)
        elif request.wire is Wire.OPENAI:
            reply.body = openai_whole(answer, identity)
        elif streaming:
            reply.frames = anthropic_frames(answer, identity, self.ledger)
        else:
            reply.body = anthropic_whole(answer, identity, self.ledger)
        for fault in answer.faults:
            fault(reply)
        return reply

    def _failure_reply(self, request: Request, failure: Failure) -> Reply:
        reply = Reply(request.wire, status=failure.status)
        reply.headers = [*self._headers(request, failure.content_type), *failure.headers]
        if failure.body is not None:
            reply.body = failure.body if isinstance(failure.body, bytes) else failure.body()
        elif request.wire is Wire.OPENAI:
            reply.body = encode_json(openai_error(failure))
        else:
            reply.body = encode_json(anthropic_error(failure, "req_011" + self._request_token(request)))
        return reply


def _open_log(path: str | os.PathLike[str]) -> IO[str]:
    return Path(path).open("a", encoding="utf-8")


def _has_lone_surrogates(request: Request) -> bool:
    if b"\\ud" not in request.raw.lower():
        return False
    try:
        json.dumps(request.body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


class ThreadedModelServer:
    """The same server in a thread of its own, for tests that do not run on an event loop.

    Everything of `ModelServer` that is read (requests, base_url, connections_open, …) is read through; the waits block.
    """

    def __init__(self, script: Script = (), **options: Any) -> None:
        """Take what `ModelServer` takes."""
        self.server = ModelServer(script, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model-server", daemon=True)

    def __enter__(self) -> ThreadedModelServer:
        """Start the thread and the server."""
        self._thread.start()
        self._run(self.server.start())
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop both; a script that was itself wrong fails the test here, if nothing else did."""
        try:
            self._run(self.server.stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(WAIT_S)
            self._loop.close()
        if self.server.errors and exc_info[0] is None:
            raise self.server.errors[0]

    def __getattr__(self, name: str) -> Any:
        """Read through to the server."""
        return getattr(self.server, name)

    def release(self, gate: str | None = None) -> None:
        """As `ModelServer.release`."""
        self._loop.call_soon_threadsafe(self.server.release, gate)

    def wait_for_requests(self, count: int, *, timeout_s: float = WAIT_S) -> Request:
        """As `ModelServer.wait_for_requests`."""
        return cast(Request, self._run(self.server.wait_for_requests(count, timeout_s=timeout_s)))

    def wait_for_hang(self, count: int = 1, *, timeout_s: float = WAIT_S) -> None:
        """As `ModelServer.wait_for_hang`."""
        self._run(self.server.wait_for_hang(count, timeout_s=timeout_s))

    def wait_for_open_connections(self, count: int, *, timeout_s: float = WAIT_S) -> None:
        """As `ModelServer.wait_for_open_connections`."""
        self._run(self.server.wait_for_open_connections(count, timeout_s=timeout_s))

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(2 * WAIT_S)
