"""Lets a model look at the images of its workspace."""

from __future__ import annotations

from typing import Annotated

from power_loop.contracts.errors import ToolError
from power_loop.contracts.messages import ImagePart
from power_loop.contracts.tools import ToolDefinition
from power_loop.runtime.host.files import read_file
from power_loop.runtime.host.paths import PathGuard
from power_loop.tools.decorator import tool


def view_image_tool(guard: PathGuard) -> ToolDefinition:
    """Return `view_image`, which shows an image to a model that can see."""
    limit = guard.env.limits.max_image_bytes

    @tool(effect="read")
    def view_image(path: Annotated[str, "Path of a PNG, JPEG, GIF or WebP file."]) -> list[ImagePart]:
        """Look at an image."""
        place = guard.find(path)
        data = read_file(place, max_bytes=limit, advice="make it smaller with bash").data
        media_type = image_type(data)
        if media_type is None:
            raise ToolError(f"{place.shown!r} is no PNG, JPEG, GIF or WebP: convert it with bash, or use read_file")
        return [ImagePart.from_bytes(data, media_type)]

    return view_image


def image_type(data: bytes) -> str | None:
    """Return the media type of an image by how it begins, whatever its name; None for what no provider takes."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None
