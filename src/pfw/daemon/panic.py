"""Panic: nothing in or out but loopback and the remote session that asked, whatever the policy says.

It stands beside the policy, in a table (or chains) of its own and before everything else, so that it can be taken
away again without anybody knowing what there was. It does not outlast a boot.
"""

from __future__ import annotations

from contextlib import suppress

from pfw.daemon.machine import Session
from pfw.drivers import iptables, netfilter, nft
from pfw.drivers.programs import RefusedError
from pfw.model.address import format_address

TABLE = "pfw_panic"
_CHAINS = {"PREROUTING": "PFWPANIC-IN", "OUTPUT": "PFWPANIC-OUT"}
_DISCOVERY = (133, 134, 135, 136)
"""What an IPv6 session needs to find its way to the next hop (RFC 4861)."""


KINDS = ("nftables", "iptables-nft", "iptables-legacy")


def where() -> list[str]:
    """The kinds of backends in which it is panic; what cannot be looked at is left out."""
    found = []
    for kind in KINDS:
        if kind != "nftables" and iptables.missing(kind) is not None:
            continue
        with suppress(OSError, RefusedError):
            if is_on(kind):
                found.append(kind)
    return found


def is_on(backend: str) -> bool:
    """Whether it is panic. Raises RefusedError and OSError."""
    if backend == "nftables":
        return netfilter.table_exists(TABLE)
    return any("PFWPANIC-IN" in iptables.saved(backend, family) for family in (4, 6))


def start(backend: str, sessions: list[Session]) -> None:
    """Cut everything off but these sessions. Raises RefusedError."""
    if backend == "nftables":
        nft.load(_nft_text(sessions))
        return
    for family in (4, 6):
        _stop_tables(backend, family)
        iptables.restore(backend, family, _tables_text(sessions, family))


def stop(backend: str) -> None:
    """Take it away. Raises RefusedError."""
    if backend == "nftables":
        nft.load(f"table inet {TABLE}\ndelete table inet {TABLE}\n")
        return
    for family in (4, 6):
        _stop_tables(backend, family)


def _nft_text(sessions: list[Session]) -> str:
    arriving, leaving = ['iifname "lo" accept'], ['oifname "lo" accept']
    for each in sessions:
        word = "ip" if len(each.remote) == 4 else "ip6"
        remote, local = format_address(each.remote), format_address(each.local)
        arriving.append(
            f"{word} saddr {remote} {word} daddr {local} tcp sport {each.remote_port} tcp dport {each.port} accept"
        )
        leaving.append(
            f"{word} saddr {local} {word} daddr {remote} tcp sport {each.port} tcp dport {each.remote_port} accept"
        )
        if word == "ip6":
            discovery = f"icmpv6 type {{ {', '.join(map(str, _DISCOVERY))} }} accept"
            arriving.append(discovery)
            leaving.append(discovery)
    body = "\n".join(
        f"\tchain {name} {{\n\t\ttype filter hook {hook} priority raw - 10; policy drop;\n"
        + "".join(f"\t\t{line}\n" for line in lines)
        + "\t}"
        for name, hook, lines in (("in", "prerouting", arriving), ("out", "output", leaving))
    )
    return f"table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n{body}\n}}\n"


def _tables_text(sessions: list[Session], family: int) -> str:
    lines = ["*raw", *(f":{name} - [0:0]" for name in _CHAINS.values())]
    lines += ["-A PFWPANIC-IN -i lo -j RETURN", "-A PFWPANIC-OUT -o lo -j RETURN"]
    for each in sessions:
        if (len(each.remote) == 4) != (family == 4):
            continue
        remote, local = format_address(each.remote), format_address(each.local)
        lines.append(
            f"-A PFWPANIC-IN -s {remote} -d {local} -p tcp --sport {each.remote_port} --dport {each.port} -j RETURN"
        )
        lines.append(
            f"-A PFWPANIC-OUT -s {local} -d {remote} -p tcp --sport {each.port} --dport {each.remote_port} -j RETURN"
        )
        if family == 6:
            lines += [
                f"-A {chain} -p ipv6-icmp -m icmp6 --icmpv6-type {number} -j RETURN"
                for chain in _CHAINS.values()
                for number in _DISCOVERY
            ]
    for caller, name in _CHAINS.items():
        lines += [f"-A {name} -j DROP", f"-I {caller} 1 -j {name}"]
    return "\n".join([*lines, "COMMIT", ""])


def _stop_tables(backend: str, family: int) -> None:
    if "PFWPANIC-IN" not in iptables.saved(backend, family):
        return
    lines = ["*raw"]
    for caller, name in _CHAINS.items():
        lines += [f":{name} - [0:0]", f"-D {caller} -j {name}"]
    lines += [f"-X {name}" for name in _CHAINS.values()]
    try:
        iptables.restore(backend, family, "\n".join([*lines, "COMMIT", ""]))
    except RefusedError as error:
        raise RefusedError(f"panic could not be taken away: {error.what}") from None
