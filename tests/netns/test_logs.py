"""The monitor's logs on real traffic, what it survives, and what it needs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class TestLogs:
    LINE = (
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - Ether / IP / UDP 10\.77\.0\.2:\d+ > 10\.77\.0\.1:4444( / Raw)?"
        r" - Blocked by default in"
    )

    def test_firewall_log(self, monitor, pair, net, tmp_path):
        watch = monitor()
        net.send(pair.there, net.here, 4444)
        net.talk(pair.here, pair.there, net.here, 8080)
        watch.line(r'\[ALLOWED\] .*:8080  rule "web"')
        assert watch.end() == 0
        lines = (tmp_path / "firewall.log").read_text().splitlines()
        assert any(re.fullmatch(self.LINE, line) for line in lines), lines
        assert not any("8080" in line for line in lines)

    def test_eve(self, monitor, pair, net, tmp_path):
        watch = monitor("--no-log", "--eve", "eve.json")
        net.send(pair.there, net.here, 4444)
        net.talk(pair.here, pair.there, net.here, 8080)
        watch.line(r'\[ALLOWED\] .*:8080  rule "web"')
        assert watch.end() == 0
        events = [json.loads(line) for line in (tmp_path / "eve.json").read_text().splitlines()]
        # Besides it there may be one of a multicast report, which has no port.
        drop = next(event for event in events if event["event_type"] == "drop" and "dest_port" in event)
        assert (drop["src_ip"], drop["dest_ip"], drop["dest_port"], drop["proto"]) == (net.there, net.here, 4444, "UDP")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+0000", drop["timestamp"])
        flow = next(event for event in events if event["event_type"] == "flow" and event.get("dest_port") == 8080)
        assert flow["flow"]["pkts_toserver"] > 2
        assert any(event["event_type"] == "stats" for event in events)
        assert not (tmp_path / "firewall.log").exists()

    def test_a_full_disk_stops_nothing_and_is_counted(self, monitor, pair, net, tmp_path):
        small = tmp_path / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], check=True)
        try:
            watch = monitor("--eve", small / "eve.json", "--no-log")
            for port in range(1000, 1100):
                net.send(pair.there, net.here, port)
            watch.line(r"\[BLOCKED\] .*:1099  default in")
            watch.line(r"pfw: .*eve\.json: cannot write: No space left on device; what is lost is counted", errors=True)
            net.talk(pair.here, pair.there, net.here, 8080)
            watch.line(r'\[ALLOWED\] .*:8080  rule "web"')
            lost = int(re.search(r"([\d,]+) log lines by the disk", watch.summary())[1].replace(",", ""))
            assert lost > 0
        finally:
            subprocess.run(["umount", "-l", small], check=True)

    def test_a_killed_recorder_stops_nothing(self, monitor, pair, net):
        watch = monitor()
        net.send(pair.there, net.here, 1000)
        watch.line(r"\[BLOCKED\] .*:1000  default in")
        children = Path(f"/proc/{watch.process.pid}/task/{watch.process.pid}/children").read_text().split()
        assert len(children) == 1
        os.kill(int(children[0]), signal.SIGKILL)
        for port in range(1001, 1021):
            net.send(pair.there, net.here, port)
        watch.line(r"\[BLOCKED\] .*:1020  default in")
        watch.line(r"pfw: the recorder has ended early: .*", errors=True)
        summary = watch.summary()
        assert int(re.search(r"([\d,]+) records on their way", summary)[1]) > 0

    def test_no_control_character_reaches_screen_or_log(self, monitor, pair, net, rules, tmp_path):
        interface = b"e\x1b[7mvil"
        net.ip("-n", pair.here.name, "link", "add", interface, "type", "veth", "peer", "name", "other")
        for name in (interface, "other"):
            net.ip("-n", pair.here.name, "link", "set", name, "up")
        watch = monitor("-v", "--eve", "eve.json", "--every-packet")
        # A question for a name that holds what would change a terminal's title.
        name = b"\x0b" + b"\x1b]0;owned\x07\x1b" + b"\x04evil\0"
        for port in (53, 5353, 137):
            net.send(pair.there, net.here, port, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + name + b"\0\x01\0\x01")
            net.send(pair.there, net.here, port, b"\x1b[2J" * 20)
        net.ip("-n", pair.here.name, "addr", "add", "10.78.0.1/24", "dev", interface)
        net.ip("-n", pair.here.name, "neigh", "add", "10.78.0.2", "lladdr", "02:00:00:00:00:02", "dev", interface)
        net.send(pair.here, "10.78.0.2", 5353)
        watch.line(r".* e\\x1b\[7mvil .*10\.78\.0\.2:5353 .*")
        watch.line(r".*:137 .*")
        rules.write({"name": "evil\x1b]0;owned\x07\x1b[31m", "action": "allow"}, **{"evil\x1b[2J": 1})
        watch.line(r"pfw: .*rules\.json:1:.*; the policy before stays in force", errors=True)
        assert watch.end() == 0
        log, eve = ((tmp_path / file).read_text() for file in ("firewall.log", "eve.json"))
        for text in ("\n".join(watch.out), "\n".join(watch.err), log, eve):
            assert not UNSAFE.search(text.replace("\n", "").replace("\t", ""))
        assert "evil" in log


class TestRights:
    def test_without_root_it_is_one_line(self, pair, rules, net, tmp_path):
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv")
        command = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "pfw", "monitor")
        options: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(net.source)}}
        done = pair.here.run(*command, "--no-log", check=False, **options)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == "pfw: capturing packets needs root (CAP_NET_RAW); type: sudo python3 firewall.py\n"

    def test_a_capture_that_may_not_be_read(self, pair, rules, net, tmp_path):
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv")
        secret = tmp_path / "secret.pcap"
        secret.touch(0o000)
        command = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "pfw", "monitor")
        options: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(net.source)}}
        done = pair.here.run(*command, "--no-log", "--read", secret, check=False, **options)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"pfw: {secret}: Permission denied\n"
