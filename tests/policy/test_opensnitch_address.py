"""Addresses by their text: what begins like that against the texts of many addresses."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random

import pytest

from pfw.model.address import AddressSet, parse_range
from pfw.policy.opensnitch_address import beginning, network, single


def _addresses() -> list[str]:
    random = Random(1)
    found = [str(ip_address(random.getrandbits(32))) for _ in range(200)]
    for _ in range(600):
        groups = [random.choice(("0", "0", "1", "f", "fe", "fe80", "2001", "db8", "ffff")) for _ in range(8)]
        found.append(str(ip_address(":".join(groups))))
    return [*found, "10.0.0.1", "10.0.0.10", "100.1.1.1", "1.2.3.4", "::", "::1", "ff02::fb"]


ADDRESSES = _addresses()
BEGINS = sorted(
    {text[:length] for text in ADDRESSES[::20] for length in (0, 1, 2, 3, 4, 5, 6, 9, 14)} | {"0", "g", "256."}
)


@pytest.mark.parametrize("text", BEGINS)
def test_begin_of_a_text(text):
    narrow, exact = beginning(text, False)
    wide, as_exact = beginning(text, True)
    assert exact == as_exact
    assert not exact or narrow == wide
    for address in ADDRESSES:
        packed = ip_address(address).packed
        begins = address.startswith(text)
        assert begins or packed not in AddressSet(narrow)
        assert not begins or packed in AddressSet(wide)


def test_common_begins_are_exact():
    for text, expected in (("10.", "10.0.0.0/8"), ("192.168.", "192.168.0.0/16"), ("fe80:", "fe80::/16"), ("", None)):
        ranges, exact = beginning(text, False)
        assert exact
        assert expected is None or AddressSet(ranges) == AddressSet([parse_range(expected)])


def test_address_in_another_spelling_was_never_equal():
    assert single("fe80::1", False) == ([parse_range("fe80::1")], True)
    assert single("fe80:0::1", False) == ([], True)
    assert single("fe80:0::1", True) == ([parse_range("fe80::1")], False)
    assert single("host", True) == ([], True)


def test_network_is_a_prefix_and_ipv4_where_it_is_that():
    assert network("10.1.2.3/8") == parse_range("10.0.0.0/8")
    assert network("::ffff:10.0.0.0/104") == parse_range("10.0.0.0/8")
    assert network("::/0") == parse_range("::/0")
    for text in ("10.0.0.1", "10.0.0.1-10.0.0.2", "LAN", "10.0.0.0/33", "010.0.0.0/8"):
        with pytest.raises(ValueError, match=r"."):
            network(text)
