"""Rules for programs, out: real programs of every make, over every transport. Whoever looks like them is not let out.

Who counts is the file that runs: whoever starts it, however it is linked, however soon it connects. A file without a
name is a program that no rule can name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.netns.programs_lab import WEB, Lab, lab  # noqa: F401
from tests.netns.talkers import Conversation, Talk, Workshop, allow, became, rules, talks, workshop  # noqa: F401

CURL, NC, PYTHON = "/usr/bin/curl", os.path.realpath("/usr/bin/nc"), os.path.realpath("/usr/bin/python3")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
FAST = 8091
BOTH = pytest.mark.parametrize("options", [(), ("--no-labels",)], ids=["labels", "no-labels"])
PYTHON_TALKS = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.2) as sock:
        sock.send(b"hello")
        print(sock.recv(100).decode())
except OSError:
    print("refused")
"""
NAMELESS = """
import os, sys
descriptor = os.memfd_create("talker")
with open(sys.argv[1], "rb") as file:
    os.write(descriptor, file.read())
os.execve(descriptor, sys.argv[1:], os.environ)
"""
GO_TALKS = """
package main

import (
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(os.Args[1], os.Args[2]), 1200*time.Millisecond)
	if err != nil {
		fmt.Println("refused")
		return
	}
	conn.Write([]byte("hello"))
	got := make([]byte, 100)
	size, _ := conn.Read(got)
	fmt.Println(string(got[:size]))
}
"""


Begin = Callable[[Lab, str | Path, str], Talk]


class Said(Talk):
    """A program of others that talks: what it prints ends with the answer, or holds none."""

    @property
    def said(self) -> str:
        out, _ = self.process.communicate(timeout=15)
        return "yes" if out.rstrip().endswith("yes") else "refused"


def fetch(lab: Lab, program: str | Path, address: str) -> Said:  # noqa: F811
    host = f"[{address}]" if ":" in address else address
    return Said(lab.start(program, "-sS", "-m", "1.2", f"http://{host}:{WEB}/"), f"{program} {address}")


def hello(lab: Lab, program: str | Path, address: str) -> Said:  # noqa: F811
    words = ("sh", "-c", 'echo hello | "$@"', "sh", program, "-w", "1", address, str(WEB))
    return Said(lab.start(*words), f"{program} {address}")


def plain(lab: Lab, program: str | Path, address: str) -> Said:  # noqa: F811
    return Said(lab.start(program, address, str(WEB)), f"{program} {address}")


def interpret(lab: Lab, program: str | Path, address: str) -> Said:  # noqa: F811
    words = ("env", "PYTHONHOME=/usr", program, "-c", PYTHON_TALKS, address, str(WEB))
    return Said(lab.start(*words), f"{program} {address}")


def go_program(workshop: Workshop) -> list[tuple[Begin, str]]:  # noqa: F811
    """A static program of Go; none where that is not there."""
    if shutil.which("go") is None:
        return []
    source, program = workshop.folder / "talks.go", workshop.folder / "talks"
    source.write_text(GO_TALKS)
    folders = {name: str(workshop.folder / "go") for name in ("GOCACHE", "GOPATH")}
    environment = {**os.environ, **folders, "CGO_ENABLED": "0", "GO111MODULE": "off"}
    words = ["go", "build", "-o", str(program), str(source)]
    built = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return [(plain, str(program))]


@BOTH
def test_programs_of_the_system(lab: Lab, net: Any, workshop: Workshop, options: tuple[str, ...]) -> None:  # noqa: F811
    """curl, netcat, Python, and where there is Go a static program of that."""
    begins: list[tuple[Begin, str]] = [(fetch, CURL), (hello, NC), (interpret, PYTHON), *go_program(workshop)]
    lab.up(rules(allow("out", [program for _, program in begins])), *options)
    wanted: dict[Talk, bool] = {}
    for address in (net.there, net.there6):
        for begin, program in begins:
            copy = workshop.copy(f"other-{Path(program).name}", program)
            wanted[begin(lab, program, address)] = True
            wanted[begin(lab, copy, address)] = False
    assert became(wanted) == []


