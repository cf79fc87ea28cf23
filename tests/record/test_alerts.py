from __future__ import annotations

import json

import pytest

from pfw.model.command import Alerted
from pfw.model.observation import Alert, Kind
from pfw.record.alerts import ALERTS, eve_event, message
from pfw.record.eve import SIGNATURES
from pfw.record.recorder import Options, Recorder

TIME = 1_795_600_000.25


def alerted(**changed) -> Alerted:
    values = {
        "kind": Kind.PORT_SCAN, "source": bytes((192, 0, 2, 7)), "target": bytes((192, 0, 2, 1)), "first": TIME - 2,
        "last": TIME, "score": 90, "evidence": "tried 15 ports in 2.0 s", "ban": (bytes((192, 0, 2, 7)),),
    }  # fmt: skip
    return Alerted(TIME, Alert(**{**values, **changed}))


def test_every_kind_has_a_signature_of_its_own() -> None:
    assert set(ALERTS) == set(Kind)
    numbers = [number for number, *_ in (*ALERTS.values(), *SIGNATURES.values())]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("kind", Kind)
def test_eve_has_each_kind(kind: Kind) -> None:
    event = eve_event(alerted(kind=kind, source=None, target=b"\x02\0\0\0\0\1"))
    assert event["event_type"] == "alert"
    assert "src_ip" not in event
    assert "dest_ip" not in event
    assert event["pfw"]["source"] == "many"
    assert event["pfw"]["target"] == "02:00:00:00:00:01"
    assert event["alert"]["signature_id"] == ALERTS[kind][0]


@pytest.mark.parametrize(("score", "severity"), [(100, 1), (80, 1), (79, 2), (60, 2), (59, 3), (0, 3)])
def test_severity_goes_by_the_score(score: int, severity: int) -> None:
    assert eve_event(alerted(score=score))["alert"]["severity"] == severity


def test_text_says_who_what_and_what_was_done() -> None:
    command = Alerted(TIME, alerted().alert, "/usr/bin/x\x1b[31m", "banned for 10 min", blocked=True)
    text = message(command)
    assert text.startswith("192.0.2.7 (/usr/bin/x\\x1b[31m) > 192.0.2.1 - Alert port-scan (score 90): tried 15 ports")
    assert text.endswith("; banned for 10 min")
    assert eve_event(command)["alert"]["action"] == "blocked"


def test_recorder_writes_alerts_to_log_and_eve(tmp_path) -> None:
    log, eve = tmp_path / "firewall.log", tmp_path / "eve.json"
    recorder = Recorder(Options(log=str(log), eve=str(eve)), pytest.fail)
    recorder.perform(alerted(evidence="a\nb"), TIME)
    recorder.close(TIME + 1)
    (line,) = log.read_text().splitlines()
    assert " - 192.0.2.7 > 192.0.2.1 - Alert port-scan (score 90): a\\x0ab" in line or "a\\nb" in line
    (event,) = map(json.loads, eve.read_text().splitlines())
    assert event["src_ip"] == "192.0.2.7"
    assert event["alert"]["signature"] == "PFW port scan"
