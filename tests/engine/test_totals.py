"""The promise of the counters: every packet is in exactly one place, whatever came."""

import gc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pfw.daemon.sources import CaptureFile
from pfw.engine.engine import Engine
from pfw.engine.flows import FlowTable
from pfw.engine.fragments import DATAGRAMS_MAX
from pfw.engine.totals import NOT_IP_KINDS_MAX, Counters, row_name
from pfw.model.command import Notice, Suspicious
from pfw.model.event import Finish, LocalAddresses, OpenSocket, Packets, PolicyChanged, Source, Tick
from pfw.model.flow import Direction
from pfw.model.policy import Policy
from pfw.model.verdict import Action, Verdict
from pfw.wire.link import LINKS
from pfw.wire.scan import scan


class TestCounters:
    def test_a_default_is_named_by_its_direction(self):
        assert row_name(Verdict(Action.BLOCK, reason="default in")) == "default in"
        assert row_name(Verdict(Action.BLOCK, rule="mine", reason="rule")) == "mine"

    def test_one_rule_with_two_actions_has_two_rows(self):
        counters = Counters()
        for action in (Action.ALLOW, Action.UNKNOWN, Action.ALLOW):
            counters.judge(Verdict(action, rule="mine"))
        rows = [(row.name, row.action, row.connections) for row in counters.totals({}, 0).rules if row.connections]
        assert rows == [("mine", Action.ALLOW, 2), ("mine", Action.UNKNOWN, 1)]

    def test_kinds_without_ip_are_bounded(self):
        counters = Counters()
        for number in range(NOT_IP_KINDS_MAX + 10):
            counters.count_not_ip(f"kind {number}", 60)
        not_ip = counters.totals({}, 0).not_ip
        assert len(not_ip) == NOT_IP_KINDS_MAX + 1
        assert not_ip["other"] == 10


def mutate(frame: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    changed = bytearray(frame)
    for place, value in changes:
        if changed:
            changed[place % len(changed)] = value
    return bytes(changed[: len(changed) - cut % 20]) if cut else bytes(changed)


@st.composite
def soup(draw, wire):
    """Frames that meet each other: few ends and ports, all protocols, errors that quote, fragments, mutants, noise."""
    ends = [(wire.here, wire.there), (wire.here6, wire.there6), (wire.here, wire.other), (wire.there, wire.other)]
    frames: list[bytes] = []
    for _ in range(draw(st.integers(1, 25))):
        way = wire.Path(*draw(st.sampled_from(ends)), draw(st.integers(1, 3)), 443)
        way = way.back if draw(st.booleans()) else way
        kind = draw(st.sampled_from(["tcp", "udp", "icmp", "quote", "fragments", "other", "noise", "again"]))
        if kind == "tcp":
            frames.append(way.tcp(draw(st.sampled_from(["S", "SA", "A", "FA", "R", "PA", "", "FPU", "SF"]))))
        elif kind == "udp":
            frames.append(way.udp(draw(st.binary(max_size=9))))
        elif kind == "icmp":
            frames.append(way.icmp(draw(st.integers(0, 255)), payload=bytes(16)))
        elif kind == "quote":
            frames.append(way.back.unreachable(draw(st.sampled_from([way.tcp("S"), way.udp(), b"junk"]))))
        elif kind == "fragments":
            protocol, whole = draw(st.sampled_from([(17, way.datagram(bytes(50))), (6, way.segment("S", bytes(30)))]))
            pieces = way.fragments(protocol, whole, 24, draw(st.integers(1, 3)))
            frames += draw(st.permutations(pieces))[: draw(st.integers(1, len(pieces)))]
        elif kind == "other":
            frames.append(way.ip(draw(st.integers(0, 255)), draw(st.binary(max_size=40))))
        elif kind == "noise":
            frames.append(draw(st.binary(max_size=80)))
        elif frames:
            frames.append(draw(st.sampled_from(frames)))
    changes = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 255)), max_size=3)
    return [mutate(each, draw(changes), draw(st.integers(0, 60))) if draw(st.booleans()) else each for each in frames]


RELAXED = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@RELAXED
@given(data=st.data())
def test_every_packet_is_counted_in_exactly_one_place(loose_script, wire, rule, policy, limit, data):
    policies = [
        policy(),
        policy(rule("no web", "reject", ports=443), inbound="allow"),
        policy(rule("some", "allow", "in", limit=limit(1, 60, 2)), rule("app", "block", apps=("/bin/x",))),
    ]
    s = loose_script(table=FlowTable(data.draw(st.sampled_from([1, 3, 1000]))), every_packet=data.draw(st.booleans()))
    count = 0
    for _ in range(data.draw(st.integers(1, 6))):
        s.answers.clear()
        what = data.draw(st.sampled_from(["packets", "packets", "policy", "socket", "wait"]))
        if what == "packets":
            frames = data.draw(soup(wire))
            count += len(frames)
            s >> frames
        elif what == "policy":
            s >> PolicyChanged(data.draw(st.sampled_from(policies)))
        elif what == "socket":
            s >> OpenSocket(data.draw(st.sampled_from([wire.out.key(), wire.inward.key(), wire.out.key(17)])))
        else:
            s >> data.draw(st.integers(0, 500)) >> Tick()
    s.answers.clear()
    s >> Finish()
    s.answers.clear()
    totals = s.engine.totals()
    assert totals.packets == count
    if not totals.undecodable and not totals.not_ip:
        assert totals.bytes == sum(row.bytes for row in totals.rules)