@BOTH
def test_at_once_daemonised_setuid_and_without_a_name(
    lab: Lab, net: Any, workshop: Workshop, options: tuple[str, ...]  # noqa: F811
) -> None:  # fmt: skip
    """talker.c connects as the first thing that it does: there is no time in which somebody could look at it."""
    good, bad, setuid = workshop.copy("good"), workshop.copy("bad"), workshop.copy("setuid")
    os.chown(setuid, 5, 60)
    setuid.chmod(0o4755)
    lab.up(rules(allow("out", [str(good), str(setuid)])), *options)
    wanted: dict[Talk, bool] = {}
    for address in (net.there, net.there6):
        for program in (good, bad):
            for how in ("tcp", "daemon"):
                wanted[talks(lab, program, how, address)] = program is good
        wanted[talks(lab, setuid, "tcp", address, before=NOBODY)] = True
        wanted[talks(lab, bad, "tcp", address, before=NOBODY)] = False
        wanted[talks(lab, good, "tcp", address, before=("/usr/bin/python3", "-c", NAMELESS))] = False
    assert became(wanted) == []


def test_a_file_is_deleted_while_it_runs(lab: Lab, net: Any, workshop: Workshop) -> None:  # noqa: F811
    """It is the program that it was, as long as it runs: the one that a rule names, and the one that none does."""
    good, bad = workshop.copy("good"), workshop.copy("bad")
    lab.up(rules(allow("out", str(good))))
    running = {name: Conversation(lab, name, net.there) for name in (good, bad)}
    assert {name.name: each.ask("tcp") for name, each in running.items()} == {"good": "yes", "bad": "refused"}
    good.unlink()
    bad.unlink()
    for how in ("tcp", "udp", "udp-kept"):
        assert running[good].ask(how) == "yes", how
        assert running[bad].ask(how) != "yes", how


HOWS = ("tcp", "tcp-fast", "udp", "udp-connected", "ping", "raw-ping", "raw-udp")


@pytest.fixture
def ping_sockets(lab: Lab) -> None:  # noqa: F811
    """Everybody may open sockets that ping."""
    lab.run("sh", "-c", "echo 0 65534 > /proc/sys/net/ipv4/ping_group_range")


@pytest.mark.usefixtures("ping_sockets")
def test_every_transport(lab: Lab, net: Any, workshop: Workshop) -> None:  # noqa: F811
    good, bad = workshop.copy("good"), workshop.copy("bad")
    lab.up(rules(allow("out", str(good))))
    for round_ in range(2):
        wanted = {
            talks(lab, program, how, address): program is good
            for address in (net.there, net.there6)
            for how in HOWS
            for program in (good, bad)
        }
        assert became(wanted) == [], round_


@pytest.mark.usefixtures("ping_sockets")
def test_every_transport_without_labels(lab: Lab, net: Any, workshop: Workshop) -> None:  # noqa: F811
    """Nobody can say who writes whole packets: that passes for no program then."""
    good, bad = workshop.copy("good"), workshop.copy("bad")
    lab.up(rules(allow("out", str(good))), "--no-labels")
    for program in (good, bad):
        wanted = {
            talks(lab, program, how, address): program is good and how != "raw-udp"
            for address in (net.there, net.there6)
            for how in HOWS
        }
        assert became(wanted) == []


@BOTH
def test_what_a_syn_carries(
    lab: Lab, net: Any, workshop: Workshop, options: tuple[str, ...]  # noqa: F811
) -> None:  # fmt: skip
    """TCP Fast Open: who has been there before sends what it has to say with its first packet."""
    good, bad = workshop.copy("good"), workshop.copy("bad")
    lab.run("sh", "-c", "echo 3 > /proc/sys/net/ipv4/tcp_fastopen")
    lab.there.run("sysctl", "-qw", "net.ipv4.tcp_fastopen=3")
    lab.up(rules(allow("out", str(good))), *options)
    for address in (net.there, net.there6):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with lab.there.call(lambda family=family: socket.socket(family, socket.SOCK_STREAM)) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
            server.bind((address, FAST))
            server.listen()
            server.settimeout(5)
            for program, answered in ((good, True), (good, True), (bad, False), (good, True)):
                talk = talks(lab, program, "tcp-fast", address, port=FAST)
                if answered:
                    connection, _ = server.accept()
                    with connection:
                        assert connection.recv(100) == b"hello"
                        connection.send(b"yes")
                assert (talk.said == "yes") == answered
    counted = lab.there.run("nstat", "-az", "TcpExtTCPFastOpenPassive").stdout.split()
    assert int(counted[counted.index("TcpExtTCPFastOpenPassive") + 1]) == 4


