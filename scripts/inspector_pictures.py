"""Takes the pictures of the inspector in the docs: its own page, in Chromium, over a store that is made for it.

python -m scripts.inspector_pictures
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from playwright.async_api import Page, async_playwright

from power_loop.contrib.inspect import attach_inspector
from scripts.inspector_world import build, make_waiting

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "en" / "pictures"
_SIZE = {"width": 1180, "height": 800}

# Pictures by name: the view, a text of it that is waited for, the colours, and what is opened first.
_SCENES = (
    ("timeline", "session/shop/timeline", "Allow this call?", "light"),
    ("prompt", "session/shop/prompt", "were folded into a summary", "light"),
    ("tree", "session/party/tree", "The same as a table", "light"),
    ("workflow", "session/RUN/workflow", "Is this fit to print?", "dark"),
    ("cost", "session/party/cost", "Budget of the last send", "light"),
)


async def main() -> None:
    """Take all of them."""
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("there is no chromium: `make browser` brings it")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        dsn = str(Path(folder, "app.db"))
        ids = await build(dsn)
        async with make_waiting(dsn) as loop, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            async with await attach_inspector(loop, write=True) as inspector:
                base = inspector.url.partition("#")[0]
                for name, view, text, scheme in _SCENES:
                    page = await browser.new_page(viewport=_SIZE, color_scheme=scheme)  # type: ignore[arg-type]
                    await page.goto(inspector.url)
                    await page.locator("#line.on").wait_for()
                    await page.goto(f"{base}#/{view.replace('RUN', ids['run'])}")
                    await page.get_by_text(text).first.wait_for()
                    await _take(page, name)
                    await page.close()
            await browser.close()


async def _take(page: Page, name: str) -> None:
    path = PICTURES / f"inspector-{name}.png"
    await page.screenshot(path=path, animations="disabled")
    print(f"taken: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    asyncio.run(main())
