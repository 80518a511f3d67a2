"""The demo's screen fits any terminal: it wraps, cuts, and falls back to plain text."""

from __future__ import annotations

import io
import re

import pytest

from demo.screen import MAX_COLUMNS, Screen

LONG = "The store holds the call as started, so nobody can tell yet whether the money went out. " * 4


class Terminal(io.StringIO):
    """A stream that says it is a terminal of some encoding."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    def isatty(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


def draw(screen: Screen) -> None:
    screen.title("power-loop", "a claim")
    screen.heading(1, "A part")
    screen.note(LONG)
    screen.code("loop = StatefulAgentLoop()\nawait loop.send()")
    screen.says("model", LONG, style="teal")
    screen.table(("seq", "who", "what"), [("1", "user", LONG), ("2", "assistant", "short")], marked=1)
    screen.done(LONG)
    screen.failed("no")
    screen.killed("gone")
    screen.progress("installing", 0.5, "60 of 127 MB")
    screen.line("after")
    screen.error("why\nwhat to do")


def drawn(stream: io.StringIO, environment: dict[str, str]) -> str:
    draw(Screen(stream, environment))
    return stream.getvalue()


def test_a_pipe_gets_plain_text_without_progress() -> None:
    text = drawn(io.StringIO(), {})
    assert "\033" not in text
    assert "\r" not in text
    assert "60 of 127 MB" not in text


def test_no_color_takes_the_colours_from_a_terminal() -> None:
    assert "\033[" in drawn(Terminal(), {"TERM": "xterm"})
    without = drawn(Terminal(), {"TERM": "xterm", "NO_COLOR": "1"})
    assert set(re.findall(r"\033\[[\d;]*[A-Za-z]", without)) <= {"\033[2K"}  # the progress line's own erasing


def test_colours_change_nothing_but_colours() -> None:
    with_colours = re.sub(r"\033\[[\d;]*m", "", drawn(Terminal(), {"TERM": "xterm"}))
    assert with_colours == drawn(Terminal(), {"TERM": "xterm", "NO_COLOR": "1"})


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = drawn(Terminal(), {"TERM": "xterm", "NO_COLOR": "1"})
    lines = [line for line in text.replace("\r\033[2K", "\n").splitlines() if not line.startswith("  installing")]
    assert max(map(len, lines)) <= max(60, min(columns, MAX_COLUMNS))


def test_a_stream_that_cannot_encode_glyphs_gets_ascii() -> None:
    text = drawn(Terminal("latin-1"), {"TERM": "xterm"})
    assert text.encode("ascii")


def test_progress_leaves_no_trace() -> None:
    stream = Terminal()
    screen = Screen(stream, {"TERM": "xterm", "NO_COLOR": "1"})
    screen.progress("installing", 0.25, "32 of 127 MB")
    screen.line("after")
    assert stream.getvalue().endswith("\r\033[2Kafter\n")


def test_a_missing_locale_encoding_counts_as_ascii() -> None:
    stream = Terminal()
    stream._encoding = "no-such-encoding"
    assert "->" in drawn_line(Screen(stream, {}), "a → b")


def drawn_line(screen: Screen, text: str) -> str:
    screen.line(text)
    stream = screen._stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()
