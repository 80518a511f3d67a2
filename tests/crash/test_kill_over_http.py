"""The same over the wire: a process is killed while a real server answers it, and the next one is answered as well."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.crash.harness import Scene, Theatre
from tests.crash.stories import FOLLOW_UP, FOLLOW_UP_ANSWER, STORIES, Call, Say, report, tokens_of_reply
from tests.crash.verdict import carried_out, judge, left_alone, with_follow_up
from tests.model_server import Answer, Request, ThreadedModelServer, ToolCall, Usage, Wire, calls, faults, say

_KILLED = {"exit": -signal.SIGKILL}
_ENDED = {"exit": 0}
_WIRES = ["openai", "anthropic"]
_TOLD = {story.text: story.replies for story in STORIES.values()} | {FOLLOW_UP: (Say(FOLLOW_UP_ANSWER),)}


def answer(request: Request) -> Answer:
    """Say what the story says, by what stands in the request."""
    log = [entry for message in request.messages for entry in _entries(message)]
    at = max(at for at, (role, text) in enumerate(log) if role == "user" and text in _TOLD)
    replies, since = _TOLD[log[at][1]], log[at + 1 :]
    reply = replies[sum(role == "assistant" for role, _ in since)]
    usage = Usage(*tokens_of_reply(len(log)))
    if isinstance(reply, Call):
        return calls(*(ToolCall(name, {"id": id_}) for name, id_ in reply.wanted), usage=usage)
    text = reply.text if isinstance(reply, Say) else report([text for role, text in since if role == "tool"])
    return say(*text.replace(" ", "\0 ").split("\0"), usage=usage)


def _entries(message: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the entries of the log that a message of either wire holds: each puts some together."""
    role, content = message["role"], message["content"]
    if role == "system":
        return []
    if role == "tool":
        return [(role, content.removeprefix("Error: "))]
    if role == "assistant":
        return [(role, content or "")]
    if isinstance(content, str):
        return [(role, text) for text in content.split("\n\n")]
    return [("tool", part["content"]) if part["type"] == "tool_result" else (role, part["text"]) for part in content]


@pytest.fixture
def server() -> Iterator[ThreadedModelServer]:
    """A model server that knows the stories; a request that breaks a rule of its provider is refused there."""
    with ThreadedModelServer(answer) as made:
        yield made


def play(
    theatre: Theatre, scene: Scene, server: ThreadedModelServer, story: str, wire: str, *acts: str, **job: Any
) -> Any:
    """Let a process live that asks this server."""
    return theatre.play(scene, story, *acts, endpoint=(wire, server.base_url), **job)


@pytest.mark.parametrize("name", ["tool_round", "stream"])
@pytest.mark.parametrize("wire", _WIRES)
@pytest.mark.promise("kill-at-any-moment", "valid-transcript", "any-endpoint")
def test_a_process_killed_at_any_point_of_a_turn_over_the_wire(
    theatre: Theatre, server: ThreadedModelServer, wire: str, name: str
) -> None:
    story = STORIES[name]
    number = 1
    while True:
        scene = theatre.beginning()
        before = scene.facts()
        ended = play(theatre, scene, server, name, wire, "carry_out", is_first=True, stop_at_number=number)
        if ended == _ENDED:
            break
        assert ended == _KILLED
        dead, death = scene.facts(), f"{wire}, {scene.points()[-1]} ({number})"
        assert play(theatre, scene, server, name, wire, "carry_out", "follow_up") == _ENDED, death
        judge(story, dead, scene, with_follow_up(carried_out(story, dead)), death=death)
        number += 1
    judge(story, before, scene, carried_out(story, before))
    assert number == len(scene.points()) + 1
    assert {"model.asked", "model.delta", "model.answered"} < set(scene.points())
    assert {request.wire for request in server.requests} == {Wire(wire)}
    assert [problem for request in server.requests for problem in request.problems] == []


@pytest.mark.parametrize("wire", _WIRES)
@pytest.mark.promise("streaming")
def test_a_provider_sees_a_killed_process_hang_up(theatre: Theatre, wire: str) -> None:
    story = STORIES["stream"]

    def hang_at_first(request: Request) -> Answer:
        given = answer(request)
        return given.with_faults(faults.hang_after(2)) if request.number == 1 else given

    with ThreadedModelServer(hang_at_first) as server:
        scene = theatre.beginning()
        stops = {"stop_at": [("model.delta", 2)], "is_first": True}
        assert play(theatre, scene, server, story.name, wire, "carry_out", **stops) == _KILLED
        server.wait_for_open_connections(0)
        assert server.requests[0].client_left
        dead = scene.facts()
        # Nothing of the half reply is in the log, and the next send is answered.
        assert play(theatre, scene, server, story.name, wire, "send_other") == _ENDED
        judge(story, dead, scene, with_follow_up(left_alone(story, dead)))
        assert [request.problems for request in server.requests] == [[], []]
