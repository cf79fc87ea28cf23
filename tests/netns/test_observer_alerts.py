"""Real tools attack a machine: each is noticed, told everywhere, and answered; what is ordinary is not noticed."""

# ruff: noqa: F811

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from tests.netns.conftest import Namespace
from tests.netns.daemon_load import PYTHON
from tests.netns.observer_lab import (
    CABLE,
    CURL,
    EVIL,
    HERE,
    THERE,
    WEB,
    Observed,
    evil,  # noqa: F401
    far,  # noqa: F401
    ip,
    needs,
    observed,  # noqa: F401
    running,
    serving,
)
from tests.netns.programs_lab import lab  # noqa: F401

from pfw.model.address import format_address, parse_address

pytestmark = pytest.mark.xdist_group("observer alerts")
SSH = {"name": "ssh", "action": "allow", "direction": "in", "protocol": "tcp", "port": 22}
PING = {"name": "ping", "action": "allow", "direction": "in", "icmp_type": "echo-request"}
BANNED = (f"banned {THERE} for 10 s", f"banned {THERE} for 11 s")
"""Chance adds up to a tenth."""
DNSMASQ = ("--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file=")
NMAP = ("nmap", "-n", "-Pn", "-T4", "--max-retries", "0", "--host-timeout", "12s")


def guarded(default: str = "block", *rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "version": 2,
        "default": {"in": default, "out": "allow", "forward": "allow"},
        "rules": [SSH, PING, *rules],
        **fields,
    }


def address(at: Namespace, *texts: str) -> None:
    for text in texts:
        ip("-n", at.name, "addr", "add", f"{text}/24", "dev", CABLE)


@contextmanager
def answering(at: Namespace, *ports: int) -> Iterator[None]:
    """Services that take connections, and say something to whoever does."""
    with ExitStack() as stack:
        stop = threading.Event()
        for port in ports:
            server = stack.enter_context(serving(at, HERE, port))
            server.settimeout(0.1)

            def serve(server: socket.socket = server) -> None:
                while not stop.is_set():
                    try:
                        with server.accept()[0] as served:
                            served.sendall(b"SSH-2.0-none\r\n")
                    except OSError:
                        continue

            thread = threading.Thread(target=serve)
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        yield


def check_told(observed: Observed, kind: str, source: str | None, target: str | None = None) -> dict[str, Any]:
    """An alert is in the history, in what the daemon says, and in both logs; it, as `pfw log` has it."""
    lab = observed.lab

    def found() -> list[Any]:
        return [
            each for each in observed.alerts()
            if each.kind == kind and (each.source and format_address(each.source)) == source
            and (target is None or (each.target and format_address(each.target)) == target)
        ]  # fmt: skip

    lab.until(found, f"there is a {kind} of {source} to {target}, not only {observed.alerts()}")
    evidence = found()[0].evidence
    lab.until(lambda: any(line.startswith("pfw: ALERT") and evidence[:40] in line for line in lab.said), "it is said")
    log, eve = lab.folder / "log", lab.folder / "eve"
    lab.until(lambda: evidence[:40] in log.read_text(), "it is in the log")
    lab.until(lambda: evidence[:40] in eve.read_text(), "it is in EVE")
    events = [json.loads(line) for line in eve.read_text().splitlines()]
    assert [each for each in events if each["event_type"] == "alert"]
    told = [each for each in observed.log("--alerts") if each["evidence"] == evidence]
    assert told[0]["kind"] == kind
    return dict(told[0])


def _named(end: bytes) -> str:
    return end.hex(":") if len(end) == 6 else format_address(end)


def logs(observed: Observed) -> tuple[str, ...]:
    return "--log", str(observed.lab.folder / "log"), "--eve", str(observed.lab.folder / "eve")


