"""Puts examples on a stage: a folder of their own, and a scripted model behind the real wire and the real carrier."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import runpy
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from power_loop import open_store
from power_loop.storage import SessionStore
from tests.model_server import ThreadedModelServer, steps_from_json
from tests.servers.kinds import find_server
from tests.servers.shared import shared_server

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
# Far more than any example takes on a busy machine.
LIMIT_S = 120.0

T = TypeVar("T")


class Stage:
    """Is where an example plays: what it prints, what its model was asked, and what it leaves in its database."""

    def __init__(self, folder: Path, server: ThreadedModelServer, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.server = server
        self.patch = patch
        self.databases: list[tuple[Any, str]] = []

    def answers(self, *steps: Any) -> None:
        """Add what the model answers: texts and objects in the form of `script_json`, or functions of the request."""
        for step in steps:
            self.server.extend(step if callable(step) else steps_from_json([step])[0])

    def play(self, name: str, *arguments: str, answers: list[Any] | None = None, typed: str = "") -> str:
        """Run an example in this process, the way `python examples/name` does; return what it printed.

        Every answer has to be asked for.
        """
        self.answers(*(answers or ()))
        path = EXAMPLES / f"{name}.py"
        said = io.StringIO()
        with self.patch.context() as here:
            here.setattr(sys, "argv", [str(path), *arguments])
            here.setattr(sys, "stdin", io.StringIO(typed))
            here.setattr(sys, "stdout", said)
            here.setattr(sys, "path", [str(EXAMPLES), *sys.path])
            runpy.run_path(str(path), run_name="__main__")
        gc.collect()  # what it left open warns when it is collected, and that has to be in its own test
        assert self.server.answers_left == 0, (
            f"{self.server.answers_left} answers were not asked for: {said.getvalue()}"
        )
        return said.getvalue()

    def start(self, name: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start an example as a process of its own."""
        command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, **{**pipes, **options})

    def load(self, name: str) -> dict[str, Any]:
        """Return the names of an example without running it."""
        return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="example")

    @property
    def asked(self) -> list[Any]:
        """The bodies of the requests that the model got."""
        return [request.body for request in self.server.requests]

    def look(self, work: Callable[[SessionStore], Awaitable[T]], dsn: str = "app.db") -> T:
        """Open the store that an example left, and return what `work` finds in it."""

        async def opened() -> T:
            store = await open_store(dsn)
            try:
                return await work(store)
            finally:
                await store.aclose()

        return asyncio.run(opened())

    def logs(self, dsn: str = "app.db") -> list[list[tuple[str, str]]]:
        """Return every session's log, oldest first, as pairs of role and text, results too."""

        async def read(store: SessionStore) -> list[list[tuple[str, str]]]:
            page = await store.list_sessions(limit=100)
            return [_spoken(await store.get_messages(session.id)) for session in reversed(page.items)]

        return self.look(read, dsn)

    def log(self, dsn: str = "app.db") -> list[tuple[str, str]]:
        """Return the log of the only session."""
        [only] = self.logs(dsn)
        return only

    def calls(self) -> list[tuple[str, str]]:
        """Return every call of every session, oldest first, as pairs of tool and state."""

        async def read(store: SessionStore) -> list[tuple[str, str]]:
            sessions = reversed((await store.list_sessions(limit=100)).items)
            return [(one.name, one.state.value) for each in sessions for one in await store.get_calls(each.id)]

        return self.look(read)

    def database(self, name: str) -> str:
        """Return the DSN of a fresh database on a server, which the environment names as well; skip where it is not."""
        kind = find_server(name)
        if kind.missing is not None:
            pytest.skip(str(kind))
        server = shared_server(name)
        dsn = server.new_database()
        self.databases.append((server, dsn))
        self.patch.setenv("POWER_LOOP_DSN", dsn)
        return dsn


class Served:
    """Is a web application of an example, served by uvicorn in a thread; `get` and `post` are a client of it."""

    def __init__(self, app: Any) -> None:
        import uvicorn

        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="web")

    async def _serve(self) -> None:
        startup = self._server.startup

        async def tell(**options: Any) -> None:
            await startup(**options)
            self._listening.set()

        self._server.startup = tell
        await self._server.serve()

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._listening.wait(LIMIT_S)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.should_exit = True
        self._thread.join(LIMIT_S)
        gc.collect()

    @property
    def url(self) -> str:
        """The address of the root."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def open(self, path: str, data: bytes | None = None, **headers: str) -> Any:
        """Make a request and return the response, whose body is not read yet."""
        request = urllib.request.Request(
            self.url + path, data, {name.replace("_", "-"): headers[name] for name in headers}
        )
        return urllib.request.urlopen(request, timeout=LIMIT_S)

    def get(self, path: str, data: bytes | None = None, **headers: str) -> str:
        """Make a request and return the body; redirects are followed."""
        with self.open(path, data, **headers) as response:
            return response.read().decode()

    def until(self, path: str, text: str) -> str:
        """Ask for a page until a text stands in it; return the page."""
        until_s = time.monotonic() + LIMIT_S
        while text not in (page := self.get(path)):
            assert time.monotonic() < until_s, f"{text!r} never came: {page}"
            threading.Event().wait(0.01)
        return page


def _spoken(records: Any) -> list[tuple[str, str]]:
    messages = [record.message for record in records]
    return [(message.role.value, (message.tool_result or message).text) for message in messages]


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    """Return an answer that calls one tool."""
    return {"calls": [{"name": name, "arguments": arguments}]}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.chdir(tmp_path)
    with ThreadedModelServer() as server:
        for name, value in {"BASE_URL": server.base_url, "API_KEY": "k", "MODEL": "gpt-test"}.items():
            monkeypatch.setenv(f"POWER_LOOP_{name}", value)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(EXAMPLES)]))
        stage = Stage(tmp_path, server, monkeypatch)
        yield stage
        for server_of, dsn in stage.databases:
            server_of.drop_database(dsn)
