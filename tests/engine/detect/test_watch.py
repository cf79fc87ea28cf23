"""Packets in, observations out: dialogues, the same packets through a slow twin, and bounds."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.engine.detect import specials as module
from pfw.engine.detect.connection import IDLE_S, OVER_S, UNANSWERED_S
from pfw.engine.detect.specials import TRIED_MAX, TRIED_S
from pfw.engine.detect.watch import SILENCE_S, Watch
from pfw.model.address import format_address
from pfw.model.event import Source
from pfw.model.observation import Began, Busy, Confirmed, Ended, HalfOpen, Met, Odd, ProtocolTried, Stray
from pfw.model.packet import FLAG_LETTERS, TCP, UDP, flag_letters
from pfw.wire.scan import scan

RAW_IP = 101


def line(seen) -> str:
    began = getattr(seen, "began", None)
    at = f"{format_address(began.source)}:{began.source_port or ''}>{began.port or ''}" if began else ""
    match seen:
        case Began():
            ports = f":{seen.source_port or ''}>{seen.port or ''}"
            return f"began {seen.protocol} {format_address(seen.source)}{ports}"
        case Met():
            return f"{seen.reply} {at} x{seen.attempts}"
        case Confirmed():
            return f"confirmed {at}" + " by reset" * seen.by_reset
        case HalfOpen():
            return f"half open {at}"
        case Ended():
            ways = " by reset" * seen.by_reset + " open" * seen.is_open + " older" * seen.is_older
            return f"ended {at} {seen.sent_packets}/{seen.received_packets}{ways}"
        case Stray():
            return f"stray {format_address(seen.source)}:{seen.source_port}>{seen.port} {flag_letters(seen.flags)}"
        case Odd():
            return f"odd {','.join(seen.names)}" + " fragment" * seen.is_fragment
        case Busy():
            return f"busy {at} {seen.sent_packets}/{seen.received_packets} x{seen.attempts}"
        case ProtocolTried():
            return f"tried {seen.protocol}"
    return type(seen).__name__


class Dialogue:
    """`tell` gives packets to a watch, now; a number lets so many seconds pass. All answers as lines."""

    def __init__(self, noon: float, **options) -> None:
        self.time = noon
        self.watch = Watch(**options)

    def tell(self, *told: bytes | float) -> list[str]:
        lines = []
        for each in told:
            if isinstance(each, int | float):
                self.time += each
                continue
            items = scan(Source(RAW_IP), each, [(self.time, 0, len(each), len(each))])
            lines += [line(seen) for _, observations in self.watch.packets(items) for seen in observations]
        return lines

    def end(self) -> list[str]:
        return [line(seen) for seen in self.watch.end(self.time)]


@pytest.fixture
def dialogue(wire) -> Dialogue:
    return Dialogue(wire.noon)


OUT = "192.0.2.1:40000>443"
BEGAN = "began 6 192.0.2.1:40000>443"


@pytest.mark.parametrize("family", ["out", "out6"])
def test_a_whole_connection(dialogue, wire, family):
    out = getattr(wire, family)
    here = wire.address(out.source)
    name = f"{here}:40000>443"
    assert dialogue.tell(out.tcp("S"), out.back.tcp("SA"), out.tcp("A")) == [
        f"began 6 {name}", f"answered {name} x1", f"confirmed {name}",
    ]  # fmt: skip
    assert dialogue.tell(out.tcp("PA", b"x"), out.back.tcp("PA", b"y"), out.back.tcp("FA"), out.tcp("A")) == []
    assert dialogue.tell(out.tcp("FA")) == [f"ended {name} 5/3"]
    # What still comes belongs to it, and is neither a new one nor a stray.
    assert dialogue.tell(out.back.tcp("A"), out.tcp("A"), out.back.tcp("R"), 1, out.tcp("FA")) == []
    assert dialogue.end() == []


def test_the_same_ends_again(dialogue, wire):
    out = wire.out
    dialogue.tell(out.tcp("S"), out.back.tcp("RA"))
    assert dialogue.tell(out.tcp("S"), out.back.tcp("SA"), out.tcp("A")) == [
        BEGAN, f"answered {OUT} x1", f"confirmed {OUT}",
    ]  # fmt: skip
    # Its end was not seen.
    assert dialogue.tell(out.tcp("S")) == [f"ended {OUT} 2/1", BEGAN]
    assert dialogue.tell(out.back.tcp("S")) == ["began 6 198.51.100.2:443>40000"]


def test_refused(dialogue, wire):
    out = wire.out
    assert dialogue.tell(out.tcp("S"), out.back.tcp("RA"), out.back.tcp("RA")) == [BEGAN, f"refused {OUT} x1"]
    assert dialogue.tell(10, wire.strangers.udp()) == ["began 17 198.51.100.2:40000>443"]
    assert dialogue.end() == ["silent 198.51.100.2:40000>443 x1"]


def test_silence_is_told_once_and_an_answer_after_it(dialogue, wire):
    out, other = wire.out, wire.strangers
    assert dialogue.tell(out.tcp("S"), 1, out.tcp("S"), 1.5, other.tcp("S")) == [
        BEGAN,
        "began 6 198.51.100.2:40000>443",
    ]
    assert dialogue.tell(1, other.tcp("S")) == [f"silent {OUT} x2"]
    assert dialogue.tell(10, out.tcp("S"), out.back.tcp("SA"), out.tcp("A")) == [
        "silent 198.51.100.2:40000>443 x2", f"answered {OUT} x3", f"confirmed {OUT}",
    ]  # fmt: skip
    assert dialogue.end() == [f"ended {OUT} 4/1 open"]


def test_what_waits_in_the_end_is_met_with_silence(dialogue, wire):
    dialogue.tell(wire.out.tcp("S"))
    assert dialogue.end() == [f"silent {OUT} x1"]
    assert dialogue.end() == []


def test_a_scan_that_leaves_by_reset(dialogue, wire):
    out = wire.out
    assert dialogue.tell(out.tcp("S"), out.back.tcp("SA"), out.tcp("R")) == [
        BEGAN, f"answered {OUT} x1", f"confirmed {OUT} by reset", f"ended {OUT} 2/1 by reset",
    ]  # fmt: skip


def test_who_says_nothing_to_an_answer_has_left_it_half_open(dialogue, wire):
    out = wire.out
    assert dialogue.tell(out.tcp("S"), 1, out.tcp("S"), out.back.tcp("SA"), 2, out.back.tcp("SA")) == [
        BEGAN, f"answered {OUT} x2",
    ]  # fmt: skip
    assert dialogue.tell(1, out.back.tcp("SA")) == [f"half open {OUT}"]
    assert dialogue.tell(30, out.back.tcp("SA"), 1, out.tcp("R")) == [
        f"confirmed {OUT} by reset", f"ended {OUT} 3/4 by reset",
    ]  # fmt: skip
    assert dialogue.end() == []


def test_one_that_is_half_open_in_the_end(dialogue, wire):
    dialogue.tell(wire.out.tcp("S"), wire.out.back.tcp("SA"))
    assert dialogue.end() == [f"half open {OUT}", f"ended {OUT} 1/1 open"]


def test_one_that_is_half_open_is_forgotten_soon(dialogue, wire):
    dialogue.tell(wire.out.tcp("S"), wire.out.back.tcp("SA"), SILENCE_S)
    told = dialogue.tell(wire.strangers.udp(), UNANSWERED_S, wire.strangers.udp())
    assert told[0] == f"half open {OUT}"
    assert told[-1] == f"ended {OUT} 1/1"
    assert len(dialogue.watch) == 1


def test_where_the_capture_has_no_numbers_nobody_is_half_open(wire):
    dialogue = Dialogue(wire.noon, numbers=lambda item: None)
    dialogue.tell(wire.out.tcp("S"), wire.out.back.tcp("SA"), wire.out.tcp("A"), SILENCE_S + 1)
    assert dialogue.tell(wire.strangers.udp()) == ["began 17 198.51.100.2:40000>443"]
    assert [each for each in dialogue.end() if each.startswith("half")] == []


def test_half_open_ones_make_room_for_others(wire):
    dialogue = Dialogue(wire.noon, capacity=20)
    dialogue.tell(wire.out.tcp("S"), wire.out.back.tcp("SA"), wire.out.tcp("A"))
    for number in range(500):
        way = wire.Path(f"203.0.{number >> 8}.{number & 255}", wire.here)
        dialogue.tell(way.tcp("S"), way.back.tcp("SA"), 0.05)
    assert (len(dialogue.watch), dialogue.watch.refused) == (20, 0)
    assert dialogue.tell(wire.out.tcp("FA"), wire.out.back.tcp("FA")) == [f"ended {OUT} 3/2"]


def test_one_that_is_older_than_the_capture_is_no_stray(dialogue, wire):
    out = wire.out
    assert dialogue.tell(out.back.tcp("PA", b"x"), 1, out.tcp("A"), 10, out.tcp("PA"), out.back.tcp("FA")) == []
    assert dialogue.tell(out.tcp("FA")) == [f"ended {OUT} 3/2 older"]
    assert dialogue.end() == []


def test_one_that_is_older_and_seen_from_one_side(dialogue, wire):
    assert dialogue.tell(*[wire.out.tcp("A"), 0.5] * 4, 60, wire.out.tcp("A")) == []
    assert dialogue.end() == [f"ended {OUT} 5/0 open older"]


def test_the_close_of_an_older_one_is_no_stray(dialogue, wire):
    assert dialogue.tell(wire.out.tcp("FA"), wire.out.back.tcp("FA"), wire.out.tcp("A")) == []
    assert dialogue.end() == [f"ended {OUT} 2/1 open older"]


@pytest.mark.parametrize("flags", ["A", "FA", "PA"])
def test_an_ack_that_nothing_follows_is_a_stray(dialogue, wire, flags):
    assert dialogue.tell(wire.out.tcp(flags), 1, wire.out.tcp(flags), 1) == []
    assert dialogue.tell(SILENCE_S, wire.strangers.tcp("S"))[0] == f"stray {OUT} {flags}"
    assert not [each for each in dialogue.end() if each.startswith("stray")]


def test_an_ack_that_is_answered_by_a_reset_is_a_stray(dialogue, wire):
    assert dialogue.tell(wire.out.tcp("A"), wire.out.back.tcp("R")) == [f"stray {OUT} A"]
    assert dialogue.end() == []


def test_data_that_nobody_resets_is_no_stray(dialogue, wire):
    data = wire.out.tcp("PA", bytes(60))
    assert dialogue.tell(data) + dialogue.end() == []
    assert dialogue.tell(data, wire.out.back.tcp("R")) == [f"stray {OUT} PA"]
    assert dialogue.tell(100, data, error(wire.out.back, 3, 13, data)) == [f"stray {OUT} PA"]


def test_the_stray_has_the_time_of_its_packet(dialogue, wire):
    dialogue.tell(wire.out.tcp("A"), 2)
    (stray,) = dialogue.watch.end(dialogue.time)
    assert (stray.time, stray.size_bytes) == (wire.noon, 40)


@pytest.mark.parametrize("flags", ["", "F", "FPU", "SF", "SR", "R", "RA", "SA", "U", "SFRPAU"])
def test_strays_at_once(dialogue, wire, flags):
    letters = flag_letters(sum(1 << FLAG_LETTERS.index(each) for each in flags))
    assert dialogue.tell(wire.out.tcp(flags))[0] == f"stray {OUT} {letters}"


def test_probes_with_a_known_connection_are_its_own(dialogue, wire):
    dialogue.tell(wire.out.tcp("S"), wire.out.back.tcp("SA"), wire.out.tcp("A"))
    assert dialogue.tell(wire.out.tcp(""), wire.out.tcp("U")) == []


@pytest.mark.parametrize(
    ("acknowledged", "confirmed"), [(1001, True), (1000, False), (1002, True), (1001 + 41, False), (1001 - 2**32, True)]
)
def test_only_who_saw_the_answer_is_confirmed(wire, acknowledged, confirmed):
    numbers = {"SA": (1000, 1), "A": (1, acknowledged % 2**32)}
    dialogue = Dialogue(wire.noon, numbers=lambda item: numbers[flag_letters(item[3])])
    assert dialogue.tell(wire.out.tcp("S"), wire.out.back.tcp("SA")) == [BEGAN, f"answered {OUT} x1"]
    assert dialogue.tell(wire.out.tcp("A")) == [f"confirmed {OUT}"] * confirmed


def test_without_numbers_in_the_capture_nobody_is_confirmed(wire):
    dialogue = Dialogue(wire.noon, numbers=lambda item: None)
    assert dialogue.tell(wire.out.tcp("S"), wire.out.back.tcp("SA"), wire.out.tcp("A")) == [BEGAN, f"answered {OUT} x1"]


def error(back, kind: int, code: int, quoted: bytes) -> bytes:
    return back.icmp(kind, code, bytes(4), quoted[: 48 if back.is_ipv6 else 28])


@pytest.mark.parametrize(
    ("kind", "code", "reply"),
    [(3, 3, "refused"), (3, 1, "forbidden"), (3, 13, "forbidden"), (11, 0, "expired"), (3, 4, None), (4, 0, None)],
)
def test_icmp_errors_are_replies(dialogue, wire, kind, code, reply):
    out = wire.out
    told = dialogue.tell(out.udp(), error(out.back, kind, code, out.udp()), error(out.back, kind, code, out.udp()))
    assert told == ["began 17 192.0.2.1:40000>443"] + ([f"{reply} {OUT} x1"] if reply else [])


@pytest.mark.parametrize(
    ("kind", "code", "reply"), [(1, 4, "refused"), (1, 1, "forbidden"), (3, 0, "expired"), (2, 0, None)]
)
def test_icmpv6_errors_are_replies(dialogue, wire, kind, code, reply):
    out = wire.out6
    told = dialogue.tell(out.tcp("S"), error(out.back, kind, code, out.tcp("S")))
    assert told[1:] == ([f"{reply} 2001:db8::1:40000>443 x1"] if reply else [])


def test_errors_about_nothing_and_what_they_quote_begin_nothing(dialogue, wire):
    out = wire.out
    assert dialogue.tell(error(out.back, 3, 3, out.udp()), error(out.back, 11, 0, out.tcp("S"))) == []
    assert dialogue.tell(wire.out6.icmp(135, 0, bytes(4), bytes(16)), wire.out6.icmp(134, 0, bytes(4), bytes(8))) == []
    assert dialogue.end() == []


def test_echo(dialogue, wire):
    out = wire.out
    assert dialogue.tell(out.ping()) == ["began 1 192.0.2.1:>"]
    assert dialogue.tell(out.back.pong(), out.ping(), out.back.pong()) == ["answered 192.0.2.1:> x1"]
    assert dialogue.end() == ["ended 192.0.2.1:> 2/2 open"]


def test_udp_is_over_when_it_is_quiet(dialogue, wire):
    out = wire.out
    assert dialogue.tell(out.udp(), out.udp(), out.back.udp(), out.udp()) == [
        "began 17 192.0.2.1:40000>443", f"answered {OUT} x2",
    ]  # fmt: skip
    assert dialogue.tell(IDLE_S[UDP] + 1, wire.strangers.tcp("S"))[0] == f"ended {OUT} 3/1"
    assert len(dialogue.watch) == 1


def test_seen_from_one_side_a_connection_is_not_met_with_silence(dialogue, wire):
    assert dialogue.tell(wire.out.tcp("S"), *[wire.out.tcp("A")] * 3) == [BEGAN]
    assert dialogue.end() == []


@pytest.mark.parametrize("to", ["224.0.0.251", "239.255.255.250", "255.255.255.255", "ff02::fb"])
def test_what_goes_to_many_is_not_met_with_silence(dialogue, wire, to):
    many = wire.Path(wire.here6 if ":" in to else wire.here, to)
    assert len(dialogue.tell(many.udp(), 10)) == 1
    assert dialogue.tell(wire.strangers.udp()) == ["began 17 198.51.100.2:40000>443"]


def test_other_protocols_are_told_of_once_in_a_while(dialogue, wire):
    gre = wire.out.ip(47, bytes(4))
    assert dialogue.tell(gre, gre) == ["began 47 192.0.2.1:>", "tried 47"]
    assert "tried 47" not in dialogue.tell(TRIED_S - 1, gre)
    assert "tried 47" in dialogue.tell(TRIED_S + 1, gre)


def test_the_protocols_tried_are_bounded_and_forgotten(monkeypatch, dialogue, wire):
    monkeypatch.setattr(module, "TRIED_MAX", 8)
    assert TRIED_MAX > 8
    many = [wire.Path(wire.here, f"198.51.100.{number}").ip(47, bytes(4)) for number in range(1, 20)]
    assert dialogue.tell(*many).count("tried 47") == 19
    assert len(dialogue.watch._specials._tried) == 8
    assert "tried 47" in dialogue.tell(many[0])


@pytest.mark.parametrize("family", ["out", "out6"])
def test_ordinary_fragments_are_one_packet(dialogue, wire, family):
    way = getattr(wire, family)
    pieces = way.fragments(UDP, way.datagram(bytes(200)), 80)
    for order in (pieces, pieces[::-1]):
        assert not [each for each in dialogue.tell(*order) if each.startswith(("odd", "stray", "tried"))]
    assert len(dialogue.watch) == 1


def test_fragments_that_overlap(dialogue, wire):
    pieces = wire.out.fragments(UDP, wire.out.datagram(bytes(200)), 80)
    dialogue.tell(*pieces[:2])
    again = wire.out.ipv4(UDP, bytes(80), ident=99, fragment=0x2000 | 9)
    assert dialogue.tell(again) == ["odd overlap fragment"]


def test_times_may_run_backwards(dialogue, wire):
    assert dialogue.tell(wire.out.tcp("S"), -100, wire.strangers.tcp("S"), 1, wire.out.back.tcp("SA")) == [
        BEGAN, "began 6 198.51.100.2:40000>443", f"answered {OUT} x1",
    ]  # fmt: skip
    assert dialogue.tell(SILENCE_S, wire.inward.tcp("S"))[0] == "silent 198.51.100.2:40000>443 x1"


def test_a_flood_does_not_push_out_what_is_answered(wire):
    dialogue = Dialogue(wire.noon, capacity=20)
    dialogue.tell(wire.out.tcp("S"), wire.out.back.tcp("SA"), wire.out.tcp("A"))
    flood = [wire.Path(f"203.0.{number >> 8}.{number & 255}", wire.here) for number in range(500)]
    told = dialogue.tell(*[packet for each in flood for packet in (each.tcp("S"), 0.01)])
    assert len([each for each in told if each.startswith("began")]) == 500
    assert (len(dialogue.watch), dialogue.watch.refused) == (20, 0)
    assert dialogue.tell(wire.out.tcp("FA"), wire.out.back.tcp("FA")) == [f"ended {OUT} 3/2"]


def test_where_all_are_answered_a_new_one_is_refused(wire):
    dialogue = Dialogue(wire.noon, capacity=3)
    ways = [wire.Path(wire.here, wire.there, 40000 + number) for number in range(4)]
    for way in ways:
        dialogue.tell(way.tcp("S"), way.back.tcp("SA"), way.tcp("A"))
    assert (len(dialogue.watch), dialogue.watch.refused) == (3, 2)


def test_nothing_is_remembered_for_ever(dialogue, wire):
    for number in range(100):
        way = wire.Path(wire.here, wire.there, 40000 + number)
        dialogue.tell(
            way.tcp("S"), *[way.back.tcp("RA")] * (number % 2), *[way.back.tcp("SA"), way.tcp("R")] * (number % 3 == 0)
        )
    dialogue.tell(max(OVER_S, UNANSWERED_S) + 1, wire.strangers.udp())
    assert len(dialogue.watch) == 1
    assert (len(dialogue.watch._back), len(dialogue.watch._spare)) == (1, 0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.01, 0.4, 1.1, 3.5, 33.0, 75.0, 4000.0]),
        st.sampled_from([1, 2, 3]),
        st.sampled_from([1, 2, 3]),
        st.sampled_from(["S", "SA", "A", "PA", "FA", "R", "RA", "", "F", "FPU", "udp"]),
    ),
    max_size=40,
)


def frame(source: int, destination: int, what: str) -> bytes:
    """The port of each end is its address; so there are few connections, and the packets meet."""
    ends = bytes((192, 0, 2, source)) + bytes((192, 0, 2, destination))
    protocol = UDP if what == "udp" else TCP
    ports = struct.pack(">HH", source, destination)
    if what == "udp":
        payload = ports + struct.pack(">HH", 8, 0)
    else:
        bits = sum(1 << FLAG_LETTERS.index(each) for each in what)
        payload = ports + struct.pack(">IIBBHHH", 1, 2, 0x50, bits, 512, 0, 0)
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0, 64, protocol, 0) + ends + payload


class Twin:
    """The same in the obvious way: the history of each connection is kept, and asked anew each time."""

    def __init__(self) -> None:
        self.all: list[dict] = []
        self.next_sweep = self.next_walk = 0.0

    def packet(self, time: float, source: int, destination: int, what: str) -> list[str]:
        told = self.sweep(time) if time >= self.next_sweep else []
        ends = source, destination, what == "udp"
        for each in self.all:
            if each["ends"] in (ends, (destination, source, what == "udp")):
                way = ">" if each["ends"] == ends else "<"
                if what == "S" and (way == "<" or each["over"] or each["older"] or self.confirmed(each)):
                    told += self.ended(each) if self.met(each) and not each["over"] else []
                    self.all.remove(each)
                    break
                each["last"] = time
                was_met = self.met(each)
                told += self.goes_on(each, way, what)
                each["met"] = each["met"] if was_met else time
                return told
        if what not in ("S", "udp", "A", "PA", "FA"):
            return [*told, f"stray 192.0.2.{source}:{source}>{destination} {what}"]
        self.all.append({"ends": ends, "began": time, "last": time, "history": [(">", what)], "over": False,
                         "told": False, "quiet": False, "older": what not in ("S", "udp"), "first": what,
                         "met": 0.0, "left": False})  # fmt: skip
        if what in ("S", "udp"):
            told.append(f"began {17 if what == 'udp' else 6} 192.0.2.{source}:{source}>{destination}")
        return told

    def goes_on(self, each: dict, way: str, what: str) -> list[str]:
        met, confirmed = self.met(each), self.confirmed(each)
        each["history"].append((way, what))
        name = self.name(each)
        if each["over"]:
            return []
        if not met and way == "<":
            each["over"] = what in ("R", "RA")
            if not each["older"]:
                return [f"{'refused' if each['over'] else 'answered'} {name} x{self.attempts(each)}"]
            told = [] if each["told"] or not each["over"] else [f"stray {name} {each['first']}"]
            each["told"] = True
            return told
        if not met or each["ends"][2]:
            return []
        told = []
        if way == ">" and not confirmed and not each["older"] and ("A" in what or "R" in what):
            told.append(f"confirmed {name}" + " by reset" * ("R" in what))
        closed = {each_way for each_way, each_what in self.since_met(each) if "F" in each_what} == {"<", ">"}
        if "R" in what or closed:
            each["over"] = True
            told += self.ended(each, " by reset" * ("R" in what))
        return told

    def met(self, each: dict) -> bool:
        ways = [way for way, _ in each["history"]]
        if each["older"] and ways.count("<") and each["history"][ways.index("<")][1] in ("R", "RA"):
            return ways[: ways.index("<")].count(">") > 3
        return "<" in ways or (each["older"] and ways.count(">") > 3)

    def since_met(self, each: dict) -> list[tuple[str, str]]:
        """Without the packet by which it became known that the connection is there."""
        history = each["history"]
        for size in range(1, len(history) + 1):
            if self.met({**each, "history": history[:size]}):
                return history[size:]
        return []

    def confirmed(self, each: dict) -> bool:
        if each["older"]:
            return self.met(each)
        return any(way == ">" and ("A" in what or "R" in what) for way, what in self.since_met(each))

    def attempts(self, each: dict) -> int:
        return sum(1 for way, what in each["history"] if way == ">" and what in ("S", "udp"))

    def name(self, each: dict) -> str:
        return f"192.0.2.{each['ends'][0]}:{each['ends'][0]}>{each['ends'][1]}"

    def ended(self, each: dict, how: str = "") -> list[str]:
        counts = [sum(1 for way, _ in each["history"] if way == one) for one in "><"]
        name = self.name(each)
        if each["older"] and each["ends"][0] < each["ends"][1]:
            name, counts = f"192.0.2.{each['ends'][1]}:{each['ends'][1]}>{each['ends'][0]}", counts[::-1]
        return [f"ended {name} {counts[0]}/{counts[1]}{how}" + " older" * each["older"]]

    def silence(self, each: dict) -> list[str]:
        if each["quiet"] or self.met(each) or each["over"]:
            return []
        each["quiet"] = True
        if each["older"]:
            told = [] if each["told"] else [f"stray {self.name(each)} {each['first']}"]
            each["told"] = True
            return told
        others = sum(1 for way, what in each["history"] if way == ">" and what not in ("S", "udp"))
        return [] if others > 2 and not each["ends"][2] else [f"silent {self.name(each)} x{self.attempts(each)}"]

    def half_open(self, each: dict) -> bool:
        says = {what for way, what in each["history"] if way == ">"}
        return says == {"S"} and self.met(each) and not each["over"]

    def left(self, each: dict) -> list[str]:
        if each["left"] or not self.half_open(each):
            return []
        each["left"] = True
        return [f"half open {self.name(each)}"]

    def sweep(self, now: float) -> list[str]:
        self.next_sweep = now + 1.0
        told = [text for each in self.all if now - each["began"] >= SILENCE_S for text in self.silence(each)]
        told += [text for each in self.all if now - each["met"] >= SILENCE_S for text in self.left(each)]
        if now >= self.next_walk:
            self.next_walk = now + 30.0
            for each in list(self.all):
                patience = (60.0 if each["ends"][2] else 3600.0) if self.met(each) else UNANSWERED_S
                patience = UNANSWERED_S if self.half_open(each) else patience
                if now - each["last"] > (OVER_S if each["over"] else patience):
                    told += self.ended(each) if self.met(each) and not each["over"] else []
                    self.all.remove(each)
        return told

    def end(self) -> list[str]:
        told = [text for each in self.all for text in (*self.silence(each), *self.left(each))]
        for each in self.all:
            if self.met(each) and not each["over"]:
                told += self.ended(each, " open")
        return told


def is_busy(text: str) -> bool:
    """What `test_connection.py` is about."""
    return text.startswith("busy")


@given(steps=STEPS)
@settings(max_examples=400, deadline=None)
def test_like_its_slow_twin(steps):
    dialogue, twin = Dialogue(1_795_392_000.0), Twin()
    for pause, source, destination, what in steps:
        if source == destination:
            continue
        told = [each for each in dialogue.tell(pause, frame(source, destination, what)) if not is_busy(each)]
        assert sorted(told) == sorted(twin.packet(dialogue.time, source, destination, what))
    assert sorted(each for each in dialogue.end() if not is_busy(each)) == sorted(twin.end())


@given(steps=STEPS, capacity=st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_tables_are_bounded_and_agree(steps, capacity):
    dialogue = Dialogue(1_795_392_000.0, capacity=capacity)
    watch = dialogue.watch
    for pause, source, destination, what in steps:
        dialogue.tell(pause, frame(source, destination, what))
        assert len(watch) == len(watch._back) <= capacity
        kept = [watch._waiting.keys(), watch._half.keys(), watch._spare.keys()]
        assert set().union(*kept) <= watch._forth.keys()
        assert sum(map(len, kept)) == len(set().union(*kept))
    dialogue.end()
    assert not any(map(len, (watch, watch._back, watch._waiting, watch._half, watch._spare)))


@given(
    frames=st.lists(st.binary(max_size=120), max_size=30), times=st.lists(st.floats(0, 1e12), min_size=30, max_size=30)
)
@settings(max_examples=200, deadline=None)
def test_never_raises(frames, times):
    watch = Watch(capacity=4)
    for each, time in zip(frames, times, strict=False):
        (item,) = scan(Source(RAW_IP), each, [(time, 0, len(each), len(each))])
        watch.packet(item)
    watch.end(0.0)
