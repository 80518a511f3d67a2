"""The examples 90 to 99: what tests agents tests them, and the chatbot survives being killed."""

from __future__ import annotations

import os
import re
import signal

import pytest

from .conftest import LIMIT_S, Stage, call


def test_test_your_agent(stage: Stage) -> None:
    said = stage.play("90_test_your_agent")
    assert said.count(" passed\n") == 3
    assert stage.asked == []
    assert not (stage.folder / "app.db").exists()


def test_cassette(stage: Stage) -> None:
    said = stage.play("91_cassette", answers=[call("add", a=17, b=4), "21."])
    assert said.startswith("first:  21.\nplayed: 21.\n")
    assert "recorded 'Add 17 and 4.', asked 'Add 17 and 5.'" in said
    assert len(stage.asked) == 2, "the model is asked in the recording only"


def test_replay(stage: Stage) -> None:
    said = stage.play("92_replay", answers=[call("find_price", item="coffee"), "42 kroner."])
    first, second, *rest = said.splitlines()
    assert first == "42 kroner."
    assert second.endswith("2 model calls asked the same")
    assert "tool 'find_price', description differs" in "".join(rest)
    assert len(stage.log()) == 4, "nothing of the session changes"


def test_crash_matrix(stage: Stage) -> None:
    said = stage.play("93_crash_matrix")
    found = re.fullmatch(r"(\d+) histories, (\d+) deaths, 0 violations \((\d+) held\)\n", said)
    assert found is not None
    assert int(found[1]) == int(found[2]) == int(found[3]) >= 10


def test_chatbot(stage: Stage) -> None:
    write = call("write_file", path="note.txt", content="hello")
    typed = "Write a note.\ny\n/cost\n\nNow another one.\nno, one is enough\n/quit\n"
    said = stage.play("99_chatbot", answers=[write, "Written.", write, "Then not."], typed=typed)
    assert "allow write_file {'path': 'note.txt', 'content': 'hello'}? [y, or why not] " in said
    assert re.search(r"> \d+ tokens so far\n", said)
    found = re.search(r"Go on with: python \S+99_chatbot\.py (sess_\w+)\n$", said)
    assert found is not None
    assert (stage.folder / "note.txt").read_text() == "hello"
    assert [state for _, state in stage.calls()] == ["succeeded", "failed"]
    assert "no, one is enough" in stage.log()[-2][1]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_chatbot_is_killed_while_it_answers_and_goes_on(stage: Stage) -> None:
    stage.answers({"text": ["Once", " upon"], "faults": [{"name": "hang_after", "deltas": 1}]}, "A whole story.")
    with stage.start("99_chatbot", cwd=stage.folder, bufsize=0, text=False) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"A story.\n")  # type: ignore[arg-type]
        said = b""
        while b"Once" not in said:
            said += os.read(process.stdout.fileno(), 4096)
        process.kill()
        process.communicate(timeout=LIMIT_S)
    assert stage.log() == [("user", "A story.")]

    async def only(store: object) -> str:
        [session] = (await store.list_sessions()).items  # type: ignore[attr-defined]
        return str(session.id)

    again = stage.play("99_chatbot", stage.look(only), answers=[], typed="")
    assert again.startswith("A whole story.\n> ")
    assert stage.log() == [("user", "A story."), ("assistant", "A whole story.")]
