"""The documentation builds as a site: no link is broken, every page has a place, nothing comes from elsewhere."""

from __future__ import annotations

import faulthandler
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.pages import ROOT

# Far more than the site takes, on a machine that has much else to do.
LIMIT_S = 600

pytest.importorskip("material", reason="mkdocs-material is not installed: the extra docs brings it")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    # It has a limit of its own.
    faulthandler.cancel_dump_traceback_later()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_of_the_documentation_is_there(site: Path) -> None:
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    there = [page.parent if page.stem == "index" else page.with_suffix("") for page in pages]
    assert [page for page in there if not (site / page / "index.html").is_file()] == []
    assert "url=en/" in (site / "index.html").read_text("utf-8")


def test_what_stands_beside_the_documentation_is_there_too(site: Path) -> None:
    changelog = (site / "project" / "CHANGELOG" / "index.html").read_text("utf-8")
    assert 'href="../../en/user-guide/command-line/"' in changelog
    results = (site / "project" / "benchmarks" / "results" / "index.html").read_text("utf-8")
    assert 'src="../results.svg"' in results


def test_a_reader_fetches_nothing_from_elsewhere(site: Path) -> None:
    fetched = re.compile(
        r"<(?:script|img|iframe|source)[^>]*\ssrc=\"(https?:[^\"]+)\"|<link[^>]*stylesheet[^>]*href=\"(https?:[^\"]+)\""
    )
    pages = [page for page in site.rglob("*.html") if fetched.search(page.read_text("utf-8"))]
    assert [page.relative_to(site) for page in pages] == []


def test_what_is_for_the_tests_only_is_not_shown(site: Path) -> None:
    shown = "".join(page.read_text("utf-8") for page in (site / "en").rglob("*.html"))
    assert "<!-- model" not in shown
    assert "printed: " not in shown
