from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Raw

from pfw.model.address import parse_address
from pfw.model.packet import Packet
from pfw.wire.capture import CaptureReader
from pfw.wire.draft import Draft
from pfw.wire.packet import decode, in_order

PORTS = st.integers(0, 65535)
PAYLOADS = st.binary(max_size=40)


def test_a_draft_becomes_a_packet_field_by_field():
    draft = Draft(b"", 0)
    for name in Packet.__struct_fields__:
        setattr(draft, name, name)
    draft.undecodable = False
    packet = draft.finish()
    for name in Packet.__struct_fields__:
        assert getattr(packet, name) == (name if name != "undecodable" else False)


@st.composite
def valid_packets(draw):
    """A whole packet as Scapy builds it, with what it was made of."""
    addresses = draw(st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)) | st.tuples(*[st.ip_addresses(v=6)] * 2))
    source, destination = map(str, addresses)
    network = IP if addresses[0].version == 4 else IPv6
    layers = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    for vlan in draw(st.lists(st.integers(0, 4095), max_size=3)):
        layers /= Dot1Q(vlan=vlan)
    layers /= network(src=source, dst=destination)
    if network is IPv6 and draw(st.booleans()):
        layers /= IPv6ExtHdrDestOpt(options=[])
    ports = {"sport": draw(PORTS), "dport": draw(PORTS)}
    kind = draw(st.sampled_from([TCP, UDP, SCTP]))
    if kind is TCP:
        options = draw(
            st.lists(st.sampled_from([("MSS", 1460), ("SAckOK", b""), ("WScale", 7), ("NOP", None)]), unique=True)
        )
        layers /= TCP(flags=draw(st.integers(0, 255)), options=options, **ports)
    else:
        layers /= kind(**ports)
    return layers / Raw(draw(PAYLOADS))


@given(valid_packets())
@settings(deadline=None, max_examples=150)
def test_scapy_reads_the_same(layers):
    frame = bytes(layers)
    packet = decode(1, frame, len(frame))
    check_against_scapy(packet, Ether(frame))
    assert set(packet.anomalies) <= {"decoder.ipv6.dstopts_only_padding"}
    assert in_order(packet) == (not packet.anomalies)


def check_against_scapy(packet, dissected):
    network = dissected.getlayer(IP) or dissected.getlayer(IPv6)
    assert packet.source == parse_address(network.src)
    assert packet.destination == parse_address(network.dst)
    assert packet.ttl == (network.ttl if isinstance(network, IP) else network.hlim)
    assert packet.vlans == tuple(layer.vlan for layer in dissected.iterpayloads() if isinstance(layer, Dot1Q))
    if packet.icmp_type is not None:
        return  # from here on Scapy's layers may be those of a quoted packet
    fragment = dissected.getlayer(IPv6ExtHdrFragment)
    if fragment:
        found = (packet.fragment.ident, packet.fragment.offset_bytes, packet.fragment.more)
        assert found == (fragment.id, fragment.offset * 8, bool(fragment.m))
    elif isinstance(network, IP) and (network.frag or network.flags.MF):
        found = (packet.fragment.ident, packet.fragment.offset_bytes, packet.fragment.more)
        assert found == (network.id, network.frag * 8, bool(network.flags.MF))
    else:
        assert packet.fragment is None
    if packet.key is None:
        return
    transport = next((network[kind] for kind in (TCP, UDP, SCTP) if kind in network), None)
    if transport is not None:
        assert (packet.source_port, packet.port) == (transport.sport, transport.dport)
        assert packet.tcp_flags == (int(transport.flags) & 255 if isinstance(transport, TCP) else 0)


def test_scapy_reads_the_same_in_real_captures(captures):
    count = 0
    for path in captures:
        for source, buffer, frames in islice(CaptureReader().feed(path.read_bytes()), 2):
            for _, at, end, size in frames[:60]:
                packet = decode(source.linktype, buffer[at:end], size)
                if source.linktype == 1 and packet.source and not packet.undecodable:
                    check_against_scapy(packet, Ether(buffer[at:end]))
                    count += 1
    assert count > 1000


@pytest.mark.parametrize("size", [-1, 0, 10, 1 << 80])
def test_any_size_is_taken(make, size):
    frame = make.ethernet(make.ipv4(make.tcp()))
    assert in_order(decode(1, frame, size))
    assert in_order(decode(1, memoryview(frame), size))
