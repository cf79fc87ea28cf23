"""`pfw rehearse`, `suggest`, `up --rehearse`: real history files, what is printed where, and exit statuses."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.policy.histories import make_subject

from pfw.commands import rehearsing
from pfw.enforce import plan
from pfw.main import main
from pfw.model.address import parse_address
from pfw.model.flow import Direction
from pfw.model.history import Entry, Traffic
from pfw.model.program import Certainty
from pfw.model.verdict import Action
from pfw.policy.load import load
from pfw.record.history import History

ROOT = Path(__file__).resolve().parents[2]
EVIL = "\x1b[31mred\u202e"

POLICY = """{
  "version": 2,
  "default": {"in": "block", "out": "allow"},
  "rules": [
    {"name": "no mail", "action": "reject", "direction": "out", "protocol": "tcp", "port": 25}
  ]
}
"""


@pytest.fixture
def rules(tmp_path, monkeypatch) -> Path:
    """`POLICY` as the `rules.json` of the folder in which the test is, and a state folder beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PFW_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    path = tmp_path / "rules.json"
    path.write_text(POLICY)
    return path


@pytest.fixture
def remember(tmp_path):
    """Writes connections into the history: each with what differs from one of firefox to port 443, and how long ago."""

    def write(*connections: dict) -> None:
        history = History(str(tmp_path / "state" / "history.db"))
        entries = []
        for number, fields in enumerate(connections):
            fields = dict(fields)
            start = time.time() - fields.pop("ago", 3600)
            more = {name: fields.pop(name) for name in ("name", "from_port") if name in fields}
            remote = parse_address(fields.pop("remote", "203.0.113.9"))
            carried = fields.pop("traffic", Traffic(5000, 10, 9000, 10))
            entries.append(Entry(id=int(start * 1e6) + number, subject=make_subject(**fields), remote=remote,
                                 start=start, end=start + 1, traffic=carried, **more))  # fmt: skip
        history.write(entries)
        history.commit()
        history.close()

    return write


def policy(path: Path, *new: dict, **more: object) -> Path:
    text = {"version": 2, "default": {"in": "block", "out": "allow"}, "rules": list(new)} | more
    path.write_text(json.dumps(text))
    return path


