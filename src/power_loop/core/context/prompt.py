"""Puts a system prompt together from titled sections, and says the same of the same tools every time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from power_loop.contracts.errors import InputError
from power_loop.contracts.messages import clean_text
from power_loop.contracts.tools import ToolDefinition

#: The most sections of a prompt, and the most characters of the whole: about 100,000 tokens.
MAX_SECTIONS = 200
MAX_PROMPT_CHARS = 400_000
MAX_TITLE_CHARS = 200


class SystemPrompt:
    """Is a system prompt of sections; each method returns a longer one and leaves this one as it is.

    `opening` stands in front, without a title. Nothing is said that was not given: no persona, no greeting, no date.
    The text is the same at every call, so that providers find the beginning of the request in their caches; what
    changes belongs into a message, a note or a `LiveState`. Raises `input.invalid` for what is no text.
    """

    __slots__ = ("_sections",)

    def __init__(self, opening: str = "") -> None:
        text = _checked("the opening", opening)
        self._sections: tuple[_Section, ...] = (_Section("", text),) if text else ()

    def section(self, title: str, text: str, *, when: bool = True) -> SystemPrompt:
        """Add a section, unless `when` is false or there is nothing in it. Raises `input.invalid`."""
        heading, body = _title(title), _checked(f"the section {title!r:.200}", text)
        return self._with(_Section(heading, body)) if when and body else self

    def tools(self, title: str = "Tools") -> SystemPrompt:
        """Add the place where the guidance of the offered tools stands: `ToolDefinition.guidance`, which is when to use
        a tool and when not.

        What their definitions tell the model anyway is not said again, and tools without guidance are not named. The
        section is left out where there is nothing to say.
        """
        return self._with(_Section(_title(title), None))

    def text(self, tools: Iterable[ToolDefinition] = ()) -> str:
        """Return the prompt for a model that is offered `tools`. Raises `input.invalid` if it is too long."""
        guidance = _guidance(tools) if any(one.text is None for one in self._sections) else ""
        whole = "\n\n".join(filter(None, (one.shown(guidance) for one in self._sections)))
        if len(whole) > MAX_PROMPT_CHARS:
            raise InputError(
                f"the system prompt has {len(whole)} characters, and {MAX_PROMPT_CHARS} are the limit: put long"
                " material into a message, or behind a tool that reads it"
            )
        return whole

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"SystemPrompt({', '.join(repr(one.title) for one in self._sections)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SystemPrompt) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[tuple[str, str | None], ...]:
        return tuple((one.title, one.text) for one in self._sections)

    def _with(self, section: _Section) -> SystemPrompt:
        if len(self._sections) >= MAX_SECTIONS:
            raise InputError(f"a system prompt has at most {MAX_SECTIONS} sections: join some of them")
        longer = SystemPrompt()
        longer._sections = (*self._sections, section)
        return longer


class _Section:
    """Is a heading and its text; the text None stands for the guidance of the tools."""

    __slots__ = ("text", "title")

    def __init__(self, title: str, text: str | None) -> None:
        self.title = title
        self.text = text

    def shown(self, guidance: str) -> str:
        text = guidance if self.text is None else self.text
        return f"# {self.title}\n\n{text}" if self.title and text else text


def prompt_text(prompt: str | SystemPrompt | None, tools: Iterable[ToolDefinition]) -> str | None:
    """Return the text of what may be given for a system prompt, for a model that is offered `tools`. Raises
    `input.invalid`."""
    if isinstance(prompt, SystemPrompt):
        return prompt.text(tools)
    given: Any = prompt
    if given is not None and not isinstance(given, str):
        raise InputError(f"system_prompt is {given!r:.200}: give text or a SystemPrompt")
    return None if prompt is None else clean_text(prompt)


def _guidance(tools: Iterable[ToolDefinition]) -> str:
    said = [(tool.name, clean_text(tool.guidance).strip()) for tool in tools if tool.guidance is not None]
    # The lines of one tool stand below its name.
    return "\n".join(f"- `{name}`: " + "\n  ".join(text.splitlines()) for name, text in said if text)


def _checked(what: str, text: Any) -> str:
    if callable(text):
        raise InputError(
            f"{what} is a function: give text. What changes from call to call would keep providers from finding the"
            " prompt in their caches; put it into the message, a note or a LiveState"
        )
    if not isinstance(text, str):
        raise InputError(f"{what} is {text!r:.200}: give text")
    return clean_text(text).replace("\r\n", "\n").strip()


def _title(title: Any) -> str:
    if not isinstance(title, str) or not title.strip() or len(title) > MAX_TITLE_CHARS or len(title.splitlines()) > 1:
        raise InputError(f"the title {title!r:.200} is no heading: give one line of 1 to {MAX_TITLE_CHARS} characters")
    return clean_text(title).strip()
