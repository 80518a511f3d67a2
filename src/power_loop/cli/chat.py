"""Talks to an agent at the terminal: it streams, asks before it acts, and goes on where another process left off."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from power_loop import CancellationToken, PowerLoopError, SendStatus, StatefulAgentLoop, StatefulResult
from power_loop.cli.agents import add_agent_options, agent_of
from power_loop.cli.asking import ask_about
from power_loop.cli.keyboard import Keyboard
from power_loop.cli.output import EXIT_FAILED, EXIT_OK, add_json_option, complain, complain_of, paint, say, say_json
from power_loop.cli.printable import printable
from power_loop.cli.store_options import add_store_options
from power_loop.cli.transcript import lines_of, money, pending_line, tokens
from power_loop.cli.turn_view import TurnView, ends_well
from power_loop.errors import ConfigError
from power_loop.records import WaitKind

EXIT_INTERRUPTED = 130

# So many messages of a session that goes on are shown.
_SHOWN_MESSAGES = 6
# Who leaves does not wait longer for what still runs; the session goes on from its log.
_LEAVE_WITHIN_S = 3.0

_COMMANDS = {
    "help": "this list",
    "new": "begin another session",
    "show": "show the last messages; /show 20 for more",
    "resume": "go on with what failed, was left or waits",
    "abort": "give up what waits, without running it",
    "compact": "fold the older part of the conversation into a summary",
    "fork": "go on in a copy; /fork 12 leaves behind message 12",
    "cost": "what the session took so far",
    "quit": "leave; the session stays",
}


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `chat`."""
    parser = subparsers.add_parser(
        "chat",
        help="talk to an agent",
        description="Talks to an agent, in a new session or in one that is there. Lines are inputs, a line that ends"
        " with a backslash goes on in the next one, /help lists the commands. Ctrl-C cancels the turn that runs, a"
        " second one leaves. Where standard input is no terminal each of its lines is an input, and a call that has to"
        " be allowed ends the command with status 1: it waits for `power-loop resume`.",
        epilog="power-loop chat --tools explore --dsn app.db",
    )
    add_store_options(parser)
    add_agent_options(parser)
    parser.add_argument("session_id", nargs="?", metavar="SESSION", help="the session that goes on (a new one)")
    parser.add_argument("--message", "-m", metavar="TEXT", help="send this, and leave")
    parser.add_argument("--system", metavar="TEXT", help="the system prompt of a new session")
    parser.add_argument("--reasoning", action="store_true", help="show the model's reasoning")
    add_json_option(parser, "a JSON object a line")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    if given.session_id is not None and given.system is not None:
        raise ConfigError("--system is for a new session: leave it out, or the session")
    chat = _Chat(given, await agent_of(given, may_create=given.session_id is None))
    try:
        return await chat.run()
    finally:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(chat.loop.aclose(), _LEAVE_WITHIN_S)


