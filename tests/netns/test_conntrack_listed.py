"""What is listed fast of connections, against what the careful way reads of them."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from pfw.drivers import conntrack, netfilter, procfs
from pfw.wire.conntrack_event import flow_key

RULES = """table inet pfw {
    chain out { type filter hook output priority filter; ct state new counter; }
}
"""
MANY = 700


@pytest.fixture
def here(pair):
    pair.here.run("nft", "-f", "-", input=RULES)
    pair.here.call(procfs.count_connections)
    return pair.here


def listed(space):
    return space.call(lambda: list(conntrack.tracked()))


def test_none_where_nothing_is_tracked(here):
    assert listed(here) == []


def test_the_same_as_the_careful_way(here, net):
    """More than fit into one read, of both families, with and without ports, answered or not."""
    for address in (net.there, net.there6):
        here.run("ping", "-c1", "-W2", address)
    with contextlib.ExitStack() as opened:
        for number in range(MANY):
            address, family = (net.there, socket.AF_INET) if number % 2 else (net.there6, socket.AF_INET6)
            kind = socket.SOCK_DGRAM if number % 3 else socket.SOCK_STREAM
            made = opened.enter_context(here.call(lambda family=family, kind=kind: socket.socket(family, kind)))
            made.setblocking(False)
            made.connect_ex((address, 1000 + number % 5))
            if kind is socket.SOCK_DGRAM:
                with contextlib.suppress(ConnectionRefusedError):
                    made.send(b"hello")
        found, careful = listed(here), here.call(netfilter.connections)
    assert len(found) > MANY / 2
    ours = {each.key: _facts(each) for each in found}
    assert len(ours) == len(found)
    assert ours == {flow_key(each): _facts(each) for each in careful}


def _facts(each):
    counters = each.packets, each.bytes, each.reply_packets, each.reply_bytes
    return each.protocol, each.source, each.destination, each.id, each.status, each.tcp_state, *counters


@pytest.mark.parametrize("number", [1, 13])
def test_a_refusal_is_an_error(number):
    refusal = (36).to_bytes(4, "little") + (2).to_bytes(2, "little") + bytes(10)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        conntrack._split(refusal + (-number).to_bytes(4, "little", signed=True) + bytes(16))
    assert caught.value.errno == number


def test_asked_for_one_by_one_they_are_the_same_and_who_has_gone_is_not_there(here, net):
    with contextlib.ExitStack() as opened:
        for number in range(150):
            made = opened.enter_context(here.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
            made.connect((net.there, 2000 + number))
            with contextlib.suppress(ConnectionRefusedError):
                made.send(b"hello")
        found = {each.id: each for each in listed(here) if each.protocol == socket.IPPROTO_UDP}
        assert len(found) == 150
        known = list(found.values())
        entries = [each for each in here.call(netfilter.connections) if each.id in found]
        assert here.call(lambda: netfilter.cut(entries[:50])) == 50
        left = here.call(lambda: conntrack.LookUp().now(known))
    gone = {each.id for each in entries[:50]}
    assert {number: _facts(each) for number, each in left.items()} == {
        number: _facts(each) for number, each in found.items() if number not in gone
    }
