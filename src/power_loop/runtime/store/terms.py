"""Makes of a text the terms by which a database finds it.

Each database's full-text search has rules of its own: stop words, least lengths, what parts words, operators in a
query, nothing for languages without spaces. A term is a word, or a pair of characters where a language has no spaces,
as twelve letters from a to p: no rule applies to those, and no query can be more than a list of them. The same word has
another term in another namespace, so that a search reads nothing of others, and an index does not even know of two
users that they said the same.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator

#: Different terms of one text that are kept, and of one query that are looked for.
MAX_TERMS = 4_000
MAX_QUERY_TERMS = 32
# What of a text, and of a word, is looked at.
_MAX_CHARS = 100_000
_MAX_WORD_CHARS = 64
_TERM_BYTES = 6
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
# Thai, Lao, Burmese, Khmer, kana, Chinese characters, Hangul: where words are not parted by spaces, or carry endings.
_UNPARTED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_PIECES = re.compile(f"[{_UNPARTED}]+|[^\\s{_UNPARTED}]+")
_IS_UNPARTED = re.compile(f"[{_UNPARTED}]")
_ASCII_WORDS = re.compile("[a-z0-9]+")
# Words that say nothing of what a text is about. They are left out of a query only where it has others.
_COMMON_TEXT = (
    "a about an and any are as at be but by can could did do does for from had has have he her him his how i if in into"
    " is it its me my no not of on or our please she should so that the their them then there these they this to us was"
    " we were what when where which who why will with would you your"
)
_COMMON = frozenset(_COMMON_TEXT.split())


def document_terms(namespace: str, text: str) -> tuple[str, ...]:
    """Return the terms of a text that is to be found, each once."""
    return _encoded(namespace, dict.fromkeys(_words(text, is_query=False)), MAX_TERMS)


def query_terms(namespace: str, text: str) -> tuple[str, ...]:
    """Return the terms to look for, the longest words first where there are too many; none for a text without words."""
    words = dict.fromkeys(_words(text, is_query=True))
    telling = [word for word in words if word not in _COMMON] or list(words)
    return _encoded(namespace, sorted(telling, key=len, reverse=True), MAX_QUERY_TERMS)


def _encoded(namespace: str, words: Iterable[str], limit: int) -> tuple[str, ...]:
    key = hashlib.blake2b(namespace.encode("utf-8", "surrogatepass"), digest_size=32).digest()
    terms: list[str] = []
    for word in words:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=_TERM_BYTES, key=key)
        terms.append(digest.hexdigest().translate(_LETTERS))
        if len(terms) == limit:
            break
    return tuple(terms)


def _words(text: str, *, is_query: bool) -> Iterator[str]:
    """Give the words of a text as they are compared: without case, in one of several forms of the same characters."""
    text = text[:_MAX_CHARS]
    if text.isascii():
        yield from map(_singular, _parted(text.lower()))
        return
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    for piece in _PIECES.findall(text):
        if _IS_UNPARTED.match(piece):
            yield from _pairs(piece, is_query=is_query)
        else:
            yield from map(_singular, _parted(piece))


def _parted(text: str) -> list[str]:
    """Return the words of a text without case; a mark that changes a letter belongs to it."""
    if text.isascii():
        words = _ASCII_WORDS.findall(text)
    else:
        words = "".join([char if unicodedata.category(char)[0] in "LNM" else " " for char in text]).split()
    return [word[:_MAX_WORD_CHARS] for word in words]


def _singular(word: str) -> str:
    """Return an English plural as its singular, roughly; the same is done to what is looked for."""
    if len(word) < 4 or not word.endswith("s") or word[-2] in "sui" or not word.isascii():
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1]


def _pairs(piece: str, *, is_query: bool) -> Iterator[str]:
    """Give the characters of a stretch in pairs, and by themselves where a query may be one character long."""
    if len(piece) == 1 or not is_query:
        yield from piece
    yield from (piece[at : at + 2] for at in range(len(piece) - 1))
