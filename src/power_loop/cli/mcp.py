"""Serves an application's agent and its sessions as an MCP server, over standard input and output."""

from __future__ import annotations

import argparse
from typing import Any

from power_loop.cli.agents import add_app_option, application_loop
from power_loop.cli.output import EXIT_OK
from power_loop.cli.store_options import add_store_options
from power_loop.contrib.mcp import serve_stdio


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add `mcp`."""
    parser = subparsers.add_parser(
        "mcp",
        help="serve an agent and its sessions as an MCP server",
        description="Serves a client of the Model Context Protocol over standard input and output until it goes away."
        " Its tools: new_session, send, list_sessions, get_messages, get_pending, answer.",
    )
    add_store_options(parser)
    add_app_option(parser, "serve", is_required=True)
    parser.add_argument("--name", default="power-loop", help="what the server calls itself (power-loop)")
    parser.set_defaults(run=_run)


async def _run(given: argparse.Namespace) -> int:
    # An application may print while it is imported.
    await serve_stdio(lambda: application_loop(given), name=given.name)
    return EXIT_OK
