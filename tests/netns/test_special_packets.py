"""What comes of real packets on real devices, and what of them never leaves the kernel."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6ND_RA, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from tests.wire.classic_bpf import run

from pfw.daemon.special_packets import INTERFACES_MAX, LOOPBACK_SOURCE, PASSING_MAX, PASSING_S, Passing, SpecialPackets
from pfw.model.address import format_address, parse_address
from pfw.model.observation import (
    ArpSeen,
    DhcpSeen,
    DnsSeen,
    EchoSeen,
    NeighbourSeen,
    Odd,
    ProtocolTried,
    Reply,
    RouterSeen,
    Stray,
)
from pfw.model.packet import FIN, PSH, URG
from pfw.wire.capture import CaptureReader
from pfw.wire.packet_filter import special_packets

STRANGER, STRANGER_MAC = "10.77.0.9", "02:00:00:00:00:09"
TO_HERE = {"src": STRANGER_MAC, "dst": "ff:ff:ff:ff:ff:ff"}


class Reader:
    """Special packets of a namespace, read there."""

    def __init__(self, namespace):
        self.namespace = namespace
        self.answers = []
        self.quoted = []
        self.told = []
        self.packets = namespace.call(
            lambda: SpecialPackets(lambda answer, _: self.answers.append(answer), self.quoted.append)
        )

    def read(self):
        self.told += self.namespace.call(self.packets.read)
        return self.told

    def until(self, true, seconds=5.0):
        """Read until this is so."""
        deadline = time.monotonic() + seconds
        while not true() and time.monotonic() < deadline:
            self.read()
            time.sleep(0.01)
        assert true(), self.told

    def of(self, kind, source=STRANGER):
        return [each for each in self.told if isinstance(each, kind) and source_of(each) == parse_address(source)]


def source_of(seen):
    if isinstance(seen, ArpSeen):
        return seen.arp.sender
    return seen.client if isinstance(seen, DnsSeen) else seen.source


@pytest.fixture
def reader(pair):
    with contextlib.closing(Wire(pair.there)) as wire:
        each = Reader(pair.here)
        each.wire = wire
        yield each
        each.packets.close()


class Wire:
    """Puts frames on the cable as they are."""

    def __init__(self, namespace, device="eth0"):
        self.sock = namespace.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        namespace.call(lambda: self.sock.bind((device, 0)))

    def put(self, *frames):
        for frame in frames:
            self.sock.send(bytes(frame))

    def close(self):
        self.sock.close()


def stranger(*layers):
    packet = Ether(**TO_HERE)
    for layer in layers:
        packet /= layer
    return packet


def test_what_neighbours_tell(reader):
    reader.wire.put(
        stranger(ARP(op=2, hwsrc=STRANGER_MAC, psrc=STRANGER, pdst="10.77.0.1")),
        stranger(IPv6(src="fe80::9", dst="ff02::1", hlim=255), ICMPv6ND_RA(routerlifetime=1800)),
        stranger(IPv6(src="fe80::9", dst="ff02::1:ff00:1", hlim=255), ICMPv6ND_NS(tgt="fd77::1")),
        stranger(
            IP(src=STRANGER, dst="255.255.255.255"),
            UDP(sport=67, dport=68),
            BOOTP(op=2, chaddr=bytes(6), yiaddr="10.77.0.50"),
            DHCP(options=[("message-type", "offer"), ("server_id", STRANGER), "end"]),
        ),
    )
    reader.until(lambda: len(reader.of(DhcpSeen)) == 1)
    (arp,) = reader.of(ArpSeen)
    assert (arp.arp.operation, arp.source_mac) == (2, bytes.fromhex("020000000009"))
    assert [each.lifetime_s for each in reader.of(RouterSeen, "fe80::9")] == [1800]
    assert [format_address(each.target) for each in reader.of(NeighbourSeen, "fe80::9")] == ["fd77::1"]
    assert reader.of(DhcpSeen)[0].kind == 2


def test_probes(reader):
    def to(port, flags):
        return stranger(IP(src=STRANGER, dst="10.77.0.1"), TCP(sport=4444, dport=port, flags=flags))

    reader.wire.put(to(1, "S"), to(2, "A"), to(3, "PA"), to(4, "R"), to(5, "SA"), to(6, "FA"))
    reader.wire.put(to(21, ""), to(22, "F"), to(23, "FPU"), to(24, "SF"))
    reader.wire.put(stranger(IP(src=STRANGER, dst="10.77.0.1", proto=200), b"x" * 20))
    reader.wire.put(stranger(IP(src=STRANGER, dst="10.77.0.1", proto=200), b"again"))
    reader.wire.put(stranger(IP(src=STRANGER, dst="10.77.0.1"), ICMP(id=7, seq=1), b"payload"))
    reader.wire.put(stranger(IPv6(src="fd77::9", dst="fd77::1"), ICMPv6EchoRequest(id=8), b"payload"))
    reader.until(lambda: reader.of(EchoSeen, "fd77::9"))
    strays = [(each.port, each.flags) for each in reader.of(Stray)]
    assert strays == [(21, 0), (22, FIN), (23, FIN | PSH | URG), (24, 3)]
    assert [each.protocol for each in reader.of(ProtocolTried)] == [200]
    assert [each.identifier for each in reader.of(EchoSeen)] == [7]


def test_fragments_that_overlap(reader):
    data = bytes(64)
    for version in (4, 6):
        for start, more in ((0, 1), (5, 0)):
            if version == 4:
                ip = IP(src=STRANGER, dst="10.77.0.1", id=99, frag=start, flags=more, proto=17)
                reader.wire.put(stranger(ip, data))
            else:
                ip = IPv6(src="fd77::9", dst="fd77::1") / IPv6ExtHdrFragment(offset=start, m=more, id=9, nh=17)
                reader.wire.put(stranger(ip, data))
    reader.until(lambda: reader.of(Odd, "fd77::9"))
    for source in (STRANGER, "fd77::9"):
        assert "overlap" in {name for each in reader.of(Odd, source) for name in each.names}


@pytest.mark.parametrize(("source", "target"), [("127.0.0.5", "10.77.0.1"), ("::1", "fd77::1")])
def test_loopback_addresses_on_a_cable(reader, source, target):
    ip = (IPv6 if ":" in source else IP)(src=source, dst=target)
    reader.wire.put(stranger(ip, TCP(sport=1, dport=80, flags="PA"), b"x"))
    reader.until(lambda: reader.of(Odd, source))
    assert reader.of(Odd, source)[0].names == (LOOPBACK_SOURCE,)


def test_loopback_itself_is_left_out(reader, pair):
    pair.here.run("ping", "-c1", "127.0.0.1")
    pair.here.run("ping", "-c1", "10.77.0.2")
    reader.until(lambda: reader.of(EchoSeen, "10.77.0.1"))
    assert not reader.of(EchoSeen, "127.0.0.1")
    assert not reader.of(Odd, "127.0.0.1")


def test_a_refused_datagram_is_quoted(reader, pair, net):
    net.send(pair.here, net.there, 999)
    reader.until(lambda: reader.quoted)
    (error,) = reader.quoted
    assert (error.reply, error.source) == (Reply.REFUSED, parse_address(net.there))
    assert error.key[:1] == b"\x11"
    assert error.key[1:9] == parse_address(net.here) + parse_address(net.there)
    assert error.key[-2:] == (999).to_bytes(2)


def answer(question, address):
    asked = DNS(question)
    record = DNSRR(rrname=asked.qd[0].qname, ttl=60, rdata=address)
    return bytes(DNS(id=asked.id, qr=1, qd=[asked.qd[0]], an=[record]))


def test_names_are_learnt_from_answers_to_our_own_questions(reader, pair, net):
    question = bytes(DNS(id=77, qd=[DNSQR(qname="www.example.com")]))
    forged = bytes(DNS(id=77, qd=[DNSQR(qname="forged.example.com")]))
    with (
        pair.there.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server,
        pair.here.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client,
    ):
        server.bind((net.there, 53))
        client.bind((net.here, 0))
        server.sendto(answer(forged, "192.0.2.66"), client.getsockname())
        client.sendto(question, (net.there, 53))
        _, who = server.recvfrom(999)
        server.sendto(answer(question, "192.0.2.80"), who)
        server.sendto(b"\0\1\x81\x80\0\1\0\1\0\0\0\0\x3fshort", who)
        reader.until(lambda: reader.packets.unreadable)
    assert [each.name for each in reader.answers] == ["www.example.com"]
    assert [each.packed for each in reader.answers[0].addresses] == [parse_address("192.0.2.80")]
    names = [(each.name, each.is_answer) for each in reader.told if isinstance(each, DnsSeen)]
    assert names == [("forged.example.com", True), ("www.example.com", False), ("www.example.com", True)]


@pytest.mark.parametrize("family", [4, 6])
def test_what_a_connection_carries_stays_in_the_kernel(reader, pair, net, family):
    address = net.here if family == 4 else net.here6
    size = 8 << 20
    before = received(reader)
    with (
        pair.here.call(
            lambda: socket.create_server((address, 4000), family=socket.AF_INET if family == 4 else socket.AF_INET6)
        ) as server,
        pair.there.call(lambda: socket.create_connection((address, 4000), timeout=5)) as client,
    ):
        served, _ = server.accept()
        sender = threading.Thread(target=client.sendall, args=(bytes(size),))
        sender.start()
        got = 0
        while got < size:
            got += len(served.recv(1 << 16))
        sender.join()
        served.close()
    pair.there.run("ping", "-c1", address)
    reader.until(lambda: reader.of(EchoSeen, net.there if family == 4 else net.there6))
    # ARP or neighbour discovery, and the echo; thousands of segments have passed.
    assert received(reader) - before < 20
    assert not [each for each in reader.told if isinstance(each, Stray)]


def received(reader):
    reader.packets._capture.count()
    return reader.packets._capture.received


def test_a_flood_is_read_in_bounded_pieces_and_losses_are_counted(reader):
    frame = bytes(stranger(IP(src=STRANGER, dst="10.77.0.1"), TCP(flags="F"), b"x" * 500))
    for _ in range(6_000):
        reader.wire.put(frame)
    reader.read()
    assert 0 < reader.packets.seen <= 2_048 + 256
    reader.until(lambda: reader.packets.seen + reader.packets.lost >= 6_000)
    assert reader.packets.lost
    assert len(reader.of(Stray)) == reader.packets.seen - len(
        [each for each in reader.told if not isinstance(each, Stray)]
    )


def test_it_is_readable_when_something_came(reader, pair):
    def readable(seconds):
        return bool(select.select([reader.packets], [], [], seconds)[0])

    while readable(0.2):
        reader.read()
    reader.wire.put(stranger(IP(src=STRANGER, dst="10.77.0.1"), TCP(flags="F")))
    assert readable(2)
    reader.until(lambda: reader.of(Stray))
    pair.here.run("ip", "link", "set", "eth0", "down")
    while readable(0.2):
        reader.read()
    assert not readable(0)


def tagged(vlan, port):
    return Ether(**TO_HERE) / Dot1Q(vlan=vlan) / IP(src=STRANGER, dst="10.77.0.1") / TCP(dport=port, flags="F")


def test_frames_of_vlans_that_are_none_of_ours(reader):
    reader.wire.put(tagged(8, 80), tagged(0, 60))
    reader.until(lambda: reader.of(Stray))
    assert [each.port for each in reader.of(Stray)] == [60]


def test_a_tagged_frame_counts_on_its_vlan(reader, pair, net):
    try:
        net.ip("-n", pair.here.name, "link", "add", "link", "eth0", "name", "lan7", "type", "vlan", "id", "7")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this kernel has no VLANs: {error.stderr!r}")
    net.ip("-n", pair.here.name, "link", "set", "lan7", "up")
    reader.wire.put(tagged(8, 80), tagged(7, 70), tagged(0, 60))
    reader.until(lambda: len(reader.of(Stray)) > 1)
    assert [each.port for each in reader.of(Stray)] == [70, 60]


def test_what_passes_a_bridge_counts_once(reader, pair, net):
    try:
        net.ip("-n", pair.here.name, "link", "add", "name", "bridge", "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this kernel has no bridges: {error.stderr!r}")
    net.ip("-n", pair.here.name, "link", "set", "eth0", "master", "bridge")
    net.ip("-n", pair.here.name, "link", "set", "bridge", "up")
    net.wait_until(
        lambda: "state forwarding" in pair.here.run("ip", "-d", "link", "show", "eth0").stdout, "it forwards"
    )
    reader.wire.put(*(stranger(IP(src=STRANGER, dst="10.77.0.1"), TCP(dport=port, flags="F")) for port in (1, 1, 2)))
    reader.until(lambda: len(reader.of(Stray)) > 2)
    assert [each.port for each in reader.of(Stray)] == [1, 1, 2]
    assert reader.packets.seen > 5, "the bridge had them, too"


def test_a_device_without_ethernet(namespace):
    space = namespace()

    def open_tun():
        descriptor = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH14x", b"tun7", 0x1001))
        return descriptor

    try:
        descriptor = space.call(open_tun)
    except OSError as error:
        pytest.skip(f"no tun device can be made here: {error}")
    space.run("ip", "addr", "add", "10.77.0.1/24", "dev", "tun7")
    space.run("ip", "link", "set", "tun7", "up")
    reader = Reader(space)
    try:
        for ip in (IP(src=STRANGER, dst="10.77.0.1"), IPv6(src="fd77::9", dst="fd77::1")):
            for flags in ("A", "F", "FPU"):
                os.write(descriptor, bytes(ip / TCP(sport=4, dport=80, flags=flags)))
        reader.until(lambda: len(reader.of(Stray, "fd77::9")) == 2)
        assert len(reader.of(Stray)) == 2
        assert not [each for each in reader.told if isinstance(each, Odd)]
    finally:
        reader.packets.close()
        os.close(descriptor)


def test_the_kernel_reads_the_program_as_the_interpreter_does(reader, captures):
    """Frames of real captures on a real cable: which of them come."""
    program = special_packets()
    wanted = {bytes(frame): run(program, frame) for frame in real_frames(captures, 120)}
    capture = reader.packets._capture
    came = set()
    for number, frame in enumerate(wanted):
        reader.wire.put(frame)
        if number % 100 == 99 or number == len(wanted) - 1:
            time.sleep(0.06)  # a block of the ring that is not full is given after 50 ms
            for _, frames, sent in capture.read():
                came |= {bytes(capture.buffer[at:end]) for _, at, end, _ in frames if at not in sent}
    expected = {frame[:taken] for frame, taken in wanted.items() if taken}
    assert len(wanted) > 1_500
    assert len(expected) > 300
    assert expected - came == set()
    assert {frame for frame in came if any(frame == each[: len(frame)] for each in wanted)} == expected


def test_hostile_frames_are_read(reader, captures):
    chance = random.Random(5)
    frames = [frame for frame in real_frames(captures, 40) if run(special_packets(), frame)]
    for number in range(4_000):
        frame = bytearray(chance.choice(frames))
        for _ in range(chance.randrange(1, 6)):
            frame[chance.randrange(14, len(frame))] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
        reader.wire.put(frame[: chance.choice((len(frame), chance.randrange(14, len(frame) + 1)))])
        if number % 200 == 199:
            time.sleep(0.06)
            reader.read()
    assert reader.packets.seen > 2_000
    assert {type(each) for each in reader.told} > {Odd, ArpSeen, DnsSeen, EchoSeen}


def real_frames(captures, each):
    """Of each capture some whole Ethernet frames without tags."""
    for path in captures:
        count = 0
        for source, buffer, frames in CaptureReader().feed(path.read_bytes()):
            for _, at, end, size in frames:
                frame = bytes(buffer[at:end])
                is_plain = frame[12:14] in (b"\x08\x00", b"\x86\xdd", b"\x08\x06")
                if source.linktype == 1 and is_plain and end - at == size <= 1514 and count < each:
                    count += 1
                    yield frame


class TestPassing:
    packet = bytes(IP(src="192.0.2.1", dst="192.0.2.2", ttl=64) / TCP(flags="F"))
    packet6 = bytes(IPv6(src="fd77::1", dst="fd77::2", hlim=64) / TCP(flags="F"))

    @pytest.mark.parametrize("version", [4, 6])
    def test_another_device_and_a_hop_later(self, version):
        first = self.packet if version == 4 else self.packet6
        later = (IP if version == 4 else IPv6)(first)
        if version == 4:
            later.ttl, later.chksum = 63, None
        else:
            later.hlim = 63
        passing = Passing()
        assert not passing.again(first, "eth0", 100.0)
        assert passing.again(bytes(later), "eth1", 100.01)
        assert passing.again(bytes(later), "eth2", 100.02)
        assert not passing.again(first, "eth0", 100.03), "sent again"
        assert not passing.again(bytes(later), "eth1", 100.03 + PASSING_S)

    def test_another_packet(self):
        passing = Passing()
        assert not passing.again(self.packet, "eth0", 100.0)
        assert not passing.again(self.packet[:-1] + b"x", "eth1", 100.0)
        assert not passing.again(b"", "eth0", 100.0)

    def test_a_bridge_and_its_ports_are_one_link(self):
        passing = Passing()
        passing.again(b"to a neighbour", "eth0", 100.0, is_of_link=True)
        assert passing.again(b"to a neighbour", "br0", 100.01, is_of_link=True)
        passing.again(b"another", "vnet1", 101.0, is_of_link=True)
        passing.again(b"another", "br0", 101.01, is_of_link=True)
        passing.again(b"forwarded", "eth0", 102.0)
        passing.again(b"forwarded", "eth1", 102.01)
        assert len({passing.link(each) for each in ("eth0", "br0", "vnet1")}) == 1
        assert passing.link("eth1") == "eth1"

    def test_links_are_bounded(self):
        passing = Passing()
        for number in range(2 * INTERFACES_MAX):
            passing.again(number.to_bytes(4), "br0", 100.0, is_of_link=True)
            passing.again(number.to_bytes(4), f"vnet{number}", 100.0, is_of_link=True)
        assert len(passing._same) <= INTERFACES_MAX + 1

    def test_it_is_bounded(self):
        passing = Passing()
        for number in range(PASSING_MAX + 10):
            passing.again(number.to_bytes(4), "eth0", 100.0)
        assert len(passing) == PASSING_MAX
