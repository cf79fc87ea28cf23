"""Answers and what they reach: no further than what was asked, by whom, and only as long as the policy asks it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.netns.attacking import NOBODY, as_user, tmp_path  # noqa: F401
from tests.netns.programs_lab import Lab, Watcher, lab  # noqa: F401

from pfw.api import interface as told
from pfw.api.messages import ApiError

pytestmark = pytest.mark.xdist_group("daemon answers")

PYTHON = os.path.realpath("/usr/bin/python3")
FETCH = """
import socket, sys
with socket.create_connection((sys.argv[1], 8080), timeout=float(sys.argv[2])) as sock:
    sock.send(b"x")
    print("reached" if sock.recv(99) else "")
"""
SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(float(sys.argv[2]))
    sock.sendto(b"hidden", (sys.argv[1], 8080))
    print("reached" if sock.recv(99) else "")
"""
ONE, OTHER = 1234, 4321


def policy(*rules: dict[str, Any], out: str = "block", **fields: Any) -> dict[str, Any]:
    return {"version": 2, "default": {"in": "block", "out": out}, "rules": list(rules), **fields}


def rule(name: str, action: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "action": action, "direction": "out", "app": PYTHON, **fields}


def start(lab: Lab, net: Any, user: int, *script: str | Path, wait_s: float = 20) -> subprocess.Popen[str]:  # noqa: F811
    words = script or ("-c", FETCH)
    return lab.start(*as_user(user), PYTHON, *words, net.there, str(wait_s))


def reaches(lab: Lab, net: Any, user: int, *script: str | Path, wait_s: float = 0.7) -> bool:  # noqa: F811
    return succeeds(start(lab, net, user, *script, wait_s=wait_s))


def succeeds(started: subprocess.Popen[str]) -> bool:
    out, err = started.communicate(timeout=30)
    assert out == "reached\n" or "Error" in err, (out, err)
    return out == "reached\n"


def ask(lab: Lab, net: Any, watcher: Watcher, *answer: Any, user: int = NOBODY, script: Any = ()) -> told.Prompt:  # noqa: F811
    """Let a program ask, and allow it so; it is reached."""
    asking = start(lab, net, user, *script)
    prompt = watcher.next()
    lab.answer(prompt.id, "allow", *answer)
    lab.until(lambda: prompt.id in watcher.gone, "the answer is heard of")
    assert succeeds(asking)
    return prompt


def put_in_force(lab: Lab, wanted: dict[str, Any]) -> None:  # noqa: F811
    lab.firewall.write(wanted)
    lab.pfw("up", "--rules", str(lab.firewall.path))


def scripts(lab: Lab, *names: str) -> list[Path]:  # noqa: F811
    found = [lab.folder / name for name in names]
    for each in found:
        each.write_text(FETCH)
    return found


def test_always_for_one_user_is_none_for_others(lab: Lab, net: Any) -> None:  # noqa: F811
    lab.up(policy(rule("some ask", "ask", user=["nobody", str(ONE)]), rule("others never", "block")))
    with lab.watching() as watcher:
        ask(lab, net, watcher, "always", "anywhere")
        assert reaches(lab, net, NOBODY)
        assert not reaches(lab, net, OTHER)
        assert not watcher.prompts.keys() - watcher.gone
        assert not reaches(lab, net, ONE)
        assert watcher.next().rule == "some ask"
    written = json.loads(lab.firewall.path.read_text())["rules"]
    assert [each["name"] for each in written[1:]] == ["some ask", "others never"]
    assert (written[0]["action"], written[0]["user"]) == ("allow", "nobody")


@pytest.mark.parametrize("answer", [("always", "anywhere"), ("time", "anywhere", 600)], ids=["always", "time"])
def test_an_answer_for_one_script_is_none_for_others(lab: Lab, net: Any, answer: tuple[Any, ...]) -> None:  # noqa: F811
    first, second, third = scripts(lab, "a.py", "b.py", "c.py")
    asking = [rule("a", "ask", script=str(first)), rule("b", "ask", script=str(second))]
    lab.up(policy(*asking, rule("others never", "block")))
    with lab.watching() as watcher:
        assert ask(lab, net, watcher, *answer, script=(first,)).rule == "a"
        assert reaches(lab, net, NOBODY, first)
        assert not reaches(lab, net, NOBODY, third)
        assert not watcher.prompts.keys() - watcher.gone
        assert not reaches(lab, net, NOBODY, second)
        assert watcher.next().rule == "b"


def test_an_answer_for_a_time_is_for_the_user_that_the_rule_names(lab: Lab, net: Any) -> None:  # noqa: F811
    """Neither is it for the others of that rule, nor is one of the default for those whom a rule asks about."""
    lab.up(policy(rule("some ask", "ask", user=["nobody", str(ONE)]), out="ask"))
    with lab.watching() as watcher:
        assert ask(lab, net, watcher, "time", "anywhere", 600, user=NOBODY).rule == "some ask"
        assert ask(lab, net, watcher, "time", "anywhere", 600, user=OTHER).rule == "default out"
        assert reaches(lab, net, NOBODY)
        assert reaches(lab, net, OTHER + 1)
        assert not watcher.prompts.keys() - watcher.gone
        assert not reaches(lab, net, ONE)
        assert watcher.next().rule == "some ask"


