"""Which addresses are one host's, and which are shared."""

from __future__ import annotations

import pytest

from pfw.engine.detect.neighbours import is_host, is_one_host, is_shared, mac_text
from pfw.model.address import parse_address


@pytest.mark.parametrize(
    ("mac", "shared"),
    [("00005e000101", True), ("00005e000201", True), ("00000c07ac0a", True), ("00000c9ff001", True),
     ("000573a00001", True), ("0007b4000101", True), ("02bf0a000001", True), ("03bf0a000001", True),
     ("00005e0003ff", False), ("00000c9fe001", False), ("525400000001", False), ("", False)],
)  # fmt: skip
def test_shared(mac, shared):
    assert is_shared(bytes.fromhex(mac)) is shared


@pytest.mark.parametrize(
    ("mac", "one"), [("525400000001", True), ("ffffffffffff", False), ("01005e000001", False), ("000000000000", False)]
)
def test_one_host(mac, one):
    assert is_one_host(bytes.fromhex(mac)) is one
    assert not is_one_host(None)


@pytest.mark.parametrize(
    ("text", "host"),
    [("192.0.2.1", True), ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("fe80::1", True),
     ("ff02::1", False), ("::", False)],
)  # fmt: skip
def test_host(text, host):
    assert is_host(parse_address(text)) is host


def test_text():
    assert mac_text(bytes.fromhex("525400000001")) == "52:54:00:00:00:01"
