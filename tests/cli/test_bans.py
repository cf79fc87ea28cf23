"""Bans one by one: text for people, facts for programs."""

from __future__ import annotations

from pfw.cli.bans import Banned, facts, lines

NOW = 1_795_600_000.0
BANNED = Banned(
    what="203.0.113.7", ban="203.0.113.7", since=NOW - 60, until=NOW + 540, why="port-scan, score 88", by="port-scan",
    evidence="asked 12 ports \x1b[31m", before=2,
)  # fmt: skip
FORGIVEN = Banned(what="2001:db8::1", forgiven=NOW + 86_400, before=1, last=NOW - 5)


def values(found: list[str]) -> dict[str, str]:
    return {line[:12].strip(): line[12:] for line in found if line.startswith("  ")}


def test_a_ban_by_an_alert() -> None:
    found = lines([BANNED], NOW)
    assert found[0] == "203.0.113.7 is banned"
    shown = values(found)
    assert list(shown) == ["since", "until", "by", "why", "evidence", "before"]
    assert shown["until"].endswith(" (9 min left)")
    assert shown["by"] == "an alert: port-scan"
    assert shown["evidence"] == r"asked 12 ports \x1b[31m"
    assert shown["before"] == "2 bans of it that count"


def test_a_ban_by_hand_for_good_that_holds_it() -> None:
    found = lines([Banned(what="203.0.113.7", ban="203.0.113.0/24", since=NOW)], NOW)
    assert found[0] == "203.0.113.7 is banned, by the ban on 203.0.113.0/24"
    assert values(found)["until"] == "lifted by hand"
    assert values(found)["by"] == "hand"
    assert "why" not in values(found)


def test_what_is_not_banned() -> None:
    found = lines([FORGIVEN, Banned(what="::2")], NOW)
    assert found[0] == "2001:db8::1 is not banned"
    assert values(found)["before"].startswith("1 ban of it that count, until 2026-")
    assert values(found)["forgiven"].endswith(": no alert bans it before then")
    assert found[-2:] == ["", "::2 is not banned"]
    assert lines([], NOW) == []


def test_facts() -> None:
    assert facts(BANNED) == {
        "address": "203.0.113.7", "banned": True, "ban": "203.0.113.7", "since": "2026-11-25T09:45:40.000000Z",
        "until": "2026-11-25T09:55:40.000000Z", "why": "port-scan, score 88", "by": "port-scan",
        "evidence": r"asked 12 ports \x1b[31m", "bans_before": 2, "last_ban_until": None, "forgiven_until": None,
    }  # fmt: skip
    found = facts(FORGIVEN)
    assert (found["banned"], found["ban"], found["by"]) == (False, None, None)
    assert found["forgiven_until"] == "2026-11-26T09:46:40.000000Z"
