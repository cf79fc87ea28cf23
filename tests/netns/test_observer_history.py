"""What is remembered of real connections: whose they are, how they went, what decided them, and what they carried."""

# ruff: noqa: F811

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.netns.conftest import Namespace
from tests.netns.daemon_load import PYTHON
from tests.netns.observer_lab import (
    CABLE,
    CURL,
    FAR,
    HERE,
    HERE6,
    MARK,
    THERE,
    THERE6,
    WEB,
    Observed,
    ask,
    connected,
    drain,
    far,  # noqa: F401
    knock,
    observed,  # noqa: F401
    only,
    send,
    serving,
    shorten,
)
from tests.netns.programs_lab import lab  # noqa: F401

from pfw.model.address import parse_address
from pfw.model.flow import Direction
from pfw.model.history import Entry
from pfw.model.program import Certainty
from pfw.model.verdict import Action

pytestmark = pytest.mark.xdist_group("observer")
WEB_IN, REFUSED, SILENT, CHAT, MAIL = 9100, 9101, 9102, 6667, 2525
POLICY: dict[str, Any] = {
    "version": 2,
    "default": {"in": "block", "out": "allow", "forward": "allow"},
    "rules": [
        {"name": "web in", "action": "allow", "direction": "in", "protocol": "tcp", "port": WEB_IN},
        {"name": "calls in", "action": "allow", "direction": "in", "protocol": "udp", "port": WEB_IN},
        {"name": "ping in", "action": "allow", "direction": "in", "icmp_type": "echo-request"},
        {"name": "no telnet", "action": "reject", "direction": "in", "protocol": "tcp", "port": 23},
        {"name": "web out", "action": "allow", "direction": "out", "protocol": "tcp", "port": WEB},
        {"name": "no chat", "action": "block", "direction": "out", "protocol": "tcp", "port": CHAT},
        {"name": "no mail", "action": "reject", "direction": "out", "protocol": "tcp", "port": MAIL},
    ],
}
_PUBLISHED = f"""table ip publish {{
    chain in {{
        type nat hook prerouting priority dstnat
        tcp dport 8081 dnat to {FAR}:80
        tcp dport {WEB_IN + 1} redirect to :{WEB_IN}
    }}
    chain here {{
        type nat hook output priority -100
        tcp dport 8082 dnat to {THERE}:{WEB}
    }}
}}
"""
_LISTEN = """
import socket, sys
server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
calls = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
calls.bind(("::", int(sys.argv[1])))
print("ready", flush=True)
while True:
    served, _ = server.accept()
    served.recv(100)
    served.sendall(bytes(5000))
    served.close()
"""


def curl(observed: Observed, address: str, port: int = WEB, program: str | Path = CURL, wait_s: float = 2.0) -> int:
    url = f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
    return observed.lab.run(program, "-s", "-m", str(wait_s), "-o", "/dev/null", url).returncode


def carried(entry: Entry) -> tuple[int, int]:
    return entry.traffic.sent_packets, entry.traffic.received_packets


def decided(entry: Entry) -> tuple[Action, str | None]:
    return entry.subject.action, entry.subject.rule


def drop(at: Namespace, what: str) -> None:
    """Have another machine drop what comes to it without a word."""
    nft(at, f"table inet deaf {{\n chain in {{\n type filter hook input priority filter; {what} drop\n}}\n}}")


def nft(at: Namespace, rules: str) -> None:
    subprocess.run(at.command("nft", "-f", "-"), input=rules, text=True, check=True)


@pytest.mark.parametrize("options", [(), ("--no-labels",)], ids=["labels", "no labels"])
def test_programs_and_rules_of_what_goes_out(observed: Observed, options: tuple[str, ...]) -> None:
    observed.up(POLICY, *options)
    lab = observed.lab
    sure = Certainty.GUESS if options else Certainty.LABEL
    for address in (THERE, THERE6):
        slow = lab.start(PYTHON, "-I", "-S", "-c", _TALK, address, str(WEB))
        assert slow.wait(20) == 0, slow.communicate()
        entry = observed.ended(port=WEB, remotes=only(address))
        subject = entry.subject
        assert (entry.remote, subject.local) == (
            parse_address(address),
            parse_address(HERE6 if ":" in address else HERE),
        )
        assert decided(entry) == (Action.ALLOW, "web out")
        assert (subject.direction, subject.protocol, subject.program) == (Direction.OUT, 6, str(PYTHON))
        assert (subject.uid, subject.user, subject.certainty) == (65_534, "nobody", sure)
        assert subject.unit == lab.cgroup.name
        assert entry.end is not None
        assert 0.2 < entry.end - entry.start < 3
        assert entry.traffic.sent_bytes > 1900 > 1000 > entry.traffic.received_bytes > 100
        assert carried(entry) >= (4, 4)
    (told,) = observed.log("--remote", THERE, "--port", str(WEB))
    assert (told["program"], told["user"], told["rule"], told["unit"]) == (
        str(PYTHON),
        "nobody",
        "web out",
        lab.cgroup.name,
    )
    assert {each["what"] for each in observed.json("first-seen", "programs")} >= {str(PYTHON)}
    assert {each["what"] for each in observed.json("first-seen", "remotes")} >= {THERE, THERE6}
    assert observed.json("stats", "--by", "program", "--app", str(PYTHON))


