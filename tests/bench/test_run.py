from __future__ import annotations

from run import GROUPS, PARTS, chosen


def test_all_parts_where_none_is_named():
    assert chosen(None) == list(PARTS)


def test_a_group_is_its_parts_in_their_order():
    assert chosen(["enforce", "start"]) == ["start", *GROUPS["enforce"]]
    assert chosen(["reloading", "cost", "cost"]) == ["cost", "reloading"]
    assert chosen(["programs"]) == ["connecting", "daemons", "labelling"]
    assert chosen(["history"]) == ["recording", "noticing", "detecting", "recalling"]
