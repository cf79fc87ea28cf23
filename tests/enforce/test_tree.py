"""The tree of a chain against the chain itself: it leaves out only what could not have matched."""

from __future__ import annotations

import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.enforce.conditions import IPV4, IPV6, HasAddress, HasPort, IcmpType, OfProtocol, OnInterface, Step
from pfw.enforce.tree import LEAF, MOST_COPIES, Node, Question, grow, walk, wanted
from pfw.model.address import IPV4_LAST, IPV6_FIRST, IPV6_LAST
from pfw.model.packet import PORT_PROTOCOLS

POINTS = [0, 1, 10 << 24, 0xC0A80105, IPV4_LAST]
POINTS6 = [IPV6_FIRST, IPV6_FIRST + 1, IPV6_FIRST | 0xFE80 << 112, IPV6_LAST]
PORTS = [0, 1, 22, 80, 443, 65534, 65535]
WITH_PORTS, WITHOUT = (6, 17, 132), (1, 47, 58)
Values = dict[Question, int | None]


def _range(random: Random, points: list[int], last: int) -> tuple[int, int]:
    first = random.choice(points) + random.choice((0, 0, 0, random.getrandbits(10)))
    return min(first, last), min(first + random.choice((0, 0, 255, 1 << 16)), last)


def _address(random: Random, destination: bool) -> HasAddress:
    family = random.choice((IPV4, IPV6))
    points, last = (POINTS, IPV4_LAST) if family == IPV4 else (POINTS6, IPV6_LAST)
    found = sorted({_range(random, points, last) for _ in range(random.choice((1, 1, 2, 600)))})
    apart = [pair for at, pair in enumerate(found) if not at or pair[0] > max(each[1] for each in found[:at])]
    return HasAddress(family, tuple(apart), destination, sent=destination and random.random() < 0.1)


def random_step(random: Random, number: int) -> Step:
    conditions: list[object] = [OnInterface((f"if{number}",), leaving=False)]  # tells it from all others
    for destination in (False, True):
        if random.random() < 0.4:
            conditions.append(_address(random, destination))
    kind = random.random()
    if kind < 0.1:
        conditions.append(IcmpType(random.choice((1, 58)), (8, 128)))
    elif kind < 0.8:
        protocols = random.sample(WITH_PORTS, random.randrange(1, 4))
        conditions.append(OfProtocol(tuple(sorted(protocols))))
        if random.random() < 0.7:
            first = random.choice((*PORTS, random.randrange(65536)))
            last = min(65535, first + random.choice((0, 0, 9)))
            conditions.append(HasPort(((first, last),), destination=random.random() < 0.8, sent=random.random() < 0.1))
    elif kind < 0.9:
        conditions.append(OfProtocol(tuple(sorted(random.sample((*WITH_PORTS, *WITHOUT), 2)))))
    return Step(tuple(conditions), number)  # type: ignore[arg-type]


def random_values(random: Random, steps: list[Step]) -> Values:
    """A packet: its ends are of one family, and only some protocols have ports."""
    protocol = random.choice((*WITH_PORTS, *WITHOUT, 253))
    points = random.choice((POINTS, POINTS6))
    first, last = (0, IPV4_LAST) if points is POINTS else (IPV6_FIRST, IPV6_LAST)
    values: Values = {Question.PROTOCOL: protocol}
    for question in (Question.SOURCE, Question.DESTINATION, Question.PORT):
        near = [pair for step in steps[:50] for pair in wanted(question, step) or ()]
        found = random.choice((*random.choice(near), *points)) if near else random.choice(points)
        values[question] = min(last, max(first, found + random.choice((-1, 0, 0, 1))))
    ports = [port for step in steps[:50] for pair in wanted(Question.PORT, step) or () for port in pair] + PORTS
    port = min(65535, max(0, random.choice(ports) + random.choice((-1, 0, 0, 1))))
    values[Question.PORT] = port if protocol in PORT_PROTOCOLS else None
    return values


