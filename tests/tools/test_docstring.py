"""What a docstring says is found in each of the three styles, and in none."""

from __future__ import annotations

import pytest

from power_loop.tools.docstring import Docstring, read_docstring

_GOOGLE = """Search the shelf
    for books.

    Only titles are looked at:
      * exact words first
      * then stems

    Args:
        query: What to look for,
            in any language.
        limit (int, optional): How many at most.
        *rest: More words.
        where (dict[str, tuple(int)]): Which shelf.
        bare

    Returns:
        list: The books.

    Example:
        query: not a parameter
    """

_NUMPY = """Search the shelf for books.

    Parameters
    ----------
    query : str
        What to look for,
        in any language.
    limit, offset : int, optional
        How many at most.
    untyped
        Says nothing of its type.

    Returns
    -------
    list
        The books.
    """

_REST = """Search the shelf for books.

    More of it.

    :param query: What to look for,
        in any language.
    :param int limit: How many at most.
    :type query: str
    :keyword where: Which shelf.
    :returns: The books.
    :raises ValueError: query: never
    """


def test_google_sections_are_read() -> None:
    read = read_docstring(_GOOGLE)
    assert read.summary == "Search the shelf for books."
    assert read.prose == (
        "Search the shelf\nfor books.\n\nOnly titles are looked at:\n  * exact words first\n  * then stems"
    )
    assert read.parameters == {
        "query": "What to look for, in any language.",
        "limit": "How many at most.",
        "rest": "More words.",
        "where": "Which shelf. bare",
    }


def test_numpy_sections_are_read() -> None:
    read = read_docstring(_NUMPY)
    assert read.prose == "Search the shelf for books."
    assert read.parameters == {
        "query": "What to look for, in any language.",
        "limit": "How many at most.",
        "offset": "How many at most.",
        "untyped": "Says nothing of its type.",
    }


def test_rest_fields_are_read() -> None:
    read = read_docstring(_REST)
    assert (read.summary, read.prose) == (
        "Search the shelf for books.",
        "Search the shelf for books.\n\nMore of it.",
    )
    assert read.parameters == {
        "query": "What to look for, in any language.",
        "limit": "How many at most.",
        "where": "Which shelf.",
    }


@pytest.mark.parametrize("text", [None, "", "  \n  "])
def test_no_docstring_says_nothing(text: str | None) -> None:
    assert read_docstring(text) == Docstring()


def test_prose_alone_is_prose() -> None:
    read = read_docstring("Note: a colon in a sentence is no section.\n\nNor is Args: here.")
    assert read.prose == "Note: a colon in a sentence is no section.\n\nNor is Args: here."
    assert read.parameters == {}
