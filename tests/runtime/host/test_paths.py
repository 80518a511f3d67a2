"""No path leads out of the folders of an environment, whatever it looks like and whoever changes the tree meanwhile."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_loop import RuntimeEnv
from power_loop.errors import PathRefusedError, ToolError
from power_loop.runtime.host.files import Change, Staging, read_file
from power_loop.runtime.host.paths import Lookup, PathGuard
from power_loop.sandbox import EnvLimits
from power_loop.testing import leak_check

LOOKUPS = list(Lookup)
#: What holds against somebody who is at work in the tree at the same time.
SAFE_LOOKUPS = [Lookup.KERNEL, Lookup.STEPS]
SECRET = b"outside"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Is a workspace `ws` with links of all kinds, a read-only root `lib`, and `secret` outside of both."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "ws-twin").mkdir()
    (tmp_path / "ws-twin" / "secret").write_bytes(SECRET)
    (tmp_path / "lib" / "pkg").mkdir(parents=True)
    (tmp_path / "lib" / "pkg" / "mod.py").write_bytes(b"library")
    workspace = tmp_path / "ws"
    (workspace / "src" / "deep").mkdir(parents=True)
    (workspace / "file").write_bytes(b"inside")
    (workspace / "src" / "main.py").write_bytes(b"main")
    (workspace / "src" / "deep" / "x").write_bytes(b"deep")
    for name, target in {
        "out": "../secret",
        "out-abs": str(tmp_path / "secret"),
        "out-dir": "..",
        "out-root": "/",
        "out-twin": "../ws-twin/secret",
        "src/up": "../..",
        "in": "src/main.py",
        "in-abs": str(workspace / "src" / "main.py"),
        "in-dir": "src/deep",
        "src/back": "../file",
        "round": "../ws/file",
        "chain": "in-dir/../up",
        "library": str(tmp_path / "lib"),
        "loop": "loop",
        "fd": "/proc/self/fd/0",
        "self": "/proc/self/root",
        "dangling": "nowhere",
    }.items():
        (workspace / name).symlink_to(target)
    return tmp_path.resolve()


def guard_of(tree: Path, lookup: Lookup, **options: object) -> PathGuard:
    return PathGuard(RuntimeEnv(tree / "ws", read_only_roots=(tree / "lib",), **options), lookup=lookup)  # type: ignore[arg-type]


def read(guard: PathGuard, path: str) -> bytes:
    return read_file(guard.find(path), max_bytes=1_000, advice="-").data


Watcher = Callable[[str], None]


@pytest.fixture(scope="session")
def watchers() -> list[Watcher]:
    """Are told each path just before this process opens it; a hook stays for ever, so there is one for all tests."""
    watching: list[Watcher] = []

    def look(event: str, args: tuple[object, ...]) -> None:
        if watching and event == "open" and isinstance(args[0], (str, bytes)):
            for watcher in tuple(watching):
                watcher(os.fsdecode(args[0]))

    sys.addaudithook(look)
    return watching


@pytest.fixture
def opened_outside(tree: Path, watchers: list[Watcher]) -> Iterator[list[str]]:
    """Collects what is opened outside of the roots while a test looks: nothing may be."""
    seen: list[str] = []

    def look(path: str) -> None:
        if os.path.isabs(path) and not path.startswith((str(tree / "ws"), str(tree / "lib"))):
            seen.append(path)

    watchers.append(look)
    yield seen
    watchers.remove(look)


ESCAPES = [
    "../secret",
    "src/../../secret",
    "./.././secret",
    "src/deep/../../../secret",
    "out",
    "out-abs",
    "out-dir/secret",
    "out-root/etc/passwd",
    "out-twin",
    "src/up/secret",
    "chain/secret",
    "in-dir/../up/secret",
    "/etc/passwd",
    "//etc/passwd",
    "/",
    "..",
    "../ws-twin/secret",
    "~/.ssh/id_rsa",
    "~",
    "file:///etc/passwd",
    "file\0",
    "file\0/../../secret",
    "\ud800",
    "",
    "fd",
    "self/etc/passwd",
    "/proc/self/root/etc/passwd",
    "/dev/stdin",
    "x" * 5_000,
    "x" * 300,
    "../" * 1_300 + "etc/passwd",
    "src/../" * 580 + "../secret",
    "loop",
    "loop/x",
]


@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize("path", ESCAPES, ids=lambda path: ascii(path)[:40])
def test_what_leads_out_is_refused_and_nothing_outside_is_opened(
    path: str, lookup: Lookup, tree: Path, opened_outside: list[str]
) -> None:
    guard = guard_of(tree, lookup)
    with pytest.raises(PathRefusedError) as caught:
        read(guard, path)
    assert caught.value.code == "path.refused"
    with pytest.raises(PathRefusedError):
        guard.find_for_write(path, makes_parents=True)
    assert opened_outside == []


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_an_absolute_path_beside_the_workspace_is_refused_however_alike_it_begins(lookup: Lookup, tree: Path) -> None:
    guard = guard_of(tree, lookup)
    for path in (f"{tree}/ws-twin/secret", f"{tree}/ws/../secret", f"{tree}/secret", f"{tree}/WS/file"):
        with pytest.raises(PathRefusedError, match="leads out of the workspace"):
            read(guard, path)


@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("file", b"inside"),
        ("./src//main.py", b"main"),
        ("src/../file", b"inside"),
        ("in", b"main"),
        ("in-abs", b"main"),
        ("in-dir/x", b"deep"),
        ("in-dir/../main.py", b"main"),  # where the link leads, not where it stands
        ("src/back", b"inside"),
        ("round", b"inside"),
        ("{tree}/ws/src/main.py", b"main"),
        ("{tree}/lib/pkg/mod.py", b"library"),
        ("library/pkg/mod.py", b"library"),
    ],
)
def test_what_stays_inside_is_read_by_whatever_way(path: str, data: bytes, lookup: Lookup, tree: Path) -> None:
    assert read(guard_of(tree, lookup), path.format(tree=tree)) == data


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_read_only_root_is_not_written_by_whatever_way(lookup: Lookup, tree: Path) -> None:
    guard = guard_of(tree, lookup)
    for path in (f"{tree}/lib/pkg/mod.py", "library/pkg/mod.py", "library/new", f"{tree}/lib/a/b"):
        with pytest.raises(PathRefusedError, match="read only"):
            guard.find_for_write(path, makes_parents=True)
    assert sorted(path.name for path in (tree / "lib").rglob("*")) == ["mod.py", "pkg"]


@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize(
    "path",
    [
        ".git/hooks/pre-commit",
        "a/.GIT/config",
        ".git\u200c/config",
        ".ｇｉｔ/config",
        ".git./x",
        "sub/.env",
        ".Env.local",
        "site.pth",
        "lib/sitecustomize.py",
        "hooks/pre-commit",
    ],
    ids=ascii,
)
def test_protected_names_are_not_written_however_they_are_spelled(path: str, lookup: Lookup, tree: Path) -> None:
    (tree / "ws" / ".git" / "hooks").mkdir(parents=True)
    (tree / "ws" / "hooks").symlink_to(".git/hooks")
    before = sorted((tree / "ws").rglob("*"))
    with pytest.raises(PathRefusedError, match="is protected"):
        guard_of(tree, lookup).find_for_write(path, makes_parents=True)
    assert sorted((tree / "ws").rglob("*")) == before


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_what_is_no_file_is_refused_and_nobody_waits_for_it(lookup: Lookup, tree: Path) -> None:
    guard = guard_of(tree, lookup)
    os.mkfifo(tree / "ws" / "pipe")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        here = os.getcwd()
        os.chdir(tree / "ws")  # the name of a socket is short
        try:
            listener.bind("sock")
        finally:
            os.chdir(here)
        for path, kind in {"pipe": "a pipe", "sock": "a socket"}.items():
            with pytest.raises(PathRefusedError, match=kind):
                read(guard, path)
            with pytest.raises(PathRefusedError, match=kind):
                Staging(guard, key="k").apply([Change(guard.find_for_write(path), b"x")])
    with pytest.raises(ToolError, match="is a folder"):
        read(guard, "src")


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes devices")
@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_device_is_not_opened(lookup: Lookup, tree: Path) -> None:
    try:
        os.mknod(tree / "ws" / "zero", 0o20666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this root makes no devices")
    with pytest.raises(PathRefusedError, match="a device"):
        read(guard_of(tree, lookup), "zero")


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_huge_sparse_file_is_refused_at_once(lookup: Lookup, tree: Path) -> None:
    with (tree / "ws" / "huge").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(ToolError, match="1,000,000,000,000 bytes"):
        read(guard_of(tree, lookup), "huge")


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="needs files that tell no size")
def test_a_file_that_is_longer_than_it_says_is_refused() -> None:
    # Files of /proc say that they have no bytes.
    guard = PathGuard(RuntimeEnv(Path("/proc/self")))
    with pytest.raises(ToolError, match="are read at most"):
        read_file(
            guard.find("environ" if os.path.getsize("/proc/self/environ") else "status"), max_bytes=10, advice="-"
        )


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs links that are no paths")
@pytest.mark.parametrize("lookup", LOOKUPS)
def test_magic_links_are_read_as_the_paths_that_they_name(lookup: Lookup, tree: Path) -> None:
    with (tree / "secret").open("rb") as file:
        guard = PathGuard(RuntimeEnv(Path("/proc/self/fd")), lookup=lookup)
        with pytest.raises(ToolError):
            read(guard, str(file.fileno()))


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_workspace_that_another_folder_took_the_place_of_is_refused(lookup: Lookup, tree: Path) -> None:
    guard = guard_of(tree, lookup)
    (tree / "ws").rename(tree / "moved")
    (tree / "ws").symlink_to(tree)
    with pytest.raises(PathRefusedError, match="is not the folder any more"):
        read(guard, "secret")
    (tree / "ws").unlink()
    (tree / "ws").mkdir()
    with pytest.raises(PathRefusedError, match="is not the folder any more"):
        read(guard, "file")


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_name_that_is_no_text_is_walked_and_left_alone(lookup: Lookup, tree: Path) -> None:
    try:
        with open(os.fsencode(tree / "ws") + b"/bad\xff", "wb"):
            pass
    except OSError:
        pytest.skip("this file system takes names of UTF-8 only")
    guard = guard_of(tree, lookup)
    assert "bad\udcff" in [entry.name for entry in guard.walk(guard.find("."))]
    with pytest.raises(PathRefusedError, match="half a character"):
        guard.find("bad\udcff")


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_missing_file_is_told_with_the_names_that_come_close(lookup: Lookup, tree: Path) -> None:
    guard = guard_of(tree, lookup)
    with pytest.raises(ToolError, match=r"there is no file 'src/maim.py': did you mean 'src/main.py'\?"):
        read(guard, "src/maim.py")
    with pytest.raises(ToolError, match=r"there is no folder 'srk': did you mean 'src'\?"):
        read(guard, "srk/main.py")
    with pytest.raises(ToolError, match="so nothing is below it"):
        read(guard, "file/x")


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_walk_follows_no_link_and_ends_at_its_depth(lookup: Lookup, tree: Path) -> None:
    deep = tree / "ws" / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    guard = guard_of(tree, lookup, limits=EnvLimits(max_depth=3))
    paths = ["/".join(entry.parts) for entry in guard.walk(guard.find("."))]
    assert "a/b/c" in paths
    assert "a/b/c/d" not in paths
    assert not [path for path in paths if path.startswith(("out-dir/", "out-root/", "library/"))]


def test_no_descriptor_is_left_open(tree: Path) -> None:
    guard = guard_of(tree, Lookup.KERNEL)
    with leak_check(kinds=["descriptor"], within_s=0):
        for path in ("file", "in-dir/x", "in-abs"):
            read(guard, path)
        for path in ("out", "nowhere/x", "loop"):
            with contextlib.suppress(ToolError):
                read(guard, path)
        list(guard.walk(guard.find(".")))


# A tree of its own for all examples of the fuzzer: nothing of it is written.
_NAMES = ("a", "b", "f", "in", "abs", "up", "out", "round", "x")


@pytest.fixture(scope="module")
def maze(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Is a tree of folders that all have the same names in them, among them links of every kind."""
    top = tmp_path_factory.mktemp("maze").resolve()
    root = top / "ws"
    (top / "x").mkdir()
    (top / "f").write_bytes(SECRET)
    (top / "x" / "f").write_bytes(SECRET)
    for folder in (".", "a", "b", "a/a", "a/b", "b/a"):
        here = root / folder
        here.mkdir(parents=True, exist_ok=True)
        (here / "f").write_bytes(f"inside {folder}".encode())
        (here / "in").symlink_to("../a" if folder != "." else "a")
        (here / "abs").symlink_to(root / "b")
        (here / "up").symlink_to("..")
        (here / "out").symlink_to(top / "x")
        (here / "round").symlink_to("../../ws/a" if folder in ("a", "b") else "../f")
    return root


