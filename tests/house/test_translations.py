"""A translation has its page's code, headings and links; which pages lack one, and which are stale, is told."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from scripts import print_translations
from scripts.print_translations import (
    CHINESE,
    ENGLISH,
    OWN_PAGES,
    ROOT,
    Translation,
    blocks_of,
    digest_of,
    headings_of,
    links_of,
    main,
    missing,
    outline_of,
    own_text,
    printed,
    translation_path,
    translations,
)

TRANSLATIONS = {translation.path.relative_to(ROOT).as_posix(): translation for translation in translations()}
WHOLE = [name for name, translation in TRANSLATIONS.items() if translation.is_whole]
_CHINESE = "一-鿿"


class StaleTranslationWarning(UserWarning):
    """Tells of a translation whose English page has other words by now."""


def test_every_page_has_a_translation_or_is_named_as_one_without() -> None:
    lacking = [page.relative_to(ROOT).as_posix() for page in missing()]
    assert lacking == [], "translate them, or name them in UNTRANSLATED of scripts/print_translations.py"


def test_every_translation_is_of_a_page() -> None:
    there = {path.relative_to(ROOT).as_posix() for path in [ROOT / "README.zh.md", *CHINESE.rglob("*.md")]}
    assert there - set(TRANSLATIONS) == set(OWN_PAGES)


@pytest.mark.parametrize("name", WHOLE)
def test_its_code_is_that_of_the_english_page_block_by_block(name: str) -> None:
    page, path = TRANSLATIONS[name].page, TRANSLATIONS[name].path
    hint = "run `make docs-print`; where a block came or went, do the same there (an empty one is filled)"
    assert blocks_of(path.read_text("utf-8")) == blocks_of(page.read_text("utf-8")), hint


@pytest.mark.parametrize("name", WHOLE)
def test_it_has_the_names_the_tables_and_the_lists_that_it_was_made_from(name: str) -> None:
    translation = TRANSLATIONS[name]
    if translation.is_stale:
        pytest.skip("the English page has other words by now")
    ours = outline_of(translation.path.read_text("utf-8"))
    theirs = outline_of(translation.page.read_text("utf-8"))
    assert (theirs - ours, ours - theirs) == ({}, {}), "it lacks these, and has these too many"


@pytest.mark.parametrize("name", WHOLE)
def test_it_has_the_headings_and_the_links_that_it_was_made_from(name: str) -> None:
    translation = TRANSLATIONS[name]
    if translation.is_stale:
        pytest.skip("the English page has other words by now")
    ours, theirs = translation.path.read_text("utf-8"), translation.page.read_text("utf-8")
    assert [heading.level for heading in headings_of(ours)] == [heading.level for heading in headings_of(theirs)]
    own_links, their_links = links_of(ours, translation.path), links_of(theirs, translation.page)
    # A page may lead to itself in the other language, and to the words that it uses.
    assert {place[0] for place in own_links - their_links} <= {translation.page.name, *OWN_PAGES}
    assert their_links - own_links == {}


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_its_links_lead_to_translations_where_there_are_any(name: str) -> None:
    assert printed(TRANSLATIONS[name]) == TRANSLATIONS[name].path.read_text("utf-8"), "run `make docs-print`"


@pytest.mark.parametrize("name", [*TRANSLATIONS, *OWN_PAGES])
def test_its_emphasis_ends_where_markdown_can_see_it(name: str) -> None:
    text = re.sub(r"`[^`\n]*`", "`", own_text((ROOT / name).read_text("utf-8")))
    # Behind a full stop or a bracket, `**` closes nothing if a letter follows.
    for line in text.splitlines():
        for closing in [found.end() for found in re.finditer(r"\*\*(?:(?!\*\*).)+\*\*", line)]:
            assert not re.match(rf"[^\w\s`]\*\*[{_CHINESE}\w]", line[closing - 3 :]), line


def unwanted_words() -> list[str]:
    table = (ROOT / OWN_PAGES[0]).read_text("utf-8").partition("## 不用的词")[2]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")][2:]
    return [word for cell in cells for word in cell.strip().split("、")]


def test_one_idea_has_one_word() -> None:
    unwanted = unwanted_words()
    assert "挂钩" in unwanted
    texts = {name: own_text(translation.path.read_text("utf-8")) for name, translation in TRANSLATIONS.items()}
    assert [(name, word) for name, text in texts.items() for word in unwanted if word in text] == []


def test_stale_translations_are_told() -> None:
    for name, translation in TRANSLATIONS.items():
        if translation.is_stale:
            page = translation.page.relative_to(ROOT)
            text = f"{name}: {page} has other words than those it was made from"
            warnings.warn(text, StaleTranslationWarning, stacklevel=1)


# --- the printer itself ---------------------------------------------------------------------------------------------

PAGE = """# Title

