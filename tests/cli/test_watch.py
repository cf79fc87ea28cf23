"""replay, and monitor on capture files: the report, the summary, JSON, and captures that are none."""

from __future__ import annotations

import json
import os
import resource
import subprocess

import pytest

REPLAY_KEYS = {"packets", "undecodable", "connections", "allowed", "blocked", "rejected", "rules", "not_ip"}
"""What is promised; there may be more."""


def accounted(facts):
    """Packets that the report says something of; they ought to be all."""
    return sum(rule["packets"] for rule in facts["rules"]) + facts["undecodable"] + facts["not_ip"]


class TestReplay:
    def test_json(self, pfw, rules, capture, kit):
        done = pfw("replay", capture.name, *kit.local, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        facts = json.loads(done.stdout)
        assert facts.keys() >= REPLAY_KEYS
        assert facts["packets"] == len(kit.traffic) == accounted(facts)
        assert facts["not_ip"] == 1
        assert facts["not_ip_kinds"] == {"arp": 1}
        assert facts["undecodable"] == 1
        counts = {name: facts[name] for name in ("connections", "allowed", "blocked", "rejected", "unknown")}
        assert counts == {"connections": 6, "allowed": 2, "blocked": 2, "rejected": 1, "unknown": 1}
        by_name = {rule["name"]: rule for rule in facts["rules"] if rule["action"] != "unknown"}
        assert {key: by_name["web"][key] for key in ("action", "connections", "packets")} == {
            "action": "allow",
            "connections": 1,
            "packets": 2,
        }
        assert by_name["web"]["bytes"] == 2 * 54
        assert by_name["base invalid"]["packets"] == 1
        assert by_name["never"]["packets"] == 0
        assert facts["top"]["peers_blocked"][0] == {"name": "203.0.113.9", "connections": 2}

    def test_text(self, pfw, rules, capture, kit):
        done = pfw("replay", *kit.local, capture.name)
        lines = done.stdout.splitlines()
        assert lines[0].startswith("10 packets (")
        assert lines[0].endswith("6 connections: 2 allowed, 2 blocked, 1 rejected, 1 unknown here")
        assert lines[1] == "1 packet undecodable, 1 arp"
        table = {line.split("  ")[0]: line.split() for line in lines}
        assert table["no mail from here"][-5:-1] == ["rejected", "1", "1", "54"]
        assert "1 rule without a match" in lines
        assert "top blocked ports (connections)" in lines
        assert done.stderr == ""

    def test_files_add_up(self, pfw, rules, capture, kit):
        done = pfw("replay", "--json", *kit.local, capture.name, capture.name)
        facts = json.loads(done.stdout)
        assert facts["packets"] == 2 * len(kit.traffic) == accounted(facts)

    def test_standard_input(self, pfw, rules, capture, kit):
        done = pfw("replay", "--json", *kit.local, "-", input=capture.read_bytes())
        assert json.loads(done.stdout)["connections"] == 6

    def test_a_filter(self, pfw, rules, capture, kit):
        done = pfw("replay", "--json", *kit.local, "--filter", "tcp port 22", capture.name)
        if "libpcap" in done.stderr:
            pytest.skip("libpcap is not installed")
        facts = json.loads(done.stdout)
        assert facts["packets"] == 2 == accounted(facts)

    def test_top(self, pfw, rules, capture, kit):
        facts = json.loads(pfw("replay", "--json", "--top", "1", *kit.local, capture.name).stdout)
        assert {name: len(rows) for name, rows in facts["top"].items()} == dict.fromkeys(facts["top"], 1)

    def test_writes_no_log(self, pfw, rules, capture, tmp_path):
        pfw("replay", capture.name)
        assert not (tmp_path / "firewall.log").exists()

    def test_real_captures_add_up(self, pfw, rules, captures):
        facts = json.loads(pfw("replay", "--json", *captures).stdout)
        assert facts["packets"] == accounted(facts)
        assert facts["packets"] > 1000


class TestMonitor:
    def test_lines(self, pfw, rules, capture, kit):
        done = pfw("monitor", "--no-log", "--read", capture.name, *kit.local)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[:9] == [
            '[ALLOWED] 203.0.113.9:50000 (TCP) -> 192.168.1.5:80  rule "web"',
            "[BLOCKED] 203.0.113.9:50001 (TCP) -> 192.168.1.5:22  default in",
            "[BLOCKED] 203.0.113.8:50002 (TCP) -> 192.168.1.5:22  default in",
            '[REJECTED] 192.168.1.5:40000 (TCP) -> 203.0.113.9:25  rule "no mail from here"',
            "[UNKNOWN] 192.168.1.5:40001 (TCP) -> 203.0.113.9:8080  block if the program is /usr/bin/firefox "
            '(rule "browser"), otherwise allow (default out)',
            "[ALLOWED] [2001:db8::5]:40002 (UDP) -> [2001:db8::9]:53  default out",
            "[SUSPICIOUS]  too short for its IPv4 header",
            "[SUSPICIOUS] 203.0.113.66:1 (TCP) -> 192.168.1.5:443  TCP without any flag (null scan)",
            "",
        ]
        assert "lost: " in done.stdout

    def test_times_are_local(self, pfw, rules, capture, kit):
        words = ("monitor", "--no-log", "--read", capture.name, *kit.local, "-v")
        for zone, time in (("UTC", "02:05:00.250"), ("Asia/Kolkata", "07:35:00.250")):
            first = pfw(*words, more={"TZ": zone}).stdout.splitlines()[0]
            assert first.split() == [time, "in", "-", "[ALLOWED]", *first.split()[4:]]

    def test_json_is_utc(self, pfw, rules, capture, kit):
        words = ("monitor", "--no-log", "--read", capture.name, *kit.local, "--json")
        done = pfw(*words, more={"TZ": "Asia/Kolkata"})
        objects = [json.loads(line) for line in done.stdout.splitlines()]
        kinds = [each["event"] for each in objects]
        assert kinds == ["connection"] * 6 + ["suspicious"] * 2 + ["summary"]
        assert objects[0]["time"] == "2026-11-23T02:05:00.250000Z"
        expected = {
            "verdict": "allow",
            "rule": "web",
            "direction": "in",
            "protocol": "TCP",
            "source": "203.0.113.9",
            "source_port": 50000,
            "destination": "192.168.1.5",
            "destination_port": 80,
        }
        assert {key: objects[0][key] for key in expected} == expected
        assert objects[1]["rule"] is None
        summary = objects[-1]
        assert summary["packets"] == len(kit.traffic) == accounted(summary)
        assert set(summary["lost"].values()) <= {0}

    def test_every_packet(self, pfw, rules, capture, kit):
        done = pfw("monitor", "--no-log", "--read", capture.name, *kit.local, "--every-packet")
        lines = done.stdout.splitlines()
        assert lines[:2] == [
            '[ALLOWED] 203.0.113.9:50000 (TCP) -> 192.168.1.5:80  rule "web"  54 bytes',
            '[ALLOWED] 192.168.1.5:80 (TCP) -> 203.0.113.9:50000  rule "web"  54 bytes',
        ]

    def test_quiet(self, pfw, rules, capture, kit):
        done = pfw("monitor", "--no-log", "--quiet", "--read", capture.name, *kit.local)
        assert "[" not in done.stdout
        assert "6 connections" in done.stdout

    def test_count(self, pfw, rules, capture, kit):
        done = pfw("monitor", "--no-log", "--count", 3, "--json", "--read", capture.name, *kit.local)
        assert json.loads(done.stdout.splitlines()[-1])["packets"] == 3

    def test_the_log_stands_beside(self, pfw, rules, capture, kit, tmp_path):
        pfw("monitor", "--eve", "eve.json", "--read", capture.name, *kit.local)
        log = (tmp_path / "firewall.log").read_text()
        assert log.startswith("2026-11-23 02:05:00,")
        assert '192.168.1.5:40000 > 203.0.113.9:smtp S - Rejected by rule "no mail from here"' in log
        events = [json.loads(line) for line in (tmp_path / "eve.json").read_text().splitlines()]
        assert {"drop", "flow", "stats", "alert", "anomaly"} == {event["event_type"] for event in events}

    @pytest.mark.parametrize(
        ("words", "what"),
        [
            (["--read", "capture.pcap", "--interface", "lo"], "--read and --interface do not go together"),
            (["--local", "192.168.1.5"], "--local is for captures"),
            (["--read", "capture.pcap", "--local", "192.168.1"], "--local '192.168.1' is not an address"),
            (["--read", "capture.pcap", "--local", "\x1b[31m"], r"--local '\x1b[31m' is not an address"),
            (["--read", "capture.pcap", "--filter", "tcp prt 80"], "filter"),
        ],
    )
    def test_what_cannot_be(self, pfw, rules, capture, words, what):
        done = pfw("monitor", "--no-log", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert what in done.stderr
        assert done.stderr.count("\n") == 1

    def test_a_log_that_must_not_be_written(self, pfw, rules, capture, tmp_path):
        (tmp_path / "folder").mkdir()
        done = pfw("monitor", "--log", "folder", "--read", capture.name)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith("pfw: ")
        assert done.stderr.count("\n") == 1


@pytest.fixture(params=["replay", "monitor"])
def read(request, pfw, rules):
    """Runs `replay` or `monitor` on a capture file."""

    def run(name, *words, **options):
        front = ("replay",) if request.param == "replay" else ("monitor", "--no-log", "--read")
        return pfw(*front, name, *words, **options)

    return run


class TestCaptures:
    def test_not_there(self, read):
        done = read("nope.pcap")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "pfw: nope.pcap: No such file or directory\n"

    def test_a_folder(self, read, tmp_path):
        (tmp_path / "folder").mkdir()
        done = read("folder")
        assert (done.returncode, done.stderr) == (2, "pfw: folder: Is a directory\n")

    def test_without_packets(self, read, kit, tmp_path):
        (tmp_path / "none.pcap").write_bytes(kit.pcap([]))
        done = read("none.pcap", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["packets"] == 0

    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (b"", "empty, not a capture file"),
            (b"GET / HTTP/1.0\r\n\r\nnot a capture", "neither a pcap nor a pcapng file"),
            (b"\x1f\x8b\x08\x00" + bytes(60), "compressed with gzip"),
            (bytes(range(256)) * 9, "neither a pcap nor a pcapng file"),
        ],
    )
    def test_not_a_capture(self, read, tmp_path, data, what):
        (tmp_path / "it").write_bytes(data)
        done = read("it")
        assert done.returncode == 2
        assert done.stderr.startswith(f"pfw: it: {what}")
        assert done.stderr.count("\n") == 1

    def test_cut_in_the_middle_gives_all_whole_packets(self, read, kit, tmp_path):
        (tmp_path / "cut.pcap").write_bytes(kit.pcap(kit.traffic)[:-10])
        done = read("cut.pcap", "--json", *kit.local)
        assert done.returncode == 2
        assert "cut.pcap: the capture file ends in the middle" in done.stderr
        assert done.stderr.count("\n") == 1
        assert json.loads(done.stdout.splitlines()[-1])["packets"] == len(kit.traffic) - 1

    def test_one_bad_file_among_good_ones(self, pfw, rules, capture, kit, tmp_path):
        (tmp_path / "cut.pcap").write_bytes(kit.pcap(kit.traffic)[:-10])
        done = pfw("replay", "--json", "cut.pcap", capture.name, *kit.local)
        assert done.returncode == 2
        assert json.loads(done.stdout)["packets"] == 2 * len(kit.traffic) - 1

    def test_dev_null(self, read):
        done = read("/dev/null")
        assert (done.returncode, done.stderr) == (2, "pfw: /dev/null: empty, not a capture file\n")

    def test_dev_zero_is_not_read_for_ever(self, read):
        done = read("/dev/zero", timeout=20)
        assert (done.returncode, done.stderr) == (2, "pfw: /dev/zero: neither a pcap nor a pcapng file\n")

    def test_a_capture_that_ends_in_zeros_without_end(self, kit, rules, tmp_path):
        """Records of length 0 for ever: memory stays bounded, and a signal ends it."""
        script = 'cat capture.pcap /dev/zero | timeout -s INT 3 "$@" > out 2> err; echo $?'
        (tmp_path / "capture.pcap").write_bytes(kit.pcap(kit.traffic))
        done = subprocess.run(
            ["bash", "-c", script, "bash", *kit.command("monitor", "--no-log", "--quiet", "--read", "-")],
            cwd=tmp_path,
            env=kit.environment(),
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
        )
        assert "Traceback" not in (tmp_path / "err").read_text()
        assert done.stdout.strip() in ("0", "2", "124")
        assert " packets (" in (tmp_path / "out").read_text()

    def test_a_name_that_steers_terminals(self, read, kit, tmp_path):
        name = "\x1b[31m\u202e.pcap"
        (tmp_path / name).write_bytes(kit.pcap(kit.traffic)[:-10])
        assert r"\x1b[31m\u202e.pcap" in read(name).stderr
        assert r"\x1b[32m" in read("\x1b[32m").stderr

    def test_an_interface_that_steers_terminals(self, pfw, rules, kit, tmp_path):
        evil = "e\x1b[31m\r\n\x9b\u202e".encode()
        (tmp_path / "evil.pcapng").write_bytes(kit.pcapng(kit.traffic, evil))
        for words in (["-v"], ["--json"], ["-v", "--every-packet"]):
            done = pfw("monitor", "--read", "evil.pcapng", "--eve", "eve.json", *kit.local, *words)
            assert done.returncode == 0
            assert "e?[31m" in done.stdout
        for name in ("firewall.log", "eve.json"):
            text = (tmp_path / name).read_text()
            assert text
            assert not kit.raw_controls.search(text)
        assert pfw("replay", "evil.pcapng").returncode == 0

    def test_a_rule_name_cannot_steer_terminals(self, pfw, tmp_path, capture):
        (tmp_path / "rules.json").write_text('{"version": 2, "rules": [{"name": "a\\u001b[31m", "action": "block"}]}')
        done = pfw("monitor", "--no-log", "--read", capture.name)
        assert (done.returncode, done.stdout) == (2, "")
        assert "U+001B" in done.stderr


def test_two_captures_of_the_same_name_in_bytes(pfw, rules, kit, tmp_path):
    """File names are bytes; one that is no text is shown escaped."""
    path = os.fsencode(tmp_path) + b"/\xff\xfe.pcap"
    with open(path, "wb") as file:
        file.write(kit.pcap(kit.traffic)[:-10])
    done = pfw("replay", os.fsdecode(b"\xff\xfe.pcap"))
    assert done.returncode == 2
    assert r"\udcff\udcfe.pcap" in done.stderr
