"""The filter's program, run by an interpreter made for the test, against what the decoder says of the same packets."""

from __future__ import annotations

import random
import struct

import pytest
from tests.wire.classic_bpf import ARPHRD_ETHER, ARPHRD_LOOPBACK, ARPHRD_NONE, ARPHRD_TUNNEL, run, steps

from pfw.model.packet import ACK, FIN, ICMP, ICMPV6, PSH, RST, SYN, TCP, UDP, URG
from pfw.wire import packet_filter
from pfw.wire.capture import CaptureReader
from pfw.wire.link import VLAN_TAGS
from pfw.wire.packet import decode
from pfw.wire.packet_filter import CARRIERS, Assembler, special_packets

ETHERNET, RAW = 1, 101
SEED = 20_240_229
PROGRAM = special_packets()


def is_odd(flags):
    begins = flags & (SYN | ACK | RST)
    return not begins or flags & (SYN | FIN) == SYN | FIN or (flags & RST and bool(flags & (SYN | FIN)))


def is_special(packet):
    """The same in the words of the decoder; None for what they do not tell."""
    if packet.arp is not None:
        return True
    if packet.source is None or packet.undecodable:
        return None
    if (packet.source[0] == 127 and len(packet.source) == 4) or packet.source == bytes(15) + b"\1":
        return True
    if packet.fragment is not None:
        return True
    if packet.protocol == TCP:
        return bool(is_odd(packet.tcp_flags))
    if packet.protocol == UDP:
        return bool({packet.source_port, packet.port} & {53, 67, 68, 546, 547})
    if packet.protocol in (ICMP, ICMPV6):
        return packet.protocol == ICMP or packet.icmp_type not in (130, 131, 132, 143)
    return packet.protocol not in CARRIERS


def chains(ip):
    """How many extension headers stand before the transport header; such as the filter counts."""
    if ip[0] >> 4 != 6:
        return 0
    following, at, count = ip[6], 40, 0
    while following in (0, 43, 44, 60) and at + 1 < len(ip):
        following, at = ip[at], at + (8 if following == 44 else (ip[at + 1] + 1) * 8)
        count += 1
    return count


def agrees(linktype, frame, size):
    """Whether both say the same; whether they said anything."""
    packet = decode(linktype, frame, size)
    if linktype == ETHERNET and int.from_bytes(frame[12:14]) in VLAN_TAGS | {0x8864}:
        return False
    ip = frame[14:] if linktype == ETHERNET else frame
    expected = is_special(packet)
    if expected is None or (not packet.arp and chains(ip) > 1):
        return False
    hardware = ARPHRD_ETHER if linktype == ETHERNET else ARPHRD_NONE
    ethertype = 0x0800 if ip[:1] and ip[0] >> 4 == 4 else 0x86DD
    assert bool(run(PROGRAM, frame, hardware, ethertype)) is expected, (packet, frame.hex())
    return True


def sent(make, kind, *, version=4, bare=False, **options):
    """A frame with some transport header."""
    payload, protocol = kind
    ip = make.ipv4(payload, protocol, **options) if version == 4 else make.ipv6(payload, protocol, **options)
    return ip if bare else make.ethernet(ip, 0x0800 if version == 4 else 0x86DD)


def ports(source, destination):
    return struct.pack(">HHHH", source, destination, 8, 0)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("bare", [False, True])
def test_flags_of_tcp(make, version, bare):
    device = (ARPHRD_NONE if bare else ARPHRD_ETHER), 0x0800 if version == 4 else 0x86DD
    for flags in range(256):
        frame = sent(make, (make.tcp(b"data", flags=flags), 6), version=version, bare=bare)
        assert bool(run(PROGRAM, frame, *device)) == bool(is_odd(flags)), flags


def test_the_flags_by_name():
    for flags in (0, FIN, FIN | PSH | URG, SYN | FIN, SYN | RST, FIN | RST, PSH, URG):
        assert is_odd(flags)
    for flags in (SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, FIN | PSH | ACK, RST, RST | ACK, URG | ACK):
        assert not is_odd(flags)


@pytest.mark.parametrize("version", [4, 6])
def test_ports_of_udp(make, version):
    wanted = {53: 2048, 67: 9216, 68: 9216, 546: 9216, 547: 9216}
    for port in (*wanted, 52, 54, 66, 69, 443, 545, 548, 5353, 13_568):
        for pair in ((port, 40_000), (40_000, port)):
            assert run(PROGRAM, sent(make, (ports(*pair), 17), version=version)) == wanted.get(port, 0)


