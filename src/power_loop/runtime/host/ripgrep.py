"""Asks ripgrep, where it is installed, in which files of a folder a text stands at all.

It only narrows a search: the files that it names are read through the path guard like all others, so a link that is
swapped in while it looks shows nothing, and what it answers with and without it is the same.
"""

from __future__ import annotations

import shutil

from power_loop.contracts.errors import ProcessError
from power_loop.runtime.host.environment import RuntimeEnv
from power_loop.runtime.host.process import EndCause, OutputLimits, Program, run_blocking

# What names of files take; more of them than this, and everything is looked at.
_MAX_OUTPUT_BYTES = 8_000_000
_FOUND, _NOT_FOUND = 0, 1


def files_with(env: RuntimeEnv, folder: str, literal: str, *, timeout_s: float) -> frozenset[str] | None:
    """Return the paths below a folder whose files contain `literal`; None where that cannot be told."""
    variables = env.child_environment()
    program = shutil.which("rg", path=variables.get("PATH"))
    if program is None:
        return None
    options = ("--no-config", "--no-ignore", "--hidden", "--text", "--null", "--files-with-matches", "--no-messages")
    argv = (program, *options, "--fixed-strings", "--regexp", literal, "--", ".")
    limits = OutputLimits(head_bytes=_MAX_OUTPUT_BYTES, tail_bytes=0)
    try:
        ended = run_blocking(
            Program(argv, variables, folder=folder, output=limits, keeps_errors=True, timeout_s=timeout_s)
        )
    except ProcessError:
        return None
    is_whole = ended.cause is EndCause.EXIT and ended.output.left_out_bytes == 0
    # Beside what it found it says 2 where it could not read something: then it may have found less than there is.
    if not is_whole or ended.exit_status not in (_FOUND, _NOT_FOUND):
        return None
    names = ended.output.head.decode("utf-8", "surrogateescape").split("\0")
    return frozenset(name.removeprefix("./") for name in names if name)
