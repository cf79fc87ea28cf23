"""The judge: the earliest rule on any view, the local clock, and limits that are used up by what is new."""

import pytest

from pfw.engine.judge import Judge
from pfw.model.flow import Direction
from pfw.model.packet import TCP
from pfw.model.rule import Expiry, Schedule
from pfw.model.verdict import Action

HOUR = 3600


@pytest.fixture
def views(wire):
    """A connection between others, seen from both of its ends."""
    from pfw.engine.viewpoint import Viewpoint

    return Viewpoint().flows(wire.strangers.key(TCP), "eth0", sent=None)


class TestViews:
    def test_the_earliest_rule_on_any_view_decides(self, rule, policy, views):
        judge = Judge(policy(rule("second", direction="out"), rule("third", "allow", "in")), lambda time: 0)
        flow, verdict = judge.verdict(views, 0.0)
        assert (verdict.rule, flow.direction) == ("second", Direction.OUT)

    def test_the_first_view_where_only_defaults_are_left(self, policy, views):
        flow, verdict = Judge(policy(), lambda time: 0).verdict(views, 0.0)
        assert (verdict.reason, flow) == ("default in", views[0])

    def test_an_unknown_verdict_counts_as_its_rule(self, rule, policy, views):
        rules = rule("program", direction="out", apps=("/bin/x",)), rule("all", direction="in")
        flow, verdict = Judge(policy(*rules), lambda time: 0).verdict(views, 0.0)
        assert (verdict.action, flow.direction) == (Action.UNKNOWN, Direction.OUT)


class TestClock:
    def test_a_schedule_is_by_the_local_clock(self, script, wire, rule, policy):
        # Monday 09:00 to 17:00; at NOON it is Monday 00:00 UTC.
        office = Schedule(((9 * 60, 17 * 60),), "office hours")
        rules = policy(rule("office", "block", "out", schedule=office))
        for offset_hours, hours, blocked in ((0, 8, False), (1, 8, True), (-3, 12, True), (2, 15, False)):
            s = script(rules, utc_offset=lambda time, offset=offset_hours: offset * HOUR)
            s >> hours * HOUR >> wire.out.tcp("S")
            assert s.answers.pop().endswith(": office" if blocked else ": default out")

    def test_a_schedule_ends_while_it_runs(self, script, wire, rule, policy):
        s = script(policy(rule("first hour", "block", "out", schedule=Schedule(((0, 60),), "first hour"))))
        s >> HOUR - 1 >> wire.Path(wire.here, wire.there, 1).udp()
        s << "#1 out UDP 192.0.2.1:1 > 198.51.100.2:443 block: first hour"
        s >> 1 >> wire.Path(wire.here, wire.there, 2).udp()
        s << "#2 out UDP 192.0.2.1:2 > 198.51.100.2:443 allow: default out"

    def test_a_rule_expires(self, script, wire, rule, policy):
        s = script(policy(rule("for now", "block", "out", expires=Expiry(wire.noon + 10, local=False, text="soon"))))
        s >> 9 >> wire.Path(wire.here, wire.there, 1).udp()
        s << "#1 out UDP 192.0.2.1:1 > 198.51.100.2:443 block: for now"
        s >> 1 >> wire.Path(wire.here, wire.there, 2).udp()
        s << "#2 out UDP 192.0.2.1:2 > 198.51.100.2:443 allow: default out"


class TestLimits:
    def count(self, s, wire, number, source="198.51.100.2"):
        """How many of so many new connections from a source match the rule."""
        before, _ = s.rule("some")
        for _ in range(number):
            self.port = getattr(self, "port", 1000) + 1
            s >> wire.Path(source, wire.here, self.port, 22).tcp("S")
            s.answers.clear()
        return s.rule("some")[0] - before

    def test_so_many_at_once_and_then_by_and_by(self, script, wire, rule, policy, limit):
        s = script(policy(rule("some", "allow", "in", limit=limit(6, 60, 2))))
        assert self.count(s, wire, 5) == 2
        s >> 10
        assert self.count(s, wire, 5) == 1
        s >> 600
        assert self.count(s, wire, 5) == 2

    def test_each_source_for_itself(self, script, wire, rule, policy, limit):
        s = script(policy(rule("some", "allow", "in", limit=limit(1, 60, 1))))
        assert [self.count(s, wire, 2, source) for source in ("203.0.113.1", "203.0.113.2")] == [1, 1]

    def test_packets_of_a_connection_use_up_nothing(self, script, wire, rule, policy, limit):
        s = script(policy(rule("some", "allow", "in", limit=limit(2, 60, 2))))
        s >> [wire.inward.tcp("S")] * 5
        s.answers.clear()
        assert s.rule("some") == (1, 5)
        assert self.count(s, wire, 3) == 1

    def test_judging_again_uses_up_nothing(self, rule, policy, limit, wire, views):
        judge = Judge(policy(rule("some", "allow", limit=limit(1, 60, 1))), lambda time: 0)
        for _ in range(3):
            assert judge.again(views[0], 0.0).rule == "some"
        assert judge.verdict(views[:1], 0.0)[1].rule == "some"
        assert judge.verdict(views[:1], 0.0)[1].rule is None

    def test_one_connection_seen_from_both_ends_is_one(self, rule, policy, limit, views):
        judge = Judge(policy(rule("some", "allow", limit=limit(2, 60, 2))), lambda time: 0)
        assert [judge.verdict(views, 0.0)[1].rule for _ in range(3)] == ["some", "some", None]
