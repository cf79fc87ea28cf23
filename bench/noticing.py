"""How soon a port scan is noticed and its source dropped by the kernel."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from statistics import median

from firewalls import unmeasurable
from pair import CABLE, NEAR, Pair, Pairs
from per_program import PfwDaemon, compiled, control_group, inside, wait_until
from processes import BenchError, Running, run, say
from setting import Setting
from table import NOTHING, Section

SCANS, QUICK_SCANS = 20, 3
PATIENCE_S = 10.0
PAUSE_S = 7.0
"""Between two scans: of sources that come together most may be forged, and none is banned by itself."""
FIRST_HOST = 1
"""Of 10.80.0.0/16: a scan a source."""
OPEN_PORTS = (22, 80)
TABLE, SET = "pfw", "ban4"
DEFAULTS = ("block", "allow")
COLUMNS = (
    "",
    "scans",
    "banned",
    "median, ms",
    "longest, ms",
    "from its first reset, longest, ms",
    "packets until then, median",
)

Scan = dict[str, float | None]


def measure(setting: Setting) -> list[Section]:
    section = Section("From the first packet of a port scan to the ban of its source", COLUMNS)
    reason = unmeasurable(setting)
    client = compiled(setting)
    if reason is None and (client is None or not setting.has("nmap", "nmap")):
        reason = "not measured: needs nmap and a C compiler"
    if reason is not None:
        section.note(reason)
        return [section]
    for default in DEFAULTS:
        with Pairs() as pairs:
            section.row(*cells(f"pfw daemon, what comes in is {default}ed", _pfw(setting, pairs, str(client), default)))
    ports = " and ".join(map(str, OPEN_PORTS))
    section.note(
        "nmap -sS -n -Pn -p1-1000 -T4 over a veth pair, each scan from an address of its own, "
        f"{PAUSE_S:.0f} s behind the one before; ports {ports} are open, and let in. The ban is when the address is in "
        "the kernel's set, which is read every 5 ms. What proves an address that scans so is the reset with which it "
        "answers an open port: where what comes in is blocked and none of its first ten is open, nmap waits 1.1 s for "
        "answers before it goes on"
    )
    return [section]


def _pfw(setting: Setting, pairs: Pairs, client: str, default: str) -> list[Scan]:
    pair = pairs.pair()
    pair.add_hosts()
    daemon = pairs.enter_context(closing(PfwDaemon(setting, pair, pairs.enter_context(control_group()))))
    for port in OPEN_PORTS:
        pairs.enter_context(_listening(pair, client, port))
    daemon.up(policy(default))
    wait_until(lambda: "connection_events" in daemon.counts(), daemon.running, "has an observer that counts")
    return _scans(setting, pair)


def policy(default: str) -> str:
    """What comes in is treated so, but for the open ports; port scans are banned."""
    rule = {"name": "services", "action": "allow", "direction": "in", "protocol": "tcp", "port": list(OPEN_PORTS)}
    respond = {"when": [{"alert": ["port-scan"], "do": "ban"}]}
    default_of = {"in": default, "out": "allow"}
    return json.dumps({"version": 2, "default": default_of, "rules": [rule], "respond": respond})


def cells(name: str, scans: list[Scan]) -> tuple[str, ...]:
    took_ms = [each["banned_s"] * 1e3 for each in scans if each["banned_s"] is not None]
    proved_ms = [each["after_reset_s"] * 1e3 for each in scans if each["after_reset_s"] is not None]
    packets = [each["packets"] or 0 for each in scans if each["banned_s"] is not None]
    if not took_ms:
        return (name, str(len(scans)), "0", *[NOTHING] * 4)
    figures = (median(took_ms), max(took_ms), max(proved_ms) if proved_ms else None, median(packets))
    found = (NOTHING if each is None else f"{each:,.0f}" for each in figures)
    return (name, str(len(scans)), str(len(took_ms)), *found)


def _scans(setting: Setting, pair: Pair) -> list[Scan]:
    count = QUICK_SCANS if setting.quick else SCANS
    found = []
    with _watching(setting, pair) as watching:
        for number in range(FIRST_HOST, FIRST_HOST + count):
            source = f"10.80.0.{number}"
            say(f"bench: noticing, scan {number} of {count}")
            found.append(_scan(pair, watching, source))
            time.sleep(PAUSE_S)
    return found


def _scan(pair: Pair, watching: subprocess.Popen[str], source: str) -> Scan:
    assert watching.stdin is not None
    assert watching.stdout is not None
    watching.stdin.write(f"{source}\n")
    watching.stdin.flush()
    words = ("nmap", "-sS", "-n", "-Pn", "-p1-1000", "-T4", "-S", source, "-e", CABLE, NEAR)
    scanning = Running((*inside(pair.far), *words))
    try:
        line = watching.stdout.readline()
    finally:
        scanning.kill()
    if not line:
        raise BenchError("until_banned.py has ended")
    found: Scan = json.loads(line)
    return found


@contextmanager
def _watching(setting: Setting, pair: Pair) -> Iterator[subprocess.Popen[str]]:
    words = (*inside(pair.near), *setting.program("until_banned"), CABLE, TABLE, SET, str(PATIENCE_S))
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=setting.environment
    ) as watching:
        try:
            assert watching.stdout is not None
            if watching.stdout.readline() != "ready\n":
                raise BenchError("until_banned.py does not begin")
            yield watching
        finally:
            watching.kill()


@contextmanager
def _listening(pair: Pair, client: str, port: int) -> Iterator[None]:
    serving = Running((*inside(pair.near), client, "listen", f"0.0.0.0:{port}", "1"))
    try:
        listed = (*inside(pair.near), "ss", "-Hltn", f"sport = {port}")
        wait_until(lambda: bool(run(listed).output), serving, "listens")
        yield
    finally:
        serving.kill()