@pytest.mark.parametrize("default", ["allow", "block"])
def test_scans_of_every_kind(observed: Observed, default: str) -> None:
    needs("nmap")
    there, lab = observed.there, observed.lab
    sources = {kind: f"10.77.0.{20 + at}" for at, kind in enumerate("NFXAMU")}
    address(there, *sources.values())
    observed.up(guarded(default), *logs(observed))
    ports = dict.fromkeys("NFX", "30-33") | dict.fromkeys("AM", "30-41") | {"U": "200-230"}
    with observed.listening() as came, answering(observed.here, 22):
        there.run(*NMAP, "-sT", "-p", "22,300-360", HERE)
        for kind, source in sources.items():
            there.run(*NMAP, f"-s{kind}", "-S", source, "-e", CABLE, "-p", ports[kind], HERE)
        check_told(observed, "port-scan", THERE, HERE)
        check_told(observed, "port-scan", sources["U"], HERE)
        for kind in "NFXAM":
            check_told(observed, "stealth-scan", sources[kind], HERE)
        lab.until(lambda: len(came) >= 7, "they come by the interface")
    assert {each.kind for each in came} >= {"port-scan", "stealth-scan"}
    # Our own service may be noticed, too, if it was not there when it was first looked who listens.
    assert all("10.77.0.2" in each.says for each in came if each.kind != "new-listener")
    assert not [each for each in observed.alerts() if each.response]


def test_a_sweep_through_the_machine(observed: Observed, far: Namespace) -> None:
    needs("nmap")
    observed.up(guarded(), *logs(observed))
    observed.there.run(*NMAP, "-sS", "-p", "445", "10.78.0.0/26")
    told = check_told(observed, "sweep", THERE)
    assert "445" in told["evidence"]


def test_floods(observed: Observed) -> None:
    """Told by destination; nobody is banned, whatever the policy wants, since anybody can send in anybody's name."""
    needs("hping3")
    policy = guarded("allow", respond={"when": [{"alert": "all", "do": "ban", "time": "1h"}]})
    ip("-n", observed.here.name, "route", "add", "default", "via", THERE)
    observed.there.run(
        "nft", "add table ip sink; add chain ip sink f { type filter hook forward priority 0; policy drop; }"
    )
    observed.up(policy, *logs(observed))
    hping = "hping3", "-q", HERE, "-i", "u600"
    with answering(observed.here, 80):
        observed.there.run(*hping, "--icmp", "-d", "600", "-c", "5000", check=False)
        observed.there.run(*hping, "-S", "-p", "80", "--rand-source", "-c", "4000", check=False)
        observed.there.run(*hping, "--udp", "-p", "5000", "--rand-source", "-d", "600", "-c", "4000", check=False)
    for kind in ("syn-flood", "udp-flood"):
        told = check_told(observed, kind, None, HERE)
        assert "banned" not in told["response"]
    assert check_told(observed, "icmp-flood", THERE, HERE)["response"] in (
        "left alone: its address may be forged",
        "left alone: 10.77.0.2 is the gateway's",
    )
    assert json.loads(observed.lab.pfw("ban", "list", "--json").stdout) == []
    assert len([each for each in observed.alerts() if each.kind == "syn-flood"]) <= 2
    assert observed.lab.fetches(CURL, THERE)


def test_passwords_are_tried(observed: Observed) -> None:
    """Wrong passwords at a real sshd, noticed by nothing but the connections that they take."""
    needs("sshd", "ssh", "ssh-keygen")
    folder = observed.lab.folder
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    os.makedirs("/run/sshd", exist_ok=True)
    wrong = folder / "wrong"
    wrong.write_text("#!/bin/sh\necho wrong\n")
    wrong.chmod(0o700)
    observed.up(guarded(), *logs(observed))
    sshd = ("/usr/sbin/sshd", "-D", "-f", "/dev/null", "-h", folder / "key", "-o", "UsePAM=no", "-o", "PidFile=none")
    asked = {**os.environ, "SSH_ASKPASS": str(wrong), "SSH_ASKPASS_REQUIRE": "force"}
    no_keys = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "PubkeyAuthentication=no")
    options = [word for each in (*no_keys, "NumberOfPasswordPrompts=3") for word in ("-o", each)]
    with running(observed.here, *sshd, "-E", folder / "sshd.log"):
        observed.lab.until(lambda: _listens(observed.here, 22), "sshd listens")
        for _ in range(12):
            observed.there.run("ssh", "-F", "none", *options, f"nobody@{HERE}", env=asked, check=False)
        told = check_told(observed, "brute-force", THERE, HERE)
    assert "Failed password" in (folder / "sshd.log").read_text()
    assert "ssh" in told["evidence"]