class TestRehearse:
    def test_nothing_ends_otherwise(self, rules, remember, capsys):
        remember({}, {"port": 25, "action": Action.REJECT, "rule": "no mail"})
        assert main(["rehearse"]) == 0
        out, err = capsys.readouterr()
        assert "Of 2 connections since " in out
        assert "none would end otherwise" in out
        assert err == ""

    def test_what_ends_otherwise_is_told_worst_first(self, rules, remember, capsys):
        remember(*[{"name": "example.com", "remote": f"203.0.113.{last}"} for last in range(5)],
                 {"port": 25, "action": Action.REJECT, "rule": "no mail"})  # fmt: skip
        new = {"name": "web only", "action": "allow", "direction": "out", "protocol": "tcp", "port": [25, 80]}
        file = policy(rules.parent / "new.json", new, default={"out": "block"})
        assert main(["rehearse", str(file)]) == 1
        out = capsys.readouterr().out
        assert "5 would be blocked that were not, 1 would be allowed that was not" in out
        blocked, allowed = out.index("newly blocked:"), out.index("newly allowed:")
        assert blocked < allowed
        assert re.search(r"example\.com \(203\.0\.113\.[0-4]\) and 4 more +tcp 443 +5 ", out)
        assert "allow by default -> block by default" in out
        assert 'reject by "no mail" -> allow by "web only"' in out

    def test_json_has_stable_keys(self, rules, remember, capsys):
        remember({"certainty": Certainty.GUESS}, {"program": "/usr/bin/curl", "name": "a.example"})
        file = policy(rules.parent / "new.json", {"name": "x", "action": "block", "app": "/usr/bin/*"})
        assert main(["rehearse", str(file), "--json"]) == 1
        facts = json.loads(capsys.readouterr().out)
        assert list(facts) == [
            "file", "since", "connections", "changes", "counts", "rows", "sums", "left_out", "limited", "expired",
            "before_policy",
        ]  # fmt: skip
        kinds = ("blocked", "allowed", "asked", "otherwise", "time", "unknown", "same")
        assert facts["counts"] == dict.fromkeys(kinds, 0) | {"blocked": 1, "unknown": 1}
        blocked, unknown = facts["rows"]
        assert (blocked["outcome"], blocked["name"]) == ("blocked", "a.example")
        assert blocked["new"] == {"verdict": "block", "rule": "x"}
        assert (unknown["outcome"], unknown["is_guess"]) == ("unknown", True)
        assert [each["remotes"] for each in facts["sums"]] == [1, 1]

    def test_what_cannot_be_told_alone_is_no_change(self, rules, remember, capsys):
        remember({"certainty": None})
        file = policy(rules.parent / "new.json", {"name": "x", "action": "block", "app": "/usr/bin/firefox"})
        assert main(["rehearse", str(file)]) == 0
        assert "of 1 it cannot be told" in capsys.readouterr().out

    def test_time_and_source_port_are_looked_up_in_the_entries(self, rules, remember, capsys):
        remember({"from_port": 1024, "ago": 100}, {"from_port": 1025, "ago": 200})
        odd = {"name": "odd", "action": "block", "direction": "out", "protocol": "tcp", "from_port": 1024}
        assert main(["rehearse", str(policy(rules.parent / "new.json", odd)), "--json"]) == 1
        counts = json.loads(capsys.readouterr().out)["counts"]
        assert (counts["blocked"], counts["same"], counts["unknown"]) == (1, 1, 0)

    @pytest.mark.parametrize(
        ("words", "connections"),
        [
            (("--since", "2h"), 1),
            (("--since", "ever"), 3),
            ((), 2),
            (("--app", "curl"), 1),
            (("--remote", "8.8.8.0/24"), 1),
        ],
    )
    def test_part_of_the_past(self, words, connections, rules, remember, capsys):
        remember({}, {"ago": 3 * 86400, "program": "/usr/bin/curl", "remote": "8.8.8.8"}, {"ago": 30 * 86400})
        assert main(["rehearse", "--json", *words]) == 0
        assert json.loads(capsys.readouterr().out)["connections"] == connections

    def test_a_limit_and_an_end_are_told(self, rules, remember, capsys):
        remember({})
        file = policy(
            rules.parent / "new.json",
            {"name": "gone", "action": "block", "direction": "out", "expires": "2020-01-01T00:00:00Z"},
            {"name": "slow", "action": "allow", "direction": "out", "limit": "1/hour"},
        )
        assert main(["rehearse", str(file)]) == 0
        out = capsys.readouterr().out
        assert 'rule "slow" has a limit, which is taken as never reached: 1 connection' in out
        assert 'rule "gone" has expired, and is left out' in out

    def test_other_peoples_words_are_escaped(self, rules, remember, capsys):
        remember({"program": f"/{EVIL}", "name": EVIL, "rule": EVIL, "user": EVIL})
        file = policy(rules.parent / "new.json", default={"out": "block"})
        for words in ((), ("--json",)):
            assert main(["rehearse", str(file), *words]) == 1
            out = capsys.readouterr().out
            assert "\x1b" not in out
            assert "\u202e" not in out
            assert "x1b[31mred" in out

    def test_block_lists_are_looked_at_where_they_are_known(self, rules, remember, capsys):
        remember({})
        lists = [{"name": "bad", "source": "/nowhere/list"}]
        assert main(["rehearse", str(policy(rules.parent / "new.json", blocklists=lists))]) == 0
        assert "what is on block list bad is not known here" in capsys.readouterr().err
        (rules.parent / "state" / "lists").mkdir()
        (rules.parent / "state" / "lists" / "bad.txt").write_text("203.0.113.0/24\n")
        record = {"source": "/nowhere/list", "fetched_at": 1.0, "entries": 1, "addresses": 256}
        (rules.parent / "state" / "lists" / "bad.json").write_text(json.dumps(record))
        assert main(["rehearse", str(rules.parent / "new.json")]) == 1
        assert 'block by "base block list bad"' in capsys.readouterr().out

    def test_what_bans_stopped_stays_stopped(self, rules, remember, capsys):
        remember({"action": Action.BLOCK, "rule": plan.BAN_NAME, "direction": Direction.IN})
        assert main(["rehearse", str(policy(rules.parent / "new.json", default={"in": "allow"}))]) == 0
        assert "1 connection stopped by bans or as invalid" in capsys.readouterr().out

    def test_a_bad_file_is_told_with_its_faults(self, rules, remember, capsys):
        remember({})
        rules.write_text('{"version": 2, "rules": [{"name": "x", "action": "allow", "port": 70000}]}')
        assert main(["rehearse"]) == 2
        assert "rules.json:1:" in capsys.readouterr().err

    def test_a_bad_time_is_told(self, rules, remember, capsys):
        remember({})
        assert main(["rehearse", "--since", "soon"]) == 2
        assert "--since 'soon' is not a time" in capsys.readouterr().err

    def test_without_a_history_there_is_nothing_to_say(self, rules, capsys):
        assert main(["rehearse"]) == 3
        assert main(["suggest"]) == 3
        assert capsys.readouterr().err.count("history.db is not there") == 2

    def test_an_empty_history_says_so(self, rules, remember, capsys):
        remember()
        assert main(["rehearse"]) == 0
        assert capsys.readouterr().out.startswith("No connection is remembered since ")


