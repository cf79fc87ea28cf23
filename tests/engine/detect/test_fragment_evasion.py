"""Fragments that no honest sender makes, from one and from many."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.daemon.detecting import detect
from pfw.daemon.sources import CaptureFile
from pfw.engine.detect.fragment_evasion import FORGED_MANY, HELD_MAX, HELD_S, SLOPPY, WEIGHTS, FragmentEvasion
from pfw.model.observation import Alert, Kind, Odd
from pfw.model.packet import TCP, UDP
from pfw.wire.anomaly import ANOMALY_TEXTS

SOURCE, TARGET = b"\xc0\0\2\1", b"\xc6\x33\x64\2"


class Dialogue:
    def __init__(self, detector: FragmentEvasion | None = None) -> None:
        self.detector = detector or FragmentEvasion()
        self.found: list[Alert] = []

    def odd(self, time, *names, source=SOURCE, target=TARGET, is_fragment=True):
        self.found += self.detector.observe(Odd(time, source, target, UDP, names, is_fragment))

    def end(self, time=1000.0):
        self.found += self.detector.end(time)


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_one_is_worth_a_look(dialogue, name):
    dialogue.odd(0, name)
    assert dialogue.found == []
    dialogue.end()
    (alert,) = dialogue.found
    assert (alert.kind, alert.source, alert.target, alert.ban) == (Kind.FRAGMENT_EVASION, SOURCE, TARGET, ())
    assert 50 <= alert.score == WEIGHTS[name] < 80


def test_it_is_told_after_a_moment(dialogue):
    dialogue.odd(0, "overlap")
    dialogue.odd(HELD_S, "decoder.tcp.opt_unknown", is_fragment=False)
    (alert,) = dialogue.found
    assert alert.evidence == "sent fragments to 198.51.100.2 that no honest sender makes: 1 that overlap"


@pytest.mark.parametrize("name", sorted(WEIGHTS.keys() - {"gap"}))
def test_several_are_sure(dialogue, name):
    for time in range(3):
        dialogue.odd(time, name)
    dialogue.end()
    assert [each.score for each in dialogue.found][-1] == 80


def test_holes_never_add_up(dialogue):
    for time in range(100):
        dialogue.odd(time / 10, "gap")
    dialogue.end()
    assert {each.score for each in dialogue.found} == {55}


def test_silence_grows(dialogue):
    for time in range(2000):
        dialogue.odd(time / 100, "tiny")
    assert 2 <= len(dialogue.found) <= 12


@pytest.mark.parametrize(
    ("name", "is_fragment", "count"),
    [
        ("decoder.tcp.pkt_too_small", True, 1),
        ("decoder.tcp.pkt_too_small", False, 0),
        ("decoder.ipv4.opt_invalid_len", True, 0),
        *((each, True, 0) for each in sorted(SLOPPY)),
    ],
)
def test_what_counts(dialogue, name, is_fragment, count):
    dialogue.odd(0, name, is_fragment=is_fragment)
    dialogue.end()
    assert len(dialogue.found) == count


def test_many_that_do_the_same_to_one(dialogue):
    for n in range(37_000):
        dialogue.odd(n / 10_000, "overlap", source=n.to_bytes(4))
    dialogue.end()
    assert {(each.source, each.target) for each in dialogue.found} == {(None, TARGET)}
    assert FORGED_MANY < len(dialogue.found) + FORGED_MANY <= 30


def test_names_are_the_decoders():
    assert {each for each in (*WEIGHTS, *SLOPPY) if "." in each} <= ANOMALY_TEXTS.keys()


def ipv4(offset: int, more: bool, payload: bytes, ident: int = 7, protocol: int = UDP) -> bytes:
    head = pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), ident, offset // 8 | 0x2000 * more, 64, protocol, 0)
    return b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" + head + SOURCE + TARGET + payload


def found_in(tmp_path, frames):
    path = tmp_path / "fragments.pcap"
    records = [pack("<IIII", 1_700_000_000 + at, 0, len(each), len(each)) + each for at, each in enumerate(frames)]
    path.write_bytes(pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(records))
    return [each for each in detect([CaptureFile(str(path))], None).alerts if each.kind == Kind.FRAGMENT_EVASION]


SYN = bytes.fromhex("c00000500000000100000000600204000000000002040 5b4".replace(" ", ""))
TORN_BY_A_LINK = [
    piece for ident in range(50) for piece in (
        ipv4(0, True, bytes(1472), ident), ipv4(1472, True, bytes(8), ident), ipv4(1480, True, bytes(1472), ident),
        ipv4(2952, True, bytes(8), ident), ipv4(2960, False, bytes(300), ident),
    )
]  # fmt: skip


@pytest.mark.parametrize(
    ("frames", "count"),
    [
        ([ipv4(0, True, bytes(36)), ipv4(24, False, bytes(4))], 1),  # teardrop
        ([ipv4(0, True, SYN[:8], protocol=TCP), ipv4(8, True, SYN[8:16], protocol=TCP),
          ipv4(16, False, SYN[16:], protocol=TCP)], 1),  # nmap -f
        ([ipv4(0, True, bytes(1480)), ipv4(65_520, False, bytes(400))], 1),  # the ping of death
        (TORN_BY_A_LINK, 0),
        ([ipv4(at * 1480, at < 44, bytes(1480 if at < 44 else 100)) for at in range(45)], 0),
        ([ipv4(at * 1480, at < 44, bytes(1480 if at < 44 else 100)) for at in range(45) if at != 30], 0),
    ],
)  # fmt: skip
def test_packets(tmp_path, frames, count):
    assert len(found_in(tmp_path, frames)) == count


NAMES = st.sampled_from([*WEIGHTS, *SLOPPY, "decoder.tcp.pkt_too_small", "other", ""])
ENDS = st.none() | st.sampled_from([SOURCE, TARGET, bytes(16), bytes(4)])


@given(
    st.lists(
        st.tuples(st.floats(-9, 999), ENDS, ENDS, st.lists(NAMES, max_size=4).map(tuple), st.booleans()), max_size=80
    )
)
def test_never_raises_and_never_bans(told):
    detector, found = FragmentEvasion(sources_max=2), []
    for time, source, target, names, is_fragment in told:
        found += detector.observe(Odd(time, source, target, None, names, is_fragment))
    found += detector.end(1000)
    assert all(each.ban == () and each.evidence for each in found)


def test_memory_is_bounded():
    dialogue = Dialogue(FragmentEvasion(sources_max=5000))
    for n in range(10_000):
        dialogue.odd(1.0, "overlap", source=n.to_bytes(4), target=(n // 2).to_bytes(4))
    detector = dialogue.detector
    assert len(detector._held) == HELD_MAX
    assert len(detector._sources) == 5000
    assert len(detector._targets) == 5000
    assert detector.refused > 0
