"""The capture ring on real devices: what is in it, what is not, what was lost, and filters in the kernel."""

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import time

import pytest

from pfw.daemon.sources import live
from pfw.drivers.bpf import compile_filter, compile_live_filter, matcher
from pfw.drivers.capture import SNAP_BYTES, Capture
from pfw.model.event import Source
from pfw.model.packet import UDP
from pfw.wire.packet import decode

ETHERNET, RAW_IP = 1, 101


class Reader:
    """A capture that is read in its namespace, where interfaces have their names."""

    def __init__(self, namespace, interface=None, text=None):
        self.namespace = namespace
        program = compile_live_filter(text) if text else None
        self.capture = namespace.call(lambda: Capture(interface, program))
        self.got: list[tuple[Source, bytes, int, bool]] = []

    def read(self, enough=1, seconds=3.0):
        """What came, at least so many packets within some seconds: source, bytes, size, whether it was sent."""

        def gather():
            deadline = time.monotonic() + seconds
            while len(self.got) < enough and time.monotonic() < deadline:
                self.capture.wait(0.05)
                for source, frames, sent in self.capture.read():
                    for _, at, end, size in frames:
                        self.got.append((source, bytes(self.capture.buffer[at:end]), size, at in sent))

        self.namespace.call(gather)
        return self.got


@pytest.fixture
def reader():
    with contextlib.ExitStack() as opened:

        def make(*words):
            each = Reader(*words)
            opened.callback(each.capture.close)
            return each

        yield make


def udp_socket(namespace, *options):
    def make():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in options:
            sock.setsockopt(*option)
        return sock

    return namespace.call(make)


def test_both_directions_with_size_and_interface(pair, net, reader):
    watch = reader(pair.here, net.cable, "udp")
    with udp_socket(pair.here) as mine, udp_socket(pair.there) as theirs:
        mine.sendto(b"out", (net.there, 7))
        theirs.sendto(b"inward", (net.here, 7))
    got = watch.read(2)
    assert [(source, size, sent) for source, _, size, sent in got] == [
        (Source(ETHERNET, net.cable), 45, True),
        (Source(ETHERNET, net.cable), 48, False),
    ]
    assert got[0][1].endswith(b"out")


def test_frames_have_the_time_of_the_clock(pair, net, reader):
    watch = reader(pair.here, net.cable, "udp")
    with udp_socket(pair.there) as sock:
        sock.sendto(b"x", (net.here, 7))
    watch.capture.wait(3)
    times = [frame[0] for _, frames, _ in watch.capture.read() for frame in frames]
    assert [abs(at - time.time()) < 2 for at in times] == [True]


def test_long_frames_are_cut_but_their_size_is_known(pair, net, reader):
    watch = reader(pair.here, net.cable, "udp")
    with udp_socket(pair.there) as sock:
        sock.sendto(bytes(1200), (net.here, 7))
    ((_, frame, size, _),) = watch.read()
    assert (len(frame), size) == (SNAP_BYTES, 1242)


@pytest.mark.parametrize("interface", ["lo", None])
def test_loopback_is_seen_once(pair, reader, interface):
    watch = reader(pair.here, interface, "udp")
    with udp_socket(pair.here) as sock:
        for port in (7, 8):
            sock.sendto(b"x", ("127.0.0.1", port))
    got = watch.read(99, seconds=0.3)
    ports = [decode(ETHERNET, frame, size).port for _, frame, size, _ in got]
    assert sorted(port for port in ports if port in (7, 8)) == [7, 8]
    assert all(source == Source(ETHERNET, "lo") for source, *_ in got)


def test_all_interfaces_at_once(pair, net, reader):
    watch = reader(pair.here, None, "udp port 9")
    with udp_socket(pair.here) as sock:
        sock.sendto(b"x", ("127.0.0.1", 9))
        sock.sendto(b"x", (net.there, 9))
    assert {source.interface for source, *_ in watch.read(2)} == {"lo", net.cable}


def test_a_vlan_interface(pair, net, reader):
    for each, address in ((pair.here, "10.79.0.1/24"), (pair.there, "10.79.0.2/24")):
        try:
            net.ip("-n", each.name, "link", "add", "link", net.cable, "name", "lan7", "type", "vlan", "id", "7")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this kernel has no VLANs: {error.stderr!r}")
        net.ip("-n", each.name, "addr", "add", address, "dev", "lan7")
        net.ip("-n", each.name, "link", "set", "lan7", "up")
    watch = reader(pair.here, "lan7")
    with udp_socket(pair.there) as sock:
        sock.sendto(b"x", ("10.79.0.1", 9))
    got = watch.read(1)
    packets = [decode(source.linktype, frame, size) for source, frame, size, _ in got]
    assert all(source.interface == "lan7" for source, *_ in got)
    # Nobody listens there: an error comes back.
    kinds = {packet.not_ip or packet.port or ("error" if packet.quoted_key else None) for packet in packets}
    assert kinds <= {"arp", 9, "error"}


