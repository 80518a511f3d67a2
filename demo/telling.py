"""How an act tells its facts to the process that shows them: a JSON line each, on the standard output."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

_LOCK = threading.Lock()
_STANDARD_OUTPUT = 1


def tell(kind: str, **facts: Any) -> None:
    """Tell one fact; may be called from any thread. What is told was written when this returns."""
    line = f"{json.dumps({'kind': kind, **facts}, ensure_ascii=False, default=str)}\n".encode()
    with _LOCK:
        while line:
            line = line[os.write(_STANDARD_OUTPUT, line) :]
