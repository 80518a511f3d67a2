"""The runner of the pages' blocks sees what is wrong with a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.pages import blocks_of, run_blocks
from tests.model_server import ThreadedModelServer

PAGE = """
# Title

<!-- model: ["one", "two"] -->
```python
import asyncio
await asyncio.sleep(0)
value = 20 + 1
print("The answer:", value)   # → The answer: 21   (as everybody knows)
```

```bash
make test
```

1. In a list:

   ```python
   print(value * 2)
   # → 42
   ```
"""


@pytest.fixture
def server() -> Iterator[ThreadedModelServer]:
    with ThreadedModelServer() as server:
        yield server


def test_it_finds_blocks_with_their_lines_answers_and_claims() -> None:
    first, second, third = blocks_of(PAGE, "page.md")
    assert (first.language, first.line, first.answers, first.claims) == (
        "python",
        6,
        ["one", "two"],
        ["The answer: 21"],
    )
    assert (second.language, second.source, second.answers) == ("bash", "make test\n", [])
    assert (third.source, third.claims) == ("print(value * 2)\n# → 42\n", ["42"])


def test_blocks_share_a_namespace_and_may_await_at_the_top(server: ThreadedModelServer) -> None:
    blocks = [block for block in blocks_of(PAGE.replace("<!--", "<!"), "page.md") if block.language == "python"]
    assert run_blocks(blocks, server, {}) == ["The answer: 21\n", "42\n"]


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```python\nprint(1)  # → 2\n```\n", "page.md:2 claims to print '2'"),
        ('<!-- model: ["never asked"] -->\n```python\nprint(1)\n```\n', "page.md:3: 1 answers were not asked for"),
    ],
)
def test_a_false_claim_fails(server: ThreadedModelServer, page: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        run_blocks(blocks_of(page, "page.md"), server, {})


def test_a_traceback_points_into_the_page(server: ThreadedModelServer) -> None:
    with pytest.raises(NameError) as caught:
        run_blocks(blocks_of("text\n\n```python\n1\nmissing\n```\n", "page.md"), server, {})
    assert caught.traceback[-1].lineno + 1 == 5
    assert Path(caught.traceback[-1].path).name == "page.md"
