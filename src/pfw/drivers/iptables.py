"""The programs of iptables, of either kind (over nftables, or the legacy tables), and ipset."""

from __future__ import annotations

from pfw.drivers.programs import Job, RefusedError, find, run

KINDS = ("iptables", "iptables-nft", "iptables-legacy")
"""What the system has as iptables, or one kind of it."""

_WAIT_S = "20"
"""How long to wait for somebody else who is changing the legacy tables."""


def _program(kind: str, family: int, what: str) -> str:
    return f"{kind if family == 4 else kind.replace('iptables', 'ip6tables', 1)}-{what}"


def missing(kind: str) -> str | None:
    """The first program that is not there."""
    needed = [_program(kind, family, what) for family in (4, 6) for what in ("restore", "save")]
    return next((name for name in [*needed, "ipset"] if find(name) is None), None)


def same_kind(kind: str) -> str:
    """`iptables-nft` or `iptables-legacy`: which one a program is, as its version says."""
    return "iptables-nft" if "nf_tables" in run(Job((f"{kind}-save", "--version"))) else "iptables-legacy"


def restore_job(kind: str, family: int, text: str) -> Job:
    """What loads tables and leaves all chains alone that the text does not name."""
    words = (_program(kind, family, "restore"), "--noflush", "--counters", "--wait", _WAIT_S)
    return Job(words, text)


def restore(kind: str, family: int, text: str) -> None:
    """Load the tables of one family, each in one transaction. Raises RefusedError."""
    run(restore_job(kind, family, text))


def test(kind: str, family: int, text: str) -> None:
    """Whether the program understands a text; nothing is loaded. Raises RefusedError."""
    run(Job((_program(kind, family, "restore"), "--noflush", "--test"), text))


def saved(kind: str, family: int) -> str:
    """All tables of a family, with counts. Raises RefusedError."""
    return run(Job((_program(kind, family, "save"), "-c")))


def sets_job(text: str) -> Job:
    """What makes and fills sets, or destroys them."""
    return Job(("ipset", "restore"), text)


def load_sets(text: str) -> None:
    """Raises RefusedError; sets that were made before the line that failed stay."""
    run(sets_job(text))


def set_names() -> set[str]:
    """The names of all sets. Raises RefusedError."""
    return set(run(Job(("ipset", "list", "-name"))).split())


def members(name: str) -> list[str]:
    """The entries of a set, each as `address/length` or an address, with what is said of it behind."""
    lines = run(Job(("ipset", "save", name))).splitlines()
    return [line.split(" ", 2)[2] for line in lines if line.startswith(f"add {name} ")]


__all__ = ["KINDS", "RefusedError", "load_sets", "members", "missing", "restore", "saved", "set_names", "test"]
