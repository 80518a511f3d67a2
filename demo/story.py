"""Tells the demo's story: runs the acts in order, shows what they tell, and holds it against what must be."""

from __future__ import annotations

import inspect
import json
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo import acts, tools
from demo.act_process import ActFailedError, ActProcess
from demo.findings import Stored, answer_to, call_of, is_continued, is_valid_transcript, last_words
from demo.screen import Screen
from demo.world import Bank, Bell

_SHORT_KEY_CHARS = 12


@dataclass
class Story:
    """Is the demo while it runs: where it draws, where its files are, and the facts that have to hold.

    `suspense_s` is how long a person sees the two handlers wait before they are killed.
    """

    screen: Screen
    folder: Path
    environment: Mapping[str, str]
    suspense_s: float
    facts: list[tuple[str, bool]] = field(default_factory=list)

    def tell(self) -> bool:
        """Tell it; return whether every fact held. Raises ActFailedError where it cannot go on."""
        talked = self._talk()
        other_id = self._kill(talked["session"])
        self._go_on(talked, other_id)
        self._recall(talked["session"])
        return self._reckon()

    def _talk(self) -> Stored:
        screen = self.screen
        screen.heading(1, "A durable conversation")
        screen.code(source_of(acts.remember))
        talked: Stored = {}
        with self._act("talk") as act:
            for talked in act.facts():
                self._show_messages(talked["messages"])
        screen.line()
        screen.note(f"The process has ended. The conversation is session {talked['session']} of app.db.")
        self._hold("A conversation of two sends is four messages in the database.", len(talked["messages"]) == 4)
        return talked

    def _kill(self, session_id: str) -> str:
        screen = self.screen
        screen.heading(2, "kill -9 in the middle of a tool call")
        assert tools.pay.handler is not None
        screen.code(source_of(tools.pay.handler))
        screen.note(
            'ring_bell is the same with effect="once": a bank knows idempotency keys, a door bell knows nothing.'
        )
        screen.line()
        other_id, inside = "", set[str]()
        with self._act("act_and_die", session_id) as act:
            for told in act.facts():
                if told["kind"] == "opened":
                    other_id = told["session"]
                elif told["kind"] == "asked":
                    screen.says("you", told["text"], style="bold")
                elif told["kind"] == "no_call":
                    screen.says("model", f"{told['said']} (no call: the next wording)", style="teal", rows_at_most=2)
                elif told["kind"] == "inside":
                    inside.add(told["tool"])
                    screen.says("model", f"calls {as_call(told['tool'], told['arguments'])}", style="teal")
                if len(inside) == 2:
                    break
            else:
                raise ActFailedError("the model called no tool in any wording, so there was nothing to interrupt")
            screen.line()
            (_, name, euros), *_ = self._bank.books().payments
            screen.says("bank", f"{euros} euros have gone to {name}; pay() has not returned yet", style="yellow")
            screen.says(
                "bell", f"it rang {times(self._bell.heard()[0])}; ring_bell() has not returned yet", style="yellow"
            )
            time.sleep(self.suspense_s)
            signal = act.kill()
            screen.line()
            screen.killed(f"kill -9 {act.pid}")
            self._hold(f"{signal.name} ended the process inside both handlers.", signal.name == "SIGKILL")
        return other_id

    def _go_on(self, talked: Stored, other_id: str) -> None:
        screen = self.screen
        session_id = talked["session"]
        held: dict[str, Stored] = {}
        refused: Stored = {}
        resumed: dict[str, Stored] = {}
        attempts: list[str] = []
        with self._act("go_on", session_id, other_id) as act:
            for told in act.facts():
                if told["kind"] == "held":
                    held[told["session"]] = told
                    if len(held) == 2:
                        screen.heading(3, f"What a fresh process finds in app.db (pid {act.pid})")
                        self._show_held(held[session_id], held[other_id])
                elif told["kind"] == "refused":
                    refused = told
                elif told["kind"] == "inside":
                    attempts.append(told["tool"])
                elif told["kind"] == "resumed":
                    resumed[told["session"]] = told
        screen.heading(4, "It goes on: await loop.resume(sid)")
        self._show_resumed(refused, held[session_id], resumed[session_id], resumed[other_id])
        self._check_kill(talked, held[session_id], held[other_id], refused)
        self._check_resume(held, resumed, session_id, other_id, attempts)

    def _recall(self, session_id: str) -> None:
        screen = self.screen
        screen.heading(5, "One more cold process, and what it remembers")
        prompt: list[str] = []
        with self._act("recall", session_id) as act:
            for told in act.facts():
                if told["kind"] == "prompt":
                    prompt = told["texts"]
                else:
                    screen.says("you", prompt[-1], style="bold")
                    screen.says("model", told["text"], style="teal")
        screen.line()
        screen.note(f"Its prompt was rebuilt from app.db: {len(prompt)} messages, the first of them {prompt[0]!r}")
        self._hold("A cold process sent the model all that was said, from the first message on.", "teal" in prompt[0])

    # --- what is shown ---

    def _show_messages(self, messages: list[Stored]) -> None:
        for message in messages:
            is_user = message["role"] == "user"
            self.screen.says("you" if is_user else "model", message["text"], style="bold" if is_user else "teal")

    def _show_held(self, first: Stored, second: Stored) -> None:
        for state in (first, second):
            rows = [(str(message["seq"]), message["role"], in_words(message)) for message in state["messages"]]
            self.screen.table(("seq", "role", f"messages of {state['session']}"), rows)
            self.screen.killed("no answer: here the process died")
            self.screen.line()
        calls = [call_of(first, "pay"), call_of(second, "ring_bell")]
        head = ("call", "effect", "state", "attempt", "idempotency key")
        self.screen.table(head, [_ledger_row(call) for call in calls])

    def _show_resumed(self, refused: Stored, held: Stored, first: Stored, second: Stored) -> None:
        screen = self.screen
        screen.says("send()", f"refuses, {refused.get('code')}: {refused.get('message')}", style="dim")
        screen.line()
        books, heard = self._bank.books(), self._bell.heard()
        pay, ring = call_of(first, "pay"), call_of(second, "ring_bell")
        screen.says("pay", f"is {pay['effect']}, so it ran again, with the same key")
        screen.says("bank", f"was asked {times(books.requests)} and paid {times(len(books.payments))}", style="yellow")
        screen.says("model", last_words(first), style="teal")
        screen.line()
        screen.says("ring_bell", f"is {ring['effect']}, so it did not run again. The model was told:")
        screen.says("", answer_to(second, ring), style="dim")
        screen.says("bell", f"was pulled {times(len(heard))}", style="yellow")
        screen.says("model", last_words(second), style="teal", rows_at_most=2)
        screen.line()
        head = ("call", "effect", "state", "attempt", "idempotency key")
        screen.table(head, [_ledger_row(call) for call in (pay, ring)])

    # --- what has to hold ---

    def _check_kill(self, talked: Stored, held: Stored, other: Stored, refused: Stored) -> None:
        started = [call_of(held, "pay")["state"], call_of(other, "ring_bell")["state"]]
        self._hold("Every message from before the kill is in the database, unchanged.", is_continued(talked, held))
        self._hold("The database held both calls as started: nobody can know more.", started == ["started", "started"])
        self._hold("A plain send was refused until the calls are settled.", refused.get("code") == "session.pending")

    def _check_resume(
        self, held: dict[str, Stored], resumed: dict[str, Stored], first: str, second: str, attempts: list[str]
    ) -> None:
        pay_before, pay = call_of(held[first], "pay"), call_of(resumed[first], "pay")
        ring = call_of(resumed[second], "ring_bell")
        books = self._bank.books()
        ran_again = pay["state"] == "succeeded" and pay["attempt"] == 2 and pay["key"] == pay_before["key"]
        keys = [key for key, _, _ in books.payments]
        self._hold("The idempotent call ran again under the same key.", ran_again and attempts == ["pay"])
        self._hold("The bank was asked twice and paid once.", books.requests == 2 and keys == [pay["key"]])
        self._hold(
            "The call with effect once did not run again; its outcome is recorded as unknown.",
            ring["state"] == "unknown" and len(self._bell.heard()) == 1,
        )
        self._hold(
            "Both turns ended with the model's answer.",
            all(state["status"] == "completed" for state in resumed.values()),
        )
        self._hold(
            "Both transcripts are valid: each call is answered once, directly after its question.",
            all(map(is_valid_transcript, resumed.values())),
        )

    def _hold(self, claim: str, holds: bool) -> None:
        self.facts.append((claim, holds))

    def _reckon(self) -> bool:
        self.screen.heading(6, "The facts")
        for claim, holds in self.facts:
            (self.screen.done if holds else self.screen.failed)(claim)
        return all(holds for _, holds in self.facts)

    # --- what it stands on ---

    @property
    def _bank(self) -> Bank:
        return Bank(self.folder / "bank.db")

    @property
    def _bell(self) -> Bell:
        return Bell(self.folder / "bell.txt")

    def _act(self, name: str, *arguments: str) -> ActProcess:
        return ActProcess(name, *arguments, folder=self.folder, environment=self.environment)


def source_of(function: Callable[..., Any]) -> str:
    """Return the lines of a function that a reader should see: a tool whole, another one without its frame."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    if lines[0].startswith("@"):
        return "\n".join(lines)
    body = [line for line in lines[1:] if not line.strip().startswith(('"""', "return "))]
    return textwrap.dedent("\n".join(body))


def in_words(message: Stored) -> str:
    """Return a stored message on one line: its text, or the calls that it asks for."""
    calls = [as_call(call["name"], json.loads(call["arguments"])) for call in message["calls"]]
    return " ".join([message["text"], *calls]).strip()


def as_call(name: str, arguments: Mapping[str, Any]) -> str:
    """Return a call as Python writes it."""
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def times(number: int) -> str:
    """Return how often something happened."""
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _ledger_row(call: Stored) -> tuple[str, ...]:
    key = f"{call['key'][:_SHORT_KEY_CHARS]}…"
    return (call["name"], call["effect"], call["state"], str(call["attempt"]), key)
