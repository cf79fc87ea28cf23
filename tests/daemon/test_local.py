"""From where a capture is looked at."""

from pfw.daemon.local import viewpoint
from pfw.model.address import AddressSet, parse_address, parse_range


def test_a_machine_that_is_named_is_no_observer():
    local = AddressSet([parse_range("192.0.2.0/24")])
    assert viewpoint(local).addresses == local
    assert not viewpoint(local).observer


def test_else_it_is_this_machines_but_as_an_observer():
    seen = viewpoint(None)
    assert seen.observer
    # On somebody's wire a loopback address tells of no machine.
    assert parse_address("127.0.0.1") not in seen.addresses
    assert parse_address("::1") not in seen.addresses
