"""Prints into each translation what it shares with its English page: the code blocks, and where its links lead.

The first line of a translation names its page and a digest of the words that it was made from:
`<!-- translation of docs/en/index.md, words 0123456789ab -->`; a `summary` leaves parts and all figures out. Code and
printed parts do not count as words. With `--check` nothing is written: a translation whose page has other words by now
is named (it is stale), and the exit code tells whether one lacks code or a page lacks its translation. `--stamp PAGE`
says of a translation, also a new one, that it is of the page as it stands.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENGLISH = ROOT / "docs" / "en"
CHINESE = ROOT / "docs" / "zh"

#: Pages outside of the guides that are translated.
ELSEWHERE = {ROOT / "README.md": ROOT / "README.zh.md", ROOT / "SECURITY.md": ROOT / "SECURITY.zh.md"}
#: Pages that have no translation. The reference is printed from the code, decisions are for those who change it.
UNTRANSLATED = ("docs/en/api/*", "docs/en/decisions/*")
#: Chinese pages that have no English one.
OWN_PAGES = ("docs/zh/glossary.md",)

_STAMP = re.compile(r"\A<!-- (?P<kind>translation|summary) of (?P<page>\S+), words (?P<digest>\w+) -->\n")
# A fenced block with the comments directly before it, which say to a test what the model answers and what is expected.
_BLOCK = re.compile(
    r"(?:^ *<!-- (?:(?!-->).)* -->[ ]*\n)*^(?P<indent> *)```(?P<language>\w*)[^\n`]*\n.*?^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_PRINTED = re.compile(r"(<!-- printed: (?P<name>[\w-]+) -->\n).*?(<!-- end: (?P=name) -->)", re.DOTALL)
_FIXED = re.compile(f"{_BLOCK.pattern}|{_PRINTED.pattern}", _BLOCK.flags)
_HEADING = re.compile(r"^(?P<level>#+) (?P<text>.+)$", re.MULTILINE)
_NAME = re.compile(r"`([^`]+)`")
_MARK = re.compile(r"^ *(?P<mark>[-*|])(?= )|(?P<picture>!)(?=\[)", re.MULTILINE)
_LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s]+)(?P<after>\))")
_FIGURE = re.compile(r"\d")
# Long enough that two wordings of a page never share one.
_DIGEST_CHARS = 12


@dataclass(frozen=True)
class Heading:
    """Is one heading of a page: how deep it is, and the anchor that GitHub gives it."""

    level: int
    anchor: str


@dataclass(frozen=True)
class Translation:
    """Is one translated page beside the English one."""

    page: Path
    path: Path
    is_whole: bool
    digest: str

    @property
    def is_stale(self) -> bool:
        """Whether the English page has other words than those that were translated."""
        return self.digest != digest_of(self.page.read_text("utf-8"), has_figures=self.is_whole)


# --- what a page is made of -----------------------------------------------------------------------------------------


@cache
def own_text(text: str) -> str:
    """Return a page without what is printed into it: its code blocks and the parts that come from the code."""
    return _BLOCK.sub("", _PRINTED.sub(r"\1\3", text))


def digest_of(text: str, *, has_figures: bool = True) -> str:
    """Return a digest of a page's own words, or of those without figures; where lines break plays no part."""
    words = [word for word in own_text(text).split() if has_figures or not _FIGURE.search(word)]
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:_DIGEST_CHARS]


def blocks_of(text: str) -> list[str]:
    """Return the code blocks of a page as they stand, each with the comment before it."""
    return [found[0] for found in _BLOCK.finditer(_PRINTED.sub(r"\1\3", text))]


def headings_of(text: str) -> list[Heading]:
    """Return the headings of a page in order, those of printed parts aside."""
    return [Heading(len(found["level"]), _anchor(found["text"])) for found in _HEADING.finditer(own_text(text))]


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def outline_of(text: str) -> Counter[str]:
    """Count what every language writes alike: names in code, rows, list items and pictures."""
    own = own_text(text)
    outline = Counter(f"`{' '.join(found.split())}`" for found in _NAME.findall(own))
    outline.update(found["mark"] or found["picture"] for found in _MARK.finditer(own))
    return outline


def links_of(text: str, path: Path) -> Counter[tuple[str, int | str]]:
    """Count where a page's links lead, in terms of the English pages: a file and the number of a heading there."""
    places: Counter[tuple[str, int | str]] = Counter()
    for found in _LINK.finditer(own_text(text)):
        target = found["target"]
        if "://" in target:
            places[(target, "")] += 1
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        anchors = [heading.anchor for heading in headings_of(place.read_text("utf-8"))] if anchor else []
        heading = anchors.index(anchor) if anchor in anchors else anchor
        places[(_source_of(place).relative_to(ROOT).as_posix(), heading)] += 1
    return places


# --- which pages there are ------------------------------------------------------------------------------------------


def english_pages() -> list[Path]:
    """Return every English page that a user reads."""
    return [*ELSEWHERE, *sorted(ENGLISH.rglob("*.md"))]


def translation_path(page: Path) -> Path:
    """Return where the translation of an English page stands, or would stand."""
    return ELSEWHERE.get(page) or CHINESE / page.relative_to(ENGLISH)


def _source_of(path: Path) -> Path:
    """Return the English page of a translation, or `path` itself where it is none."""
    sources = {translation: page for page, translation in ELSEWHERE.items()}
    if path in sources:
        return sources[path]
    is_own = path.is_relative_to(ROOT) and path.relative_to(ROOT).as_posix() in OWN_PAGES
    return ENGLISH / path.relative_to(CHINESE) if path.is_relative_to(CHINESE) and not is_own else path