@settings(max_examples=400, deadline=None)
@given(names=st.lists(st.sampled_from((*_NAMES, "..", "..", ".", "")), max_size=9), is_absolute=st.booleans())
def test_what_is_found_is_what_the_system_says_that_lies_inside(
    maze: Path, names: list[str], is_absolute: bool
) -> None:
    path = "/".join(names) or "."
    path = f"{maze}/{path}" if is_absolute else "./" + path
    real = os.path.realpath(maze / path)
    lies_inside = real == str(maze) or real.startswith(f"{maze}/")
    answers = []
    for lookup in LOOKUPS:
        guard = PathGuard(RuntimeEnv(maze), lookup=lookup)
        try:
            answers.append(read_file(guard.find(path), max_bytes=1_000, advice="-").data)
        except PathRefusedError:
            answers.append(b"refused")
        except ToolError:
            answers.append(b"no file")
    assert len(set(answers)) == 1
    data = answers[0]
    assert data != SECRET
    # The system goes out and comes back in; a guard does not go out, but for the folder just above.
    if lies_inside and os.path.isfile(maze / path):
        assert data in (Path(real).read_bytes(), b"refused")
        if data == b"refused":
            assert any(name in ("up", "..", "out", "round") for name in names)
    elif not lies_inside:
        assert data in (b"refused", b"no file")
    if data.startswith(b"inside"):
        assert data == Path(real).read_bytes()


