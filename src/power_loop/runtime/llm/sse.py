"""Takes a stream of server-sent events apart, whatever the pieces in which its bytes arrive."""

from __future__ import annotations

#: The name of the event ("" if none was given) and its data.
Event = tuple[str, str]


class EventParser:
    """Turns bytes into events. The result does not depend on how the bytes are cut.

    Bytes that are no UTF-8 become U+FFFD. Comments and unknown fields are left out, as the standard says (WHATWG HTML,
    9.2.6).
    """

    __slots__ = ("_after_cr", "_at_start", "_data", "_name", "_rest")

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._data: list[str] = []
        self._name = ""
        self._at_start = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that these bytes complete."""
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 0x0A:
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = chunk.rfind(b"\n")
        if end < 0:
            # Joined only when the line ends, so that a long line costs what it is long and not its square.
            self._rest.append(chunk)
            return []
        whole = chunk[:end]
        if self._rest:
            self._rest.append(whole)
            whole = b"".join(self._rest)
        self._rest = [chunk[end + 1 :]] if end + 1 < len(chunk) else []
        return self._read(whole)

    def close(self) -> list[Event]:
        """Return the event that a proper end of the stream completes: some servers leave out the last blank line."""
        whole = b"".join(self._rest)
        self._rest = []
        return self._read(whole + b"\n")

    def _read(self, whole: bytes) -> list[Event]:
        text = whole.decode("utf-8", "replace")
        if self._at_start:
            self._at_start = False
            text = text.removeprefix("\ufeff")
        events: list[Event] = []
        data = self._data
        for line in text.split("\n"):
            if line.startswith("data:"):
                data.append(line[6:] if line[5:6] == " " else line[5:])
            elif not line:
                if data:
                    events.append((self._name, data[0] if len(data) == 1 else "\n".join(data)))
                    data.clear()
                self._name = ""
            elif line.startswith("event:"):
                self._name = line[6:].removeprefix(" ")
            elif line == "data":
                data.append("")
        return events
