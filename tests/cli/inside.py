"""Runs the command in this process, where what a process of its own would add is not what a test is about."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from pathlib import Path
from unittest import mock

from power_loop.cli.main import main


def run(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Return what a command came to that was run in `folder`."""
    out, err = io.StringIO(), io.StringIO()
    status: int | str | None = 0
    before = Path.cwd()
    try:
        os.chdir(folder)
        with (
            mock.patch.dict(os.environ, variables),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                status = main(arguments)
            except SystemExit as left:
                status = left.code
    finally:
        os.chdir(before)
    return subprocess.CompletedProcess(arguments, int(status or 0), out.getvalue(), err.getvalue())