def test_a_device_without_ethernet_gives_raw_ip(namespace, net, reader):
    space = namespace()

    def open_tun():
        descriptor = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH14x", b"tun7", 0x1001))
        return descriptor

    try:
        descriptor = space.call(open_tun)
    except OSError as error:
        pytest.skip(f"no tun device can be made here: {error}")
    try:
        net.ip("-n", space.name, "addr", "add", "10.80.0.1/24", "dev", "tun7")
        net.ip("-n", space.name, "link", "set", "tun7", "up")
        watch = reader(space, None, "udp port 9")
        with udp_socket(space) as sock:
            sock.sendto(b"x", ("10.80.0.2", 9))
        ((source, frame, size, sent),) = watch.read()
        assert (source, size, sent) == (Source(RAW_IP, "tun7"), 29, True)
        packet = decode(source.linktype, frame, size)
        assert (packet.protocol, packet.port, packet.undecodable) == (UDP, 9, False)
    finally:
        os.close(descriptor)


def test_a_wrong_interface_is_named(pair):
    with pytest.raises(OSError, match="no interface with this name"):
        pair.here.call(lambda: Capture("nope"))


def test_a_name_that_is_no_text(pair, net, reader):
    net.ip("-n", pair.here.name, "link", "set", net.cable, "down")
    net.ip("-n", pair.here.name, "link", "set", net.cable, "name", b"e\xff0")
    net.ip("-n", pair.here.name, "link", "set", b"e\xff0", "up")
    watch = reader(pair.here, None, "udp")
    with udp_socket(pair.there) as sock:
        sock.sendto(b"x", (net.here, 9))
    assert watch.read()[0][0].interface == "e\\xff0"


class TestInterfacesComeAndGo:
    def test_deleted_while_it_is_watched(self, pair, net, reader):
        watch = reader(pair.here, net.cable)
        assert not watch.capture.gone
        net.ip("-n", pair.here.name, "link", "del", net.cable)
        assert not any(pair.here.call(lambda: list(live(watch.capture))))
        assert watch.capture.gone

    def test_down_and_up_again(self, pair, net, reader):
        watch = reader(pair.here, net.cable, "udp")
        net.ip("-n", pair.here.name, "link", "set", net.cable, "down")
        pair.here.call(lambda: watch.capture.wait(0.01))
        began = time.monotonic()
        pair.here.call(lambda: watch.capture.wait(0.2))
        assert time.monotonic() - began > 0.15
        assert not watch.capture.gone
        net.ip("-n", pair.here.name, "link", "set", net.cable, "up")

        def seen():
            with udp_socket(pair.there) as sock:
                sock.sendto(b"x", (net.here, 9))
            return bool(watch.read(1, seconds=0.1))

        net.wait_until(seen, "packets come again")

    def test_another_name_while_all_are_watched(self, pair, net, reader):
        watch = reader(pair.here, None, "udp port 9")
        for count, name in enumerate((net.cable, "other"), 1):
            if name != net.cable:
                net.ip("-n", pair.here.name, "link", "set", net.cable, "down")
                net.ip("-n", pair.here.name, "link", "set", net.cable, "name", name)
                net.ip("-n", pair.here.name, "link", "set", name, "up")
            with udp_socket(pair.there) as sock:
                sock.sendto(b"x", (net.here, 9))
            assert watch.read(count)[-1][0].interface == name

    def test_one_more_while_all_are_watched(self, pair, net, reader):
        watch = reader(pair.here, None, "udp port 9")
        net.ip("-n", pair.here.name, "link", "add", "late", "type", "veth", "peer", "name", "later")
        for name in ("late", "later"):
            net.ip("-n", pair.here.name, "link", "set", name, "up")
        net.ip("-n", pair.here.name, "addr", "add", "10.81.0.1/24", "dev", "late")
        net.ip("-n", pair.here.name, "neigh", "add", "10.81.0.2", "lladdr", "02:00:00:00:00:02", "dev", "late")
        with udp_socket(pair.here) as sock:
            sock.sendto(b"x", ("10.81.0.2", 9))
        assert {source.interface for source, *_ in watch.read(2)} == {"late", "later"}


