"""A RuntimeEnv is checked when it is made, and says what child processes get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from power_loop import RuntimeEnv
from power_loop.errors import ConfigError
from power_loop.sandbox import EnvLimits


def test_folders_are_kept_absolute_and_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    env = RuntimeEnv("link")  # a text will do
    assert env.workspace == Path(tmp_path).resolve() / "real"
    assert env.home == env.workspace


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workspace": "nowhere"}, "make the folder first"),
        ({"workspace": ""}, "give the path of a folder"),
        ({"workspace": "file"}, "is no folder"),
        ({"workspace": 7}, "give the path of a folder"),
        ({"workspace": "ws\0"}, "cannot be used"),
        ({"read_only_roots": "ws"}, "give a list"),
        ({"read_only_roots": ("ws/below",)}, "lies in the workspace"),
        ({"read_only_roots": ("ws",)}, "lies in the workspace"),
        ({"home": "nowhere"}, "home 'nowhere'"),
        ({"variables": "PATH"}, "give a list"),
        ({"variables": ("A=B",)}, "exact names"),
        ({"environment": {"A": 1}}, "give a str"),
        ({"environment": [("A", "b")]}, "give a dict"),
        ({"protected": ("a/b",)}, "without '/'"),
        ({"limits": {"max_results": 1}}, "give an EnvLimits"),
    ],
    ids=repr,
)
def test_what_cannot_be_used_is_refused_with_what_to_do(
    given: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ws" / "below").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said) as caught:
        RuntimeEnv(**{"workspace": "ws", **given})
    assert caught.value.code == "config.invalid"


@pytest.mark.parametrize("value", [0, -1, True, "9", 1.5, float("inf"), float("nan"), None])
def test_a_limit_is_a_number_above_zero(value: Any) -> None:
    with pytest.raises(ConfigError, match="give a whole number above 0"):
        EnvLimits(max_results=value)


def test_a_child_gets_the_named_variables_and_no_secret(tmp_path: Path) -> None:
    own = {"PATH": "/bin", "LANG": "C", "OPENAI_API_KEY": "sk", "LD_PRELOAD": "x", "BASH_ENV": "x", "HOME": "/root"}
    env = RuntimeEnv(tmp_path, environment={"CI": "1"})
    assert env.child_environment(own) == {"PATH": "/bin", "LANG": "C", "HOME": str(tmp_path.resolve()), "CI": "1"}


def test_values_of_variables_are_not_shown(tmp_path: Path) -> None:
    assert "hidden" not in repr(RuntimeEnv(tmp_path, environment={"TOKEN": "hidden"}))
