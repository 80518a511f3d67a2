"""Is what an agent may touch of this machine: its folders, the environment of its processes, and the limits of both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from power_loop.contracts.errors import ConfigError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.numbers import is_number, is_whole

#: The variables that a child process gets of this process's own: none of them holds a key, a token or a DSN, and none
#: makes a loader or a shell run code.
DEFAULT_VARIABLES = ("PATH", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TERM", "TMPDIR", "USER", "LOGNAME")

#: What tools do not write, wherever in the workspace it lies: what git or Python run by themselves, and secrets.
DEFAULT_PROTECTED = (".git", ".env", ".env.*", "*.pth", "sitecustomize.py", "usercustomize.py")

#: The folders that searches leave out unless they are asked for by path: what tools make and keep, not what people
#: write.
DEFAULT_UNSEARCHED = (".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", ".tox", ".mypy_cache")

# Source files end at about 1 MB; a file of this size still passes through memory several times without harm.
_MAX_FILE_BYTES = 10_000_000
# Providers take images of 5 MB; base64 adds its third on the wire.
_MAX_IMAGE_BYTES = 5_000_000
# What providers and extractors take of a document.
_MAX_PDF_BYTES = 32_000_000
_MAX_READ_ONLY_ROOTS = 32
_MAX_VARIABLES = 500


@frozen
class EnvLimits:
    """Is how much the tools of an environment read, write and answer.

    `max_read_bytes` and `max_write_bytes` are the largest text file that is read or written (default 10,000,000),
    `max_image_bytes` the largest image (5,000,000), `max_pdf_bytes` the largest PDF (32,000,000). `max_page_lines` is
    how many lines one read shows (2,000), `max_line_chars` how much of a line (2,000). `max_results` is how many hits a
    search shows (200), `max_entries` how many files and folders it looks at (200,000), `max_depth` how many folders
    deep it goes (64), `max_search_s` how long it takes, in seconds (20). `max_patch_files` is how many files one patch
    changes (100).
    """

    max_read_bytes: int = _MAX_FILE_BYTES
    max_write_bytes: int = _MAX_FILE_BYTES
    max_image_bytes: int = _MAX_IMAGE_BYTES
    max_pdf_bytes: int = _MAX_PDF_BYTES
    max_page_lines: int = 2_000
    max_line_chars: int = 2_000
    max_results: int = 200
    max_entries: int = 200_000
    max_depth: int = 64
    max_search_s: float = 20.0
    max_patch_files: int = 100

    def __post_init__(self) -> None:
        for one in fields(self):
            value: Any = getattr(self, one.name)
            is_time = one.name.endswith("_s")
            if not (is_number(value, above=0) if is_time else is_whole(value, least=1)):
                kind = "number of seconds" if is_time else "whole number"
                raise ConfigError(f"EnvLimits({one.name}={value!r:.200}) is no limit: give a {kind} above 0")


@frozen
class RuntimeEnv:
    """Is what the tools of an agent may touch of this machine.

    `workspace` is the folder in which files are read and written; relative paths begin there. `read_only_roots` are
    more folders, which are read only (default none, at most 32). `home` is what child processes get as HOME (default:
    the workspace). `variables` names the environment variables that child processes get of this process's own (default
    `DEFAULT_VARIABLES`; exact names), `environment` gives them more, with values. `protected` are the names that no
    tool writes, as patterns of one name each: a folder of such a name is protected with all that is in it (default
    `DEFAULT_PROTECTED`). `unsearched` are the names of folders that searches leave out (default `DEFAULT_UNSEARCHED`).
    `limits` see EnvLimits. The folders have to be there; they are kept as absolute paths without
    symbolic links. Raises `config.invalid`.
    """

    workspace: Path
    read_only_roots: tuple[Path, ...] = ()
    home: Path | None = None
    variables: tuple[str, ...] = DEFAULT_VARIABLES
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    protected: tuple[str, ...] = DEFAULT_PROTECTED
    unsearched: tuple[str, ...] = DEFAULT_UNSEARCHED
    limits: EnvLimits = field(default_factory=EnvLimits)

    if TYPE_CHECKING:  # what is given may be wider than what is kept

        def __init__(
            self,
            workspace: str | os.PathLike[str],
            read_only_roots: list[str] | list[Path] | tuple[str | os.PathLike[str], ...] = (),
            home: str | os.PathLike[str] | None = None,
            variables: list[str] | tuple[str, ...] = DEFAULT_VARIABLES,
            environment: Mapping[str, str] = ...,
            protected: list[str] | tuple[str, ...] = DEFAULT_PROTECTED,
            unsearched: list[str] | tuple[str, ...] = DEFAULT_UNSEARCHED,
            limits: EnvLimits = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        workspace = _folder("workspace", self.workspace)
        roots = tuple(_folder("read_only_roots", root) for root in _items("read_only_roots", self.read_only_roots))
        if len(roots) > _MAX_READ_ONLY_ROOTS:
            raise ConfigError(
                f"read_only_roots has {len(roots)} folders: give at most {_MAX_READ_ONLY_ROOTS}, such as their parent"
            )
        _check_apart(workspace, roots)
        put: Any = object.__setattr__
        put(self, "workspace", workspace)
        put(self, "read_only_roots", roots)
        put(self, "home", workspace if self.home is None else _folder("home", self.home))
        put(self, "variables", checked_variables(self.variables))
        put(self, "environment", checked_environment(self.environment))
        for names in ("protected", "unsearched"):
            put(self, names, tuple(_pattern(names, one) for one in _items(names, getattr(self, names))))
        if not isinstance(self.limits, EnvLimits):
            raise ConfigError(f"limits is {self.limits!r:.200}: give an EnvLimits")

    def child_environment(self, own: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment of a child process: the named variables of `own` (default: this process's own),
        HOME, and what `environment` gives."""
        source = os.environ if own is None else own
        kept = {name: source[name] for name in self.variables if name in source}
        return {**kept, "HOME": str(self.home), **self.environment}


