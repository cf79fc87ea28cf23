from __future__ import annotations

from typing import Any

import pytest

from pfw.model.verdict import Action, Verdict
from pfw.record.fold import Folded
from pfw.record.summary import summary
from pfw.record.textlog import fold_message, judged_reason, suspicious_reason, text_line


def test_the_promised_line(make: Any) -> None:
    command = make.judged()
    line = text_line(command.time, f"{summary(command.frame)} - {judged_reason(command)}")
    assert line == (
        b"2026-11-23 02:05:00,123 - Ether / IP / TCP 192.168.1.100:51514 > 192.168.1.5:http S"
        b' - Blocked by rule "block ip"\n'
    )


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (Verdict(Action.BLOCK), "Blocked by default in"),
        (Verdict(Action.REJECT, rule="no mail"), 'Rejected by rule "no mail"'),
        (Verdict(Action.ALLOW, rule="ssh", log=True), 'Allowed by rule "ssh"'),
        (Verdict(Action.ASK, rule="ask"), 'Asked by rule "ask"'),
        (Verdict(Action.UNKNOWN, rule="firefox"), 'Unknown by rule "firefox"'),
        (Verdict(Action.BLOCK, rule="loopback", base=True), 'Blocked by base rule "loopback"'),
        (Verdict(Action.BLOCK, rule="a\x1b[2J\nb"), 'Blocked by rule "a\\x1b[2J\\x0ab"'),
    ],
)
def test_reasons(make: Any, verdict: Verdict, reason: str) -> None:
    assert judged_reason(make.judged(verdict=verdict)) == reason


def test_suspicion_in_words_and_escaped(make: Any) -> None:
    assert suspicious_reason(make.suspicious()) == "Suspicious: TCP SYN and FIN together"
    assert suspicious_reason(make.suspicious(text="a\u202eb")) == "Suspicious: a\\u202eb"
    assert suspicious_reason(make.suspicious(event="martian.own", text="")) == "Suspicious: martian.own"


def test_fold_lines() -> None:
    folded = Folded("TCP 192.168.1.100 > 192.168.1.5:80 - Blocked", 412, 60, 0.0)
    assert fold_message(folded) == "… 412 more like this in 60 s: TCP 192.168.1.100 > 192.168.1.5:80 - Blocked"
