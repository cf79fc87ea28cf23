"""What messages say: made by Scapy, out of real captures, and hostile."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRROPT
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Dot1Q, Ether

from pfw.model.address import parse_address
from pfw.model.event import Source
from pfw.model.observation import DhcpSeen, DnsSeen, EchoSeen, NeighbourSeen, Odd, RouterSeen
from pfw.wire.capture import CaptureReader
from pfw.wire.dhcp import read_dhcp
from pfw.wire.dns_message import RECORDS_MAX, read_message
from pfw.wire.echo import is_pattern
from pfw.wire.error import WireError
from pfw.wire.observe import DHCP as DHCP_FORMAT
from pfw.wire.observe import DNS as DNS_FORMAT
from pfw.wire.observe import ECHO, NEIGHBOUR, look_into, observe, tcp_numbers, what_is
from pfw.wire.scan import scan

ETHERNET = 1
NOON = 1_795_392_000.0
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
MAC = bytes.fromhex("020000000001")
CLIENT, SERVER = "192.0.2.1", "198.51.100.2"
A, B = parse_address(CLIENT), parse_address(SERVER)


def seen(packet, size=None):
    frame = bytes(Ether(**MACS) / packet)
    return observe(ETHERNET, frame, size or len(frame), NOON)


def key(packet):
    frame = bytes(Ether(**MACS) / packet)
    return scan(Source(ETHERNET), frame, [(NOON, 0, len(frame), len(frame))])[0][0]


def asked(name=b"www.Example.COM", **fields):
    return IP(src=CLIENT, dst=SERVER) / UDP(sport=40000, dport=53) / DNS(qd=DNSQR(qname=name, **fields))


def answered(*records, **fields):
    section = list(records)
    dns = DNS(qr=1, qd=DNSQR(qname=b"www.example.com"), an=section, **fields)
    return IP(src=SERVER, dst=CLIENT) / UDP(sport=53, dport=40000) / dns


def test_a_question():
    assert seen(asked(qtype="TXT")) == DnsSeen(
        time=NOON, client=A, server=B, is_answer=False, name="www.example.com", kind=16, size_bytes=33
    )


def test_an_answer():
    record = DNSRR(rrname=b"www.example.com", rdata="203.0.113.1")
    found = seen(answered(record, record, rcode=0))
    assert (found.client, found.server, found.is_answer) == (A, B, True)
    assert (found.name, found.kind, found.code, found.answers) == ("www.example.com", 1, 0, 2)
    assert (found.size_bytes, found.answer_bytes) == (33 + 2 * 31, 2 * 31)


def test_no_such_name():
    assert seen(answered(rcode=3)).code == 3


def test_records_of_all_sections_are_walked():
    packet = asked()
    packet[DNS].ar = DNSRROPT()
    assert seen(packet).answer_bytes == 11


def test_between_two_servers_the_message_tells_who_answers():
    question, answer = asked(), answered()
    question[UDP].sport = answer[UDP].dport = 53
    assert (seen(question).client, seen(question).server) == (A, B)
    assert (seen(answer).client, seen(answer).server) == (A, B)


def test_a_name_of_any_bytes_has_its_length():
    labels = [bytes(range(1, 64)), bytes(range(160, 223)), bytes(range(190, 253))]
    payload = struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0)
    payload += b"".join(bytes((len(each),)) + each for each in labels) + b"\0" + struct.pack(">HH", 10, 1)
    name = read_message(payload).name
    assert len(name) == 63 * 3 + 2
    assert name == b".".join(labels).lower().decode("latin-1")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(11),
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0),
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\x03www",
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
        struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\0\0\1",
        struct.pack(">HHHHHH", 1, 0, 0, 1, 0, 0),
        struct.pack(">HHHHHH", 1, 0x8000, 0, 1, 0, 0) + b"\0" + struct.pack(">HHIH", 1, 1, 0, 4) + bytes(3),
    ],
)
def test_broken_dns(payload):
    with pytest.raises(WireError):
        read_message(payload)
    with pytest.raises(WireError):
        seen(IP(src=CLIENT, dst=SERVER) / UDP(sport=40000, dport=53) / payload)


def test_an_answer_that_its_sender_cut_is_none():
    cut = struct.pack(">HHHHHH", 1, 0x8200, 0, 5, 0, 0)
    assert read_message(cut).answers == 5


def test_what_the_capture_or_a_fragment_cut_is_not_broken():
    packet = answered(DNSRR(rrname=b"www.example.com", rdata="203.0.113.1"))
    frame = bytes(Ether(**MACS) / packet)
    assert observe(ETHERNET, frame[:60], len(frame), NOON) is None
    packet[IP].flags = "MF"
    packet[UDP].remove_payload()
    packet = packet / struct.pack(">HHHHHH", 1, 0x8000, 0, 1, 0, 0)
    assert seen(packet) is None


def test_no_more_records_than_there_may_be_are_walked():
    payload = (
        struct.pack(">HHHHHH", 1, 0x8000, 0, 0xFFFF, 0, 0) + (b"\0" + struct.pack(">HHIH", 1, 1, 0, 0)) * RECORDS_MAX
    )
    assert read_message(payload).answers == 0xFFFF


def dhcp(*options, **fields):
    head = IP(src=SERVER, dst="255.255.255.255") / UDP(sport=67, dport=68)
    return head / BOOTP(op=2, chaddr=MAC + bytes(10), **fields) / DHCP(options=[*options, "end"])


def test_a_lease_that_is_offered():
    options = (("message-type", "offer"), ("server_id", SERVER), ("router", "192.0.2.254", "192.0.2.253"),
               ("name_server", "192.0.2.53"))  # fmt: skip
    assert seen(dhcp(*options, yiaddr=CLIENT)) == DhcpSeen(
        time=NOON,
        source=B,
        source_mac=MAC,
        kind=2,
        client_mac=MAC,
        offered=A,
        server=B,
        routers=(parse_address("192.0.2.254"), parse_address("192.0.2.253")),
        name_servers=(parse_address("192.0.2.53"),),
    )


def test_a_client_asks():
    head = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)
    packet = head / BOOTP(chaddr=MAC + bytes(10)) / DHCP(options=[("message-type", "discover"), "pad", "end"])
    found = seen(packet)
    assert (found.kind, found.client_mac, found.offered, found.server) == (1, MAC, None, None)


def test_bootp_is_none():
    assert seen(IP() / UDP(sport=68, dport=67) / BOOTP() / bytes(64)) is None
    assert seen(dhcp(("router", "192.0.2.254"))) is None


def test_options_in_parts_are_one():
    payload = bytes(dhcp(("message-type", "ack"))[BOOTP])
    whole = payload[:-1] + b"\x06\x02\xc0\x00" + b"\x06\x02\x02\x35" + b"\xff"
    assert read_dhcp(whole).name_servers == (parse_address("192.0.2.53"),)


@pytest.mark.parametrize("options", [b"\x35", b"\x35\x02\1\1", b"\x35\x01\1\x36\x03abc", b"\x35\x01\1\x06\x09abc"])
def test_broken_dhcp(options):
    payload = bytes(dhcp()[BOOTP])[:240] + options
    with pytest.raises(WireError):
        read_dhcp(payload)


LINK = IPv6(src="fe80::1", dst="ff02::1", hlim=255)


def test_a_router():
    prefix = ICMPv6NDOptPrefixInfo(prefix="2001:db8:1::", prefixlen=64)
    servers = ICMPv6NDOptRDNSS(dns=["2001:db8::53", "2001:db8::54"])
    packet = (
        LINK / ICMPv6ND_RA(routerlifetime=1800, prf=1) / ICMPv6NDOptSrcLLAddr(lladdr=MACS["src"]) / prefix / servers
    )
    assert seen(packet) == RouterSeen(
        time=NOON,
        source=parse_address("fe80::1"),
        source_mac=MAC,
        hop_limit=255,
        lifetime_s=1800,
        preference=1,
        prefixes=((parse_address("2001:db8:1::"), 64),),
        name_servers=(parse_address("2001:db8::53"), parse_address("2001:db8::54")),
    )


@pytest.mark.parametrize(("bits", "preference"), [(0, 0), (1, 1), (2, 0), (3, -1)])
def test_preferences_of_routers(bits, preference):
    assert seen(LINK / ICMPv6ND_RA(prf=bits)).preference == preference


@pytest.mark.parametrize(
    ("interface", "tags", "link"),
    [(None, (), ""), ("eth0", (), "eth0"), (None, (10,), "10"), ("eth0", (10, 7), "eth0 10 7")],
)
def test_links(interface, tags, link):
    frame = Ether(**MACS)
    for each in tags:
        frame /= Dot1Q(vlan=each)
    lease = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / BOOTP(chaddr=MAC)
    for packet in (
        LINK / ICMPv6ND_RA(),
        LINK / ICMPv6ND_NS(tgt="2001:db8::7"),
        lease / DHCP(options=[("message-type", "discover"), "end"]),
    ):
        tagged = bytes(frame / packet)
        assert observe(ETHERNET, tagged, len(tagged), NOON, interface).link == link


def test_neighbours():
    target = "2001:db8::7"
    question = seen(LINK / ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=MACS["dst"]))
    answer = seen(LINK / ICMPv6ND_NA(tgt=target, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=MACS["dst"]))
    ends = {"source": parse_address("fe80::1"), "destination": parse_address("ff02::1"), "source_mac": MAC}
    mac = bytes.fromhex("020000000002")
    common = {"time": NOON, **ends, "target": parse_address(target), "mac": mac}
    assert question == NeighbourSeen(**common, is_answer=False)
    assert answer == NeighbourSeen(**common, is_answer=True, override=True, solicited=True)
    assert seen(LINK / ICMPv6ND_RS()) is None


@pytest.mark.parametrize("option", [b"\x01\x00" + bytes(6), b"\x01\x02" + bytes(6), b"\x01"])
def test_broken_neighbours(option):
    with pytest.raises(WireError):
        seen(LINK / ICMPv6ND_NS() / option)


def test_echo():
    ends = {"time": NOON, "source": A, "destination": B}
    asked = seen(IP(src=CLIENT, dst=SERVER) / ICMP(type=8, id=7, seq=9) / bytes(range(56)))
    assert (asked.is_request, asked.identifier, asked.sequence, asked.payload_bytes) == (True, 7, 9, 56)
    assert (asked.time, asked.source, asked.destination) == tuple(ends.values())
    replied = seen(IP(src=CLIENT, dst=SERVER) / ICMP(type=0, id=7, seq=9) / bytes(range(56)))
    assert not replied.is_request
    assert replied.digest == asked.digest != seen(IP() / ICMP() / bytes(56)).digest
    assert isinstance(seen(IPv6() / ICMPv6EchoRequest(data=b"x")), EchoSeen)
    assert not seen(IPv6() / ICMPv6EchoReply()).is_request


TIME = bytes.fromhex("9a0b5f6500000000a1b2030000000000")
COUNTING = bytes(range(256)) * 8


@pytest.mark.parametrize("payload", [
    b"", TIME, TIME + COUNTING[16:56], TIME[:8] + COUNTING[8:56], TIME + COUNTING[16:1472],
    b"abcdefghijklmnopqrstuvwabcdefghi", TIME[:4] + bytes(52), bytes(56), b"\xab\xcd" * 36, TIME + b"X" * 100,
    TIME + b"\xde\xad\xbe\xef" * 12,
])  # fmt: skip
def test_what_ping_programs_send(payload):
    assert is_pattern(payload)


@pytest.mark.parametrize("payload", [
    b"GET / HTTP/1.1\r\nHost: example.com\r\n", b"SSH-2.0-OpenSSH_9.2p1 Debian-2",
    bytes.fromhex("d5200880") + bytes(range(200, 230)) + b"secret", TIME * 4 + b"!",
])  # fmt: skip
def test_what_they_do_not_send(payload):
    assert not is_pattern(payload)


def test_what_is_of_interest_is_told_by_the_key():
    assert what_is(key(asked())) == what_is(key(answered())) == DNS_FORMAT
    assert what_is(key(dhcp())) == DHCP_FORMAT
    assert what_is(key(LINK / ICMPv6ND_RA())) == what_is(key(LINK / ICMPv6ND_NA())) == NEIGHBOUR
    assert what_is(key(IP() / ICMP())) == what_is(key(IPv6() / ICMPv6EchoReply())) == ECHO
    others = (IP() / TCP(dport=53), IP() / UDP(sport=5353, dport=5353), IP() / ICMP(type=3), IPv6() / TCP(dport=53))
    assert [what_is(key(each)) for each in others] == [None] * 4
    assert what_is(key(IP() / UDP(sport=53 << 8, dport=67 << 8))) is None


@pytest.mark.parametrize("layer", [IP(), IPv6()])
def test_numbers_of_tcp(layer):
    frame = bytes(Ether(**MACS) / layer / TCP(seq=0xFFFFFFFF, ack=5, flags="A"))
    assert tcp_numbers(ETHERNET, frame, len(frame)) == (0xFFFFFFFF, 5)
    assert tcp_numbers(ETHERNET, frame[: len(frame) - 9], len(frame)) is None
    assert tcp_numbers(ETHERNET, bytes(Ether(**MACS) / layer / UDP()), 50) is None
    assert tcp_numbers(147, frame, len(frame)) is None


def test_real_captures_have_no_broken_message_but_where_they_should(captures):
    broken = set()
    kinds = set()
    for path in captures:
        for source, buffer, frames in CaptureReader().feed(path.read_bytes()):
            for item in scan(source, buffer, frames):
                if item[0] is None or what_is(item[0]) is None:
                    continue
                try:
                    kinds.add(type(observe(source.linktype, bytes(buffer[item[4] : item[5]]), item[2], item[1])))
                except WireError:
                    broken.add(path.name)
    assert {DnsSeen, DhcpSeen, EchoSeen} <= kinds
    assert {name for name in broken if not name.startswith("malformed")} == set()


@given(payload=st.binary(max_size=300), ports=st.sampled_from([(53, 4000), (4000, 53), (67, 68), (68, 67)]))
@settings(max_examples=400, deadline=None)
def test_datagrams_raise_nothing_else(payload, ports):
    frame = bytes(Ether(**MACS) / IP() / UDP(sport=ports[0], dport=ports[1]) / payload)
    with contextlib.suppress(WireError):
        observe(ETHERNET, frame, len(frame), NOON)


@given(payload=st.binary(min_size=1, max_size=120), following=st.sampled_from([1, 58]), cut=st.integers(0, 60))
@settings(max_examples=400, deadline=None)
def test_icmp_raises_nothing_else(payload, following, cut):
    layer = IP(proto=1) if following == 1 else IPv6(nh=58)
    frame = bytes(Ether(**MACS) / layer / payload)
    for kind in (*payload[:1], 0, 8, 128, 129, 134, 135, 136):
        at = len(frame) - len(payload)
        changed = frame[:at] + bytes((kind,)) + frame[at + 1 :]
        with contextlib.suppress(WireError):
            observe(ETHERNET, changed[: len(changed) - cut], len(changed), NOON)


@given(st.binary(max_size=200), st.sampled_from([0, 1, 101, 113, 228, 229, 276, 147]))
@settings(max_examples=300, deadline=None)
def test_any_frame_raises_nothing_else(frame, linktype):
    tcp_numbers(linktype, frame, len(frame))
    with contextlib.suppress(WireError):
        observe(linktype, frame, len(frame), NOON)


@given(st.binary(max_size=200), st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_dns_and_dhcp_bodies_raise_nothing_else(body, options):
    with contextlib.suppress(WireError):
        read_message(struct.pack(">HHHHHH", 1, 0x8180, 1, 1, 1, 1) + body)
    with contextlib.suppress(WireError):
        read_dhcp(bytes(dhcp()[BOOTP])[:240] + options)


def test_a_message_that_is_none_of_its_kind_is_odd():
    for payload, names in ((b"\0" * 5, ("dns.malformed",)), (b"\0" * 11, ("dns.malformed",))):
        packet = IP(src=CLIENT, dst=SERVER) / UDP(sport=4000, dport=53) / payload
        frame = bytes(Ether(**MACS) / packet)
        assert look_into(ETHERNET, frame, len(frame), NOON, key(packet)) == Odd(NOON, A, B, 17, names)
    packet = IP(src=CLIENT, dst=SERVER) / TCP(dport=53)
    assert look_into(ETHERNET, bytes(Ether(**MACS) / packet), 54, NOON, key(packet)) is None
