"""Somebody takes our table, chains or rules away while `pfw daemon` runs: what must not pass is stopped again."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.netns.daemon_load import CURL
from tests.netns.firewalling import CONTROL_PORT, arrived, needs, opened, policy
from tests.netns.programs_lab import Lab, lab  # noqa: F401

REBUILT = re.compile(r"pfw: (\S+) \(process ([0-9]+)\) (.*); rebuilt in ([0-9.]+) s")
BOUND_S = 5.0
"""Generous: how long a busy machine may take. How long it took is printed."""
OPEN, CLOSED = 6001, 6002
BANNED = "203.0.113.7"
YEAR_S = 31_536_000

DAMAGES = {
    "flush ruleset": ("flush ruleset", "deleted our table"),
    "delete table": ("delete table inet pfw", "deleted our table"),
    "flush table": ("flush table inet pfw", "emptied our table"),
    "delete one base chain": ("flush chain inet pfw input; delete chain inet pfw input", "deleted our chain input"),
    "dormant": ("table inet pfw { flags dormant; }", "switched our table off"),
    "deleted jump": ("flush chain inet pfw output", "emptied our chain output"),
}


class Healing:
    """The lab, and what comes through to it."""

    def __init__(self, lab: Lab, net: Any) -> None:  # noqa: F811
        self.lab, self.net = lab, net
        self.stack: list[socket.socket] = []

    def rebuilt(self) -> list[re.Match[str]]:
        return [match for line in self.lab.said if (match := REBUILT.fullmatch(line))]

    def live(self) -> bool:
        """Whether all that is in force is in the kernel, as `pfw status` sees it."""
        found = self.lab.firewall.status()
        return bool(found["active"]) and found.get("intact") is not False

    def harm(self, text: str) -> int:
        """Somebody else's nft; its process."""
        process = subprocess.Popen(
            self.lab.here.command("nft", text), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0, said
        return process.pid

    def heal(self, text: str, times: int = 1) -> re.Match[str]:
        """Do harm, and wait until it is told that it is undone."""
        before = len(self.rebuilt())
        self.harm(text)
        begin = time.monotonic()
        self.lab.until(lambda: len(self.rebuilt()) >= before + times, f"{text!r} is undone")
        print(f"{text!r}: {time.monotonic() - begin:.3f} s until it was told; {self.rebuilt()[-1][0]}")
        return self.rebuilt()[-1]

    @contextmanager
    def receiving(self, port: int) -> Iterator[socket.socket]:
        with self.lab.here.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            sock.bind((self.net.here, port))
            sock.setblocking(False)
            yield sock

    def ban_left(self) -> float:
        told = json.loads(self.lab.here.run("nft", "-j", "list", "set", "inet", "pfw", "ban4").stdout)
        elements = next(each["set"] for each in told["nftables"] if "set" in each)["elem"]
        return float(next(each["elem"]["expires"] for each in elements if each["elem"]["val"] == BANNED))


@pytest.fixture
def healing(lab: Lab, net: Any) -> Healing:  # noqa: F811
    return Healing(lab, net)


@contextmanager
def knocking(lab: Lab, address: str, port: int) -> Iterator[None]:  # noqa: F811
    """Datagrams from the other end, a thousand a second, each with the time at which it was sent."""
    code = (
        "import socket,struct,sys,time\n"
        "sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "while True:\n"
        "  sock.sendto(struct.pack('d', time.monotonic()), (sys.argv[1], int(sys.argv[2])))\n"
        "  time.sleep(0.001)\n"
    )
    process = subprocess.Popen(lab.there.command("/usr/bin/python3", "-I", "-c", code, address, str(port)))
    try:
        yield
    finally:
        process.kill()
        process.wait()


def came(sock: socket.socket) -> int:
    found = 0
    while True:
        try:
            sock.recv(100)
        except BlockingIOError:
            return found
        found += 1


@pytest.mark.parametrize(("text", "what"), DAMAGES.values(), ids=DAMAGES)
def test_what_was_taken_away_comes_back(healing: Healing, text: str, what: str) -> None:
    """And packets that must be stopped are stopped again; they had been coming the whole time."""
    lab, net = healing.lab, healing.net  # noqa: F811
    lab.up(policy(opened(OPEN)))
    lab.pfw("ban", "add", BANNED, "--for", "1h")
    before = healing.ban_left()
    with healing.receiving(CLOSED) as closed, healing.receiving(OPEN) as passing, knocking(lab, net.here, CLOSED):
        time.sleep(0.3)
        assert came(closed) == 0
        begin = time.monotonic()
        told = healing.heal(text)
        took_s = time.monotonic() - begin
        leaked = came(closed)
        print(f"{leaked} datagrams came while it was gone")
        assert (told[1], told[3]) == ("nft", what)
        assert took_s < BOUND_S
        time.sleep(0.3)
        assert came(closed) == 0, "what is closed is open"
        with lab.there.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            sock.sendto(b"x", (net.here, OPEN))
        lab.until(lambda: came(passing), "what is allowed comes through")
    assert healing.live()
    assert before - BOUND_S - took_s - 5 <= healing.ban_left() <= before
    assert not [line for line in lab.said if "error" in line], lab.said


def test_who_did_it_is_told(healing: Healing) -> None:
    healing.lab.up(policy())
    process = healing.harm("flush ruleset")
    healing.lab.until(healing.rebuilt, "it is undone")
    # `ip netns exec` becomes the program that it starts.
    assert healing.rebuilt()[0][2] == str(process)


def test_it_is_not_fought_where_it_was_meant(healing: Healing) -> None:
    """`pfw down` by hand takes all out, and it stays out; `pfw up` brings another policy, and nobody another back."""
    lab = healing.lab  # noqa: F811
    lab.up(policy(opened(OPEN)))
    lab.pfw("down")
    time.sleep(2.5)  # longer than it is between two looks
    assert not healing.lab.here.run("nft", "list", "ruleset").stdout
    lab.pfw("up", "--rules", str(lab.firewall.path))
    for number in range(20):
        lab.firewall.write(policy(opened(7000 + number)))
        lab.pfw("up", "--rules", str(lab.firewall.path))
    time.sleep(0.5)
    assert not [line for line in lab.said if "rebuilt" in line or "error" in line], lab.said
    assert healing.live()
    assert "7019" in lab.here.run("nft", "list", "table", "inet", "pfw").stdout


def test_a_policy_that_waits_to_be_confirmed(healing: Healing) -> None:
    """With its table gone it is over: what was in force before comes back, and the guard lets it be."""
    lab = healing.lab  # noqa: F811
    lab.up(policy(opened(OPEN)))
    lab.firewall.write(policy(opened(CLOSED)))
    lab.pfw("up", "--rules", str(lab.firewall.path), "--confirm", "3")
    healing.heal("flush ruleset")
    without_what_ages = ("nft", "--stateless", "--terse", "list", "table", "inet", "pfw")
    text = lab.here.run(*without_what_ages).stdout
    assert str(OPEN) in text
    assert str(CLOSED) not in text
    time.sleep(3.5)
    assert lab.here.run(*without_what_ages).stdout == text
    assert healing.live()
    lab.pfw("confirm", status=1)


def test_somebody_brings_an_older_ruleset_of_ours(healing: Healing) -> None:
    """As `systemctl restart nftables` does with a file that was saved too early."""
    lab = healing.lab  # noqa: F811
    lab.up(policy(opened(OPEN)))
    saved = lab.here.run("nft", "list", "ruleset").stdout
    lab.firewall.write(policy(opened(CLOSED)))
    lab.pfw("up", "--rules", str(lab.firewall.path))
    old = lab.folder / "saved.nft"
    old.write_text(f"flush ruleset\n{saved}")
    lab.here.run("nft", "-f", str(old))
    lab.until(healing.rebuilt, "it is undone")
    assert healing.live()
    assert str(CLOSED) in lab.here.run("nft", "list", "table", "inet", "pfw").stdout


def test_a_connection_goes_on(healing: Healing) -> None:
    lab, net = healing.lab, healing.net  # noqa: F811
    lab.up(policy(opened(OPEN, "tcp")))
    with (
        lab.here.call(lambda: socket.create_server((net.here, OPEN))) as server,
        lab.there.call(lambda: socket.create_connection((net.here, OPEN), timeout=5)) as client,
    ):
        served, _ = server.accept()
        with served:
            for text in ("flush ruleset", "flush table inet pfw"):
                healing.heal(text)
                client.sendall(b"x" * 100_000)
                received = 0
                while received < 100_000:
                    received += len(served.recv(65536))
                served.sendall(b"y")
                assert client.recv(10) == b"y"


def test_an_answer_comes_back_with_the_table(healing: Healing) -> None:
    lab, net = healing.lab, healing.net  # noqa: F811
    rule = {"name": "asked", "action": "ask", "direction": "out", "protocol": "tcp"}
    lab.up(policy(rule, default={"in": "block", "out": "allow", "forward": "block"}))
    with lab.watching() as watcher:
        fetching = lab.start(CURL, "-sS", "-m", "10", "-o", "/dev/null", f"http://{net.there}:8080/")
        prompt = watcher.next()
        lab.answer(prompt.id, "allow", "time", "anywhere", 600)
        assert fetching.wait(20) == 0
    healing.heal("flush ruleset")
    lab.until(lambda: "expires" in lab.here.run("nft", "list", "set", "inet", "pfw", "a_out_allow_any").stdout,
              "the answer is in the kernel")  # fmt: skip
    assert lab.fetches(CURL, net.there)


def test_whoever_never_tires(healing: Healing) -> None:
    """Once a second ten times, then once a minute, and that is said once."""
    lab = healing.lab  # noqa: F811
    lab.up(policy())
    for number in range(10):
        told = healing.heal("delete table inet pfw")
        assert len(healing.rebuilt()) == number + 1
        assert told[3] == "deleted our table"
    begin = time.monotonic()
    healing.harm("delete table inet pfw")
    lab.until(lambda: any("once a minute" in line for line in lab.said), "it is said")
    time.sleep(2.5)
    assert len(healing.rebuilt()) == 10
    assert len([line for line in lab.said if "once a minute" in line]) == 1
    assert time.monotonic() - begin < 50
    # A person is not kept waiting.
    lab.pfw("up", "--rules", str(lab.firewall.path))
    assert healing.live()


@pytest.mark.parametrize("backend", ["iptables-nft", "iptables-legacy"])
def test_iptables_is_looked_at(healing: Healing, backend: str) -> None:
    """There are no events: every 2 s somebody looks."""
    lab, net = healing.lab, healing.net  # noqa: F811
    needs(backend, lab.here)
    lab.firewall.backend = backend
    lab.firewall.up(policy(opened(OPEN)))
    lab.begin()
    lab.pfw("ban", "add", BANNED, "--for", "1h")
    for words in (("-F", "INPUT"), ("-F",)):
        before = len(lab.said)
        lab.here.run(backend, *words)
        begin = time.monotonic()
        lab.until(lambda before=before: any("rebuilt in" in line for line in lab.said[before:]), "it is rebuilt")
        print(f"{backend} {words}: {time.monotonic() - begin:.3f} s; {lab.said[-1]}")
        assert healing.live()
        assert arrived(lab.here, lab.there, (OPEN, CLOSED), (net.here,)) == {(net.here, OPEN), (net.here, CONTROL_PORT)}
        assert BANNED in lab.here.run("ipset", "list").stdout
    lab.pfw("down")
    time.sleep(2.5)
    assert "PFW" not in lab.here.run(f"{backend}-save").stdout


def test_the_clock_is_set(healing: Healing) -> None:
    """By a year, forth and back: nothing of it waits for that."""
    lab = healing.lab  # noqa: F811
    fake, offset = lab.folder / "fake", lab.folder / "offset"
    fake.mkdir()
    offset.write_text(str(YEAR_S))
    (fake / "sitecustomize.py").write_text(
        f"import time\nreal = time.time\ntime.time = lambda: real() + float(open({str(offset)!r}).read())\n"
    )
    lab.firewall.environment["PYTHONPATH"] = f"{fake}:{lab.firewall.environment['PYTHONPATH']}"
    lab.up(policy(opened(OPEN)))
    status = lab.status_or_none()
    assert status is not None
    assert abs(status.started - time.time() - YEAR_S) < 600, "it goes by another clock"
    for jump_s in (0, -YEAR_S, YEAR_S):
        (lab.folder / "offset.new").write_text(str(jump_s))
        (lab.folder / "offset.new").replace(offset)
        began = time.monotonic()
        healing.heal("flush ruleset")
        assert time.monotonic() - began < BOUND_S
        assert healing.live()


def test_what_happens_around_it(healing: Healing) -> None:
    """Interfaces come and go while it runs, and it heals as before."""
    lab = healing.lab  # noqa: F811
    lab.up(policy(opened(OPEN, interface="extra*")))
    for number in range(3):
        lab.here.run("ip", "link", "add", f"extra{number}", "type", "veth", "peer", "name", f"extrb{number}")
        lab.here.run("ip", "link", "set", f"extra{number}", "up")
        healing.heal("flush ruleset")
        lab.here.run("ip", "link", "del", f"extra{number}")
        healing.heal("flush table inet pfw")
    assert healing.live()
    assert lab.end(signal.SIGTERM) == 0
    assert not [line for line in lab.said if "error" in line], lab.said
