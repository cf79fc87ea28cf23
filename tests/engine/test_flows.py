"""The table of connections: times to the second, bounds, and that both keys come and go together."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.engine.flows import Connection, FlowTable
from pfw.engine.tcp import State, timeout_s
from pfw.engine.totals import Row
from pfw.model.event import Packets, Source, Tick
from pfw.model.flow import Direction, make_flow, make_key, reverse_key
from pfw.model.packet import TCP, UDP
from pfw.model.verdict import Action, Verdict
from pfw.wire.scan import scan


def connection(number: int, state: State = State.ASKED, time: float = 0.0, protocol: int = UDP) -> Connection:
    tail = number.to_bytes(2) + b"\0\x35"
    here, there = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
    flow = make_flow(protocol, here, there, tail, Direction.OUT)
    made = Connection(number, make_key(protocol, here, there, tail), flow, time, state)
    made.row = Row("a rule", Action.ALLOW)
    made.verdict = Verdict(Action.ALLOW)
    return made


class TestExpiry:
    def test_to_the_second(self):
        table = FlowTable()
        table.add(connection(1))
        assert table.expired(table.next_due) == []
        assert table.next_due == 30
        assert table.expired(29.999) == []
        assert [gone.number for gone in table.expired(30)] == [1]
        assert len(table) == 0
        assert table.halves == {}

    def test_a_later_packet_of_either_side_prolongs(self):
        table = FlowTable()
        one = connection(1)
        table.add(one)
        one.reply.last = 25.0
        assert table.expired(30) == []
        assert table.next_due == 55
        assert table.expired(55) == [one]

    def test_a_long_timeout_is_looked_at_now_and_then_but_kept_to(self):
        table = FlowTable()
        one = connection(1, State.ESTABLISHED, protocol=TCP)
        table.add(one)
        for at in range(600, 432_000, 600):
            assert table.expired(at) == []
        assert table.expired(432_000) == [one]

    def test_a_change_to_a_shorter_timeout_is_kept_to(self):
        table = FlowTable()
        one = connection(1, State.ESTABLISHED, protocol=TCP)
        table.add(one)
        for state in (State.FIN_WAIT, State.CLOSE_WAIT, State.LAST_ACK):
            assert one.enter(state)
            table.schedule(one, 0.0)
            assert table.expired(table.next_due) == []
            assert table.next_due == timeout_s(TCP, state)
        assert not one.enter(State.TIME_WAIT)

    def test_many_at_the_same_time(self):
        table = FlowTable()
        for number in range(1, 50):
            one = connection(number)
            table.add(one)
            table.schedule(one, 0.0)
        assert len(table.expired(30)) == 49

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 90)), max_size=40))
    def test_like_a_table_that_looks_at_everything_every_second(self, loose_script, wire, steps):
        """Packets of some UDP connections at some distances in time: those are forgotten that were silent too long."""
        s = loose_script()
        last: dict[int, float] = {}
        now = 0.0
        for port, wait in steps:
            now += wait
            s >> wait
            gone = {each for each, at in last.items() if now - at >= 30}
            s >> wire.Path(wire.here, wire.there, port).udp()
            ended = sum("ended" in answer for answer in s.answers)
            begun = sum("allow" in answer for answer in s.answers)
            assert ended == len(gone)
            last = {each: at for each, at in last.items() if each not in gone}
            assert begun == (port not in last)
            last[port] = now
            s.answers.clear()
            assert s.engine.connections == len(last)


PACKETS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9), st.booleans()), min_size=1, max_size=40)


@settings(deadline=None, max_examples=80)
@given(PACKETS, st.data())
def test_how_packets_are_cut_into_batches_makes_no_difference(loose_script, wire, packets, data):
    frames = []
    at = 0.0
    for wait, kind, back in packets:
        at += wait
        way = wire.Path(wire.here, wire.there, 40000 + kind % 3)
        way = way.back if back else way
        flags = ("S", "SA", "A", "FA", "R", "PA", "F")
        made = way.udp() if kind > 6 else way.tcp(flags[kind])
        frames.append((wire.noon + at, made))

    def run(cuts: list[int]) -> tuple[list[str], object]:
        s = loose_script()
        said = []
        for first, end in zip([0, *cuts], [*cuts, len(frames)], strict=True):
            buffer = b"".join(frame for _, frame in frames[first:end])
            places, place = [], 0
            for time, frame in frames[first:end]:
                places.append((time, place, place + len(frame), len(frame)))
                place += len(frame)
            source = Source(wire.raw_ip, "eth0")
            said += s.engine.step(Packets(source, buffer, scan(source, buffer, places)), 0.0)
        said += s.engine.step(Tick(), wire.noon + at)
        return [wire.line(command) for command in said], s.engine.totals()

    cuts = data.draw(st.lists(st.integers(0, len(frames)), max_size=6).map(sorted))
    assert run(cuts) == run([])


class TestKeys:
    def test_both_ways_stand_for_one_connection(self):
        table = FlowTable()
        one = connection(1)
        table.add(one)
        assert table.halves[one.key] is one.original
        assert table.halves[reverse_key(one.key)] is one.reply
        assert table.connections == [one]
        table.remove(one)
        assert table.halves == {}

    def test_one_that_talks_to_itself_has_one_key(self):
        table = FlowTable()
        key = make_key(UDP, bytes(4), bytes(4), b"\0\x09\0\x09")
        one = Connection(1, key, make_flow(UDP, bytes(4), bytes(4), b"\0\x09\0\x09", Direction.OUT), 0.0, State.ASKED)
        table.add(one)
        assert table.connections == [one]
        table.remove(one)
        assert (len(table), table.halves) == (0, {})


class TestFull:
    def test_the_soonest_forgotten_goes_first(self):
        table = FlowTable(3)
        for number, state in ((1, State.ANSWERED), (2, State.ASKED), (3, State.ASKED)):
            table.add(connection(number, state, time=float(number)))
        assert table.full
        victim = table.evict(4.0)
        assert victim is not None
        assert (victim.number, len(table), table.evicted) == (2, 2, 1)

    def test_none_goes_when_all_are_answered(self):
        table = FlowTable(20)
        for number in range(20):
            table.add(connection(number, State.ANSWERED))
        assert table.evict(1.0) is None
        assert (len(table), table.evicted) == (20, 0)

    def test_unanswered_ones_behind_many_answered_are_found_in_time(self):
        table = FlowTable(25)
        for number in range(20):
            table.add(connection(number, State.ANSWERED))
        for number in range(20, 25):
            table.add(connection(number, State.SYN_SENT, protocol=TCP, time=50.0))
        assert any(table.evict(60.0) for _ in range(5))


def test_what_was_counted_is_counted_once():
    one = connection(1)
    one.original.packets, one.original.bytes = 3, 300
    one.settle()
    one.reply.packets, one.reply.bytes = 1, 50
    assert one.uncounted == (1, 50)
    one.settle()
    assert (one.row.packets, one.row.bytes, one.uncounted) == (4, 350, (0, 0))
