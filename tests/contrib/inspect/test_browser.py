"""The page in a real browser: it follows what happens, is used by keyboard, names all that it has, and obeys nobody."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from power_loop import LLMRequest, StatefulAgentLoop, ToolDefinition, tool
from power_loop.contrib.inspect import Inspector
from power_loop.testing import ScriptedLLM, call
from scripts.inspector_world import build, make_waiting
from tests.agent.parts import Gate

playwright_api = pytest.importorskip("playwright.async_api", reason="playwright drives the browser")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# One browser and one event loop serve all tests of this file: a start takes as long as three of them.
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: `make browser` brings it"),
]
expect = playwright_api.expect
# Long enough for a machine with much else to do; nobody waits that long where it works.
LIMIT_MS = 60_000
expect.set_options(timeout=LIMIT_MS)

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><svg onload=alert(1)>"
    "[click](javascript:alert(1)) </pre></main>&lt;b&gt; \u202egnp.exe\u202c \u200b end \x1b]0;owned\x07"
)
SHOWN = "U+202Egnp.exeU+202C U+200B end U+001B]0;ownedU+0007"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    async with playwright_api.async_playwright() as playwright:
        # A test may run as root and in a container, where Chromium's own sandbox cannot be had.
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=LIMIT_MS)
        yield started
        await started.close()


class Site:
    """Is an open page of an inspector, and what it complained of."""

    def __init__(self, page: Any, inspector: Inspector) -> None:
        self.page = page
        self.inspector = inspector
        self.base = inspector.url.partition("#")[0]
        self.complaints: list[str] = []
        self.asked: set[str] = set()
        page.set_default_timeout(LIMIT_MS)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: self.asked.add(request.url))

    async def enter(self) -> Site:
        await self.page.goto(self.inspector.url)
        await self.page.locator("#line.on").wait_for()
        return self

    async def go(self, session_id: str, view: str = "timeline") -> None:
        await self.page.goto(f"{self.base}#/session/{session_id}/{view}")

    async def hear(self, session_id: str) -> None:
        """Go to a session, and return once its page hears what happens there: nobody tells it what was before."""
        async with self.page.expect_response(lambda answer: f"/api/live?session={session_id}" in answer.url):
            await self.go(session_id)

    async def js(self, expression: str) -> Any:
        """Evaluate in the page by the debugger: the page's own policy lets nobody do so."""
        debugger = await self.page.context.new_cdp_session(self.page)
        found = await debugger.send("Runtime.evaluate", {"expression": expression, "returnByValue": True})
        await debugger.detach()
        return found["result"].get("value")

    async def named(self) -> list[tuple[str, str]]:
        """Return role and name of all that a screen reader can stop at."""
        debugger = await self.page.context.new_cdp_session(self.page)
        tree = await debugger.send("Accessibility.getFullAXTree")
        await debugger.detach()
        nodes = [node for node in tree["nodes"] if not node["ignored"]]
        return [(node["role"]["value"], node.get("name", {}).get("value", "").strip()) for node in nodes]


Open = Any