@pytest.mark.parametrize("version", [4, 6])
def test_protocols(make, version):
    taken = {number for number in range(256) if run(PROGRAM, sent(make, (make.tcp(bytes(8)), number), version=version))}
    assert not taken & {TCP, UDP, *CARRIERS}
    # With TCP's header behind them extension headers are none of TCP's business here: they are passed over.
    assert set(range(256)) - taken - {TCP, UDP, *CARRIERS} <= ({0, 43, 60} if version == 6 else set())


def test_types_of_icmpv6(make):
    for kind in range(256):
        message = make.icmp(kind)
        behind_options = b"\x3a\0\x05\x02\0\0\x01\0" + message
        for body, following in ((message, 58), (behind_options, 0)):
            taken = run(PROGRAM, sent(make, (body, following), version=6))
            assert bool(taken) is (kind not in (130, 131, 132, 143)), kind


@pytest.mark.parametrize("kind", range(133, 138))
def test_routers_and_neighbours_are_taken_whole_behind_whatever_headers(make, kind):
    message = make.icmp(kind) + bytes(3_000)
    for headers in range(4):
        body, following = message, 58
        for _ in range(headers):
            body, following = bytes((following, 0, 1, 4)) + bytes(4) + body, 60
        assert run(PROGRAM, sent(make, (body, following), version=6)) == 9216, headers


@pytest.mark.parametrize("words", range(5, 16))
def test_options_of_ipv4_are_passed_over(make, words):
    options = b"\x01" * (words - 5) * 4
    assert not run(PROGRAM, sent(make, (make.tcp(flags=ACK), 6), options=options))
    assert run(PROGRAM, sent(make, (make.tcp(flags=FIN), 6), options=options))
    assert run(PROGRAM, sent(make, (ports(53, 4000), 17), options=options))


@pytest.mark.parametrize("extension", [0, 43, 60])
@pytest.mark.parametrize("eights", [0, 1, 5, 255])
def test_one_extension_header_is_passed_over(make, extension, eights):
    for flags in (ACK, FIN):
        chain = bytes((6, eights)) + bytes(eights * 8 + 6) + make.tcp(flags=flags)
        assert bool(run(PROGRAM, sent(make, (chain, extension), version=6))) is (flags == FIN)
        twice = bytes((60, 0)) + bytes(6) + chain
        assert run(PROGRAM, sent(make, (twice, extension), version=6))


def test_fragments(make):
    for field, is_fragment in ((0x4000, False), (0, False), (0x8000, False), (0x2000, True), (1, True), (0x3FFF, True)):
        assert bool(run(PROGRAM, sent(make, (make.tcp(flags=ACK), 6), fragment=field))) is is_fragment
    assert run(PROGRAM, sent(make, (bytes((6, 0, 0, 9)) + bytes(4) + make.tcp(flags=ACK), 44), version=6))


@pytest.mark.parametrize(
    ("source", "taken"),
    [
        ("7f000001", True),
        ("7fffffff", True),
        ("7e000001", False),
        ("80000001", False),
        ("0" * 31 + "1", True),
        ("0" * 32, False),
        ("0" * 31 + "2", False),
        ("0" * 20 + "ffff7f000001", False),
        ("0" * 8 + "00000001" + "0" * 15 + "1", False),
    ],
)
def test_loopback_addresses_on_the_wire(make, source, taken):
    source = bytes.fromhex(source)
    version = 4 if len(source) == 4 else 6
    frame = bytearray(sent(make, (make.tcp(flags=ACK), 6), version=version))
    place = 14 + (12 if version == 4 else 8)
    frame[place : place + len(source)] = source
    assert bool(run(PROGRAM, bytes(frame))) is taken


