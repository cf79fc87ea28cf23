"""Which domain a name belongs to."""

import pytest

from pfw.engine.detect.domain import is_address, is_registrable, is_under, name_octets, registered_domain


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("www.example.com", "example.com"),
        ("example.com.", "example.com"),
        ("a.b.c.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("www.gob.mx", "www.gob.mx"),
        ("a.b.co.com", "co.com"),
        ("x.xn--bcher-kva.xn--p1ai", "xn--bcher-kva.xn--p1ai"),
        ("printer.lan", "printer.lan"),
        ("localhost", None),
        ("", None),
        ("192.0.2.1", None),
        ("dnscat.0a1b2c", None),
        ("dnscat." + "a" * 30, None),
        ("a..", None),
    ],
)
def test_registered_domain(name, domain):
    assert registered_domain(name) == domain


def test_private_networks_register_nothing():
    assert is_registrable("example.com")
    assert not any(map(is_registrable, ("printer.lan", "com.corp", "1.in-addr.arpa")))


def test_addresses_as_names():
    assert is_address("192.0.2.1")
    assert not is_address("192.0.2.x")


def test_octets_count_an_escape_as_one():
    assert name_octets(r"a\200\201b.example") == len("a__b.example")


def test_under_is_by_whole_labels():
    domains = frozenset({"surbl.org", "e5.sk"})
    assert is_under("multi.surbl.org", domains)
    assert is_under("surbl.org", domains)
    assert not is_under("notsurbl.org", domains)
    assert not is_under("surbl.org.evil.net", domains)
