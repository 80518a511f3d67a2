"""An endpoint of Chat Completions that answers at once, and counts how much of each request it has seen before.

`/<talk>/v1/chat/completions` answers: with a text, or, where the address names rounds as in `/<talk>:3/v1`, with so
many calls of the tool `look` before it. `/<talk>/seen` tells what was counted: `[bytes, bytes seen before, kind]` a
request, where the kind is `call`, `answer` or, of what offers no tools or forbids them, `other`. The requests of a talk
are held against its last ones, as providers keep the beginnings of several.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque

# A provider keeps what it has read for minutes: a summary's request between two others does not throw theirs away.
KEPT = 6
ANSWER = (
    "Answer {n}: it is a number like its neighbours, one more than the one before it. If it matters at all, it is"
    " because somebody counted that far; the café opens at eight, and nothing about {n} changes that."
)
seen: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
calls: dict[str, int] = defaultdict(int)
last: dict[str, deque[bytes]] = defaultdict(lambda: deque(maxlen=KEPT))


def common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with, by halving: comparing slices is fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def note(talk: str, body: bytes) -> str:
    """Count a request and return its kind."""
    kind = "answer"
    if b'"tools":[' not in body or b'"tool_choice":"none"' in body:
        kind = "other"
    elif calls[talk] < int(talk.partition(":")[2]):
        kind = "call"
        calls[talk] += 1
    else:
        calls[talk] = 0
    seen[talk].append((len(body), max((common(body, one) for one in last[talk]), default=0), kind))
    last[talk].append(body)
    return kind


def reply(talk: str, body: bytes) -> bytes:
    """The stream of an answer."""
    kind = note(talk, body)
    number = len(seen[talk])
    if kind == "call":
        call = {"name": "look", "arguments": json.dumps({"number": number})}
        delta: dict[str, object] = {"tool_calls": [{"index": 0, "id": f"call_{number:08d}", "function": call}]}
        reason = "tool_calls"
    else:
        delta, reason = {"content": ANSWER.format(n=number)}, "stop"
    usage = {"prompt_tokens": len(body) * 2 // 7, "completion_tokens": 60, "total_tokens": len(body) * 2 // 7 + 60}
    chunks = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage},
    ]
    lines = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return b"".join(lines) + b"data: [DONE]\n\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer what comes over one connection."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        path = head.split(b" ", 2)[1].decode()
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        body = await reader.readexactly(length)
        talk = path.split("/")[1]
        if path.endswith("/seen"):
            content, kind = json.dumps(seen[talk]).encode(), b"application/json"
        else:
            content, kind = reply(talk, body), b"text/event-stream"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\nContent-Length: ")
        writer.write(str(len(content)).encode() + b"\r\n\r\n" + content)
    writer.close()


async def main() -> None:
    """Listen, say where, and end with whoever reads that."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    parent_gone = asyncio.Event()
    loop.add_reader(0, parent_gone.set)
    await parent_gone.wait()


if __name__ == "__main__":
    asyncio.run(main())
