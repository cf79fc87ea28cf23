"""What netlink says of addresses and sockets, against `ip` and sockets that the test has opened itself."""

import json
import socket
import struct
from contextlib import ExitStack

import pytest

from pfw.drivers.netlink import local_addresses, open_sockets
from pfw.model.address import parse_address
from pfw.model.flow import make_key
from pfw.model.packet import TCP, UDP


def key(protocol, source, destination):
    ports = struct.pack(">HH", source[1], destination[1])
    return make_key(protocol, parse_address(source[0]), parse_address(destination[0]), ports)


class TestAddresses:
    def test_those_that_ip_lists(self, pair):
        listed = json.loads(pair.here.run("ip", "-j", "addr").stdout)
        texts = {info["local"] for device in listed for info in device["addr_info"]}
        texts |= {info["broadcast"] for device in listed for info in device["addr_info"] if "broadcast" in info}
        assert {"127.0.0.1", "::1", "10.77.0.1", "fd77::1", "10.77.0.255"} < texts
        found = pair.here.call(local_addresses)
        assert all(parse_address(text) in found for text in texts)
        assert len(found) == len(texts)

    @pytest.mark.parametrize("text", ["10.77.0.2", "fd77::2", "8.8.8.8", "10.77.0.0"])
    def test_no_others(self, pair, text):
        assert parse_address(text) not in pair.here.call(local_addresses)

    def test_all_of_loopbacks_network(self, pair):
        found = pair.here.call(local_addresses)
        assert parse_address("127.255.0.9") in found
        assert parse_address("126.255.0.9") not in found

    def test_of_a_point_to_point_link_only_our_end(self, pair, net):
        net.ip("-n", pair.here.name, "addr", "add", "10.90.0.1", "peer", "10.90.0.2", "dev", net.cable)
        found = pair.here.call(local_addresses)
        assert parse_address("10.90.0.1") in found
        assert parse_address("10.90.0.2") not in found

    def test_very_many(self, pair, net):
        lines = "".join(f"addr add 10.91.{number // 250}.{number % 250 + 1}/32 dev eth0\n" for number in range(3000))
        pair.here.run("ip", "-batch", "-", input=lines)
        found = pair.here.call(local_addresses)
        assert parse_address("10.91.11.250") in found
        assert parse_address("10.91.0.1") in found


class TestSockets:
    def test_each_by_the_packet_that_began_it(self, pair, net):
        with ExitStack() as opened:

            def inside(space, function):
                return opened.enter_context(space.call(function))

            expected = set()
            for at, towards in ((net.here, net.there), (net.here6, net.there6)):
                family = socket.AF_INET6 if ":" in at else socket.AF_INET
                server = inside(pair.here, lambda at=at, family=family: socket.create_server((at, 8080), family=family))
                client = inside(pair.there, lambda at=at: socket.create_connection((at, 8080)))
                opened.enter_context(server.accept()[0])
                expected.add(key(TCP, client.getsockname(), (at, 8080)))

                away = inside(
                    pair.there, lambda to=towards, family=family: socket.create_server((to, 443), family=family)
                )
                outward = inside(pair.here, lambda to=towards: socket.create_connection((to, 443)))
                opened.enter_context(away.accept()[0])
                expected.add(key(TCP, outward.getsockname(), (towards, 443)))

                datagrams = inside(pair.here, lambda family=family: socket.socket(family, socket.SOCK_DGRAM))
                datagrams.connect((towards, 53))
                expected.add(key(UDP, datagrams.getsockname(), (towards, 53)))
            assert set(pair.here.call(open_sockets)) == expected

    def test_ipv4_through_an_ipv6_socket_is_ipv4(self, pair, net):
        server = pair.here.call(lambda: socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True))
        with server, pair.there.call(lambda: socket.create_connection((net.here, 8080))) as client:
            served, _ = server.accept()
            with served:
                assert pair.here.call(open_sockets) == [key(TCP, client.getsockname(), (net.here, 8080))]

    def test_one_that_only_listens_or_waits_is_none(self, pair, net):
        with pair.here.call(lambda: socket.create_server((net.here, 8080))):
            assert pair.here.call(open_sockets) == []
