from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.record.timestamps import eve_time, log_time, rfc3164_time, rfc5424_time

NOON = 1795399500.123456


def test_the_promised_shapes() -> None:
    assert log_time(NOON) == "2026-11-23 02:05:00,123"
    assert eve_time(NOON) == "2026-11-23T02:05:00.123456+0000"
    assert rfc5424_time(NOON) == "2026-11-23T02:05:00.123456Z"


def test_the_syslog_time_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    from time import tzset

    with monkeypatch.context() as patch:
        patch.setenv("TZ", "EST5")
        tzset()
        assert rfc3164_time(NOON) == "Nov 22 21:05:00"
        assert rfc3164_time(NOON - 14 * 86400) == "Nov  8 21:05:00"
    tzset()


def test_what_is_no_time_becomes_the_nearest() -> None:
    assert log_time(-5) == log_time(float("nan")) == log_time(float("-inf")) == "1970-01-01 00:00:00,000"
    assert log_time(1e30) == log_time(float("inf")) == "9999-12-31 23:59:59,999"


@settings(deadline=None)
@given(st.floats())
def test_any_number_gives_a_whole_timestamp(time: float) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", log_time(time))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+0000", eve_time(time))
    assert re.fullmatch(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d", rfc3164_time(time))
