"""Searches text for a pattern in bounded time, whatever the pattern and whatever the text.

Why not `re`: a pattern and the text it meets can both come from strangers (a tool server, a model). `re` backtracks, so
`(a+)+$` or `(a|a)*$` takes exponential time, a running match cannot be interrupted, and refusing every nested
quantifier would refuse `^[a-z0-9]+(-[a-z0-9]+)*$` and other harmless everyday patterns. This matcher never backtracks:
it follows every way the pattern could still match at once, one character at a time (Antimirov's partial derivatives),
and remembers the set of ways that a character leads to, so that a warm search costs one dictionary lookup a character.
New sets are paid for out of the caller's `StepBudget`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from power_loop.contracts.json_schema.pattern_nodes import (
    WORD_CHARS,
    Category,
    CharSet,
    Choice,
    Look,
    Node,
    Place,
    Repeat,
    Sequence,
)
from power_loop.contracts.json_schema.pattern_syntax import read_pattern

# A pattern's memory is dropped when it holds this many transitions and ways: a few MB for a pattern that meets hostile
# text.
MAX_REMEMBERED = 20_000


class OutOfSteps(Exception):  # noqa: N818 - a signal
    """Ends work on hostile input when its `StepBudget` is used up; whoever gave the budget turns it into an answer."""


class StepBudget:
    """Counts down the steps (each well under a microsecond) that a piece of work may still take."""

    __slots__ = ("steps",)

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def spend(self, steps: int) -> None:
        """Takes `steps` out of the budget; raises `OutOfSteps` when it is used up."""
        self.steps -= steps
        if self.steps < 0:
            raise OutOfSteps


class Pattern:
    """A pattern that is ready to be searched for; safe to share between threads."""

    __slots__ = ("_anchored", "_first", "_remembered", "_sets", "_start", "source")

    def __init__(self, source: str) -> None:
        """Reads `source`; raises `PatternError` if it is malformed or outside the dialect."""
        self.source = source
        self._start = read_pattern(source)
        self._anchored = _begins_at_start(self._start)
        self._forget()

    def search(self, text: str, budget: StepBudget) -> bool:
        """Tells whether the pattern matches anywhere in `text`; raises `OutOfSteps` if the budget does not suffice."""
        budget.spend(1 + (len(text) >> 3))
        ways = self._first
        for char in text:
            following = ways.get(char)
            if following is None:
                following = self._step(ways, char, budget)
            if following.verdict is not None:
                return following.verdict
            ways = following
        if ways.at_end is None:
            ways.at_end = _accepts(ways, budget)
        return ways.at_end

    def _forget(self) -> None:
        # Searches under way keep the sets they hold and simply stop sharing them, so no lock is needed.
        self._remembered = 0
        self._sets: dict[tuple[_Side, frozenset[_Way]], _Ways] = {}
        self._first = _Ways(_Side.EDGE, frozenset(((_NO_CLAIMS, self._start),)), verdict=None)

    def _step(self, ways: _Ways, char: str, budget: StepBudget) -> _Ways:
        """Works out, pays for and remembers where `char` leads from a set of ways."""
        after = _Side.WORD if char in WORD_CHARS else _Side.OTHER
        spot = _Spot(ways.before, after, char, budget)
        found: set[_Way] = set()
        matched = False
        for way in ways.members:
            if _follow(way, spot, found):
                matched = True
                break
        if self._remembered >= MAX_REMEMBERED:
            self._forget()
        following = _MATCHED if matched else self._shared(after, found)
        self._remembered += 1
        ways[char] = following
        return following

    def _shared(self, before: _Side, found: set[_Way]) -> _Ways:
        """Returns the one set of these ways that all transitions share."""
        if not self._anchored:
            found.add((_NO_CLAIMS, self._start))
        members = frozenset(found)
        if not members:
            return _FAILED
        known = self._sets.get((before, members))
        if known is None:
            known = self._sets[before, members] = _Ways(before, members, verdict=None)
            self._remembered += len(members)
        return known


class _Side(Enum):
    """What stands beside a position: the edge of the text, a word character, or another one."""

    EDGE = "edge"
    WORD = "word"
    OTHER = "other"


class _Ways(dict[str, "_Ways"]):
    """A set of ways to go on matching; as a dictionary it remembers the set that each character leads to."""

    __slots__ = ("at_end", "before", "members", "verdict")

    def __init__(self, before: _Side, members: frozenset[_Way], *, verdict: bool | None) -> None:
        super().__init__()
        self.before = before
        self.members = members
        self.verdict = verdict
        self.at_end: bool | None = None

    # An empty dictionary is false, but a set of ways that has not met a character yet is still a set of ways.
    def __bool__(self) -> bool:
        return True


class _Spot:
    """A position in the text: what stands before it, what stands after it, and who pays."""

    __slots__ = ("after", "before", "budget", "char")

    def __init__(self, before: _Side, after: _Side, char: str, budget: StepBudget) -> None:
        self.before = before
        self.after = after
        self.char = char
        self.budget = budget

    def is_at(self, place: Place) -> bool:
        if place is Place.START:
            return self.before is _Side.EDGE
        if place is Place.END:
            return self.after is _Side.EDGE
        boundary = (self.before is _Side.WORD) is not (self.after is _Side.WORD)
        return boundary is (place is Place.BOUNDARY)


class _Claim(NamedTuple):
    """A look-ahead under way: one of the sequences must match from here (or, negative, none may)."""

    negative: bool
    sequences: frozenset[Sequence]


_Claims = frozenset[_Claim]
# A way to go on: the claims that the rest of the text must meet, and what is left to match; None means matched, if the
# claims hold.
_Way = tuple[_Claims, Sequence | None]

_NO_CLAIMS: _Claims = frozenset()
_NO_CLAIMS_ONLY = frozenset((_NO_CLAIMS,))
_MATCHED = _Ways(_Side.EDGE, frozenset(), verdict=True)
_FAILED = _Ways(_Side.EDGE, frozenset(), verdict=False)


def _begins_at_start(sequence: Sequence) -> bool:
    """Tells whether a sequence can match at the start of the text only, so that no later position needs trying."""
    if not sequence:
        return False
    first = sequence[0]
    if isinstance(first, Choice):
        return all(_begins_at_start(alternative) for alternative in first.alternatives)
    return first is Place.START


def _follow(way: _Way, spot: _Spot, found: set[_Way]) -> bool:
    """Adds the ways that a character opens to `found`; returns True when the pattern has matched before it."""
    claims, sequence = way
    if sequence is None:
        kept = _kept_claims(claims, spot)
        if kept is not None:
            found.add((kept, None))
        return kept == _NO_CLAIMS
    for added in _empty_matches(sequence, spot):
        kept = _kept_claims(claims | added, spot)
        if kept is not None:
            if not kept:
                return True
            found.add((kept, None))
    for added, rest in _matches(sequence, spot):
        kept = _kept_claims(claims | added, spot)
        if kept is not None:
            found.add((kept, rest))
    spot.budget.spend(1 + len(sequence))
    return False


def _kept_claims(claims: _Claims, spot: _Spot) -> _Claims | None:
    """Moves claims over a character: those it settles go, and None means that one of them has failed."""
    if not claims:
        return claims
    kept = set()
    for claim in claims:
        spot.budget.spend(4 * len(claim.sequences))
        if any(_empty_matches(sequence, spot) for sequence in claim.sequences):
            if claim.negative:
                return None
            continue
        following = frozenset(rest for sequence in claim.sequences for _, rest in _matches(sequence, spot))
        if following:
            kept.add(_Claim(claim.negative, following))
        elif not claim.negative:
            return None
    return frozenset(kept)


def _accepts(ways: _Ways, budget: StepBudget) -> bool:
    """Tells whether one of the ways has matched when the text ends here."""
    spot = _Spot(ways.before, _Side.EDGE, "", budget)
    for claims, sequence in ways.members:
        for added in _NO_CLAIMS_ONLY if sequence is None else _empty_matches(sequence, spot):
            if all(
                claim.negative is not any(_empty_matches(rest, spot) for rest in claim.sequences)
                for claim in claims | added
            ):
                return True
    return False


def _matches(sequence: Sequence, spot: _Spot) -> Iterator[tuple[_Claims, Sequence]]:
    """Yields each way to consume the character at `spot`: the claims made on the way, and what is left to match."""
    claims = _NO_CLAIMS_ONLY
    for index, node in enumerate(sequence):
        spot.budget.spend(1)
        if isinstance(node, (CharSet, Category)):
            if node.has(spot.char):
                for made in claims:
                    yield made, sequence[index + 1 :]
            return
        if isinstance(node, (Choice, Repeat)):
            rest = sequence[index + 1 :]
            for made, opened in _inner_matches(node, spot):
                spot.budget.spend(len(claims))
                for earlier in claims:
                    yield earlier | made, opened + rest
        claims = _with_claims(claims, _empty_node(node, spot), spot)
        if not claims:
            return


def _inner_matches(node: Choice | Repeat, spot: _Spot) -> Iterator[tuple[_Claims, Sequence]]:
    if isinstance(node, Choice):
        for alternative in node.alternatives:
            yield from _matches(alternative, spot)
        return
    # Rounds that match nothing may come first, as many as are needed; then no further round is needed after this one.
    empty = _empty_matches(node.body, spot) if node.least > 0 else frozenset()
    least = 0 if _NO_CLAIMS in empty else node.least
    for made, opened in _matches(node.body, spot):
        spot.budget.spend(1 + len(empty))
        yield made, opened + node.after_one(least)
        if least > 0:
            for earlier in empty:
                yield earlier | made, opened + node.after_one(0)


def _empty_matches(sequence: Sequence, spot: _Spot) -> frozenset[_Claims]:
    """The sets of claims under which a sequence matches nothing at `spot`; empty when it must consume something."""
    claims = _NO_CLAIMS_ONLY
    for node in sequence:
        claims = _with_claims(claims, _empty_node(node, spot), spot)
        if not claims:
            break
    return claims


def _empty_node(node: Node, spot: _Spot) -> frozenset[_Claims]:
    spot.budget.spend(1)
    if isinstance(node, Place):
        return _NO_CLAIMS_ONLY if spot.is_at(node) else frozenset()
    if isinstance(node, Look):
        return frozenset((frozenset((_Claim(node.negative, node.sequences),)),))
    if isinstance(node, Choice):
        return frozenset(claims for alternative in node.alternatives for claims in _empty_matches(alternative, spot))
    if isinstance(node, Repeat):
        return _NO_CLAIMS_ONLY if node.least == 0 else _empty_matches(node.body, spot)
    return frozenset()


def _with_claims(claims: frozenset[_Claims], added: frozenset[_Claims], spot: _Spot) -> frozenset[_Claims]:
    if added is _NO_CLAIMS_ONLY or not claims:
        return claims
    spot.budget.spend(len(claims) * len(added))
    return frozenset(earlier | later for earlier in claims for later in added)
