"""Real scanners, and ordinary programs, as the detectors of scans see them on a cable."""

from __future__ import annotations

import shutil
import socket
import subprocess

import pytest
from tests.netns.conftest import CABLE, HERE, HERE6, THERE, THERE6

from pfw.drivers.capture import Capture
from pfw.engine.detect.arp_scan import ArpScan
from pfw.engine.detect.detection import Detection
from pfw.engine.detect.port_scan import PortScan
from pfw.engine.detect.stealth_scan import StealthScan
from pfw.engine.detect.sweep import Sweep
from pfw.engine.detect.watch import Watch
from pfw.model.address import parse_address
from pfw.model.observation import Alert, Kind
from pfw.wire.scan import scan

OPEN = (22, 80, 443)
QUIET_ROUNDS = 8
LIVE = ("10.77.0.101", "10.77.0.102", "10.77.0.103")
DECOYS = "10.77.0.101,10.77.0.102,ME,10.77.0.103"
NMAP = ("nmap", "-n", "-Pn", "--disable-arp-ping", "--max-retries", "1")


def servers() -> list[socket.socket]:
    return [
        socket.create_server(("", port), family=family, backlog=64)
        for port in OPEN
        for family in (socket.AF_INET, socket.AF_INET6)
    ]


@pytest.fixture
def alerts(pair):
    """What is told while a program runs `there`; `here` three ports are open."""
    watch, detection = Watch(), Detection([PortScan(), Sweep(), StealthScan(), ArpScan()])
    listening = pair.here.call(servers)
    capture = pair.here.call(lambda: Capture(CABLE))
    clock = {"last": 0.0}

    def read() -> int:
        count = 0
        for source, frames, _ in capture.read():
            for item in scan(source, capture.buffer, frames):
                count += 1
                clock["last"] = max(clock["last"], item[1])
                for seen in watch.packet(item):
                    detection.observe(seen)
        return count

    def run(*words: str) -> list[Alert]:
        program = subprocess.Popen(pair.there.command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            quiet = 0
            while quiet < QUIET_ROUNDS:
                capture.wait(0.1)
                quiet = 0 if read() or program.poll() is None else quiet + 1
        finally:
            program.kill()
            program.wait()
        assert capture.lost == 0
        assert clock["last"], "nothing was captured"
        for seen in watch.end(clock["last"]):
            detection.observe(seen)
        detection.end(clock["last"])
        return detection.alerts

    yield run
    for each in (capture, *listening):
        each.close()


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ("-sS -p 1000-1099", Kind.PORT_SCAN),
        ("-sS -F -g 53", Kind.PORT_SCAN),
        ("-sU --top-ports 30", Kind.PORT_SCAN),
        ("-sY", Kind.PORT_SCAN),
        ("-sO", Kind.PORT_SCAN),
        ("-sA -F", Kind.STEALTH_SCAN),
        ("-sW -F", Kind.STEALTH_SCAN),
        ("-sM -F", Kind.STEALTH_SCAN),
        ("-sN -F", Kind.STEALTH_SCAN),
        ("-sF -F", Kind.STEALTH_SCAN),
        ("-sX -F", Kind.STEALTH_SCAN),
        ("-sS -F --scanflags SYNFIN", Kind.STEALTH_SCAN),
        ("-sS -F --scanflags URGPSH", Kind.STEALTH_SCAN),
    ],
)
def test_scans_without_a_proof_are_found_and_ban_nobody(alerts, options, kind):
    """Ports that are all closed, a source port from which one could scan in another's name, and what has no answers."""
    needs("nmap")
    [found] = alerts(*NMAP, *options.split(), HERE)
    assert (found.kind, found.source, found.target) == (kind, parse_address(THERE), parse_address(HERE))
    assert found.score >= 80
    assert found.ban == ()


@pytest.mark.parametrize("options", ["-sS -F", "-sS -F --scanflags SYNURG", "-sS -p-1023", "-6 -sS -F"])
def test_a_scan_whose_source_resets_our_answers_is_proved(alerts, options):
    needs("nmap")
    six = "-6" in options
    [found] = alerts(*NMAP, *options.split(), HERE6 if six else HERE)
    assert (found.kind, found.ban) == (Kind.PORT_SCAN, (parse_address(THERE6 if six else THERE),))
    assert "3 half open and reset" in found.evidence


@pytest.fixture
def live(pair):
    """The addresses of the decoys are there, and the kernel behind them resets what it did not ask for."""
    for address in LIVE:
        pair.there.run("ip", "address", "add", f"{address}/24", "dev", CABLE)


@pytest.mark.parametrize("decoys", [DECOYS, "10.77.0.101,ME"])
@pytest.mark.parametrize("ports", ["-F", "-p22,80,443"])
def test_decoys_that_reset_our_answers_are_not_banned(live, alerts, decoys, ports):
    needs("nmap")
    found = alerts(*NMAP, "-sS", ports, "-D", decoys, HERE)
    assert {each.kind for each in found} == ({Kind.PORT_SCAN} if ports == "-F" else set())
    assert {each.ban for each in found} <= {()}


