from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pfw.model.command import Frame, Notice, Seen
from pfw.model.verdict import Action, Verdict
from pfw.record.files import FileRefusedError
from pfw.record.recorder import Options, Recorder
from pfw.record.trouble import RETRY_S

Tell = Callable[[str], None]
HEAD = "2026-11-23 02:05:00,123 - Ether / IP / TCP 192.168.1.100:51514 > 192.168.1.5:http "


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_what_goes_to_the_log(tmp_path: Path, make: Any, tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    recorder = Recorder(Options(log=str(path)), tell)
    recorder.perform(make.judged(), make.now)
    recorder.perform(make.suspicious(), make.now)
    recorder.perform(make.judged(verdict=Verdict(Action.ALLOW, rule="ssh", log=True)), make.now)
    recorder.perform(make.judged(verdict=Verdict(Action.ALLOW, rule="ssh")), make.now)
    recorder.perform(make.judged(verdict=Verdict(Action.UNKNOWN, rule="firefox")), make.now)
    recorder.perform(make.ended(), make.now)
    recorder.perform(Seen(make.now, 7, make.tcp_flow(), make.blocked, 60), make.now)
    recorder.perform(Notice(make.now, "the table is full"), make.now)
    counts = recorder.close(make.now)
    assert lines(path) == [
        HEAD + 'S - Blocked by rule "block ip"',
        HEAD + "FS - Suspicious: TCP SYN and FIN together",
        HEAD + 'S - Allowed by rule "ssh"',
    ]
    assert (counts.lines, counts.lost, counts.folded, counts.plain) == ({"log": 3}, {"log": 0}, 0, 0)


def test_what_goes_to_eve(tmp_path: Path, make: Any, tell: Tell) -> None:
    path = tmp_path / "eve.json"
    recorder = Recorder(Options(eve=str(path)), tell)
    for _ in range(3):
        recorder.perform(make.judged(), make.now)
    recorder.perform(make.suspicious(), make.now)
    recorder.perform(make.suspicious(event="decoder.ipv4.trunc_pkt"), make.now)
    recorder.perform(make.judged(verdict=Verdict(Action.ALLOW, rule="ssh", log=True)), make.now)
    recorder.perform(make.ended(), make.now)
    recorder.stats({"capture.kernel_drops": 4}, make.now + 60)
    counts = recorder.close(make.now)
    written = events(path)
    assert [event["event_type"] for event in written] == ["drop"] * 3 + ["alert", "anomaly", "flow", "stats"]
    assert len({event["flow_id"] for event in written if "flow_id" in event}) == 1
    assert written[-1]["timestamp"] == "2026-11-23T02:06:00.123456+0000"
    assert counts.lines == {"eve": 7}


def test_repeats_are_folded_whatever_their_source_port(tmp_path: Path, make: Any, tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    recorder = Recorder(Options(log=str(path)), tell)
    for step in range(413):
        recorder.perform(make.judged(make.now + step / 100, source_port=40000 + step), make.now + step / 100)
    recorder.perform(make.judged(make.now + 5, port=443), make.now + 5)
    recorder.tick(make.now + 59)
    assert len(lines(path)) == 2
    recorder.tick(make.now + 60)
    recorder.perform(make.judged(make.now + 61), make.now + 61)
    counts = recorder.close(make.now + 62)
    assert lines(path)[2] == (
        "2026-11-23 02:06:00,123 - … 412 more like this in 60 s: "
        'TCP 192.168.1.100 > 192.168.1.5:80 - Blocked by rule "block ip"'
    )
    assert len(lines(path)) == 4
    assert counts.folded == 412


def test_windows_end_although_only_other_commands_come(tmp_path: Path, make: Any, tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    recorder = Recorder(Options(log=str(path)), tell)
    recorder.perform(make.judged(), make.now)
    recorder.perform(make.judged(), make.now)
    recorder.perform(make.ended(), make.now + 61)
    assert "… 1 more like this in 60 s" in lines(path)[1]
    recorder.close(make.now + 61)


def test_a_capture_of_long_ago_is_folded_by_its_own_clock(tmp_path: Path, make: Any, tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    recorder = Recorder(Options(log=str(path)), tell)
    today = make.now + 1e8
    for step in range(5):
        recorder.perform(make.judged(make.now + step), today + step / 1000)
    recorder.tick(today + 1)
    assert len(lines(path)) == 1
    recorder.perform(make.judged(make.now + 70), today + 1)
    assert [line.partition(" - ")[0] for line in lines(path)] == [
        "2026-11-23 02:05:00,123", "2026-11-23 02:06:00,123", "2026-11-23 02:06:10,123",
    ]  # fmt: skip
    recorder.close(today + 2)


def test_what_is_still_folded_is_written_at_the_end(tmp_path: Path, make: Any, tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    recorder = Recorder(Options(log=str(path)), tell)
    for step in range(3):
        recorder.perform(make.suspicious(make.now + step), make.now + step)
    recorder.close(make.now + 2)
    assert lines(path)[1:] == [
        "2026-11-23 02:05:02,123 - … 2 more like this in 2 s: "
        "TCP 192.168.1.100:51514 > 192.168.1.5:80 - Suspicious: TCP SYN and FIN together"
    ]


def test_a_flood_from_forged_sources_cannot_fill_the_log(tmp_path: Path, make: Any, tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    recorder = Recorder(Options(log=str(path), fold_capacity=20, summaries_per_s=5), tell)
    for number in range(2000):
        recorder.perform(make.judged(source=f"10.9.{number >> 8}.{number & 255}"), make.now)
    counts = recorder.close(make.now)
    assert len(lines(path)) == 22
    assert lines(path)[-1].endswith(' 1979 more like this in 1 s: others - Blocked by rule "block ip"')
    assert (counts.folded, counts.unfolded) == (1979, 0)


def test_above_the_rate_summaries_are_plain_and_counted(tmp_path: Path, make: Any, tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    recorder = Recorder(Options(log=str(path), summaries_per_s=2), tell)
    for port in range(1, 6):
        recorder.perform(make.judged(port=port), make.now)
    recorder.perform(make.judged(port=6), make.now + 1)
    counts = recorder.close(make.now + 1)
    assert ["Ether" in line for line in lines(path)] == [True, True, False, False, False, True]
    assert " - TCP 192.168.1.100:51514 > 192.168.1.5:3 - Blocked" in lines(path)[2]
    assert counts.plain == 3


def test_reading_a_file_gets_every_summary(tmp_path: Path, make: Any, tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    recorder = Recorder(Options(log=str(path), summaries_per_s=None), tell)
    for port in range(1, 300):
        recorder.perform(make.judged(port=port), make.now)
    assert recorder.close(make.now).plain == 0
    assert all("Ether / IP / TCP" in line for line in lines(path))


def test_nothing_from_outside_reaches_the_log_raw(tmp_path: Path, make: Any, tell: Tell) -> None:
    path, eve = tmp_path / "firewall.log", tmp_path / "eve.json"
    recorder = Recorder(Options(log=str(path), eve=str(eve)), tell)
    nasty = "a\x1b[2J\nb\u202e\ud800"
    recorder.perform(make.judged(verdict=Verdict(Action.BLOCK, rule=nasty, reason=nasty)), make.now)
    recorder.perform(make.suspicious(event=nasty, text=nasty), make.now)
    recorder.close(make.now)
    assert len(lines(path)) == len(events(eve)) == 2
    for text in (path.read_text(), eve.read_text()):
        assert all(part.isprintable() for part in text.split("\n"))


def test_bytes_that_are_no_packet_are_recorded(tmp_path: Path, make: Any, tell: Tell) -> None:
    path, eve = tmp_path / "firewall.log", tmp_path / "eve.json"
    recorder = Recorder(Options(log=str(path), eve=str(eve)), tell)
    command = make.suspicious(event="decoder.ethernet.pkt_too_small", text="Ethernet header is cut off")
    broken = type(command)(command.time, command.event, command.text, Frame(1, b"\x01", 1), None, "eth0")
    for _ in range(3):
        recorder.perform(broken, make.now)
    recorder.close(make.now)
    assert lines(path)[0].endswith(" - Suspicious: Ethernet header is cut off")
    assert lines(path)[1].endswith("… 2 more like this in 1 s: Raw 1 bytes - Suspicious: Ethernet header is cut off")
    assert len(events(eve)) == 3


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -1.0, 1e19])
def test_times_that_are_none_do_not_stop_it(tmp_path: Path, make: Any, tell: Tell, time: float) -> None:
    path, eve = tmp_path / "firewall.log", tmp_path / "eve.json"
    recorder = Recorder(Options(log=str(path), eve=str(eve)), tell)
    ended = make.ended()
    for moment in (make.now, time, time, make.now):
        recorder.perform(make.judged(moment), make.now)
        recorder.perform(replace(ended, end=moment), make.now)
    counts = recorder.close(make.now)
    assert counts.lines["eve"] == 8
    assert counts.lines["log"] >= 2


def test_the_budget_is_for_all_files(tmp_path: Path, make: Any, tell: Tell) -> None:
    options = Options(
        log=str(tmp_path / "firewall.log"), eve=str(tmp_path / "eve.json"), budget_bytes=40_000, file_bytes=10_000
    )
    recorder = Recorder(options, tell)
    for step in range(300):
        recorder.perform(make.judged(make.now + 100 * step), make.now + 100 * step)
    recorder.close(make.now)
    total = sum(entry.stat().st_size for entry in tmp_path.iterdir())
    assert 20_000 < total <= 40_000


def test_syslog_and_journal_get_what_people_read(tmp_path: Path, make: Any, tell: Tell) -> None:
    receivers = []
    for name in ("log", "journal"):
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(str(tmp_path / name))
        receiver.settimeout(5)
        receivers.append(receiver)
    recorder = Recorder(Options(syslog=str(tmp_path / "log"), journal=str(tmp_path / "journal")), tell)
    recorder.perform(make.judged(), make.now)
    recorder.perform(make.judged(), make.now)
    recorder.perform(Notice(make.now, "the table is full\n"), make.now)
    counts = recorder.close(make.now)
    got = [[receiver.recv(5000).decode() for _ in range(3)] for receiver in receivers]
    for receiver in receivers:
        receiver.close()
    assert [text.partition(">")[0] for text in got[0]] == ["<28", "<29", "<29"]
    assert got[0][0].endswith(
        ': Ether / IP / TCP 192.168.1.100:51514 > 192.168.1.5:http S - Blocked by rule "block ip"'
    )
    assert got[0][1].endswith("]: the table is full\\x0a")
    assert "PFW_EVENT=blocked\nPFW_VERDICT=block\nPFW_RULE=block ip\n" in got[1][0]
    assert "PFW_EVENT=folded\nPFW_COUNT=1\n" in got[1][2]
    assert counts.lines == {"syslog": 3, "journal": 3}


def test_trouble_with_one_place_leaves_the_others(tmp_path: Path, make: Any, told: list[str], tell: Tell) -> None:
    options = Options(log=str(tmp_path / "no" / "firewall.log"), eve=str(tmp_path / "eve.json"), syslog="/nowhere/log")
    recorder = Recorder(options, tell)
    recorder.tick(make.now)
    recorder.perform(make.judged(), make.now)
    (tmp_path / "no").mkdir()
    recorder.tick(make.now + RETRY_S)
    recorder.perform(make.judged(port=81), make.now + RETRY_S)
    counts = recorder.close(make.now)
    assert counts.lines == {"log": 1, "eve": 2, "syslog": 0}
    assert counts.lost == {"log": 1, "eve": 0, "syslog": 2}
    assert counts.reasons == {"log: No such file or directory": 1, "syslog: No such file or directory": 2}
    assert counts.lost_bytes["log"] > 50
    assert len(told) == 3


def test_places_that_cannot_be_meant_are_refused(tmp_path: Path, tell: Tell) -> None:
    path = str(tmp_path / "firewall.log")
    with pytest.raises(FileRefusedError, match="get into each other's way"):
        Recorder(Options(log=path, eve=str(tmp_path / "x" / ".." / "firewall.log")), tell)
    with pytest.raises(FileRefusedError, match="get into each other's way"):
        Recorder(Options(log=path, eve=f"{path}.1"), tell)
    os.symlink("/etc/passwd", path)
    with pytest.raises(FileRefusedError, match="symbolic link"):
        Recorder(Options(log=path), tell)
    with pytest.raises(ValueError, match="is neither the path of a socket nor HOST:PORT"):
        Recorder(Options(syslog="a b"), tell)


def test_without_any_place_nothing_is_done(make: Any, tell: Tell) -> None:
    recorder = Recorder(Options(), tell)
    recorder.perform(make.judged(), make.now)
    recorder.tick(make.now)
    assert recorder.close(make.now).lines == {}
