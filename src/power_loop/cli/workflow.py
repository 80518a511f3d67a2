"""Checks, runs, shows, tells and stops workflows: specs as files, runs by their ids."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from power_loop import AgentEvent, StatefulAgentLoop
from power_loop.cli.agents import add_agent_options, add_app_option, agent_of, application_loop, looking_loop
from power_loop.cli.asking import value_of
from power_loop.cli.output import EXIT_FAILED, EXIT_OK, add_json_option, complain, paint, say, say_json, waiting_for
from power_loop.cli.printable import one_line, plain, printable
from power_loop.cli.run_picture import picture, usage_of
from power_loop.cli.sessions import at_minute
from power_loop.cli.store_handle import store_of
from power_loop.cli.store_options import add_store_options
from power_loop.cli.transcript import money, tokens
from power_loop.errors import ConfigError, SessionNotFoundError
from power_loop.events import WorkflowStepFinished, WorkflowStepStarted
from power_loop.records import SessionStats
from power_loop.workflow import (
    WORKFLOW_SCHEMA,
    RunNode,
    RunStatus,
    WorkflowResult,
    cancel_run,
    create_workflow,
    get_run,
    list_runs,
    resume_run,
    run_tree,
    signal_run,
    validate_workflow,
)

#: A run rests, and waits for a signal, a person or a time.
EXIT_WAITS = 3
_MAX_FILE_BYTES = 32_000_000
_COLOURS = {"completed": "green", "failed": "red", "cancelled": "yellow", "waiting": "yellow", "running": "blue"}
_EPILOG = (
    "exit status of run and resume: 0 it completed, 1 it failed or was cancelled, 3 it waits for somebody or a time"
)


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `workflow`."""
    parser = subparsers.add_parser(
        "workflow",
        help="check, run, show, tell and stop workflows",
        description="Checks the specs of workflows, runs them with progress, shows their runs as trees, tells and stops"
        " them, in whichever process they run.",
        epilog=_EPILOG,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add(actions, "schema", "print the JSON Schema of specs", _schema, has_store=False)
    one = _add(actions, "validate", "tell all that is wrong with a spec", _validate, has_store=False)
    _add_file(one)
    add_json_option(one)
    one = _add(actions, "run", "run a spec until it rests", _run)
    _add_file(one)
    add_agent_options(one)
    one.add_argument("--input", metavar="VALUE", help="stands in for the spec's input: JSON or text")
    one.add_argument("--run-id", metavar="RUN", help="its id, such as run_order-17: the same id meets the same run")
    one.add_argument("--session", metavar="SESSION", help="the session that it is for")
    add_json_option(one, "a JSON object a step, and at the end the result")
    one = _add(actions, "resume", "go on with a run until it rests", _resume)
    one.add_argument("run_id", metavar="RUN", help="the run's id")
    add_agent_options(one)
    add_json_option(one, "a JSON object a step, and at the end the result")
    one = _add(actions, "status", "list runs, or show one as a tree", _status)
    one.add_argument("run_id", metavar="RUN", nargs="?", help="the run's id; without it runs are listed, newest first")
    one.add_argument("--status", choices=tuple(status.value for status in RunStatus), help="list: those that stand so")
    one.add_argument("--session", metavar="SESSION", help="list: those of this session")
    one.add_argument("--limit", metavar="N", type=int, default=50, help="list: so many at most (50)")
    one.add_argument("--all", action="store_true", help="draw every item of a foreach or a loop")
    add_json_option(one, "a JSON object a run")
    one = _add(actions, "cancel", "stop a run, in whichever process it runs", _cancel)
    one.add_argument("run_id", metavar="RUN", help="the run's id")
    one.add_argument("--reason", default="cancelled", metavar="TEXT", help="why, as its log then says (cancelled)")
    add_app_option(one, "undo what it did with")
    add_json_option(one)
    one = _add(actions, "signal", "tell a run something", _signal)
    one.add_argument("run_id", metavar="RUN", help="the run's id")
    one.add_argument("name", metavar="NAME", help="the name of the signal; of a person's step its path")
    one.add_argument("value", metavar="VALUE", nargs="?", help="what is said: JSON or text")
    add_app_option(one, "drive the run on with")
    add_json_option(one)


def _add(actions: Any, name: str, what: str, run: Any, *, has_store: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    if has_store:
        add_store_options(parser)
    parser.set_defaults(run=run)
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the spec, as JSON; - is standard input")


# ---- specs ----


def _schema(given: argparse.Namespace) -> int:
    say(json.dumps(WORKFLOW_SCHEMA, indent=2, ensure_ascii=False))
    return EXIT_OK


def _validate(given: argparse.Namespace) -> int:
    return EXIT_OK if _is_good(given, _read(given.file)) else EXIT_FAILED


def _is_good(given: argparse.Namespace, spec: Any, *, tells_good: bool = True) -> bool:
    """Tell whether a spec can be run; all that is wrong with it is written."""
    problems = validate_workflow(spec)
    if given.json:
        if problems or tells_good:
            say_json({"is_valid": not problems, "problems": [one.to_json() for one in problems]})
    elif problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        complain(f"{given.file} cannot be run: it has {count}", code="workflow.invalid_spec")
        for one in problems:
            say(f"{paint(printable(one.path), 'bold')}: {printable(str(one).removeprefix(f'{one.path}: '))}")
    elif tells_good:
        say(f"{printable(given.file)}: {paint('it can be run', 'green')}")
    return not problems


def _read(name: str) -> Any:
    """Return the JSON value of a file. Raises `config.invalid`."""
    try:
        if name == "-":
            text = sys.stdin.read(_MAX_FILE_BYTES + 1)
        else:
            with Path(name).open(encoding="utf-8-sig") as file:
                text = file.read(_MAX_FILE_BYTES + 1)
        if len(text) > _MAX_FILE_BYTES:
            raise ConfigError(f"{name} has more than {_MAX_FILE_BYTES:,} characters: a spec is smaller")
        return json.loads(text)
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is no JSON: {error}") from error


# ---- runs that are driven here ----


async def _run(given: argparse.Namespace) -> int:
    spec = _read(given.file)
    if not _is_good(given, spec, tells_good=False):
        return EXIT_FAILED
    more = {} if given.input is None else {"input": value_of(given.input)}
    async with await agent_of(given, may_create=True) as loop:
        workflow = create_workflow(spec, parent_loop=loop, parent_session_id=given.session, run_id=given.run_id, **more)
        return await _driven(given, loop, workflow.run_id, workflow.run)


async def _resume(given: argparse.Namespace) -> int:
    async with await agent_of(given) as loop:
        return await _driven(given, loop, given.run_id, lambda: resume_run(loop, None, given.run_id))


async def _driven(given: argparse.Namespace, loop: StatefulAgentLoop, run_id: str, drive: Any) -> int:
    """Drive a run with progress, and tell what it came to."""
    if not given.json:
        say(paint(run_id, "dim"))
    running: dict[str, str] = {}
    ended = 0
    async with waiting_for("the workflow runs") as so_far:

        def hear(event: AgentEvent) -> None:
            nonlocal ended
            payload = event.payload
            if isinstance(payload, WorkflowStepStarted):
                running[payload.path] = payload.kind
                if given.json:
                    say_json({"type": "step_started", **plain(payload)})
            elif isinstance(payload, WorkflowStepFinished):
                running.pop(payload.path, None)
                ended += 1
                if given.json:
                    say_json({"type": "step_finished", **plain(payload)})
                else:
                    _tell(payload)
            shown = ", ".join(one_line(path, 24) for path in list(running)[:3])
            so_far(f"{ended} steps done, {len(running)} running{shown and f' ({shown})'}")

        loop.event_bus.subscribe(hear, session_id=run_id)
        result: WorkflowResult = await drive()
    if given.json:
        say_json({"type": "result", **plain(result)})
    else:
        await _show(loop, result)
    if result.status is RunStatus.COMPLETED:
        return EXIT_OK
    return EXIT_FAILED if result.status in (RunStatus.FAILED, RunStatus.CANCELLED) else EXIT_WAITS


def _tell(step: WorkflowStepFinished) -> None:
    again = f" (attempt {step.attempt})" if step.attempt > 1 else ""
    state = paint(f"{step.state:<10}", _COLOURS.get(step.state, "dim"))
    say(f"{state} {printable(step.path)}{again} {paint(step.code or step.kind, 'dim')}")
    sys.stdout.flush()


# ---- runs wherever they are ----


async def _status(given: argparse.Namespace) -> int:
    async with looking_loop(given) as loop:
        if given.run_id is not None:
            result = await get_run(loop, given.run_id)
            if given.json:
                say_json({**plain(result), "stats": plain(await loop.get_session_stats(result.run_id))})
            else:
                await _show(loop, result, draws_all=given.all)
            return EXIT_OK
        runs = await list_runs(loop, parent_session_id=given.session, status=given.status, limit=given.limit)
    if given.json:
        for run in runs:
            say_json(run)
    elif not runs:
        say("no runs")
    else:
        say(paint(f"{'begun (UTC)':<18}{'status':<12}{'run':<28}workflow", "bold"))
        for run in runs:
            state = paint(f"{run.state:<12}", _COLOURS.get(run.state, "dim"))
            say(f"{at_minute(run.created_at_ms):<18}{state}{printable(run.session_id):<27} {one_line(run.name)}")
    return EXIT_OK


async def _show(loop: StatefulAgentLoop, result: WorkflowResult, *, draws_all: bool = False) -> None:
    """Write a run as a tree with what it took, and what it came to."""
    store = await loop.get_store()
    run = await store.get_run(result.run_id)
    stats = await loop.get_session_stats(result.run_id)
    status = paint(result.status.value, _COLOURS.get(result.status.value, "dim"))
    usage = sum((usage_of(step) for step in result.steps), stats.usage)
    costs = [one for one in (stats.cost, *(step.cost for step in result.steps)) if one is not None]
    cost = f", {money(sum(costs, Decimal()))}" if costs else ""
    say(f"{paint(one_line(run.name), 'bold')}  {status}  {tokens(usage)}{cost}")
    root = run_tree(run.spec, result.steps)
    took: dict[str, SessionStats] = {}
    for child_id in _leaves(root):
        with contextlib.suppress(SessionNotFoundError):  # it was pruned
            took[child_id] = await loop.get_session_stats(child_id)
    for line in picture(root, took, draws_all=draws_all):
        say(line)
    if result.error is not None:
        say(paint(f"{result.error.get('code')}: {one_line(str(result.error.get('message')), 400)}", "red"))
    elif result.output is not None:
        output = result.output if isinstance(result.output, str) else json.dumps(plain(result.output), indent=2)
        say(printable(output))


# Leaves of which it is told what they took: each is asked for by itself.
_MAX_ASKED = 200


def _leaves(root: RunNode) -> list[str]:
    """Return the sessions of the leaves of a tree, at most so many."""
    found: list[str] = []
    left = [root]
    while left and len(found) < _MAX_ASKED:
        node = left.pop()
        if node.step is not None and node.step.child_session_id:
            found.append(node.step.child_session_id)
        left.extend(reversed(node.parts))
    return found


async def _cancel(given: argparse.Namespace) -> int:
    if given.app is not None:
        loop = await application_loop(given)
    else:
        loop = looking_loop(given)
    async with loop:
        run = await (await loop.get_store()).get_run(given.run_id)
        if given.app is None and _undoes(run.spec) and (await loop.get_session(given.run_id)).owner is None:
            raise ConfigError(
                f"run {given.run_id!r} undoes what it did when it is cancelled, and no process drives it: name the"
                " application's loop that is to do so with --app"
            )
        was_stopped = await cancel_run(loop, given.run_id, reason=given.reason)
    if given.json:
        say_json({"run_id": given.run_id, "was_stopped": was_stopped})
    else:
        say(f"{printable(given.run_id)}: {'it is being stopped' if was_stopped else 'it was over before'}")
    return EXIT_OK


def _undoes(spec: Mapping[str, Any]) -> bool:
    return bool(spec.get("undo_on_cancel"))


async def _signal(given: argparse.Namespace) -> int:
    value = None if given.value is None else value_of(given.value)
    if given.app is not None:
        # It goes on here, and closing the loop waits until it rests.
        async with await application_loop(given) as loop:
            signal = await signal_run(loop, given.run_id, given.name, value)
    else:
        async with store_of(given) as store:
            signal = await store.signal_run(given.run_id, given.name, value)
    if given.json:
        say_json({"run_id": given.run_id, "name": signal.name, "position": signal.position})
    else:
        left = (
            "" if given.app is not None else "; a run that rests goes on with `power-loop work`, or `workflow resume`"
        )
        say(f"{printable(given.run_id)}: it was told {one_line(signal.name)}{left}")
    return EXIT_OK
