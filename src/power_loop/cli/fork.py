"""Makes forks of sessions and deletes sessions."""

from __future__ import annotations

import argparse
from typing import Any

from power_loop.cli.output import EXIT_OK, add_json_option, say, say_json
from power_loop.cli.store_handle import store_of
from power_loop.cli.store_options import add_store_options


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `fork` and `delete`."""
    fork = subparsers.add_parser(
        "fork",
        help="make a session that shares another one's log and goes on by itself",
        description="Makes a fork and prints its id. No message is copied, however long the log is.",
        epilog="power-loop fork sess_1 --at 12 --dsn app.db",
    )
    add_store_options(fork)
    fork.add_argument("session_id", metavar="SESSION", help="the session whose log is shared")
    fork.add_argument("--at", type=int, metavar="SEQ", help="the last message that is shared; the last one without it")
    fork.add_argument("--fork-id", metavar="SESSION", help="the fork's id; a fresh one without it")
    add_json_option(fork, "a JSON object")
    fork.set_defaults(run=_fork)

    delete = subparsers.add_parser(
        "delete",
        help="remove a session with everything that is its own",
        description="Removes a session. It is refused while a turn runs, and while forks share its log.",
        epilog="power-loop delete sess_1 --dsn app.db",
    )
    add_store_options(delete)
    delete.add_argument("session_id", metavar="SESSION", help="the session's id")
    add_json_option(delete, "a JSON object")
    delete.set_defaults(run=_delete)


async def _fork(given: argparse.Namespace) -> int:
    async with store_of(given) as store:
        fork_id = await store.fork_session(given.session_id, at=given.at, fork_id=given.fork_id)
        head = await store.get_session(fork_id)
    if given.json:
        say_json({"session_id": fork_id, "forked_from": given.session_id, "forked_at_seq": head.forked_at_seq})
    else:
        say(fork_id)
    return EXIT_OK


async def _delete(given: argparse.Namespace) -> int:
    async with store_of(given) as store:
        gone = await store.delete_session(given.session_id)
    if given.json:
        say_json({"session_id": given.session_id, "rows": gone.rows})
    else:
        say(f"{given.session_id}: {gone.rows} rows removed")
    return EXIT_OK
