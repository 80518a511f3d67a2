"""The promises that power-loop makes today, each with the id by which a test names it: `@pytest.mark.promise("id")`.

They come from the project's description and hold for the parts that are built. `tests/house/test_promises.py` checks
that each is named by at least one test and that no test names another.
"""

from __future__ import annotations

PROMISES: dict[str, str] = {
    # the conversation
    "durable-conversation": "A conversation lives in a database: another process goes on from a DSN and a session id.",
    "tutorials": "Each tutorial does what it says, from an empty folder on, with all that it prints.",
    "first-lines": "The first code blocks of the description run as they are written.",
    "handle-without-state": "A loop holds no state of its own: a cold one sends a model the same bytes as a warm one.",
    "loop-a-request": "A web handler builds a loop a request: hundreds at once share one database's connections.",
    "graceful-close": "aclose() refuses new sends, lets those in flight finish, then closes; `async with` does it.",
    "repeated-request": "A send repeated with the same request_id gives the recorded result and asks no model.",
    "streaming": "stream() yields typed events and ends with the result of a send; leaving it early cancels the turn.",
    # what survives
    "kill-at-any-moment": "A kill -9 at any moment loses nothing acknowledged, and resume() finishes the turn.",
    "effect-read": "A call without effect whose process died runs again.",
    "effect-idempotent": "An idempotent call whose process died runs again with the same idempotency key.",
    "effect-once": "A call with an effect whose process died is not run again: the model is told so.",
    "effect-transactional": "An effect that commits with its result happens exactly once, or not at all.",
    "known-by-key": "A call that says what it is about is not done twice, and shares the fate of an earlier one.",
    "on-unknown": "A call of which nobody knows is told to the model, put to a person, or run again, as its tool says.",
    "doctor": "What is damaged in a store is found, and mended where that invents no facts.",
    "two-ways-out": "A plain send on a session with open calls raises session.pending, which names both ways out.",
    "valid-transcript": "After any kill, fault or cancel the transcript that a provider gets is valid.",
    "immutable-log": "What was said once is never changed or deleted; every view of it can be rebuilt.",
    "two-transactions": "A plain send is two write transactions, whatever the length of the history.",
    "follow-up": "What is said to a session from any process is delivered once and in order, to whichever turn runs.",
    "on-busy": "A send to a session that another process drives is refused, waits, or leaves its input, as asked.",
    "durable-timers": "A timer outlives its process, and each of its firings is delivered once, whoever runs it.",
    "timer-hook": "A hook may veto, postpone and rewrite what a timer brings, and no timer is lost by one that fails.",
    "recover": "What a dead process left is found and driven by another one; no session stays stuck.",
    "fleet": "Inputs that were left are driven by as many workers as one likes: each once, in order, none stuck.",
    "dask": "A leaf on a cluster comes to one outcome, in the store of its run, whatever of the cluster dies.",
    "one-writer": "A process that lost a session's lease writes nothing to it.",
    # tools
    "tool-from-hints": "@tool derives a JSON Schema from type hints and docstring, and handlers get the hinted types.",
    "arguments-checked": "Arguments are checked before the handler runs; the model gets every problem, with its path.",
    "calls-in-parallel": "The calls of one reply run side by side, and their results keep the order of the calls.",
    "sync-tools-in-threads": "A slow sync tool delays neither the event loop nor another session.",
    "hostile-model": "Whatever a model gives a built-in tool, it gets an answer, and nothing outside changes.",
    "big-results": "A huge result is stored whole and shown to the model as a preview.",
    # a person in the loop
    "human-in-the-loop": "A call can wait for a person: the send says what is asked, any later process answers.",
    # models
    "any-endpoint": "Any OpenAI-compatible endpoint and native Anthropic, by environment or configuration.",
    "two-carriers": "Requests travel over the official SDK or over the lean carrier, with the same results.",
    "reasoning-kept": "A provider's reasoning is stored byte for byte and goes back to the same model only.",
    "own-model": "A user's own model is a class of ten lines.",
    "no-fault-bricks": "No fault of a model endpoint leaves a session that cannot go on.",
    # what the model sees
    "any-length": "A conversation of any length goes on within its model's window, and its originals stay as they are.",
    "pluggable-memory": "A memory provider is asked once a send and told once behind its end; failures end nothing.",
    "own-memory-only": "No session sees what another user's sessions remembered, whatever a model or a user writes.",
    "same-search": "Memories are found by their words, with the same answers on every database.",
    "notes-and-todo": "Notes and todo are the session's: bounded, durable, forked, and shown behind all messages.",
    "blackboard": "A tree of sessions shares a blackboard, and no write on it is lost or made twice.",
    "live-tail": "What may change from call to call stands behind all messages, so a prompt's start stays as it is.",
    # limits
    "retry": "Failures that may pass are retried within one budget, one event an attempt; others are not.",
    "cancel": "Cancelling a turn ends it promptly and leaves the session ready for the next send.",
    "budgets": "Sessions that share a budget spend all of it and never more, in any processes, exact across a crash.",
    "limits": "Rounds, tokens, tool calls and seconds of a send are limited; each limit has its own status.",
    "structured-output": "An answer to output_schema is valid, or a coded error carries the raw text.",
    # operating it
    "portable-archive": "A session goes out, in and out again as the same bytes, on and across backends.",
    "hostile-archive": "An archive that does not fit together is refused with its line, before anything is written.",
    "forks": "A fork shares what was said without copying it, and neither session sees the other's future.",
    "retention": "Nothing grows without a named way to shrink it, and no prune touches a session whose turn runs.",
    "upkeep": "Space is given back, logs are emptied and backups are whole, while others read and write.",
    # what runs beside it
    "nobody-left": "No process of a command outlives its time limit, its cancelled send, its session, its loop or us.",
    "sandbox-or-nothing": "A command that is to run in a sandbox runs in it or not at all, and nothing gets out of it.",
    "permissions": "A policy lets each call go on, wait or be refused; no approval and no child goes round its no.",
    # many agents
    "workflows": "The research workflow of the description runs as printed; resume_run() does nothing twice.",
    "workflow-killed": "A run that was killed at any commit comes to the same results, and repeats no finished leaf.",
    "workflow-wait": "A run that waits for a time, a signal or a person needs no process, and is driven on by any.",
    "workflow-detached": "A detached run wakes the session that it was made for exactly once.",
    # looking in
    "hooks": "Hooks look in at every lifecycle point and may veto, skip or rewrite where the point allows it.",
    "inspector": "A page behind a token shows turns as they happen, on every database, and obeys no text.",
    "event-sinks": "Events go to JSONL (with replay), metrics and spans; a sink that blocks or fails stops no run.",
    "mcp": "StdioMCPClient and register_mcp_tools make an MCP server's tools tools of a loop, under a prefix.",
    "events": "Every event is typed, ordered, announced once durable; a raising subscriber stops no run.",
    "nothing-global": "No hook, bus or registry is process-global.",
    # the package
    "no-dependencies": "The core imports the standard library only.",
    "light-import": "Importing power_loop loads no SDK and opens nothing.",
    "error-codes": "Every error has a frozen machine-readable code, which the documentation explains.",
    "stable-api": "The public names are frozen: one that goes or changes its meaning needs a major version.",
    "bad-input": "Bad input and a broken database give a coded error that says what to do, and nothing is lost.",
    "examples": "Each of at least 40 programs, from hello world to a chatbot, is a page and runs as it is.",
    "readme": "Every Python block of the README and the guides runs as printed.",
}
