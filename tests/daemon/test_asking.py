"""What is released is decided anew: a person's answer is no word against the policy."""

from __future__ import annotations

from typing import Any

import pytest

from pfw.daemon.asking import Asking
from pfw.daemon.attribution import Found
from pfw.enforce.plan import REFUSED_NAME, UNKNOWN_NAME
from pfw.engine.prompts import Prompts
from pfw.model.address import parse_address
from pfw.model.flow import Direction, Flow, make_key
from pfw.model.packet import TCP
from pfw.model.program import Certainty, Program
from pfw.model.prompt import Answer, Lasting, Prompt, Scope
from pfw.model.verdict import Action, Verdict
from pfw.wire.nfqueue import Queued

HERE, THERE = parse_address("192.0.2.1"), parse_address("198.51.100.2")
CURL = Found(program=Program(pid=7, started=70, path="/usr/bin/curl"), certainty=Certainty.LABEL, uid=1000, gid=1000)
ASKS = Verdict(Action.ASK, "who")


class World:
    """A policy that says of each port what `says` has, else that rule "who" asks; and who hears of what was done."""

    def __init__(self) -> None:
        self.says: dict[int | None, Verdict] = {}
        self.verdicts: dict[int, bool] = {}
        self.stopped: list[tuple[int | None, str | None]] = []
        self.prompts = Prompts(60.0, Action.BLOCK, True)
        self.asking = Asking(
            self, self, self, self.prompts, self, lambda _: None, lambda *_: None, self._stopped, self._failed
        )  # type: ignore[arg-type]  # fmt: skip

    def packet(self, number: int, port: int) -> Prompt:
        flow = Flow(direction=Direction.OUT, protocol=TCP, source=HERE, destination=THERE, source_port=9, port=port)
        key = make_key(TCP, HERE, THERE, port.to_bytes(2, "big") + bytes(2))
        self.asking._decide(Queued(queue=0, id=number, hook=3, hw_protocol=0x0800), key, flow, CURL)
        return next(each for each in self.prompts.prompts if each.flow.port == port)

    # -- the policy in force

    def refresh(self) -> None: ...

    def decide(self, flow: Flow, _: Any, *, is_sure: bool, again: bool = False) -> Verdict:
        assert is_sure
        return self.says.get(flow.port, ASKS)

    def described(self, flow: Flow, owner: Found) -> Flow:
        assert owner == CURL
        return flow

    def rule_of(self, _: Verdict) -> None: ...

    # -- the queue, and answers that last

    def verdict(self, number: int, accept: bool) -> None:
        assert number not in self.verdicts
        self.verdicts[number] = accept

    @property
    def answers(self) -> World:
        return self

    def find(self, *_: object) -> None: ...

    def add(self, *_: object) -> None: ...

    def _stopped(self, flow: Flow, owner: Found, rule: str | None) -> None:
        self.stopped.append((flow.port, rule))

    def _failed(self, error: Exception) -> None:
        raise error


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("verdict", "passes", "stopped"),
    [
        (ASKS, True, None),
        (Verdict(Action.ASK, "another"), True, None),
        (Verdict(Action.ALLOW, "by now"), True, None),
        (Verdict(Action.BLOCK, "by now"), False, "by now"),
        (Verdict(Action.REJECT), False, None),
        (Verdict(Action.UNKNOWN, "which?"), False, UNKNOWN_NAME),
    ],
)
def test_what_another_answer_covers_passes_only_where_the_policy_would_let_it(world, verdict, passes, stopped):
    prompt = world.packet(1, 443)
    world.packet(2, 80)
    world.says[80] = verdict
    world.asking.answer(prompt.id, Answer(True, Lasting.TIME, Scope.ANYWHERE, 60))
    assert world.verdicts == {1: True, 2: passes}
    assert world.stopped == ([] if passes else [(80, stopped)])


@pytest.mark.parametrize("verdict", [Verdict(Action.BLOCK, "night"), Verdict(Action.ALLOW), Verdict(Action.ASK, "x")])
def test_an_answer_to_what_is_not_asked_any_more_is_refused(world, verdict):
    """The time of a schedule is over, or another rule asks by now."""
    prompt = world.packet(1, 443)
    other = world.packet(2, 80)
    world.says[443] = verdict
    with pytest.raises(ValueError, match=r"^the policy does not ask about this any more$"):
        world.asking.answer(prompt.id, Answer(True, Lasting.ONCE))
    assert world.verdicts == {1: False}
    assert world.prompts.prompts == [other]


def test_withdrawn_is_what_the_policy_does_not_ask(world):
    for number, port in enumerate((1, 2, 3)):
        world.packet(number, port)
    world.says[2] = Verdict(Action.BLOCK)
    world.asking.withdraw(world.prompts.prompts)
    assert [each.flow.port for each in world.prompts.prompts] == [1, 3]
    assert (world.verdicts, world.stopped) == ({1: False}, [(2, REFUSED_NAME)])
