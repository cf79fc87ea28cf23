"""Prompts: many at once, every kind of answer and of packet; what is answered happens, and nothing else does."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.netns.daemon_load import CURL, KNOWN, Attempt, came, count_at, dial, python_copy
from tests.netns.programs_lab import Lab, Watcher, lab  # noqa: F401

from pfw.api import interface as told

pytestmark = pytest.mark.xdist_group("daemon prompts")
PING = "/usr/bin/ping"


def asking(*rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Everything that goes out is asked, but what the kernel says to its neighbours by itself."""
    own = {"name": "kernel", "action": "allow", "direction": "out", "protocol": "icmpv6", "to": "ff02::16"}
    default = {"in": "block", "out": "ask"}
    return {"version": 2, "default": default, "rules": [*rules, own], **fields}


def known_rule(lab: Lab) -> dict[str, Any]:  # noqa: F811
    return {"name": "known", "action": "allow", "direction": "out", "app": str(python_copy(lab, "known"))}


@contextmanager
def known_goes_on(lab: Lab, net: Any) -> Iterator[None]:  # noqa: F811
    """A program that the kernel knows makes connections meanwhile, and neither waits nor loses any."""
    both = f"{net.there},{net.there6}"
    known = dial(lab, python_copy(lab, "known"), "same", both, str(KNOWN), "5", "0.01")
    yield
    attempts: list[Attempt] = known.attempts()
    assert len(attempts) > 10
    assert not [each for each in attempts if each.trouble]
    assert max(each.took_s for each in attempts) < 0.9


def curl(lab: Lab, address: str, port: int = 8080, program: str | Path = CURL, wait_s: int = 15) -> Any:  # noqa: F811
    host = f"[{address}]" if ":" in address else address
    return lab.start(program, "-sS", "-m", str(wait_s), f"http://{host}:{port}/")


def succeeds(process: subprocess.Popen[str]) -> bool:
    out, err = process.communicate(timeout=20)
    assert process.returncode in (0, 7, 28), err
    return out == "yes"


def asked(lab: Lab) -> int:  # noqa: F811
    """How often somebody has been asked so far."""
    status = lab.status_or_none()
    assert status is not None
    return status.counts["asked"]


def reply(lab: Lab, watcher: Watcher, action: str, *more: Any) -> told.Prompt:  # noqa: F811
    """Answer the prompt that waits, and wait until it does so no more."""
    prompt = watcher.next()
    lab.answer(prompt.id, action, *more)
    lab.until(lambda: prompt.id in watcher.gone, "the answer is heard of")
    return prompt


def answered(lab: Lab, watcher: Watcher, started: Any, action: str, *more: Any) -> tuple[told.Prompt, bool]:  # noqa: F811
    """Answer the prompt of what was started; it, and whether that succeeds."""
    return reply(lab, watcher, action, *more), succeeds(started)


def test_five_hundred_at_once(lab: Lab, net: Any) -> None:  # noqa: F811
    """From five programs, to fifty ports of two addresses, over TCP or UDP; answered in any order."""
    count_at(lab)
    programs = [python_copy(lab, f"program{number}") for number in range(5)]
    lab.up(asking(known_rule(lab)))
    chance = random.Random(7846)
    with known_goes_on(lab, net), lab.watching() as watcher:
        running = {}
        for at, program in enumerate(programs):
            first = 20000 + 1000 * at
            ports, kind = f"{first}-{first + 49}", ("tcp", "udp")[at % 2]
            running[str(program)] = dial(lab, program, "many", f"{net.there},{net.there6}", ports, "40", kind)
            assert running[str(program)].line() == "asked"
        lab.until(lambda: len(watcher.prompts) >= 500, "all are asked for")
        prompts = list(watcher.prompts.values())
        assert {each.state for each in prompts} == {"waiting"}
        chance.shuffle(prompts)
        wanted: dict[str, set[int]] = {str(each): set() for each in programs}
        for prompt in prompts:
            assert prompt.program is not None
            assert prompt.port is not None
            assert prompt.program.path is not None
            action = chance.choice(("allow", "block"))
            if action == "allow":
                wanted[prompt.program.path].add(50 * (":" in prompt.remote) + prompt.port % 1000)
            lab.answer(prompt.id, action)
        # Answers have come back by then, and what is sent again has been sent.
        time.sleep(1.5)
        assert {path: set(each.end()) for path, each in running.items()} == wanted
        assert len(watcher.prompts) == 500, "what was sent again was asked again"
    # What was blocked never got out, not even once.
    for at, program in enumerate(programs):
        for port in range(50):
            allowed = sum(port + 50 * family in wanted[str(program)] for family in (0, 1))
            assert bool(came(lab, 20000 + 1000 * at + port)) == bool(allowed)


