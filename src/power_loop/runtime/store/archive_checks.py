"""Looks whether what an archive holds is a session that this store could have written itself."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from power_loop.contracts.blackboard import MAX_ENTRIES, MAX_VALUE_BYTES, is_entry_key
from power_loop.contracts.budgets import MAX_NANOS
from power_loop.contracts.errors import InputError, StoreCorruptError
from power_loop.contracts.messages import AudioPart, FilePart, ImagePart, Message, Role, TextPart
from power_loop.contracts.numbers import is_whole
from power_loop.contracts.session_ids import is_session_id
from power_loop.contracts.states import OPEN_CALLS, CallState, Effect, SendStatus, SessionState, WaitKind
from power_loop.runtime.store.archive_format import (
    BLOB,
    BOARD,
    BUDGET,
    DETAILS,
    ENTRY,
    FOLD,
    INPUT,
    MESSAGE,
    MODEL_CALL,
    PROJECTED,
    SEND,
    SESSION,
    TOOL_CALL,
    TOOL_RESULT,
    Archive,
    Kept,
    Values,
    refuse,
    strict_json,
)
from power_loop.runtime.store.blobs import referred
from power_loop.runtime.store.codec import (
    MIN_BLOB_CHARS,
    decode_content,
    decode_message,
    digest_of,
    encode_content,
    encode_message,
    encode_value,
)
from power_loop.runtime.store.commits import checked_request_id
from power_loop.runtime.store.folds import MAX_PINNED, pinned_seqs
from power_loop.runtime.store.sends import UNFINISHED_SENDS
from power_loop.runtime.store.tool_calls import is_pruned, pruned_body
from power_loop.runtime.store.usage import decode_segments, encode_segments

# As the store cuts them, so that sums of them stay within 64 bits.
_MAX_TOKENS = 10**12
# Attempts, rounds, milliseconds of a call and the like, far beyond what can have happened.
_MAX_COUNT = 10**15
_UNFINISHED = frozenset(status.value for status in UNFINISHED_SENDS)
_OPEN = frozenset(state.value for state in OPEN_CALLS)
_TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
_CONTENT = (TextPart, ImagePart, FilePart, AudioPart)
# What can be wrong with a body: damage, and text that is not what the codec writes.
_DAMAGE = (StoreCorruptError, InputError)


def check_archive(archive: Archive) -> None:
    """Raise `archive.invalid` for the first thing in an archive that does not fit together."""
    _Check(archive).run()


class _Check:
    """Goes through an archive once, from its head to its ends; what later rows point at is known by then."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._session = archive.rows[SESSION.word][0]
        self._last_seq = self._session["next_seq"] - 1
        # Of those that were pruned there is none.
        self._messages: dict[int, Message] = {}
        self._seen_seq = 0
        self._pruned_to = max(
            [row["to_seq"] for row in archive.rows[FOLD.word] if row["pruned_at_ms"] is not None], default=0
        )
        self._blobs = {row["digest"]: row["data"] for row in archive.rows[BLOB.word]}
        self._shown: set[str] = set()
        self._first_seqs = [row["first_seq"] for row in archive.rows[SEND.word]]
        self._open_from = 0
        self._calls: dict[tuple[int, int], Values] = {}

    def run(self) -> None:
        """Look at everything."""
        self._check_head()
        self._each(BLOB, self._check_blob)
        self._each(MESSAGE, self._check_message)
        if self._seen_seq != self._last_seq:
            refuse(self._line(SESSION, 0), f"next_seq is {self._last_seq + 1}, and the log ends with {self._seen_seq}")
        self._check_sends()
        self._each(MODEL_CALL, self._check_model_call)
        self._check_tool_calls()
        self._each(TOOL_RESULT, self._check_tool_result)
        self._check_inputs()
        self._check_folds()
        self._check_projected()
        self._check_board()
        self._check_budgets()
        unshown = self._blobs.keys() - self._shown
        if unshown:
            refuse(self._line(BLOB, 0), f"nothing shows the data {min(unshown)!r}")

    # ---- head ----

    def _check_head(self) -> None:
        session, line = self._session, self._line(SESSION, 0)
        _choice(SessionState, session["state"], line, "state")
        if self._last_seq < 0:
            refuse(line, "next_seq is 0, and the first message has 1")
        for name in ("created_at_ms", "updated_at_ms", "version", "next_seq", "send_count", "inbox_count"):
            _bounded(session[name], line, name)
        if session["inbox_taken"] > session["inbox_count"]:
            refuse(line, "more inputs left the inbox than came")
        [details] = self._archive.rows[DETAILS.word]
        for name in ("metadata", "tool_state"):
            _object(details[name], self._line(DETAILS, 0), name)

    # ---- log ----

    def _check_message(self, row: Values, line: int) -> None:
        seq: int = row["seq"]
        if seq <= self._seen_seq or (seq > self._seen_seq + 1 and seq - 1 > self._pruned_to):
            refuse(line, f"seq is {seq}, where {self._seen_seq + 1} belongs")
        self._seen_seq = seq
        _bounded(row["round"], line, "round")
        _bounded(row["created_at_ms"], line, "created_at_ms")
        if not 1 <= row["send_index"] <= self._session["send_count"]:
            refuse(line, f"send_index {row['send_index']} is none of the {self._session['send_count']} sends")
        _choice(Role, row["role"], line, "role")
        message = self._message(row["role"], row["body"], line, "the message")
        if (message.role is Role.TOOL) != (message.tool_result is not None):
            refuse(line, "a tool message has a result, and no other has one")
        self._messages[seq] = message
        if row["send_index"] != self._send_of(seq):
            refuse(line, f"send_index is {row['send_index']}, and message {seq} is of send {self._send_of(seq)}")

    def _send_of(self, seq: int) -> int:
        """Return the send to which a seq belongs, by where sends begin."""
        return bisect_right(self._first_seqs, seq)

    def _message(self, role: str, body: str, line: int, what: str) -> Message:
        """Return the message behind a body that the store could have written, here or before it knew of blobs."""
        self._check_references(body, line)
        try:
            message = decode_message(role, body, what, self._blobs)
            is_ours = encode_message(message, {}) == body or encode_message(message) == body
        except _DAMAGE as error:
            refuse(line, f"{error.message}"[:300])
        if not is_ours:
            refuse(line, "the body is not written as power-loop writes it")
        return message

    def _check_references(self, body: str, line: int) -> None:
        shown = referred((body,))
        if not shown <= self._blobs.keys():
            refuse(line, f"it shows data {min(shown - self._blobs.keys())!r}, which is not in the archive")
        self._shown |= shown

    def _check_blob(self, row: Values, line: int) -> None:
        _rising(self._archive.rows[BLOB.word], row, line, ("digest",), self._line(BLOB, 0))
        _bounded(row["created_at_ms"], line, "created_at_ms")
        data = row["data"]
        if len(data) < MIN_BLOB_CHARS or not data.isascii() or digest_of(data) != row["digest"]:
            refuse(line, f"the data is not that of digest {row['digest']!r:.80}")

    def _check_sends(self) -> None:
        sends = self._archive.rows[SEND.word]
        if len(sends) != self._session["send_count"]:
            refuse(self._line(SESSION, 0), f"send_count is {self._session['send_count']}, and there are {len(sends)}")
        request_ids: set[str] = set()
        first_seq = 0
        for place, row in enumerate(sends):
            line = self._line(SEND, place)
            if row["idx"] != place + 1:
                refuse(line, f"idx is {row['idx']}, where {place + 1} belongs")
            if not first_seq < row["first_seq"] <= self._last_seq or (place == 0 and row["first_seq"] != 1):
                refuse(line, f"first_seq is {row['first_seq']}, and the send before it begins at {first_seq}")
            first_seq = row["first_seq"]
            first = self._messages.get(first_seq)
            if first is None and first_seq > self._pruned_to:
                refuse(line, f"it begins with message {first_seq}, which is not there")
            if first is not None and first.role is not Role.USER:
                refuse(line, f"it begins with message {first_seq}, which is no user message")
            self._check_send(row, line, is_last=place == len(sends) - 1)
            _fresh_request_id(row["request_id"], request_ids, line)
        self._open_from = first_seq

    def _check_send(self, row: Values, line: int, *, is_last: bool) -> None:
        status = _choice(SendStatus, row["status"], line, "status")
        if status is SendStatus.NO_SEND:
            refuse(line, f"status {status.value!r} is never stored")
        if row["status"] in _UNFINISHED and not is_last:
            refuse(line, f"it is {row['status']!r}, and another send came after it")
        for name in ("attempts", "started_at_ms", "ended_at_ms"):
            _bounded(row[name], line, name)
        _keep_own_options(row, line)
        if row["result"] is not None:
            _object(row["result"], line, "result")

    # ---- calls ----

    def _check_model_call(self, row: Values, line: int) -> None:
        self._check_reply(row, line)
        _rising(self._archive.rows[MODEL_CALL.word], row, line, ("reply_seq",), self._line(MODEL_CALL, 0))
        for name in ("round", "attempts", "duration_ms", "created_at_ms"):
            _bounded(row[name], line, name)
        _check_tokens(row, line)
        _check_cost(row["cost_nanos"], line)
        _bounded(row["estimated_tokens"], line, "estimated_tokens")
        if row["segments"] is not None:
            strict_json(row["segments"], line, "segments")
        try:
            is_ours = encode_segments(decode_segments(row["segments"], "the model call")) == row["segments"]
        except StoreCorruptError as error:
            refuse(line, error.message[:300])
        if not is_ours:
            refuse(line, "segments are not written as power-loop writes them")

    def _check_tool_calls(self) -> None:
        call_ids: set[str] = set()
        answered: set[int] = set()
        for place, row in enumerate(self._archive.rows[TOOL_CALL.word]):
            line = self._line(TOOL_CALL, place)
            reply = self._check_reply(row, line)
            _rising(self._archive.rows[TOOL_CALL.word], row, line, ("reply_seq", "idx"), self._line(TOOL_CALL, 0))
            if reply is not None and row["call_id"] not in {call.id for call in reply.tool_calls}:
                refuse(line, f"message {row['reply_seq']} asks for no call {row['call_id']!r:.80}")
            if row["call_id"] in call_ids:
                refuse(line, f"call {row['call_id']!r:.80} stands there twice")
            call_ids.add(row["call_id"])
            self._check_tool_call(row, line)
            self._check_answer(row, line, answered)
            self._calls[row["reply_seq"], row["idx"]] = row
        for place, (seq, message) in enumerate(self._messages.items()):
            if message.role is Role.TOOL and seq not in answered:
                refuse(self._line(MESSAGE, place), "it is the result of no call")

    def _check_tool_call(self, row: Values, line: int) -> None:
        state = _choice(CallState, row["state"], line, "state")
        _choice(Effect, row["effect"], line, "effect")
        if row["wait_kind"] is not None:
            _choice(WaitKind, row["wait_kind"], line, "wait_kind")
        if row["wait_data"] is not None:
            _object(row["wait_data"], line, "wait_data")
        for name in ("idx", "attempt", "started_at_ms", "ended_at_ms"):
            _bounded(row[name], line, name)
        for name in (name for name in row if name.startswith("is_")):
            _flag(row[name], line, name)
        if state in OPEN_CALLS:
            if row["is_approved"]:
                refuse(line, "it is approved and has not run: an approval is given to the store that asked for it")
            if row["reply_seq"] < self._open_from:
                refuse(line, f"it is {row['state']!r}, and another send came after it")
            if row["result_seq"] is not None:
                refuse(line, f"it is {row['state']!r} and has a result")

    def _check_answer(self, row: Values, line: int, answered: set[int]) -> None:
        seq = row["result_seq"]
        if seq is None:
            return
        if not row["reply_seq"] < seq <= self._last_seq or seq in answered:
            refuse(line, f"result_seq is {seq}, where no answer to it can be")
        message = self._messages.get(seq)
        result = None if message is None else message.tool_result
        if (message is not None or seq > self._pruned_to) and (result is None or result.call_id != row["call_id"]):
            refuse(line, f"message {seq} is no answer to call {row['call_id']!r:.80}")
        answered.add(seq)

    def _check_tool_result(self, row: Values, line: int) -> None:
        _rising(self._archive.rows[TOOL_RESULT.word], row, line, ("reply_seq", "idx"), self._line(TOOL_RESULT, 0))
        call = self._calls.get((row["reply_seq"], row["idx"]))
        if call is None or call["state"] in _OPEN:
            refuse(line, "it is the whole result of no call that has one")
        if is_pruned(row["body"]):
            mark = _object(row["body"], line, "the body")
            values = [mark.get("size_bytes"), mark.get("pruned_at_ms")]
            if not all(is_whole(value, most=_MAX_COUNT) for value in values):
                refuse(line, "the body is neither a result nor the mark of one that was pruned")
            is_ours = pruned_body(mark["size_bytes"], mark["pruned_at_ms"]) == row["body"]
        else:
            self._check_references(row["body"], line)
            try:
                content = decode_content(row["body"], "the result", self._blobs)
                is_ours = row["body"] in (encode_content(content, {}), encode_content(content))
            except _DAMAGE as error:
                refuse(line, f"{error.message}"[:300])
        if not is_ours:
            refuse(line, "the body is not written as power-loop writes it")

    def _check_reply(self, row: Values, line: int) -> Message | None:
        """Return the reply to which a row belongs; None if that was pruned."""
        seq: int = row["reply_seq"]
        message = self._messages.get(seq)
        is_pruned_reply = message is None and 1 <= seq <= self._pruned_to
        if not is_pruned_reply and (message is None or message.role is not Role.ASSISTANT):
            refuse(line, f"reply_seq is {seq}, where no reply of a model is")
        if row["send_index"] != self._send_of(seq):
            refuse(line, f"send_index is {row['send_index']}, and that of message {seq} is {self._send_of(seq)}")
        return message

    # ---- folds and the projection ----

    def _check_folds(self) -> None:
        from_seq = last_seq = 1
        for place, row in enumerate(self._archive.rows[FOLD.word]):
            line = self._line(FOLD, place)
            if row["from_seq"] != from_seq:
                refuse(line, f"from_seq is {row['from_seq']}, where {from_seq} belongs")
            if not from_seq <= row["to_seq"] <= row["last_seq"] <= self._last_seq or row["last_seq"] < last_seq:
                refuse(line, f"it covers up to {row['to_seq']} of a log that ended with {row['last_seq']}")
            if row["pruned_at_ms"] is not None and row["to_seq"] == self._last_seq:
                refuse(line, "it was pruned, and covers the end of the log")
            from_seq, last_seq = row["to_seq"] + 1, row["last_seq"]
            self._check_fold(row, line)

    def _check_fold(self, row: Values, line: int) -> None:
        if not 1 <= row["send_index"] <= self._session["send_count"]:
            refuse(line, f"send_index {row['send_index']} is none of the {self._session['send_count']} sends")
        counts = ("round", "model_calls", "tokens_before", "tokens_after", "refused_tokens", "created_at_ms")
        for name in (*counts, "pruned_at_ms"):
            _bounded(row[name], line, name)
        _check_tokens(row, line)
        _check_cost(row["cost_nanos"], line)
        _object(row["pinned"], line, "pinned")
        try:
            pinned = pinned_seqs(row["pinned"], "the fold")
        except StoreCorruptError as error:
            refuse(line, error.message[:300])
        if len(pinned) > MAX_PINNED or list(pinned) != sorted(set(pinned)):
            refuse(line, f"it pins {len(pinned)} messages, which do not rise or are more than {MAX_PINNED}")
        for seq in pinned if row["text_seq"] is None else (*pinned, row["text_seq"]):
            if not 1 <= seq <= row["to_seq"] or (row["pruned_at_ms"] is not None and seq not in self._messages):
                refuse(line, f"it pins message {seq}, which it does not cover or which is not there")

    def _check_projected(self) -> None:
        seen_seq = 0
        for place, row in enumerate(self._archive.rows[PROJECTED.word]):
            line = self._line(PROJECTED, place)
            if not seen_seq < row["seq"] <= row["to_seq"] <= self._last_seq:
                refuse(line, f"it stands for messages {row['seq']} to {row['to_seq']}, behind {seen_seq}")
            seen_seq = row["to_seq"]
            _bounded(row["created_at_ms"], line, "created_at_ms")
            _choice(Role, row["role"], line, "role")
            message = self._message(row["role"], row["body"], line, "the projection")
            if not all(isinstance(part, _CONTENT) for part in message.parts):
                refuse(line, "it holds parts that a projection never does")

    # ---- the blackboard ----

    def _check_board(self) -> None:
        boards, entries = self._archive.rows[BOARD.word], self._archive.rows[ENTRY.word]
        if len(boards) > 1 or len(entries) > MAX_ENTRIES:
            refuse(self._line(BOARD, 0), f"it has {len(boards)} blackboards with {len(entries)} entries")
        last_version = boards[0]["version"] if boards else 0
        _bounded(last_version, self._line(BOARD, 0), "version")
        versions: set[int] = set()
        key = ""
        for place, row in enumerate(entries):
            line = self._line(ENTRY, place)
            if not is_entry_key(row["entry_key"]) or row["entry_key"] <= key:
                refuse(line, f"entry_key {row['entry_key']!r:.80} is none, or does not stand in order")
            key = row["entry_key"]
            if not 1 <= row["version"] <= last_version or row["version"] in versions:
                refuse(line, f"version is {row['version']}, on a board whose last is {last_version}")
            versions.add(row["version"])
            if row["author_session_id"] is not None and not is_session_id(row["author_session_id"]):
                refuse(line, f"{row['author_session_id']!r:.80} can be the id of no session")
            for name in ("created_at_ms", "updated_at_ms"):
                _bounded(row[name], line, name)
            if len(row["value"].encode()) > MAX_VALUE_BYTES:
                refuse(line, f"the value has more than {MAX_VALUE_BYTES} bytes")
            _json(row["value"], line, "value")

    # ---- budgets ----

    def _check_budgets(self) -> None:
        last = 0
        for place, row in enumerate(self._archive.rows[BUDGET.word]):
            line = self._line(BUDGET, place)
            if not last < row["send_index"] <= self._session["send_count"]:
                refuse(line, f"send_index {row['send_index']} is none of the sends, or does not rise")
            last = row["send_index"]
            for column in BUDGET.columns:
                if "cost_nanos" in column.name:
                    _check_cost(row[column.name], line)
                else:
                    _bounded(row[column.name], line, column.name)
            if 0 in (row["max_tokens"], row["max_ms"]):
                refuse(line, "a limit of it is 0")
            for name in ("tokens", "cost_nanos"):
                if row[f"lost_{name}"] > row[f"spent_{name}"]:
                    refuse(line, f"lost_{name} is more than spent_{name}")

    # ---- inbox ----

    def _check_inputs(self) -> None:
        rows = self._archive.rows[INPUT.word]
        request_ids: set[str] = set()
        position = waiting = 0
        for place, row in enumerate(rows):
            line = self._line(INPUT, place)
            if not position < row["position"] <= self._session["inbox_count"]:
                refuse(line, f"position is {row['position']}, behind {position} of {self._session['inbox_count']}")
            position = row["position"]
            _fresh_request_id(row["request_id"], request_ids, line)
            _keep_own_options(row, line)
            for name in ("created_at_ms", "taken_at_ms", "send_index", "seq"):
                _bounded(row[name], line, name)
            waiting += row["taken_at_ms"] is None
            if (row["taken_at_ms"] is None) != (row["body"] is not None):
                refuse(line, "an input that waits has a body, and one that left has none")
            if row["body"] is not None:
                if referred((row["body"],)):
                    refuse(line, "it refers to data, which an input holds itself")
                self._message(Role.USER.value, row["body"], line, "the input")
        if waiting != self._session["inbox_count"] - self._session["inbox_taken"]:
            refuse(self._line(SESSION, 0), f"{waiting} inputs wait, and the head counts others")

    # ---- parts ----

    def _each(self, kept: Kept, check: Callable[[Values, int], None]) -> None:
        for place, row in enumerate(self._archive.rows[kept.word]):
            check(row, self._line(kept, place))

    def _line(self, kept: Kept, place: int) -> int:
        return self._archive.lines.get(kept.word, 1) + place


