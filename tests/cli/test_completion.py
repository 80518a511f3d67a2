"""The completion of a shell knows every command and option, because it is made of the table that reads them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from power_loop.cli.main import COMMANDS
from tests.cli.inside import run

LIMIT_S = 60


def completed(script: str, *words: str) -> set[str]:
    """Return what bash completes the last of `words` to."""
    line = " ".join(f"'{word}'" for word in words)
    program = (
        f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _power_loop; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_options_and_values(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    script = run("completion", "bash", folder=tmp_path).stdout
    commands = completed(script, "power-loop", "")
    assert {"export", "import", "show", "completion", "--version"} <= commands
    assert completed(script, "power-loop", "exp") == {"export"}
    assert "--output" in completed(script, "power-loop", "export", "--")
    assert completed(script, "power-loop", "import", "--on-conflict", "r") == {"raise", "rename", "replace"}
    assert completed(script, "power-loop", "import", "x", "--on-conflict", "ren") == {"rename"}
    assert "compacted" in completed(script, "power-loop", "prune", "")
    assert completed(script, "power-loop", "workflow", "s") == {"schema", "status", "signal"}
    assert {"--app", "--run-id", "--input"} <= completed(script, "power-loop", "workflow", "run", "--")
    assert completed(script, "power-loop", "workflow", "status", "--status", "w") == {"waiting"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_stands_in_the_script(shell: str, tmp_path: Path) -> None:
    found = run("completion", shell, folder=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    for word in ("sessions", "migrate", "doctor", "rename", "compacted"):
        assert word in found.stdout
    assert ("on-conflict" if shell == "fish" else "--on-conflict") in found.stdout
    assert len(COMMANDS) > 5
    if shutil.which(shell) is not None:
        checked = subprocess.run([shell, "-n"], input=found.stdout, text=True, capture_output=True, timeout=LIMIT_S)
        assert (checked.returncode, checked.stderr) == (0, "")
