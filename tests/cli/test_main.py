"""What holds for the command as a whole: its streams, its exit status, its start."""

from __future__ import annotations

import os
import subprocess

import pytest

from pfw import __version__
from pfw.main import main

COMMANDS = {
    "version": ("--version",),
    "help": ("--help",),
    "help of a command": ("monitor", "--help"),
    "check": ("check",),
    "explain": ("explain", "in", "tcp", "203.0.113.9:50000", "192.168.1.5:22"),
    "explain many": ("explain", "-"),
    "replay": ("replay", "capture.pcap"),
    "monitor": ("monitor", "--no-log", "--read", "capture.pcap"),
    "schema": ("schema",),
    "convert": ("convert",),
    "completion": ("completion", "bash"),
}


@pytest.fixture(params=COMMANDS.values(), ids=COMMANDS)
def any_command(request, rules, capture):
    return request.param


@pytest.fixture
def shell(tmp_path, kit):
    """Runs a line of bash in which "$@" is a command of ours; its standard output and error."""

    def run(line, words, **more):
        questions = "in tcp 203.0.113.9:50000 192.168.1.5:22\n" * 3000
        done = subprocess.run(
            ["bash", "-c", line, "bash", *kit.command(*words)],
            cwd=tmp_path,
            env=kit.environment(**more),
            input=questions,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr

    return run


class TestTheReaderHasGone:
    @pytest.mark.parametrize("buffering", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
    def test_before_the_first_line(self, any_command, shell, buffering):
        stdout, stderr = shell('{ read -t 0.3 <> <(:); "$@"; echo $? >&2; } | true', any_command, **buffering)
        assert (stdout, stderr) == ("", "0\n")

    def test_after_the_first_line(self, any_command, shell):
        stdout, stderr = shell('{ "$@"; echo $? >&2; } | head -1', any_command)
        assert stdout.count("\n") == 1
        assert stderr == "0\n"


def test_standard_output_on_a_full_disk(any_command, shell):
    stdout, stderr = shell('"$@" > /dev/full; echo $?', any_command)
    assert (stdout, stderr) == ("3\n", "pfw: standard output: No space left on device\n")


class TestClosedStreams:
    def test_standard_input(self, any_command, shell):
        stdout, stderr = shell('"$@" <&- > /dev/null; echo $?', any_command)
        assert (stdout, stderr) == ("0\n", "")

    def test_a_capture_from_a_closed_standard_input(self, rules, shell):
        for words in (("replay", "-"), ("monitor", "--no-log", "--read", "-")):
            stdout, stderr = shell('"$@" <&- > /dev/null; echo $?', words)
            assert (stdout, stderr) == ("2\n", "pfw: -: empty, not a capture file\n")

    def test_all_of_them_and_the_log_is_whole(self, rules, capture, shell, tmp_path, kit):
        shell('exec "$@" <&- >&- 2>&-', ("monitor", "--read", capture.name, *kit.local))
        log = (tmp_path / "firewall.log").read_text().splitlines()
        assert len(log) >= 4
        assert all(line.startswith("2026-11-23 02:05:") for line in log)

    def test_complaints_do_not_go_where_data_goes(self, shell, tmp_path):
        stdout, _ = shell('"$@" 2>&-; echo $?', ("check", "nope.json"))
        assert stdout == "2\n"


class TestStatus:
    def test_no_command_shows_the_help(self, pfw):
        done = pfw()
        assert (done.returncode, done.stdout) == (2, "")
        assert "examples:" in done.stderr

    @pytest.mark.parametrize(
        "words",
        [
            ["nonsense"],
            ["--nonsense"],
            ["check", "--nonsense"],
            ["explain"],
            ["replay"],
            ["monitor", "--count", "0"],
            ["monitor", "--count", "-1"],
            ["monitor", "--seconds", "nan"],
            ["monitor", "--log-budget", "1T"],
            ["replay", "--top", "many", "x"],
            ["completion", "\x1b[31m"],
        ],
    )
    def test_bad_words(self, pfw, words):
        done = pfw(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert "usage: pfw" in done.stderr

    def test_what_the_system_refuses(self, pfw, rules):
        if os.geteuid() == 0:
            done = pfw("monitor", "--no-log", "--interface", "no-such-one")
            assert (done.returncode, done.stdout) == (3, "")
            assert "no interface with this name" in done.stderr

    def test_called_directly(self, capsys, rules, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        assert main(["check"]) == 0
        assert main(["check", "nope.json"]) == 2
        assert main(["--version"]) == 0
        shown = capsys.readouterr()
        assert shown.out == f"rules.json: valid, 4 rules (rules form)\npfw {__version__}\n"
        assert shown.err == "nope.json:1:1: No such file or directory\n"


def test_an_environment_with_nothing_in_it(rules, tmp_path, kit):
    done = subprocess.run(
        kit.command("check"),
        cwd=tmp_path,
        env={"PYTHONPATH": kit.environment()["PYTHONPATH"]},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "rules.json: valid, 4 rules (rules form)\n")


def test_little_is_imported_for_a_quick_answer(tmp_path, rules, kit):
    """`--version` and `check` are quick because of what they do without."""
    heavy = {"scapy", "asyncio", "difflib", "jsonschema", "sqlite3", "subprocess", "socket", "threading"}
    for words in (("--version",), ("check",)):
        command = kit.command(*words)
        done = subprocess.run(
            [command[0], "-X", "importtime", *command[1:]],
            cwd=tmp_path,
            env=kit.environment(),
            capture_output=True,
            text=True,
        )
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
        assert not imported & heavy
