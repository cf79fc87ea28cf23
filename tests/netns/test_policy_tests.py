"""Tests of a policy, and the commands that put one in force: who fails one stays out, and what was in force stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.netns.daemon_load import CURL
from tests.netns.firewalling import Firewall, opened, policy
from tests.netns.programs_lab import Lab, lab  # noqa: F401

from pfw.api.messages import ApiError

HOLDS = {"expect": "allow", "in": "udp -> :6001"}
FAILS = {"expect": "allow", "in": "udp -> :6002"}


@pytest.fixture
def on(firewall: Any) -> Firewall:
    """A firewall that is on, with a test that holds."""
    made: Firewall = firewall()
    made.up(policy(opened(6001), tests=[HOLDS]))
    return made


def rules(firewall: Firewall) -> str:
    """What is in the kernel, without what was counted."""
    text: str = firewall.at.run("nft", "-s", "-t", "list", "ruleset").stdout
    return text


def generation(firewall: Firewall) -> str:
    return (firewall.state / "current").read_text()


def test_up_refuses_what_fails_one(on: Firewall) -> None:
    before, was = rules(on), generation(on)
    for options in ((), ("--force",), ("--dry-run",)):
        done = on.up(policy(opened(6001), tests=[HOLDS, FAILS]), *options, status=2)
        assert done.stdout == ""
        assert done.stderr == (
            f"{on.path}:1:{on.path.read_text().rindex('{') + 1}: tests[1]: in udp -> :6002: must be allow, "
            "is block: default in\n"
        )
        assert (rules(on), generation(on)) == (before, was)
    on.up(policy(opened([6001, 6002]), tests=[HOLDS, FAILS]))
    assert generation(on) != was


def test_a_change_of_tests_alone_changes_no_ruleset(on: Firewall) -> None:
    before, was = rules(on), generation(on)
    for tests in ([HOLDS, {**HOLDS, "note": "again"}], [], [HOLDS]):
        done = on.up(policy(opened(6001), tests=tests))
        assert done.stdout.startswith("nothing to do")
        assert (rules(on), generation(on)) == (before, was)
        # What is remembered is the file as it is now.
        assert (on.state / "generations" / f"{was.strip()}.rules").read_text() == on.path.read_text()
    on.up(policy(opened(6001)))
    assert (rules(on), generation(on)) == (before, was)
    assert len(json.loads(on.pfw("history", "--json").stdout)) == 5


def test_a_rule_that_breaks_a_test_does_not_come_in(on: Firewall) -> None:
    before, text = rules(on), on.path.read_text()
    done = on.pfw("block", "in", "udp", "6001", "--rules", on.path, "--first", status=2)
    assert "tests[0]: in udp -> :6001: must be allow, is block" in done.stderr
    assert (rules(on), on.path.read_text()) == (before, text)
    on.pfw("allow", "in", "udp", "6003", "--rules", on.path)
    written = json.loads(on.path.read_text())
    assert written["tests"] == [HOLDS]
    assert len(written["rules"]) == 3
    done = on.pfw("delete", "udp 6001", "--rules", on.path, status=2)
    assert "tests[0]" in done.stderr
    assert json.loads(on.path.read_text()) == written


def test_where_nothing_is_in_force_it_is_only_told(on: Firewall) -> None:
    on.pfw("down")
    done = on.pfw("block", "in", "udp", "6001", "--rules", on.path, "--first")
    assert "tests[0]: in udp -> :6001: must be allow, is block" in done.stderr
    assert "block in udp 6001" in on.path.read_text()
    on.up(status=2)


def test_the_way_back_is_open(on: Firewall) -> None:
    """To what fails a test by now: it was in force, and is told."""
    was = json.loads(on.path.read_text())
    # What was in force a moment ago fails a test today: its rule has an end.
    ended = {**opened(6002), "expires": "2020-01-01T00:00:00Z"}
    older = json.dumps({**was, "rules": [*was["rules"], ended], "tests": [HOLDS, FAILS]})
    for stored in (on.state / "history").glob("*.rules"):
        stored.write_text(older)
    on.pfw("allow", "in", "udp", "6003", "--rules", on.path)
    done = on.pfw("undo", "--rules", on.path)
    assert "in force" in done.stdout
    assert "tests[1]: in udp -> :6002: must be allow, is block" in done.stderr
    assert on.path.read_text() == older


def test_panic_asks_nobody(on: Firewall) -> None:
    on.write(policy(opened(6001), tests=[FAILS]))
    on.pfw("panic")
    on.pfw("panic", "--off")


def test_an_answer_that_would_break_a_test_becomes_no_rule(lab: Lab, net: Any) -> None:  # noqa: F811
    asked = {"name": "asked", "action": "ask", "direction": "out", "protocol": "tcp"}
    test = {"expect": "ask", "out": f"tcp -> {net.there}:8080", "app": CURL}
    lab.up(policy(asked, tests=[test]))
    text = lab.firewall.path.read_text()
    with lab.watching() as watcher:
        fetching = lab.start(CURL, "-sS", "-m", "10", "-o", "/dev/null", f"http://{net.there}:8080/")
        prompt = watcher.next()
        with pytest.raises(
            ApiError, match=r"a test of the policy would fail: .*: tests\[0\]: .* must be ask, is allow"
        ):
            lab.answer(prompt.id, "allow", "always", "anywhere")
        fetching.wait(20)
    assert lab.firewall.path.read_text() == text


def test_a_daemon_that_starts_with_a_file_that_fails(on: Firewall, lab: Lab) -> None:  # noqa: F811
    """A file that somebody named is refused; with the one in force, what is in force stays."""
    on.pfw("down")
    lab.firewall.write(policy(opened(6001), tests=[HOLDS]))
    lab.pfw("up", "--rules", str(lab.firewall.path))
    was = (lab.firewall.state / "current").read_text()
    lab.firewall.write(policy(opened(6002), tests=[HOLDS]))
    words = lab.daemon_words()
    assert "tests[0]" in lab.firewall.run(words, status=2).stderr
    at = words.index("--rules")
    lab.daemon_words = lambda *_: [*words[:at], *words[at + 2 :]]  # type: ignore[method-assign]
    lab.begin()
    assert any("the policy in force stays" in line for line in lab.said)
    assert (lab.firewall.state / "current").read_text() == was
