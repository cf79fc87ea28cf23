"""Programs of several kinds that make connections all the time, and what arrives of them at the other end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct
from tests.netns.programs_lab import WEB, Lab

CURL = "/usr/bin/curl"
PYTHON = Path("/usr/bin/python3").resolve()
DIALLER = Path(__file__).with_name("dialler.py")
KNOWN, BARRED, STRANGER, GUEST = 9001, 9002, 9003, 9004
"""Each kind of program has a port of its own, so that at the other end its packets are told from others."""
SLOW_S = 0.9
"""A connection that takes longer has waited for somebody, or its first packet was lost and sent again after 1 s."""

_COUNTING = f"""table inet counting {{
	set came {{ type inet_proto . inet_service; flags dynamic; counter; size 65535; }}
	chain raw {{ type filter hook prerouting priority raw; update @came {{ meta l4proto . th dport counter }}; }}
	chain nat {{
		type nat hook prerouting priority dstnat;
		tcp dport 9000-40000 redirect to :{WEB}
		udp dport 9000-40000 redirect to :{WEB}
	}}
}}
"""


def count_at(lab: Lab) -> None:
    """Count at the other end what comes, by protocol and port; every port from 9000 on is answered there."""
    words = lab.there.command("nft", "-f", "-")
    subprocess.run(words, input=_COUNTING, text=True, check=True, capture_output=True)


def came(lab: Lab, port: int, protocol: str | None = None) -> int:
    """How many packets have come to this port so far."""
    told = json.loads(lab.there.run("nft", "-j", "list", "set", "inet", "counting", "came").stdout)
    found = next(each["set"] for each in told["nftables"] if "set" in each)
    return sum(
        elem["elem"]["counter"]["packets"]
        for elem in found.get("elem", ())
        if elem["elem"]["val"]["concat"][1] == port and protocol in (None, elem["elem"]["val"]["concat"][0])
    )


class Attempt(Struct, frozen=True, array_like=True):
    """`trouble` is empty where it went well."""

    begin: float
    took_s: float
    trouble: str


class Running:
    """A dialler that runs; what it prints behind its end is in `told`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> Any:
        assert self.process.stdout is not None
        found = self.process.stdout.readline()
        assert found, self.process.communicate()
        return json.loads(found)

    def end(self) -> Any:
        """Tell it to end; the last that it says."""
        out, err = self.process.communicate("", timeout=20)
        assert self.process.returncode == 0, err
        return json.loads(out) if out.strip() else None

    def attempts(self) -> list[Attempt]:
        return [Attempt(*each) for each in self.end()]


def python_copy(lab: Lab, name: str) -> Path:
    """Python as another program."""
    place = lab.folder / name
    if not place.exists():
        shutil.copy2(PYTHON, place)
    return place


def dial(lab: Lab, program: Path, *words: str, mark: int = 0) -> Running:
    environment = {**os.environ, "DIALLER_MARK": str(mark)}
    return Running(lab.start(program, "-I", "-S", DIALLER, *words, stdin=subprocess.PIPE, env=environment))


class Load:
    """A program that is allowed, one that is not, new ones that are not, and new ones that are because all are.

    `policy` says so; `flowing` runs them, and behind its block their attempts are known.
    """

    def __init__(self, lab: Lab, net: Any) -> None:
        self._lab, self._net = lab, net
        self.known_path = python_copy(lab, "known")
        self.barred_path = python_copy(lab, "barred")
        self.known: list[Attempt] = []
        self.barred: list[Attempt] = []
        self.strangers: list[Attempt] = []
        self.guests: list[Attempt] = []
        self._closed: list[tuple[float, float]] = []
        count_at(lab)

    def policy(self, *more: dict[str, Any], **fields: Any) -> dict[str, Any]:
        out = {"direction": "out"}
        found = [
            {"name": "known", "action": "allow", "app": str(self.known_path), **out},
            {"name": "barred", "action": "block", "app": str(self.barred_path), **out},
            *more,
            {"name": "guests", "action": "allow", "protocol": "tcp", "port": GUEST, **out},
        ]
        return {"version": 2, "default": {"in": "block", "out": "block"}, "rules": found, **fields}

    @contextmanager
    def flowing(self) -> Iterator[None]:
        lab, both, there = self._lab, f"{self._net.there},{self._net.there6}", self._net.there
        finder = python_copy(lab, "starter")
        running = {
            "known": dial(lab, self.known_path, "same", both, str(KNOWN), "5", "0.01"),
            "barred": dial(lab, self.barred_path, "same", both, str(BARRED), "0.05", "0.01"),
            "strangers": dial(lab, finder, "fresh", CURL, str(lab.folder / "s"), there, str(STRANGER), "0.6"),
            "guests": dial(lab, finder, "fresh", CURL, str(lab.folder / "g"), there, str(GUEST), "6"),
        }
        lab.until(lambda: came(lab, KNOWN) > 10 and came(lab, GUEST) > 0, "connections are made")
        yield
        for name, each in running.items():
            setattr(self, name, each.attempts())

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Meanwhile no new program gets out, allowed or not; those that were looked up before may still."""
        begin = time.monotonic()
        yield
        self._closed.append((begin, time.monotonic()))

    def forbidden(self) -> tuple[int, int]:
        """How many packets have come that must not."""
        return came(self._lab, BARRED), came(self._lab, STRANGER)

    def check(self) -> None:
        """The program that is allowed has lost nothing and waited for nobody; nothing forbidden has come."""
        self.check_known()
        self.check_forbidden()
        for begin, end in self._closed:
            within = self.guests_within(begin, end)
            assert len(within) > 2
            assert not [each for each in within if not each.trouble and each.begin + each.took_s < end]

    def check_forbidden(self) -> None:
        assert self.forbidden() == (0, 0)
        for each in (self.barred, self.strangers):
            assert len(each) > 3
            assert all(attempt.trouble for attempt in each)

    def check_known(self) -> None:
        assert len(self.known) > 40
        lost = [each for each in self.known if each.trouble]
        assert not lost, (len(lost), len(self.known), lost[:5])
        slow = [each for each in self.known if each.took_s > SLOW_S]
        assert not slow, (len(slow), len(self.known), slow[:5])

    def guests_within(self, begin: float, end: float) -> list[Attempt]:
        """The new programs, allowed as they are, that began in this time."""
        return [each for each in self.guests if begin <= each.begin <= end]