_TALK = """
import os, socket, sys, time
os.setgid(65534); os.setuid(65534)
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
time.sleep(0.3)
sock.sendall(bytes(1900))
while sock.recv(1000):
    pass
"""


def test_how_it_went_and_what_decided(observed: Observed) -> None:
    """Refused, silent, blocked, rejected, by rule and by default; and the direction of it all."""
    shorten(observed.here, tcp_timeout_syn_sent=2, udp_timeout=2, udp_timeout_stream=2)
    observed.up(POLICY)
    drop(observed.there, f"tcp dport {SILENT}")
    assert curl(observed, THERE, REFUSED) == 7
    assert curl(observed, THERE, SILENT, wait_s=0.5) == 28
    assert curl(observed, THERE, CHAT, wait_s=0.5) == 28
    assert curl(observed, THERE, MAIL) == 7
    for port, family in ((80, THERE), (81, THERE6)):
        send(observed.here, family, port)
    send(observed.there, HERE, 5353)
    knock(observed.there, HERE, 23)
    knock(observed.there, HERE6, 3389)
    went = {port: observed.ended(port=port) for port in (REFUSED, SILENT, CHAT, MAIL, 80, 81, 5353, 23, 3389)}
    assert carried(went[REFUSED]) == (1, 1)
    assert carried(went[SILENT])[1] == 0 < carried(went[SILENT])[0]
    assert carried(went[80]) == carried(went[81]) == (1, 0)
    assert {port: decided(each) for port, each in went.items()} == {
        **dict.fromkeys((REFUSED, SILENT, 80, 81), (Action.ALLOW, None)),
        CHAT: (Action.BLOCK, "no chat"),
        MAIL: (Action.REJECT, "no mail"),
        23: (Action.REJECT, "no telnet"),
        5353: (Action.BLOCK, None),
        3389: (Action.BLOCK, None),
    }
    assert {port for port, each in went.items() if each.subject.direction is Direction.IN} == {5353, 23, 3389}
    assert [went[port].subject.program for port in (SILENT, CHAT)] == [CURL] * 2
    # Of these the socket is gone before anybody has looked, and so is curl.
    for port in (REFUSED, MAIL):
        subject = went[port].subject
        assert (subject.program, subject.uid, subject.certainty) == (CURL, 0, Certainty.LABEL)
    assert went[CHAT].subject.interface == went[23].subject.interface == CABLE
    assert went[3389].remote == parse_address(THERE6)
    stopped = {each["port"] for each in observed.log("--blocked") if each["port"] < MARK}
    assert stopped == {CHAT, MAIL, 23, 5353, 3389}
    assert {each["port"] for each in observed.log("--blocked", "--rule", "no chat")} == {CHAT}


def test_what_comes_in_and_pings(observed: Observed) -> None:
    """Whose service it was that somebody called, and echoes of both families, each way."""
    shorten(observed.here, udp_timeout=2, udp_timeout_stream=2, icmp_timeout=2, icmpv6_timeout=2)
    observed.up(POLICY)
    server = observed.lab.start(PYTHON, "-I", "-S", "-c", _LISTEN, str(WEB_IN))
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    for address in (HERE, HERE6):
        with connected(observed.there, address, WEB_IN) as sock:
            sock.sendall(b"please")
            while sock.recv(10_000):
                pass
    send(observed.there, HERE, WEB_IN)
    ask(observed.here, THERE, WEB)
    for at, address in (
        (observed.there, HERE),
        (observed.there, HERE6),
        (observed.here, THERE),
        (observed.here, THERE6),
    ):
        at.run("ping", "-c", "2", "-i", "0.2", address)
    for address in (THERE, THERE6):
        entry = observed.ended(port=WEB_IN, remotes=only(address), protocol=6)
        subject = entry.subject
        assert (subject.direction, decided(entry)) == (Direction.IN, (Action.ALLOW, "web in"))
        assert (subject.program, subject.user, subject.unit) == (str(PYTHON), "root", observed.lab.cgroup.name)
        assert entry.traffic.sent_bytes > 5000 > 2000 > entry.traffic.received_bytes > 100
    call = observed.ended(port=WEB_IN, protocol=17)
    assert (call.subject.program, decided(call)) == (str(PYTHON), (Action.ALLOW, "calls in"))
    assert (call.traffic.received_packets, call.traffic.received_bytes) == (1, 28 + 8)
    answered = observed.ended(port=WEB, protocol=17)
    assert carried(answered) == (1, 1)
    for protocol, echo, local, remote in ((1, 8, HERE, THERE), (58, 128, HERE6, THERE6)):
        for direction, rule in ((Direction.IN, "ping in"), (Direction.OUT, None)):
            ping = observed.ended(protocol=protocol, direction=direction)
            assert (ping.subject.icmp_type, ping.subject.port, decided(ping)) == (echo, None, (Action.ALLOW, rule))
            assert (ping.subject.local, ping.remote) == (parse_address(local), parse_address(remote))
            assert carried(ping) == (2, 2)


