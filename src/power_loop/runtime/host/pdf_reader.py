"""Is the program that reads one PDF file and writes its text as JSON; it is run with tight limits."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

_UNREADABLE = "(this page cannot be read)"


def main() -> None:
    """Read, and write what was found."""
    settings = json.loads(sys.argv[1])
    sys.path[:] = settings["path"]
    # What pypdf thinks of a file is nobody's concern here.
    logging.disable(logging.CRITICAL)
    try:
        found = read(settings["file"], settings["max_pages"], settings["max_text_bytes"])
    except (MemoryError, RecursionError):
        found = {"problem": "too_much"}
    except ImportError:
        found = {"problem": "not_started"}
    except Exception:  # a stranger's file makes a parser raise anything
        found = {"problem": "broken"}
    sys.stdout.write(json.dumps(found))


def read(file: str, max_pages: int, max_text_bytes: int) -> dict[str, Any]:
    """Return the text of the first pages, as many as fit, or the problem."""
    import pypdf  # its extra is optional, and this process is the only one that loads it

    document = pypdf.PdfReader(file)
    if document.is_encrypted and not _is_opened(document):
        return {"problem": "encrypted"}
    pages = len(document.pages)
    texts: list[str] = []
    left = max_text_bytes
    is_unreadable = True
    for number in range(min(pages, max_pages)):
        if left <= 0:
            break
        text = _text_of(document, number)
        is_unreadable = is_unreadable and text is None
        text = _UNREADABLE if text is None else text
        # A page is told from the next by its number: models are asked what stands on which.
        texts.append(f"[page {number + 1}]\n{text}")
        left -= len(texts[-1].encode()) + 2
    if is_unreadable:
        return {"problem": "broken"}
    if not any(text.partition("\n")[2] for text in texts):
        return {"problem": "no_text"}
    whole = "\n\n".join(texts)
    cut = whole.encode()[:max_text_bytes].decode("utf-8", "ignore")
    return {"text": cut, "pages": pages, "pages_read": len(texts), "is_cut": len(cut) < len(whole)}


def _text_of(document: Any, number: int) -> str | None:
    """Return the text of a page; None if it cannot be read, which does not hide the others."""
    try:
        text: str = document.pages[number].extract_text()
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return None
    return text.encode("utf-8", "replace").decode().replace("\0", "").strip()


def _is_opened(document: Any) -> bool:
    """Whether no password opens the file, as many are made that only forbid printing."""
    try:
        return bool(document.decrypt(""))
    except Exception:  # a cipher that needs a package which is not here
        return False


if __name__ == "__main__":
    main()
