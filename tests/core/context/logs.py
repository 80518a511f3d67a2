"""Random logs: from what a careful loop writes to what only a broken disk would."""

from __future__ import annotations

from hypothesis import strategies as st

from power_loop.contracts.messages import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    OpaquePart,
    Origin,
    ReasoningPart,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    tool_message,
)

WORDS = ("Hello.", "What is 2+2?", "Four.", "色は青緑です", "Привет", "🙂", "line\nline", "x" * 400)
BLANKS = ("", " ", "\n\t", " ")
# Few ids, so that they meet: portable, unportable, and ones that look like what a renamed call is called.
IDS = ("c1", "c2", "c1_2", "c1_2_2", "call_2", "", "id with spaces", "a" * 41, "été")
NAMES = ("add", "fs.read", "", "n" * 65, "read_file")

texts = st.sampled_from(WORDS)
any_texts = st.sampled_from(WORDS + BLANKS)
THINKING = '{"type":"thinking","thinking":"hm","signature":"s"}'
SERVER_CALL = '{"type":"server_tool_use","id":"srv_1","name":"search","input":{}}'
origins = st.sampled_from((None, Origin("openai", "gpt-test"), Origin("anthropic", "claude-test")))


def content_parts(text: st.SearchStrategy[str] = texts) -> st.SearchStrategy[ContentPart]:
    return st.one_of(
        st.builds(TextPart, text),
        st.just(ImagePart(data="aGk=")),
        st.just(FilePart(data="aGk=")),
        st.just(AudioPart(data="aGk=")),
    )


calls = st.builds(ToolCallPart, st.sampled_from(IDS), st.sampled_from(NAMES), st.sampled_from(("{}", '{"a":1}', "{")))
results = st.builds(
    ToolResultPart,
    st.sampled_from(IDS),
    st.lists(content_parts(any_texts), max_size=2).map(tuple),
    st.booleans(),
)
spoken_parts = st.one_of(
    st.builds(TextPart, any_texts),
    calls,
    calls,
    st.builds(ReasoningPart, any_texts, st.sampled_from((None, THINKING))),
    st.builds(RefusalPart, any_texts),
    st.just(OpaquePart(SERVER_CALL)),
)
any_parts = st.one_of(content_parts(any_texts), spoken_parts, results)

wild_messages = st.one_of(
    st.builds(Message, st.just(Role.USER), st.lists(content_parts(any_texts), max_size=3).map(tuple)),
    st.builds(Message, st.just(Role.ASSISTANT), st.lists(spoken_parts, max_size=5).map(tuple), origins),
    st.builds(Message, st.just(Role.ASSISTANT), st.lists(spoken_parts, max_size=5).map(tuple), origins),
    st.builds(Message, st.just(Role.TOOL), st.tuples(results)),
    st.builds(Message, st.just(Role.TOOL), st.tuples(results)),
    st.builds(Message, st.sampled_from(list(Role)), st.lists(any_parts, max_size=3).map(tuple)),
)
#: Any log at all.
wild_logs = st.lists(wild_messages, max_size=14)


@st.composite
def tidy_logs(draw: st.DrawFn, *, max_groups: int = 12, is_finished: bool = True) -> list[Message]:
    """A log as the loop writes it: inputs, replies, answers in the order in which the calls finished.

    Unless it `is_finished`, it may end inside a group, as after a kill.
    """
    log: list[Message] = []
    next_call = 0
    for _ in range(draw(st.integers(1, max_groups))):
        if not log or draw(st.integers(0, 3)) == 0:
            log.append(Message(Role.USER, (TextPart(draw(texts)),)))
        count = draw(st.sampled_from((0, 0, 1, 1, 2, 3)))
        asked = [ToolCallPart(f"call_{next_call + n}", "add", '{"a":1}') for n in range(count)]
        next_call += count
        log.append(Message(Role.ASSISTANT, (TextPart(draw(texts)), *asked), draw(origins)))
        answers = [tool_message(one.id, (TextPart(draw(texts)),)) for one in asked]
        log.extend(draw(st.permutations(answers)))
    if not is_finished:
        del log[draw(st.integers(1, len(log))) :]
    return log