def _listens(at: Namespace, port: int) -> bool:
    return f":{port} " in at.run("ss", "-Hltn").stdout


def test_neighbours_routers_and_leases_are_forged(observed: Observed, evil: Namespace) -> None:
    needs("arpspoof", "atk6-fake_router6", "busybox", "dnsmasq")
    observed.up(guarded("allow"), *logs(observed))
    lease = (*DNSMASQ, "--port=0", "--leasefile-ro", f"--interface={CABLE}", "--dhcp-authoritative", "--no-ping")
    with ExitStack() as stack:
        stack.enter_context(running(evil, "arpspoof", "-i", CABLE, "-t", HERE, THERE))
        router = ("--dhcp-range=fd77::,ra-only", "--enable-ra", "--dhcp-range=10.77.0.100,10.77.0.110")
        stack.enter_context(running(observed.there, "dnsmasq", *lease, *router))
        asks = ("busybox", "udhcpc", "-i", CABLE, "-n", "-q", "-f", "-t", "2", "-T", "1", "-s", "/bin/true")
        time.sleep(1)
        observed.here.run(*asks, check=False)
        stack.enter_context(running(evil, "atk6-fake_router6", CABLE, "2001:db8:bad::/64"))
        other = "--dhcp-range=10.77.0.120,10.77.0.130"
        stack.enter_context(running(evil, "dnsmasq", *lease, other, f"--dhcp-option=3,{EVIL}"))
        time.sleep(1)
        for _ in range(3):
            observed.here.run(*asks, check=False)
        check_told(observed, "rogue-dhcp", EVIL)
        observed.lab.until(lambda: _kinds(observed) >= {"arp-spoof", "rogue-router"}, "all are noticed")
    alerts = observed.alerts()
    (spoof,) = [each for each in alerts if each.kind == "arp-spoof"][:1]
    assert spoof.source is not None
    assert spoof.source.hex(":") in evil.run("ip", "link", "show", CABLE).stdout
    assert spoof.target == parse_address(THERE)
    (router_alert,) = [each for each in alerts if each.kind == "rogue-router"][:1]
    assert "2001:db8:bad" in router_alert.evidence


def _kinds(observed: Observed) -> set[str]:
    return {str(each.kind) for each in observed.alerts()}


@pytest.mark.parametrize("options", [(), ("-r",)], ids=["bare", "in names"])
def test_a_tunnel_through_dns(observed: Observed, options: tuple[str, ...]) -> None:
    needs("iodine", "iodined")
    if not os.access("/dev/net/tun", os.W_OK):
        pytest.skip("needs /dev/net/tun")
    observed.up(guarded("allow"), *logs(observed))
    server = ("iodined", "-f", "-c", "-P", "secret", "-d", "dns0", "10.99.0.1", "t.example.com")
    client = ("iodine", "-f", "-P", "secret", "-d", "dns0", *options, THERE, "t.example.com")
    with running(observed.there, *server), running(observed.here, *client):
        observed.lab.until(
            lambda: (
                "dns0" in observed.here.run("ip", "-br", "addr").stdout
                and observed.here.run("ping", "-c1", "-W1", "10.99.0.1", check=False).returncode == 0
            ),
            "the tunnel is there",
        )
        observed.here.run("ping", "-c", "100", "-i", "0.02", "-s", "300", "10.99.0.1", check=False)
        observed.lab.until(lambda: "dns-tunnel" in _kinds(observed), "it is noticed")
    told = observed.noticed("dns-tunnel")
    assert told.source == parse_address(HERE)
    check_told(observed, "dns-tunnel", HERE)


