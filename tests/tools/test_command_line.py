"""What the reader of commands calls clear, a real bash runs as exactly those words."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from power_loop.runtime.host.process import EndCause, Program, run_blocking
from power_loop.tools.command_line import Unclear, read_command

BASH = shutil.which("bash")
# They say which words they got, in bytes that no word holds; nothing else is on the PATH of the oracle.
PROGRAMS = ("ls", "git", "echo_", "gr", "ü")
STUB = '#!{bash}\nprintf \'%s\\0\' "${{0##*/}}" "$@" $\'\\1\' >>"$STUB_LOG"\n'

CLEAR = [
    ("git status", [("git", "status")]),
    ("  git   log\t-n 3 ", [("git", "log", "-n", "3")]),
    ("git status; ls -la && git log || ls", [("git", "status"), ("ls", "-la"), ("git", "log"), ("ls",)]),
    ("ls | gr x", [("ls",), ("gr", "x")]),
    ("ls\ngit status\n", [("ls",), ("git", "status")]),
    ("ls &&\n git x", [("ls",), ("git", "x")]),
    ("git commit -m 'a; rm -rf $(b) `c`'", [("git", "commit", "-m", "a; rm -rf $(b) `c`")]),
    ('git commit -m "a && b | c > d"', [("git", "commit", "-m", "a && b | c > d")]),
    ("g'i't\"\" status", [("git", "status")]),
    ("git '' \"\"", [("git", "", "")]),
    ("git a#b", [("git", "a#b")]),
    ("git 'a\nb'", [("git", "a\nb")]),
    ("git x 2>/dev/null", [("git", "x")]),
    ("git x 2>&1 | gr y", [("git", "x"), ("gr", "y")]),
    ("git x >/dev/null 2>&1; ls", [("git", "x"), ("ls",)]),
    ("git --format=%h a=b x:y", [("git", "--format=%h", "a=b", "x:y")]),
    ("git ünï — 日本", [("git", "ünï", "—", "日本")]),
    ("ls ]", [("ls", "]")]),
]

UNCLEAR = [
    # What runs something inside of a word.
    "git $(touch x)", "git `touch x`", 'git "$(touch x)"', 'git "`touch x`"', "git <(touch x)", "git >(touch x)",
    "git ${x:-$(y)}", "git $x", 'git "$x"', "git $'a'", 'git $"a"', "git $((1))",
    # What changes what is run.
    "X=1 git status", "GIT_SSH=x git pull", "PATH=. git status", "X+=1 git", "a[0]=1 git", ">/dev/null X=1 git",
    "alias git=rm", "export PATH=.", "set -k", "shopt -s extglob", "hash -p /bin/rm git", "enable -n test",
    "trap x EXIT", "git() { rm x; }", "function git { rm x; }", "read x", "unset PATH", "printf -v PATH x",
    "getopts a PATH", "declare -i x", "mapfile -C rm x",
    # Groups, keywords, the background.
    "(git status)", "{ git status; }", "if git x; then ls; fi", "! git status", "while ls; do ls; done", "git x &",
    "git x & ls", "time git x", "coproc git", "[[ -n x ]]", "[ -n x ]", "((1))", "case x in x) ls;; esac", "ls; then",
    # Files.
    "git x > out", "git x >> out", "ls < in", "git x 2> out", "git x &> out", "git x >| out", "git x >& out",
    "git <<E\nrm -rf x\nE", "git <<'E'\nx\nE", "git <<< x", "ls 3>/dev/null", "ls a1>/dev/null", "ls >/dev/nullx",
    "ls >/dev/null/../x", "ls '1'>/dev/null", "ls >&3", "ls >&12", "ls <&1", "ls <>x", "ls {fd}>/dev/null",
    # What the shell makes of a word.
    "ls *", "ls a?", "ls [ab]", "ls {a,b}", "ls ~", "ls ~root", "git a=~", "git a:~", "\\git status", "git a\\;b",
    "git status \\\n; rm x", "git 'a' \\'", 'git "a\\"', "ls a\\\nb", "git !x", "git +(a)",
    # Comments, and what looks like the end of a word.
    "git status # x", "#x\nrm y", "git status\rrm x", "git\u00a0status", "git\u2028rm x", "git \u202ex", "git \x00x",
    "git \x1b[1m", "git\u200bx", "git \x7f",
    # Programs that run others.
    "sudo ls", "env git", "env X=1 git", "xargs rm", "bash -c ls", "sh x", "/bin/sh -c ls", "./bash", "'eval' ls",
    "e'val' ls", "exec ls", "command ls", "builtin eval x", "nohup ls", "timeout 5 rm x", "nice rm x", ". x",
    "source x", "find . -exec rm x", "find . -name x -ok rm y", "busybox rm x", "ssh a rm", "jobs -x rm x", "fc -s rm",
    "compgen -W 'x'", "compgen -C rm", "test -v 'x[$(rm y)]'", "test a -o -v 'x[$(rm y)]'", "test -R 'x[$(rm y)]'",
    "ls | test -v 'a[$(rm y)]'", "wait -p 'x[$(rm y)]'",
    # Half of something.
    "git 'a", 'git "a', "git |", "git &&", "&& git", "; git", "| git", "git ;; ls", "git ; ; ls", "git |& ls",
    "git ||| ls", "git &&& ls", "ls\n| gr x", "git && >/dev/null", "", " ", "\n", ">/dev/null", "'' x", "/", "a/ b",
    "'if' x", "git ;& ls",
]  # fmt: skip


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stubs")
    for name in PROGRAMS:
        path = folder / name
        path.write_text(STUB.format(bash=BASH))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder


def run_by_bash(command: str, stubs: Path, folder: Path) -> tuple[list[tuple[str, ...]], int | None]:
    """Return the words of all stubs that a bash ran for a command, in order, and its exit status."""
    assert BASH is not None
    log = folder / "log"
    log.write_bytes(b"")
    work = folder / "work"
    work.mkdir(exist_ok=True)
    env = {"PATH": str(stubs), "STUB_LOG": str(log), "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    program = Program((BASH, "--noprofile", "--norc", "-c", "--", command), env, folder=str(work), timeout_s=100.0)
    ended = run_blocking(program)
    assert ended.cause is EndCause.EXIT
    assert os.listdir(work) == [], command
    runs = log.read_bytes().decode().split("\0\1\0")
    return [tuple(one.split("\0")) for one in runs if one], ended.exit_status


@pytest.mark.parametrize(("command", "programs"), CLEAR, ids=[one[0] for one in CLEAR])
def test_plain_commands_are_read_word_by_word(command: str, programs: list[tuple[str, ...]]) -> None:
    assert read_command(command) == tuple(programs)


@pytest.mark.parametrize("command", UNCLEAR, ids=[ascii(one) for one in UNCLEAR])
def test_every_trick_is_unclear(command: str) -> None:
    read = read_command(command)
    assert isinstance(read, Unclear), read
    assert read.why


def test_each_reason_says_what_it_is_about() -> None:
    for command, why in (("git $x", "'$'"), ("sudo ls", "'sudo'"), ("X=1 ls", "'X=1'"), ("ls > x", "a file")):
        read = read_command(command)
        assert isinstance(read, Unclear)
        assert why in read.why


def test_a_command_of_any_length_is_read_once() -> None:
    read = read_command("ls; " * 20_000 + "ls")
    assert not isinstance(read, Unclear)
    assert len(read) == 20_001


PIECES = [
    *PROGRAMS, "a", "-n", "--x=y", "a=b", "if", "'if'", "1", "2", " ", "  ", "\t", "\n", ";", "&&", "||", "|", "&", "'",
    '"', "\\", "#", "$", "`", "(", ")", "{", "}", "*", "~", "!", "=", ":", "<", ">", ">/dev/null", "2>&1", "/dev/null",
    ">&2", "é", "\u00a0", "\r", ",", "^", "%", "@", "+", "]", "[", "..", "/", "\\\n", "<<E", "''", "$(ls)", "time",
]  # fmt: skip
COMMANDS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=10).map("".join) | st.lists(
    # More of these are clear.
    st.sampled_from([*PROGRAMS, " ", " ", ";", "&&", "|", "\n", "'", '"', "a", "2>&1", ">/dev/null", "#", "=", "~"]),
    min_size=2,
    max_size=12,
).map(lambda pieces: "ls" + "".join(pieces))


@pytest.mark.skipif(BASH is None, reason="there is no bash to ask")
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=COMMANDS)
def test_what_is_clear_is_run_by_a_bash_as_exactly_these_words(command: str, stubs: Path, tmp_path: Path) -> None:
    read = read_command(command)
    if isinstance(read, Unclear):
        return
    ran, status = run_by_bash(command, stubs, tmp_path)
    assert status != 2, "bash could not read it"
    # A program that is not there says nothing; one behind `||` or `&&` may not have run; those of a pipe run at once.
    there = [words for words in read if words[0] in PROGRAMS]
    left = list(there)
    for words in ran:
        assert words in left, (words, read)
        left.remove(words)
    if not ("||" in command or "&&" in command):
        assert left == []


@pytest.mark.skipif(BASH is None, reason="there is no bash to ask")
def test_the_oracle_would_see_a_program_that_the_reader_did_not(stubs: Path, tmp_path: Path) -> None:
    assert run_by_bash("ls $(git x)", stubs, tmp_path)[0] == [("git", "x"), ("ls",)]
    assert run_by_bash("git 'a b' ''", stubs, tmp_path)[0] == [("git", "a b", "")]