@RELAXED
@given(linktype=st.sampled_from([*LINKS, 147]), frames=st.lists(st.binary(max_size=120), max_size=20))
def test_no_bytes_of_any_link_type_raise(loose_script, wire, linktype, frames):
    s = loose_script()
    s.source = type(s.source)(linktype, "eth0")
    s >> frames
    assert s.engine.totals().packets == len(frames)
    s.answers.clear()
    s >> Finish()
    s.answers.clear()


def test_memory_is_bounded_under_a_flood(loose_script, wire):
    s = loose_script(table=FlowTable(500))
    for number in range(3000):
        source = f"198.51.{number % 200}.{number // 200 + 1}"
        s.engine.step(s.packets([wire.Path(source, wire.here, number + 1).tcp("S")]), s.time)
        assert s.engine.connections <= 500
    for ident in range(DATAGRAMS_MAX + 50):
        later = wire.inward.ipv4(17, bytes(16), ident, 5)
        s.engine.step(s.packets([later]), s.time)
    s.time += 700
    s >> Tick()
    s.answers.clear()
    assert s.engine.connections == 0
    assert len(s.engine._table._due) == 0
    assert len(s.engine._fragments._datagrams) <= DATAGRAMS_MAX
    totals = s.engine.totals()
    assert (totals.connections, totals.evicted + totals.untracked) == (3000, 2500)


class Watched:
    """An engine that is given a capture file as the monitor does it."""

    def __init__(self, path, wire, policy) -> None:
        self.engine = Engine(policy)
        self.engine.step(LocalAddresses(type(wire.local)(), observer=True), 0.0)
        self.suspicions: set[str] = set()
        self.file = CaptureFile(str(path))
        self.count = 0
        for batch in self.file.batches():
            self.count += len(batch.frames)
            items = scan(batch.source, batch.buffer, batch.frames)
            self.take(self.engine.step(Packets(batch.source, batch.buffer, items), 0.0))
            wire.check(self.engine.totals())
        self.take(self.engine.step(Finish(), 0.0))
        self.totals = self.engine.totals()

    def take(self, commands) -> None:
        assert not any(isinstance(command, Notice) for command in commands)
        self.suspicions |= {command.event for command in commands if isinstance(command, Suspicious)}


EXPECTED = {
    "scan-null-nmap.pcap": {"tcp.flags.null"},
    "scan-fin-nmap.pcap": {"tcp.flags.fin"},
    "probes-syn-fin-null-xmas.pcapng": {"tcp.flags.null", "tcp.flags.fin", "tcp.flags.xmas"},
}


@pytest.fixture(scope="module")
def watched(captures, wire, policy) -> dict[str, Watched]:
    return {path.name: Watched(path, wire, policy()) for path in captures}


class TestCaptures:
    def test_every_packet_of_each_is_counted_once(self, watched, wire):
        for name, each in watched.items():
            wire.check(each.totals)
            assert each.totals.packets == each.count > 0, name
            assert each.engine.connections == 0, name
            assert each.file.error is None, name

    @pytest.mark.parametrize("name", EXPECTED)
    def test_probes_are_recognised(self, watched, name):
        if name not in watched:
            pytest.skip(f"no {name}")
        assert {event for event in watched[name].suspicions if event.startswith("tcp.flags.")} == EXPECTED[name]

    def test_ordinary_traffic_has_no_impossible_flags_and_no_martians(self, watched):
        for name, each in watched.items():
            if name.startswith("benign-"):
                odd = {event for event in each.suspicions if event.startswith(("tcp.flags", "martian", "flow."))}
                # The addresses of the mixture were made at random, one of them a multicast source.
                assert odd == ({"martian.multicast"} if name == "benign-mixture.pcap" else set()), name

    def test_a_flood_of_syns_is_as_many_connections(self, watched):
        if "flood-syn-100.pcap" not in watched:
            pytest.skip("no flood-syn-100.pcap")
        totals = watched["flood-syn-100.pcap"].totals
        assert totals.connections >= 100
        assert totals.midstream == 0

    def test_a_long_connection_is_one(self, watched):
        if "benign-long-connection.pcap" not in watched:
            pytest.skip("no benign-long-connection.pcap")
        assert watched["benign-long-connection.pcap"].totals.connections == 1


def test_nothing_is_left_to_the_garbage_collector(wire):
    """The program runs with it off: what the engine lets go of must be free at once, also from a full table."""
    engine = Engine(Policy(defaults=dict.fromkeys(Direction, Action.ALLOW)), table=FlowTable(3))
    # First so many that are alive that there is no room, then so many unanswered that each makes room for the next.
    frames = [wire.Path(wire.here, wire.there, port).tcp(flags) for flags in "AS" for port in range(2000, 2200)]
    frames += [way.tcp(flags) for way in (wire.out, wire.out.back) for flags in ("S", "SA", "A", "R", "S")]
    source = Source(101, "eth0")
    gc.collect()
    gc.disable()
    try:
        for number, frame in enumerate(frames):
            items = scan(source, frame, [(number + 200.0 * (number > 200), 0, len(frame), len(frame))])
            engine.step(Packets(source, frame, items), 0.0)
        engine.step(Finish(), 1e6)
        del items
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert engine.totals().untracked > 0