@pytest.mark.parametrize("unattended", ["block", "allow"])
def test_nobody_is_there(lab: Lab, net: Any, unattended: str) -> None:  # noqa: F811
    lab.up(asking(ask={"timeout": 5, "unattended": unattended}))
    for _ in range(2):
        assert lab.fetches(CURL, net.there, 0.5) is (unattended == "allow")
    (prompt,) = lab.prompts()
    assert (prompt.state, prompt.remote, prompt.port, prompt.held) == ("unanswered", net.there, 8080, 0)
    before = asked(lab)
    lab.answer(prompt.id, "block" if unattended == "allow" else "allow", "time", "exact", 60)
    assert lab.fetches(CURL, net.there, 0.5) is (unattended == "block")
    assert asked(lab) == before, "the kernel knows the answer"
    assert not lab.prompts()


def test_nobody_answers_in_time(lab: Lab, net: Any) -> None:  # noqa: F811
    """It is blocked, also when its packets come again, listed, and can be answered later."""
    lab.up(asking(ask={"timeout": 1, "unattended": "allow"}))
    with lab.watching() as watcher:
        started = curl(lab, net.there, wait_s=2)
        number = watcher.next().id
        lab.until(lambda: watcher.prompts[number].state == "unanswered", "it is given up")
        assert not succeeds(started)
        assert [(each.id, each.state) for each in lab.prompts()] == [(number, "unanswered")]
        assert lab.pfw("ask", "--list").stdout.count(net.there) == 1
        before = asked(lab)
        lab.pfw("ask", "answer", str(number), "allow", "--for", "10m", "--scope", "address")
        assert lab.fetches(CURL, net.there, 0.5)
        assert asked(lab) == before
        assert len(watcher.prompts) == 1
    refused = lab.pfw("ask", "answer", str(number), "allow", status=None)
    assert refused.returncode == 1
    assert str(number) in refused.stderr


SCOPES = {"exact": [0], "address": [0, 1, 2], "port": [0, 3], "anywhere": [0, 1, 2, 3, 4]}
"""Of the places below, which an answer for the first reaches."""


def test_an_answer_reaches_as_far_as_its_scope(lab: Lab, net: Any) -> None:  # noqa: F811
    count_at(lab)
    other = python_copy(lab, "other")
    lab.up(asking())
    places = [(net.there, "9001", "tcp"), (net.there, "9001", "udp"), (net.there, "9002", "tcp"),
              (net.there6, "9001", "tcp"), (net.there6, "9002", "udp")]  # fmt: skip
    with lab.watching() as watcher:
        for scope, reached in SCOPES.items():
            program = python_copy(lab, scope)
            first = dial(lab, program, "many", places[0][0], places[0][1], "10", places[0][2])
            reply(lab, watcher, "allow", "time", scope, 600)
            assert (first.line(), first.line()) == ("asked", [0])
            before = asked(lab)
            again = [dial(lab, program, "many", *places[index][:2], "1", places[index][2]) for index in reached]
            assert [(each.line(), each.line()) for each in again] == [("asked", [0])] * len(again), scope
            assert asked(lab) == before, "the kernel decides"
            others = [dial(lab, program, "many", address, port, "0.3", kind)
                      for index, (address, port, kind) in enumerate(places) if index not in reached]  # fmt: skip
            others += [dial(lab, other, "many", address, port, "0.3", kind) for address, port, kind in places]
            assert [(each.line(), each.line()) for each in others] == [("asked", [])] * len(others), scope
            assert len(lab.prompts()) == len(others), scope
            for prompt in lab.prompts():
                lab.answer(prompt.id, "block")


