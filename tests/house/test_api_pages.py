"""The API reference has every public name once, in the words of its source."""

from __future__ import annotations

import ast
import re

import pytest

import power_loop
from scripts import api_pages
from tests.house.pages import ROOT

PAGES = {file: write() for file, write in api_pages.pages().items()}
WHOLE = "\n".join(PAGES.values())


def test_every_public_name_is_described_once() -> None:
    headings = re.findall(r"^## `(\w+)`$", WHOLE, re.MULTILINE)
    assert sorted(headings) == sorted(set(headings))
    public = {name.rpartition(".")[2] for name in power_loop.STABLE_API}
    assert public <= set(headings)


def test_every_name_of_the_index_leads_to_its_entry() -> None:
    index = (ROOT / "docs" / "en" / "api" / "index.md").read_text("utf-8")
    for word in power_loop.STABLE_API:
        if "." not in word:
            name = api_pages.names()[word]
            assert f"[`{word}`]({name.page}#{name.anchor})" in index
            assert f"## `{word}`\n" in PAGES[f"en/api/{name.page}"]


def test_the_errors_that_are_promised_exist() -> None:
    said = re.findall(r"Raises ((?:[^.]|\.(?! |\n|$))*)", WHOLE)
    codes = {code for sentence in said for code in re.findall(r"`([a-z]+\.[a-z_]+)`", sentence)}
    assert len(codes) > 40
    assert codes - set(api_pages.error_words()) == set()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (
            "def f(a, /, b: int = 1, *c: str, d: bool, **e: Any) -> None: ...",
            "f(a, /, b: int = 1, *c: str, d: bool, **e: Any) -> None",
        ),
        ("async def f(*, a: str | None = None) -> int: ...", "async f(*, a: str | None = None) -> int"),
        ("@property\ndef f(self) -> int: ...", "f: int"),
        ("@classmethod\ndef f(cls, a: int) -> int: ...", "@classmethod\nf(a: int) -> int"),
        ("@staticmethod\ndef f(a: int) -> int: ...", "@staticmethod\nf(a: int) -> int"),
        ("def f(self, a: int, /) -> int: ...", "f(a: int, /) -> int"),
    ],
)
def test_a_signature_is_shown_as_it_is_called(source: str, shown: str) -> None:
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
    owner = object if "self" in source or "@" in source else None
    assert api_pages._signature(definition, "f", owner=owner) == shown


def test_names_and_codes_lead_to_their_entries() -> None:
    here = api_pages.names()["Deny"]
    said = "A `Deny` or `Budget`, `LoopConfig.limits`, `session.busy`, `other`, [`Budget`](x).\n```py\n`Budget`\n```"
    assert api_pages.linked(said, here) == (
        "A `Deny` or [`Budget`](budgets.md#budget), [`LoopConfig.limits`](power_loop.md#loopconfig),"
        " [`session.busy`](errors.md#sessionbusyerror), `other`, [`Budget`](x).\n```py\n`Budget`\n```"
    )