_TALK = """
import socket, sys, time
print("ready", flush=True)
sys.stdin.readline()
while True:
    sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    time.sleep(0.3)
    sock.close()
"""
_LISTEN = """
import socket, time
server = socket.create_server(("0.0.0.0", 4444))
time.sleep(100)
"""


def test_what_goes_on_on_the_machine(observed: Observed) -> None:
    """A new listener, a program that was replaced, and somebody who is on a block list, blocked or not."""
    bad = observed.lab.folder / "bad.txt"
    bad.write_text("45.66.1.0/24\n")
    out = {"name": "bad-out", "source": str(bad), "direction": "out"}
    ip("-n", observed.there.name, "addr", "add", "45.66.1.1/32", "dev", CABLE)
    ip("-n", observed.here.name, "route", "add", "45.66.1.0/24", "dev", CABLE)
    program = observed.lab.copy(PYTHON, "talker")
    observed.up(guarded(blocklists=[out]), *logs(observed))
    time.sleep(1.5)  # the first look at who listens
    observed.lab.start(PYTHON, "-I", "-S", "-c", _LISTEN)
    talker = observed.lab.start(program, "-I", "-S", "-c", _TALK, THERE, str(WEB), stdin=subprocess.PIPE)
    assert talker.stdout is not None
    assert talker.stdout.readline() == "ready\n"
    new = program.with_suffix(".new")
    shutil.copy2(PYTHON, new)
    new.replace(program)
    assert talker.stdin is not None
    talker.stdin.write("go\n")
    talker.stdin.flush()
    observed.lab.run(CURL, "-s", "-m", "0.5", "http://45.66.1.1:8080/")
    observed.there.run("nmap", "-n", "-Pn", "-sT", "-S", "45.66.1.1", "-e", CABLE, "-p", "22", HERE, check=False)
    changed = check_told(observed, "changed-program", None)
    assert (changed["program"], changed["target"]) == (str(program), THERE)
    listener = check_told(observed, "new-listener", None)
    assert listener["program"] == str(PYTHON)
    assert "4444" in listener["evidence"]
    observed.lab.until(lambda: "known-bad" in _kinds(observed), "somebody bad is noticed")
    told = observed.noticed("known-bad")
    assert "bad-out" in told.evidence
    assert parse_address("45.66.1.1") in (told.source, told.target)
    assert [each for each in observed.json("first-seen", "listeners") if "4444" in each["what"]]


def test_what_is_ordinary_is_no_alert(observed: Observed) -> None:
    needs("dnsmasq", "busybox")
    observed.up(guarded())
    leases = ("--leasefile-ro", "--dhcp-range=10.77.0.100,10.77.0.110")
    server = ("dnsmasq", *DNSMASQ, f"--interface={CABLE}", f"--address=/example/{THERE}", *leases)
    with running(observed.there, *server):
        url = f"http://{THERE}:{WEB}/"
        lookups = " ".join(f"busybox nslookup -type=a host{number}.example {THERE};" for number in range(30))
        observed.lab.run("sh", "-c", f"for i in $(seq 40); do {CURL} -s -o /dev/null {url}; done")
        observed.lab.run(CURL, "-s", "-Z", "--parallel-max", "60", "-o", "/dev/null", f"{url}[1-60]")
        observed.lab.run("sh", "-c", lookups)
        observed.here.run(
            "busybox", "udhcpc", "-i", CABLE, "-n", "-q", "-f", "-t", "3", "-T", "1", "-s", "/bin/true", check=False
        )
        observed.here.run("ping", "-c", "30", "-i", "0.02", THERE)
        observed.there.run("ping", "-c", "30", "-i", "0.02", HERE)
        observed.there.run("ping", "-f", "-c", "300", HERE)
        with answering(observed.here, 22):
            for _ in range(3):
                socket_of(observed.there)
        time.sleep(3)  # for what follows from nothing having come
    assert observed.counts()
    assert [(each.kind, each.evidence) for each in observed.alerts()] == []
    assert len(observed.rows(port=WEB, protocol=6)) == 100