def test_devices_and_tags(make):
    frame = make.ethernet(make.ipv4(make.icmp(8), 1))
    arp = make.ethernet(b"\0\1\x08\0\6\4\0\1" + bytes(20), 0x0806)
    assert run(PROGRAM, frame)
    assert run(PROGRAM, arp) == 512
    assert not run(PROGRAM, frame, ARPHRD_LOOPBACK)
    assert run(PROGRAM, frame, tag=0xE000), "a priority, no VLAN"
    assert not run(PROGRAM, frame, tag=7)
    assert not run(PROGRAM, make.ethernet(make.ipv4(make.icmp(8), 1), 0x0800, ((0x8100, 7),)))
    for hardware in (ARPHRD_NONE, ARPHRD_TUNNEL, 512):
        assert run(PROGRAM, frame[14:], hardware, 0x0800)
        assert not run(PROGRAM, frame[14:], hardware, 0x86DD), "the version does not fit"
        assert not run(PROGRAM, frame[14:], hardware, 0x0806)


def test_other_frames_and_short_ones_stay(make):
    for ethertype in (0x0026, 0x88CC, 0x8863, 0x888E):
        assert not run(PROGRAM, make.ethernet(make.ipv4(make.icmp(8), 1), ethertype))
    whole = make.ethernet(make.ipv4(make.icmp(8), 1))
    assert [cut for cut in range(24) if run(PROGRAM, whole[:cut])] == []


def test_established_tcp_costs_little(make):
    for version in (4, 6):
        frame = sent(make, (make.tcp(bytes(1400), flags=ACK), 6), version=version)
        taken, count = steps(PROGRAM, frame)
        assert (taken, count <= 24) == (0, True)


def test_it_agrees_with_the_decoder_on_real_captures(captures):
    compared = taken = 0
    for path in captures:
        for source, buffer, frames in CaptureReader().feed(path.read_bytes()):
            if source.linktype not in (ETHERNET, RAW):
                continue
            for _, at, end, size in frames:
                compared += agrees(source.linktype, bytes(buffer[at:end]), size)
                taken += bool(run(PROGRAM, bytes(buffer[at:end])))
    assert compared > 40_000
    assert taken > 2_000


@pytest.mark.parametrize("linktype", [ETHERNET, RAW])
def test_it_agrees_with_the_decoder_on_made_up_packets(make, linktype):
    chance = random.Random(SEED)
    compared = sum(agrees(linktype, frame, len(frame)) for frame in made_up(make, chance, linktype, 6_000))
    assert compared > 3_000


def made_up(make, chance, linktype, count):
    """Packets of all kinds, some with bytes changed."""
    for _ in range(count):
        version = chance.choice((4, 6))
        body, protocol = chance.choice((
            (make.tcp(b"x" * 9, flags=chance.choice((0x10, 0x18, chance.randrange(256)))), 6),
            (ports(chance.choice((53, 67, 4000)), chance.choice((53, 68, 547, 443))), 17),
            (make.icmp(chance.choice((8, 3, 11, 128, 135, 143, chance.randrange(256)))), chance.choice((1, 58))),
            (bytes(24), chance.randrange(256)),
        ))  # fmt: skip
        if version == 6 and chance.random() < 0.3:
            body, protocol = bytes((protocol, 0, 1, 4)) + bytes(4) + body, chance.choice((0, 43, 44, 60))
        options = {} if version == 6 else {"fragment": chance.choice((0x4000, 0, 0x2000, 5))}
        frame = bytearray(sent(make, (body, protocol), version=version, bare=linktype == RAW, **options))
        for _ in range(chance.choice((0, 0, 1, 2))):
            frame[chance.randrange(len(frame))] = chance.choice((0, 1, 127, chance.randrange(256)))
        yield bytes(frame)


def test_random_bytes_end_the_program():
    chance = random.Random(SEED)
    for _ in range(3_000):
        frame = chance.randbytes(chance.randrange(100))
        taken = run(PROGRAM, frame, chance.choice((1, 772, 0xFFFE)), chance.choice((0x0800, 0x86DD)))
        assert taken in (0, 512, 2048, 9216)


def test_the_assembler_refuses_what_it_cannot_say():
    far = Assembler()
    far.equal(1, "there")
    for _ in range(256):
        far.take(0)
    far.label("there")
    far.take(1)
    with pytest.raises(ValueError, match="jumps 256"):
        far.program()
    back = Assembler()
    back.label("here")
    back.equal(1, "here")
    with pytest.raises(ValueError, match="jumps -1"):
        back.program()


def test_the_kernel_takes_so_long_a_program():
    assert len(PROGRAM) < 4096
    assert packet_filter.SNAP_BYTES < packet_filter.NAMES_SNAP_BYTES < packet_filter.WHOLE_BYTES
