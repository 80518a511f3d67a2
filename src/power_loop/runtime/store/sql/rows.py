"""Writes whole rows by the names of their columns, as `tables.py` has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from power_loop.runtime.store.sql.database import Params
from power_loop.runtime.store.sql.tables import TABLES, Column, Kind, Table

#: The tables that hold the rows of a session beside its head.
SESSION_TABLES = tuple(table for table in TABLES if "session_id" in {column.name for column in table.columns})


def insert_into(table: Table) -> str:
    """Return the statement, still to be rendered, that writes one row of a table."""
    names = [column.name for column in table.columns]
    return f"INSERT INTO {{{table.name}}} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def row_params(table: Table, values: Mapping[str, Any]) -> Params:
    """Return a row's parameters for `insert_into`; what `values` does not name is NULL, 0 or empty text."""
    return tuple([values.get(column.name, _nothing(column)) for column in table.columns])


def _nothing(column: Column) -> int | str | None:
    return None if column.is_nullable else 0 if column.kind is Kind.INTEGER else ""
