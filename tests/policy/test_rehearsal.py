"""A policy rehearsed with a past: each outcome, and the whole against connections that are decided one by one."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pfw.model.address import parse_address
from pfw.model.flow import Direction, Moment
from pfw.model.history import Entry, Group, Traffic
from pfw.model.policy import Policy
from pfw.model.program import Certainty
from pfw.model.verdict import Action
from pfw.policy import rehearsal
from pfw.policy.load import load
from pfw.policy.match import clock_for, decide_slowly
from pfw.policy.recalled import Recall
from pfw.policy.rehearsal import Rehearsal, rehearse
from pfw.policy.rehearsed import Outcome, Rehearsed

from . import histories
from .histories import HOUR_S, MONDAY, REMOTE, make_group, world

ALLOW, BLOCK, REJECT, ASK = Action.ALLOW, Action.BLOCK, Action.REJECT, Action.ASK


def policy(*rules: dict, default: str = "allow") -> Policy:
    named = [{"name": f"rule {number}", "direction": "out", **rule} for number, rule in enumerate(rules)]
    text = {"version": 2, "default": {"in": default, "out": default, "forward": "block"}, "rules": named}
    return load(json.dumps(text))


def never() -> list[Entry]:
    raise AssertionError("entries are not needed here")


def run(wanted: Policy, *groups: Group, entries=never, **more) -> Rehearsed:
    return rehearse(Rehearsal(wanted, world(**more)), groups, entries)


def entry(group: Group, *, start: float, from_port: int | None = None, period_s: int = 0, count: int = 1) -> Entry:
    return Entry(id=0 if period_s else 1, subject=group.subject, remote=group.remote, start=start, from_port=from_port,
                 name=group.name, count=count, period_s=period_s)  # fmt: skip


class TestOutcome:
    @pytest.mark.parametrize(
        ("old", "old_rule", "new", "outcome"),
        [
            (ALLOW, None, "allow", Outcome.SAME),
            (BLOCK, "x", "block", Outcome.SAME),
            (ALLOW, None, "block", Outcome.BLOCKED),
            (ALLOW, None, "reject", Outcome.BLOCKED),
            (ASK, "x", "block", Outcome.BLOCKED),
            (BLOCK, "x", "allow", Outcome.ALLOWED),
            (REJECT, "x", "allow", Outcome.ALLOWED),
            (BLOCK, "x", "reject", Outcome.OTHERWISE),
            (ALLOW, None, "ask", Outcome.ASKED),
            (BLOCK, None, "ask", Outcome.ASKED),
            (ALLOW, "rule 0", "ask", Outcome.SAME),
            (ALLOW, "answered with allow", "ask", Outcome.SAME),
        ],
    )
    def test_it_is_what_differs(self, old, old_rule, new, outcome):
        group = make_group(action=old, rule=old_rule, count=3)
        found = run(policy({"action": new}), group, answered=frozenset({"answered with allow"}))
        assert found.counts == dict.fromkeys(Outcome, 0) | {outcome: 3}
        assert found.connections == 3
        assert found.changes == (0 if outcome is Outcome.SAME else 3)
        assert [(row.outcome, row.count) for row in found.rows] == [(outcome, 3)][: found.changes]

    def test_a_row_says_what_decided_before_and_now(self):
        group = make_group(rule="web", name="example.com", count=2, first=MONDAY, last=MONDAY + 5)
        (row,) = run(policy({"action": "block", "port": 443, "protocol": "tcp"}), group).rows
        assert (row.program, row.port) == ("/usr/bin/firefox", 443)
        assert (row.remote, row.name) == (parse_address(REMOTE), "example.com")
        assert (row.old_action, row.old_rule, row.new_action, row.new_rule) == (ALLOW, "web", BLOCK, "rule 0")
        assert (row.first, row.last) == (MONDAY, MONDAY + 5)

    def test_what_differs_in_nothing_that_is_shown_is_one_row(self):
        groups = [make_group(local="192.168.1.5", first=5.0), make_group(local="10.0.0.1", uid=7, first=1.0, last=9.0)]
        (row,) = run(policy(default="block"), *groups).rows
        assert (row.count, row.first, row.last) == (2, 1.0, 9.0)

    def test_what_is_stopped_before_a_policy_is_asked_is_stopped_again(self):
        found = run(policy(), make_group(action=BLOCK, rule="base ban", count=4), before=frozenset({"base ban"}))
        assert (found.before, found.changes, found.counts[Outcome.SAME], found.connections) == (4, 0, 4, 4)

    def test_the_worst_comes_first(self):
        groups = [
            make_group("203.0.113.1", action=BLOCK, count=9),
            make_group("203.0.113.2", action=BLOCK, direction=Direction.IN),
            make_group("203.0.113.3", port=25, count=2),
            make_group("203.0.113.4", port=25, count=5),
        ]
        found = run(policy({"action": "block", "protocol": "tcp", "port": 25}), *groups)
        assert [row.remote[3] for row in found.rows] == [4, 3, 2, 1]


class TestNotKnown:
    def test_a_guess_is_not_the_program_that_a_rule_allows(self):
        wanted = policy({"action": "allow", "app": "/usr/bin/firefox"}, default="block")
        sure, guess = make_group(), make_group(certainty=Certainty.GUESS, count=5)
        found = run(wanted, sure, guess)
        assert (found.counts[Outcome.SAME], found.counts[Outcome.UNKNOWN], found.changes) == (1, 5, 0)
        assert found.rows[0].why == "which program it was is only a guess"
        assert found.rows[0].is_guess

    @pytest.mark.parametrize(
        ("rule", "fields", "why"),
        [
            ({"app": "/usr/bin/curl"}, {"certainty": None}, "which program it was is not known"),
            ({"app": "/usr/bin/firefox", "script": "/a"}, {}, "which script it was is not kept"),
            ({"app": {"path": "/usr/bin/firefox", "sha256": "a" * 64}}, {}, "what the program's file held is not kept"),
            ({"user": "alice"}, {"uid": None}, "whose it was is not known"),
            ({"interface": "wlan0"}, {"interface": None}, "the interface is not known"),
            ({"protocol": "tcp", "from_port": 1024}, {}, "the source port is not kept"),
        ],
    )
    def test_what_is_not_kept_is_said(self, rule, fields, why):
        group = make_group(**fields)
        found = run(policy({"action": "block", **rule}), group, entries=lambda: [entry(group, start=group.first)])
        assert [(row.outcome, row.why) for row in found.rows] == [(Outcome.UNKNOWN, why)]

    def test_it_does_not_matter_where_both_ways_end_the_same(self):
        assert run(policy({"action": "allow", "app": "/x"}), make_group(certainty=None)).changes == 0

    def test_source_ports_are_those_of_the_entries(self):
        group = make_group(count=3)
        entries = [entry(group, start=group.first, from_port=port) for port in (1024, 1025)]
        entries.append(entry(make_group("8.8.8.8"), start=1.0, from_port=1024))
        entries.append(entry(group, start=group.first, period_s=3600, count=4))
        found = run(policy({"action": "block", "protocol": "tcp", "from_port": 1024}), group, entries=lambda: entries)
        assert (found.counts[Outcome.BLOCKED], found.counts[Outcome.SAME], found.counts[Outcome.UNKNOWN]) == (1, 1, 4)


MORNINGS = {"action": "block", "schedule": {"from": "08:00", "until": "12:00"}}


class TestTime:
    @pytest.mark.parametrize(("hour", "outcome"), [(7, Outcome.SAME), (8, Outcome.BLOCKED), (12, Outcome.SAME)])
    def test_one_connection_is_decided_by_its_time(self, hour, outcome):
        assert run(policy(MORNINGS), make_group(first=MONDAY + hour * HOUR_S)).counts[outcome] == 1

    def test_the_clock_is_the_local_one(self):
        group = make_group(first=MONDAY + 7 * HOUR_S)
        assert run(policy(MORNINGS), group, utc_offset_s=lambda time: 3600).counts[Outcome.BLOCKED] == 1

    def test_a_group_within_one_window_needs_no_entries(self):
        group = make_group(first=MONDAY + 9 * HOUR_S, last=MONDAY + 11 * HOUR_S, count=5)
        assert run(policy(MORNINGS), group).counts[Outcome.BLOCKED] == 5

    @pytest.mark.parametrize("hours", [(7, 9), (7, 13), (11, 14), (7, 7 + 24 * 7), (13, 10_000)])
    def test_a_group_over_a_border_is_decided_by_its_entries(self, hours):
        first, last = (MONDAY + hour * HOUR_S for hour in hours)
        group = make_group(first=first, last=last, count=3)
        entries = [entry(group, start=MONDAY + hour * HOUR_S) for hour in (7, 9, 13)]
        found = run(policy(MORNINGS), group, entries=lambda: entries)
        assert (found.counts[Outcome.SAME], found.counts[Outcome.BLOCKED]) == (2, 1)

    def test_a_folded_entry_over_a_border_depends_on_the_time(self):
        group = make_group(first=MONDAY, last=MONDAY + 24 * HOUR_S, count=8)
        whole = entry(group, start=MONDAY + 9 * HOUR_S, period_s=3600, count=3)
        across = entry(group, start=MONDAY, period_s=86400, count=5)
        found = run(policy(MORNINGS), group, entries=lambda: [whole, across])
        assert (found.counts[Outcome.BLOCKED], found.counts[Outcome.TIME], found.changes) == (3, 5, 8)
        assert found.rows[-1].why == "allow or block by the time of day"

    def test_a_folded_entry_that_ends_where_a_window_begins_does_not(self):
        group = make_group(first=MONDAY + 7 * HOUR_S, last=MONDAY + 15 * HOUR_S, count=11)
        entries = [entry(group, start=MONDAY + hour * HOUR_S, period_s=3600, count=hour) for hour in (7, 4)]
        found = run(policy(MORNINGS), group, entries=lambda: entries)
        assert (found.counts[Outcome.SAME], found.changes) == (11, 0)

    @pytest.mark.parametrize(("before_s", "after_s"), [(36000, 39600), (39600, 36000)])
    def test_over_a_change_of_the_clock_each_ends_as_alone(self, before_s, after_s):
        chance = Random(3)
        change = MONDAY + 16 * HOUR_S

        def offset_s(time: float) -> int:
            return before_s if time < change else after_s

        for _ in range(300):
            from_minute, minutes = chance.randrange(1440), chance.randrange(1, 300)
            clocks = [f"{minute // 60 % 24:02}:{minute % 60:02}" for minute in (from_minute, from_minute + minutes)]
            wanted = policy({"action": "block", "schedule": dict(zip(("from", "until"), clocks, strict=True))})
            times = sorted(change + chance.uniform(-30, 30) * HOUR_S for _ in range(3))
            group = make_group(first=times[0], last=times[-1], count=3)
            entries = [entry(group, start=time) for time in times]
            found = run(wanted, group, entries=lambda entries=entries: entries, utc_offset_s=offset_s)
            alone = [decide_slowly(wanted, Recall(wanted, {}).flow(group.subject, group.remote, None),
                                   Moment(time, offset_s(time))).action for time in times]  # fmt: skip
            assert found.counts[Outcome.BLOCKED] == alone.count(BLOCK)
            assert found.counts[Outcome.SAME] == alone.count(ALLOW)

    def test_too_many_borders_ask_for_the_entries(self):
        rules = [
            {"action": "block", "schedule": {"from": f"{m // 60:02}:{m % 60:02}", "until": "23:59"}, "port": 9}
            for m in range(70)
        ]
        group = make_group(first=MONDAY, last=MONDAY + 24 * HOUR_S)
        found = run(policy(*rules), group, entries=lambda: [entry(group, start=MONDAY)])
        assert found.counts[Outcome.SAME] == 1

    def test_what_has_ended_by_now_does_not_count_and_is_told(self):
        gone = {"action": "block", "expires": "2026-11-24T15:59:00Z"}
        found = run(policy(gone), make_group())
        assert (found.changes, found.expired) == (0, ("rule 0",))

    def test_what_ends_later_counts(self):
        assert run(policy({"action": "block", "expires": "2026-11-24T16:01:00Z"}), make_group()).changes == 1


def test_limits_are_taken_as_never_reached_and_told():
    found = run(policy({"action": "allow", "limit": "1/hour"}, default="block"), make_group(count=70))
    assert (found.changes, found.limited) == (0, {"rule 0": 70})


def test_rows_and_entries_are_bounded(monkeypatch):
    monkeypatch.setattr(rehearsal, "ROWS_MAX", 2)
    monkeypatch.setattr(rehearsal, "DETAILS_MAX", 0)
    found = run(policy(default="block"), *(make_group(f"203.0.113.{last}") for last in range(5)))
    assert (len(found.rows), found.left_out, found.counts[Outcome.BLOCKED]) == (2, 3, 5)
    timed = run(policy(MORNINGS), make_group(first=MONDAY, last=MONDAY + 24 * HOUR_S))
    assert timed.counts[Outcome.TIME] == 1


def test_remembered_decisions_are_bounded(monkeypatch):
    monkeypatch.setattr(rehearsal, "SUBJECTS_MAX", 1)
    groups = [make_group(uid=uid, port=port) for uid in range(4) for port in (25, 443)] * 2
    assert run(policy({"action": "block", "protocol": "tcp", "port": 25}), *groups).counts[Outcome.BLOCKED] == 8


def test_every_border_of_addresses_is_told_apart():
    wanted = policy({"action": "block", "to": ["203.0.113.4-203.0.113.6", "::1"]})
    found = run(wanted, *(make_group(f"203.0.113.{last}") for last in range(2, 9)))
    assert sorted(row.remote[3] for row in found.rows) == [4, 5, 6]


def test_loopback_is_known_without_an_interface():
    wanted = policy(default="block")
    fields = {"local": "127.0.0.1", "interface": None}
    found = run(wanted, *(make_group(remote, **fields) for remote in ("127.0.0.2", "128.0.0.1", "127.255.255.255")))
    assert (found.counts[Outcome.SAME], found.counts[Outcome.BLOCKED]) == (2, 1)


def as_of_now(wanted: Policy, now: Moment) -> Policy:
    rules = [rule for rule in wanted.rules if rule.expires is None or clock_for(rule.expires, now) < rule.expires.time]
    return replace(wanted, rules=tuple(rules))


def one_by_one(wanted: Policy, entries: list[Entry]) -> Counter:
    """Outcomes, coarsely, by the slow matcher for each connection."""
    mine = as_of_now(wanted, world().now)
    recall = Recall(mine, {})
    found: Counter = Counter()
    for each in entries:
        flow = recall.flow(each.subject, each.remote, each.from_port)
        verdict = decide_slowly(mine, flow, Moment(each.start))
        old = each.subject.action
        found[verdict.action if verdict.action in (Action.UNKNOWN, ASK) or verdict.action is not old else "same"] += 1
    return found


def coarse(found: Rehearsed) -> Counter:
    counted: Counter = Counter({"same": found.counts[Outcome.SAME]})
    for row in found.rows:
        counted[row.new_action] += row.count
    return +counted


@st.composite
def pasts(draw: st.DrawFn) -> list[Entry]:
    kinds = draw(st.lists(histories.groups(), min_size=1, max_size=6))
    entries = []
    for at in range(draw(st.integers(1, 20))):
        kind = draw(st.sampled_from(kinds))
        hour = draw(st.sampled_from([0, 7, 8, 9, 12, 13, 30, 36, 200]))
        port = draw(st.sampled_from([1024, 1025])) if kind.subject.port is not None else None
        entries.append(
            Entry(
                id=at + 1,
                subject=kind.subject,
                remote=kind.remote,
                start=MONDAY + hour * HOUR_S,
                name=kind.name,
                from_port=port,
            )
        )
    return entries


@settings(max_examples=200, deadline=None)
@given(histories.policies(), pasts())
def test_groups_end_as_their_connections_would_one_by_one(text, entries):
    wanted = load(json.dumps(text))
    grouped: dict[tuple, list[Entry]] = {}
    for each in entries:
        grouped.setdefault((each.subject, each.remote, each.name), []).append(each)
    groups = [
        Group(subject, remote, name, len(same), Traffic(), min(e.start for e in same), max(e.start for e in same))
        for (subject, remote, name), same in grouped.items()
    ]
    found = rehearse(Rehearsal(wanted, world()), groups, lambda: entries)
    assert found.connections == len(entries)
    assert coarse(found) == one_by_one(wanted, entries)


def test_addresses_that_are_none_cannot_be_told():
    group = make_group()
    remotes = [b"\1", bytes(15) + b"\1", b"", bytes(16)]
    found = run(policy(default="block"), *(replace(group, remote=remote) for remote in remotes))
    assert [row.remote for row in found.rows if row.why == "an address is not known"] == [b"", b"\1"]
    assert found.counts[Outcome.BLOCKED] == 2


def test_sums_have_all_of_it_whatever_rows_are_kept(monkeypatch):
    monkeypatch.setattr(rehearsal, "ROWS_MAX", 3)
    groups = [make_group(f"203.0.113.{last}", count=last + 1, first=last) for last in range(5)]
    found = run(policy(default="block"), *groups, make_group(port=22, count=9))
    assert [(each.row.port, each.row.count, each.remotes) for each in found.sums] == [(443, 15, 3), (22, 9, 0)]
    assert (found.sums[0].row.remote[3], found.sums[0].row.first, found.sums[0].row.last) == (2, 0, 4)
    assert (found.left_out, found.sums[1].row.remote) == (4 + 5 + 9, b"")


def test_kinds_are_bounded(monkeypatch):
    monkeypatch.setattr(rehearsal, "KINDS_MAX", 2)
    found = run(policy(default="block"), *(make_group(port=port) for port in range(6)))
    assert [(each.row.port, each.row.count) for each in found.sums] == [(None, 4), (0, 1), (1, 1)]