def test_users_do_not_share_a_prompt(lab: Lab, net: Any) -> None:  # noqa: F811
    lab.up(policy(out="ask", ask={"timeout": 3}))
    with lab.watching() as watcher:
        one, other = (start(lab, net, user, wait_s=6) for user in (ONE, OTHER))
        lab.until(lambda: len(watcher.prompts) == 2, "both are asked about")
        by_user = {each.program.uid: each for each in watcher.prompts.values() if each.program is not None}
        assert by_user.keys() == {ONE, OTHER}
        lab.answer(by_user[ONE].id, "allow")
        lab.until(lambda: watcher.prompts[by_user[OTHER].id].state == "unanswered", "nobody answers")
        assert (succeeds(one), succeeds(other)) == (True, False)
        assert not reaches(lab, net, OTHER)
        assert len(watcher.prompts) == 2
        ask(lab, net, watcher, user=NOBODY)


@pytest.mark.parametrize("script", [FETCH, SEND], ids=["tcp", "udp"])
def test_an_answer_lets_nothing_through_that_the_policy_forbids_by_now(lab: Lab, net: Any, script: str) -> None:  # noqa: F811
    lab.up(policy(out="ask"))
    with lab.watching() as watcher:
        waiting = start(lab, net, NOBODY, "-c", script, wait_s=5)
        number = watcher.next().id
        put_in_force(lab, policy(out="block"))
        with pytest.raises(ApiError, match="NoSuchPrompt"):
            lab.answer(number, "allow")
        assert not lab.prompts()
        assert not succeeds(waiting)


def test_nothing_is_let_through_when_it_is_panic(lab: Lab, net: Any) -> None:  # noqa: F811
    lab.up(policy(out="ask"))
    with lab.watching() as watcher:
        waiting = start(lab, net, NOBODY)
        number = watcher.next().id
        lab.pfw("panic")
        for answer in (("once",), ("time", "anywhere", 60), ("always",)):
            with pytest.raises(ApiError, match="it is panic"):
                lab.answer(number, "allow", *answer)
        refused = lab.pfw("ask", "answer", str(number), "allow", status=3)
        assert "pfw panic --off" in refused.stderr
        assert waiting.poll() is None
        lab.pfw("panic", "--off")
        # The kernel has dropped what waited, as it does where a chain goes.
        lab.answer(number, "allow", "time", "exact", 60)
        assert reaches(lab, net, NOBODY)
        waiting.kill()


def test_a_question_that_the_policy_does_not_ask_any_more_becomes_no_rule(lab: Lab, net: Any) -> None:  # noqa: F811
    """Neither one of which nobody heard an answer in time, nor one that another rule asks by now."""
    lab.up(policy(out="ask", ask={"timeout": 1}))
    with lab.watching() as watcher:
        assert not reaches(lab, net, OTHER, wait_s=2)
        (number,) = watcher.prompts
        lab.until(lambda: watcher.prompts[number].state == "unanswered", "nobody answers")
        put_in_force(lab, policy(out="block"))
        before = lab.firewall.path.read_text()
        with pytest.raises(ApiError, match="NoSuchPrompt"):
            lab.answer(number, "allow", "always", "anywhere")
        assert lab.firewall.path.read_text() == before
        assert number in watcher.gone
        put_in_force(lab, policy(out="ask"))
        waiting = start(lab, net, OTHER)
        number = watcher.next().id
        put_in_force(lab, policy(rule("some", "ask"), out="ask"))
        lab.until(lambda: number in watcher.gone, "it is asked anew")
        prompt = watcher.next()
        assert prompt.rule == "some"
        lab.answer(prompt.id, "allow")
        assert succeeds(waiting)


def test_a_prompt_goes_on_waiting_while_the_policy_asks_it(lab: Lab, net: Any) -> None:  # noqa: F811
    lab.up(policy(out="ask"))
    with lab.watching() as watcher:
        waiting = start(lab, net, NOBODY, "-c", SEND)
        number = watcher.next().id
        put_in_force(lab, policy({"name": "new", "action": "block", "direction": "in", "port": 9}, out="ask"))
        lab.answer(number, "allow")
        assert succeeds(waiting)


def test_a_number_of_before_means_nothing_to_another_daemon(lab: Lab, net: Any) -> None:  # noqa: F811
    lab.up(policy(out="ask"))
    with lab.watching() as watcher:
        first = start(lab, net, ONE)
        number = watcher.next().id
        first.kill()
    lab.end()
    lab.begin()
    with lab.watching() as watcher:
        second = start(lab, net, OTHER)
        prompt = watcher.next()
        assert prompt.id > number or prompt.id < 1000
        refused = lab.pfw("ask", "answer", str(number), "allow", "--for", "1h", "--scope", "anywhere", status=1)
        assert refused.stdout == ""
        done = lab.pfw("ask", "answer", str(prompt.id), "allow")
        assert re.match(f"allowed: this once, exactly this: {PYTHON}, out {net.there}:8080$", done.stdout)
        assert succeeds(second)