def test_forwarded_published_and_loopback(observed: Observed, far: Namespace) -> None:
    """What passes by, by its own address and by one of ours; what stays on this machine is nothing."""
    observed.up(POLICY)
    nft(observed.here, _PUBLISHED)
    with serving(far, FAR, 80) as server:
        for address, port in ((FAR, 80), (HERE, 8081)):
            with connected(observed.there, address, port) as sock:
                served, _ = server.accept()
                sock.sendall(bytes(2000))
                served.close()
    with serving(observed.here, "127.0.0.1", 9200), serving(observed.here, HERE, 9201):
        for address, port in (("127.0.0.1", 9200), (HERE, 9201)):
            connected(observed.here, address, port).close()
    assert observed.lab.run(PYTHON, "-I", "-S", "-c", _TALK, THERE, "8082").returncode == 0
    direct = observed.ended(port=80)
    assert (direct.subject.direction, direct.subject.local, direct.remote) == (
        Direction.FORWARD, parse_address(THERE), parse_address(FAR)
    )  # fmt: skip
    published = observed.ended(port=8081)
    assert published.subject.direction is Direction.FORWARD
    assert (published.subject.local, published.remote) == (parse_address(THERE), parse_address(HERE))
    assert published.traffic.sent_bytes > 2000
    # A packet of our own is judged behind the rewrite.
    elsewhere = observed.ended(port=WEB)
    assert (elsewhere.subject.program, decided(elsewhere)) == (str(PYTHON), (Action.ALLOW, "web out"))
    with serving(observed.here, HERE, WEB_IN), connected(observed.there, HERE, WEB_IN + 1):
        turned = observed.row(port=WEB_IN)
        assert decided(turned) == (Action.ALLOW, "web in")
        assert turned.subject.program is not None
    assert not [each for each in observed.rows() if each.subject.port in (9200, 9201, 8082, WEB_IN + 1)]


def test_a_name_from_dns(observed: Observed) -> None:
    words = observed.there.command(
        "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces",
        f"--listen-address={THERE}", f"--address=/web.example/{THERE}", "--user=root", "--pid-file=",
    )  # fmt: skip
    if shutil.which("dnsmasq") is None or shutil.which("busybox") is None:
        pytest.skip("needs dnsmasq and busybox")
    server = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        observed.up(POLICY)

        def looked_up() -> bool:
            return observed.lab.run("busybox", "nslookup", "-type=a", "web.example", THERE).returncode == 0

        observed.lab.until(looked_up, "dnsmasq answers")
        time.sleep(0.2)
        assert curl(observed, THERE) == 0
        assert observed.ended(port=WEB).name == "web.example"
        assert [each["name"] for each in observed.log("--remote", "web.example", "--port", str(WEB))] == ["web.example"]
        assert "web.example" in {each["what"] for each in observed.json("first-seen", "remotes")}
    finally:
        server.kill()
        server.wait()