def matches(step: Step, values: Values) -> bool:
    """As far as a tree asks: what it says of interfaces, of source ports and of what was sent may hold."""
    for condition in step.conditions:
        match condition:
            case OfProtocol(numbers=numbers) if values[Question.PROTOCOL] not in numbers:
                return False
            case IcmpType(protocol=number) if values[Question.PROTOCOL] != number:
                return False
            case HasPort(ranges=ranges, destination=True, sent=False):
                port = values[Question.PORT]
                if port is None or not any(first <= port <= last for first, last in ranges):
                    return False
            case HasAddress(ranges=ranges, destination=destination, sent=False):
                value = values[Question.DESTINATION if destination else Question.SOURCE]
                if not any(first <= (value or 0) <= last for first, last in ranges):
                    return False
    return True


def held(node: Node) -> int:
    """How many steps are in a tree, each node counted once."""
    seen: dict[int, Node] = {}
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen[id(each)] = each
            waiting += [answer.node for answer in each.answers]
            waiting += [each.otherwise] if each.otherwise is not None else []
    return sum(len(each.steps) for each in seen.values())


def check(steps: list[Step], random: Random, packets: int) -> None:
    tree = grow(steps)
    assert held(tree) <= (MOST_COPIES + 1) * len(steps) + LEAF
    for _ in range(packets):
        values = random_values(random, steps)
        asked = [step.verdict for step in walk(tree, values)]
        assert asked == sorted(set(asked)), "in order, each once"
        missing = {step.verdict for step in steps if matches(step, values)} - set(asked)
        assert not missing, (values, missing)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0, 1, LEAF, LEAF + 1, 40, 120]))
def test_every_step_that_matches_is_asked_in_order(seed, count) -> None:
    random = Random(seed)
    check([random_step(random, number) for number in range(count)], random, 40)


def exact_step(number: int, random: Random) -> Step:
    """One host, one port: of such are long policies."""
    host = random.getrandbits(32)
    port = number % 60_000
    return Step(
        (OfProtocol((6,)), HasPort(((port, port),), destination=True), HasAddress(IPV4, ((host, host),), False)), number
    )


def test_a_short_chain_is_asked_as_it_is() -> None:
    steps = [exact_step(number, Random(1)) for number in range(LEAF)]
    assert grow(steps) == Node(tuple(steps))


@pytest.mark.parametrize("question", [Question.PORT, Question.SOURCE])
def test_among_ten_thousand_exact_steps_few_are_asked(question) -> None:
    random = Random(5)
    steps = [exact_step(number, random) for number in range(10_000)]
    began = time.process_time()
    tree = grow(steps)
    assert time.process_time() - began < 20, "about one second on an idle machine"
    for step in random.sample(steps, 200):
        values: Values = {Question.DESTINATION: 5}
        for each in (Question.PROTOCOL, Question.PORT, Question.SOURCE):
            found = wanted(each, step)
            assert found is not None
            values[each] = found[0][0]
        asked = walk(tree, values)
        assert step in asked
        assert len(asked) <= 2 * LEAF
    assert held(tree) <= (MOST_COPIES + 1) * len(steps) + LEAF


def test_thousands_of_steps_of_all_kinds_stay_bounded() -> None:
    random = Random(6)
    check([random_step(random, number) for number in range(3000)], random, 50)


def test_what_no_question_tells_apart_is_not_copied() -> None:
    steps = [Step((OnInterface((f"if{number}",), leaving=False),), number) for number in range(500)]
    assert grow(steps) == Node(tuple(steps))


def test_ports_tell_apart_also_what_is_of_several_protocols() -> None:
    steps = [Step((OfProtocol((6, 17)), HasPort(((port, port),), destination=True)), port) for port in range(1000)]
    tree = grow(steps)
    assert tree.question is Question.PORT
    for port in (0, 1, 500, 999):
        asked = walk(tree, {Question.PROTOCOL: 6, Question.PORT: port})
        assert steps[port] in asked
        assert len(asked) <= LEAF
    assert walk(tree, {Question.PROTOCOL: 1, Question.PORT: None}) == []


def test_no_answer_reaches_from_one_family_into_the_other() -> None:
    ends = ((IPV4_LAST - 3, IPV4_LAST), (IPV6_FIRST, IPV6_FIRST + 3))
    steps = [
        Step((HasAddress(family, ((first, last),), destination=False),), number)
        for number, (family, (first, last)) in enumerate([(IPV4, ends[0]), (IPV6, ends[1])] * 40)
    ]
    tree = grow(steps)
    for answer in tree.answers:
        assert (answer.first <= IPV4_LAST) == (answer.last <= IPV4_LAST)
