"""Proxies as the environment names them, and real connections through one, plain and secured."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from power_loop.contracts.errors import ConfigError, LLMConnectionError
from power_loop.runtime.llm import lean as lean_module
from power_loop.runtime.llm.proxy import Proxy, proxy_of
from power_loop.runtime.llm.service import create_llm_service_from_config
from tests.model_server import ModelServer, say
from tests.model_server.server import WAIT_S

from .conftest import QUESTION, Way, ignore

# Made for these tests: for this machine, and for a name that only their proxies know. It is valid for a hundred years,
# and nothing else trusts it.
CERTIFICATE = Path(__file__).with_name("localhost.pem")
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("https://a.example/v1", {}, None),
        ("https://a.example/v1", {"HTTPS_PROXY": "http://p:3128"}, Proxy("p", 3128)),
        ("https://a.example/v1", {"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:2"}, Proxy("p", 1)),
        ("https://a.example/v1", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://a.example/v1", {"ALL_PROXY": "p:1"}, Proxy("p", 1)),
        ("http://a.example/v1", {"HTTP_PROXY": "http://p"}, Proxy("p", 80)),
        ("http://a.example/v1", {"HTTP_PROXY": "http://p", "REQUEST_METHOD": "GET"}, None),
        ("https://a.example/v1", {"HTTPS_PROXY": ""}, None),
        (
            "https://a.example/v1",
            {"HTTPS_PROXY": "http://me:p%40ss@p:1"},
            Proxy("p", 1, "Basic " + base64.b64encode(b"me:p@ss").decode()),
        ),
        ("https://a.example/v1", {"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("https://a.example/v1", {"ALL_PROXY": "http://p:1", "NO_PROXY": "b.example, a.example"}, None),
        ("https://a.example/v1", {"ALL_PROXY": "http://p:1", "no_proxy": ".example"}, None),
        ("https://a.example/v1", {"ALL_PROXY": "http://p:1", "no_proxy": "a.example:443"}, None),
        ("https://a.example/v1", {"ALL_PROXY": "http://p:1", "no_proxy": "a.example:80"}, Proxy("p", 1)),
        ("https://aa.example/v1", {"ALL_PROXY": "http://p:1", "no_proxy": "a.example"}, Proxy("p", 1)),
        ("http://[fd00::1]:8080/v1", {"ALL_PROXY": "http://p:1", "no_proxy": "fd00::1"}, None),
        ("http://[fd00::1]:8080/v1", {"ALL_PROXY": "http://p:1"}, Proxy("p", 1)),
        # This machine is reached without one.
        ("http://localhost:8080/v1", {"ALL_PROXY": "http://p:1"}, None),
        ("http://LOCALHOST.:8080/v1", {"ALL_PROXY": "http://p:1"}, None),
        ("https://127.0.0.1/v1", {"HTTPS_PROXY": "http://p:1"}, None),
        ("http://127.8.9.1/v1", {"HTTP_PROXY": "socks5://p:1"}, None),
        ("http://[::1]:8080/v1", {"ALL_PROXY": "http://p:1"}, None),
        ("http://10.0.0.1/v1", {"ALL_PROXY": "http://p:1"}, Proxy("p", 1)),
        ("http://localhost.example/v1", {"ALL_PROXY": "http://p:1"}, Proxy("p", 1)),
    ],
)
def test_the_environment_names_a_proxy(url: str, environ: dict[str, str], proxy: Proxy | None) -> None:
    assert proxy_of(urlsplit(url), environ) == proxy


@pytest.mark.parametrize("named", ["socks5://me:secret@p:1", "https://me:secret@p:1", "http://", "http://p:secret"])
def test_a_proxy_that_cannot_be_used_is_refused_without_its_secret(named: str) -> None:
    with pytest.raises(ConfigError, match="ALL_PROXY") as caught:
        proxy_of(urlsplit("https://a.example"), {"ALL_PROXY": named})
    assert "secret" not in str(caught.value)


def test_the_secret_of_a_proxy_is_in_no_repr() -> None:
    assert "Basic" not in repr(Proxy("p", 1, "Basic c2VjcmV0"))


# --- real connections ---


class Relay:
    """A port of this machine that hands on what it is sent; it ends when all who use it have gone."""

    def __init__(self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._serve = serve
        self._tasks: set[asyncio.Task[Any]] = set()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    @contextlib.asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0, ssl=context)
        yield server.sockets[0].getsockname()[1]
        server.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=WAIT_S)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, *, first: bytes = b"") -> None:
    """Hand everything on to a port of this machine, and back."""
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
    inner_writer.write(first)
    await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


@contextlib.asynccontextmanager
async def secured(port: int) -> AsyncIterator[int]:
    """A port behind which a plain one stands, reached by TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, port)

    async with Relay(serve).listening(context) as outer:
        yield outer


