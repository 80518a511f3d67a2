"""Shows the model an image: parts of a message are text, images, sounds and files.

You will see what a model that sees says about a picture, and that the picture is in the log, byte for byte. A model
that cannot see is told in words what stood there.
"""

import asyncio
import struct
import zlib

from power_loop import ImagePart, StatefulAgentLoop, create_llm_service_from_env


def png(red: int, green: int, blue: int, *, size: int = 64) -> bytes:
    """Return a square of one color, as the bytes of a PNG file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes((red, green, blue)) * size) * size)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


async def main() -> None:
    """Ask about a teal square."""
    picture = png(0, 128, 128)
    async with StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db") as loop:
        sid = await loop.new_session()
        result = await loop.send(["What color is this?", ImagePart.from_bytes(picture)], session_id=sid)
        print(result.final_text)
        [question, _] = await loop.get_messages(sid)
        print("the log has the picture:", question.message.parts[1] == ImagePart.from_bytes(picture))


if __name__ == "__main__":
    asyncio.run(main())
