"""Keeps what was done in a file, so that a run that was ended goes on where it was."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from power_loop.testing.matrix.report import Row


class Journal:
    """Is a file of JSON lines: first what the run is, then each row as it comes."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        """Open the journal of a run; where there is one already, it says what the run is."""
        self.path = path
        self.about = about
        self.rows: dict[str, Row] = {}
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._read()
        self._file = path.open("a", encoding="utf-8")
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write("\n")
        if not self.rows:
            self._write({"about": about})

    def _read(self) -> None:
        for line in self.path.read_text("utf-8").splitlines():
            try:
                told = json.loads(line)
            except ValueError:
                # The run was killed while it wrote this.
                continue
            if "about" in told:
                self.about = {**self.about, **told["about"]}
            else:
                row = Row.of_json(told)
                self.rows[str(row.cell)] = row

    def add(self, row: Row) -> None:
        """Write a row down."""
        with self._lock:
            self.rows[str(row.cell)] = row
            self._write(row.as_json())

    def note(self, **about: Any) -> None:
        """Write down more of what the run is."""
        with self._lock:
            self.about |= about
            self._write({"about": about})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
