"""The recorder process: what it is given arrives, and whatever befalls it holds nobody up."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from pfw.daemon import recording
from pfw.daemon.recording import RecorderProcess
from pfw.model.address import parse_address
from pfw.model.command import Frame, Judged, Notice, Seen
from pfw.model.flow import Direction, make_flow
from pfw.model.packet import UDP
from pfw.model.verdict import Action, Verdict
from pfw.record.recorder import Options

BLOCK, ALLOW = Verdict(Action.BLOCK, reason="default in"), Verdict(Action.ALLOW, reason="default out")


@pytest.fixture(autouse=True)
def importable(monkeypatch, made):
    monkeypatch.setenv("PYTHONPATH", str(made.source))


@pytest.fixture
def judged(made):
    def judge(number=1, verdict=BLOCK, size=0):
        frame = made.udp("198.51.100.2", "192.0.2.1", number, bytes(size))
        ends = parse_address("198.51.100.2"), parse_address("192.0.2.1")
        tail = (40000).to_bytes(2) + number.to_bytes(2)
        flow = make_flow(UDP, *ends, tail, Direction.IN, "eth0")
        return Judged(made.noon + number, number, flow, verdict, Frame(made.raw_ip, frame, len(frame)))

    return judge


def stop(recorder: RecorderProcess, number: signal.Signals) -> None:
    os.kill(recorder._process.pid, number)


def test_what_is_stopped_is_recorded_and_nothing_else(tmp_path, judged):
    log = tmp_path / "firewall.log"
    recorder = RecorderProcess(Options(log=str(log)), wait=True)
    flow = judged().flow
    recorder.send([judged(53), judged(54, ALLOW), Seen(0.0, 1, flow, BLOCK, 28), Notice(0.0, "the table is full")])
    counts = recorder.close()
    assert counts is not None
    assert (counts.lines, counts.lost, recorder.lost, recorder.broken) == ({"log": 1}, {"log": 0}, 0, False)
    (line,) = log.read_text().splitlines()
    assert line.endswith(" - IP / UDP 198.51.100.2:40000 > 192.0.2.1:domain - Blocked by default in")


def test_a_rule_with_log_is_recorded_though_it_allows(tmp_path, judged):
    log = tmp_path / "firewall.log"
    recorder = RecorderProcess(Options(log=str(log)), wait=True)
    recorder.send([judged(22, Verdict(Action.ALLOW, rule="ssh", index=0, log=True))])
    recorder.close()
    assert 'Allowed by rule "ssh"' in log.read_text()


def test_everything_arrives_from_a_file_that_can_wait(tmp_path, judged):
    eve = tmp_path / "eve.json"
    recorder = RecorderProcess(Options(eve=str(eve)), wait=True)
    for first in range(0, 3000, 100):
        recorder.send([judged(number) for number in range(first, first + 100)])
    recorder.statistics({"packets": 3000})
    counts = recorder.close()
    assert counts is not None
    assert recorder.lost == 0
    events = [json.loads(line) for line in eve.read_text().splitlines()]
    assert [event["dest_port"] for event in events if event["event_type"] == "drop"] == list(range(3000))


def test_a_recorder_that_sleeps_is_not_waited_for(tmp_path, judged, monkeypatch):
    monkeypatch.setattr(recording, "PENDING_BYTES_MAX", 100_000)
    eve = tmp_path / "eve.json"
    recorder = RecorderProcess(Options(eve=str(eve)), wait=False)
    stop(recorder, signal.SIGSTOP)
    began = time.monotonic()
    for number in range(5000):
        recorder.send([judged(number, size=400)])
    assert time.monotonic() - began < 5
    assert recorder.lost > 0
    assert len(recorder._outbox) <= 100_000
    stop(recorder, signal.SIGCONT)
    counts = recorder.close()
    assert counts is not None
    assert counts.lines["eve"] + recorder.lost == 5000


@pytest.mark.parametrize("wait", [True, False])
def test_one_that_is_killed_is_noticed_and_counted(tmp_path, judged, wait):
    recorder = RecorderProcess(Options(log=str(tmp_path / "firewall.log")), wait=wait)
    stop(recorder, signal.SIGKILL)
    recorder._process.wait(5)
    for number in range(50):
        recorder.send([judged(number)])
    assert recorder.broken
    assert recorder.lost == 50
    assert recorder.close() is None


def test_one_that_is_killed_at_the_end_is_noticed(tmp_path, judged):
    recorder = RecorderProcess(Options(log=str(tmp_path / "firewall.log")), wait=False)
    recorder.send([judged()])
    stop(recorder, signal.SIGKILL)
    recorder._process.wait(5)
    assert recorder.close() is None
    assert recorder.broken


def test_ctrl_c_is_not_for_the_recorder(tmp_path, judged):
    log = tmp_path / "firewall.log"
    recorder = RecorderProcess(Options(log=str(log)), wait=False)
    status = Path(f"/proc/{recorder._process.pid}/status")
    deadline = time.monotonic() + 8
    while not int(status.read_text().split("SigIgn:")[1].split()[0], 16) >> signal.SIGINT - 1 & 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stop(recorder, signal.SIGINT)
    recorder.send([judged()])
    assert recorder.close() is not None
    assert log.read_text()


def test_no_process_and_no_descriptor_is_left(tmp_path, judged):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        recorder = RecorderProcess(Options(log=str(tmp_path / "firewall.log")), wait=False)
        recorder.send([judged()])
        recorder.close()
        assert recorder._process.returncode == 0
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_for_the_watching_process(tmp_path, judged, number):
    log = tmp_path / "firewall.log"
    recorder = RecorderProcess(Options(log=str(log)), wait=False)
    recorder.send([judged(53)])
    until = time.monotonic() + 20
    while not log.exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    stop(recorder, number)
    recorder.send([judged(54)])
    assert recorder.close() is not None
    assert len(log.read_text().splitlines()) == 2


def test_it_is_in_a_group_of_its_own():
    recorder = RecorderProcess(Options(log=os.devnull), wait=False)
    assert os.getpgid(recorder._process.pid) != os.getpgid(0)
    recorder.close()


def test_the_current_folder_does_not_decide_what_runs(tmp_path, judged, monkeypatch):
    trap = tmp_path / "pfw" / "daemon"
    trap.mkdir(parents=True)
    (trap / "recording.py").write_text("open('sprung', 'w')")
    monkeypatch.chdir(tmp_path)
    recorder = RecorderProcess(Options(log="firewall.log"), wait=True)
    recorder.send([judged(53)])
    assert recorder.close() is not None
    assert Path("firewall.log").exists()
    assert not Path("sprung").exists()


def test_one_that_is_stuck_is_not_waited_for_for_ever(judged, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_CLOSE_TIMEOUT_S", 0.2)
    recorder = RecorderProcess(Options(log=str(tmp_path / "firewall.log")), wait=True)
    recorder.send([judged(53)])
    stop(recorder, signal.SIGSTOP)
    assert recorder.close() is None
    assert recorder.broken
