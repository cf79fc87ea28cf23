"""What interfaces and kernel settings mean for us: programs on interfaces, bridges, tunnels, switches that are set.

Decoded answers of `ip` and `tc` may have any shape; what does not fit is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from pfw.enforce.neighbours import Area, Finding, Level, Ours, listed

FILL_WARNS_AT = 0.8
_TUNNELS = frozenset({"wireguard", "tun", "ipip", "gre", "sit", "vti", "xfrm", "ppp", "ovpn"})


class Settings(Struct, frozen=True, kw_only=True):
    """Switches of the network namespace; None where the kernel does not have one."""

    tracked: int | None = None
    tracked_max: int | None = None
    helpers: bool | None = None
    """Whether connection tracking opens ports for protocols by itself."""
    ipv6: bool = True
    forward4: bool | None = None
    forward6: bool | None = None
    strict: tuple[str, ...] = ()
    """The interfaces on which answers must leave by the way that the question came (rp_filter 1)."""
    up: tuple[str, ...] = ()
    """Interfaces that are up, without loopback."""
    uplinks: int = 0
    """Interfaces that a default route leads over."""
    bridged: bool | None = None
    """Whether what a bridge carries is shown to us (br_netfilter)."""


def links_of(links: object) -> Iterator[tuple[str, dict[str, object]]]:
    """Interfaces by name, of what `ip -d -j link` says."""
    for each in _list(links):
        if isinstance(each, dict) and isinstance(name := each.get("ifname"), str):
            yield name, each


def kind_of(link: Mapping[str, object]) -> str:
    about = link.get("linkinfo")
    kind = about.get("info_kind") if isinstance(about, dict) else None
    return kind if isinstance(kind, str) else ""


def judge_links(links: object, filters: Mapping[str, object], settings: Settings) -> list[Finding]:
    """`filters` are the answers of `tc -j filter show`, by interface."""
    found = dict(links_of(links))
    masters = [each.get("master") for each in found.values()]
    programs = [name for name, each in found.items() if each.get("xdp")]
    taken = [name for name, each in filters.items() if _steals(each)]
    tunnels = [f"{name} ({kind_of(each)})" for name, each in found.items() if kind_of(each) in _TUNNELS]
    bridges = [name for name, each in found.items() if kind_of(each) == "bridge" and name in masters]
    findings = []
    if programs:
        what = f"XDP programs run on {listed(programs)}: they see packets before all rules, and may pass or drop them"
        findings.append(Finding(Area.BYPASS, Level.NOTE, what, "ip -d link shows them; look at whose they are"))
    if taken:
        what = f"tc programs or redirects are on {listed(taken)}: they may carry packets past all rules"
        findings.append(Finding(Area.BYPASS, Level.NOTE, what, "tc filter show dev NAME ingress shows them"))
    if bridges and settings.bridged is not True:
        what = f"what a bridge carries between its ports ({listed(bridges)}) is not seen: br_netfilter is off"
        advice = "filter it on the guests; or modprobe br_netfilter and set net.bridge.bridge-nf-call-iptables to 1"
        findings.append(Finding(Area.BYPASS, Level.NOTE, what, advice))
    if tunnels:
        advice = 'what comes by them is judged like all else; "interface" in a rule tells it apart'
        findings.append(Finding(Area.NEIGHBOURS, Level.NOTE, f"there are tunnels: {listed(tunnels)}", advice))
    return findings


def _steals(filters: object) -> bool:
    """Whether a filter of tc runs a program or sends packets elsewhere."""
    return any(_kind(each) == "bpf" or "mirred" in map(_kind, _actions(each)) for each in _list(filters))


def _actions(filter_: object) -> list[object]:
    options = filter_.get("options") if isinstance(filter_, dict) else None
    return _list(options.get("actions") if isinstance(options, dict) else None)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _kind(value: object) -> object:
    return value.get("kind") if isinstance(value, dict) else None


def judge_settings(settings: Settings, ours: Ours) -> list[Finding]:
    return [*_kernel(settings), *_limits(settings), *_routing(settings, ours)]


def _kernel(settings: Settings) -> Iterator[Finding]:
    if settings.tracked is None:
        what = "connection tracking is not there yet; it comes with the first policy"
        yield Finding(Area.KERNEL, Level.NOTE, what, "if it does not, the kernel lacks it: modprobe nf_conntrack")
    else:
        yield Finding(Area.KERNEL, Level.OK, "connection tracking is there")
    if not settings.ipv6:
        yield Finding(Area.KERNEL, Level.NOTE, "IPv6 is off: rules for it have no effect", "nothing to do")
    if settings.helpers:
        what = "connection tracking assigns its helpers by itself: who speaks FTP or IRC through here can open ports"
        yield Finding(Area.BYPASS, Level.WARNING, what, "sudo sysctl -w net.netfilter.nf_conntrack_helper=0")


def _limits(settings: Settings) -> Iterator[Finding]:
    tracked, most = settings.tracked, settings.tracked_max
    if tracked is None or not most:
        return
    what = f"{tracked:,} of {most:,} connections are tracked"
    if tracked < FILL_WARNS_AT * most:
        yield Finding(Area.LIMITS, Level.OK, what)
        return
    advice = f"a full table drops new connections: sudo sysctl -w net.netfilter.nf_conntrack_max={most * 2}"
    yield Finding(Area.LIMITS, Level.WARNING, what, advice)


def _routing(settings: Settings, ours: Ours) -> Iterator[Finding]:
    if ours.forwards and settings.forward4 is False:
        both = settings.forward6 is not True
        what = f"the policy lets traffic be forwarded, and the kernel forwards {'none' if both else 'IPv6 only'}"
        advice = "sudo sysctl -w net.ipv4.ip_forward=1" + (" net.ipv6.conf.all.forwarding=1" if both else "")
        yield Finding(Area.OBSTACLE, Level.WARNING, what, advice)
    if settings.strict and len(settings.up) > 1:
        several = settings.uplinks > 1
        what = f"{listed(settings.strict)} takes only what would be answered the same way (rp_filter=1)"
        advice = "with several ways out, answers get lost: sudo sysctl -w net.ipv4.conf.all.rp_filter=2"
        yield Finding(Area.OBSTACLE, Level.WARNING if several else Level.NOTE, what, advice)
