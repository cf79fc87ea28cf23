"""What is done with alerts where there are too many of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pfw.daemon.noticing import ALERTS_A_MINUTE, Noticing
from pfw.daemon.state import State
from pfw.drivers.store import Store
from pfw.model.history import Noticed
from pfw.model.observation import Kind, Observation, ProgramTalks, RouterSeen

ROUTER, OTHER = bytes.fromhex("fe80") + bytes(14), bytes((192, 0, 2, 1))


class Told:
    """Keeps what is written down, and what is said."""

    def __init__(self) -> None:
        self.noted: list[Noticed] = []
        self.raised: list[str] = []

    def note(self, alerts: list[Noticed]) -> None:
        self.noted += alerts


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def one(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> Any:
    now = SimpleNamespace(now=1_000.0)
    monkeypatch.setattr("pfw.drivers.clock.now", lambda: now.now)
    chronicle: Any = SimpleNamespace(program_of=lambda *_: None)
    history: Any = told
    made = Noticing(
        State(Store(tmp_path)), chronicle, history, None, lambda _: None, lambda kind, _: told.raised.append(kind),
        lambda: 0.0,
    )  # fmt: skip
    yield SimpleNamespace(see=made.see, noticing=made, clock=now)
    made.close()


def router(number: int, time: float) -> Observation:
    return RouterSeen(time, ROUTER[:14] + number.to_bytes(2), bytes((2, 0, 0, 0)) + number.to_bytes(2), 64, 1_800)


def test_invented_sources_do_not_bury_other_alerts(one: Any, told: Told) -> None:
    """A flood of routers, as `atk6-flood_router26` makes it."""
    one.see([router(number, 1_000.0 + number / 1_000) for number in range(5_000)])
    one.see([ProgramTalks(1_006.0, "/usr/bin/x", 7, 10.0, True, OTHER, changed=1_005.0)])
    kinds = [each.kind for each in told.noted]
    assert kinds.count(Kind.ROGUE_ROUTER) == ALERTS_A_MINUTE
    assert kinds[-1] == Kind.CHANGED_PROGRAM
    assert told.raised == kinds
    assert one.noticing.untold == one.noticing.alerts - len(kinds) > 4_000
    one.clock.now += 61
    one.see([router(number, 1_061.0) for number in range(6_000, 6_010)])
    assert len(told.noted) > len(kinds)
