"""An effect that commits with its result: exactly once, whatever dies, and nothing of it where the tool fails."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from power_loop import (
    Effect,
    HookPoint,
    SendStatus,
    StatefulAgentLoop,
    ToolContext,
    ToolDefinition,
    ToolRegistry,
    ToolResult,
    open_store,
    tool,
)
from power_loop.errors import ToolDefinitionError, ToolError, TransactionError
from power_loop.events import HookFailed
from power_loop.hooks import Rewrite
from power_loop.records import CallState
from power_loop.testing import ScriptedLLM, call, calls
from power_loop.tools import ToolTransaction, Waiting
from tests.conformance.backends import SERVERS, Tables
from tests.servers import shared_database, shared_server
from tests.servers.proxy import Proxy

from .bank import Bank, bank, move_money, town
from .conftest import MakeLoop
from .parts import Ears, Gate, answers, error_answers, within_limit

__all__ = ["bank", "town"]

PAY_BOB = {"to": "bob", "cents": 10}


async def _sent(make_loop: MakeLoop, bank: Bank, *steps: Any, tools: Any) -> StatefulAgentLoop:
    loop = make_loop(*steps, store=bank.store, tool_registry=tools)
    sid = await loop.new_session(session_id=bank.sid)
    assert (await within_limit(loop.send("go", session_id=sid))).status is SendStatus.COMPLETED
    return loop


async def _states(bank: Bank) -> list[CallState]:
    return [one.state for one in await bank.store.get_calls(bank.sid)]


# ---- what it does ----


@pytest.mark.promise("effect-transactional")
async def test_the_effect_and_the_result_are_one_commit(make_loop: MakeLoop, bank: Bank) -> None:
    move = move_money(bank.table)
    assert move.effect is Effect.TRANSACTIONAL
    assert "tx" not in move.input_schema["properties"], "a model is not asked for the transaction"
    points: list[str] = []
    bank.store.on_point = lambda point, what: points.append(f"{point} {what}")
    loop = await _sent(make_loop, bank, call("move_money", PAY_BOB), "Done.", tools=[move])
    bank.store.on_point = None
    assert await bank.cents() == {"ann": 90, "bob": 110}
    assert answers(loop.llm.requests[-1]) == ["Ann has 90 left."]
    [record] = await bank.store.get_calls(bank.sid)
    assert (record.state, record.attempt, record.effect) == (CallState.SUCCEEDED, 1, Effect.TRANSACTIONAL)
    begun = points.index("effect.before move_money")
    assert points[begun : begun + 4] == [
        "effect.before move_money",
        "effect.after move_money",
        "commit.before run_effect",
        "commit.after run_effect",
    ]
    assert not [one for one in points if "advance_calls" in one], "no row says that it has started"


async def test_a_handler_prepares_and_leaves_a_body_to_the_transaction(make_loop: MakeLoop, bank: Bank) -> None:
    @tool(effect="transactional")
    async def pay(cents: int, ctx: ToolContext) -> Any:
        """Pay Bob."""
        await asyncio.sleep(0)  # here it may wait for anything
        ctx.state["asked"] = cents

        async def body(tx: ToolTransaction) -> dict[str, int]:
            rows = [(-cents, "ann"), (cents, "bob")]
            changed = await tx.execute_many(f"UPDATE {bank.table} SET cents = cents + ? WHERE name = ?", rows)
            return {"changed": changed}

        return ctx.tx(body)

    loop = await _sent(make_loop, bank, call("pay", {"cents": 7}), "Done.", tools=[pay])
    assert await bank.cents() == {"ann": 93, "bob": 107}
    assert answers(loop.llm.requests[-1]) == ['{"changed": 2}']
    assert (await bank.store.read_view(bank.sid)).tool_state == {"asked": 7}


@pytest.mark.promise("effect-transactional")
async def test_what_fails_leaves_nothing_and_the_model_is_told(make_loop: MakeLoop, bank: Bank) -> None:
    loop = await _sent(
        make_loop, bank, call("move_money", {"to": "carl", "cents": 5}), "Done.", tools=[move_money(bank.table)]
    )
    assert await bank.cents() == {"ann": 100, "bob": 100}
    assert error_answers(loop.llm.requests[-1]) == ["nobody is called carl"]
    assert await _states(bank) == [CallState.FAILED]


async def test_a_statement_that_failed_ends_the_transaction_even_if_its_error_is_kept_quiet(
    make_loop: MakeLoop, bank: Bank
) -> None:
    @tool
    async def add(tx: ToolTransaction, name: str) -> str:
        """Open an account."""
        await tx.execute(f"UPDATE {bank.table} SET cents = 0 WHERE name = ?", ("ann",))
        try:
            await tx.execute(f"INSERT INTO {bank.table} (name, cents) VALUES (?, 0)", (name,))
        except Exception:
            return "it is there"
        return "made"

    @tool
    async def add_or_tell(tx: ToolTransaction, name: str) -> str:
        """Open an account."""
        try:
            await tx.execute(f"INSERT INTO {bank.table} (name, cents) VALUES (?, 0)", (name,))
        except Exception as error:
            raise ToolError(f"{name} has an account") from error
        return "made"

    wanted = calls(("add", {"name": "bob"}), ("add_or_tell", {"name": "bob"}), ("add_or_tell", {"name": "eve"}))
    loop = await _sent(make_loop, bank, wanted, "Done.", tools=[add, add_or_tell])
    assert await bank.cents() == {"ann": 100, "bob": 100, "eve": 0}
    assert await _states(bank) == [CallState.FAILED, CallState.FAILED, CallState.SUCCEEDED]
    told = error_answers(loop.llm.requests[-1])
    assert "'add' failed: DuplicateKeyError" in told[0]
    assert told[1] == "bob has an account"


async def test_a_result_marked_as_an_error_is_committed_with_what_was_done(make_loop: MakeLoop, bank: Bank) -> None:
    @tool
    async def fine(tx: ToolTransaction) -> ToolResult:
        """Fine Ann."""
        await tx.execute(f"UPDATE {bank.table} SET cents = cents - 1 WHERE name = 'ann'")
        return ToolResult("Ann was fined.", is_error=True)

    loop = await _sent(make_loop, bank, call("fine"), "Done.", tools=[fine])
    assert (await bank.cents())["ann"] == 99
    assert error_answers(loop.llm.requests[-1]) == ["Ann was fined."]


@pytest.mark.parametrize(
    ("statement", "told"),
    [("COMMIT", "may end it"), (" /* so */ drop table {}", "may end it"), ("/*!99999 COMMIT */", "may end it")],
)
async def test_what_would_end_the_transaction_is_refused(
    make_loop: MakeLoop, bank: Bank, statement: str, told: str
) -> None:
    @tool
    async def harm(tx: ToolTransaction) -> None:
        """Do harm."""
        await tx.execute(f"UPDATE {bank.table} SET cents = 0")
        await tx.execute(statement.format(bank.table))

    loop = await _sent(make_loop, bank, call("harm"), "Done.", tools=[harm])
    assert await bank.cents() == {"ann": 100, "bob": 100}
    assert told in error_answers(loop.llm.requests[-1])[0]


async def test_a_body_that_waits_for_anything_else_is_refused(make_loop: MakeLoop, bank: Bank) -> None:
    @tool
    async def slow(tx: ToolTransaction) -> None:
        """Be slow."""
        await tx.execute(f"UPDATE {bank.table} SET cents = 0")
        await asyncio.sleep(0)

    @tool
    async def ask(tx: ToolTransaction) -> Any:
        """Ask somebody."""
        await tx.execute(f"UPDATE {bank.table} SET cents = 0")
        return Waiting("May I?")

    loop = await _sent(make_loop, bank, calls(("slow", {}), ("ask", {})), "Done.", tools=[slow, ask])
    assert await bank.cents() == {"ann": 100, "bob": 100}
    slow_told, ask_told = error_answers(loop.llm.requests[-1])
    assert "nothing but its transaction" in slow_told
    assert "cannot wait for anybody" in ask_told


@pytest.mark.parametrize("kind", [asyncio.CancelledError, SystemExit, GeneratorExit, KeyboardInterrupt])
async def test_whatever_a_body_raises_is_its_calls_end_and_nobody_elses(
    make_loop: MakeLoop, bank: Bank, kind: type[BaseException]
) -> None:
    @tool
    async def leave(tx: ToolTransaction) -> None:
        """Leave."""
        await tx.execute(f"UPDATE {bank.table} SET cents = 0")
        raise kind("enough")

    wanted = calls(("leave", {}), ("move_money", PAY_BOB))
    loop = await _sent(make_loop, bank, wanted, "Done.", tools=[leave, move_money(bank.table)])
    assert await bank.cents() == {"ann": 90, "bob": 110}
    assert error_answers(loop.llm.requests[-1]) == [f"'leave' failed: {kind.__name__}: enough"]
    assert await _states(bank) == [CallState.FAILED, CallState.SUCCEEDED]


async def test_a_transaction_that_is_over_is_nobodys(make_loop: MakeLoop, bank: Bank) -> None:
    kept: list[ToolTransaction] = []

    @tool
    async def keep(tx: ToolTransaction) -> str:
        """Keep the transaction."""
        await tx.execute(f"UPDATE {bank.table} SET cents = cents + 1")
        kept.append(tx)
        return "kept"

    await _sent(make_loop, bank, call("keep"), "Done.", tools=[keep])
    with pytest.raises(TransactionError, match="its body has ended"):
        await kept[0].execute(f"UPDATE {bank.table} SET cents = 0")
    assert await bank.cents() == {"ann": 101, "bob": 101}


async def test_text_stands_as_it_is_given_whatever_a_driver_takes_for_a_mark(make_loop: MakeLoop, bank: Bank) -> None:
    @tool
    async def look(tx: ToolTransaction) -> list[str]:
        """Look."""
        rows = await tx.query(
            f"SELECT name FROM {bank.table} WHERE name LIKE '%n%' AND name <> '?' AND name <> ?", ("x",)
        )
        return [name for (name,) in rows]

    loop = await _sent(make_loop, bank, call("look"), "Done.", tools=[look])
    assert answers(loop.llm.requests[-1]) == ['["ann"]']


# ---- around it ----


async def test_other_calls_of_the_reply_are_settled_beside_it(make_loop: MakeLoop, bank: Bank) -> None:
    @tool(effect="read")
    def look() -> str:
        """Look."""
        return "seen"

    wanted = calls(("look", {}), ("move_money", PAY_BOB), ("move_money", {"to": "carl", "cents": 1}), ("look", {}))
    await _sent(make_loop, bank, wanted, "Done.", tools=[look, move_money(bank.table)])
    assert await bank.cents() == {"ann": 90, "bob": 110}
    done, failed = CallState.SUCCEEDED, CallState.FAILED
    assert await _states(bank) == [done, done, failed, done]


async def test_a_turn_that_is_stopped_before_the_body_does_not_run_it(make_loop: MakeLoop, bank: Bank) -> None:
    gate = Gate()

    @tool(effect="transactional")
    async def pay(ctx: ToolContext) -> Any:
        """Pay."""
        await gate.passing()

        async def body(tx: ToolTransaction) -> None:
            await tx.execute(f"UPDATE {bank.table} SET cents = 0")

        return ctx.tx(body)

    loop = make_loop(call("pay"), "Done.", store=bank.store, tool_registry=[pay])
    sid = await loop.new_session(session_id=bank.sid)
    sending = asyncio.create_task(loop.send("go", session_id=sid))
    await gate.someone()
    await loop.cancel(sid)
    assert (await within_limit(sending)).status is SendStatus.CANCELLED
    assert await bank.cents() == {"ann": 100, "bob": 100}
    assert await _states(bank) == [CallState.ABORTED]


async def test_hooks_hear_of_a_committed_result_and_cannot_change_it(make_loop: MakeLoop, bank: Bank) -> None:
    loop = make_loop(call("move_money", PAY_BOB), "Done.", store=bank.store, tool_registry=[move_money(bank.table)])
    ears = Ears(loop)
    heard: list[str] = []

    def after(context: Any) -> Rewrite:
        heard.append(context.call.call_id)
        return Rewrite(result="nothing happened")

    loop.hooks.add(HookPoint.TOOL_AFTER, after, name="liar")
    sid = await loop.new_session()
    await loop.send("go", session_id=sid)
    assert len(heard) == 1
    assert answers(loop.llm.requests[-1]) == ["Ann has 90 left."]
    [failed] = ears.of(HookFailed)
    assert (failed.point, failed.hook) == ("tool.after", "liar")
    assert "ask context.is_stored first" in failed.error


async def test_with_a_key_a_transaction_is_not_made_twice(make_loop: MakeLoop, bank: Bank) -> None:
    @tool(key=lambda arguments: f"order-{arguments['order']}")
    async def charge(tx: ToolTransaction, order: int) -> str:
        """Charge Ann."""
        await tx.execute(f"UPDATE {bank.table} SET cents = cents - 10 WHERE name = 'ann'")
        return f"order {order} is paid"

    loop = await _sent(
        make_loop, bank, call("charge", {"order": 1}), call("charge", {"order": 1}), "Ok.", tools=[charge]
    )
    assert (await bank.cents())["ann"] == 90
    first, second = answers(loop.llm.requests[-1])
    assert second.startswith(first)
    assert "not done again" in second


# ---- what dies ----

POINTS = [
    ("commit.after", "append_reply"),
    ("effect.before", "move_money"),
    ("effect.after", "move_money"),
    ("commit.before", "run_effect"),
    ("commit.after", "run_effect"),
]


@pytest.mark.promise("effect-transactional")
@pytest.mark.promise("kill-at-any-moment")
@pytest.mark.parametrize("point", POINTS, ids=[" ".join(point) for point in POINTS])
async def test_a_process_that_is_killed_around_it_leaves_the_effect_once(
    make_loop: MakeLoop, bank: Bank, point: tuple[str, str]
) -> None:
    move = move_money(bank.table)
    first = make_loop(store=bank.store, tool_registry=[move])
    sid = await first.new_session(session_id=bank.sid)
    arguments = (bank.dsn, bank.prefix, bank.table, sid, *point)
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.agent.bank_child", *arguments)
    assert await within_limit(child.wait()) == -9
    assert (await bank.cents() == {"ann": 90, "bob": 110}) == (point == ("commit.after", "run_effect"))

    def model(request: Any) -> Any:
        return "Done." if answers(request) else call("move_money", PAY_BOB)

    loop = make_loop(llm=ScriptedLLM([model], repeat_last=True), store=bank.store, tool_registry=[move])
    assert (await within_limit(loop.resume(sid))).final_text == "Done."
    assert await bank.cents() == {"ann": 90, "bob": 110}
    assert await _states(bank) == [CallState.SUCCEEDED]
    assert answers(loop.llm.requests[-1]) == ["Ann has 90 left."]


@pytest.mark.parametrize("way", ["heal_pending", "abort_pending"])
async def test_what_is_given_up_has_not_happened_and_is_not_unknown(make_loop: MakeLoop, bank: Bank, way: str) -> None:
    loop = make_loop(store=bank.store, tool_registry=[move_money(bank.table)])
    sid = await loop.new_session(session_id=bank.sid)
    arguments = (bank.dsn, bank.prefix, bank.table, sid, "commit.before", "run_effect")
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.agent.bank_child", *arguments)
    assert await within_limit(child.wait()) == -9
    await getattr(loop, way)(sid)
    assert await bank.cents() == {"ann": 100, "bob": 100}
    assert await _states(bank) == [CallState.ABORTED]


# ---- how it is defined ----


def test_a_transaction_needs_an_async_handler_and_the_right_effect() -> None:
    with pytest.raises(ToolDefinitionError, match="async def"):

        @tool
        def plain(tx: ToolTransaction) -> None:
            """Be plain."""

    with pytest.raises(ToolDefinitionError, match="effect='transactional'"):

        @tool(effect="idempotent")
        async def again(tx: ToolTransaction) -> None:
            """Do it again."""

    with pytest.raises(ToolDefinitionError, match="all ask for the transaction"):

        @tool
        async def two(tx: ToolTransaction, other: ToolTransaction) -> None:
            """Take two."""

    with pytest.raises(ToolDefinitionError, match="no handler that could run"):
        ToolRegistry([ToolDefinition("x", "X.", {"type": "object"}, effect=Effect.TRANSACTIONAL)])


async def test_a_read_may_not_write(make_loop: MakeLoop, bank: Bank) -> None:
    @tool(effect="read")
    def look(ctx: ToolContext) -> Any:
        """Look."""

        async def body(tx: ToolTransaction) -> None:
            await tx.execute(f"UPDATE {bank.table} SET cents = 0")

        return ctx.tx(body)

    @tool(effect="transactional")
    async def awaits(ctx: ToolContext) -> Any:
        """Await it."""

        async def body(tx: ToolTransaction) -> None:
            await tx.execute(f"UPDATE {bank.table} SET cents = 0")

        return await ctx.tx(body)

    loop = await _sent(make_loop, bank, calls(("look", {}), ("awaits", {})), "Done.", tools=[look, awaits])
    assert await bank.cents() == {"ann": 100, "bob": 100}
    told = error_answers(loop.llm.requests[-1])
    assert "may not write" in told[0]
    assert "returned by a handler, not awaited" in told[1]


async def test_rivals_over_the_same_rows_all_come_through_once(make_loop: MakeLoop, bank: Bank) -> None:
    """Transfers that lock the same two rows in opposite orders: a database may have to end some and run them again."""

    @tool
    async def transfer(tx: ToolTransaction, src: str, dst: str) -> str:
        """Move a cent."""
        for name, cents in ((src, -1), (dst, 1)):
            await tx.execute(f"UPDATE {bank.table} SET cents = cents + ? WHERE name = ?", (cents, name))
        return "moved"

    there, back = {"src": "ann", "dst": "bob"}, {"src": "bob", "dst": "ann"}
    loops = [
        make_loop(
            calls(*[("transfer", there if number % 2 else back)] * 3),
            "Done.",
            store=bank.store,
            tool_registry=[transfer],
        )
        for number in range(3)
    ]
    sids = [await loop.new_session() for loop in loops]
    results = await within_limit(
        asyncio.gather(*[loop.send("go", session_id=sid) for loop, sid in zip(loops, sids, strict=True)])
    )
    assert all(result.is_completed for result in results)
    for sid in sids:
        assert {one.state for one in await bank.store.get_calls(sid)} == {CallState.SUCCEEDED}
    # Two sessions moved three cents back, one moved three there.
    assert await bank.cents() == {"ann": 103, "bob": 97}


@pytest.mark.promise("effect-transactional")
@pytest.mark.parametrize("how", ["cut_before", "cut_after"])
async def test_a_connection_that_is_lost_during_commit_leaves_the_effect_once(
    make_loop: MakeLoop, bank: Bank, how: str
) -> None:
    """The proxy cuts at the COMMIT of the very transaction: on its way to the server, or on the way back."""
    if not isinstance(bank.place, Tables):
        pytest.skip("a file has no connection")
    server = next(shared_server(one.name) for one in SERVERS if shared_database(one.name) == bank.dsn)
    ran: list[str] = []

    @tool
    async def move(tx: ToolTransaction) -> str:
        """Move a cent."""
        ran.append(how)
        await tx.execute(f"UPDATE {bank.table} SET cents = cents - 1 WHERE name = 'ann'")
        await tx.execute(f"UPDATE {bank.table} SET cents = cents + 1 WHERE name = 'bob'")
        return f"run {len(ran)}"

    with Proxy(server) as proxy:
        dsn = proxy.dsn(bank.dsn)
        dsn += ("&" if "?" in dsn else "?") + "sslmode=disable"  # TLS would hide from the proxy what it waits for
        store = await open_store(dsn, table_prefix=bank.prefix)
        loop = make_loop(call("move"), "Done.", store=store, tool_registry=[move])
        sid = await loop.new_session(session_id=bank.sid)
        traps: list[Any] = []

        def set_trap(point: str, what: str) -> None:
            if (point, what) == ("effect.after", "move") and not traps:
                traps.append(getattr(proxy, how)(b"COMMIT"))

        store.on_point = set_trap
        assert (await within_limit(loop.send("go", session_id=sid))).is_completed
        assert traps[0].happened.is_set()
        store.on_point = None
        await store.aclose()
    assert await bank.cents() == {"ann": 99, "bob": 101}
    assert len(ran) == (2 if how == "cut_before" else 1)
    assert answers(loop.llm.requests[-1]) == [f"run {len(ran)}"]
    assert await _states(bank) == [CallState.SUCCEEDED]