def test_once_is_for_the_connections_that_wait(lab: Lab, net: Any) -> None:  # noqa: F811
    """For these alone; and packets that come again, before or behind the answer, are not asked again."""
    count_at(lab)
    lab.up(asking())
    with lab.watching() as watcher:
        _, went = answered(lab, watcher, curl(lab, net.there), "allow")
        assert went
        # A SYN that is dropped is sent again after a second.
        _, went = answered(lab, watcher, curl(lab, net.there, wait_s=2), "block")
        assert not went
        assert len(watcher.prompts) == 2
        sending = (
            "import socket,sys\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "s.connect((sys.argv[1], 9001))\n"
            "for _ in range(5): s.send(b'again')\n"
            "input()\n"
            "s.send(b'again')\n"
            "print(s.recv(10), s.recv(10))\n"
        )
        udp = lab.start(python_copy(lab, "udp"), "-I", "-S", "-c", sending, net.there, stdin=subprocess.PIPE)
        lab.until(lambda: repeated(lab) == 4, "all have come")
        reply(lab, watcher, "allow")
        lab.until(lambda: came(lab, 9001) == 1, "the first goes on, and no other")
        assert udp.communicate("\n", timeout=10)[0] == "b'again' b'again'\n"
        assert len(watcher.prompts) == 3


def repeated(lab: Lab) -> int:  # noqa: F811
    """Packets that were dropped since the first of their connection waits."""
    status = lab.status_or_none()
    assert status is not None
    return status.counts["prompts_repeated"]


def test_an_answer_for_a_process_ends_with_it(lab: Lab, net: Any) -> None:  # noqa: F811
    count_at(lab)
    program = python_copy(lab, "program")
    lab.up(asking())
    with lab.watching() as watcher:
        running = dial(lab, program, "same", net.there, str(KNOWN), "10", "0.02")
        reply(lab, watcher, "allow", "program", "anywhere")
        before = came(lab, KNOWN)
        lab.until(lambda: came(lab, KNOWN) > before + 30, "it goes on without being asked")
        assert len(watcher.prompts) == 1
        running.end()
        lab.until(lambda: not elements(lab), "the kernel has forgotten the answer")
        another = dial(lab, program, "many", net.there, str(KNOWN), "0.5", "tcp")
        assert (another.line(), another.line()) == ("asked", [])
        assert len(watcher.prompts) == 2


def elements(lab: Lab) -> list[Any]:  # noqa: F811
    """The answers that the kernel has."""
    told = json.loads(lab.here.run("nft", "-j", "list", "table", "inet", "pfw").stdout)
    sets = [each["set"] for each in told["nftables"] if "set" in each]
    return [each for found in sets if found["name"].startswith("a_") for each in found.get("elem", ())]


def test_an_answer_for_a_time_ends_with_it(lab: Lab, net: Any) -> None:  # noqa: F811
    lab.up(asking())
    with lab.watching() as watcher:
        _, went = answered(lab, watcher, curl(lab, net.there), "allow", "time", "exact", 2)
        assert went
        assert lab.fetches(CURL, net.there)
        assert len(elements(lab)) == 1
        lab.until(lambda: not elements(lab), "its time is over")
        assert not lab.fetches(CURL, net.there, 0.5)
        assert len(watcher.prompts) == 2


def comes_in(lab: Lab, net: Any) -> bool:  # noqa: F811
    def connect() -> bool:
        try:
            with socket.create_connection((net.here, 7000), timeout=0.4) as sock:
                return sock.recv(10) == b"yes"
        except TimeoutError:
            return False

    found: bool = lab.there.call(connect)
    return found


