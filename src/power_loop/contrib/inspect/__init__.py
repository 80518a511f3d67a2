"""Shows what agents do, did and wait for on a page of this machine: by `power-loop inspect` or beside a loop."""

from __future__ import annotations

from power_loop.contrib.inspect.inspector import Inspector, attach_inspector

__all__ = ["Inspector", "attach_inspector"]
