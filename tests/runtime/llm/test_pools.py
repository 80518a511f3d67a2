"""Connections: shared, kept alive, and closed with their last user or their event loop, whichever goes first."""

from __future__ import annotations

import asyncio
import gc
import importlib
import socket
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from functools import cache
from typing import Any, NoReturn

import pytest

from power_loop.contracts.errors import LLMConnectionError, LLMTimeoutError
from power_loop.runtime.llm import lean as lean_module
from power_loop.runtime.llm import pools as pools_module
from power_loop.runtime.llm import sdk as sdk_module
from power_loop.runtime.llm.service import ProviderLLMService, create_llm_service_from_config
from tests import model_server
from tests.model_server import ModelServer, faults, say
from tests.model_server.server import WAIT_S

from .conftest import QUESTION, Way, ignore


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No warning of an unclosed thing, and no pool of a loop that is gone."""
    # What is here already is not searched again and again: only what the test itself leaves.
    gc.freeze()
    before = set(pools_module._POOLS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield
        gc.collect()
    gc.unfreeze()
    assert not [loop for loop in pools_module._POOLS if loop.is_closed() and loop not in before]


class ThreadedModelServer(model_server.ThreadedModelServer):
    """The server in a thread, which can be told to close what is idle."""

    def end_connections(self) -> None:
        """Close every connection, and come back when that is done."""
        for connection in list(self.server._open):
            self._loop.call_soon_threadsafe(connection.abort)
        self.wait_for_open_connections(0)


def fine(request: object) -> Any:
    return say("Fine.")


async def ask(service: ProviderLLMService) -> None:
    assert (await service.generate(QUESTION, ignore)).message.text == "Fine."


async def test_services_of_one_endpoint_share_a_connection_that_is_kept_alive(way: Way) -> None:
    async with ModelServer(fine) as server:
        services = [way.service(server) for _ in range(3)]
        for service in services:
            await ask(service)
        assert server.connections_total == 1
        for service in services[:2]:
            await service.aclose()
        await ask(services[2])
        assert server.connections_total == 1
        await services[2].aclose()
        await server.wait_for_open_connections(0)


async def test_calls_that_connect_at_once_share_one_pool_and_leave_none(way: Way) -> None:
    async with ModelServer(fine) as server:
        services = [way.service(server) for _ in range(3)]
        await asyncio.gather(*[ask(service) for service in services for _ in range(5)])
        assert len(pools_module._POOLS[asyncio.get_running_loop()]) == 1
        for service in services:
            await service.aclose()
        assert asyncio.get_running_loop() not in pools_module._POOLS
        await server.wait_for_open_connections(0)


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_the_event_loop_does_not_wait_while_an_sdk_is_imported(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(wire)
    loop = asyncio.get_running_loop()
    has_run = threading.Event()

    def import_slowly(name: str) -> Any:
        # Only an event loop that goes on meanwhile can set it.
        loop.call_soon_threadsafe(has_run.set)
        assert has_run.wait(WAIT_S)
        return importlib.import_module(name)

    for function in ("_library", "_client_class"):
        monkeypatch.setattr(sdk_module, function, cache(getattr(sdk_module, function).__wrapped__))
    monkeypatch.setattr(sdk_module, "import_module", import_slowly)
    async with ModelServer(fine) as server:
        service = Way(wire, "sdk").service(server)
        await ask(service)
        await service.aclose()
    assert has_run.is_set()


async def test_a_service_made_for_each_request_and_dropped_finds_the_connection_open(way: Way) -> None:
    async with ModelServer(fine) as server:
        for _ in range(5):
            await ask(way.service(server))
            gc.collect()
            await asyncio.sleep(0)
        assert server.connections_total == 1


async def test_connections_of_dropped_services_close_after_a_while(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools_module, "_LINGER_S", 0.0)
    async with ModelServer(fine) as server:
        await ask(way.service(server))
        gc.collect()
        await server.wait_for_open_connections(0)


async def test_a_connection_that_rests_too_long_is_closed(lean_way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_module, "_KEEP_ALIVE_S", 0.0)
    async with ModelServer(fine) as server:
        service = lean_way.service(server)
        await asyncio.gather(ask(service), ask(service))
        await server.wait_for_open_connections(0)
        await ask(service)
        assert server.connections_total == 3
        await service.aclose()


async def test_another_key_or_endpoint_shares_nothing(way: Way) -> None:
    async with ModelServer(fine) as server:
        for options in ({}, {"api_key": "sk-another-key-5678"}, {"headers": {"x-a": "1"}}):
            service = way.service(server, **options)
            await ask(service)
        assert server.connections_total == 3
        assert {request.headers.get("x-a") for request in server.requests} == {None, "1"}


async def test_a_closed_service_opens_again_when_it_is_asked(way: Way) -> None:
    async with ModelServer(fine) as server:
        service = way.service(server)
        await service.aclose()
        await ask(service)
        await service.aclose()
        await service.aclose()
        await server.wait_for_open_connections(0)
        await ask(service)
        assert server.connections_total == 2
        await service.aclose()


async def test_many_calls_at_once_each_have_their_connection_and_keep_it(way: Way) -> None:
    async with ModelServer(fine) as server:
        service = way.service(server)
        for _ in range(3):
            await asyncio.gather(*(ask(service) for _ in range(50)))
        assert server.connections_total <= 50
        await service.aclose()
        await server.wait_for_open_connections(0)


async def test_a_failure_with_a_whole_body_keeps_the_connection(way: Way) -> None:
    async with ModelServer([faults.rate_limited(), faults.context_overflow(), say("Fine.")]) as server:
        service = way.service(server)
        for _ in range(2):
            with pytest.raises(Exception, match="failed"):
                await service.generate(QUESTION, ignore)
        await ask(service)
        assert server.connections_total == 1
        await service.aclose()


async def test_a_connection_that_the_server_closed_while_we_were_busy_is_not_used(way: Way) -> None:
    with ThreadedModelServer(fine) as server:
        service = way.service(server.server)
        for _ in range(5):
            await ask(service)
            # Our loop stands still meanwhile, so that nothing of the end has been read yet.
            server.end_connections()
            await ask(service)
        await service.aclose()


async def test_a_server_that_closes_each_connection_is_asked_over_new_ones(way: Way) -> None:
    closing = say("Fine.", faults=(faults.header("connection", "close"), faults.no_final_chunk()))
    async with ModelServer(lambda request: closing) as server:
        service = way.service(server)
        for _ in range(3):
            await ask(service)
        await service.aclose()


# --- event loops ---

Program = Callable[[ProviderLLMService], Coroutine[Any, Any, None]]


def run_and_close(program: Coroutine[Any, Any, None]) -> None:
    """Run as applications do that make their loops by hand, and close nothing but the loop."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(program)
    finally:
        loop.close()


