"""Gives a model the text of PDF files that it does not take as they are; the log keeps the files."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Iterator

from power_loop.contracts.frozen import frozen
from power_loop.contracts.llm import LLMRequest, ModelInfo
from power_loop.contracts.messages import FilePart, Message, Part, TextPart, ToolResultPart, inline_data, is_pdf
from power_loop.core.context import texts
from power_loop.core.context.tokens import estimate_message
from power_loop.runtime.host.pdf import MAX_TEXT_BYTES, PdfText, read_pdf

#: How many files are read at the same time, each in a process of its own.
MAX_AT_ONCE = 2
# What a message knows of its reading: False where there is nothing to read in it.
_MEMO = "as_text"


@frozen
class Read:
    """Is a request in which files stand as text, and by how many tokens that makes it longer."""

    request: LLMRequest
    more_tokens: int = 0


def max_text_bytes(info: ModelInfo) -> int:
    """Return how much text of one file a model is shown: of its window a third at most, as a token has three bytes and
    more in any script."""
    return min(MAX_TEXT_BYTES, info.context_window_tokens)


async def with_files_read(request: LLMRequest, info: ModelInfo) -> Read:
    """Return the request as a model takes it. What was read once is kept with its message.

    A message without such a file stays the same object. Nothing is raised for what stands in a file.
    """
    if info.has_pdf:
        return Read(request)
    max_bytes = max_text_bytes(info)
    key = f"{_MEMO}:{max_bytes}"
    known = [message.memo.get(key) for message in request.messages]
    if None not in known and not any(known):
        return Read(request)
    await _read_all(
        [message for message, one in zip(request.messages, known, strict=True) if one is None], key, max_bytes
    )
    messages = [message.memo[key] or message for message in request.messages]
    changed = [(new, old) for new, old in zip(messages, request.messages, strict=True) if new is not old]
    if not changed:
        return Read(request)
    more = sum(estimate_message(new) - estimate_message(old) for new, old in changed)
    return Read(dataclasses.replace(request, messages=tuple(messages)), more)


def has_pdf(parts: Iterable[Part]) -> bool:
    """Tell whether there is a PDF file among parts."""
    return any(True for _ in _pdfs(parts))


async def _read_all(unread: Iterable[Message], key: str, max_bytes: int) -> None:
    holders = []
    for message in unread:
        if has_pdf(message.parts):
            holders.append(message)
        else:
            message.memo[key] = False
    gate = asyncio.Semaphore(MAX_AT_ONCE)
    await asyncio.gather(*(_read(message, key, max_bytes, gate) for message in holders))


async def _read(message: Message, key: str, max_bytes: int, gate: asyncio.Semaphore) -> None:
    files = list(_pdfs(message.parts))
    found = await asyncio.gather(*(_text_of(file, max_bytes, gate) for file in files))
    texts_of = {id(file): TextPart(texts.pdf_file(file, text)) for file, text in zip(files, found, strict=True)}

    def as_text(part: Part) -> Part:
        if isinstance(part, ToolResultPart):
            return dataclasses.replace(part, content=tuple(texts_of.get(id(one), one) for one in part.content))
        return texts_of.get(id(part), part)

    message.memo[key] = dataclasses.replace(message, parts=tuple(map(as_text, message.parts)), memo={})


async def _text_of(file: FilePart, max_bytes: int, gate: asyncio.Semaphore) -> PdfText:
    inline = inline_data(file)
    assert inline is not None
    async with gate:
        return await read_pdf(inline[1], max_text_bytes=max_bytes)


def _pdfs(parts: Iterable[Part]) -> Iterator[FilePart]:
    for part in parts:
        for one in part.content if isinstance(part, ToolResultPart) else (part,):
            if isinstance(one, FilePart) and is_pdf(one):
                yield one
