"""What netlink says of addresses, routes and sockets, against `ip` and sockets that the test has opened itself."""

import json
import os
import socket
import struct
from contextlib import ExitStack

import pytest

from pfw.drivers.netlink import (
    gateways,
    interface_addresses,
    local_addresses,
    open_sockets,
    route_interface,
    tcp_sockets,
)
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

    def test_by_interface(self, pair, net):
        net.ip("-n", pair.here.name, "addr", "add", "10.90.0.1", "peer", "10.90.0.2/30", "dev", net.cable)
        listed = json.loads(pair.here.run("ip", "-j", "addr").stdout)
        expected = {
            (device["ifname"], parse_address(info["local"]), info["prefixlen"])
            for device in listed
            for info in device["addr_info"]
        }
        found = pair.here.call(interface_addresses)
        assert set(found) == expected
        assert len(found) == len(expected)
        assert (net.cable, parse_address("10.90.0.1"), 30) in expected


class TestRoutes:
    @pytest.mark.parametrize(
        ("routes", "expected"),
        [
            ([], []),
            (["default via 10.77.0.2"], ["10.77.0.2"]),
            (["default via 10.77.0.2", "default via fd77::2"], ["10.77.0.2", "fd77::2"]),
            (["default via 10.77.0.2 table 1234", "default via 10.77.0.3 metric 9"], ["10.77.0.2", "10.77.0.3"]),
            (["default nexthop via 10.77.0.2 nexthop via 10.77.0.3"], ["10.77.0.2", "10.77.0.3"]),
            (["default nexthop via fd77::2 nexthop via fd77::3"], ["fd77::2", "fd77::3"]),
            (["default via inet6 fd77::2 dev eth0"], ["fd77::2"]),
            (["default nexthop via inet6 fd77::2 dev eth0 nexthop via 10.77.0.3"], ["fd77::2", "10.77.0.3"]),
            (["10.99.0.0/16 via 10.77.0.2", "default dev eth0", "unreachable default metric 9999"], []),
        ],
    )
    def test_gateways(self, pair, routes, expected):
        for route in routes:
            family = "-6" if "fd77" in route and "inet6" not in route else "-4"
            pair.here.run("ip", family, "route", "add", *route.split())
        assert pair.here.call(gateways) == {parse_address(text) for text in expected}

    @pytest.mark.parametrize(
        ("text", "name"),
        [("10.77.0.9", "eth0"), ("fd77::9", "eth0"), ("127.0.0.1", "lo"), ("10.77.0.1", "lo"), ("::1", "lo"),
         ("192.0.2.1", None), ("2001:db8::1", None), ("10.66.0.1", None), ("10.67.0.1", None), ("10.68.0.1", None)],
    )  # fmt: skip
    def test_the_way_out(self, pair, text, name):
        for number, kind in enumerate(("unreachable", "prohibit", "blackhole")):
            pair.here.run("ip", "route", "add", kind, f"10.{66 + number}.0.0/16")
        assert pair.here.call(lambda: route_interface(parse_address(text))) == name

    def test_the_way_by_a_gateway(self, pair):
        pair.here.run("ip", "route", "add", "default", "via", "10.77.0.2")
        assert pair.here.call(lambda: route_interface(parse_address("192.0.2.1"))) == "eth0"

    def test_to_what_is_no_address(self):
        with pytest.raises(ValueError, match="5 bytes"):
            route_interface(bytes(5))


class TestSockets:
    @pytest.mark.parametrize("version", [4, 6])
    def test_tcp(self, pair, net, version):
        here, there = (net.here, net.there) if version == 4 else (net.here6, net.there6)
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with ExitStack() as opened:
            server = opened.enter_context(
                pair.here.call(lambda: socket.create_server((here, 8080), family=family))
            )  # fmt: skip
            away = opened.enter_context(pair.there.call(lambda: socket.create_server((there, 443), family=family)))
            client = opened.enter_context(pair.there.call(lambda: socket.create_connection((here, 8080))))
            served = opened.enter_context(server.accept()[0])
            outward = opened.enter_context(pair.here.call(lambda: socket.create_connection((there, 443))))
            opened.enter_context(away.accept()[0])
            found = {each.accepted: each for each in pair.here.call(tcp_sockets)}
            assert len(found) == 2
            near, far = parse_address(here), parse_address(there)
            for accepted, sock, port in ((True, served, client.getsockname()[1]), (False, outward, 443)):
                each = found[accepted]
                assert (each.source, each.source_port) == (near, sock.getsockname()[1])
                assert (each.destination, each.destination_port) == (far, port)
                assert each.inode == os.fstat(sock.fileno()).st_ino
                assert each.uid == 0
            assert found[True].tuple == (TCP, far, near, client.getsockname()[1], 8080)
            assert found[False].tuple == (TCP, near, far, outward.getsockname()[1], 443)

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
