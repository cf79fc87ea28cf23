"""One watch from beginning to end over capture files, with the real command: logs, losses, exit status."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest


def run(process, content=None):
    out, errors = process.communicate(content, timeout=30)
    return process.returncode, out, errors


def test_a_file_is_judged_shown_and_logged(pfw, capture_file, tmp_path):
    status, out, errors = run(pfw("monitor", "--read", capture_file(), "--local", "192.0.2.1", "--eve", "eve.json"))
    assert (status, errors) == (0, "")
    lines = out.split("\n\n")[0].splitlines()
    assert len(lines) == 5
    assert lines[0] == "[ALLOWED] 192.0.2.1:40000 (UDP) -> 198.51.100.1:51  default out"
    assert lines[2] == '[BLOCKED] 192.0.2.1:40000 (UDP) -> 198.51.100.3:53  rule "no names"'
    assert "5 packets (140 B), 5 connections: 4 allowed, 1 blocked" in out
    (line,) = (tmp_path / "firewall.log").read_text().splitlines()
    assert line.endswith(' - Blocked by rule "no names"')
    assert line.startswith("2026-11-23 00:00:02,000 - ")
    events = [json.loads(text) for text in (tmp_path / "eve.json").read_text().splitlines()]
    assert (
        sorted(event["event_type"] for event in events if event["event_type"] in ("drop", "flow"))
        == ["drop"] + ["flow"] * 5
    )
    assert (
        next(event for event in events if event["event_type"] == "drop")["timestamp"]
        == "2026-11-23T00:00:02.000000+0000"
    )


def test_without_logs_no_process_is_started(pfw, capture_file, tmp_path):
    status, out, _ = run(pfw("monitor", "--read", capture_file(), "--no-log", "--json"))
    assert status == 0
    assert set(json.loads(out.splitlines()[-1])["lost"]) == {"lines on the screen", "packets by the capturing system"}
    assert not (tmp_path / "firewall.log").exists()


def test_a_file_that_ends_in_the_middle(pfw, capture_file):
    path = capture_file(cut=5)
    status, out, errors = run(pfw("monitor", "--read", path, "--no-log"))
    assert status == 2
    assert "4 packets" in out
    assert errors.startswith(f"pfw: {path}: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--read", "none.pcap"], 2, "none.pcap: No such file or directory"),
        (["--read", "."], 2, ".: Is a directory"),
        (["--read", "some.pcap", "--filter", "udp prt"], 2, "the filter 'udp prt' is not understood: "),
        (["--read", "some.pcap", "--interface", "lo"], 2, "--read and --interface do not go together"),
        (["--local", "192.0.2.1"], 2, "--local is for captures"),
        (["--read", "some.pcap", "--local", "nonsense"], 2, "--local 'nonsense' is not an address"),
        (["--read", "some.pcap", "--log", "."], 3, ". is not a regular file, give another path"),
        (["--read", "some.pcap", "--log", "same", "--eve", "same"], 3, "same"),
        (["--read", "some.pcap", "--syslog", "nonsense:port"], 2, "--syslog 'nonsense:port' is neither"),
        (["--read", "some.pcap", "--rules", "none.json"], 2, "none.json"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(pfw, capture_file, words, status, text):
    capture_file()
    got, out, errors = run(pfw("monitor", *words))
    assert errors.count("\n") == 1, errors
    assert text in errors
    assert (got, out) == (status, "")


class TestPipes:
    def test_standard_input(self, pfw, made):
        process = pfw("monitor", "--read", "-", "--no-log", stdin=subprocess.PIPE, text=False)
        status, out, _ = run(process, made.pcap(*made.frames))
        assert status == 0
        assert out.startswith(b"[")
        assert b"5 packets" in out

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_though_the_pipe_is_silent(self, pfw, made, number):
        process = pfw("monitor", "--read", "-", "--no-log", stdin=subprocess.PIPE, text=False)
        process.stdin.write(made.pcap(*made.frames))
        process.stdin.flush()
        for _ in made.frames:
            assert process.stdout.readline().startswith(b"[")
        began = time.monotonic()
        process.send_signal(number)
        out = process.stdout.read()
        assert process.wait(10) == 0
        assert time.monotonic() - began < 3
        assert b"5 packets" in out

    def test_lines_come_while_the_pipe_is_open(self, pfw, made):
        process = pfw("monitor", "--read", "-", "--no-log", stdin=subprocess.PIPE, text=False)
        content = made.pcap(*made.frames)
        process.stdin.write(content[: 24 + 16 + 28])
        process.stdin.flush()
        assert process.stdout.readline() == b"[ALLOWED] 192.0.2.1:40000 (UDP) -> 198.51.100.1:51  default in\n"
        process.stdin.close()
        assert process.wait(10) in (0, 2)
        process.stdout.close()

    def test_a_reader_that_has_seen_enough(self, pfw, capture_file, made):
        frames = [made.udp("192.0.2.1", "198.51.100.1", number) for number in range(1, 30_000)]
        process = pfw("monitor", "--read", capture_file(*frames), "--no-log")
        assert process.stdout.readline().startswith("[")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 0


def test_the_disk_that_is_full_is_counted(pfw, capture_file):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    status, out, errors = run(pfw("monitor", "--read", capture_file(), "--no-log", "--eve", "/dev/full"))
    assert (status == 0 and re.search(r"[1-9][\d,]* log lines by the disk", out)) or status == 3, (out, errors)


def test_no_child_is_left(pfw, capture_file):
    process = pfw("monitor", "--read", capture_file())
    run(process)
    left = [each for each in os.listdir("/proc") if each.isdecimal() and parent_of(each) == process.pid]
    assert left == []


def parent_of(process: str) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