@pytest.mark.parametrize("keeps_service", [True, False])
def test_a_loop_that_ends_first_takes_its_connections_along(way: Way, keeps_service: bool) -> None:
    with ThreadedModelServer(fine) as server:
        service = way.service(server.server)
        asyncio.run(ask(service))
        server.wait_for_open_connections(0)
        if not keeps_service:
            del service
            gc.collect()


def test_one_service_serves_one_loop_after_the_other(way: Way) -> None:
    with ThreadedModelServer(fine) as server:
        service = way.service(server.server)
        for _ in range(3):
            asyncio.run(ask(service))
        server.wait_for_open_connections(0)
        assert server.connections_total == 3


def test_a_loop_that_is_closed_by_hand_leaves_no_socket_behind(lean_way: Way) -> None:
    with ThreadedModelServer(fine) as server:
        service = lean_way.service(server.server)
        for _ in range(3):
            run_and_close(ask(service))
        del service
        gc.collect()
        server.wait_for_open_connections(0)


def test_a_loop_that_is_closed_by_hand_is_cleared_by_the_next(lean_way: Way) -> None:
    with ThreadedModelServer(fine) as server:
        first = lean_way.service(server.server)
        run_and_close(ask(first))
        asyncio.run(ask(lean_way.service(server.server)))
        server.wait_for_open_connections(0)


def test_one_service_serves_loops_of_several_threads_at_once(way: Way) -> None:
    with ThreadedModelServer(fine) as server:
        service = way.service(server.server)
        failures: list[BaseException] = []

        async def ask_often() -> None:
            await asyncio.gather(*(ask(service) for _ in range(5)))

        def work() -> None:
            try:
                asyncio.run(ask_often())
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert not failures
        assert not any(thread.is_alive() for thread in threads)
        server.wait_for_open_connections(0)


def test_a_service_that_is_closed_in_another_loop_gives_up_all_its_connections(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools_module, "_LINGER_S", 0.0)
    with ThreadedModelServer(fine) as server:
        service = way.service(server.server)
        other = asyncio.new_event_loop()
        thread = threading.Thread(target=other.run_forever)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(ask(service), other).result(WAIT_S)
            asyncio.run(service.aclose())
            server.wait_for_open_connections(0)
        finally:
            other.call_soon_threadsafe(other.stop)
            thread.join(WAIT_S)
            other.run_until_complete(other.shutdown_asyncgens())
            other.close()


# --- where no connection comes about ---


async def test_a_port_that_nobody_listens_on_is_a_connection_error(way: Way) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        service = create_llm_service_from_config(way.config(f"http://127.0.0.1:{taken.getsockname()[1]}/v1"))
        with pytest.raises(LLMConnectionError, match="connection failed"):
            await service.generate(QUESTION, ignore)
        await service.aclose()


async def test_a_host_that_does_not_exist_is_a_connection_error(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_known(*asked: Any, **more: Any) -> NoReturn:
        # As name servers answer; one that is slow or not there would say something else.
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", not_known)
    service = create_llm_service_from_config(way.config("http://power-loop.invalid/v1"))
    with pytest.raises(LLMConnectionError):
        await service.generate(QUESTION, ignore)
    await service.aclose()


async def test_a_peer_that_takes_no_connection_is_a_timeout(way: Way) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        # The queue holds one or two; the system leaves the others without an answer.
        waiting[0].connect(full.getsockname())
        for one in waiting[1:]:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        service = create_llm_service_from_config(
            way.config(f"http://127.0.0.1:{full.getsockname()[1]}/v1", connect_timeout_s=0.3)
        )
        with pytest.raises(LLMTimeoutError, match=r"no connection within 0\.3 s"):
            await service.generate(QUESTION, ignore)
        await service.aclose()
        for one in waiting:
            one.close()


async def test_an_answer_that_is_no_http_is_an_error(way: Way) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        service = create_llm_service_from_config(way.config(f"http://127.0.0.1:{port}/v1"))
        with pytest.raises(Exception, match=r"failed \(llm\.(protocol|connection)\)"):
            await service.generate(QUESTION, ignore)
        await service.aclose()
