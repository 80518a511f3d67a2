"""The examples 60 to 67: services are started as they are, asked over HTTP, killed, and started again."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .conftest import LIMIT_S, Served, Stage


def test_timers(stage: Stage) -> None:
    assert stage.play("60_timers", answers=["Tea time!"]) == "[tea is scheduled]\n[it fires]\nTea time!\n"
    assert stage.log() == [("user", "It is time for tea: tell the user."), ("assistant", "Tea time!")]


def test_reminders(stage: Stage) -> None:
    once = {"name": "schedule_wakeup", "arguments": {"note": "the oven", "in_minutes": 30}}
    weekly = {"note": "the weekly report", "cron": "0 9 * * MON", "zone": "Europe/Berlin"}
    both = {"calls": [once, {"name": "schedule_wakeup", "arguments": weekly}]}
    said = stage.play("61_reminders", answers=[both, "I shall."])
    lines = said.splitlines()
    assert lines[0] == "Mon 25 Mar 09:00 CET, which is 08:00 UTC"
    assert lines[1] == "Mon 01 Apr 09:00 CEST, which is 07:00 UTC"
    assert lines[3] == "I shall."
    assert sum("0 9 * * MON" in line for line in lines[4:]) == 1
    assert len(lines) == 6

    async def states(store: Any) -> list[str]:
        return [timer.state.value for timer in (await store.list_timers()).items]

    assert stage.look(states) == ["armed", "armed"]


def test_queue_and_workers(stage: Stage) -> None:
    said = stage.play("62_queue_and_workers", answers=["The Po."] * 6)
    assert said.count(": queued\n") == 6
    for user in ("ada", "ben", "eve"):
        assert f"{user}: Name a river. The Po. Another one. The Po.\n" in said
    assert all([role for role, _ in log] == ["user", "assistant"] * 2 for log in stage.logs())


# --- over HTTP ------------------------------------------------------------------------------------------------------


@contextmanager
def running(stage: Stage, name: str) -> Iterator[Any]:
    """Run a server as a process of its own; yield it with its address."""
    # Only who serves on a port knows that it is free: it takes one, and says which.
    stage.patch.setenv("PORT", "0")
    process = stage.start(name, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = ""
    try:
        while (address := re.search(r"running on (http://\S+)", said)) is None:
            line = process.stderr.readline()
            assert line, f"the server did not start: {said}"
            said += line
        yield process, address[1]
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_S)


def post(url: str, value: Any = None, **headers: str) -> Any:
    body = json.dumps(value).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return urllib.request.urlopen(
        urllib.request.Request(url, body, {"content-type": "application/json", **named}), timeout=LIMIT_S
    )


def test_fastapi_streaming(stage: Stage) -> None:
    pytest.importorskip("fastapi")
    stage.answers({"text": ["Once", " upon a time."], "faults": [{"name": "hang_after", "deltas": 1, "gate": "story"}]})
    with running(stage, "63_fastapi_streaming") as (_, url):
        sid = json.load(post(f"{url}/sessions"))["session"]
        asked = {"text": "A story."}
        with post(f"{url}/sessions/{sid}/send", asked, idempotency_key="1") as dropped:
            assert dropped.readline() + dropped.readline() == b'event: delta\ndata: "Once"\n'
        # The connection is gone, and the turn is not: the same request hears the rest of it.
        with post(f"{url}/sessions/{sid}/send", asked, idempotency_key="1") as response:
            stage.server.release("story")
            said = response.read().decode()
        done = 'event: done\ndata: {"status": "completed", "text": "Once upon a time."}\n\n'
        assert said.endswith(done)
        assert len(stage.asked) == 1
        # The server is killed in the middle of the next answer.
        cut = {"text": ["The", " end."], "faults": [{"name": "hang_after", "deltas": 1, "gate": "end"}]}
        stage.answers(cut, "The real end.")
        response = post(f"{url}/sessions/{sid}/send", {"text": "And then?"}, idempotency_key="2")
        assert response.readline() + response.readline() == b'event: delta\ndata: "The"\n'
    response.close()
    with running(stage, "63_fastapi_streaming") as (_, url):
        for key, text, end in (("2", "And then?", "The real end."), ("1", "A story.", "Once upon a time.")):
            with post(f"{url}/sessions/{sid}/send", {"text": text}, idempotency_key=key) as again:
                assert f'"text": "{end}"' in again.read().decode()
    assert [text for _, text in stage.log()] == ["A story.", "Once upon a time.", "And then?", "The real end."]


def test_websocket_chat(stage: Stage) -> None:
    pytest.importorskip("fastapi")
    client = pytest.importorskip("websockets.sync.client")
    slow = {"text": ["Once", " upon"], "faults": [{"name": "hang_after", "deltas": 1}]}
    stage.answers({"text": ["Hel", "lo."]}, slow)
    with Served(stage.load("64_websocket_chat")["app"]) as web:
        assert "new WebSocket" in web.get("/")
        address = web.url.replace("http", "ws") + "/chat/ada"
        with client.connect(address) as chat:
            chat.send("Hello?")
            assert [chat.recv(timeout=LIMIT_S) for _ in range(3)] == ["Hel", "lo.", "\n[completed]\n"]
            chat.send("A story.")
            assert chat.recv(timeout=LIMIT_S) == "Once"
            chat.send("/stop")
            assert chat.recv(timeout=LIMIT_S) == "\n[cancelled]\n"
        with client.connect(address) as chat:
            assert chat.recv(timeout=LIMIT_S) == "> Hello?\n"
    assert stage.log()[:3] == [("user", "Hello?"), ("assistant", "Hello."), ("user", "A story.")]


class Service:
    """Is a web service that an example talks to: `answers` gives what a path answers; `asked` is what it was asked."""

    def __init__(self, answer: Any) -> None:
        outer = self
        self.asked: list[tuple[str, Any]] = []
        self.changed = threading.Condition()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer.changed:
                    outer.asked.append((self.path, body))
                    outer.changed.notify_all()
                said = json.dumps(answer(self.path, body)).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *arguments: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="service")
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Service:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join(LIMIT_S)
        self._server.server_close()

    def of(self, path_end: str) -> list[Any]:
        return [body for path, body in self.asked if path.endswith(path_end)]

    def until(self, path_end: str, count: int) -> list[Any]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.of(path_end)) >= count, LIMIT_S)
            return self.of(path_end)


def test_telegram_bot(stage: Stage) -> None:
    updates = [
        {"update_id": number, "message": {"text": text, "chat": {"id": chat}}}
        for number, chat, text in ((7, 1, "Hello."), (8, 2, "Hi."), (9, 1, "Again."))
    ]
    gone = threading.Event()

    def answer(path: str, body: Any) -> Any:
        if path.endswith("/sendMessage"):
            return {"ok": True, "result": {}}
        new = [update for update in updates if update["update_id"] >= body["offset"]]
        if not new:
            gone.wait(LIMIT_S)  # as a long poll does
        return {"ok": True, "result": new}

    stage.patch.setenv("TELEGRAM_TOKEN", "123:abc")
    stage.answers(*["Good day."] * 3)
    with Service(answer) as telegram:
        stage.patch.setenv("TELEGRAM_API", telegram.url)
        for life in (1, 2):  # the second life gets the same updates again
            with stage.start("65_telegram_bot") as bot:
                sent = telegram.until("/sendMessage", 3 * life)
                offsets = telegram.until("/getUpdates", 2 * life)
                bot.send_signal(signal.SIGKILL)
                bot.communicate(timeout=LIMIT_S)
        gone.set()
    assert sorted(message["chat_id"] for message in sent) == [1] * 4 + [2] * 2
    assert {message["text"] for message in sent} == {"Good day."}
    assert [poll["offset"] for poll in offsets] == [0, 10, 0, 10]
    assert all(path.startswith("/bot123:abc/") for path, _ in telegram.asked)
    assert len(stage.asked) == 3, "no update is answered by the model twice"
    assert sorted(len(log) for log in stage.logs()) == [2, 4]


def test_webhook(stage: Stage) -> None:
    pytest.importorskip("fastapi")
    stage.patch.setenv("SLACK_SIGNING_SECRET", "s3cret")
    stage.patch.setenv("SLACK_TOKEN", "xoxb")
    stage.answers("It is 9 o'clock.")

    def signed(web: Served, value: Any, secret: bytes = b"s3cret") -> Any:
        body, stamp = json.dumps(value).encode(), str(int(time.time()))
        signature = "v0=" + hmac.new(secret, f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
        headers = {"x_slack_request_timestamp": stamp, "x_slack_signature": signature}
        return json.loads(web.get("/slack/events", body, **headers))

    event = {"type": "app_mention", "channel": "C1", "ts": "17.5", "text": "What time is it?"}
    with Service(lambda path, body: {"ok": True}) as slack:
        stage.patch.setenv("SLACK_API", slack.url)
        with Served(stage.load("66_webhook")["app"]) as web:
            assert signed(web, {"type": "url_verification", "challenge": "c"}) == {"challenge": "c"}
            with pytest.raises(urllib.error.HTTPError, match="401"):
                signed(web, {"type": "event_callback", "event_id": "E0", "event": event}, b"wrong")
            asked = {"type": "event_callback", "event_id": "E1", "event": event}
            assert signed(web, asked) == {"status": "queued"}
            assert slack.until("/chat.postMessage", 1) == [{"channel": "C1", "text": "It is 9 o'clock."}]
            assert signed(web, asked)["status"] in ("queued", "completed"), "Slack's repeat is the same input"
    assert len(slack.of("/chat.postMessage")) == 1
    assert stage.log() == [("user", "What time is it?"), ("assistant", "It is 9 o'clock.")]


def test_tenants(stage: Stage) -> None:
    said = stage.play("67_tenants", answers=["Noted.", "Noted."])
    assert said == "Noted.\nNoted.\nacme: Our secret word is ochre.\nzeta: What is the secret word?\n"
    assert stage.log("tenants/acme.db")[0] == ("user", "Our secret word is ochre.")
    assert stage.log("tenants/zeta.db")[0] == ("user", "What is the secret word?")
    assert not re.search("ochre", str(stage.asked[0]) if "What is" in str(stage.asked[0]) else str(stage.asked[1]))