def test_decoys_are_not_banned_where_the_scanner_keeps_quiet(live, pair, alerts):
    """Only the innocent reset our answers."""
    needs("nmap")
    needs("nft")
    pair.there.run("nft", "add table inet quiet; add chain inet quiet out { type filter hook output priority 0; };"
                   f"add rule inet quiet out ip saddr {THERE} tcp flags & rst == rst drop")  # fmt: skip
    found = alerts(*NMAP, "-sS", "-F", "-D", "10.77.0.101,ME", HERE)
    assert {each.kind for each in found} == {Kind.PORT_SCAN}
    assert {each.ban for each in found} == {()}


def test_a_scan_with_connect_is_proved(alerts):
    needs("nmap")
    [found] = alerts(*NMAP, "-sT", "-F", HERE)
    assert (found.kind, found.ban) == (Kind.PORT_SCAN, (parse_address(THERE),))


def test_the_system_is_asked_for(alerts):
    """One open and one closed port are too few for a port scan, but not the flags that are sent to them."""
    needs("nmap")
    [found] = alerts("nmap", "-n", "-Pn", "-O", "--max-os-tries", "1", "-p", "22,81", HERE)
    assert (found.kind, found.target, found.ban) == (Kind.STEALTH_SCAN, parse_address(HERE), ())


def test_decoys_are_one_alert(alerts):
    needs("nmap")
    [found] = alerts(*NMAP, "-sS", "-F", "-D", DECOYS, HERE)
    assert (found.kind, found.source, found.target, found.ban) == (Kind.PORT_SCAN, None, parse_address(HERE), ())
    assert "4 sources" in found.evidence


@pytest.mark.parametrize(
    ("options", "kind"), [("-sS", Kind.PORT_SCAN), ("-sT", Kind.PORT_SCAN), ("-sX", Kind.STEALTH_SCAN)]
)
def test_over_ipv6(alerts, options, kind):
    needs("nmap")
    assert [each.kind for each in alerts("nmap", "-6", "-n", "-Pn", options, "-F", HERE6)] == [kind]


def test_what_is_there_in_a_network(alerts):
    needs("nmap")
    [found] = alerts("nmap", "-n", "-sn", "10.77.0.0/25")
    assert (found.kind, found.target, found.ban) == (Kind.ARP_SCAN, None, ())


@pytest.fixture
def routed(pair):
    """`there` believes that everything is behind `here`, which says of most that it cannot be reached."""
    pair.there.run("ip", "route", "add", "192.0.2.0/24", "via", HERE)
    pair.here.run("sysctl", "-qw", "net.ipv4.ip_forward=1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ("-Pn -sS -p 80", {Kind.SWEEP}),
        ("-Pn -sU -p 161", {Kind.SWEEP}),
        ("-sn -PE", {Kind.SWEEP}),
        ("-sn -PA80", {Kind.STEALTH_SCAN}),
        ("-sn", {Kind.SWEEP, Kind.STEALTH_SCAN}),
    ],
)
def test_sweeps(routed, alerts, options, kinds):
    needs("nmap")
    found = alerts("nmap", "-n", "--max-retries", "0", *options.split(), "192.0.2.0/26")
    assert {each.kind for each in found} == kinds
    assert {each.source for each in found} == {parse_address(THERE)}
    assert {each.ban for each in found} == {()}


@pytest.mark.parametrize(
    "words",
    [
        f"hping3 -S -p 80 --faster -c 3000 --rand-source {HERE}",
        f"hping3 -S -p ++1 --faster -c 3000 --rand-source {HERE}",
        f"hping3 -S -p 80 --faster -c 3000 {HERE}",
        f"hping3 --udp -p 53 --faster -c 2000 {HERE}",
        f"hping3 --icmp --faster -c 1000 {HERE}",
        f"hping3 -A -p 80 --faster -c 1000 --rand-source {HERE}",
    ],
)
def test_floods_are_none(alerts, words):
    needs("hping3")
    assert alerts(*words.split()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("curl", f"for i in $(seq 40); do curl -s -m 1 http://{HERE}:8080/; curl -s -m 0.1 http://{HERE}/; done"),
        ("ping", "for i in 1 2 3 4 5; do ping -c 2 -i 0.2 -W 1 10.77.0.$i; done"),
        ("traceroute", f"traceroute -n -w 1 {HERE}; traceroute -n -q 8 -m 8 -w 1 192.0.2.9"),
        ("mtr", f"mtr -n -u -r -c 3 {HERE}"),
    ],
)
def test_ordinary_programs_are_none(routed, alerts, program, words):
    needs(program)
    assert alerts("sh", "-c", words) == []
