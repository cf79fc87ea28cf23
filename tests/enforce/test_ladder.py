"""The chains of classes, compared with the rules that they were made of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pfw.enforce.conditions import UNKNOWN, HasPort, OfProgram, Step, UnderLimit
from pfw.enforce.ladder import Ladder, Stretch, owner_of, pieces, without_owner
from pfw.model.rule import Limit

CLASSES = 5


def port(number: int) -> HasPort:
    return HasPort(((number, number),), destination=True)


@st.composite
def chains(draw):
    """Rules for everybody and for programs, each told by its port; some have a limit."""
    steps = []
    for number in range(draw(st.integers(0, 40))):
        conditions = [port(number)]
        if draw(st.booleans()):
            classes = draw(st.frozensets(st.integers(0, CLASSES - 1), min_size=1))
            conditions.append(OfProgram(classes))
        if draw(st.integers(0, 5)) == 0:
            conditions.append(UnderLimit(number, Limit(1, 60, 1)))
        steps.append(Step(tuple(conditions), draw(st.integers(5, 9))))
    return steps


def flat(ladder: Ladder, number: int) -> list[Step]:
    """The rules that a connection of a class meets, in order, piece by piece."""
    found = list(ladder.head)
    for part in ladder.of_class(number):
        if isinstance(part, Step):
            found.append(part)
        else:
            for piece in pieces(part):
                found.extend(ladder.steps(piece))
    return found


@given(chains())
def test_a_class_meets_its_rules_and_those_for_everybody_in_order(steps):
    ladder = Ladder(steps)
    for number in range(CLASSES):
        wanted = [without_owner(step) for step in steps if (owner := owner_of(step)) is None or number in owner.classes]
        assert flat(ladder, number) == wanted


@given(chains())
def test_who_is_unknown_is_asked_at_each_rule_for_programs(steps):
    ladder = Ladder(steps)
    met = [*ladder.head, *ladder.unknown()]
    assert len(met) == len(steps)
    for step, made in zip(steps, met, strict=True):
        if owner_of(step) is None:
            assert made == step
        else:
            assert made.verdict == UNKNOWN
            assert made.conditions == (step.conditions[0],), "neither the program nor a token is asked for"


@given(chains())
def test_who_is_no_program_meets_rules_for_everybody_alone(steps):
    ladder = Ladder(steps)
    assert [*ladder.head, *ladder.nobody()] == [step for step in steps if owner_of(step) is None]
    assert ladder.asks is any(owner_of(step) is not None for step in steps)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_pieces_are_few_and_shared(first, size):
    made = list(pieces(Stretch(first, first + size)))
    assert [each for piece in made for each in range(piece.first, piece.end)] == list(range(first, first + size))
    assert len(made) <= 2 * max(1, size.bit_length())
    for piece in made:
        width = piece.end - piece.first
        assert width & (width - 1) == 0
        assert piece.first % width == 0
