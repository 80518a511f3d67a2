"""Every Python block of the README and the guides runs as printed; every command that they name exists."""

from __future__ import annotations

import gc
import importlib.util
import re
from pathlib import Path

import pytest

from power_loop import HookPoint
from tests.house.pages import ROOT, Block, blocks_of, pages, run_blocks
from tests.model_server import ThreadedModelServer

PAGES = [path.relative_to(ROOT).as_posix() for path in pages()]
CHINESE_PAGES = ["README.zh.md", *(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs/zh").rglob("*.md"))]
# Their code is not run here: that of a translation is that of its English page (test_translations.py).
OTHER_PAGES = ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "examples/README.md", *sorted(CHINESE_PAGES)]


def blocks(page: str, *languages: str) -> list[Block]:
    found = blocks_of((ROOT / page).read_text("utf-8"), page)
    return [block for block in found if block.language in languages]


@pytest.mark.promise("readme")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_its_python_blocks_run_as_printed(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadedModelServer() as server:
        for name, value in {"BASE_URL": server.base_url, "API_KEY": "k", "MODEL": "gpt-test"}.items():
            monkeypatch.setenv(f"POWER_LOOP_{name}", value)
        namespace = {"__name__": "page"}
        run_blocks(blocks(page, "python"), server, namespace)
    # What a page leaves open warns when it is collected: that has to be here, not in whichever test comes next.
    namespace.clear()
    gc.collect()


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_the_commands_that_it_names_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    extras = set(re.findall(r"^(\w+) = \[", project_table("optional-dependencies"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text, re.MULTILINE)) <= targets
    named = {extra for group in re.findall(r"(?:power-loop|\.)\[([\w,]+)\]", text) for extra in group.split(",")}
    assert named <= extras
    for module in re.findall(r"python -m ((?:demo|benchmarks|tests)[\w.]*)", text):
        assert importlib.util.find_spec(module), module


def project_table(name: str) -> str:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    return text.partition(f"[project.{name}]")[2].partition("\n[tool")[0]


def test_the_guide_says_of_every_hook_point_what_a_raise_does() -> None:
    guide = (ROOT / "docs/en/user-guide/hooks.md").read_text("utf-8")
    table = guide.partition("## When a hook raises")[2].partition("## ")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]
    assert sorted(named) == sorted(point.value for point in HookPoint)