def is_untranslated(page: Path) -> bool:
    """Whether an English page is one of those that have no translation."""
    name = page.relative_to(ROOT).as_posix()
    return any(fnmatch.fnmatch(name, pattern) for pattern in UNTRANSLATED)


def translations() -> list[Translation]:
    """Return the translations that there are. Raises ValueError for one that does not say what it was made from."""
    found = []
    for page in english_pages():
        path = translation_path(page)
        if path.is_file():
            stamp = _STAMP.match(path.read_text("utf-8"))
            if stamp is None or stamp["page"] != page.relative_to(ROOT).as_posix():
                raise ValueError(f"{path.relative_to(ROOT)}: its first line does not name {page.relative_to(ROOT)}")
            found.append(Translation(page, path, stamp["kind"] == "translation", stamp["digest"]))
    return found


def missing() -> list[Path]:
    """Return the English pages that lack the translation that they should have."""
    return [page for page in english_pages() if not is_untranslated(page) and not translation_path(page).is_file()]


# --- printing -------------------------------------------------------------------------------------------------------


def printed(translation: Translation) -> str:
    """Return a translation with its English page's code, and with links that lead to translations where there are any.

    Raises ValueError where a block has no counterpart: then a person has to say where it goes.
    """
    text = translation.path.read_text("utf-8")
    if translation.is_whole:
        text = _with_code(text, translation.page.read_text("utf-8"), translation.path)
    pieces, end = [], 0
    for found in _FIXED.finditer(text):
        pieces += [_with_links(text[end : found.start()], translation), found[0]]
        end = found.end()
    return "".join([*pieces, _with_links(text[end:], translation)])


def _with_code(text: str, english: str, path: Path) -> str:
    ours = [found["language"] for found in _BLOCK.finditer(text)]
    theirs = [(found["language"], found[0]) for found in _BLOCK.finditer(english)]
    if ours != [language for language, _ in theirs]:
        raise ValueError(
            f"{path.relative_to(ROOT)} has blocks of {ours}, its English page of "
            f"{[language for language, _ in theirs]}: add or remove those that differ, empty ones will do"
        )
    blocks = iter([block for _, block in theirs])
    return _BLOCK.sub(lambda _: next(blocks), text)


def _with_links(prose: str, translation: Translation) -> str:
    def relink(found: re.Match[str]) -> str:
        target = _relinked(found["target"], translation)
        return f"{found['before']}{target}{found['after']}"

    return _LINK.sub(relink, prose)


def _relinked(target: str, translation: Translation) -> str:
    """Return a link that leads from an English page, or already from its translation, as the translation has it."""
    if "://" in target or target.startswith("mailto:"):
        return target
    file, _, anchor = target.partition("#")
    page, path = translation.page, translation.path
    place = (path.parent / file).resolve() if file else path
    if not place.exists():
        place = (page.parent / file).resolve()
    # A page's link to its own English page is meant.
    if place != page and place.suffix == ".md" and place.is_relative_to(ROOT) and _is_english(place):
        other = translation_path(place)
        place = other if other.is_file() else place
    if anchor and place.suffix == ".md" and place.exists():
        anchor = _anchor_in(place, anchor)
    way = os.path.relpath(place, path.parent).replace(os.sep, "/") if file else ""
    return f"{way}#{anchor}" if anchor else way + ("/" if file.endswith("/") else "")


def _is_english(place: Path) -> bool:
    return place in ELSEWHERE or place.is_relative_to(ENGLISH)


def _anchor_in(place: Path, anchor: str) -> str:
    """Return the anchor of the heading of `place` that stands where the English page has the one with `anchor`."""
    ours = [heading.anchor for heading in headings_of(place.read_text("utf-8"))]
    source = _source_of(place)
    if anchor in ours or source == place or not source.is_file():
        return anchor
    theirs = [heading.anchor for heading in headings_of(source.read_text("utf-8"))]
    if anchor in theirs and len(ours) == len(theirs):
        return ours[theirs.index(anchor)]
    return anchor


def _stamp(path: Path) -> None:
    """Have a translation's first line name its page as it is; a new translation gets that line."""
    page, text = _source_of(path), path.read_text("utf-8")
    found = _STAMP.match(text)
    kind = found["kind"] if found else "translation"
    digest = digest_of(page.read_text("utf-8"), has_figures=kind == "translation")
    head = f"<!-- {kind} of {page.relative_to(ROOT).as_posix()}, words {digest} -->\n"
    path.write_text(head + (text[found.end() :] if found else f"\n{text}"), "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every translation, or check them all."""
    parser = argparse.ArgumentParser(prog="python -m scripts.print_translations", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if code or a translation lacks")
    parser.add_argument(
        "--stamp", nargs="+", type=Path, default=[], help="translations that are of their pages as they stand"
    )
    options = parser.parse_args(arguments)
    stamped = [path.resolve() for path in options.stamp]
    for path in stamped:
        _stamp(path)
    problems = [f"{page.relative_to(ROOT)} has no translation" for page in missing()]
    for translation in translations():
        name = translation.path.relative_to(ROOT)
        if translation.is_stale:
            print(f"stale: {name}: {translation.page.relative_to(ROOT)} has other words than those it was made from")
        try:
            text = printed(translation)
        except ValueError as error:
            problems.append(str(error))
            continue
        if text != translation.path.read_text("utf-8"):
            if options.check:
                problems.append(f"{name} is not what its English page says: run `make docs-print`")
            else:
                translation.path.write_text(text, "utf-8")
                print(f"printed: {name}")
    print("\n".join(problems) or f"{len(translations())} translations have their pages' code")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
