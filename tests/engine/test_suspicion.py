"""Single suspicious packets, each kind, and ordinary ones that look odd but are not."""

import pytest

from pfw.engine.suspicion import TEXTS, flags_event, flow_events
from pfw.engine.tcp import flags_are_valid
from pfw.model.flow import Direction, make_flow, split_key
from pfw.model.packet import FLAG_LETTERS, TCP, UDP


def bits(letters: str) -> int:
    return sum(1 << FLAG_LETTERS.index(letter) for letter in letters)


@pytest.mark.parametrize(
    ("letters", "event"),
    [
        ("", "null"), ("P", "null"), ("F", "fin"), ("FU", "fin"), ("FPU", "xmas"), ("SF", "syn_fin"),
        ("SFA", "syn_fin"), ("SR", "syn_rst"), ("FRA", "fin_rst"), ("SFRPAU", "syn_fin"), ("U", "invalid"),
        ("RU", "invalid"), ("SAU", "invalid"),
    ],
)  # fmt: skip
def test_flags_have_names(letters, event):
    name = "tcp.flags.null" if letters == "P" else f"tcp.flags.{event}"
    assert not flags_are_valid(bits(letters))
    if letters != "P":
        assert flags_event(bits(letters)) == name


def test_every_refused_combination_has_a_text():
    names = {flags_event(flags) for flags in range(256) if not flags_are_valid(flags)}
    assert names == {name for name in TEXTS if name.startswith("tcp.flags.")}


@pytest.mark.parametrize("letters", ["", "F", "FPU", "SF", "SR"])
def test_a_probe_is_reported_and_counted_as_invalid(script, wire, letters):
    s = script()
    s >> wire.inward.tcp(letters) << f"suspicious {flags_event(bits(letters))}"
    assert s.rule("base invalid") == (0, 1)
    assert s.commands[0].frame.data == wire.inward.tcp(letters)
    assert s.commands[0].interface == "eth0"


@pytest.mark.parametrize(
    ("source", "destination", "event"),
    [
        ("127.0.0.1", "192.0.2.1", "martian.loopback"),
        ("198.51.100.2", "127.0.0.1", "martian.loopback"),
        ("::1", "2001:db8::1", "martian.loopback"),
        ("224.0.0.1", "192.0.2.1", "martian.multicast"),
        ("255.255.255.255", "192.0.2.1", "martian.multicast"),
        ("ff02::1", "2001:db8::1", "martian.multicast"),
        ("0.0.0.0", "192.0.2.1", "martian.unspecified"),
        ("0.1.2.3", "192.0.2.1", "martian.unspecified"),
        ("::", "2001:db8::1", "martian.unspecified"),
        ("240.0.0.1", "192.0.2.1", "martian.reserved"),
        ("100::1", "2001:db8::1", "martian.reserved"),
        ("::ffff:203.0.113.7", "2001:db8::1", "martian.mapped"),
    ],
)
def test_addresses_that_cannot_be(script, wire, source, destination, event):
    s = script()
    s >> wire.Path(source, destination).tcp("S")
    assert s.answers.pop(0) == f"suspicious {event}"
    assert len(s.answers) == 1
    s.answers.clear()


def test_land(script, wire):
    s = script(sent=False)
    s >> wire.Path(wire.here, wire.here, 139, 139).tcp("S") << "suspicious martian.own" << "suspicious flow.land"
    s << "#1 in TCP 192.0.2.1:139 > 192.0.2.1:139 block: default in"


def test_our_own_address_from_the_wire(script, wire):
    s = script(sent=False)
    s >> wire.Path(wire.here6, wire.here6).udp() << "suspicious martian.own"
    s << "#1 in UDP [2001:db8::1]:40000 > [2001:db8::1]:443 block: default in"


@pytest.mark.parametrize(
    ("protocol", "source_port", "port", "suspicious"),
    [(TCP, 0, 80, True), (TCP, 40000, 0, True), (UDP, 40000, 0, True), (UDP, 0, 53, False), (TCP, 1, 1, False)],
)
def test_port_0(wire, protocol, source_port, port, suspicious):
    key = wire.Path(wire.there, wire.here, source_port, port).key(protocol)
    events = flow_events(make_flow(*split_key(key), Direction.IN, "eth0"), wire.local)
    assert events == (("flow.port_zero",) if suspicious else ())


@pytest.mark.parametrize(
    ("source", "destination", "ports", "sent"),
    [
        ("0.0.0.0", "255.255.255.255", (68, 67), True),
        ("0.0.0.0", "255.255.255.255", (68, 67), False),
        ("192.0.2.1", "192.0.2.255", (137, 137), True),
        ("198.51.100.2", "224.0.0.251", (5353, 5353), False),
        ("fe80::1", "ff02::1:2", (546, 547), True),
        ("100.64.0.1", "192.0.2.1", (40000, 53), False),
        ("192.0.2.1", "198.51.100.2", (123, 123), True),
    ],
)
def test_ordinary_datagrams_are_not_suspicious(script, wire, source, destination, ports, sent):
    s = script(sent=sent)
    s >> wire.Path(source, destination, *ports).udp()
    assert s.answers.pop().startswith("#1 ")
    s.done()


@pytest.mark.parametrize(
    ("source", "destination", "kind"),
    [("::", "ff02::1:ff00:1", 135), ("::", "ff02::16", 143), ("::", "ff02::2", 133), ("fe80::1", "ff02::1", 134)],
)
def test_what_comes_before_an_address_is_not_suspicious(script, wire, source, destination, kind):
    s = script(sent=True)
    s >> wire.Path(source, destination).icmp(kind, rest=bytes(4), payload=bytes(16))
    assert [answer for answer in s.answers if "martian" in answer] == []
    assert " ICMPv6 type " in s.answers.pop()
    s.answers.clear()


def test_igmp_from_nobody_is_not_suspicious(script, wire):
    s = script(sent=True)
    s >> wire.Path("0.0.0.0", "224.0.0.22").ipv4(2, bytes(8)) << "#1 out IGMP 0.0.0.0 > 224.0.0.22 allow: default out"


@pytest.mark.parametrize("interface", ["lo", None])
@pytest.mark.parametrize("ends", [("127.0.0.1", "127.0.0.53"), ("::1", "::1")])
def test_loopback_talks_to_itself(script, wire, interface, ends):
    s = script(interface=interface)
    s >> wire.Path(*ends, 5000, 5000).udp()
    assert s.answers.pop().endswith("allow: base loopback")
    s.done()


def test_our_own_addresses_may_meet_on_loopback(script, wire):
    s = script(interface="lo", sent=False)
    s >> wire.Path(wire.here, wire.here, 22, 22).tcp("S")
    s << "#1 out TCP 192.0.2.1:22 > 192.0.2.1:22 allow: base loopback"


def test_a_suspicious_packet_is_still_judged(script, wire, policy):
    s = script(policy(inbound="allow"))
    s >> wire.Path("240.0.0.1", wire.here).udp() << "suspicious martian.reserved"
    s << "#1 in UDP 240.0.0.1:40000 > 192.0.2.1:443 allow: default in"


def test_only_the_first_packet_of_a_connection_is_suspicious(script, wire):
    s = script()
    s >> wire.Path("240.0.0.1", wire.here).udp() << "suspicious martian.reserved"
    s << "#1 in UDP 240.0.0.1:40000 > 192.0.2.1:443 block: default in"
    s >> wire.Path("240.0.0.1", wire.here).udp()
