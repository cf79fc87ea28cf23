"""Personal Firewall: one readable policy for this machine's traffic."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def block_ip(address: str, for_s: float | None = None, *, why: str = "", force: bool = False) -> None:
    """Ban an address, a prefix or a range, for so many seconds or for good. Needs root.

    Raises ValueError for what is no address, PermissionError for what must not be banned (this machine's own
    addresses, its gateway and resolvers, whoever is logged in remotely; `force` bans them), RuntimeError where the
    system refuses.
    """
    _banning().block_ip(address, for_s, why=why, force=force)


def unblock_ip(address: str) -> bool:
    """Lift a ban; whether there was one. Raises ValueError, and RuntimeError where the system refuses."""
    return bool(_banning().unblock_ip(address))


def _banning() -> Any:
    """Imported when it is needed: nothing else of this package knows the whole of it."""
    return import_module("pfw.commands.banning")