class TestSuggest:
    def test_the_diff_is_on_standard_output_and_the_counts_beside_it(self, rules, remember, capsys):
        remember({"name": "a.example"}, {"ago": 5, "name": "b.example", "remote": "198.51.100.7"})
        assert main(["suggest"]) == 0
        out, err = capsys.readouterr()
        assert out.startswith("--- rules.json\n+++ rules.json\n@@")
        assert (
            '+    {"name": "firefox: web", "action": "allow", "direction": "out", "protocol": "tcp", "port": 443,'
            in out
        )
        assert '        2  rule "firefox: web"' in err
        assert "allowed then: 2 connections, 0 by rules that are there, 2 by 1 new rule, 0 left out" in err
        assert rules.read_text() == POLICY

    @pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")
    @pytest.mark.parametrize(
        "text",
        [POLICY, POLICY.replace("  ", "\t").strip(), POLICY.replace("\n", "\r\n"), POLICY.replace(",\n", ",\r\n")],
        ids=["plain", "tabs and no newline at the end", "CRLF", "some CRLF"],
    )
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("rules.json", []),
            ("my rules.json", []),
            ("rules.json", ["rules.json"]),
            ("/absolute", ["rules.json"]),
            ("my rules.json", ["my rules.json"]),
        ],
    )
    def test_patch_takes_the_diff(self, name, words, text, rules, remember, capsysbinary):
        remember({})
        file = rules.parent / (words[0] if words else name)
        file.write_bytes(text.encode())
        assert main(["suggest", str(file) if name == "/absolute" else name]) == 0
        diff = capsysbinary.readouterr().out
        assert subprocess.run(["patch", *words], input=diff, cwd=rules.parent, capture_output=True).returncode == 0
        before, after = text.encode().split(b"}\n  ]" if b"}\n  ]" in text.encode() else b"}"), file.read_bytes()
        assert after.startswith(before[0])
        assert after.endswith(before[-1])
        assert [rule.name for rule in load(after).rules] == ["no mail", "firefox: web"]

    def test_what_ends_a_line_amid_it_is_escaped(self, rules, remember, capsys):
        remember({})
        rules.write_bytes(POLICY.replace('"rules": ', '"rules":\r').encode())
        assert main(["suggest"]) == 0
        out = capsys.readouterr().out
        assert '"rules":\\x0d[' in out
        assert "\r" not in out

    def test_what_comes_out_ends_as_before_with_every_default_at_block(self, rules, remember, capsys):
        remember({}, {"program": "/usr/sbin/sshd", "direction": Direction.IN, "port": 22})
        target = rules.parent / "new.json"
        assert main(["suggest", "--output", str(target)]) == 0
        target.write_text(target.read_text().replace('"out": "allow"', '"out": "block"'))
        assert main(["rehearse", str(target)]) == 0
        assert main(["suggest", str(target)]) == 1

    def test_output_is_a_new_file(self, rules, remember, capsys):
        remember({})
        assert main(["suggest", "--output", "rules.json"]) == 2
        assert "is there already" in capsys.readouterr().err
        assert main(["suggest", "--output", "nowhere/new.json"]) == 2
        assert main(["suggest", "--output", ""]) == 2
        assert "--output '' is an empty name" in capsys.readouterr().err
        assert rules.read_text() == POLICY

    @pytest.mark.parametrize("words", [(), ("--output", "new.json")])
    def test_tests_of_the_file_that_would_not_hold_are_told(self, words, rules, remember, capsys):
        remember({})
        asked = "tcp 10.0.0.1:40000 -> 203.0.113.9:443"
        tests = [
            {"expect": "block", "out": asked, "app": f"/usr/bin/{name}", "user": "alice", "interface": "eth0"}
            for name in ("firefox", "curl")
        ]
        policy(rules, default={"out": "block"}, tests=tests)
        assert main(["check"]) == 0
        capsys.readouterr()
        assert main(["suggest", *words]) == 1
        faults = [line for line in capsys.readouterr().err.splitlines() if "tests[" in line]
        assert len(faults) == 1
        named = words[1] if words else "rules.json"
        assert re.match(rf'{named}:[0-9]+:[0-9]+: tests\[0\]: .*: must be block, is allow: .*"firefox: web"', faults[0])
        if words:
            assert main(["check", "new.json"]) == 2
            assert capsys.readouterr().err.splitlines() == faults
        assert main(["suggest", "--json"]) == 1
        (fault,) = json.loads(capsys.readouterr().out)["failing_tests"]
        assert fault["where"] == "tests[0]"
        assert faults[0] == f"{named}:{fault['line']}:{fault['column']}: tests[0]: {fault['what']}"

    def test_a_limit_is_told(self, rules, remember, capsys):
        remember({}, {"port": 80})
        policy(rules, {"name": "slow", "action": "allow", "protocol": "tcp", "port": 80, "limit": "6/minute"})
        assert main(["suggest"]) == 0
        assert 'rule "slow" has a limit, which is taken as never reached: 1 connection' in capsys.readouterr().err
        assert main(["suggest", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["limited"] == {"slow": 1}

    @pytest.mark.parametrize("change", ["protocol = 999", "port = 99999", "protocol = 1, port = -1, icmp_type = 999"])
    def test_numbers_that_cannot_be_are_damage(self, change, rules, remember, capsys):
        remember({})
        with closing(sqlite3.connect(rules.parent / "state" / "history.db")) as history, history:
            history.execute(f"UPDATE subject SET {change}")
        assert main(["suggest"]) == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert "history.db is damaged: no rule can be made of it: " in line

    def test_json_has_the_rules_and_the_policy(self, rules, remember, capsys):
        remember({}, {"certainty": Certainty.GUESS})
        assert main(["suggest", "--json"]) == 0
        out, err = capsys.readouterr()
        facts = json.loads(out)
        assert err == ""
        assert [(each["name"], each["connections"]) for each in facts["rules"]] == [("firefox: web", 1)]
        assert facts["left_out"] == {"which program it was is only a guess": 1}
        assert (facts["accepted"], facts["covered"], facts["unmet"]) == (2, 0, 0)
        load(json.dumps(facts["policy"]))

    def test_one_program_alone(self, rules, remember, capsys):
        remember({}, {"program": "/usr/bin/curl"})
        assert main(["suggest", "--app", "curl", "--json"]) == 0
        assert [each["name"] for each in json.loads(capsys.readouterr().out)["rules"]] == ["curl: web"]

    def test_a_file_of_lists_becomes_rules(self, rules, remember, capsys):
        remember({})
        rules.write_text('{"block": {"port": [25]}}')
        assert main(["suggest"]) == 0
        out, err = capsys.readouterr()
        assert "is of the lists form" in err
        assert '{"name": "block port", "action": "block", "port": [25]}' in out
        assert "\n+\n" not in out

    def test_nothing_of_what_is_remembered_steers_a_terminal(self, rules, remember, capsys):
        remember({"program": f"/{EVIL}"}, {"name": EVIL})
        main(["suggest"])
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err
        assert "the program's path cannot be written in a policy" in err


class TestUp:
    """`pfw up --rehearse`: what it asks, and what it does with the answer. What is applied then is not for here."""

    def answer(self, typed: str | None, *words: str) -> tuple[str, str]:
        """The outcome of `agreed` in a process of its own, which has a terminal if something is typed."""
        code = ("import sys; from pfw.cli.ask import loaded; from pfw.cli.parser import build_parser;"
                "from pfw.commands.rehearsing import agreed;"
                "options = build_parser().parse_args(['up', '--rehearse', *sys.argv[1:]]);"
                "print('agreed', agreed(loaded(None), options))")  # fmt: skip
        person, ours = pty.openpty() if typed is not None else (None, subprocess.DEVNULL)
        if person is not None:
            os.write(person, (typed or "").encode() + b"\n")
        done = subprocess.run([sys.executable, "-P", "-c", code, *words], stdin=ours, capture_output=True, text=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, timeout=60)  # fmt: skip
        return done.stdout, done.stderr

    @pytest.mark.parametrize(
        ("typed", "is_yes"), [("y", True), ("Yes", True), ("n", False), ("", False), ("yess", False)]
    )
    def test_it_asks_at_a_terminal(self, typed, is_yes, rules, remember):
        remember({})
        out, err = self.answer(typed)
        assert "none would end otherwise" in out
        assert "apply? [y/N] " in err
        assert out.endswith(f"agreed {is_yes}\n")
        assert ("nothing was changed" in err) is not is_yes

    def test_without_a_terminal_the_answer_is_no(self, rules, remember):
        remember({})
        out, err = self.answer(None)
        assert out.endswith("agreed False\n")
        assert "no terminal to ask at; --yes" in err

    @pytest.mark.parametrize("word", ["--yes", "--dry-run"])
    def test_nobody_is_asked_where_it_is_said_or_nothing_is_done(self, word, rules, remember):
        remember({})
        out, err = self.answer(None, word)
        assert out.endswith("agreed True\n")
        assert err == ""

    def test_with_json_standard_output_is_left_alone(self, rules, remember):
        remember({})
        out, err = self.answer(None, "--yes", "--json")
        assert out == "agreed True\n"
        assert "none would end otherwise" in err

    def test_no_means_that_nothing_is_touched(self, rules, remember, monkeypatch, capsys):
        remember({})
        monkeypatch.setattr("os.geteuid", lambda: 0)
        monkeypatch.setattr("pfw.commands.enforcing.apply", lambda *_: pytest.fail("it was applied"))
        with open(os.devnull, encoding="utf-8") as nobody:
            monkeypatch.setattr("sys.stdin", nobody)
            assert main(["up", "--rehearse"]) == 1

    def test_without_a_history_it_is_refused(self, rules, monkeypatch, capsys):
        monkeypatch.setattr("os.geteuid", lambda: 0)
        monkeypatch.setattr("pfw.commands.enforcing.apply", lambda *_: pytest.fail("it was applied"))
        assert main(["up", "--rehearse", "--yes"]) == 3
        assert "without --rehearse it is applied unseen" in capsys.readouterr().err


def test_answers_are_called_as_the_ruleset_calls_them():
    assert {name for name, _ in plan._PROGRAM_NAMES} >= rehearsing._ANSWERED


def test_users_and_groups_are_those_of_the_machine(make_rule_of_users):
    world = rehearsing._world(make_rule_of_users("root", "group:root", "nobody-is-called-so", "0"))
    assert world.named["root"] == world.named["0"] == {0}
    assert 0 in world.named["group:root"]
    assert world.named["nobody-is-called-so"] == frozenset()


@pytest.fixture
def make_rule_of_users():
    def make(*users: str):
        return load(json.dumps({"version": 2, "rules": [{"name": "x", "action": "block", "user": list(users)}]}))

    return make


def test_groups_are_read_anew_only_where_they_are_many(monkeypatch):
    class Book:
        reads = 0

        def groups(self, query):
            self.reads += 1
            return iter(range(5))

    for most, reads in ((5, 1), (4, 2)):
        monkeypatch.setattr(rehearsing, "_KEPT_MAX", most)
        book = Book()
        again = rehearsing._Again(book, None)
        assert [list(again()), list(again())] == [list(range(5))] * 2
        assert book.reads == reads


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_takes_a_while_is_counted_on_a_terminal(is_terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(rehearsing, "_QUIET_S", 0.0)
    assert sum(rehearsing._counted(range(20_000))) == sum(range(20_000))
    err = capsys.readouterr().err
    assert ("looked at 20,000 connections" in err) is is_terminal
    assert err.endswith("\r\x1b[K") is is_terminal