def test_what_goes_on_over_a_restart(observed: Observed, far: Namespace) -> None:
    """Connections of every kind that go on while the daemon ends and comes again keep their rows, and get their ends
    and all that they carried, and so does what ended meanwhile."""
    shorten(observed.here, udp_timeout_stream=8, icmp_timeout=4)
    turn = f"type nat hook prerouting priority dstnat; tcp dport {WEB_IN + 1} redirect to :{WEB_IN}"
    nft(observed.here, f"table ip turn {{\n chain in {{\n {turn}\n }}\n}}")
    observed.up({**POLICY, "default": {"in": "allow", "out": "allow", "forward": "allow"}})
    with (
        serving(observed.there, THERE, 9300) as there,
        serving(far, FAR, 9301) as behind,
        serving(observed.here, HERE, WEB_IN) as own,
    ):
        out, meanwhile = (connected(observed.here, THERE, 9300) for _ in range(2))
        through = connected(observed.there, FAR, 9301)
        turned = connected(observed.there, HERE, WEB_IN + 1)
        served = [there.accept()[0], there.accept()[0], behind.accept()[0], own.accept()[0]]
        ping = subprocess.Popen(observed.here.command("ping", "-i", "0.5", THERE), stdout=subprocess.DEVNULL)
        for sock in (out, meanwhile, through, turned):
            sock.sendall(bytes(3000))
        names = zip(("out", "meanwhile", "through", "turned"), (out, meanwhile, through, turned), strict=True)
        numbers = {name: sock.getsockname()[1] for name, sock in names}
        for number in numbers.values():
            observed.row(lambda each, number=number: each.from_port == number)
        observed.row(protocol=1)
        assert observed.lab.end() == 0
        meanwhile.close()
        served[1].close()
        observed.begin()
        for sock in (out, through, turned):
            sock.sendall(bytes(3000))
            sock.close()
        for sock in served:
            sock.close()
        ping.kill()
    ping.wait()
    for name in ("out", "through", "turned"):
        _has_carried_all(observed, numbers[name])
    assert observed.row(lambda each: each.from_port == numbers["meanwhile"] and each.end).traffic.sent_bytes > 3000
    assert observed.ended(protocol=1).traffic.sent_packets > 2
    _check_rows(observed)


def _has_carried_all(observed: Observed, port: int) -> None:
    entry = observed.row(lambda each: each.from_port == port and each.end is not None)
    assert entry.traffic.sent_bytes + entry.traffic.received_bytes > 6000
    assert (entry.end or 0) - entry.start > 0.5


def test_a_long_connection_tells_what_it_has_carried(observed: Observed) -> None:
    observed.altered("import pfw.daemon.tracking as tracking\ntracking._LOOK_S, tracking._WRITTEN_S = 0.5, 0.5")
    observed.up(POLICY)
    with serving(observed.there, THERE, 9300) as server:
        sock = connected(observed.here, THERE, 9300)
        served, _ = server.accept()
        seen: list[Entry] = []
        for _ in range(2):
            sock.sendall(bytes(5000))
            served.sendall(bytes(9000))
            drain(sock, 9000)
            least = 5000 * (len(seen) + 1)
            entry = observed.row(lambda each, least=least: each.traffic.sent_bytes > least, port=9300)
            assert entry.end is None
            seen.append(entry)
        assert seen[1].traffic.received_bytes > 18_000
        (told,) = observed.log("--port", "9300")
        assert (told["end"], told["sent_bytes"]) == (None, seen[1].traffic.sent_bytes)
        sock.close()
        served.close()
    entry = observed.ended(port=9300)
    assert entry.id == seen[0].id
    assert entry.traffic.sent_bytes > seen[1].traffic.sent_bytes


_MANY = """
import socket, sys, time
for _ in range(3):
    socks = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(50)]
    for sock in socks:
        sock.sendall(bytes(300))
    time.sleep(0.5)
    for sock in socks:
        while sock.recv(100):
            pass
        sock.close()
"""


def test_fifty_at_once(observed: Observed) -> None:
    """All that a program makes at once is there, once, with what each carried."""
    observed.up(POLICY)
    assert observed.lab.run(PYTHON, "-I", "-S", "-c", _MANY, THERE, str(WEB)).returncode == 0
    observed.lab.until(lambda: len(_over(observed)) == 150, "all are there")
    assert {(each.subject.program, each.subject.certainty) for each in _over(observed)} == {
        (str(PYTHON), Certainty.LABEL)
    }
    assert all(each.traffic.sent_bytes > 500 and each.traffic.received_bytes > 200 for each in _over(observed))
    _check_rows(observed)
    counts = observed.counts()
    assert not {name: count for name, count in counts.items() if count and name.endswith(("_lost", "_refused"))}
    assert "no bound was hit" in observed.lab.pfw("doctor", status=None).stdout


def _over(observed: Observed) -> list[Entry]:
    return [each for each in observed.rows(port=WEB, protocol=6) if each.end is not None]


def _check_rows(observed: Observed) -> None:
    """No id and no connection is there twice."""
    rows = [each for each in observed.rows() if each.subject.action is Action.ALLOW]
    assert len({each.id for each in rows}) == len(rows)
    assert [each.id for each in rows] == sorted(each.id for each in rows)
    ends = Counter(
        (each.subject.protocol, each.subject.local, each.remote, each.subject.port, each.from_port) for each in rows
    )
    assert not [each for each, count in ends.items() if count > 1]
