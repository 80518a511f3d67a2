"""What every case is given: a folder for its databases, the endpoint's address, and how long it may take."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Setting:
    """`quick` takes few samples of each measurement."""

    folder: Path
    base_url: str
    quick: bool
    _numbers: count[int] = field(default_factory=lambda: count(1))

    @property
    def port(self) -> int:
        """The port of the endpoint."""
        return int(self.base_url.rsplit(":", 1)[1].split("/")[0])

    def database(self, name: str) -> str:
        """The path of a database that no other case uses."""
        return str(self.folder / f"{name}-{next(self._numbers)}.db")

    def samples(self, full: int, quick: int = 3) -> int:
        """How many samples to take."""
        return quick if self.quick else full


def program(name: str, *arguments: object) -> list[str]:
    """The command line of one of the small programs of `benchmarks/programs`."""
    return [sys.executable, str(ROOT / "benchmarks" / "programs" / f"{name}.py"), *map(str, arguments)]