See [above](#title), [the other](other.md#its-second) and [the code](../../src/x.py).

<!-- model: ["one"] -->
<!-- status: 0 -->
```python title="one.py"
print(1)  # → 1
```

## End

```bash
make test
```
"""
OTHER = "# Other\n\n## Its first\n\n## Its second\n"


@pytest.fixture
def translation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Translation:
    english, chinese = tmp_path / "docs/en", tmp_path / "docs/zh"
    for folder in (english, chinese):
        folder.mkdir(parents=True)
    monkeypatch.setattr(print_translations, "ROOT", tmp_path)
    monkeypatch.setattr(print_translations, "ENGLISH", english)
    monkeypatch.setattr(print_translations, "CHINESE", chinese)
    monkeypatch.setattr(print_translations, "ELSEWHERE", {})
    (english / "page.md").write_text(PAGE, "utf-8")
    (english / "other.md").write_text(OTHER, "utf-8")
    head = f"<!-- translation of docs/en/page.md, words {digest_of(PAGE)} -->\n"
    body = "# 标题\n\n见[上文](#title)、[另一页](other.md#its-second)和[代码](../../src/x.py)。\n\n```python\n```\n\n"
    (chinese / "page.md").write_text(f"{head}\n{body}## 结尾\n\n```bash\n```\n", "utf-8")
    (found,) = translations()
    return found


def test_empty_blocks_are_filled_with_the_english_ones(translation: Translation) -> None:
    assert main([]) == 1, "other.md has no translation"
    text = translation.path.read_text("utf-8")
    assert blocks_of(text) == blocks_of(PAGE)
    assert '<!-- model: ["one"] -->\n<!-- status: 0 -->\n```python title="one.py"\nprint(1)' in text
    assert printed(translation) == text


def test_links_lead_to_the_translation_and_its_heading_once_it_is_there(translation: Translation) -> None:
    assert "[上文](#标题)、[另一页](../en/other.md#its-second)" in printed(translation)
    other = print_translations.CHINESE / "other.md"
    other.write_text(
        f"<!-- translation of docs/en/other.md, words {digest_of(OTHER)} -->\n# 另\n\n## 一\n\n## 二\n", "utf-8"
    )
    main([])
    text = translation.path.read_text("utf-8")
    assert "[上文](#标题)、[另一页](other.md#二)和[代码](../../src/x.py)" in text
    assert links_of(text, translation.path) == links_of(PAGE, translation.page)
    assert main(["--check"]) == 0


def test_a_block_that_came_is_told_and_changes_nothing(
    translation: Translation, capsys: pytest.CaptureFixture[str]
) -> None:
    translation.page.write_text(PAGE + "\n```sql\nSELECT 1\n```\n", "utf-8")
    before = translation.path.read_text("utf-8")
    assert main([]) == 1
    assert "docs/zh/page.md has blocks of ['python', 'bash']" in capsys.readouterr().out
    assert translation.path.read_text("utf-8") == before


def test_words_make_a_translation_stale_and_code_and_line_breaks_do_not(translation: Translation) -> None:
    translation.page.write_text(PAGE.replace("print(1)", "print(2)").replace("and [the", "and\n[the"), "utf-8")
    assert not translation.is_stale
    translation.page.write_text(PAGE.replace("## End", "## The end"), "utf-8")
    assert translation.is_stale
    main(["--stamp", str(translation.path)])
    assert not translations()[0].is_stale
    assert translation.path.read_text("utf-8").count("<!-- translation of") == 1


def test_a_new_translation_gets_its_first_line(translation: Translation) -> None:
    translation.path.write_text("# 标题\n", "utf-8")
    main(["--stamp", str(translation.path)])
    assert translations() == [translation]


def test_an_outline_is_what_both_languages_write_alike() -> None:
    english = "![A](a.svg)\n\n| Name | Is |\n| --- | --- |\n| `send` | a call |\n\n- `a\n  b`: one\n"
    chinese = "![图](a.svg)\n\n| 名字 | 是 |\n| --- | --- |\n| `send` | 一次调用 |\n\n- `a b`：一\n"
    assert outline_of(english) == outline_of(chinese) == {"!": 1, "|": 3, "-": 1, "`send`": 1, "`a b`": 1}


def test_figures_do_not_make_a_summary_stale_and_words_do() -> None:
    page = "**30,359 histories** on sqlite 3.40.1, no violation.\n"
    later = page.replace("30,359", "41,007").replace("3.40.1", "3.41")
    assert digest_of(page, has_figures=False) == digest_of(later, has_figures=False)
    assert digest_of(page) != digest_of(later)
    assert digest_of(page, has_figures=False) != digest_of(page.replace("no", "one"), has_figures=False)


def test_a_page_without_a_translation_is_told(translation: Translation, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 1
    assert "docs/en/other.md has no translation" in capsys.readouterr().out


def test_a_translation_that_does_not_name_its_page_is_refused(translation: Translation) -> None:
    translation.path.write_text("# 标题\n", "utf-8")
    with pytest.raises(ValueError, match=r"docs/zh/page\.md: its first line does not name docs/en/page\.md"):
        translations()


def test_the_pages_of_this_house_are_where_they_belong() -> None:
    assert translation_path(ENGLISH / "user-guide" / "tools.md") == CHINESE / "user-guide" / "tools.md"
    assert translation_path(ROOT / "README.md") == ROOT / "README.zh.md"