def socket_of(at: Namespace) -> None:
    at.call(lambda: socket.create_connection((HERE, 22), timeout=2)).close()


# -- what is done


class _Hook:
    """Keeps what is posted to it."""

    def __init__(self, at: Namespace) -> None:
        self.came: list[dict[str, Any]] = []
        came = self.came

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server: HTTPServer = at.call(lambda: HTTPServer(("127.0.0.1", 8999), Handler))
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


def pings(observed: Observed, source: str) -> bool:
    words = observed.there.command("ping", "-c1", "-W0.4", "-I", source, HERE)
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def scan(observed: Observed, how: str = "-sT") -> None:
    with answering(observed.here, 22):
        observed.there.run(*NMAP, how, "-p", "22,300-330", HERE)


def test_a_scanner_is_banned_for_a_time_and_it_is_told(observed: Observed) -> None:
    needs("nmap")
    folder = observed.lab.folder
    command = folder / "on-alert"
    command.write_text(f"#!/bin/sh\ncat >> {folder}/told\n")
    command.chmod(0o700)
    hook = _Hook(observed.here)
    try:
        respond = {
            "when": [{"alert": "port-scan", "do": "ban", "time": "10s"}],
            "command": [str(command)],
            "webhook": "http://127.0.0.1:8999/alerts",
        }
        address(observed.there, "10.77.0.77")
        observed.up(guarded(respond=respond), *logs(observed))
        assert pings(observed, THERE)
        scan(observed)
        observed.lab.until(lambda: not pings(observed, THERE), "it is banned")
        banned = time.monotonic()
        assert pings(observed, "10.77.0.77")
        told = check_told(observed, "port-scan", THERE)
        assert told["response"] in BANNED
        observed.lab.until(lambda: hook.came and (folder / "told").exists(), "they are told")
        (shown,) = observed.json("ban", "show", THERE)
        assert (shown["banned"], shown["by"], shown["evidence"]) == (True, "port-scan", told["evidence"])
        observed.lab.until(lambda: pings(observed, THERE), "the ban is over")
        assert 4 < time.monotonic() - banned < 14
    finally:
        hook.close()
    by_command = [json.loads(line) for line in (folder / "told").read_text().splitlines()]
    for came in (by_command, hook.came):
        # Alerts that are told at the same time come in any order.
        (found,) = [each for each in came if each["response"] in BANNED]
        assert (found["kind"], found["source"], found["target"]) == ("port-scan", THERE, HERE)


def test_who_is_the_gateway_is_left_alone(observed: Observed) -> None:
    needs("nmap")
    ip("-n", observed.here.name, "route", "add", "default", "via", THERE)
    observed.up(guarded(respond={"when": [{"alert": "all", "do": "ban"}]}), *logs(observed))
    scan(observed, "-sS")
    told = check_told(observed, "port-scan", THERE)
    assert told["response"] == f"left alone: {THERE} is the gateway's"
    assert pings(observed, THERE)


def test_a_scanner_is_limited(observed: Observed) -> None:
    needs("nmap")
    calls = {"name": "calls", "action": "allow", "direction": "in", "protocol": "udp", "port": 5000}
    observed.up(
        guarded("block", calls, respond={"when": [{"alert": "port-scan", "do": "limit", "time": "30s"}]}),
        *logs(observed),
    )
    before = arrive(observed, 80)
    scan(observed)
    told = check_told(observed, "port-scan", THERE)
    assert told["response"] == f"limited {THERE} for 30 s"
    assert before == 80
    assert arrive(observed, 80) <= 45


def arrive(observed: Observed, count: int) -> int:
    """How many of so many new connections, all at once, come through."""
    with observed.here.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
        receiver.bind((HERE, 5000))
        receiver.settimeout(0.5)

        def send() -> None:
            for _ in range(count):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"x", (HERE, 5000))

        observed.there.call(send)
        found = 0
        try:
            while receiver.recv(10):
                found += 1
        except TimeoutError:
            return found
        return found
