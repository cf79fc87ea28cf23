"""The agent as it runs: a real process between a real bus and a daemon's socket."""

from __future__ import annotations

import shutil
import signal
import subprocess

import pytest

from pfw.api import interface as api

from .conftest import WAIT_S, prompt, until
from .notification_server import NAME, PATH


def answer(number: int, action: str, lasting: str, seconds: int | None = None) -> api.AnswerParameters:
    return api.AnswerParameters(id=number, action=action, lasting=lasting, scope="exact", seconds=seconds)


def ended(process: subprocess.Popen) -> int:
    return process.wait(WAIT_S)


@pytest.fixture
def server(desk):
    return desk.server()


@pytest.fixture
def firewall(desk):
    made = desk.daemon()
    made.prompts[7] = prompt(7)
    return made


@pytest.fixture
def agent(desk, server, firewall):
    process = desk.agent()
    until(lambda: server.shown)
    return process


def only(server) -> int:
    (notification_id,) = server.shown
    return notification_id


class TestAnswers:
    def test_what_is_shown(self, agent, server):
        shown = server.shown[only(server)]
        assert shown["summary"] == "curl wants to connect to 192.0.2.1"
        assert "/usr/bin/curl" in shown["body"]
        assert shown["hints"]["urgency"] == ("y", 2)
        assert shown["expires_ms"] == 0
        assert shown["actions"][::2] == ["allow-once", "allow-always", "block-always", "allow-hour", "block-once"]

    @pytest.mark.parametrize(
        ("key", "expected"),
        [
            ("allow-once", answer(7, "allow", "once")),
            ("allow-hour", answer(7, "allow", "time", 3600)),
            ("allow-always", answer(7, "allow", "always")),
            ("block-once", answer(7, "block", "once")),
            ("block-always", answer(7, "block", "always")),
        ],
    )
    def test_a_button(self, agent, server, firewall, key, expected):
        server.press(only(server), key)
        until(lambda: firewall.answers)
        assert firewall.answers == [expected]

    def test_a_server_that_leaves_it_open_is_told_to_close_it(self, agent, server, firewall):
        server.press(only(server), "allow-once", closes=False)
        until(lambda: not server.shown)
        assert firewall.answers == [answer(7, "allow", "once")]

    @pytest.mark.parametrize("key", ["default", "allow", "allow-once\n", ""])
    def test_what_is_no_button_answers_nothing(self, agent, server, firewall, key):
        server.press(only(server), key, closes=False)
        server.press(only(server), "block-once")
        until(lambda: firewall.answers)
        assert firewall.answers == [answer(7, "block", "once")]

    def test_closing_answers_nothing_and_does_not_ask_again(self, agent, server, firewall):
        server.dismiss(only(server))
        firewall.publish(prompt(7, held=2), prompt(8))
        until(lambda: server.shown)
        server.press(only(server), "block-once")
        until(lambda: firewall.answers)
        assert firewall.answers == [answer(8, "block", "once")]

    def test_refused(self, agent, server, firewall):
        firewall.refusal = api.Refused(says="the disk is <full>")
        server.press(only(server), "allow-always")
        until(lambda: len(server.shown) == 2)
        assert sorted(server.summaries) == ["Firewall: the answer was not taken", "curl wants to connect to 192.0.2.1"]
        assert "the disk is &lt;full&gt;" in [each["body"] for each in server.shown.values()]

    def test_answered_by_somebody_else_meanwhile(self, agent, server, firewall):
        firewall.refusal = api.NoSuchPrompt(id=7)
        server.press(only(server), "allow-always")
        until(lambda: server.summaries == ["Firewall: the answer was not taken"], server.shown)


class TestWhoIsBelieved:
    """Every program on the bus can send signals: only the server's are presses."""

    @pytest.mark.skipif(shutil.which("gdbus") is None, reason="no gdbus here")
    def test_a_strangers_press_to_all(self, desk, agent, server, firewall):
        subprocess.run(
            ["gdbus", "emit", f"--address={desk.bus.address}", f"--object-path={PATH}",
             f"--signal={NAME}.ActionInvoked", f"uint32 {only(server)}", "allow-always"], check=True,
        )  # fmt: skip
        server.press(only(server), "block-once")
        until(lambda: firewall.answers)
        assert firewall.answers == [answer(7, "block", "once")]

    @pytest.mark.skipif(shutil.which("dbus-send") is None, reason="no dbus-send here")
    @pytest.mark.parametrize(
        ("member", "argument"), [("ActionInvoked", "string:allow-always"), ("NotificationClosed", "uint32:2")]
    )
    def test_a_strangers_signal_to_the_agent(self, desk, agent, server, firewall, member, argument):
        subprocess.run(
            ["dbus-send", f"--bus={desk.bus.address}", "--type=signal", "--dest=org.pfw.Agent", PATH,
             f"{NAME}.{member}", f"uint32:{only(server)}", argument], check=True,
        )  # fmt: skip
        server.press(only(server), "block-once")
        until(lambda: firewall.answers)
        assert firewall.answers == [answer(7, "block", "once")]

    @pytest.mark.skipif(shutil.which("dbus-send") is None, reason="no dbus-send here")
    def test_calls_are_answered_with_an_error(self, desk, agent):
        done = subprocess.run(
            ["dbus-send", f"--bus={desk.bus.address}", "--print-reply", "--dest=org.pfw.Agent", "/", "org.example.Do"],
            capture_output=True, text=True, check=False, timeout=WAIT_S,
        )  # fmt: skip
        assert "UnknownMethod" in done.stderr


