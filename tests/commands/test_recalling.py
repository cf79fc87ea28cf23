"""`pfw log`, `stats`, `first-seen`: real files, processes, pipes and terminals."""

from __future__ import annotations

import csv
import json
import os
import re
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from pfw.model.address import parse_address
from pfw.model.history import FirstSeen, New, Traffic

from .made_up import EVIL, RAW, WAIT_S, command
from .made_up import environment as environment
from .made_up import pfw as pfw
from .made_up import run_folder as run_folder
from .made_up import terminal as terminal
from .past import ROUTED, Past, alert, dropped, entry, subject

FAR = "2001:db8::9"


@pytest.fixture(autouse=True)
def state_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PFW_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("LC_CTYPE", raising=False)
    return tmp_path / "state"


@pytest.fixture
def past(state_folder) -> Past:
    return Past(state_folder)


@pytest.fixture
def filled(past) -> Past:
    """Five connections and an alert, the rule of each telling it from the others."""
    past.write(
        [
            entry(90_000, subject(rule="old", port=80)),
            entry(3000, subject(rule="one")),
            entry(2000, subject(rule="two", program="/opt/x/bin/app", uid=7, user=None, protocol=17),
                  remote=parse_address(FAR), name="a.example.org", end=None, traffic=Traffic()),
            dropped(1000, count=3),
            entry(500, ROUTED),
        ],
        alerts=[alert(1500)],
    )  # fmt: skip
    return past


def rules(stdout: str) -> list[str]:
    return [line.partition("rule ")[2].strip('"') or line[20:29].strip("[] ") for line in stdout.splitlines()]


