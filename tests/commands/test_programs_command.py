"""`pfw apps`, `connections`, `why`: a real server, pipes and terminals."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time

import pytest
from msgspec.structs import replace

from pfw.api import interface as api

from .made_up import CURL, EVIL, RAW, SSHD, command, connection
from .made_up import daemon as daemon
from .made_up import environment as environment
from .made_up import pfw as pfw
from .made_up import run_folder as run_folder
from .made_up import terminal as terminal

IN = {"direction": "in", "local_port": 22, "remote_port": 50000, "program": SSHD, "rule": "ssh"}


def app(path: str, **more) -> api.App:
    settings = {"seen": time.time() - 3700, "processes": 1, "connections": 0, "rules": (), "verdicts": {}}
    return api.App(path=path, **settings | more)


class TestApps:
    def test_table(self, pfw, daemon):
        daemon.apps = (
            app("/usr/bin/idle", seen=0.0),
            app("/usr/bin/curl", verdicts={"block": 2, "allow": 1200}),
            app(EVIL, connections=3, rules=("web", EVIL)),
        )
        done = pfw("apps")
        head, *lines = done.stdout.splitlines()
        assert done.returncode == 0
        assert re.split("  +", head) == ["program", "connections", "processes", "last seen", "verdicts", "rules"]
        assert lines[0].startswith("/tmp/\\x1b]0;owned")
        assert re.split("  +", lines[1]) == ["/usr/bin/curl", "0", "1", "1 h 1 min ago", "allow 1,200, block 2", "-"]
        assert re.split("  +", lines[2]) == ["/usr/bin/idle", "0", "1", "-", "-", "-"]

    def test_none(self, pfw, daemon):
        assert pfw("apps").stdout == "no program was seen on the network yet\n"

    def test_json(self, pfw, daemon):
        daemon.apps = (app("/a", seen=0.0, label=3), app("/b", seen=1795399500.25))
        first, second = json.loads(pfw("apps", "--json").stdout)
        assert (first["path"], first["seen"]) == ("/b", "2026-11-23T02:05:00.250000Z")
        assert (second["path"], second["seen"], second["label"], second["verdicts"]) == ("/a", None, 3, {})


class TestConnections:
    def test_table_by_program(self, pfw, daemon):
        daemon.connections = (
            connection(53, protocol="udp", program=None, certainty=None, rule=None, sent_bytes=None),
            connection(**IN),
            connection(443, certainty="guess", since=time.time() - 65),
            connection(8443, local="2001:db8::5", remote="2001:db8::9"),
        )
        head, *lines = pfw("connections").stdout.splitlines()
        assert head.split()[:6] == ["program", "dir", "protocol", "remote", "local", "state"]
        assert [line.split()[0] for line in lines] == ["/usr/bin/curl", "/usr/bin/curl", "/usr/sbin/sshd", "-"]
        assert "/usr/bin/curl ?  out  tcp       192.0.2.1:443" in lines[0]
        assert re.search(" 1 min [5-9] s ", lines[0])
        assert "[2001:db8::9]:8443  [2001:db8::5]:40000" in lines[1]
        assert "192.0.2.1:50000     192.168.1.5:22" in lines[2]

    @pytest.mark.parametrize(
        ("words", "ports"),
        [
            ((), {443, 53, 50000}),
            (("--app", "curl"), {443}),
            (("--app", "/usr/sbin/sshd"), {50000}),
            (("--app", "url"), set()),
            (("--pid", "4711"), {443}),
            (("--user", "root"), {50000}),
            (("--user", "1000"), {443}),
            (("--direction", "in"), {50000}),
            (("--protocol", "UDP"), {53}),
            (("--remote", "192.0.2.0/24"), {443, 50000}),
            (("--remote", "2001:db8::/32"), {53}),
            (("--port", "22"), {50000}),
            (("--port", "50000"), set()),
            (("--rule", "web"), {443, 53}),
            (("--direction", "out", "--protocol", "tcp"), {443}),
        ],
    )
    def test_filters(self, pfw, daemon, words, ports):
        daemon.connections = (
            connection(443),
            connection(**IN),
            connection(53, protocol="udp", program=None, remote="2001:db8::1"),
        )
        done = pfw("connections", "--json", *words)
        assert done.returncode == 0
        assert {each["remote_port"] for each in json.loads(done.stdout)} == ports

    @pytest.mark.parametrize(
        "words",
        [("--remote", "nowhere"), ("--port", "65536"), ("--pid", "0"), ("--direction", "up"), ("x",),
         ("--remote", "\x1b[2J")],
    )  # fmt: skip
    def test_bad_words(self, pfw, daemon, words):
        done = pfw("connections", *words)
        assert (done.returncode, done.stdout) == (2, "")

    def test_more_than_one_message_holds(self, pfw, daemon):
        daemon.connections = tuple(connection(port) for port in range(1, 5001))
        assert len(json.loads(pfw("connections", "--json").stdout)) == 5000

    @pytest.mark.parametrize("columns", [30, 80, 200])
    def test_fits_the_terminal_whatever_a_program_is_called(self, daemon, terminal, columns):
        evil = replace(CURL, path=EVIL, user="例え" * 30)
        daemon.connections = (connection(program=evil, state="\x1b[8m"), connection(1, program=evil, rule="é" * 100))
        shown = terminal("connections", columns=columns)
        assert shown.end() == 0
        assert not RAW.search(shown.shown.replace("\r\n", "\n"))
        assert max(map(wide, shown.lines)) <= columns


def wide(line: str) -> int:
    return len(line) + sum(character in "例え" for character in line)


class TestWatch:
    def test_json_lines_of_what_is_new_and_changed_and_closed(self, daemon, environment):
        daemon.connections = (connection(1), connection(2))
        with subprocess.Popen(
            command("connections", "-w", "--json"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:

            def lines(number):
                found = [json.loads(process.stdout.readline()) for _ in range(number)]
                return sorted((each["remote_port"], each["state"]) for each in found)

            assert lines(2) == [(1, "established"), (2, "established")]
            daemon.connections = (
                connection(1, sent_bytes=10**9),
                connection(2, state="fin-wait"),
                connection(3),
            )
            assert lines(2) == [(2, "fin-wait"), (3, "established")]
            pushed = api.ConnectionsResult(connections=(connection(4),))
            daemon.do(lambda: daemon.server.publish("Connections", pushed))
            daemon.connections = (connection(4), connection(1))
            assert (4, "established") in lines(3)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            assert process.stderr.read() == b""

    def test_the_reader_has_gone(self, daemon, environment):
        with subprocess.Popen(
            command("connections", "-w"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            daemon.connections = (connection(1),)
            assert b"/usr/bin/curl  192.168.1.5:40000 -> 192.0.2.1:1 (tcp)" in process.stdout.readline()
            process.stdout.close()
            assert process.wait(30) == 0
            assert process.stderr.read() == b""

    def test_a_table_that_is_drawn_again(self, daemon, terminal):
        daemon.connections = tuple(connection(port) for port in range(1, 100))
        shown = terminal("connections", "-w", lines=10)
        shown.until("… 92 more connections")
        daemon.connections = (connection(7777),)
        shown.until("192.0.2.1:7777")
        last = shown.shown.rpartition("\x1b[H")[2]
        assert "more connections" not in last
        shown.type("\x03")
        assert shown.end() == 0
        assert "Traceback" not in shown.shown
        assert shown.shown.count("\x1b[2J") == 1
        assert all(screen.count("\n") < 10 for screen in shown.shown.split("\x1b[H"))

    def test_nothing_is_cleared_where_there_is_no_daemon(self, terminal):
        shown = terminal("connections", "-w")
        assert shown.end() == 3
        assert shown.shown == "pfw: pfw daemon is not running; start it: sudo pfw daemon\r\n"

    def test_a_terminal_that_can_do_nothing(self, daemon, terminal):
        daemon.connections = (connection(1),)
        shown = terminal("connections", "-w", TERM="dumb")
        shown.until("192.0.2.1:1 (tcp)")
        assert "\x1b" not in shown.shown


class TestWhy:
    REASONS = (
        api.Reason(rule="browser", action="allow", says="out tcp 443", matches="yes"),
        api.Reason(rule=EVIL, action="reject", says="out tcp 25", matches="unknown"),
    )
    DEFAULTS = (
        api.Reason(rule="default in", action="block", says="all else", matches="yes"),
        api.Reason(rule="default out", action="block", says="all else", matches="yes"),
    )

    def test_a_process(self, pfw, daemon):
        daemon.reasons = self.REASONS
        done = pfw("why", "4711")
        assert (done.returncode, daemon.asked) == (0, [api.WhyParameters(pid=4711)])
        lines = done.stdout.splitlines()
        assert lines[:5] == [
            "/usr/bin/curl",
            "  process 4711, started by /bin/bash < /usr/sbin/sshd, as alice (1000), in user.slice",
            "  curl -s 'https://example.net/a b'",
            "what else: in blocked",
            "",
        ]
        assert re.split("  +", lines[6]) == ["allow", "yes", "browser", "out tcp 443"]
        assert lines[7].startswith("reject  unknown  /tmp/\\x1b]0;owned")

    @pytest.mark.parametrize(
        ("reasons", "status"),
        [((), 0), (REASONS, 0), (DEFAULTS, 1), (REASONS[1:] + DEFAULTS, 1), (REASONS + DEFAULTS, 0)],
    )  # fmt: skip
    def test_status_says_whether_it_may_do_anything(self, pfw, daemon, reasons, status):
        daemon.reasons = reasons
        done = pfw("why", "4711", "--json")
        assert done.returncode == status
        assert [each["matches"] for each in json.loads(done.stdout)["reasons"]] == [each.matches for each in reasons]

    def test_an_executable_by_its_real_path(self, pfw, daemon, tmp_path, environment):
        (tmp_path / "real").write_text("")
        (tmp_path / "real").chmod(0o755)
        (tmp_path / "link").symlink_to("real")
        (tmp_path / "loop").symlink_to("loop")
        environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
        for word in ("./link", str(tmp_path / "link"), "link", "./gone", "./loop", "/tmp/\udcff"):
            assert pfw("why", word, cwd=tmp_path).returncode == 0
        real, gone, loop = (str(tmp_path / name) for name in ("real", "gone", "loop"))
        assert [each.path for each in daemon.asked] == [real, real, real, gone, loop, "/tmp/\\udcff"]

    @pytest.mark.parametrize("word", ["0", "99999999999", "no-such-program-anywhere", "", "/" + "x" * 4096, "\x1b[2J"])
    def test_bad_words(self, pfw, daemon, word):
        done = pfw("why", word)
        assert (done.returncode, done.stdout, done.stderr.count("\n"), daemon.asked) == (2, "", 1, [])

    def test_no_such_process(self, pfw, daemon):
        done = pfw("why", "404")
        assert (done.returncode, done.stderr) == (1, "pfw: there is no such process or program\n")

    @pytest.mark.parametrize(("more", "colour"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
    def test_colour(self, daemon, terminal, more, colour):
        daemon.reasons = self.REASONS
        shown = terminal("why", "4711", **more)
        assert shown.end() == 0
        assert ("\x1b[32mallow\x1b[0m" in shown.shown) is colour
        assert ("\x1b" in shown.shown) is colour