@settings(max_examples=200, deadline=None)
@given(path=st.text(max_size=40) | st.text(alphabet="./~\\ab\0\u202e\u200cé", max_size=30))
def test_any_text_is_a_path_that_is_answered(maze: Path, path: str) -> None:
    for lookup in LOOKUPS:
        guard = PathGuard(RuntimeEnv(maze), lookup=lookup)
        try:
            data = read_file(guard.find(path), max_bytes=1_000, advice="-").data
        except ToolError:
            continue
        assert data.startswith(b"inside")


@pytest.fixture
def hot(tmp_path: Path) -> Path:
    """Is a workspace in which `hot` and `leaf` are what `evil` and `evil-leaf` take the place of: links that lead
    out."""
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "inner" / "file").write_bytes(SECRET)
    workspace = tmp_path / "ws"
    (workspace / "hot" / "inner").mkdir(parents=True)
    (workspace / "hot" / "inner" / "file").write_bytes(b"inside")
    (workspace / "evil").symlink_to(outside)
    (workspace / "leaf").write_bytes(b"inside")
    (workspace / "evil-leaf").symlink_to(outside / "inner" / "file")
    return workspace


def untouched(workspace: Path) -> bool:
    inner = workspace.parent / "outside" / "inner"
    return [path.name for path in inner.iterdir()] == ["file"] and (inner / "file").read_bytes() == SECRET


