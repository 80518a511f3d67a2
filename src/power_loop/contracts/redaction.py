"""Takes secrets out of what is written down for people or machines that need not know them."""

from __future__ import annotations

import base64
import os
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

from power_loop.contracts.errors import ConfigError

#: Stands where a secret stood.
SECRET = "<secret>"

_PATTERNS = (
    r"\bsk-[A-Za-z0-9_-]{16,}",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    r"\bxox[abeprs]-[A-Za-z0-9-]{10,}",
    r"\bAIza[0-9A-Za-z_-]{35}",
    r"(?<=Bearer )[A-Za-z0-9._~+/-]{16,}=*",
    r"(?<=://)[^\s/:@]+:[^\s/@]+(?=@)",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----",
)
_KEY = r"api[-_]?key|access[-_]?key|secret|password|passwd|authorization|cookie|credentials?|token|headers"
# A longer name of a member is none that anybody gave to a secret.
_MAX_KEY_CHARS = 80
# Less is a switch or a number, and not a secret.
_MIN_SECRET_CHARS = 12


def secrets_of_environment() -> tuple[str, ...]:
    """Return what the environment holds under names such as `OPENAI_API_KEY`, the longest first."""
    name_of_secret = re.compile(rf"(?:.*[-_])?(?:{_KEY})", re.IGNORECASE)
    found = {
        value
        for name, value in os.environ.items()
        if len(value) >= _MIN_SECRET_CHARS and name_of_secret.fullmatch(name.removesuffix("_FILE")) is not None
    }
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


class Redaction:
    """Masks secrets: what looks like a well-known kind of key, members of JSON that are named like secrets, and texts
    that are known.

    `keys` are more names of members, whole and in any case, `patterns` more regular expressions, `values` more texts
    (also where they are URL-encoded or base64). What the environment holds under names such as `OPENAI_API_KEY` when
    this is made is known too, unless `uses_environment` is False. Raises `config.invalid`.
    """

    __slots__ = ("_key", "_members", "_patterns", "_values")

    def __init__(
        self,
        *,
        keys: Iterable[str] = (),
        patterns: Iterable[str] = (),
        values: Iterable[str] = (),
        uses_environment: bool = True,
    ) -> None:
        names = "|".join([_KEY, *(re.escape(_text_of("keys", key)) for key in keys)])
        self._key = re.compile(rf"(?:.{{0,{_MAX_KEY_CHARS}}}[-_])?(?:{names})", re.IGNORECASE)
        # In JSON that stands in a text, and in JSON in a text of JSON, where each quote bears backslashes.
        self._members = re.compile(
            rf'(?P<head>(?P<quote>\\*")(?:[^"\\]{{0,{_MAX_KEY_CHARS}}}[-_])?(?:{names})(?P=quote)\s*:\s*(?P=quote))'
            r"(?:(?!(?P=quote))[\s\S])*",
            re.IGNORECASE,
        )
        try:
            self._patterns = re.compile("|".join(f"(?:{_text_of('patterns', one)})" for one in (*_PATTERNS, *patterns)))
        except re.error as error:
            raise ConfigError(f"patterns holds what is no regular expression: {error}") from error
        known = {_text_of("values", one) for one in values}
        if uses_environment:
            known.update(secrets_of_environment())
        forms = {form for one in known for form in _forms(one)}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._values = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def plain(self, text: str) -> str:
        """Return a text without what is known or looks like a secret, whatever stands around it."""
        if self._values is not None:
            text = self._values.sub(SECRET, text)
        return self._patterns.sub(SECRET, text)

    def text(self, text: str) -> str:
        """Return a text without secrets, those included that are members of JSON in it."""
        text = self.plain(text)
        return self._members.sub(lambda found: found["head"] + SECRET, text) if '"' in text else text

    def value(self, value: Any) -> Any:
        """Return a JSON value without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.plain(name): SECRET if self.is_secret(name) and _is_said(one) else self.value(one)
                for name, one in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.value(one) for one in value]
        return value

    def is_secret(self, name: str) -> bool:
        """Tell whether a member of this name is a secret."""
        return self._key.fullmatch(name) is not None


def _is_said(value: Any) -> bool:
    """Tell whether a member holds anything: that it holds nothing, or is on or off, is no secret."""
    return not (value is None or isinstance(value, bool) or value in ("", [], {}))


def _forms(value: str) -> tuple[str, ...]:
    """Return how a secret may be written; none for what is too short to be one."""
    if not value:
        return ()
    if len(value) < _MIN_SECRET_CHARS:
        return (value,)
    coded = base64.b64encode(value.encode("utf-8", "surrogatepass")).decode("ascii").rstrip("=")
    # The last character but one depends on what follows.
    return (value, urllib.parse.quote(value, safe="", errors="replace"), coded[:-1])


def _text_of(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name} holds {value!r:.100}: give texts")
    return value
