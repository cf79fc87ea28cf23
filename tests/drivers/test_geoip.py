"""Countries of addresses: databases made here (maxmind.github.io/MaxMind-DB), and the package's reader."""

from __future__ import annotations

import builtins
import os
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pfw.drivers import geoip
from pfw.model.address import parse_address, parse_range


def encoded(value: object) -> bytes:
    """A value of the data section: strings, maps, lists, and numbers, whose kind is their size."""
    if isinstance(value, str):
        data = value.encode()
        assert len(data) < 29 + 256
        return (bytes([2 << 5 | len(data)]) if len(data) < 29 else bytes([2 << 5 | 29, len(data) - 29])) + data
    if isinstance(value, tuple):
        kind, number = value
        size = struct.calcsize(kind)
        head = {"H": [5 << 5 | size], "I": [6 << 5 | size], "Q": [size, 9 - 7]}[kind]
        return bytes(head) + struct.pack(f">{kind}", number)
    if isinstance(value, list):
        return bytes([len(value), 11 - 7]) + b"".join(map(encoded, value))
    assert isinstance(value, dict)
    return bytes([7 << 5 | len(value)]) + b"".join(encoded(name) + encoded(each) for name, each in value.items())


def database(networks: dict[str, object], version: int = 6) -> bytes:
    """A database with these networks in it. In one of version 6 IPv4 is below ::/96."""
    nodes: list[list[int | str | None]] = [[None, None]]
    data, places = b"", {}
    for network, record in networks.items():
        places[network] = len(data)
        data += encoded(record)
        first, last = parse_range(network)
        is_ipv4 = "." in network
        bits = f"{first & (2**32 - 1 if is_ipv4 else 2**128 - 1):0{32 if is_ipv4 else 128}b}"
        path = ("0" * 96 if is_ipv4 and version == 6 else "") + bits[: len(bits) - (last - first).bit_length()]
        at = 0
        for bit in map(int, path[:-1]):
            if nodes[at][bit] is None:
                nodes.append([None, None])
                nodes[at][bit] = len(nodes) - 1
            at = nodes[at][bit]
        nodes[at][int(path[-1])] = network

    def number(record: int | str | None) -> bytes:
        value = len(nodes) if record is None else record
        value = len(nodes) + 16 + places[value] if isinstance(value, str) else value
        return value.to_bytes(3)

    tree = b"".join(number(each) for node in nodes for each in node)
    about = {"node_count": ("I", len(nodes)), "record_size": ("H", 24), "ip_version": ("H", version),
             "database_type": "Country", "languages": [], "binary_format_major_version": ("H", 2),
             "binary_format_minor_version": ("H", 0), "build_epoch": ("Q", 1795399500), "description": {}}  # fmt: skip
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + encoded(about)


NETWORKS = {
    "192.0.2.0/24": {"country": {"iso_code": "DE"}, "registered_country": {"iso_code": "US"}},
    "198.51.100.0/25": {"registered_country": {"iso_code": "NL"}},
    "203.0.113.0/24": {"country_code": "JP"},
    "203.0.114.0/24": {"country": "FR"},
    "203.0.115.0/24": {"city": {"iso_code": "x"}},
    "203.0.116.0/24": {"country": {"iso_code": "\x1b[2J" * 20}},
    "2001:db8::/32": {"country": {"iso_code": "SE"}},
}
EXPECTED = {
    "192.0.2.7": "DE", "198.51.100.7": "NL", "198.51.100.200": None, "203.0.113.9": "JP", "203.0.114.1": "FR",
    "203.0.115.1": None, "203.0.116.1": ("\x1b[2J" * 4), "2001:db8::9": "SE", "2001:db9::9": None,
}  # fmt: skip


class TestReal:
    @pytest.fixture(autouse=True)
    def package(self):
        pytest.importorskip("maxminddb", reason="the package maxminddb (pfw[geoip]) is not here")

    def test_countries(self, tmp_path):
        path = tmp_path / "x.mmdb"
        path.write_bytes(database(NETWORKS))
        found = geoip.countries(path, map(parse_address, EXPECTED))
        assert found == {parse_address(text): country for text, country in EXPECTED.items()}

    def test_a_database_of_ipv4_alone_says_nothing_of_ipv6(self, tmp_path):
        path = tmp_path / "x.mmdb"
        path.write_bytes(database({"192.0.2.0/24": {"country": "DE"}}, version=4))
        asked = [parse_address("192.0.2.1"), parse_address("2001:db8::1"), b""]
        assert geoip.countries(path, asked) == {asked[0]: "DE"}

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"x" * 5000,
            database(NETWORKS)[:-40],
            database(NETWORKS)[2000:],
            b"\xab\xcd\xefMaxMind.com" + b"\xe1\x44",
        ],
    )
    def test_what_is_none(self, tmp_path, content):
        path = tmp_path / "x.mmdb"
        path.write_bytes(content)
        with pytest.raises(geoip.GeoipError, match=r"x\.mmdb: is not a database in MaxMind's format, or a broken one"):
            geoip.countries(path, [parse_address("192.0.2.1"), parse_address("203.0.116.1")])

    def test_no_file(self, tmp_path):
        with pytest.raises(geoip.GeoipError, match=r"none\.mmdb: No such file or directory"):
            geoip.countries(tmp_path / "none.mmdb", [])


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    whole = builtins.__import__

    def without(name, *rest):
        if name == "maxminddb":
            raise ModuleNotFoundError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(geoip.GeoipError, match=r"pip install 'pfw\[geoip\]'"):
        geoip.countries(tmp_path / "x.mmdb", [])


def test_what_is_asked_of_the_package(monkeypatch):
    class Reader:
        closed = False

        def metadata(self):
            return SimpleNamespace(ip_version=6)

        def get(self, address):
            return {"country": {"iso_code": str(address)[:3]}}

        def close(self):
            Reader.closed = True

    class InvalidDatabaseError(RuntimeError):
        pass

    package = SimpleNamespace(open_database=lambda path: Reader(), InvalidDatabaseError=InvalidDatabaseError)
    monkeypatch.setitem(sys.modules, "maxminddb", package)
    asked = [parse_address("192.0.2.1"), parse_address("2001:db8::1")]
    assert geoip.countries(Path("x"), asked) == {asked[0]: "192", asked[1]: "200"}
    assert Reader.closed


class TestFound:
    def test_the_newest_of_the_first_kind(self, tmp_path):
        one, other = tmp_path / "one", tmp_path / "other"
        for at, name in enumerate(["one/GeoLite2-City.mmdb", "other/GeoLite2-Country.mmdb", "other/My-Country-2.mmdb"]):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"")
            os.utime(tmp_path / name, (at, at))
        (one / "Country.mmdb").mkdir()
        assert geoip.found([tmp_path / "none", one, other]) == other / "My-Country-2.mmdb"
        assert geoip.found([one]) == one / "GeoLite2-City.mmdb"

    def test_none(self, tmp_path):
        assert geoip.found([tmp_path, tmp_path / "none"]) is None
