"""Lists the broken variants of the kernel, each with the cell of the crash tests that finds it, and what says so."""

from __future__ import annotations

from dataclasses import dataclass

from tests.crash.mutants import MUTANTS

STORY = "tool_round"


@dataclass(frozen=True)
class Kill:
    """A process is killed at a point of a story, and another one goes on: the verdict says these words."""

    at: str
    then: str
    says: str
    time: int = 1

    def __str__(self) -> str:
        return f"SIGKILL at {self.at} #{self.time}, then {self.then}"


@dataclass(frozen=True)
class HalfDone:
    """A process is killed before a COMMIT: what it leaves is not what was there before the transaction."""

    at: str
    says: str = "half of a transaction is there"

    def __str__(self) -> str:
        return f"SIGKILL at {self.at}, then a look"


@dataclass(frozen=True)
class Zombie:
    """A process is stopped in its model call and another one takes over: what the first is told, let go on, is told."""

    says: str = "a stopped process is told that it completed"

    def __str__(self) -> str:
        return "SIGSTOP at model.asked, take-over, SIGCONT"


@dataclass(frozen=True)
class LateBeat:
    """A process is stopped in its model call and another one takes over: the first, let go on, renews its lease."""

    says: str = "a stopped process renews a lease that it lost"

    def __str__(self) -> str:
        return "SIGSTOP at model.asked, take-over, SIGCONT, renewal"


@dataclass(frozen=True)
class Busy:
    """A process is stopped while it holds its lease: another one has to be told that the session is busy."""

    says: str = "a living owner's session is taken"

    def __str__(self) -> str:
        return "SIGSTOP at model.asked, then another send"


@dataclass(frozen=True)
class Lie:
    """A process is killed before a COMMIT while many wait for it: nobody has been told that it came."""

    says: str = "a caller was told of what is not there"

    def __str__(self) -> str:
        return "SIGKILL at commit.before append_reply of a crowd"


@dataclass(frozen=True)
class Alone:
    """One client cancels a turn and says more to the next one while that runs: the history breaks this check."""

    says: str

    def __str__(self) -> str:
        return "one client: a turn that is cancelled, then one that is told more"


@dataclass(frozen=True)
class Race:
    """Processes race: the history of a session breaks this check, however they meet."""

    says: str

    def __str__(self) -> str:
        return "race without deaths"


@dataclass(frozen=True)
class LostCommit:
    """A server's connection is cut while the COMMIT of a send's input or answer passes: the history breaks a check."""

    says: str
    of: str
    is_executed: bool

    def __str__(self) -> str:
        return f"connection cut {'behind' if self.is_executed else 'before'} the COMMIT of the {self.of}"


@dataclass(frozen=True)
class ClockJump:
    """The clock of a process jumps ahead by an hour while another one holds a lease on a server."""

    says: str = "a living owner's session is taken"

    def __str__(self) -> str:
        return "clock + 1 h, then another send"


@dataclass(frozen=True)
class Conformance:
    """A case of the published suite fails."""

    room: str
    says: str

    def __str__(self) -> str:
        return f"conformance: {self.room}"


@dataclass(frozen=True)
class MatrixRow:
    """A row of the crash matrix: the verdict on the whole tree of sessions says these words."""

    row: str
    says: str

    def __str__(self) -> str:
        return self.row


@dataclass(frozen=True)
class Equivalent:
    """Nothing can tell it from the kernel, for a reason."""

    says: str

    def __str__(self) -> str:
        return "none: equivalent"


Cell = (
    Kill
    | HalfDone
    | Zombie
    | LateBeat
    | Busy
    | Lie
    | Alone
    | Race
    | LostCommit
    | ClockJump
    | Conformance
    | MatrixRow
    | Equivalent
)

#: By variant: the quickest cell that finds it.
CAUGHT: dict[str, Cell] = {
    "no_transaction": HalfDone("commit.before append_reply"),
    "usage_apart": Kill("commit.after append_reply", "carry_out", "the model calls are"),
    "keeps_lease": Kill("commit.after accept", "carry_out", "the lease is held by nobody who lives"),
    "no_fence": Zombie(),
    "starts_unseen": Kill("effect.after charge:a", "carry_out", "charge:a had its effect 2 times"),
    "forgets_death": Kill("effect.after charge:a", "carry_out", "charge:a had its effect 2 times"),
    "forgets_some_deaths": Kill("effect.after save:b", "send_other", "save:b is 'aborted'"),
    "own_keys": Kill("effect.after save:b", "carry_out", "save:b ran under the keys"),
    "runs_once_calls_again": Kill("effect.after charge:a", "carry_out", "charge:a had its effect 2 times"),
    "keys_by_attempt": Kill("effect.after save:b", "carry_out", "save:b ran under the keys"),
    "leaves_calls_open": Kill("commit.after advance_calls", "carry_out", "has to be"),
    "sends_over_open_calls": Kill("effect.after charge:a", "send_other", "has to be"),
    "interrupts_nothing": Kill("commit.after accept", "send_other", "the send stands at 'running'"),
    "restarts_what_ended": Conformance("sends", "take_up_lets_a_resumable_send_run_on_and_leaves_an_ended_one[2]"),
    "forgets_requests": Kill("commit.after accept", "send_again", "the send stands at 'running'"),
    "same_epoch": Race("fence"),
    "renews_blindly": LateBeat(),
    "place_unchecked": Equivalent(
        "a write under a lease has its epoch, which one turn has at a time, and the log's key refuses a number twice"
    ),
    "dead_seem_alive": Kill("effect.after charge:a", "carry_out", "has to be"),
    "living_seem_dead": Busy(),
    "tells_before_commit": Lie(),
    "inbox_twice": Alone("refused"),
    "inbox_apart": MatrixRow("follow_up/commit.after:take_inputs#1/sigkill/resume", "has to be"),
    "inbox_backwards": Alone("order"),
    "holds_nothing": MatrixRow("sub_agent/commit.before:append_reply#2/sigkill/resume", "no budget paid for one that"),
    "settles_twice": MatrixRow("sub_agent/commit.after:accept#1/sigkill/resume", "is paid for with"),
    "keeps_holds_of_the_dead": MatrixRow(
        "sub_agent/commit.before:append_reply#2/sigkill/resume", "is held of its budget"
    ),
    "makes_agents_anew": MatrixRow(
        "sub_agent/commit.after:accept#2/sigkill/resume", "2 sessions below it were made for one call"
    ),
    "fires_twice": MatrixRow("timer/commit.after:deliver_timer#1/sigkill/resume", "has to be"),
    "loses_firings": MatrixRow("timer/commit.after:deliver_timer#1/sigkill/again", "has to be"),
    "steps_apart": MatrixRow("workflow/commit.after:end_run#2/sigkill/resume", "steps are left"),
    "runs_finished_steps_again": MatrixRow(
        "workflow/commit.after:advance_run#2/sigkill/again", "had settled as .*, and became"
    ),
    "cancels_the_next": Alone("caused"),
    "retries_blindly": LostCommit("refused", "input", is_executed=True),
    "believes_blindly": LostCommit("acknowledged", "answer", is_executed=False),
    "process_clock": ClockJump(),
    "reads_in_pieces": Conformance("reads", "a_view_never_shows_half_a_move"),
}


def rows() -> list[tuple[str, str, str, str]]:
    """Return a row a variant for the table of the crash matrix: its name, what it breaks, where that is seen, by
    what."""
    return [
        (name, (MUTANTS[name].__doc__ or "").strip().rstrip("."), str(cell), cell.says) for name, cell in CAUGHT.items()
    ]
