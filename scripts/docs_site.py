"""Makes the site of what lies in the repository: mkdocs calls these hooks while it builds.

The pages are written for a reader of the repository, so that their links are paths in it. Here a link to a page goes to
that page of the site, also where it stands outside of `docs/` (the changelog, the benchmarks, the examples); a link to
anything else in the repository goes to its address on the web. Chinese pages get the places of the English ones.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
#: What stands outside of `docs/` and is read there as well, as patterns; each keeps its path below `project/`.
OUTSIDE = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "ROADMAP.md", "SECURITY.md"),
    *("benchmarks/*.md", "benchmarks/*.svg", "examples/README.md"),
)
_FENCE = re.compile(r"^ *(```|~~~)")
_LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s]+)(?=\))")
_HIDDEN = re.compile(r"^<!-- .*? -->\n", re.MULTILINE | re.DOTALL)
_REDIRECT = (
    '<!doctype html><meta charset="utf-8"><title>power-loop</title><meta http-equiv="refresh" content="0; url=en/">'
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put whole folders where the navigation names them, and the Chinese pages beside the English ones."""
    assert config.nav is not None
    config.nav = [_with_folders(item) for item in config.nav]
    chinese = [mirrored for item in config.nav if (mirrored := _in_chinese(item)) is not None]
    if chinese:
        # The one page that has no English counterpart.
        config.nav.append({"中文": [*chinese, "zh/glossary.md"]})
        config.extra["alternate"] = [
            {"name": "English", "link": "/en/", "lang": "en"},
            {"name": "中文", "link": "/zh/", "lang": "zh"},
        ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what stands outside of `docs/`, and the door of the site."""
    for path in outside():
        files.append(File.generated(config, _place_of(path), content=(ROOT / path).read_bytes()))
    files.append(File.generated(config, "index.html", content=_REDIRECT))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page, which are paths in the repository, into places of the site and addresses on the web."""
    here = repository_path(page.file.src_uri)
    lines: list[str] = []
    fence = ""
    for line in _HIDDEN.sub("", markdown).split("\n"):
        mark = _FENCE.match(line)
        if mark and fence in ("", mark[1]):
            fence = "" if fence else mark[1]
        lines.append(line if fence else _LINK.sub(lambda found: _link(found["target"], here, page, config), line))
    return "\n".join(lines)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Say of a Chinese page that it is one."""
    return output.replace('lang="en"', 'lang="zh-Hans"', 1) if page.file.src_uri.startswith("zh/") else output


def outside() -> list[str]:
    """Return the files outside of `docs/` that the site has, as paths in the repository."""
    return [path.relative_to(ROOT).as_posix() for pattern in OUTSIDE for path in sorted(ROOT.glob(pattern))]


def repository_path(src_uri: str) -> str:
    """Return where in the repository a file of the site stands."""
    for path in outside():
        if _place_of(path) == src_uri:
            return path
    return f"docs/{src_uri}"


def _place_of(path: str) -> str:
    return f"project/{path}"


def _link(target: str, here: str, page: Page, config: MkDocsConfig) -> str:
    if "://" in target or target.startswith(("#", "mailto:")):
        return target
    file, mark, anchor = target.partition("#")
    there = posixpath.normpath(posixpath.join(posixpath.dirname(here), file))
    if there.startswith("docs/"):
        place = there.removeprefix("docs/")
    elif there in outside():
        place = _place_of(there)
    else:
        kind = "tree" if (ROOT / there).is_dir() else "blob"
        return f"{str(config.repo_url).rstrip('/')}/{kind}/main/{there}{mark}{anchor}"
    return posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".") + mark + anchor


def _with_folders(item: Any) -> Any:
    """Return an item of the navigation with the pages of a folder where it names one: `en/decisions/`."""
    if isinstance(item, dict):
        return {title: _with_folders(value) for title, value in item.items()}
    if isinstance(item, list):
        return [one for inner in item for one in _opened(_with_folders(inner))]
    return item


def _opened(item: Any) -> Iterator[Any]:
    if not (isinstance(item, str) and item.endswith("/")):
        yield item
        return
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in sorted((ROOT / "docs" / item).glob("*.md"))]
    # The way in comes first; the front stands before its shelves. A template is to be copied, and not read.
    first = ["index.md", "power_loop.md"]
    pages = [page for page in pages if not page.endswith("/template.md")]
    yield from sorted(pages, key=lambda page: not page.endswith(tuple(f"/{name}" for name in first)))


def _in_chinese(item: Any) -> Any:
    """Return an item of the navigation with those of its pages that are translated; None if there is none."""
    if isinstance(item, str):
        there = re.sub(r"^en/", "zh/", item)
        return there if there != item and (ROOT / "docs" / there).is_file() else None
    if isinstance(item, list):
        return [there for one in item if (there := _in_chinese(one)) is not None] or None
    ((title, value),) = item.items()
    there = _in_chinese(value)
    # A page has its own title; a group has the English one's until its own pages say better.
    return there if isinstance(there, str) or there is None else {_CHINESE.get(title, title): there}


_CHINESE = {
    "Start": "开始",
    "Tutorials": "教程",
    "Guide": "指南",
    "Conversations": "会话",
    "Tools": "工具",
    "Context": "上下文",
    "Many agents": "多智能体",
    "Running it": "运行",
    "Looking at it": "观察",
    "Reference": "参考",
    "Proof": "证明",
    "Project": "项目",
    "Decisions": "设计决定",
}
