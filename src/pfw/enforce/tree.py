"""A chain as a tree: how a new connection finds its rule without being held against all of them.

A node asks one question (protocol, destination port, source or destination address) whose answers lead to shorter
chains; rules that the question says nothing about are in each of them, in their place. Every step keeps all its
conditions, so a tree can only leave out steps that could not have matched: what it means is what the chain means,
and `walk` is the twin by which tests compare the two. The idea is that of HiCuts (Gupta and McKeown, "Packet
classification using hierarchical intelligent cuttings", 1999), with cuts where the rules have their borders.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from enum import Enum
from itertools import pairwise

from msgspec import Struct

from pfw.enforce.conditions import HasAddress, HasPort, IcmpType, OfProtocol, Step
from pfw.model.address import ALL_RANGES, IPV6_FIRST

LEAF = 16
"""So many steps are asked one after the other: a question costs about as much as eight of them."""
MOST_COPIES = 3
"""A tree holds at most so many times the steps of its chain; where it would not, it asks no further."""
MANY_RANGES = 512
"""A step with a list longer than this is as good as one that wants everything: the list is a set of its own,
quick to ask, and would otherwise cut the tree into as many pieces."""

Ranges = Sequence[tuple[int, int]]


class Question(Enum):
    """What a node asks of a packet.

    The port of a packet whose protocol has none is whatever stands in its place: steps that ask for ports do not match
    it, and all others are behind every answer.
    """

    PROTOCOL = "protocol"
    PORT = "port"
    SOURCE = "source"
    DESTINATION = "destination"


class Answer(Struct, frozen=True):
    """Values from first to last, both included, lead to this node."""

    first: int
    last: int
    node: Node


class Node(Struct, frozen=True):
    """Steps to be asked in order; or a question, its answers, and what is left where none of them fits.

    `otherwise` holds only when a question is asked. `end` is the step without conditions that ends the chain.
    """

    steps: tuple[Step, ...] = ()
    question: Question | None = None
    answers: tuple[Answer, ...] = ()
    otherwise: Node | None = None


def grow(steps: Sequence[Step]) -> Node:
    """The tree of a chain, or of the part of it whose steps are rules."""
    numbered = tuple(range(len(steps)))
    return _Grower(steps).node(numbered, frozenset())


class _Grower:
    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._left = MOST_COPIES * len(steps) + LEAF
        self._wants: dict[tuple[Question, int], Ranges | None] = {}

    def node(self, members: tuple[int, ...], asked: frozenset[Question]) -> Node:
        if len(members) > LEAF:
            cuts = [cut for question in Question if question not in asked
                    if (cut := self._cut(question, members)) is not None]  # fmt: skip
            if cuts:
                return self._ask(min(cuts, key=lambda cut: cut.worst), asked)
        return Node(tuple(self._steps[member] for member in members))

    def _ask(self, cut: _Cut, asked: frozenset[Question]) -> Node:
        self._left -= cut.copies
        now = asked | {cut.question}
        made: dict[tuple[int, ...], Node] = {}
        answers = []
        for first, last, members in cut.pieces:
            if members not in made:
                made[members] = self.node(members, now)
            answers.append(Answer(first, last, made[members]))
        return Node((), cut.question, tuple(answers), self.node(cut.free, now))

    def _cut(self, question: Question, members: tuple[int, ...]) -> _Cut | None:
        """How a question would divide these steps; None where it would not be worth it."""
        wants = [(member, self._want(question, member)) for member in members]
        free = tuple(member for member, ranges in wants if ranges is None)
        most = max(LEAF, len(free) + LEAF // 2)
        if most * 2 > len(members):
            return None
        pieces = _pieces(wants, most, 2 * (self._left + len(members)), whole=question is Question.PROTOCOL)
        if not pieces:
            return None
        distinct = {piece[2] for piece in pieces}
        copies = sum(map(len, distinct)) + len(free) - len(members)
        worst = max(map(len, distinct))
        if worst * 2 > len(members) or copies > self._left:
            return None
        return _Cut(question, pieces, free, worst, max(copies, 0))

    def _want(self, question: Question, member: int) -> Ranges | None:
        key = (question, member)
        if key not in self._wants:
            found = wanted(question, self._steps[member])
            self._wants[key] = None if found is not None and len(found) > MANY_RANGES else found
        return self._wants[key]


class _Cut(Struct, frozen=True):
    question: Question
    pieces: list[tuple[int, int, tuple[int, ...]]]
    free: tuple[int, ...]
    worst: int
    copies: int


def wanted(question: Question, step: Step) -> Ranges | None:
    """The values that a step's conditions leave for a question; None where it takes any, or has none to give."""
    for condition in step.conditions:
        if isinstance(condition, HasAddress):
            asked = Question.DESTINATION if condition.destination else Question.SOURCE
            if question is asked and not condition.sent:
                return condition.ranges
        elif isinstance(condition, HasPort):
            if question is Question.PORT and condition.destination and not condition.sent:
                return condition.ranges
        elif question is Question.PROTOCOL:
            if isinstance(condition, OfProtocol):
                return [(number, number) for number in condition.numbers]
            if isinstance(condition, IcmpType):
                return [(condition.protocol, condition.protocol)]
    return None


def _pieces(
    wants: list[tuple[int, Ranges | None]], most: int, room: int, *, whole: bool
) -> list[tuple[int, int, tuple[int, ...]]]:
    """The line of values in pieces of at most `most` steps where that can be, each with its steps in order.

    `whole` keeps every value that some step names in a piece of its own. Empty where all pieces together
    would hold more than `room` steps.
    """
    free = [member for member, ranges in wants if ranges is None]
    begins, ends = _borders(wants, families=not whole)
    inside: dict[int, int] = {}
    pieces: list[tuple[int, int, set[int]]] = []
    held = 0
    for border, following in pairwise(sorted(begins.keys() | ends.keys())):
        for member in ends.get(border, ()):
            inside[member] -= 1
            if not inside[member]:
                del inside[member]
        for member in begins.get(border, ()):
            inside[member] = inside.get(member, 0) + 1
        if not inside:
            continue
        before = pieces[-1] if pieces and not whole else None
        if before is not None and before[1] + 1 == border and border != IPV6_FIRST:
            joined = before[2] | inside.keys()
            if len(free) + len(joined) <= most:
                pieces[-1] = before[0], following - 1, joined
                continue
        held += len(free) + len(inside)
        if held > room:
            return []
        pieces.append((border, following - 1, set(inside)))
    return [(first, last, tuple(sorted([*free, *members]))) for first, last, members in pieces]


def _borders(
    wants: list[tuple[int, Ranges | None]], *, families: bool
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Which steps begin, and which cease, to want what comes. With `families` no stretch between two borders
    reaches from one family of addresses into the other."""
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for member, ranges in wants:
        for first, last in ranges or ():
            begins.setdefault(first, []).append(member)
            ends.setdefault(last + 1, []).append(member)
    if families:
        for first, last in ALL_RANGES:
            begins.setdefault(first, [])
            ends.setdefault(last + 1, [])
    return begins, ends


def walk(node: Node, values: dict[Question, int | None]) -> list[Step]:
    """The steps that a packet with these values would be held against, in order: for tests."""
    while node.question is not None:
        value = values[node.question]
        at = bisect_right([answer.first for answer in node.answers], -1 if value is None else value) - 1
        fits = at >= 0 and value is not None and value <= node.answers[at].last
        following = node.answers[at].node if fits else node.otherwise
        if following is None:
            return []
        node = following
    return list(node.steps)
