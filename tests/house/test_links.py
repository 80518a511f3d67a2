"""Every link and picture of every page leads somewhere: to a file of the repository, and to a heading of it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.house.pages import ROOT

PLACES = ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/**/*.md")
PAGES = sorted({path.relative_to(ROOT).as_posix() for pattern in PLACES for path in ROOT.glob(pattern)})
_FENCED = re.compile(r"^(?P<indent> *)(?P<mark>```+|~~~+).*?^(?P=indent)(?P=mark)$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)|(?:src|srcset|href)=\"(?P<source>[^\"]+)\"")
_HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
_ID = re.compile(r"<a (?:id|name)=\"(?P<id>[^\"]+)\"")

#: What the description of the project links to: every row of its tables has a page here.
DESCRIPTION = [
    *(f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY", "ROADMAP", "README.zh")),
    *(f"docs/en/{name}.md" for name in ("index", "getting-started", "architecture", "api/index", "user-guide/index")),
    "docs/en/api/index.md#error-codes",
    "docs/en/user-guide/sessions.md#pending-recovery",
    *(f"docs/en/user-guide/{name}.md" for name in ("compaction", "events", "extending-tools", "hooks", "memory")),
    *(
        f"docs/en/user-guide/{name}.md"
        for name in ("observability", "retry-cancel", "sandboxing", "scaling", "sessions")
    ),
    *(f"docs/en/user-guide/{name}.md" for name in ("send-context-projection", "storage-backends", "structured-output")),
    *(f"docs/en/user-guide/{name}.md" for name in ("subagents", "timers", "tools", "workflows")),
    "LICENSE",
]


#: The capabilities of its table, which is ours as well.
CAPABILITIES = """
Stateful sessions; Pluggable backends; Stateless / resumable loop; Tool calling; Sub-agents; Dynamic workflows;
Workflow resume; Process sandboxing; Durable timers; Context compaction; Send-context projection; Durability ops;
Observability; MCP tools; Hooks & events; Structured output; Pluggable memory; Retry / cancel / budgets;
Stable error codes; Crash recovery
"""


def links_of(text: str) -> list[str]:
    """Return where the links and pictures of a page lead to; what stands in code leads nowhere."""
    plain = _CODE.sub("``", _FENCED.sub("", text))
    return [found["target"] or found["source"] for found in _LINK.finditer(plain)]


def anchors_of(text: str) -> set[str]:
    """Return the anchors that the headings of a page get on the web: a heading that comes again has a number."""
    plain = _FENCED.sub("", text)
    anchors = {found["id"] for found in _ID.finditer(plain)}
    for found in _HEADING.finditer(plain):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", found["text"])
        anchor = first = re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        number = 0
        while anchor in anchors:
            number += 1
            anchor = f"{first}-{number}"
        anchors.add(anchor)
    return anchors


@cache
def anchors_in(path: Path) -> set[str]:
    return anchors_of(path.read_text("utf-8"))


def problem_with(target: str, page: Path) -> str | None:
    """Say what is wrong with a link, or nothing."""
    if re.match(r"[a-z][a-z0-9+.-]*:", target):
        return None if target.startswith(("http://", "https://", "mailto:")) else "is no address"
    file, _, anchor = target.partition("#")
    place = (page.parent / file).resolve() if file else page
    if not place.exists():
        return "is not there"
    if place != ROOT and ROOT not in place.parents:
        return "leads out of the repository"
    if anchor and place.suffix == ".md" and anchor not in anchors_in(place):
        return "has no such heading"
    return None


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    path = ROOT / page
    targets = links_of(path.read_text("utf-8"))
    assert [f"{one} {problem}" for one in targets if (problem := problem_with(one, path))] == []


@pytest.mark.parametrize("target", DESCRIPTION)
def test_what_the_description_links_to_is_here(target: str) -> None:
    assert problem_with(target, ROOT / "README.md") is None


def test_every_capability_of_the_description_has_its_row_and_its_page() -> None:
    rows = [row for row in (ROOT / "README.md").read_text("utf-8").splitlines() if row.startswith("| **")]
    linked = {row.split("**")[1]: links_of(row) for row in rows}
    wanted = {" ".join(name.split()) for name in CAPABILITIES.split(";")}
    assert wanted - {name for name, links in linked.items() if links} == set()


def test_every_page_is_led_to_by_another_one() -> None:
    reached = {
        (ROOT / page).parent.joinpath(target.partition("#")[0]).resolve()
        for page in PAGES
        for target in links_of((ROOT / page).read_text("utf-8"))
        if "://" not in target and target.partition("#")[0]
    }
    left_out = {page for page in PAGES if (ROOT / page).resolve() not in reached}
    # Skills are read by agents, and found in their folder.
    assert {page for page in left_out if "/skills/" not in page} <= {"README.md"}


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("README.md", None),
        ("README.md#tools", None),
        ("https://example.org/x#y", None),
        ("missing.md", "is not there"),
        ("README.md#no-such-part", "has no such heading"),
        ("#no-such-part", "has no such heading"),
        ("../..", "leads out of the repository"),
        ("javascript:void", "is no address"),
    ],
)
def test_a_link_that_leads_nowhere_is_seen(target: str, problem: str | None) -> None:
    assert problem_with(target, ROOT / "README.md") == problem


def test_links_and_anchors_are_read_as_the_web_reads_them() -> None:
    page = "# A `b.c` d\n## A `b.c` d\n## 中文 标题\n[x](a.md#b) `[no](c.md)` ![p](d.svg)\n```\n[no](e.md)\n# no\n```\n"
    assert links_of(page) == ["a.md#b", "d.svg"]
    assert anchors_of(page) == {"a-bc-d", "a-bc-d-1", "中文-标题"}
