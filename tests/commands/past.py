"""A history that is made up, written by what writes real ones."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from pfw.model.address import parse_address
from pfw.model.flow import Direction
from pfw.model.history import Entry, FirstSeen, Noticed, Subject, Traffic
from pfw.model.observation import Kind
from pfw.model.program import Certainty
from pfw.model.verdict import Action
from pfw.record.history import History, next_id

HERE = parse_address("192.168.1.5")
SCANNER = parse_address("203.0.113.9")


def subject(**more: Any) -> Subject:
    settings: dict[str, Any] = {
        "direction": Direction.OUT, "protocol": 6, "local": HERE, "port": 443, "interface": "eth0",
        "program": "/usr/bin/curl", "uid": 1000, "user": "alice", "unit": "user.slice", "certainty": Certainty.LABEL,
        "action": Action.ALLOW, "rule": "web",
    }  # fmt: skip
    return Subject(**settings | more)


NO_OWNER = {"program": None, "uid": None, "user": None, "unit": None, "certainty": None}
DROPPED = subject(direction=Direction.IN, port=22, action=Action.BLOCK, rule=None, **NO_OWNER)
ROUTED = subject(direction=Direction.FORWARD, local=parse_address("192.168.77.2"), rule="guests", **NO_OWNER)


def entry(ago_s: float, about: Subject | None = None, **more: Any) -> Entry:
    """A connection that began so long ago."""
    start = round(time.time() - ago_s, 6)
    settings: dict[str, Any] = {
        "id": 0, "subject": about or subject(), "remote": parse_address("192.0.2.1"), "start": start,
        "end": start + 1.5, "from_port": 40000, "name": "example.net", "traffic": Traffic(1500, 12, 2_000_000, 1400),
    }  # fmt: skip
    return Entry(**settings | more)


def dropped(ago_s: float, **more: Any) -> Entry:
    settings: dict[str, Any] = {"remote": SCANNER, "end": None, "from_port": 50000, "name": None, "traffic": Traffic()}
    return entry(ago_s, DROPPED, **settings | more)


def alert(ago_s: float, **more: Any) -> Noticed:
    at = time.time() - ago_s
    settings: dict[str, Any] = {
        "time": at, "kind": Kind.PORT_SCAN, "source": SCANNER, "target": HERE, "first": at - 3, "last": at, "score": 80,
        "evidence": "24 ports in 3.0 s", "program": None, "response": "",
    }  # fmt: skip
    return Noticed(**settings | more)


class Past:
    """The history in a folder, as the daemon would write it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / "history.db"

    def write(
        self,
        entries: Iterable[Entry] = (),
        *,
        alerts: Iterable[Noticed] = (),
        first_seen: Iterable[FirstSeen] = (),
    ) -> None:
        history = History(str(self.path))
        try:
            last = 0
            for each in entries:
                last = next_id(last, each.start)
                history.write([replace(each, id=last)])
            history.note(list(alerts))
            history.first_seen(list(first_seen))
            history.commit()
        finally:
            history.close()