class _Chat:
    """Is one conversation at a terminal."""

    def __init__(self, given: argparse.Namespace, loop: StatefulAgentLoop) -> None:
        self.loop = loop
        self._given = given
        self._keyboard = Keyboard()
        self._view = TurnView(is_json=given.json, shows_reasoning=given.reasoning)
        self._session_id = ""
        self._token: CancellationToken | None = None
        self._is_leaving = False
        self._has_failed = False
        self._main: asyncio.Task[Any] | None = None

    @property
    def _is_talking(self) -> bool:
        """True where a person reads along and can be asked."""
        return self._keyboard.is_terminal and not self._given.json and self._given.message is None

    async def run(self) -> int:
        """Talk until there is nothing more to say; return the exit status."""
        self._main = asyncio.current_task()
        # Where there are no signal handlers (Windows), Ctrl-C ends the process.
        with contextlib.suppress(NotImplementedError, RuntimeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)
        self.loop.event_bus.subscribe(self._hear)
        try:
            await self._begin()
            if self._given.message is not None:
                await self._send(self._given.message)
            else:
                await self._talk()
        except asyncio.CancelledError:
            if not self._is_leaving:
                raise
            self._view.note("")
            return EXIT_INTERRUPTED
        return EXIT_FAILED if self._has_failed and not self._is_talking else EXIT_OK

    def _hear(self, event: Any) -> None:
        if event.session_id == self._session_id:
            self._view.hear(event)

    def _interrupt(self) -> None:
        """Cancel the turn that runs; leave where none does, or where it was cancelled already."""
        if self._token is not None and not self._token.is_cancelled:
            self._view.note(paint("(cancelling; Ctrl-C again leaves)", "yellow"))
            self._token.cancel("Ctrl-C")
        elif self._main is not None:
            self._is_leaving = True
            self._main.cancel()

    # ---- the session ----

    async def _begin(self) -> None:
        if self._given.session_id is None:
            await self._new()
            return
        session = await self.loop.get_session(self._given.session_id)
        self._session_id = session.id
        self._tell_session()
        if self._is_talking:
            await self._show(_SHOWN_MESSAGES)
            await self._show_what_waits()

    async def _new(self) -> None:
        self._session_id = await self.loop.new_session(system_prompt=self._given.system)
        self._tell_session()

    def _tell_session(self) -> None:
        if self._given.json:
            say_json({"type": "session", "session_id": self._session_id})
        elif self._is_talking:
            say(paint(f"session {printable(self._session_id)}, {self.loop.llm.info.model}; /help", "dim"))

    async def _show(self, count: int) -> None:
        head = await self.loop.get_session(self._session_id)
        for record in await self.loop.get_messages(self._session_id, after_seq=max(head.next_seq - 1 - count, 0)):
            for line in lines_of(record):
                say(line)

    async def _show_what_waits(self) -> None:
        store = await self.loop.get_store()
        for one in await self.loop.get_pending(self._session_id):
            say(pending_line(one))
        for waiting in await self.loop.get_inbox(self._session_id):
            say(f"{paint('waits:', 'yellow')} {printable(waiting.message.text if waiting.message else '')}")
        sent = await store.get_send(self._session_id)
        if sent is not None and sent.status in (SendStatus.RUNNING, SendStatus.FAILED, SendStatus.WAITING_FOR_INPUT):
            say(paint(f"the last send is {sent.status.value}: /resume goes on with it, /abort gives it up", "yellow"))

    # ---- inputs ----

    async def _talk(self) -> None:
        while True:
            text = await self._input()
            if text is None or text in ("/quit", "/exit"):
                return
            if not text.strip():
                continue
            try:
                if text.startswith("/") and self._is_talking:
                    await self._command(text)
                else:
                    await self._send(text)
            except PowerLoopError as error:
                self._has_failed = True
                self._view.note("")
                complain_of(error)

    async def _input(self) -> str | None:
        """Return the next input, whose lines but the last end with a backslash; None at the end."""
        lines: list[str] = []
        while True:
            line = await self._keyboard.line(paint("> " if not lines else ". ", "bold"))
            if line is None:
                return "\n".join(lines) if lines else None
            lines.append(line.removesuffix("\\"))
            if not line.endswith("\\"):
                return "\n".join(lines)

    async def _command(self, text: str) -> None:
        name, _, argument = text[1:].strip().partition(" ")
        number = int(argument) if argument.strip().isdecimal() else None
        if name == "new":
            await self._new()
        elif name == "show":
            await self._show(number or _SHOWN_MESSAGES)
        elif name == "resume":
            await self._drive(lambda token: self.loop.resume(self._session_id, cancellation=token))
        elif name == "abort":
            self._view.end(await self.loop.abort_pending(self._session_id))
        elif name == "compact":
            fold = await self.loop.compact(self._session_id)
            say("there is too little to fold" if fold is None else f"folded up to message {fold.to_seq}")
        elif name == "fork":
            store: Any = await self.loop.get_store()
            self._session_id = await store.fork_session(self._session_id, at=number)
            self._tell_session()
        elif name == "cost":
            stats = await self.loop.get_session_stats(self._session_id)
            say(f"{stats.sends} sends, {stats.model_calls} model calls: {tokens(stats.usage)}, {money(stats.cost)}")
        else:
            if name != "help":
                say(f"there is no command /{printable(name)}:")
            for one, what in _COMMANDS.items():
                say(f"  /{one:<8} {what}")

    async def _send(self, text: str) -> None:
        session_id = self._session_id
        await self._drive(lambda token: self.loop.send(text, session_id=session_id, cancellation=token))

    # ---- turns ----

    async def _drive(self, begin: Callable[[CancellationToken], Awaitable[StatefulResult]]) -> None:
        """Carry a turn to its rest, and ask about what it waits for as long as that brings it on."""
        result = await self._turn(begin)
        while result.status is SendStatus.WAITING_FOR_INPUT and self._is_talking:
            further = await self._answer(self._session_id)
            if further is None:
                break
            result = further
        if result.status is SendStatus.WAITING_FOR_INPUT:
            for one in () if self._given.json else result.pending:
                say(pending_line(one))
            if not self._is_talking:
                complain(f"a call waits for an answer, which `power-loop resume {self._session_id}` takes")
        self._has_failed = self._has_failed or not ends_well(result)

    async def _turn(self, begin: Callable[[CancellationToken], Awaitable[StatefulResult]]) -> StatefulResult:
        self._token = token = CancellationToken()
        try:
            result = await begin(token)
        finally:
            self._token = None
        self._view.end(result)
        return result

    async def _answer(self, session_id: str) -> StatefulResult | None:
        """Ask about the calls of a session that wait, those of its sub-agents first; return what the turn came to that
        goes on with the answers, None without any."""
        pending = [one for one in await self.loop.get_pending(session_id) if one.wait_kind is not None]
        is_answered = False
        for one in pending:
            if one.wait_kind is WaitKind.AGENT and one.data is not None:
                is_answered = await self._answer(str(one.data["session_id"])) is not None or is_answered
        answers = await ask_about(self._keyboard, [one for one in pending if one.wait_kind is not WaitKind.AGENT])
        if not answers and not is_answered:
            return None
        return await self._turn(lambda token: self.loop.resume(session_id, answers=answers, cancellation=token))