class TestLosses:
    def test_nothing_is_lost_when_it_is_read(self, pair, net, reader):
        watch = reader(pair.here, net.cable, "udp port 9")
        with udp_socket(pair.there) as sock:
            for number in range(2000):
                sock.sendto(number.to_bytes(2), (net.here, 9))
        got = watch.read(2000)
        watch.capture.count()
        assert [int.from_bytes(frame[-2:]) for _, frame, _, _ in got] == list(range(2000))
        assert (watch.capture.received, watch.capture.lost) == (2000, 0)

    def test_what_does_not_fit_is_counted(self, pair, net, reader):
        watch = reader(pair.here, net.cable, "udp port 9")
        total = 30_000
        with udp_socket(pair.there, (socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)) as sock:
            payload = bytes(700)
            for _ in range(total):
                sock.sendto(payload, (net.here, 9))
        watch.capture.count()
        lost = watch.capture.lost
        assert lost > 0
        got = watch.read(total - lost)
        watch.capture.count()
        assert (len(got), watch.capture.lost) == (total - lost, lost)
        assert watch.capture.received + watch.capture.lost == total

    def test_the_counts_add_up_over_readings(self, pair, net, reader):
        watch = reader(pair.here, net.cable, "udp port 9")
        for number in (1, 2):
            with udp_socket(pair.there) as sock:
                sock.sendto(b"x", (net.here, 9))
            watch.read(number)
            watch.capture.count()
            assert watch.capture.received == number


MACS = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02"
PAYLOADS = (
    (17, 0, struct.pack(">HHHH", 53, 5000, 12, 0) + b"data"),
    (17, 100, bytes(24)),
    (6, 0, struct.pack(">HHIIBBHHH", 5000, 443, 0, 0, 0x50, 2, 9, 0, 0)),
    (6, 0, struct.pack(">HHIIBBHHH", 443, 5000, 0, 0, 0x50, 0x12, 9, 0, 0) + bytes(300)),
    (1, 0, b"\x08\0\0\0\0\x01\0\x01"),
    (47, 0, bytes(40)),
)
PAYLOADS6 = (
    (17, struct.pack(">HHHH", 9, 53, 8, 0)),
    (58, b"\x80\0\0\0\0\x01\0\x01"),
    (0, b"\x11\0\x05\2\0\0\1\0" + struct.pack(">HHHH", 9, 53, 8, 0)),
)


def ipv4(ends, protocol, fragment, payload):
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0)
    return MACS + b"\x08\x00" + head + bytes(ends) + payload


def ipv6(following, payload):
    return MACS + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(payload), following, 64) + bytes(32) + payload


FRAMES = [
    *(ipv4((10, 9, 0, 1, 10, 9, 0, 2), *each) for each in PAYLOADS),
    *(ipv4((10, 9, 0, 3, 224, 0, 0, 9), *each) for each in PAYLOADS),
    *(ipv6(*each) for each in PAYLOADS6),
    MACS + b"\x08\x06" + bytes.fromhex("0001080006040001") + bytes(20),
]


@pytest.mark.parametrize(
    "text",
    [
        "udp", "tcp port 443", "not port 53", "icmp or icmp6", "host 10.9.0.3", "arp", "ip6", "greater 200",
        "tcp[tcpflags] & tcp-syn != 0", "ip[6:2] & 0x1fff != 0", "ip multicast", "proto gre", "udp and dst port 53",
    ],
)  # fmt: skip
def test_the_kernels_verdict_is_libpcaps(pair, net, reader, text):
    """Frames written onto the cable: the filter takes in the kernel what it takes in user space, and no others."""
    watch = reader(pair.here, net.cable, f"({text}) and ether src 02:00:00:00:00:02")

    def write():
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((net.cable, 0))
            for frame in FRAMES:
                sock.send(frame)

    pair.there.call(write)
    matches = matcher(compile_filter(text, ETHERNET))
    expected = [frame for frame in FRAMES if matches(frame, len(frame))]
    assert 0 < len(expected) < len(FRAMES)
    assert [frame for _, frame, _, _ in watch.read(len(expected))] == expected
    assert len(watch.read(len(expected) + 1, seconds=0.1)) == len(expected)


def test_waiting_ends_with_the_first_packet(pair, net, reader):
    watch = reader(pair.here, net.cable, "udp")
    with udp_socket(pair.there) as sock:
        sock.sendto(b"x", (net.here, 9))
    began = time.monotonic()
    watch.capture.wait(5)
    assert time.monotonic() - began < 1
