"""Writes small PDF files of given texts, byte by byte, so that the tests need no package that makes them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

_FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def pdf_of(pages: Sequence[str | bytes], *, is_packed: bool = False) -> bytes:
    """Return a file with one page a text; bytes are the page's own drawing commands."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        _FONT,
    ]
    for number, page in enumerate(pages):
        content = page if isinstance(page, bytes) else _drawn(page)
        head = b""
        if is_packed:
            content, head = zlib.compress(content, 1), b"/Filter /FlateDecode "
        resources = b"/Resources << /Font << /F1 3 0 R >> >>"
        contents = f"/Contents {5 + 2 * number} 0 R >>".encode()
        objects.append(b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] " + resources + b" " + contents)
        size = str(len(content)).encode()
        objects.append(b"<< " + head + b"/Length " + size + b" >>\nstream\n" + content + b"\nendstream")
    return _file_of(objects)


def _drawn(text: str) -> bytes:
    escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return b"BT /F1 12 Tf 72 720 Td (" + escaped.encode("latin-1") + b") Tj ET"


def _file_of(objects: Sequence[bytes]) -> bytes:
    data = b"%PDF-1.4\n"
    offsets = []
    for number, one in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n".encode() + one + b"\nendobj\n"
    rows = b"".join(f"{offset:010d} 00000 n \n".encode() for offset in offsets)
    size = len(objects) + 1
    start = len(data)
    data += f"xref\n0 {size}\n0000000000 65535 f \n".encode() + rows
    return data + f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
