"""Opens the store that a command is about."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from power_loop import SchemaPolicy, open_store
from power_loop.cli.store_options import dsn_of


@contextlib.asynccontextmanager
async def store_of(given: argparse.Namespace, *, may_create: bool = False) -> AsyncIterator[Any]:
    """Give the store of `--dsn`, and close it; a mistyped name makes no database unless `may_create` allows it."""
    schema = SchemaPolicy.AUTO_CREATE if may_create else SchemaPolicy.VERIFY
    store = await open_store(dsn_of(given), table_prefix=given.table_prefix, schema=schema)
    try:
        yield store
    finally:
        await store.aclose()
