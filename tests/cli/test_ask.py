"""check, explain, schema, convert, completion: as processes."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import time

import pytest

from pfw.policy.load import load

QUESTION = ("in", "tcp", "203.0.113.9:50000", "192.168.1.5:22")


class TestCheck:
    FAULTY = """\
{
  "version": 2,
  "rules": [
    {"name": "web", "action": "allow", "port": 80},
    {"name": "ssh",
     "action": "allow",
     "port": 70000},
    {"name": "x", "action": "allow",
     "prot": "tcp"}
  ]
}
"""

    def test_valid(self, pfw, rules):
        done = pfw("check")
        assert (done.returncode, done.stdout, done.stderr) == (0, "rules.json: valid, 4 rules (rules form)\n", "")

    def test_what_there_is_to_know_of_a_valid_file(self, pfw, tmp_path):
        rule = {"name": "backup", "action": "allow", "app": "/usr/bin/python3", "script": "/usr/local/bin/backup"}
        (tmp_path / "rules.json").write_text(json.dumps({"version": 2, "rules": [rule]}))
        note = 'rule "backup": "script" is decided by the daemon, for each connection anew, and not by the kernel'
        done = pfw("check")
        assert (done.returncode, done.stdout) == (0, "rules.json: valid, 1 rule (rules form)\n")
        assert done.stderr == f"pfw: {note}\n"
        assert json.loads(pfw("check", "--json").stdout)["notes"] == [note]

    def test_faults_go_to_standard_error(self, pfw, tmp_path):
        (tmp_path / "rules.json").write_text(self.FAULTY)
        done = pfw("check")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "rules.json:7:14: rules[1].port: 70000 is not a port (0-65535)\n"
            'rules.json:9:6: rules[2].prot: is not a field of a rule; did you mean "port" or "protocol"?\n'
        )

    def test_json(self, pfw, rules, tmp_path):
        done = pfw("check", "--json")
        assert done.returncode == 0
        assert json.loads(done.stdout) == {
            "file": "rules.json",
            "valid": True,
            "form": "full",
            "rules": 4,
            "tests": 0,
            "faults": [],
            "notes": [],
        }
        (tmp_path / "bad.json").write_text(self.FAULTY)
        done = pfw("check", "bad.json", "--json")
        assert (done.returncode, done.stderr) == (2, "")
        answer = json.loads(done.stdout)
        assert (answer["valid"], answer["form"], answer["rules"]) == (False, None, None)
        assert answer["faults"][0] == {
            "file": "bad.json",
            "line": 7,
            "column": 14,
            "where": "rules[1].port",
            "what": "70000 is not a port (0-65535)",
        }
        assert [fault["line"] for fault in answer["faults"]] == [7, 9]

    def test_json_of_a_file_that_is_not_there(self, pfw):
        done = pfw("check", "nope.json", "--json")
        assert (done.returncode, done.stderr) == (2, "")
        assert json.loads(done.stdout)["faults"][0]["what"] == "No such file or directory"

    def test_names_that_steer_terminals(self, pfw, tmp_path):
        name = "\x1b]0;x\x07\u202e.json"
        (tmp_path / name).write_text('{"version": 2, "rules": [{"name": "\\u001b[2J", "action": "\\u202eallow"}]}')
        done = pfw("check", name)
        assert done.stderr.startswith("\\x1b]0;x\\x07\\u202e.json:1:35: rules[0].name: has a character that cannot")
        assert json.loads(pfw("check", name, "--json").stdout)["file"] == "\\x1b]0;x\\x07\\u202e.json"

    def test_a_name_that_is_no_text(self, pfw, tmp_path):
        with open(os.fsencode(tmp_path) + b"/\xff.json", "wb") as file:
            file.write(b"{}")
        done = pfw("check", os.fsdecode(b"\xff.json"))
        assert done.returncode == 0
        assert "valid, 0 rules (lists form)" in done.stdout


class TestExplain:
    def test_a_default_decides(self, pfw, rules):
        done = pfw("explain", *QUESTION)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines[0] == "block: default in"
        assert '  no match   rule "web", line 8: port wants 80, 443, is 22' in lines
        assert '  no match   rule "no mail from here", line 18: direction wants out, is in' in lines

    def test_a_rule_decides(self, pfw, rules):
        done = pfw("explain", "out", "tcp", "[2001:db8::5]:1", "[2001:db8::9]:25")
        lines = done.stdout.splitlines()
        assert lines[0] == 'reject: rule "no mail from here", line 18'
        assert '"never"' not in done.stdout

    def test_json(self, pfw, rules):
        answer = json.loads(pfw("explain", *QUESTION, "--json").stdout)
        assert (answer["verdict"], answer["rule"], answer["line"]) == ("block", None, None)
        web = next(each for each in answer["passed"] if each["name"] == "web")
        assert web == {
            "name": "web",
            "line": 8,
            "answer": "no",
            "fields": [{"field": "port", "wants": "80, 443", "has": "22"}],
        }
        answer = json.loads(pfw("explain", "in", "tcp", "203.0.113.9:1", "192.168.1.5:80", "--json").stdout)
        assert (answer["verdict"], answer["rule"], answer["line"]) == ("allow", "web", 8)

    def test_what_is_not_known(self, pfw, rules):
        question = ("out", "tcp", "192.168.1.5:40000", "203.0.113.9:8080")
        assert pfw("explain", *question).stdout.startswith("unknown: block if the program is /usr/bin/firefox")
        assert pfw("explain", *question, "--app", "/usr/bin/firefox").stdout.startswith('block: rule "browser"')
        assert pfw("explain", *question, "--app=/usr/bin/curl").stdout.startswith("allow: default out")
        more = ("--sha256", "0" * 64, "--script", "/s")
        assert pfw("explain", *question, "--app=/usr/bin/firefox", *more).stdout.startswith('block: rule "browser"')

    def test_user_by_any_of_its_names(self, pfw, tmp_path):
        me = pwd.getpwuid(0)
        for wanted in (me.pw_name, 0, "group:0"):
            rule = {"name": "me", "action": "allow", "direction": "in", "user": wanted}
            (tmp_path / "rules.json").write_text(json.dumps({"version": 2, "rules": [rule]}))
            for asked in (me.pw_name, "0"):
                assert pfw("explain", *QUESTION, "--user", asked).stdout.startswith('allow: rule "me"')
        assert pfw("explain", *QUESTION, "--user", "nobody-of-this-name").stdout.startswith("block: default in")

    def test_time_is_local(self, pfw, tmp_path):
        rule = {
            "name": "morning",
            "action": "allow",
            "direction": "in",
            "schedule": {"from": "09:00", "until": "10:00"},
        }
        (tmp_path / "rules.json").write_text(json.dumps({"version": 2, "rules": [rule]}))
        for zone, asked, verdict in (
            ("Asia/Tokyo", "2026-11-23T09:30", "allow"),
            ("Asia/Tokyo", "2026-11-23T00:30Z", "allow"),
            ("Asia/Tokyo", "2026-11-23T09:30Z", "block"),
            ("America/New_York", "2026-11-23T09:30", "allow"),
            # In summer the clock there is another hour ahead.
            ("America/New_York", "2026-07-01T09:30", "allow"),
            ("America/New_York", "2026-07-01T13:30Z", "allow"),
            ("America/New_York", "2026-11-23T14:30Z", "allow"),
        ):
            said = pfw("explain", *QUESTION, "--time", asked, more={"TZ": zone}).stdout
            assert said.startswith(verdict), (zone, asked)

    @pytest.mark.parametrize(
        ("words", "what"),
        [
            (["in", "tcp", "203.0.113.9:1"], "there are only 3 words"),
            (["over", "tcp", "1.1.1.1:1", "2.2.2.2:2"], "is not a direction"),
            (["in", "tpc", "1.1.1.1:1", "2.2.2.2:2"], "is not a protocol"),
            (["in", "tcp", "1.1.1.1:1", "2.2.2.2"], "has no port"),
            (["in", "tcp", "1.1.1.1:1", "[::2]:2"], "are not of one family"),
            (["in", "tcp", "1.1.1.1:1", "2.2.2.2:65536"], "is not a port (0-65535)"),
            (["in", "tcp", "1.1.1.1:1", "2.2.2.2:2", "--time", "noon"], "is not a time"),
            (["in", "tcp", "\x1b[31m", "2.2.2.2:2"], "is not an address"),
            (["in", "tcp", "1.1.1.1:1", "2.2.2.2:2", "--app", "/a", "--app", "/b"], "--app is given twice"),
            (["-", "--user", "root"], "--user and - do not go together"),
        ],
    )
    def test_a_question_that_is_none(self, pfw, rules, words, what):
        done = pfw("explain", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert what in done.stderr
        assert done.stderr.startswith("pfw: ")
        assert done.stderr.count("\n") == 1

    def test_a_rule_name_of_any_language(self, pfw, tmp_path):
        (tmp_path / "rules.json").write_text('{"version": 2, "rules": [{"name": "größer ☂ קטן", "action": "allow"}]}')
        assert pfw("explain", *QUESTION).stdout.splitlines()[0] == 'allow: rule "größer ☂ קטן", line 1'
        # A terminal that knows ASCII alone gets what it can show.
        done = pfw("explain", *QUESTION, more={"LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
        assert done.stdout.splitlines()[0].startswith('allow: rule "gr')
        assert (done.returncode, done.stderr) == (0, "")


class TestExplainMany:
    LINES = (
        "in tcp 203.0.113.9:50000 192.168.1.5:80",
        "",
        "# a remark",
        "nonsense",
        "out tcp 192.168.1.5:40000 203.0.113.9:25   ",
        "out tcp 192.168.1.5:40000 203.0.113.9:8080",
        "in tcp 203.0.113.9:50000 192.168.1.5:22 --user root --time '2026-11-23 10:00'",
        "in tcp \x1b[31m:1 192.168.1.5:22",
        "in tcp 127.0.0.1:1 127.0.0.1:22",
    )

    def ask(self, pfw, *words, data=None):
        return pfw("explain", "-", *words, input=data if data is not None else "\n".join(self.LINES).encode())

    def test_text(self, pfw, rules):
        done = self.ask(pfw)
        assert done.returncode == 2
        assert done.stdout.splitlines() == [
            'allow   rule "web" (line 8)',
            'reject  rule "no mail from here" (line 18)',
            'unknown block if the program is /usr/bin/firefox (rule "browser"), otherwise allow (default out) '
            "(line 25)",
            "block   default in",
            "allow   base loopback",
        ]
        complaints = done.stderr.splitlines()
        assert [line.split(": ")[1] for line in complaints] == ["line 4", "line 8"]

    def test_json_an_object_a_line(self, pfw, rules):
        done = self.ask(pfw, "--json")
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert [each.get("verdict") for each in answers] == ["allow", None, "reject", "unknown", "block", None, "allow"]
        assert answers[0] == {"verdict": "allow", "rule": "web", "reason": 'rule "web"', "line": 8}
        assert (answers[4]["rule"], answers[4]["line"]) == (None, None)
        assert [each["input_line"] for each in answers if "error" in each] == [4, 8]

    def test_all_is_well(self, pfw, rules):
        done = self.ask(pfw, data=b"in tcp 203.0.113.9:50000 192.168.1.5:80\r\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, 'allow   rule "web" (line 8)\n', "")

    def test_bytes_that_are_no_text(self, pfw, rules):
        done = self.ask(pfw, data=b"\xff\xfe\x00\n" + bytes(range(32, 256)) + b"\n\n" + self.LINES[0].encode())
        assert done.returncode == 2
        assert done.stdout == 'allow   rule "web" (line 8)\n'

    def test_a_line_without_an_end(self, pfw, rules):
        endless = b"in tcp 203.0.113.9:50000 192.168.1.5:80 --app /" + b"x" * 3_000_000
        done = self.ask(pfw, data=endless + b"\n" + self.LINES[0].encode())
        assert (done.returncode, done.stdout) == (2, 'allow   rule "web" (line 8)\n')
        assert done.stderr == "pfw: line 1: is longer than a question can be (10000 bytes)\n"

    def test_ten_thousand(self, pfw, rules):
        lines = [f"in tcp 203.0.113.{number % 200}:{number} 192.168.1.5:{number % 100}" for number in range(10_000)]
        began = time.monotonic()
        done = self.ask(pfw, "--json", data="\n".join(lines).encode())
        duration_s = time.monotonic() - began
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert [each["verdict"] for each in answers] == [
            "allow" if number % 100 == 80 else "block" for number in range(10_000)
        ]
        assert duration_s < 5

    def test_answers_come_while_questions_are_still_written(self, tmp_path, rules, kit):
        environment = kit.environment(PYTHONUNBUFFERED="1")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(kit.command("explain", "-"), cwd=tmp_path, env=environment, **pipes) as process:
            for _ in range(2):
                process.stdin.write(self.LINES[0].encode() + b"\n")
                process.stdin.flush()
                assert process.stdout.readline() == b'allow   rule "web" (line 8)\n'
            process.stdin.close()
        assert process.returncode == 0


class TestConvert:
    LISTS = '{"block": {"ip": ["192.168.1.100"], "port": ["ssh", "1000-2000"]}, "allow": {"protocol": "ICMP"}}'

    def test_round_trip(self, pfw, tmp_path):
        (tmp_path / "rules.json").write_text(self.LISTS)
        done = pfw("convert")
        assert (done.returncode, done.stderr) == (0, "")
        (tmp_path / "full.json").write_text(done.stdout)
        assert json.loads(done.stdout)["version"] == 2
        assert pfw("check", "full.json").stdout == "full.json: valid, 3 rules (rules form)\n"
        lists, full = load(self.LISTS), load(done.stdout)
        assert (lists.rules, lists.defaults) == (full.rules, full.defaults)
        assert pfw("convert", "full.json").stdout == done.stdout

    def test_the_full_form_stays_as_it_is(self, pfw, rules):
        assert pfw("convert").stdout == rules.read_text()

    def test_faults(self, pfw, tmp_path):
        (tmp_path / "rules.json").write_text('{"block": {"port": [65536]}}')
        done = pfw("convert", "--json")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "rules.json:1:21: block.port[0]: 65536 is not a port (0-65535)\n"

    def test_bytes_that_are_no_text_are_no_policy(self, pfw, tmp_path):
        (tmp_path / "rules.json").write_bytes(b'{"note": "\xff"}')
        assert pfw("convert").returncode == pfw("check").returncode == 2


def test_schema_takes_what_check_takes(pfw, rules):
    jsonschema = pytest.importorskip("jsonschema")
    done = pfw("schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert pfw("schema", "--json").stdout == done.stdout
    schema = json.loads(done.stdout)
    jsonschema.validate(json.loads(rules.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"version": 2, "rules": [{"name": "x", "action": "drop"}]}, schema)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(pfw, shell):
    done = pfw("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("monitor", "check", "explain", "replay", "schema", "convert", "every-packet"):
        assert word in done.stdout


def test_completion_of_another_shell(pfw):
    done = pfw("completion", "tcsh")
    assert (done.returncode, done.stdout) == (2, "")
    assert "tcsh" in done.stderr
