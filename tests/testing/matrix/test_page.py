"""The agent and the test of the guide's page are what a reader can copy into two files and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.house.pages import ROOT, blocks_of

_PAGE = "docs/en/user-guide/testing.md"
_LIMIT_S = 170


def test_the_files_of_the_page_run_as_printed(tmp_path: Path) -> None:
    text = (ROOT / _PAGE).read_text("utf-8")
    blocks = [block for block in blocks_of(text, _PAGE) if block.language == "py"]
    # The page's other file is for a store that the reader has and we have not; tests/conformance runs that suite.
    names = ["shop.py", "test_shop.py"]
    found = {first.removeprefix("# "): source for first, _, source in (one.source.partition("\n") for one in blocks)}
    for name in names:
        (tmp_path / name).write_text(found[name], "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "."]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [claimed] = re.findall(r"`(\d+ histories, .*?)`", text)
    assert claimed in done.stdout
