"""`pfw ask`: a real server, a real terminal, and programs that choose their names to deceive."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pytest

from .made_up import EVIL, RAW, command, prompt
from .made_up import daemon as daemon
from .made_up import environment as environment
from .made_up import pfw as pfw
from .made_up import run_folder as run_folder
from .made_up import terminal as terminal


def answered(daemon):
    return [(each.id, each.action, each.lasting, each.scope, each.seconds) for each in daemon.answers]


class TestNobodyThere:
    @pytest.mark.parametrize("words", [("ask",), ("ask", "--list"), ("ask", "answer", "7", "allow"), ("apps",),
                                       ("connections",), ("connections", "-w"), ("why", "1")])  # fmt: skip
    def test_no_socket(self, pfw, words):
        done = pfw(*words)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == "pfw: pfw daemon is not running; start it: sudo pfw daemon\n"

    def test_a_socket_where_nobody_listens(self, pfw, daemon, run_folder):
        path = run_folder / "pfw.sock"
        daemon.do(lambda: path.rename(run_folder / "kept"))
        import socket

        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        assert pfw("ask", "--list").stderr == "pfw: pfw daemon is not running; start it: sudo pfw daemon\n"

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
    def test_who_may_not(self, daemon, run_folder, environment, tmp_path):
        for folder in (tmp_path, *tmp_path.parents):
            if folder.name.startswith("pytest"):
                folder.chmod(0o755)
        # What is needed is imported by root: the others may not see where Python is.
        script = (
            "import os, sys; from pfw.main import main; [main(words) for words in ({0}, ['connections'])];"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534); sys.exit(main({0}))"
        )
        for words in (["ask", "--list"], ["ask"], ["connections"]):
            done = subprocess.run(
                [command()[0], "-c", script.format(words)],
                env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30,
            )  # fmt: skip
            assert done.returncode == 3
            assert "only root and the members of the group pfw may talk" in done.stderr


class TestList:
    def test_nothing(self, pfw, daemon):
        done = pfw("ask", "--list")
        assert (done.returncode, done.stdout) == (0, "nothing waits for an answer\n")

    def test_the_most_urgent_first(self, pfw, daemon):
        now = time.time()
        daemon.prompts = {
            1: prompt(1, state="unanswered", until=None),
            2: prompt(2, until=now + 500),
            3: prompt(3, until=now + 50, program=None, certainty="guess"),
        }
        head, *lines = pfw("ask", "--list").stdout.splitlines()
        assert head.split() == ["id", "left", "dir", "remote", "port", "program", "host", "user", "rule", "sure", "pid"]
        assert [line.split()[0] for line in lines] == ["3", "2", "1"]
        assert "unknown" in lines[0]
        assert re.search(r"2 +49\d s +out +192.0.2.1 +tcp/443 +/usr/bin/curl +- +alice", lines[1])
        assert not daemon.watchers

    def test_json(self, pfw, daemon):
        daemon.prompts = {5: prompt(5, rule=EVIL, asked=1795399500.25)}
        (found,) = json.loads(pfw("ask", "--list", "--json").stdout)
        assert (found["id"], found["program"]["path"], found["host"]) == (5, "/usr/bin/curl", None)
        assert found["asked"] == "2026-11-23T02:05:00.250000Z"
        assert not RAW.search(found["rule"])

    def test_fits_a_narrow_terminal(self, daemon, terminal):
        daemon.prompts = {5: prompt(5, rule=EVIL * 9, host="例え" * 40)}
        shown = terminal("ask", "--list", columns=40)
        assert shown.end() == 0
        assert max(map(len, shown.shown.splitlines())) <= 40

    def test_starts_quickly(self, daemon, environment):
        """What takes time is not imported."""
        words = [command()[0], "-X", "importtime", *command("ask", "--list")[1:]]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "pfw.api.client" in imported
        for heavy in ("pfw.daemon", "pfw.engine", "pfw.enforce", "pfw.wire", "pfw.record", "asyncio", "subprocess",
                      "threading", "unicodedata", "pfw.cli.screen"):  # fmt: skip
            assert heavy not in imported


class TestAnswer:
    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (("7", "allow"), (7, "allow", "once", "exact", None)),
            (("7", "block", "--once"), (7, "block", "once", "exact", None)),
            (("--for", "1h", "7", "allow"), (7, "allow", "time", "exact", 3600)),
            (("7", "block", "--for", "1d12h", "--scope", "anywhere"), (7, "block", "time", "anywhere", 129600)),
            (("7", "allow", "--for", "ever"), (7, "allow", "always", "exact", None)),
            (("7", "--always", "--scope", "port", "allow"), (7, "allow", "always", "port", None)),
            (("7", "allow", "--program", "--scope", "address"), (7, "allow", "program", "address", None)),
        ],
    )
    def test_is_sent_as_it_was_meant(self, pfw, daemon, words, expected):
        daemon.prompts = {7: prompt(7)}
        done = pfw("ask", "answer", *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert answered(daemon) == [expected]
        assert done.stdout.startswith("allowed: " if expected[1] == "allow" else "blocked: ")

    def test_json(self, pfw, daemon):
        daemon.prompts = {7: prompt(7)}
        expected = {"id": 7, "done": "allowed", "program": "/usr/bin/curl"}
        assert json.loads(pfw("ask", "answer", "7", "allow", "--json").stdout) == expected

    def test_says_whose_it_was(self, pfw, daemon):
        daemon.prompts = {
            7: prompt(7),
            8: prompt(8, program=None),
            9: prompt(9, program=prompt(9).program, remote="::1"),
        }
        assert pfw("ask", "answer", "7", "allow").stdout == (
            "allowed: this once, exactly this: /usr/bin/curl, out 192.0.2.1:443\n"
        )
        assert pfw("ask", "answer", "8", "block").stdout.endswith(": an unknown program, out 192.0.2.1:443\n")
        assert pfw("ask", "answer", "9", "block").stdout.endswith(": /usr/bin/curl, out [::1]:443\n")

    def test_no_such_prompt(self, pfw, daemon):
        done = pfw("ask", "answer", "8", "allow")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "pfw: there is no prompt 8 that waits: it was answered, or given up\n"

    def test_refused(self, pfw, daemon):
        daemon.refuses = f"not {EVIL}"
        done = pfw("ask", "answer", "8", "allow")
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert done.stderr.startswith("pfw: refused: not /tmp/\\x1b")

    @pytest.mark.parametrize(
        "words",
        [
            (), ("7",), ("7", "reject"), ("x", "allow"), ("-1", "allow"), ("7", "allow", "block"), ("9" * 30, "allow"),
            ("7", "allow", "--for", "25d"), ("7", "allow", "--for", "soon"), ("7", "allow", "--scope", "all"),
            ("7", "allow", "--once", "--always"), ("7", "allow", "--list"), ("7", "\x1b[2J"),
        ],
    )  # fmt: skip
    def test_bad_words(self, pfw, daemon, words):
        daemon.prompts = {7: prompt(7)}
        done = pfw("ask", "answer", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert not daemon.answers

    @pytest.mark.parametrize("words", [("7", "allow"), ("--always",), ("--scope", "port", "--list"), ("--for", "1h")])
    def test_an_answer_without_the_word(self, pfw, daemon, words):
        done = pfw("ask", *words)
        assert (done.returncode, done.stdout) == (2, "")


class TestLines:
    def test_answers_and_the_worst_of_their_statuses(self, pfw, daemon):
        daemon.prompts = {number: prompt(number) for number in (1, 2, 3)}
        done = pfw("ask", given="# a remark\n\n1 allow\n2 block anywhere 1h\n9 allow\n3 allow always port")
        assert done.returncode == 1
        assert answered(daemon) == [
            (1, "allow", "once", "exact", None),
            (2, "block", "time", "anywhere", 3600),
            (3, "allow", "always", "port", None),
        ]
        assert "1: /usr/bin/curl wants to reach 192.0.2.1 on tcp port 443 (https)" in done.stdout
        assert "3: allowed: always, this port" in done.stdout
        assert "pfw: 9: there is no prompt 9" in done.stderr

    @pytest.mark.parametrize(
        "line",
        ["1", "allow 1", "1 allow sometimes", "1 allow 1h 2h", "1 allow port anywhere", "1 allow 25d", "x" * 9999],
    )
    def test_a_line_that_is_no_answer(self, pfw, daemon, line):
        daemon.prompts = {1: prompt(1)}
        done = pfw("ask", given=f"{line}\n")
        assert (done.returncode, done.stderr.count("\n"), daemon.answers) == (2, 1, [])

    def test_bytes_that_are_no_text(self, daemon, environment):
        done = subprocess.run(command("ask"), env=environment, input=b"\xff\xfe\x00 allow\n", capture_output=True)
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr

    def test_json_lines_as_they_come(self, daemon, environment):
        with subprocess.Popen(
            command("ask", "--json"), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            until(lambda: daemon.attended)
            daemon.ask(prompt(3, program=prompt(3).program, rule=EVIL))
            assert json.loads(process.stdout.readline())["id"] == 3
            process.stdin.write("3 allow\n")
            process.stdin.flush()
            rest = [json.loads(process.stdout.readline()) for _ in range(2)]
            assert {"id": 3, "done": "allowed"} in rest
            assert {"gone": [3]} in rest
            process.stdin.close()
            assert process.wait(30) == 0
        until(lambda: not daemon.attended)

    def test_the_reader_has_gone(self, daemon, environment):
        with subprocess.Popen(
            command("ask"), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            until(lambda: daemon.attended)
            process.stdout.close()
            assert process.wait(30) == 0
            assert process.stderr.read() == b""

    def test_the_daemon_ends(self, daemon, environment):
        with subprocess.Popen(
            command("ask"), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            until(lambda: daemon.attended)
            daemon.do(daemon.server.close)
            assert process.wait(30) == 3
            assert process.stderr.read() == b"pfw: the firewall's daemon has closed the connection\n"


def until(true) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


class TestKeys:
    @pytest.mark.parametrize(
        ("keys", "expected"),
        [
            ("a", ("allow", "once", "exact", None)),
            ("b", ("block", "once", "exact", None)),
            ("Awa", ("allow", "always", "anywhere", None)),
            ("1hb", ("block", "time", "address", 3600)),
            ("dPa", ("allow", "time", "port", 86400)),
            ("pwoea", ("allow", "once", "exact", None)),
            ("1pb", ("block", "program", "exact", None)),
            ("xyz \x1b[A\x1bOP\x1b[3~\x1b[1;5Aa", ("allow", "once", "exact", None)),
        ],
    )
    def test_mean_an_answer(self, daemon, terminal, keys, expected):
        shown = terminal("ask")
        shown.until("waiting for prompts")
        daemon.ask(prompt(7))
        shown.until("(a)llow")
        shown.press(keys, lambda: daemon.answers)
        assert answered(daemon) == [(7, *expected)]
        shown.press("q", lambda: not daemon.attended)
        assert shown.end() == 0

    def test_who_what_and_where(self, daemon, terminal):
        daemon.prompts = {7: prompt(7, host="example.net", certainty="guess")}
        shown = terminal("ask", NO_COLOR="1")
        shown.until("(a)llow (b)lock this once, exactly this? (s)kip (q)uit (?)help")
        assert shown.lines[:7] == [
            "#7  /usr/bin/curl wants to reach",
            "  192.0.2.1 on tcp port 443 (https)",
            "  known as example.net",
            "  process 4711, started by /bin/bash < /usr/sbin/sshd, as alice (1000), in user.slice",
            "  command: curl -s 'https://example.net/a b'",
            '  asked by rule "ask for the rest"; 1 packet held',
            "  it is not certain that it is this program: it can only be allowed once",
        ]
        assert re.search(r"\[5\d s left\] ", shown.shown)
        assert "\x1b" not in shown.shown

    def test_the_choice_is_seen_and_is_not_kept(self, daemon, terminal):
        daemon.prompts = {1: prompt(1), 2: prompt(2)}
        shown = terminal("ask")
        shown.until("#1 ")
        shown.until("1 more]")
        shown.press("Aw", "always, anywhere?")
        shown.press("a", "#2 ")
        shown.press("b", lambda: len(daemon.answers) == 2)
        assert answered(daemon) == [(1, "allow", "always", "anywhere", None), (2, "block", "once", "exact", None)]

    def test_keys_for_one_prompt_do_not_answer_the_next(self, daemon, terminal):
        daemon.prompts = {1: prompt(1), 2: prompt(2), 3: prompt(3)}
        shown = terminal("ask")
        shown.until("#1 ")
        shown.press("aaaaAa", "#2 ")
        shown.type("a")  # too soon to have been read
        shown.press("", "[5", 1)
        assert [each.id for each in daemon.answers] == [1]
        shown.press("b", "#3 ")
        assert answered(daemon)[1:] == [(2, "block", "once", "exact", None)]

    def test_prompts_that_come_while_one_is_answered(self, daemon, terminal):
        daemon.prompts = {1: prompt(1)}
        shown = terminal("ask")
        shown.until("#1 ")

        def more() -> None:
            news = [prompt(number, until=time.time() + 100 + number) for number in range(2, 40)]
            daemon.prompts.update({each.id: each for each in news})
            from pfw.api.interface import PromptsResult

            for each in news:
                daemon.server.publish("Prompts", PromptsResult(prompts=(each,), gone=()))
            # It comes late, from before the answer.
            daemon.server.publish("Prompts", PromptsResult(prompts=(daemon.prompts[1],), gone=()))
            daemon.answering = lambda: None

        daemon.answering = more
        shown.press("a", "#2 ")
        shown.until("37 more]")
        assert shown.shown.count("#1 ") == 1

    def test_put_off_list_and_back(self, daemon, terminal):
        now = time.time()
        daemon.prompts = {1: prompt(1, until=now + 500), 2: prompt(2, until=now + 600)}
        shown = terminal("ask")
        shown.until("#1 ")
        shown.press("s", "#2 ")
        shown.press("s", "waiting for prompts; 2 put off")
        shown.press("l", "ask for the rest  label")
        daemon.ask(prompt(3, until=now + 900))
        shown.until("#3 ")
        shown.press("r?", "Keys that were typed before")
        shown.press("b", "#1 ", 2)
        assert answered(daemon) == [(3, "block", "once", "exact", None)]

    def test_answered_elsewhere(self, daemon, terminal):
        daemon.prompts = {1: prompt(1), 2: prompt(2)}
        shown = terminal("ask")
        shown.until("#1 ")
        daemon.withdraw(1)
        shown.until("#1 was answered elsewhere")
        shown.until("#2 ")
        daemon.prompts.clear()  # and so it is not known that it has gone
        shown.press("a", "there is no prompt 2")
        shown.until("waiting for prompts")
        assert not daemon.answers

    def test_the_time_is_up(self, daemon, terminal):
        daemon.prompts = {1: prompt(1)}
        shown = terminal("ask")
        shown.until("#1 ")
        daemon.ask(prompt(1, state="unanswered", until=None, held=0))
        shown.until("time is up: for the next time")
        daemon.ask(prompt(2))
        shown.until("#1 comes later: #2 still waits")
        shown.press("b", "time is up: for the next time", 2)
        assert [each.id for each in daemon.answers] == [2]

    def test_refused_and_still_asked(self, daemon, terminal):
        daemon.prompts = {1: prompt(1, port=None, protocol="icmp")}
        daemon.refuses = "it can only be allowed once\x1b[2J"
        shown = terminal("ask")
        shown.until("on icmp")
        shown.press("P", "icmp has no ports")
        shown.press("Aa", "refused: it can only be allowed once\\x1b[2J")
        daemon.refuses = None
        shown.press("oa", lambda: daemon.answers)
        assert answered(daemon) == [(1, "allow", "once", "exact", None)]

    @pytest.mark.parametrize(("columns", "between"), [(20, 8), (40, 6), (80, 6)])
    def test_hostile_names_on_a_narrow_terminal(self, daemon, terminal, columns, between):
        from msgspec.structs import replace

        evil = replace(prompt(1).program, path=EVIL, command=(EVIL * 50, "\x9b31m"), parents=(EVIL,), unit="例" * 99)
        daemon.prompts = {1: prompt(1, program=evil, host="x" * 500, rule=EVIL, service="\x1b[8m", certainty="\x1b[0m")}
        shown = terminal("ask", columns=columns, NO_COLOR="1")
        shown.until(" left")
        shown.until("\r\n", between + 1)
        assert not [line for line in shown.lines if RAW.search(line)]
        assert max(map(len, shown.lines)) < columns
        assert "".join(line[:1] for line in shown.lines) == f"#{' ' * between}["


class TestTheTerminalAfterwards:
    def started(self, daemon, terminal):
        daemon.prompts = {1: prompt(1)}
        shown = terminal("ask")
        shown.until("(a)llow")
        assert not shown.echoes
        return shown

    def test_quit(self, daemon, terminal):
        shown = self.started(daemon, terminal)
        shown.press("q", lambda: shown.echoes)
        assert shown.end() == 0

    def test_ctrl_c(self, daemon, terminal):
        shown = self.started(daemon, terminal)
        shown.type("\x03")
        assert (shown.end(), shown.echoes) == (0, True)
        assert "Traceback" not in shown.shown
        assert shown.shown.endswith("\r\n")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP])
    def test_a_signal(self, daemon, terminal, number):
        shown = self.started(daemon, terminal)
        os.kill(shown.pid, number)
        assert (shown.end(), shown.echoes) == (-number, True)

    def test_stopped_and_on_again(self, daemon, terminal):
        daemon.prompts = {1: prompt(1)}
        shown = terminal("ask", shell='"$@"; echo STOPPED; read; fg; echo OVER')
        shown.until("(a)llow")
        assert not shown.echoes
        shown.type("\x1a")
        shown.until("STOPPED")
        assert shown.echoes
        shown.type("\n")
        shown.until("(a)llow", 2)
        assert not shown.echoes
        shown.press("a", lambda: daemon.answers)
        shown.type("\x03")
        shown.until("OVER")
        assert shown.echoes

    def test_the_daemon_ends(self, daemon, terminal):
        shown = self.started(daemon, terminal)
        daemon.do(daemon.server.close)
        assert (shown.end(), shown.echoes) == (3, True)
        assert "the firewall's daemon has closed the connection" in shown.shown

    def test_the_terminal_has_gone(self, daemon, terminal):
        shown = self.started(daemon, terminal)
        spare = os.open("/dev/null", os.O_RDONLY)
        os.dup2(spare, shown.descriptor)
        os.close(spare)
        until(lambda: not daemon.attended)