def _check_tokens(row: Values, line: int) -> None:
    for name in _TOKENS:
        if row[name] is not None and row[name] > _MAX_TOKENS:
            refuse(line, f"{name} is {row[name]}, more than {_MAX_TOKENS}")
    _flag(row["is_estimated"], line, "is_estimated")


def _choice(kind: type[Enum], value: str, line: int, name: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        refuse(line, f"{name} is {value!r:.80}, which is none of {[one.value for one in kind]}")


def _bounded(value: int | None, line: int, name: str) -> None:
    if value is not None and value > _MAX_COUNT:
        refuse(line, f"{name} is {value}, more than can be")


def _check_cost(nanos: int | None, line: int) -> None:
    if nanos is not None and nanos > MAX_NANOS:
        refuse(line, f"a cost is {nanos} nano-units, more than can be")


def _flag(value: int, line: int, name: str) -> None:
    if value not in (0, 1):
        refuse(line, f"{name} is {value}, where 0 or 1 belongs")


def _object(text: str, line: int, name: str) -> dict[str, Any]:
    """Return the object behind a JSON text that the store could have written."""
    value = _json(text, line, name)
    if not isinstance(value, dict):
        refuse(line, f"{name} is a {type(value).__name__}, where an object belongs")
    return value


def _keep_own_options(row: Values, line: int) -> None:
    """Leave out who pays for a send or an input: that is a budget of where it came from, or of anybody here."""
    options = _object(row["options"], line, "options")
    if options.pop("payer", None) is not None:
        row["options"] = encode_value(options, "options")


def _json(text: str, line: int, name: str) -> Any:
    """Return the value of a JSON text that the store could have written."""
    value = strict_json(text, line, name)
    try:
        is_ours = encode_value(value, name) == text
    except InputError as error:
        refuse(line, error.message[:300])
    if not is_ours:
        refuse(line, f"{name} is not written as power-loop writes it")
    return value


def _fresh_request_id(request_id: str | None, known: set[str], line: int) -> None:
    if request_id is None:
        return
    try:
        checked_request_id(request_id)
    except InputError as error:
        refuse(line, error.message)
    if request_id in known:
        refuse(line, f"request_id {request_id!r:.80} stands there twice")
    known.add(request_id)


def _rising(rows: Sequence[Values], row: Values, line: int, names: tuple[str, ...], first_line: int) -> None:
    """Refuse a row that does not stand behind the one before it."""
    place = line - first_line
    if place and tuple(rows[place - 1][name] for name in names) >= tuple(row[name] for name in names):
        refuse(line, f"{', '.join(names)} do not rise")