def test_always_becomes_a_rule(lab: Lab, net: Any) -> None:  # noqa: F811
    """Before the rule that asks, in force at once, and taken back by `pfw undo`."""
    server, copy = python_copy(lab, "server"), lab.copy(CURL, "copy")
    asks = {"name": "who", "action": "ask", "direction": "both", "app": [CURL, str(copy), str(server)]}
    first = {"name": "first", "action": "block", "direction": "out", "port": 1, "protocol": "tcp"}
    last = {"name": "last", "action": "block", "direction": "out", "port": 2, "protocol": "tcp"}
    wanted = {"version": 2, "default": {"in": "block", "out": "block"}, "rules": [first, asks, last]}
    lab.up(wanted)
    listening = dial(lab, server, "serve", net.here, "7000")
    assert listening.line() == "listens"

    def goes(program: Path) -> bool:
        return comes_in(lab, net) if program == server else lab.fetches(program, net.there, 0.4)

    answers = {Path(CURL): "allow", copy: "block", server: "allow"}
    with lab.watching() as watcher:
        for program, action in answers.items():
            before = lab.status_or_none()
            assert not goes(program)
            reply(lab, watcher, action, "always", "exact")
            after, asked_before = lab.status_or_none(), asked(lab)
            assert before is not None
            assert after is not None
            assert after.generation > before.generation
            names = [each["name"] for each in json.loads(lab.firewall.path.read_text())["rules"]]
            assert (names[0], names[-2:]) == ("first", ["who", "last"])
            for _ in range(2):
                assert goes(program) is (action == "allow")
            assert asked(lab) == asked_before
        for left in (2, 1, 0):
            lab.pfw("undo", "--rules", str(lab.firewall.path))
            assert len(json.loads(lab.firewall.path.read_text())["rules"]) == 3 + left
        assert json.loads(lab.firewall.path.read_text()) == wanted
        for program in answers:
            assert not goes(program)
            assert watcher.next().program == next(each.program for each in lab.prompts())
            reply(lab, watcher, "block")
    listening.end()


@pytest.mark.parametrize("options", [(), ("--no-labels",)], ids=["labels", "no-labels"])
def test_an_answer_for_one_copy_is_none_for_another(lab: Lab, net: Any, options: tuple[str, ...]) -> None:  # noqa: F811
    """Neither by the kernel nor in the daemon, whichever comes first, and however long both have been known."""
    one, two = lab.copy(CURL, "one"), lab.copy(CURL, "two")
    lab.up(asking(), *options)
    with lab.watching() as watcher:
        for program in (one, two):
            assert not lab.fetches(program, net.there6, 0.3)
        for prompt in list(watcher.prompts.values()):
            lab.answer(prompt.id, "block", "once")
        lab.until(lambda: len(watcher.gone) == 2, "the answers are heard of")
        _, went = answered(lab, watcher, curl(lab, net.there, program=one), "allow", "time", "anywhere", 600)
        assert went
        assert not lab.fetches(two, net.there, 0.5)
        assert watcher.next().program == next(each.program for each in lab.prompts())
        assert not lab.fetches(CURL, net.there, 0.5)
        assert lab.fetches(one, net.there6)


def test_icmp(lab: Lab, net: Any) -> None:  # noqa: F811
    lab.up(asking())
    with lab.watching() as watcher:
        for address, name in ((net.there, "ICMP"), (net.there6, "ICMPv6")):
            pinging = lab.start(PING, "-c", "1", "-W", "8", address)
            prompt = reply(lab, watcher, "allow")
            assert prompt.program is not None
            assert prompt.program.path == PING
            assert (prompt.protocol, prompt.remote, prompt.port) == (name, address, None)
            pinging.communicate(timeout=10)
            assert pinging.returncode == 0
            blocked = lab.start(PING, "-c", "1", "-W", "0.5", address)
            reply(lab, watcher, "block")
            blocked.communicate(timeout=10)
            assert blocked.returncode == 1


def test_who_is_asked_comes_and_goes(lab: Lab, net: Any) -> None:  # noqa: F811
    """Watchers come and go while programs ask: each prompt is heard by the next one, and none is asked twice."""
    count_at(lab)
    program = python_copy(lab, "program")
    lab.up(asking(known_rule(lab), ask={"timeout": 60, "unattended": "block"}))
    with known_goes_on(lab, net), lab.watching() as first:
        running = dial(lab, program, "many", net.there, "20000-20199", "30", "tcp")
        for _ in range(4):
            with lab.watching():
                time.sleep(0.1)
        lab.until(lambda: len(first.prompts) == 200, "all are asked for")
        with lab.watching() as last:
            lab.until(lambda: len(last.prompts) == 200, "the last one hears of them, too")
            for number in sorted(last.prompts):
                lab.answer(number, "allow")
        assert (running.line(), running.line()) == ("asked", list(range(200)))
