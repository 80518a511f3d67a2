"""Lets a person approve calls in a browser, whenever they come by. Needs `pip install fastapi uvicorn`.

Open http://127.0.0.1:8000 and ask for a refund. You will see the conversation, and the call that waits with its
arguments and two buttons. Restart the server in between: the wait costs nothing, and is nowhere but in `app.db`.
"""

from html import escape
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from power_loop import Approve, Deny, StatefulAgentLoop, create_llm_service_from_env, tool

PAGE = """<!doctype html><meta charset="utf-8"><title>Refunds</title>
<style>body {{font: 16px sans-serif; max-width: 40em; margin: 2em auto}} .waits {{background: #ffd}}</style>
{said}{waits}
<form method="post" action="/say"><input name="text" size="50" autofocus> <button>send</button></form>"""
WAITS = """<form class="waits" method="post" action="/answer/{call_id}">{name} {arguments}
<button name="yes" value="1">approve</button> <button>deny</button> <input name="reason" placeholder="why not">
</form>"""


@tool(requires_approval=True)
def refund(order: int, euros: int) -> str:
    """Give money back for an order."""
    return f"{euros} euros are on their way back for order {order}."


def make_loop() -> StatefulAgentLoop:
    """Return a handle: each request makes its own, and all of them share the open database."""
    return StatefulAgentLoop(llm=create_llm_service_from_env(), dsn="app.db", tool_registry=[refund])


async def desk(loop: StatefulAgentLoop) -> str:
    """Return the id of the session that this desk works in."""
    found = (await loop.list_sessions(metadata={"desk": "refunds"}, limit=1)).items
    return found[0].id if found else await loop.new_session(metadata={"desk": "refunds"})


async def form(request: Request) -> dict[str, str]:
    """Return the fields of a form."""
    return {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}


app = FastAPI()


@app.get("/", response_class=HTMLResponse)
async def show() -> str:
    """Show what was said and what waits."""
    async with make_loop() as loop:
        sid = await desk(loop)
        messages = [record.message for record in await loop.get_messages(sid)]
        said = "".join(f"<p><b>{one.role.value}</b> {escape(one.text)}</p>" for one in messages if one.text)
        waits = "".join(
            WAITS.format(call_id=call.call_id, name=call.name, arguments=escape(str(dict(call.arguments))))
            for call in await loop.get_pending(sid)
        )
        return PAGE.format(said=said, waits=waits)


@app.post("/say")
async def say(request: Request) -> RedirectResponse:
    """Take what the person types; while a call waits it is left in the inbox."""
    async with make_loop() as loop:
        await loop.follow_up(await desk(loop), (await form(request))["text"])
    return RedirectResponse("/", status_code=303)


@app.post("/answer/{call_id}")
async def answer(call_id: str, request: Request) -> RedirectResponse:
    """Bring the person's answer, and let the turn go on."""
    said = await form(request)
    async with make_loop() as loop:
        given = Approve() if "yes" in said else Deny(said.get("reason", "not approved"))
        await loop.resume(await desk(loop), answers={call_id: given})
    return RedirectResponse("/", status_code=303)


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app)