def checked_variables(value: Any) -> tuple[str, ...]:
    """Return the names of environment variables. Raises `config.invalid` for what is no list of them."""
    return tuple(_name("variables", name) for name in _items("variables", value))


def checked_environment(value: Any) -> dict[str, str]:
    """Return environment variables with their values. Raises `config.invalid` for what cannot be one."""
    if not isinstance(value, Mapping) or len(value) > _MAX_VARIABLES:
        # The values may be secret.
        raise ConfigError(f"environment is no mapping of at most {_MAX_VARIABLES} names to texts: give a dict")
    for name, text in value.items():
        _name("environment", name)
        if not isinstance(text, str) or "\0" in text:
            raise ConfigError(f"environment[{name!r:.200}] is no text without NUL: give a str")
    return dict(value)


def _items(field_name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, (list, tuple)):
        raise ConfigError(f"{field_name} is {value!r:.200}: give a list")
    return tuple(value)


def _folder(field_name: str, value: Any) -> Path:
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ConfigError(f"{field_name} is {value!r:.200}: give the path of a folder")
    try:
        real = Path(os.fsdecode(os.path.realpath(value, strict=True)))
        is_folder = real.is_dir()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{field_name} {value!r:.200} cannot be used ({error}): make the folder first") from error
    if not is_folder:
        raise ConfigError(f"{field_name} {value!r:.200} is no folder: give the path of one")
    return real


def _check_apart(workspace: Path, roots: tuple[Path, ...]) -> None:
    """Refuse a read-only root inside of the workspace: it could be written under the name of the workspace."""
    for root in roots:
        if root == workspace or workspace in root.parents:
            raise ConfigError(
                f"the read-only root {str(root)!r} lies in the workspace {str(workspace)!r}, where files are written:"
                " leave it out, or choose a workspace beside it"
            )


def _name(field_name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or "=" in value or "\0" in value:
        raise ConfigError(f"{field_name} holds {value!r:.200}: give the exact names of environment variables")
    return value


def _pattern(field_name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or "/" in value:
        raise ConfigError(f"{field_name} holds {value!r:.200}: give one name each, such as '.git', without '/'")
    return value
