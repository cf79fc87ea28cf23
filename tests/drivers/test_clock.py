"""The local clock's distance from UTC, in zones of all kinds."""

import os
import subprocess
import sys
import time

import pytest

from pfw.drivers.clock import now, utc_offset_s


def test_now_is_now():
    assert abs(now() - time.time()) < 1


@pytest.mark.parametrize(
    ("zone", "at", "offset_s"),
    [
        ("UTC", 1_795_392_000, 0),
        ("Europe/Berlin", 1_795_392_000, 3600),
        ("Europe/Berlin", 1_780_000_000, 7200),
        ("Europe/Berlin", 1_792_889_999, 7200),
        ("Europe/Berlin", 1_792_890_000, 3600),
        ("Asia/Kathmandu", 1_795_392_000, 20_700),
        ("America/St_Johns", 1_795_392_000, -12_600),
    ],
)
def test_the_zone_tells(zone, at, offset_s):
    if not os.path.exists(f"/usr/share/zoneinfo/{zone}") and zone != "UTC":
        pytest.skip("no time zones here")
    code = f"from pfw.drivers.clock import utc_offset_s; print(utc_offset_s({at}.5))"
    environment = {**os.environ, "TZ": zone, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == offset_s


@pytest.mark.parametrize("at", [-1e18, 1e18, 1e300])
def test_a_time_that_no_clock_knows_has_none(at):
    assert utc_offset_s(at) == 0