@contextlib.asynccontextmanager
async def proxy(heads: list[str], *, status: str = "200 Connection established") -> AsyncIterator[int]:
    """A proxy that notes the heads it is sent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head.decode())
        method, target, _ = head.decode().split(" ", 2)
        if not status.startswith("200"):
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        elif method == "CONNECT":
            writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
            await _join(reader, writer, int(target.rpartition(":")[2]))
        else:
            path = urlsplit(target)
            await _join(reader, writer, path.port or 80, first=head.replace(target.encode(), path.path.encode(), 1))

    async with Relay(serve).listening() as outer:
        yield outer


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate of the tests is one that the system trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    monkeypatch.setattr(lean_module, "_tls", lean_module._tls.__wrapped__)


async def ask(way: Way, url: str, *, times: int = 2) -> str:
    service = create_llm_service_from_config(way.config(url))
    text = ""
    try:
        for _ in range(times):
            text = (await service.generate(QUESTION, ignore)).message.text
        return text
    finally:
        await service.aclose()


@pytest.mark.usefixtures("trusted")
async def test_a_secure_connection_is_kept_alive(lean_way: Way) -> None:
    async with ModelServer(lambda request: say("Fine.")) as server, secured(server.port) as port:
        assert await ask(lean_way, f"https://127.0.0.1:{port}/v1") == "Fine."
        assert server.connections_total == 1
        await server.wait_for_open_connections(0)


async def test_a_certificate_that_nobody_trusts_is_refused(lean_way: Way) -> None:
    async with ModelServer(lambda request: say("Fine.")) as server, secured(server.port) as port:
        with pytest.raises(LLMConnectionError, match="certificate"):
            await ask(lean_way, f"https://127.0.0.1:{port}/v1")
        assert not server.requests


async def test_a_plain_request_goes_through_a_proxy(lean_way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[str] = []
    async with ModelServer(lambda request: say("Fine.")) as server, proxy(heads) as port:
        monkeypatch.setenv("http_proxy", f"http://me:pw@127.0.0.1:{port}")
        assert await ask(lean_way, f"http://model.test:{server.port}/v1", times=1) == "Fine."
        assert heads[0].startswith(f"POST http://model.test:{server.port}/v1/")
        assert "Proxy-Authorization: Basic bWU6cHc=\r\n" in heads[0]


@pytest.mark.usefixtures("trusted")
async def test_a_secure_request_goes_through_a_tunnel_that_sees_nothing_of_it(
    lean_way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[str] = []
    async with (
        ModelServer(lambda request: say("Fine.")) as server,
        secured(server.port) as inner,
        proxy(heads) as port,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:pw@127.0.0.1:{port}")
        assert await ask(lean_way, f"https://model.test:{inner}/v1") == "Fine."
        where = f"model.test:{inner}"
        assert heads == [f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\nProxy-Authorization: Basic bWU6cHc=\r\n\r\n"]
        assert server.connections_total == 1


async def test_a_proxy_that_refuses_is_named(lean_way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy([], status="407 Proxy Authentication Required") as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(LLMConnectionError, match=r"proxy '127\.0\.0\.1' answers 407"):
            await ask(lean_way, "https://a.example/v1")


async def test_this_machine_is_never_reached_by_a_proxy(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[str] = []
    async with ModelServer(lambda request: say("Fine.")) as server, proxy(heads) as port:
        for name in ("http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        assert await ask(way, server.base_url) == "Fine."
        assert await ask(way, f"http://localhost:{server.port}/v1") == "Fine."
    assert heads == []