def test_all_programs_below_a_folder(lab: Lab, net: Any, workshop: Workshop) -> None:  # noqa: F811
    """Also one that came there later; not what is beside it, nor what stands there as a link to it."""
    inside, deep, beside = workshop.copy("folder/good"), workshop.copy("folder/deep/good"), workshop.copy("folder2/bad")
    lab.up(rules(allow("out", f"{workshop.folder}/folder/*")))
    later, link = workshop.copy("folder/later"), workshop.folder / "folder/link"
    link.unlink(missing_ok=True)
    link.symlink_to(beside)
    wanted = {
        talks(lab, program, how, address): program in (inside, deep, later)
        for address in (net.there, net.there6)
        for how in ("tcp", "udp")
        for program in (inside, deep, later, beside, link)
    }
    assert became(wanted) == []


@BOTH
def test_a_program_with_what_its_file_holds(
    lab: Lab, net: Any, workshop: Workshop, options: tuple[str, ...]  # noqa: F811
) -> None:  # fmt: skip
    """Whatever else is in the file is another program: put in its place at once, and written over it within seconds."""
    good, elsewhere = workshop.copy("hashed"), workshop.copy("hashed-elsewhere")
    content = good.read_bytes()
    lab.up(rules(allow("out", {"path": str(good), "sha256": hashlib.sha256(content).hexdigest()})), *options)

    def passes() -> bool:
        return became({talks(lab, good, "tcp", address): True for address in (net.there, net.there6)}) == []

    assert passes()
    assert talks(lab, elsewhere, "tcp", net.there).said == "refused"
    workshop.copy("hashed", workshop.other_content())
    assert not passes()
    workshop.copy("hashed")
    assert passes()
    with good.open("ab") as file:
        file.write(b"more")
    lab.until(lambda: not passes(), "the change is noticed")


@BOTH
def test_scripts(lab: Lab, net: Any, workshop: Workshop, options: tuple[str, ...]) -> None:  # noqa: F811
    """Named to the interpreter, or by their first line; neither another script nor code without a file passes."""
    good, bad = workshop.folder / "good.py", workshop.folder / "bad.py"
    for each in (good, bad):
        each.write_text(f"#!/usr/bin/python3\n{PYTHON_TALKS}")
        each.chmod(0o755)
    lab.up(rules(allow("out", "/usr/bin/python3", script=str(good))), *options)
    python, code = "/usr/bin/python3", ("/usr/bin/python3", "-c", PYTHON_TALKS)
    wanted: dict[Talk, bool] = {
        Said(lab.start(*words, address, str(WEB)), f"{words} {address}"): good in words
        for address in (net.there, net.there6)
        for words in ((python, good), (good,), (python, bad), (bad,), code)
    }
    assert became(wanted) == []


@pytest.mark.parametrize("more", [{}, {"user": "root"}], ids=["program", "program-and-user"])
def test_a_socket_that_is_closed_meanwhile(
    lab: Lab, net: Any, workshop: Workshop, more: dict[str, str]  # noqa: F811
) -> None:  # fmt: skip
    """While it is looked up whose a datagram is, its socket is closed. It is not the kernel's own for that."""
    good, bad = workshop.copy("good"), workshop.copy("bad")
    policy = rules({"name": "no", "action": "block", "direction": "out", "app": str(bad), **more})
    lab.up({**policy, "default": {"in": "block", "out": "allow"}}, "--no-labels")
    for address in (net.there, net.there6):
        wanted = {
            talks(lab, bad, "udp-closed", address, before=("env", f"FROM={port}")): False for port in range(6001, 6005)
        }
        wanted[talks(lab, good, "udp", address)] = True
        assert became(wanted) == []
