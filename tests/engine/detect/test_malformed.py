"""Malformed packets: strays, sloppy stacks, cut captures, and attacks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.engine.detect.malformed import HOSTILE_MANY, HOSTILE_S, IGNORED, NAMES_MAX, SLOPPY, Malformed
from pfw.model.observation import Alert, Kind, Odd
from pfw.model.packet import TCP
from pfw.wire.anomaly import ANOMALY_TEXTS

SOURCE, TARGET = b"\xc0\0\2\1", b"\xc6\x33\x64\2"
HOSTILE = sorted(ANOMALY_TEXTS.keys() - SLOPPY - IGNORED)


class Dialogue:
    def __init__(self, detector: Malformed | None = None) -> None:
        self.detector = detector or Malformed()
        self.found: list[Alert] = []

    def odd(self, time, *names, source=SOURCE, target=TARGET, is_fragment=False):
        self.found += self.detector.observe(Odd(time, source, target, TCP, names, is_fragment))


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


@pytest.mark.parametrize("name", [*HOSTILE, "dns.malformed", "dhcp.malformed", "neighbour.malformed", "echo.malformed"])
def test_several_with_one_fault(dialogue, name):
    for time in range(HOSTILE_MANY - 1):
        dialogue.odd(time, name)
    assert dialogue.found == []
    dialogue.odd(HOSTILE_MANY, name)
    (alert,) = dialogue.found
    assert (alert.kind, alert.source, alert.target, alert.ban) == (Kind.MALFORMED, SOURCE, TARGET, ())
    assert alert.score == 50 + HOSTILE_MANY
    assert alert.evidence == f"sent 4 malformed packets in 4.0 s: 4 with {name.removeprefix('decoder.')}"


@pytest.mark.parametrize("name", sorted(SLOPPY))
def test_sloppy_ones_say_nothing_however_many(dialogue, name):
    for time in range(1000):
        dialogue.odd(time / 100, name)
        dialogue.odd(time / 100, name, source=time.to_bytes(4))
    assert dialogue.found == []


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_what_is_looked_at_elsewhere(dialogue, name):
    for time in range(100):
        dialogue.odd(time, name)
    assert dialogue.found == []


def test_strays_far_between(dialogue):
    for n in range(200):
        dialogue.odd(n * HOSTILE_S, "decoder.tcp.hlen_too_small")
    assert dialogue.found == []


def test_an_ip_protocol_scan_is_none(dialogue):
    for at, protocol in enumerate(("udp", "tcp", "sctp", "dccp", "icmpv4", "icmpv6")):
        for again in (0, 1):
            dialogue.odd(at + again / 2, f"decoder.{protocol}.pkt_too_small")
    assert dialogue.found == []


def test_fuzzing(dialogue):
    names = [*sorted(SLOPPY)[:6], *HOSTILE[:6]]
    for n in range(40):
        dialogue.odd(n / 10, names[n % 12])
    assert dialogue.found
    assert "other faults" in dialogue.found[-1].evidence


def test_fragments_too_short_for_a_header_belong_elsewhere(dialogue):
    for time in range(50):
        dialogue.odd(time, "decoder.tcp.pkt_too_small", is_fragment=True)
    assert dialogue.found == []


def test_nobodys_packets_count_together(dialogue):
    for time in range(4):
        dialogue.odd(time, "decoder.arp.invalid_hardware_size", source=None, target=None)
    (alert,) = dialogue.found
    assert (alert.source, alert.target) == (None, None)


def test_a_forged_flood_gives_one_alert_for_the_target(dialogue):
    for n in range(37_000):
        dialogue.odd(n / 10_000, "decoder.tcp.opt_invalid_len", source=n.to_bytes(4))
    assert {(each.source, each.target) for each in dialogue.found} == {(None, TARGET)}
    assert len(dialogue.found) <= 15


def test_silence_grows(dialogue):
    for time in range(2000):
        dialogue.odd(time / 100, "decoder.tcp.hlen_too_small")
    assert 2 <= len(dialogue.found) <= 12


def test_names_are_the_decoders():
    assert {each for each in (*SLOPPY, *IGNORED) if "." in each} <= ANOMALY_TEXTS.keys()


NAMES = st.sampled_from([*HOSTILE, *SLOPPY, *IGNORED, "other", ""])
ENDS = st.none() | st.sampled_from([SOURCE, TARGET, bytes(16), bytes(4)])


@given(
    st.lists(
        st.tuples(st.floats(-9, 999), ENDS, ENDS, st.lists(NAMES, max_size=4).map(tuple), st.booleans()), max_size=80
    )
)
def test_never_raises_and_never_bans(told):
    detector, found = Malformed(sources_max=2), []
    for time, source, target, names, is_fragment in told:
        found += detector.observe(Odd(time, source, target, None, names, is_fragment))
    found += detector.end(1000)
    assert all(each.ban == () and each.evidence for each in found)


def test_memory_is_bounded():
    dialogue = Dialogue(Malformed(sources_max=50))
    for n in range(500):
        dialogue.odd(1.0, f"name{n}")
        dialogue.odd(1.0, "decoder.tcp.opt_invalid_len", source=n.to_bytes(4), target=(n // 2).to_bytes(4))
    detector = dialogue.detector
    assert len(detector._sources) == 50
    assert len(detector._targets) == 50
    assert all(len(each.names) <= NAMES_MAX for _, each in detector._sources.items())
    assert detector.refused > 0
