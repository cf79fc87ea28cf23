"""What the filter of the reader takes, and how it reads: a real kernel carries the messages, written here, from one
socket of this process to another."""

import random
import socket
from struct import pack

import pytest

from pfw.drivers import conntrack
from pfw.model.packet import GRE, ICMP, TCP, UDP
from pfw.wire.conntrack import Tuple, write_tuple
from pfw.wire.conntrack_event import DESTROY, NEW, UPDATE
from pfw.wire.conntrack_filter import event_filter
from pfw.wire.netlink import attribute, nested, request
from pfw.wire.nfnetlink import write_number

SEED = 7
USERSOCK = 2
KINDS = {NEW: (0x100, 0x600), UPDATE: (0x100, 0), DESTROY: (0x102, 0)}
HERE = [bytes((127, 0, 0, 1)), bytes((127, 9, 9, 9))]
AWAY = [bytes((10, 0, 0, 1)), bytes((126, 0, 0, 1)), bytes((128, 0, 0, 127))]
HERE6 = [bytes(15) + b"\1"]
AWAY6 = [bytes(16), bytes(15) + b"\2", *(bytes(at) + b"\1" + bytes(14 - at) + b"\1" for at in (0, 7, 11))]


@pytest.fixture
def netlink():
    """Two sockets; what is sent to the second passes the filter that it has."""
    with (
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, USERSOCK) as sender,
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, USERSOCK) as receiver,
    ):
        receiver.bind((0, 0))
        receiver.setblocking(False)
        yield sender, receiver


def passes(netlink, data):
    sender, receiver = netlink
    sender.sendto(data, receiver.getsockname())
    try:
        assert receiver.recv(4096) == data
    except BlockingIOError:
        return False
    return True


def event(what, protocol, source, destination, *more):
    kind, flags = KINDS[what]
    is_icmp = protocol == ICMP
    rest = (None, None, 8, 0, 7) if is_icmp else (1000, 53)
    forth = Tuple(protocol, source, destination, *rest)
    back = Tuple(protocol, destination, source, *rest)
    members = write_tuple(1, forth) + write_tuple(2, back) + b"".join(more)
    return request(kind, bytes((2 if len(source) == 4 else 10, 0, 0, 0)) + members, flags)


def tcp_state(state):
    return nested(4, nested(1, attribute(1, bytes((state,))), attribute(2, b"\7")))


def wanted(what, protocol, source, destination, status, state, states, loopback):
    """The same question, asked plainly."""
    if not loopback and {source, destination} <= {*HERE, *HERE6}:
        return False
    if what != UPDATE:
        return True
    if protocol == TCP:
        return state in states
    return bool(status & 2) and not status & 4


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize("states", [(3, 7, 8), (), (2,)])
def test_what_the_filter_takes(netlink, states, loopback):
    conntrack.attach(netlink[1], event_filter(states, loopback=loopback))
    chance = random.Random(SEED)
    taken = 0
    for _ in range(3000):
        what, protocol = chance.choice((NEW, UPDATE, UPDATE, DESTROY)), chance.choice((TCP, TCP, UDP, ICMP, GRE))
        addresses = chance.choice(([*HERE, *AWAY], [*HERE6, *AWAY6]))
        source, destination = chance.choice(addresses), chance.choice(addresses)
        status, state = chance.choice((0x8, 0xA, 0xE, 0x188, 0x18A)), chance.choice((None, *range(1, 10)))
        more = [write_number(12, chance.randrange(2**32)), write_number(3, status), write_number(7, 30)]
        if protocol == TCP and state is not None:
            more.append(tcp_state(state))
        chance.shuffle(more)
        expected = wanted(what, protocol, source, destination, status, state, states, loopback)
        assert passes(netlink, event(what, protocol, source, destination, *more)) == expected
        taken += expected
    assert 300 < taken < 2700


@pytest.mark.parametrize(
    "data",
    [
        request(0x100, bytes(4), 0),
        request(0x100, bytes(4) + write_number(3, 0) * 20, 0),
        request(0x102, bytes(4) + nested(1, attribute(9, bytes(20))), 0),
        request(3, b"", 0),
        event(UPDATE, TCP, AWAY[0], AWAY[1], nested(4)),
        event(UPDATE, TCP, AWAY[0], AWAY[1], nested(4, nested(2, b"....."))),
        event(UPDATE, TCP, AWAY[0], AWAY[1], nested(4, nested(1, attribute(9, b".")))),
        event(UPDATE, UDP, AWAY[0], AWAY[1]),
    ],
    ids=["nothing in it", "no tuple", "another tuple", "no event", "no TCP", "other TCP", "no state", "no status"],
)
def test_what_does_not_look_as_expected_is_taken(netlink, data):
    """Except what ends before the first address: where a number cannot be read the kernel takes nothing."""
    conntrack.attach(netlink[1], event_filter((3,), loopback=False))
    assert passes(netlink, data) == (len(data) >= 28)


def test_messages_of_other_processes_are_empty(netlink):
    """More than one call fetches, and one that is longer than its place."""
    sender, receiver = netlink
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sent = [pack("=I", number) * (number + 1) for number in range(100)] + [bytes(5000)]
    for each in sent:
        sender.sendto(each, receiver.getsockname())
    messages = conntrack._Messages()
    assert messages.receive(receiver.fileno()) == [b""] * 64
    assert messages.receive(receiver.fileno()) == [b""] * 37
    assert messages.receive(receiver.fileno()) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        messages.receive(-1)
