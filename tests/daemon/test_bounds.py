"""Each count that stands for something left out is told by `pfw doctor`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pfw.daemon import bounds
from pfw.enforce.neighbours import Level

SOURCE = Path(bounds.__file__).parent


def test_a_bound_that_was_hit_is_told() -> None:
    found = list(
        bounds._of_daemon({"history_lost": 3, "connections_sampled_out": 1, "alerts": 9, "special_packets": 7})
    )
    assert [(each.what, each.level) for each in found] == [
        ("since the daemon began, connections like many others, which the detectors were not shown: 1", Level.NOTE),
        ("since the daemon began, things that the history lost: 3", Level.WARNING),
    ]


def test_where_nothing_was_hit_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_counts", dict)
    monkeypatch.setattr(bounds, "_of_kernel", lambda: iter(()))
    (found,) = bounds.findings()
    assert found.level is Level.OK


@pytest.mark.parametrize("name", ["observer.py"])
def test_every_loss_that_is_counted_is_known_here(name: str) -> None:
    counted = set(re.findall(r'"(\w+_(?:lost|refused|sampled_out))"', (SOURCE / name).read_text()))
    assert len(counted) > 5
    assert counted <= set(bounds.BOUNDS)


def test_kernel_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics, count, most = tmp_path / "stat", tmp_path / "count", tmp_path / "max"
    statistics.write_text("entries found drop early_drop\n1 2 0000000a 4\n1 2 00000001 4\n")
    count.write_text("95\n")
    most.write_text("100\n")
    for name, path in (("_STATISTICS", statistics), ("_COUNT", count), ("_MAX", most)):
        monkeypatch.setattr(bounds, name, path)
    full, dropped = bounds._of_kernel()
    assert "95 connections of 100" in full.what
    assert "11 connections" in dropped.what
    count.write_text("10\n")
    statistics.write_text("what is this\n")
    assert not list(bounds._of_kernel())