class TestLog:
    def test_the_newest_last_and_alerts_between_them(self, pfw, filled):
        done = pfw("log")
        assert (done.returncode, done.stderr) == (0, "")
        assert rules(done.stdout) == ["old", "one", "two", "ALERT", "BLOCKED", "guests"]
        _, one, two, scan, stopped, routed = (re.sub("^.{19} ", "", line) for line in done.stdout.splitlines())
        assert one == (
            "[ALLOWED]  -> curl (alice)          example.net (192.0.2.1)       443/tcp (https)  "
            '1.5 kB out, 2.0 MB in, 1.5 s  rule "one"'
        )
        assert two.startswith("[ALLOWED]  -> app (7)               a.example.org (2001:db8::9)   443/udp")
        assert two.endswith('  open  rule "two"')
        assert scan == "[ALERT]    port-scan  203.0.113.9 -> 192.168.1.5  24 ports in 3.0 s (score 80)"
        assert (
            stopped
            == "[BLOCKED]  <- -                     203.0.113.9                   22/tcp (ssh)  3 packets  default in"
        )
        assert routed.startswith("[ALLOWED]  => 192.168.77.2          example.net (192.0.2.1)")

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            (("--since", "1h"), ["one", "two", "ALERT", "BLOCKED", "guests"]),
            (("--since", "1h", "--until", "20m"), ["one", "two", "ALERT"]),
            (("--until", "2h"), ["old"]),
            (("--since", "ever", "--app", "curl"), ["old", "one"]),
            (("--app", "/opt/*/app"), ["two"]),
            (("--remote", "203.0.113.0/24"), ["ALERT", "BLOCKED"]),
            (("--remote", "192.168.1.5"), ["ALERT"]),
            (("--remote", "example.org"), ["two"]),
            (("--remote", FAR), ["two"]),
            (("--port", "80"), ["old"]),
            (("--protocol", "udp"), ["two"]),
            (("--in",), ["BLOCKED"]),
            (("--forward",), ["guests"]),
            (("--out", "--since", "1d"), ["one", "two"]),
            (("--user", "alice"), ["old", "one"]),
            (("--user", "7"), ["two"]),
            (("--blocked",), ["BLOCKED"]),
            (("--allowed", "-n", "2"), ["two", "guests"]),
            (("--rule", "one"), ["one"]),
            (("--rule", "default in"), ["BLOCKED"]),
            (("--rule", "(default)"), ["BLOCKED"]),
            (("--rule", "default out"), []),
            (("--alerts",), ["ALERT"]),
            (("--alerts", "--since", "20m"), []),
            (("-n", "2"), ["BLOCKED", "guests"]),
            (("-n", "0"), []),
            (("--since", "1h", "-n", "3"), ["ALERT", "BLOCKED", "guests"]),
            (("--app", "none"), []),
        ],
    )
    def test_what_is_asked_for(self, pfw, filled, words, found):
        done = pfw("log", *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert rules(done.stdout) == found

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--since", "soon"), "--since 'soon' is not a time, as in 30s"),
            (("--since", "1h", "--until", "2h"), "is not before --until '2h' ("),
            (("--remote", "\x1b[2J"), "is not an address; it takes"),
            (("--protocol", "tpc"), "is not a protocol"),
            (("--alerts", "--port", "22"), "--alerts: an alert has no port"),
            (("-f", "--until", "1h"), "--follow has no end"),
            (("-n", "100001"), "-n takes a number up to 100,000"),
        ],
    )
    def test_bad_words(self, pfw, filled, words, says):
        done = pfw("log", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize(
        "words",
        [("--port", "65536"), ("--in", "--out"), ("--blocked", "--allowed"), ("--json", "--csv"), ("-n", "x"), ("x",)],
    )
    def test_words_that_the_parser_refuses(self, pfw, filled, words):
        done = pfw("log", *words)
        assert (done.returncode, done.stdout) == (2, "")

    def test_the_last_fifty(self, pfw, past):
        past.write(entry(200 - number, subject(rule=str(number))) for number in range(120))
        done = pfw("log")
        assert rules(done.stdout) == [str(number) for number in range(70, 120)]
        assert done.stderr == "pfw: these are the last 50; --since 1d shows all of a day, -n N the last N\n"
        assert len(pfw("log", "--since", "1h").stdout.splitlines()) == 120
        assert pfw("log", "--since", "1h").stderr == pfw("log", "-n", "60").stderr == ""

    def test_exactly_fifty(self, pfw, past):
        past.write(entry(200 - number) for number in range(50))
        assert pfw("log").stderr == ""

    def test_more_than_is_read_at_once(self, pfw, past):
        past.write(entry(20_000 - number, from_port=number) for number in range(11_000))
        ports = [json.loads(line)["from_port"] for line in pfw("log", "--json", "--since", "1d").stdout.splitlines()]
        assert ports == list(range(11_000))

    def test_json(self, pfw, filled):
        lines = [json.loads(line) for line in pfw("log", "--json").stdout.splitlines()]
        assert [each["event"] for each in lines] == ["connection"] * 3 + ["alert"] + ["connection"] * 2
        assert (lines[1]["rule"], lines[1]["sent_bytes"], lines[1]["duration_s"]) == ("one", 1500, 1.5)
        assert (lines[2]["program"], lines[2]["user"], lines[2]["uid"]) == ("/opt/x/bin/app", None, 7)
        assert (lines[4]["verdict"], lines[4]["count"], lines[4]["rule"]) == ("block", 3, None)
        assert lines[4]["time"].endswith("Z")

    def test_a_time_of_json_is_a_time_to_ask_by(self, pfw, filled):
        lines = [json.loads(line) for line in pfw("log", "--json").stdout.splitlines()]
        assert rules(pfw("log", "--since", lines[2]["time"]).stdout) == ["two", "ALERT", "BLOCKED", "guests"]
        assert rules(pfw("log", "--until", lines[2]["time"]).stdout) == ["old", "one"]

    def test_csv(self, pfw, past):
        past.write([entry(100, subject(rule="=1+1"))], alerts=[alert(50)])
        rows = list(csv.DictReader(pfw("log", "--csv").stdout.splitlines()))
        assert [(row["event"], row["rule"], row["port"]) for row in rows] == [("connection", "'=1+1", "443")]
        (row,) = csv.DictReader(pfw("log", "--csv", "--alerts").stdout.splitlines())
        assert (row["event"], row["kind"], row["source"]) == ("alert", "port-scan", "203.0.113.9")

    def test_hostile(self, pfw, past):
        names = [EVIL, "/x/" + EVIL, "x" * 4000, "\u200f\u2067א", "/bin/\udcff"]
        past.write(
            [entry(9, subject(program=name, rule=name, user=name, unit=name), name=name) for name in names],
            alerts=[alert(9, evidence=name, program=name, response=name) for name in names],
            first_seen=[FirstSeen(time.time(), New.PROGRAM, name, name) for name in names],
        )
        for words in (("log",), ("log", "--json"), ("log", "--csv"), ("log", "--alerts", "--csv"), ("stats",),
                      ("stats", "--json"), ("stats", "--by", "user"), ("stats", "--by", "name"), ("first-seen",),
                      ("first-seen", "--json")):  # fmt: skip
            done = pfw(*words)  # sees that nothing raw comes out
            assert done.returncode == 0
            assert "owned" in done.stdout

    def test_colours_on_a_terminal(self, terminal, filled):
        shown = terminal("log", columns=200)
        assert shown.end() == 0
        assert "\x1b[32m[ALLOWED]\x1b[0m" in shown.shown
        assert "\x1b[31m[BLOCKED]\x1b[0m" in shown.shown
        assert "\x1b[35m[ALERT]\x1b[0m" in shown.shown

    def test_no_colours(self, terminal, filled):
        shown = terminal("log", columns=200, NO_COLOR="1")
        assert shown.end() == 0
        assert not RAW.search(shown.shown.replace("\r\n", "\n"))

    def test_a_reader_that_has_seen_enough(self, environment, past):
        past.write(entry(20_000 - number) for number in range(5000))
        done = subprocess.run(
            ["bash", "-c", 'set -o pipefail; "$@" | head -n 1', "bash", *command("log", "--since", "1d")],
            env=environment, capture_output=True, text=True, timeout=WAIT_S,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("\n") == 1


class TestNoHistory:
    @pytest.mark.parametrize("words", [("log",), ("log", "-f"), ("stats",), ("first-seen",)])
    def test_it_says_what_to_do(self, pfw, words):
        done = pfw(*words)
        assert (done.returncode, done.stdout) == (3, "")
        assert "pfw daemon" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_what_is_no_history(self, pfw, state_folder):
        state_folder.mkdir()
        (state_folder / "history.db").write_bytes(b"x" * 5000)
        done = pfw("log")
        assert (done.returncode, done.stdout) == (3, "")
        assert "is not a history of pfw" in done.stderr

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
    def test_somebody_else(self, environment, filled, tmp_path):
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
        # Once as root, so that all is imported that nobody else may read.
        script = (
            "import os, sys; from pfw.main import main; main(['log', '-n', '0']); os.setgid(65534); os.setuid(65534);"
            "sys.exit(main(['log']))"
        )
        done = subprocess.run(
            [*command()[:1], "-c", script], env=environment, capture_output=True, text=True, timeout=WAIT_S, cwd="/"
        )
        assert (done.returncode, done.stdout) == (3, "")
        assert "only root may" in done.stderr


class TestFollow:
    @pytest.fixture
    def following(self, environment):
        """Starts `pfw log -f` and gives what reads its next line, in time or not at all."""
        started: list[subprocess.Popen[str]] = []

        def start(*words: str):
            process = subprocess.Popen(
                command("log", "-f", *words), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            started.append(process)
            return process

        yield start
        for process in started:
            process.kill()
            process.communicate()

    def test_a_line_for_each_that_comes_and_none_twice(self, following, filled):
        process = following("--json", "-n", "1")
        assert json.loads(process.stdout.readline())["rule"] == "guests"
        filled.write([entry(0.5, subject(rule="new"), end=None), dropped(0.4)])
        assert json.loads(process.stdout.readline())["rule"] == "new"
        assert json.loads(process.stdout.readline())["verdict"] == "block"
        filled.write([entry(0, subject(rule="newer"))], alerts=[alert(0.1, evidence="now")])
        assert json.loads(process.stdout.readline())["evidence"] == "now"
        assert json.loads(process.stdout.readline())["rule"] == "newer"
        filled.write([entry(0, subject(rule="last"))])
        assert json.loads(process.stdout.readline())["rule"] == "last"

    def test_within_a_second(self, following, filled):
        process = following("-n", "1")
        process.stdout.readline()
        filled.write([entry(0, subject(rule="new"))])
        began = time.monotonic()
        assert 'rule "new"' in process.stdout.readline()
        assert time.monotonic() - began < 1

    def test_filters(self, following, filled):
        process = following("--blocked", "--since", "1h")
        assert "203.0.113.9" in process.stdout.readline()
        filled.write([entry(0)], alerts=[alert(0)])
        filled.write([dropped(0, remote=parse_address("203.0.113.10"))])
        assert "203.0.113.10" in process.stdout.readline()

    def test_alerts_alone(self, following, filled):
        process = following("--alerts")
        assert "24 ports" in process.stdout.readline()
        filled.write([entry(0)], alerts=[alert(0, evidence="25 ports")])
        assert "25 ports" in process.stdout.readline()

    def test_nothing_that_was_before(self, following, filled):
        process = following("-n", "0")
        time.sleep(1)
        filled.write([entry(0, subject(rule="new"))])
        assert 'rule "new"' in process.stdout.readline()

    def test_the_clock_was_set_back(self, following, past):
        past.write([entry(-600, subject(rule="ahead"))], alerts=[alert(-600, evidence="ahead")])
        process = following("--json", "--since", "10m")
        assert json.loads(process.stdout.readline())["rule"] == "ahead"
        assert json.loads(process.stdout.readline())["evidence"] == "ahead"
        past.write([entry(7200, subject(rule="back"))], alerts=[alert(7100, evidence="back")])
        past.write([entry(-900, subject(rule="last"))], alerts=[alert(-1000, evidence="last")])
        told: list[tuple[str, str]] = []
        while not {("connection", "last"), ("alert", "last")} <= set(told):
            facts = json.loads(process.stdout.readline())
            told.append((facts["event"], facts.get("rule") or facts["evidence"]))
        assert sorted(told) == [("alert", "back"), ("alert", "last"), ("connection", "back"), ("connection", "last")]

    def test_where_all_was_folded(self, following, past):
        past.write([entry(90_000, subject(rule="old"))])
        with closing(sqlite3.connect(past.path)) as file:
            sums = "count, sent_bytes, sent_packets, received_bytes, received_packets"
            file.execute(
                f"INSERT INTO folded(period_s, start, subject, remote, name, first, last, {sums})"
                f" SELECT 3600, id / 3600000000 * 3600, subject, remote, name, 0, 0, {sums} FROM connection"
            )
            file.execute("DELETE FROM connection")
            file.commit()
        process = following("--json")
        assert json.loads(process.stdout.readline())["period_s"] == 3600
        past.write([entry(0, subject(rule="new"))])
        assert json.loads(process.stdout.readline())["rule"] == "new"

    def test_another_file_in_its_place(self, following, filled):
        process = following("-n", "1")
        process.stdout.readline()
        for path in filled.path.parent.iterdir():
            path.rename(path.with_name(f"old-{path.name}"))
        time.sleep(1)  # several looks at nothing
        filled.write([entry(0, subject(rule="new"))])
        assert 'rule "new"' in process.stdout.readline()

    def test_the_file_is_gone(self, following, filled):
        process = following("-n", "1")
        process.stdout.readline()
        for path in filled.path.parent.iterdir():
            path.unlink()
        assert process.wait(WAIT_S) == 3
        assert "history.db" in process.stderr.read()

    def test_it_ends_with_its_reader(self, following, filled):
        process = following("-n", "1")
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(WAIT_S) == 0
        assert process.stderr.read() == ""

    def test_control_c(self, terminal, filled):
        shown = terminal("log", "-f", "-n", "1", columns=200)
        shown.until("guests")
        shown.press("\x03", lambda: True)
        assert shown.end() == 0


class TestStats:
    def test_page(self, pfw, filled):
        done = pfw("stats")
        assert (done.returncode, done.stderr) == (0, "")
        text = done.stdout
        assert "6 connections: 3 allowed, 3 blocked (50.0%); 3.0 kB sent, 4.0 MB received" in text
        assert re.search("^program +connections +blocked +sent +received +last$", text, re.MULTILINE)
        assert re.search("^203.0.113.9 +3 +3 +0 B +0 B ", text, re.MULTILINE)
        assert re.search("^\\(default\\) +3 +3 ", text, re.MULTILINE)
        assert "█ allowed  ▒ blocked" in text

    @pytest.mark.parametrize(
        ("by", "first"),
        [("program", "-"), ("remote", "203.0.113.9"), ("name", "-"), ("rule", "(default)"), ("port", "22 (ssh)"),
         ("user", "-")],
    )  # fmt: skip
    def test_one_table(self, pfw, filled, by, first):
        head, *lines = pfw("stats", "--by", by).stdout.splitlines()
        assert re.split("  +", head)[:2] == [by, "connections"]
        assert re.split("  +", lines[0])[0] == first
        assert len(pfw("stats", "--by", by, "-n", "1").stdout.splitlines()) == 2

    def test_json(self, pfw, filled):
        facts = json.loads(pfw("stats", "--json").stdout)
        assert (facts["connections"], facts["blocked"]) == (6, 3)
        assert {row["rule"] for row in facts["rules"]} == {None, "one", "two", "guests"}
        rows = json.loads(pfw("stats", "--by", "remote", "--json", "--since", "ever").stdout)
        assert [(row["remote"], row["connections"]) for row in rows] == [
            ("192.0.2.1", 3), ("203.0.113.9", 3), (FAR, 1),
        ]  # fmt: skip

    def test_filters_are_those_of_the_log(self, pfw, filled):
        rows = json.loads(pfw("stats", "--by", "program", "--json", "--app", "app", "--out").stdout)
        assert [row["program"] for row in rows] == ["/opt/x/bin/app"]
        assert pfw("stats", "--since", "soon").returncode == 2
        assert pfw("stats", "--by", "colour").returncode == 2
        rows = json.loads(pfw("stats", "--by", "rule", "--json", "--rule", "(default)").stdout)
        assert [(row["rule"], row["connections"]) for row in rows] == [(None, 3)]
        assert pfw("stats", "--app", "none").stdout.endswith("no connection that is like this\n")

    def test_a_day_before_its_end(self, pfw, filled):
        assert json.loads(pfw("stats", "--json", "--until", "2h").stdout)["connections"] == 1
        assert json.loads(pfw("stats", "--json", "--until", "1d").stdout)["connections"] == 1
        assert json.loads(pfw("stats", "--json", "--until", "26h").stdout)["connections"] == 0

    @pytest.mark.parametrize(
        ("more", "drawn"),
        [
            ({}, "\x1b[32m█"),
            ({"NO_COLOR": "1"}, "█"),
            ({"LC_ALL": "C"}, "#"),
            ({"LANG": "C"}, "#"),
            ({"LANG": "de_DE.ISO-8859-1"}, "#"),
            ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, "█"),
        ],
    )
    def test_the_chart_is_what_the_terminal_can_show(self, terminal, filled, more, drawn):
        shown = terminal("stats", "--by", "hour", "--since", "ever", columns=60, **more)
        assert shown.end() == 0
        assert drawn in shown.shown
        assert ("█" in shown.shown) == (drawn != "#")
        assert max(len(re.sub("\x1b\\[[0-9;]*m", "", line)) for line in shown.shown.replace("\r", "").split("\n")) == 60

    def test_country_without_a_database(self, pfw, filled, tmp_path):
        done = pfw("stats", "--by", "country", "--geoip", tmp_path / "none.mmdb")
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.count("\n") == 1

    def test_country(self, environment, filled, tmp_path):
        """With a stand-in for the package, so that it need not be here: what is private is no country's."""
        (tmp_path / "maxminddb.py").write_text(
            "class InvalidDatabaseError(RuntimeError): pass\n"
            "class Reader:\n"
            "    def metadata(self): return type('M', (), {'ip_version': 6})\n"
            "    def get(self, address): return {'country': {'iso_code': 'DE' if address.version == 4 else 'SE'}}\n"
            "    def close(self): pass\n"
            "def open_database(path): return Reader()\n"
        )
        filled.write([entry(10, remote=parse_address("10.0.0.7"))])
        paths = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
        words = ("stats", "--by", "country", "--json", "--geoip", "x.mmdb")
        done = subprocess.run(
            command(*words), env=environment | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=WAIT_S
        )
        assert [(row["country"], row["connections"]) for row in json.loads(done.stdout)] == [
            ("DE", 5), ("SE", 1), ("local", 1),
        ]  # fmt: skip


class TestFirstSeen:
    @pytest.fixture
    def seen(self, past):
        now = time.time()
        past.write(
            first_seen=[
                FirstSeen(now - 60, New.LISTENER, "tcp [::]:22", "/usr/sbin/sshd"),
                FirstSeen(now - 3600, New.PROGRAM, "/usr/bin/curl"),
                FirstSeen(now - 1800, New.REMOTE, "example.net", "/usr/bin/curl"),
                FirstSeen(now - 10 * 86400, New.PROGRAM, "/usr/bin/old"),
            ]
        )
        return past

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ((), ["/usr/bin/curl", "example.net", "tcp [::]:22"]),
            (("--since", "ever"), ["/usr/bin/old", "/usr/bin/curl", "example.net", "tcp [::]:22"]),
            (("programs",), ["/usr/bin/curl"]),
            (("listeners", "remotes"), ["example.net", "tcp [::]:22"]),
            (("--since", "40m", "remotes"), ["example.net"]),
            (("--since", "10s"), []),
        ],
    )
    def test_what_is_asked_for(self, pfw, seen, words, found):
        assert [each["what"] for each in json.loads(pfw("first-seen", "--json", *words).stdout)] == found
        _, *lines = pfw("first-seen", *words).stdout.splitlines()
        assert [re.split("  +", line)[2] for line in lines] == found

    def test_json(self, pfw, seen):
        (remote,) = json.loads(pfw("first-seen", "remotes", "--json").stdout)
        assert list(remote) == ["time", "new", "what", "by"]
        assert (remote["new"], remote["by"]) == ("remote", "/usr/bin/curl")

    @pytest.mark.parametrize("words", [("programms",), ("--since", "1h", "x"), ("--since", "x")])
    def test_bad_words(self, pfw, seen, words):
        done = pfw("first-seen", *words)
        assert (done.returncode, done.stdout) == (2, "")


def test_nothing_is_written(pfw, filled):
    before = filled.path.read_bytes()
    for words in (("log",), ("stats",), ("first-seen",)):
        assert pfw(*words).returncode == 0
    assert filled.path.read_bytes() == before
