"""This machine, as the engine is told of it: its addresses and the connections that are open already.

Where the kernel does not answer, the engine is told less and judges by what it sees.
"""

from __future__ import annotations

from pfw.drivers import netlink
from pfw.engine.suspicion import LOOPBACK
from pfw.model.address import AddressSet
from pfw.model.event import Event, LocalAddresses, OpenSocket
from pfw.wire.error import WireError


def viewpoint(local: AddressSet | None) -> LocalAddresses:
    """From where a capture is looked at: as the machine with these addresses, or as an observer who
    knows only this machine's own."""
    if local is not None:
        return LocalAddresses(local)
    try:
        # Loopback addresses are everybody's: on somebody's wire they tell of no machine.
        return LocalAddresses(netlink.local_addresses().without(LOOPBACK), observer=True)
    except (OSError, WireError):
        return LocalAddresses(AddressSet(), observer=True)


def addresses() -> list[Event]:
    """This machine's addresses now; nothing where they cannot be had."""
    try:
        return [LocalAddresses(netlink.local_addresses())]
    except (OSError, WireError):
        return []


def open_connections() -> list[Event]:
    """The connections that are open already. Where they cannot be had, each is judged by its next packet."""
    try:
        return [OpenSocket(key) for key in netlink.open_sockets()]
    except (OSError, WireError):
        return []