@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize(("path", "name"), [("hot/inner/file", "hot"), ("hot/inner/file", "leaf"), ("leaf", "leaf")])
def test_a_swap_before_any_single_open_gets_nothing_out(
    lookup: Lookup, path: str, name: str, hot: Path, watchers: list[Watcher]
) -> None:
    guard = PathGuard(RuntimeEnv(hot), lookup=lookup)
    evil = "evil" if name == "hot" else "evil-leaf"
    seen: set[bytes] = set()
    moment = 0
    while True:
        moment += 1
        opens = 0

        def swap(_: str, moment: int = moment) -> None:
            nonlocal opens
            opens += 1
            if opens == moment:
                os.rename(hot / name, hot / "aside")
                os.rename(hot / evil, hot / name)

        watchers.append(swap)
        try:
            seen.add(read(guard, path))
        except ToolError:
            pass
        finally:
            watchers.remove(swap)
        if opens < moment:
            break
        os.rename(hot / name, hot / evil)
        os.rename(hot / "aside", hot / name)
    assert moment > 1
    if lookup in SAFE_LOOKUPS:
        assert seen == {b"inside"}
    elif path.startswith("hot") and name == "hot":
        # Whole paths do not hold against this: it is how one sees that the test would find it.
        assert SECRET in seen


# Rounds of a race with another process, which swaps as fast as it can.
_ROUNDS = 500
_SWAPPER = """
import os, sys
good, evil = sys.argv[1:]
print(flush=True)
while True:
    try:
        os.rename(good, "aside"); os.rename(evil, good); os.rename(good, evil); os.rename("aside", good)
    except OSError:
        pass
    if os.getppid() == 1:
        break
"""


@pytest.mark.parametrize("lookup", SAFE_LOOKUPS)
@pytest.mark.parametrize(("path", "name", "evil"), [("hot/inner/file", "hot", "evil"), ("leaf", "leaf", "evil-leaf")])
def test_who_swaps_a_folder_for_a_link_in_a_race_gets_nothing_out(
    lookup: Lookup, path: str, name: str, evil: str, hot: Path
) -> None:
    guard = PathGuard(RuntimeEnv(hot), lookup=lookup)
    seen = set()
    argv = [sys.executable, "-I", "-S", "-c", _SWAPPER, name, evil]
    with subprocess.Popen(argv, cwd=hot, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        try:
            for number in range(_ROUNDS):
                with contextlib.suppress(ToolError):
                    seen.add(read(guard, path))
                if number % 10 == 0:
                    with contextlib.suppress(ToolError):
                        place = guard.find_for_write(path.replace("file", f"new{number}"))
                        Staging(guard, key="race").apply([Change(place, b"inside")])
        finally:
            swapper.kill()
    assert seen <= {b"inside"}
    assert untouched(hot)