@pytest_asyncio.fixture(loop_scope="module")
async def open_page(browser: Any) -> Open:
    """Return what shows a loop in a page; at its end nothing may have gone wrong in it, or have come from elsewhere."""

    @contextlib.asynccontextmanager
    async def opened(
        loop: StatefulAgentLoop, *, dark: bool = False, width: int = 1200, **options: Any
    ) -> AsyncIterator[Site]:
        scheme = "dark" if dark else "light"
        async with await Inspector(loop, **options).start() as inspector:
            context = await browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
            try:
                site = await Site(await context.new_page(), inspector).enter()
                yield site
            finally:
                await context.close()
        assert site.complaints == []
        assert {url for url in site.asked if not url.startswith(site.base)} == set()

    return opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the DSN of a store with something of everything, and ids in it."""
    dsn = str(tmp_path_factory.mktemp("world") / "app.db")
    return {"dsn": dsn, **await build(dsn)}


async def test_the_key_leaves_the_address_and_opens_one_browser_only(
    world: dict[str, str], browser: Any, open_page: Open
) -> None:
    async with make_waiting(world["dsn"]) as loop, open_page(loop) as site:
        assert site.page.url == f"{site.base}#/"
        [cookie] = await site.page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["domain"]) == (True, "Strict", "127.0.0.1")
        assert await site.js("document.cookie") == ""
        await site.page.reload()
        await expect(site.page.get_by_role("link", name=re.compile("An order of tea")).first).to_be_visible()
        context = await browser.new_context()
        stranger = await context.new_page()
        stranger.set_default_timeout(LIMIT_MS)
        await stranger.goto(site.base)
        await expect(stranger.get_by_role("main")).to_contain_text("The door is closed")
        await context.close()


@pytest.mark.promise("inspector")
async def test_a_turn_is_seen_while_it_streams(tmp_path: Path, open_page: Open) -> None:
    tool_gate, model_gate = Gate(), Gate()

    @tool
    async def look() -> str:
        """Look."""
        await tool_gate.passing()
        return "a room"

    class Slow(ScriptedLLM):
        async def generate(self, request: LLMRequest, emit: Any) -> Any:
            response = await super().generate(request, emit)
            if len(request.messages) > 1:
                await model_gate.passing()
            return response

    async with StatefulAgentLoop(
        llm=Slow([call("look"), "I see a room."]), dsn=str(tmp_path / "a.db"), tool_registry=[look]
    ) as loop:
        await loop.new_session(session_id="s")

        @loop.hooks.on("round.end")
        def broken(context: Any) -> None:
            raise RuntimeError("no")

        async with contextlib.AsyncExitStack() as stack:
            site = await stack.enter_async_context(open_page(loop, is_attached=True))
            await site.hear("s")
            page = site.page
            await expect(page.get_by_role("main")).to_contain_text("Nothing was said yet.")
            stack.callback(tool_gate.open)
            stack.callback(model_gate.open)
            turn = asyncio.create_task(loop.send("What is there?", session_id="s"))
            # The call stands in the timeline while it runs.
            await expect(page.locator(".call .state")).to_have_text("started")
            await expect(page.locator(".head .state").first).to_have_text("running")
            await expect(page.get_by_text("Held by")).to_be_visible()
            tool_gate.open()
            # What the model says is there before it is stored.
            live = page.get_by_role("region", name="Live")
            await expect(live.locator(".item.live .text")).to_have_text("I see a room.")
            await expect(page.locator(".item.assistant")).to_have_count(1)
            model_gate.open()
            await turn
            await expect(page.locator(".item.assistant")).to_have_count(2)
            await expect(live.locator(".item.live")).to_be_hidden()
            await expect(page.locator(".head .state").first).to_have_text("completed")
            await expect(page.locator("#said")).to_have_text("completed, 4 messages")
            events = live.get_by_role("list", name="Events")
            for name in ("round.started", "tool.started", "tool.finished", "hook.failed", "send.finished"):
                await expect(events).to_contain_text(name)
            await page.get_by_role("link", name="power-loop inspector").click()
            await expect(page.get_by_role("main")).to_contain_text("Hooks at round.end")


async def test_rows_of_another_process_come_to_the_page(tmp_path: Path, open_page: Open) -> None:
    dsn = str(tmp_path / "a.db")
    async with StatefulAgentLoop(llm=ScriptedLLM(["One.", "Two."]), dsn=dsn) as writer:
        await writer.new_session(session_id="s")
        async with StatefulAgentLoop(llm=ScriptedLLM(), dsn=dsn) as looking, open_page(looking) as site:
            await site.go("s")
            for text in ("One.", "Two."):
                await writer.send("And?", session_id="s")
                await expect(site.page.locator(".item.assistant").last).to_contain_text(text)
            await writer.new_session(session_id="t", metadata={"title": "A new one"})
            await expect(site.page.get_by_role("navigation", name="Sessions")).to_contain_text("A new one")
            for name in ("Fork", "Resume", "Cancel the turn", "Fork behind message 2"):
                await expect(site.page.get_by_role("button", name=name, exact=True)).to_have_count(0)


async def test_a_call_is_approved_with_the_keyboard_alone(tmp_path: Path, open_page: Open) -> None:
    dsn = str(tmp_path / "a.db")
    await build(dsn)
    async with make_waiting(dsn) as loop, open_page(loop, can_write=True, can_drive=True) as site:
        await site.go("shop")
        page = site.page
        ask = page.get_by_role("region", name="order waits")
        await expect(ask.get_by_label("Arguments")).to_contain_text('"grams": 100')
        # A reason that is being typed survives what comes meanwhile.
        reason = ask.get_by_role("textbox", name="Why not (the model reads it)")
        await reason.fill("because")
        await loop.update_session("shop", metadata={"title": "Tea, renamed"})
        await expect(page.get_by_role("heading", name="Tea, renamed")).to_be_visible()
        await expect(reason).to_have_value("because")
        await expect(reason).to_be_focused()
        for _ in range(2):
            await page.keyboard.press("Shift+Tab")
        await expect(page.get_by_role("button", name="Approve order")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator(".item.assistant").last).to_contain_text("number 4711")
        await expect(ask).to_have_count(0)
        # From the last message a fork leads on.
        await page.get_by_role("button", name="Fork at the last message").click()
        await expect(page.get_by_text("Fork of")).to_be_visible()


async def test_a_step_is_answered_and_the_run_goes_on_in_its_picture(tmp_path: Path, open_page: Open) -> None:
    dsn = str(tmp_path / "a.db")
    ids = await build(dsn)
    async with make_waiting(dsn) as loop, open_page(loop, can_write=True, can_drive=True) as site:
        await site.go(ids["run"], "workflow")
        picture = site.page.get_by_role("group", name="The workflow tea guide")
        await expect(picture).to_contain_text("agent · 3 completed")
        await expect(picture.get_by_role("link", name="plan: completed")).to_be_visible()
        await expect(picture).to_contain_text("agent · not begun")
        await site.page.get_by_role("button", name="yes").click()
        await expect(picture.get_by_role("link", name="write: completed")).to_be_visible()
        await expect(site.page.get_by_role("table", name="Steps of the run")).to_contain_text("teas[2]/taste")


async def test_the_tree_and_the_prompts_and_the_cost_are_shown(world: dict[str, str], open_page: Open) -> None:
    async with make_waiting(world["dsn"]) as loop, open_page(loop, dark=True) as site:
        page = site.page
        await site.go("party", "tree")
        picture = page.get_by_role("group", name="The tree of 5 sessions")
        await expect(picture.get_by_role("link")).to_have_count(5)
        await expect(page.get_by_role("table", name="Sessions of the tree").get_by_role("row")).to_have_count(6)
        await page.get_by_role("link", name="Budgets and cost").click()
        await expect(page.get_by_role("meter", name="Tokens: 105 of 2,000")).to_be_visible()
        await expect(page.get_by_role("meter", name="Cost: 0.000735 of 0.02")).to_be_visible()
        await site.go("shop")
        await page.get_by_role("link", name="Prompt of call 4").click()
        await expect(page.get_by_role("main")).to_contain_text("It only grew")
        fresh = page.get_by_role("region", name="messages 1-3").locator(".item.new")
        await expect(fresh).to_have_count(2)
        await expect(page.get_by_role("region", name="system").get_by_label("Text")).to_contain_text(
            "You sell Japanese"
        )
        # Behind a fold the summary is new, and what it stands for is gone.
        await site.go("shop", "prompt")
        await expect(page.locator(".said.broken").last).to_contain_text("messages 1 to 5 were folded into a summary")
        await expect(page.get_by_role("region", name="fold 1-5").locator(".item.new")).to_contain_text("Ada asked for")
        await page.get_by_role("region", name="messages 1-5").locator("summary").click()
        await expect(page.get_by_role("region", name="messages 1-5").locator(".item.gone")).to_have_count(5)
        await site.go("shop")
        await expect(page.locator(".item.fold")).to_contain_text("messages 1 to 5 became a summary")
        await page.get_by_role("link", name="Prompt of call 4").click()
        await page.get_by_role("link", name="← Call 2").click()
        await expect(page.get_by_role("main")).to_contain_text("It is the first call of the session.")


@pytest.mark.promise("inspector")
async def test_whatever_was_written_is_text(tmp_path: Path, open_page: Open) -> None:
    """Titles, prompts, messages, names of tools, arguments, results: all of it is hostile."""

    async def answer(**said: str) -> str:
        return HOSTILE

    async def flood() -> str:
        return "<b>" * 3_300_000

    tools = [
        ToolDefinition("answer", "Answer.", {"type": "object", "additionalProperties": True}, answer, effect="read")
    ]
    tools += [ToolDefinition("flood", "Flood.", {"type": "object"}, flood, effect="read")]

    @tool(requires_approval=True)
    def pay(note: str) -> str:
        """Pay."""
        return note

    steps = [
        call("answer", {"said": HOSTILE}, text=HOSTILE),
        call(HOSTILE, HOSTILE),
        call("flood"),
        call("pay", {"note": HOSTILE}),
    ]
    session_id = "a.b-c_d"
    async with StatefulAgentLoop(
        llm=ScriptedLLM(steps), dsn=str(tmp_path / "a.db"), tool_registry=[*tools, pay]
    ) as loop:
        await loop.new_session(
            session_id=session_id, system_prompt=HOSTILE, metadata={"title": HOSTILE, HOSTILE: HOSTILE}
        )
        async with open_page(loop, can_write=True, can_drive=True, is_attached=True) as site:
            await site.go(session_id)
            page = site.page
            await loop.send(HOSTILE, session_id=session_id)
            await expect(page.locator(".item.user .text")).to_contain_text(SHOWN)
            await expect(page.locator(".item.user .text")).to_contain_text(
                "<script>document.title='owned'</script><img"
            )
            await expect(page.get_by_role("heading", level=2)).to_contain_text(SHOWN)
            await expect(page.locator(".ask pre")).to_contain_text("javascript:alert(1)")
            for summary in await page.locator(".call > summary").all():
                await summary.click()
            await expect(page.locator(".call pre").nth(1)).to_contain_text(SHOWN)
            flooded = page.locator(".call", has=page.locator("summary .name", has_text="flood"))
            await expect(flooded.get_by_label("Result")).to_contain_text("characters left out")
            await flooded.get_by_role("button", name="Show the whole result").click()
            await expect(flooded.get_by_label("Result")).to_contain_text("<b><b>" * 20)
            for view in ("prompt", "tree", "cost", "timeline"):
                await site.go(session_id, view)
                await expect(page.locator(".tabs a[aria-current]")).to_have_attribute("data-focus", view)
                await expect(page.get_by_role("heading", level=2)).to_contain_text(SHOWN)
                inside = "#main script, #main img, #main iframe, #main b script, #side script, #side img, svg script"
                assert await page.locator(inside).count() == 0
                for link in await page.locator("a").all():
                    assert (await link.get_attribute("href") or "").startswith("#")
                turned = "/[\\u0000-\\u0008\\u200b-\\u200f\\u202a-\\u202e]/.test(document.documentElement.outerHTML)"
                assert await site.js(turned) is False
                assert SHOWN in await page.title()
            # The browser itself is held to it: text that is given to it as markup is refused.
            refused = "try { document.body.innerHTML = '<i>x</i>'; 'taken' } catch (error) { error.name }"
            assert await site.js(refused) == "TypeError"
            site.complaints = [one for one in site.complaints if "TrustedHTML" not in one]


async def test_everything_has_a_name_and_the_keyboard_reaches_it_in_order(
    world: dict[str, str], open_page: Open
) -> None:
    all_of_it: Any = {"can_write": True, "can_drive": True, "is_attached": True}
    async with make_waiting(world["dsn"]) as loop, open_page(loop, **all_of_it) as site:
        page = site.page
        views = [
            ("shop", "timeline"),
            ("shop", "prompt"),
            ("party", "tree"),
            ("party", "cost"),
            (world["run"], "workflow"),
        ]
        for session_id, view in views:
            await site.go(session_id, view)
            await expect(page.locator(".tabs a[aria-current]")).to_have_attribute("data-focus", view)
            await expect(page.locator("#main h3").first).to_be_visible()
            found = await site.named()
            stops = {"button", "link", "textbox", "searchbox", "checkbox", "meter", "table", "navigation", "region"}
            assert [role for role, name in found if role in stops and not name] == []
            roles = [role for role, _ in found]
            assert (roles.count("banner"), roles.count("main"), roles.count("heading") > 1) == (1, 1, True)
            assert {name for role, name in found if role == "navigation"} == {"Sessions", "Views of the session"}
            levels = await site.js(
                "[...document.querySelectorAll('main h2, main h3, main h4')].map((one) => one.tagName)"
            )
            assert levels[0] == "H2"
            assert levels.count("H2") == 1
        assert await page.locator("[aria-live=polite], [role=status]").count() >= 2
        assert await page.locator("[role=alert]").count() == 1
        await page.goto(f"{site.base}#/")
        await page.reload()
        await expect(page.get_by_role("link", name=re.compile("An order of tea")).first).to_be_visible()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        order = []
        for _ in range(5):
            await page.keyboard.press("Tab")
            order.append(await site.js("document.activeElement.id || document.activeElement.textContent.slice(0, 15)"))
        assert order[1:3] == ["filter", "finished"]
        assert order[3].startswith("An order of tea")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1 + 1)).to_have_text(re.compile("."))


async def test_a_picture_stays_in_its_frame(world: dict[str, str], open_page: Open) -> None:
    async with make_waiting(world["dsn"]) as loop, open_page(loop, width=1180) as site:
        await site.go(world["run"], "workflow")
        await site.page.get_by_role("group", name="The workflow tea guide").wait_for()
        assert await site.js("main.scrollWidth <= main.clientWidth") is True
        frame, drawn = [await site.page.locator(name).bounding_box() for name in (".picture", ".picture svg")]
        assert drawn["x"] + drawn["width"] <= frame["x"] + frame["width"]


async def test_a_prompt_of_many_messages_shows_its_end(loop: StatefulAgentLoop, open_page: Open) -> None:
    await loop.new_session(session_id="s")
    for _ in range(110):
        await loop.send("And?", session_id="s")
    async with open_page(loop) as site:
        await site.go("s", "prompt")
        part = site.page.get_by_role("region", name="messages 1-219")
        await expect(part.locator(".item")).to_have_count(200)
        await expect(part.locator(".item.new")).to_have_count(2)
        await expect(part).to_contain_text("19 earlier messages")
        # A view that there is not is the timeline, whatever it is called.
        await site.go("s", "constructor")
        await expect(site.page.locator(".item.assistant").last).to_contain_text("Yes.")


async def test_it_fits_a_small_window_and_finds_sessions(world: dict[str, str], open_page: Open) -> None:
    async with make_waiting(world["dsn"]) as loop, open_page(loop, width=400, dark=True) as site:
        page = site.page
        for session_id, view in (
            ("shop", "timeline"),
            ("party", "cost"),
            ("party", "tree"),
            (world["run"], "workflow"),
        ):
            await site.go(session_id, view)
            await expect(page.locator("#main h3").first).to_be_visible()
            assert await site.js("document.documentElement.scrollWidth <= innerWidth") is True
            # A picture that is wider is scrolled inside of its frame.
            assert await site.js("main.scrollWidth <= main.clientWidth") is True
        sessions = page.get_by_role("navigation", name="Sessions").get_by_role("listitem")
        await page.get_by_role("searchbox", name="Filter the sessions").fill("ada")
        await expect(sessions).to_have_count(1)
        await page.get_by_role("searchbox", name="Filter the sessions").fill("")
        await page.get_by_role("checkbox", name="Finished sub-agents too").check()
        await expect(sessions).to_have_count(12)
