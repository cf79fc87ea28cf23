"""Directions: by this machine's addresses, by what the capture says was sent, or as an observer sees them."""

import pytest

from pfw.engine.viewpoint import Viewpoint
from pfw.model.address import AddressSet
from pfw.model.event import LocalAddresses
from pfw.model.flow import Direction
from pfw.model.packet import UDP

IN, OUT, FORWARD = Direction.IN, Direction.OUT, Direction.FORWARD


@pytest.fixture
def see(wire):
    def directions(source, destination, *, sent=None, interface="eth0", local=wire.local, observer=False):
        view = Viewpoint(LocalAddresses(local, observer=observer))
        key = wire.Path(source, destination).key(UDP)
        return tuple(flow.direction for flow in view.flows(key, interface, sent=sent))

    return directions


class TestThisMachine:
    @pytest.mark.parametrize(
        ("source", "destination", "direction"),
        [
            ("192.0.2.1", "198.51.100.2", OUT),
            ("198.51.100.2", "192.0.2.1", IN),
            ("198.51.100.2", "203.0.113.7", FORWARD),
            ("2001:db8::1", "2001:db8:ffff::2", OUT),
            ("2001:db8:ffff::2", "2001:db8::1", IN),
            ("198.51.100.2", "192.0.2.255", IN),
            ("198.51.100.2", "255.255.255.255", IN),
            ("198.51.100.2", "224.0.0.251", IN),
            ("fe80::2", "ff02::1", IN),
            ("192.0.2.1", "224.0.0.251", OUT),
            ("192.0.2.1", "192.0.2.255", OUT),
        ],
    )
    def test_its_addresses_tell(self, see, source, destination, direction):
        assert see(source, destination) == (direction,)

    @pytest.mark.parametrize("source", ["127.0.0.1", "192.0.2.1"])
    def test_to_oneself_it_leaves(self, see, source):
        assert see(source, "127.0.0.1", interface="lo") == (OUT,)

    def test_what_is_sent_before_there_is_an_address_leaves(self, see):
        assert see("0.0.0.0", "255.255.255.255", sent=True) == (OUT,)
        assert see("0.0.0.0", "255.255.255.255", sent=False) == (IN,)
        assert see("::", "ff02::16", sent=True) == (OUT,)

    def test_a_forged_packet_arrives(self, see):
        assert see("192.0.2.1", "192.0.2.1", sent=False) == (IN,)
        assert see("192.0.2.1", "192.0.2.1", sent=None) == (OUT,)

    def test_its_own_broadcast_is_no_forgery(self, see):
        assert see("192.0.2.1", "192.0.2.255", sent=True) == (OUT,)


class TestObserver:
    def test_who_knows_some_addresses_sees_the_rest_from_both_ends(self, see):
        assert see("192.0.2.1", "198.51.100.2", observer=True) == (OUT,)
        assert see("198.51.100.2", "203.0.113.7", observer=True) == (IN, OUT)

    @pytest.mark.parametrize(
        ("source", "destination", "views"),
        [
            ("192.168.1.5", "203.0.113.7", (OUT, IN)),
            ("fd00::1", "2001:db8:ffff::2", (OUT, IN)),
            ("203.0.113.7", "192.168.1.5", (IN, OUT)),
            ("192.168.1.5", "192.168.1.6", (IN, OUT)),
            ("192.168.1.5", "239.255.255.250", (IN, OUT)),
            ("10.0.0.1", "255.255.255.255", (IN, OUT)),
            ("fe80::1", "ff02::2", (IN, OUT)),
        ],
    )
    def test_a_private_address_that_talks_to_a_public_one_rather_leaves(self, see, source, destination, views):
        assert see(source, destination, local=AddressSet(), observer=True) == views

    def test_without_any_knowledge_likewise(self, wire):
        views = Viewpoint().flows(wire.Path("192.168.1.5", "203.0.113.7").key(UDP), None, sent=None)
        assert [flow.direction for flow in views] == [OUT, IN]


def test_a_rule_for_either_end_is_found(script, wire, rule, policy):
    for direction in ("in", "out"):
        s = script(policy(rule("theirs", "reject", direction, ports=443)), observer=True)
        s >> wire.strangers.tcp("S") << f"#1 {direction} TCP 198.51.100.2:40000 > 203.0.113.7:443 reject: theirs"


def test_the_default_for_what_arrives_is_taken_where_no_rule_says_anything(script, wire):
    s = script(observer=True)
    s >> wire.strangers.tcp("S") << "#1 in TCP 198.51.100.2:40000 > 203.0.113.7:443 block: default in"


def test_a_private_client_is_judged_by_what_may_leave(script, wire):
    s = script(observer=True)
    client = wire.Path("192.168.1.5", wire.there)
    s >> client.tcp("S") << "#1 out TCP 192.168.1.5:40000 > 198.51.100.2:443 allow: default out"
    s >> client.back.tcp("SA")