class TestPrompts:
    def test_gone(self, agent, server, firewall):
        firewall.publish(prompt(8, remote="192.0.2.2"), gone=(7,))
        until(lambda: server.summaries == ["curl wants to connect to 192.0.2.2"], server.shown)

    def test_more_packets_change_nothing(self, agent, server, firewall):
        firewall.publish(prompt(7, held=5), prompt(8))
        until(lambda: len(server.shown) == 2)
        assert server.notified == 2

    def test_unanswered_in_time(self, agent, server, firewall):
        number = only(server)
        firewall.publish(prompt(7, state="unanswered", until=None))
        until(lambda: server.shown[number]["hints"]["urgency"] == ("y", 1))
        assert only(server) == number
        assert server.keys(number) == ["allow-always", "block-always", "allow-hour"]

    def test_thirty(self, agent, server, firewall):
        firewall.publish(*(prompt(number, port=number) for number in range(8, 37)))
        until(lambda: "10 more wait: pfw ask" in server.summaries)
        assert len(server.shown) == 21
        firewall.publish(gone=tuple(range(7, 16)))
        until(lambda: "1 more waits: pfw ask" in server.summaries)
        firewall.publish(gone=(16,))
        until(lambda: len(server.shown) == 20 and not any("more" in each for each in server.summaries))
        firewall.publish(gone=tuple(range(17, 37)))
        until(lambda: not server.shown)
        assert server.most == 21

    def test_hostile_names(self, agent, server, firewall):
        name = "/tmp/<b>\x1b[31m&amp;\u202e\n" + "x" * 3000
        program = api.Program(pid=7, path=name, shown="", command=(), user="<a>", uid=0, parents=("<i>\0",))
        firewall.publish(prompt(8, program=program, host="<img src='x'>.example", service="&x;"), gone=(7,))
        until(lambda: server.summaries and "curl" not in server.summaries[0])
        shown = server.shown[only(server)]
        text = shown["summary"] + shown["body"].replace("\n", "")
        assert text.isprintable()
        assert len(text) < 1500
        assert "<" not in shown["body"]
        assert "&lt;img src='x'&gt;.example" in shown["body"]
        assert "&lt;b&gt;\\x1b[31m&amp;amp;" in shown["body"]


class TestServers:
    def test_without_actions(self, desk, firewall):
        server = desk.server(("body",))
        desk.agent()
        until(lambda: server.shown)
        shown = server.shown[only(server)]
        assert shown["actions"] == []
        assert "pfw ask answer 7 allow" in shown["body"]

    def test_another_one_takes_over(self, desk, agent, server, firewall):
        server.stop()
        until(lambda: all(each.closed for each in firewall.listeners))
        other = desk.server(("body", "actions"))
        until(lambda: other.shown)
        other.press(only(other), "allow-once")
        until(lambda: firewall.answers)
        assert firewall.answers == [answer(7, "allow", "once")]

    def test_nobody_is_there_to_be_asked_until_there_is_one(self, desk, firewall):
        desk.agent()
        until(lambda: desk.told)
        assert desk.told == [
            "pfw: nothing shows notifications here (org.freedesktop.DBus.Error.ServiceUnknown); waiting until "
            "something does"
        ]
        assert firewall.server.connections == 0
        server = desk.server()
        until(lambda: server.shown)

    def test_alerts(self, agent, server, firewall):
        until(lambda: firewall.alerted)
        firewall.alert("scan", "198.51.100.7 knocks at <many> ports\n")
        until(lambda: len(server.shown) == 2)
        shown = next(each for each in server.shown.values() if each["summary"] == "Firewall: scan")
        assert shown["body"] == "198.51.100.7 knocks at &lt;many&gt; ports\\x0a"
        assert shown["hints"]["urgency"] == ("y", 1)
        assert shown["expires_ms"] == -1


class TestEnds:
    def test_the_bus_goes_away(self, desk, agent):
        desk.bus.stop()
        assert ended(agent) == 3
        assert [line.startswith("pfw: the session bus has gone") for line in desk.told] == [True]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_a_signal_closes_what_is_shown(self, desk, agent, server, number):
        agent.send_signal(number)
        assert ended(agent) == 0
        until(lambda: not server.shown)
        assert desk.told == []

    def test_the_daemon_restarts(self, desk, agent, server, firewall):
        firewall.stop()
        until(lambda: not server.shown)
        firewall.prompts = {7: prompt(7, remote="192.0.2.9")}
        firewall.start()
        until(lambda: server.summaries == ["curl wants to connect to 192.0.2.9"], desk.told)
        first, second = desk.told
        assert first.startswith("pfw: the firewall's daemon is not there (")
        assert second == "pfw: the firewall's daemon is there again"
        server.press(only(server), "block-once")
        until(lambda: firewall.answers)

    def test_the_daemon_comes_later(self, desk, server):
        desk.agent()
        until(lambda: desk.told)
        desk.daemon().prompts[1] = prompt(1)
        until(lambda: server.shown)
        assert len(desk.told) == 2

    def test_who_may_not_answer(self, desk, server, folder):
        desk.daemon()
        process = desk.agent(uid=65534)
        assert ended(process) == 3
        (line,) = desk.told
        assert line.startswith("pfw: only root and the members of the group pfw may answer; to join: sudo usermod")

    def test_one_a_session(self, desk, agent):
        assert ended(desk.agent()) == 0
        assert desk.told == ["pfw: an agent runs in this session already"]

    def test_no_bus(self, desk, folder):
        desk.bus.stop()
        assert ended(desk.agent()) == 3
        assert "cannot be used" in desk.told[0]
