"""Writes events to a file of JSON lines, and reads them back as events."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from power_loop import AgentEvent, AgentEventBus
from power_loop.contrib.event_values import event_of, event_value, shortened
from power_loop.contrib.jsonl_file import JsonlFile, full_files
from power_loop.contrib.sinks import DEFAULT_MAX_QUEUE, Sink
from power_loop.errors import ConfigError
from power_loop.events import EventPayload, Redaction

# A day of a busy loop; editors still open it.
DEFAULT_MAX_BYTES = 100_000_000
DEFAULT_MAX_FILES = 10
# What a power cut may take.
DEFAULT_SYNC_S = 1.0
# A whole tool result is in the store; the file needs to show what it was.
DEFAULT_MAX_CHARS = 20_000
# One event is far below it; what is longer is no line of ours.
_MAX_LINE_BYTES = 64_000_000

_log = logging.getLogger("power_loop")


class JsonlSink(Sink):
    """Is the sink that `attach_jsonl_sink` returns; `path` is its file."""

    def __init__(
        self,
        bus: AgentEventBus,
        path: Path,
        *,
        file: JsonlFile,
        sync_s: float | None,
        redact: Callable[[Any], Any],
        max_chars: int | None,
        **more: Any,
    ) -> None:
        """Take the events of `bus`; `attach_jsonl_sink` checks what is given."""
        self.path = path
        self._file = file
        self._sync_s = sync_s
        self._redact = redact
        self._max_chars = max_chars
        self._timer: threading.Timer | None = None
        self._begin_run()
        super().__init__(bus, name=f"jsonl:{path.name}", **more)

    def take(self, event: AgentEvent) -> None:
        """Append one event. Raises OSError."""
        if self._pid != os.getpid():
            self._begin_run()
        # Secrets go before anything is cut: half of one is no longer known for one.
        value = self._redact(event_value(event))
        self._file.append({"run": self._run, **shortened(value, self._max_chars)})
        if self._sync_s == 0:
            self._file.sync()
        elif self._sync_s is not None and self._timer is None:
            self._timer = threading.Timer(self._sync_s, self._sync)
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        """End it: what was taken is on the disk, what is still queued is forgotten."""
        super().close()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._file.close()

    def _begin_run(self) -> None:
        """Begin in this process, which may be a forked child: none of its parent's threads goes on in it."""
        self._pid = os.getpid()
        # Tells the runs of processes apart, whose `seq` all begin at 1, or go on where the parent's stood.
        self._run = os.urandom(8).hex()
        self._timer = None

    def _sync(self) -> None:
        # What comes while it syncs needs another one.
        self._timer = None
        try:
            self._file.sync()
        except OSError as error:
            _log.error("event file %r could not be synced: %s", str(self.path), error)


def attach_jsonl_sink(
    bus: AgentEventBus,
    path: str | os.PathLike[str],
    *,
    types: Iterable[type[EventPayload]] | None = None,
    session_id: str | None = None,
    deltas: bool = False,
    sync_s: float | None = DEFAULT_SYNC_S,
    max_bytes: int | None = DEFAULT_MAX_BYTES,
    max_files: int | None = DEFAULT_MAX_FILES,
    max_chars: int | None = DEFAULT_MAX_CHARS,
    redaction: Redaction | None = None,
    max_queue: int = DEFAULT_MAX_QUEUE,
) -> JsonlSink:
    """Append each event of `bus` to a file, one JSON object a line, from a thread beside the run; `bus` is that of a
    loop (`loop.event_bus`) or one that several loops were given.

    Several processes may write to one file: `n` numbers the lines of all of them, without gaps, over restarts and
    files. `sync_s` is how long a line may wait for its fsync (0: none waits, None: the system decides). A file that is
    full at `max_bytes` becomes `NAME.000001`, and so on; `max_files` are kept. Of texts longer than `max_chars` the
    middle is left out. `redaction` takes secrets out before anything is written (default: `Redaction()`). `deltas`
    writes the pieces of streamed answers too: a secret that is split over two of them is not known for one.
    `types` and `session_id` (with its sub-agents) choose events. Raises `config.invalid`.
    """
    limits: tuple[tuple[str, Any, int], ...] = (
        ("max_bytes", max_bytes, 1),
        ("max_files", max_files, 1),
        ("max_chars", max_chars, 2),
    )
    for name, value, least in limits:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ConfigError(f"{name} is {value!r}: give a whole number of at least {least}, or None for no limit")
    seconds: Any = sync_s
    if seconds is not None and not (isinstance(seconds, (int, float)) and seconds >= 0):
        raise ConfigError(f"sync_s is {sync_s!r}: give seconds, 0 for each event, or None to leave it to the system")
    where = Path(path)
    if where.is_dir():
        raise ConfigError(f"{str(where)!r} is a folder: give the path of a file in it, such as events.jsonl")
    return JsonlSink(
        bus,
        where,
        file=JsonlFile(where, max_bytes=max_bytes, max_files=max_files),
        sync_s=sync_s,
        redact=(redaction or Redaction()).value,
        max_chars=max_chars,
        types=types,
        session_id=session_id,
        max_queue=max_queue,
        with_deltas=deltas,
    )


class Replay:
    """Is the events of a file in the order in which they were written; each iteration begins anew.

    `skipped` is how many lines the last iteration could not read: those that a crash tore.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.skipped = 0

    def __iter__(self) -> Iterator[AgentEvent]:
        self.skipped = 0
        last = 0
        for value in self._values():
            try:
                n = int(value["n"])
                event = event_of(value)
            except (KeyError, TypeError, ValueError, OverflowError):
                self.skipped += 1
                continue
            # A file that was rotated while it was read comes twice.
            if n > last:
                last = n
                yield event

    def _values(self) -> Iterator[Any]:
        for path in (*full_files(self._path), self._path):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                while line := file.readline(_MAX_LINE_BYTES):
                    if not line.strip():
                        continue
                    try:
                        yield json.loads(line)
                    except (ValueError, RecursionError):
                        self.skipped += 1


def replay(path: str | os.PathLike[str]) -> Replay:
    """Return the events that were written to a file and to the full files before it, to iterate over.

    Their payloads are of the same classes as when they were announced; one that this version does not know is an
    `UnknownPayload`. Raises `config.invalid` where there is no such file.
    """
    where = Path(path)
    if not where.is_file() and not full_files(where):
        raise ConfigError(f"there is no file {str(where)!r}: give the path that attach_jsonl_sink was given")
    return Replay(where)
