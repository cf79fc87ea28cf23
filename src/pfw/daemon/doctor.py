"""What `pfw doctor` finds: gathers what there is and has `enforce/neighbours.py` judge it. Nothing is changed.

Each examination stands for itself: one that fails says so as a finding, and the others go on. What is in force of
ours is in `daemon/checkup.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from pfw.daemon import boot, bounds, checkup, program_findings
from pfw.daemon.backends import choose, in_force, named
from pfw.daemon.state import State
from pfw.drivers import foreign
from pfw.drivers.programs import RefusedError
from pfw.enforce.foreign_chains import FAMILIES, NFT_OF_IPTABLES, read
from pfw.enforce.neighbour_links import Settings, judge_links, judge_settings, links_of
from pfw.enforce.neighbours import Area, Around, Finding, Level, Ours, analyse, listed
from pfw.enforce.nft_table import LOG_GROUP, QUIET_GROUP
from pfw.model.flow import Direction
from pfw.model.policy import Policy, PolicyError
from pfw.model.verdict import Action
from pfw.wire.error import WireError

_KINDS = (NFT_OF_IPTABLES, "iptables-legacy")
_FILTERED_MAX = 32
"""Interfaces whose tc filters are asked for."""
_OUR_NAME = "pfw"

Load = Callable[[bytes, str], Policy]
"""A policy of its text and the name of its file."""


def examine(state: State, load: Load, units: Path = boot.UNITS) -> list[Finding]:
    """All that there is to say, by area and the worst first."""
    policy = _policy(state, load)
    ours = Ours(policy is not None, policy is not None and _forwards(policy))
    found: list[Finding] = []
    for area, what, examination in (
        (Area.KERNEL, "who reads the log", _log_readers),
        (Area.BACKEND, "what can filter here", lambda: _backends(state)),
        (Area.STATE, "what is in force", lambda: checkup.state_findings(state, policy)),
        (Area.STATE, "which bounds were hit", bounds.findings),
        (Area.BOOT, "what comes with a boot", lambda: checkup.boot_findings(state, units)),
        (Area.PROGRAMS, "rules for programs", lambda: program_findings.findings(policy)),
        (Area.NEIGHBOURS, "who else filters", lambda: _rules(ours)),
        (Area.KERNEL, "the kernel's settings", lambda: judge_settings(_settings(), ours)),
        (Area.BYPASS, "interfaces", _interfaces),
        (Area.BYPASS, "packet sockets", _packet_sockets),
    ):
        found += _examined(area, what, examination)
    found += [Finding(Area.STATE, Level.WARNING, line, "look at that file") for line in dict.fromkeys(state.trouble)]
    order, levels = list(Area), list(Level)
    return sorted(found, key=lambda each: (order.index(each.area), -levels.index(each.level)))


def worst(findings: Iterable[Finding]) -> Level:
    levels = list(Level)
    return max((each.level for each in findings), key=levels.index, default=Level.OK)


def _examined(area: Area, what: str, examination: Callable[[], Iterable[Finding]]) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(examination())
    except RefusedError as error:
        advice = f"install {error.missing}" if error.missing else "run it again where that is possible"
        found.append(Finding(area, Level.NOTE, f"{what}: cannot be told ({error.what})", advice))
    except (OSError, WireError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        advice = "run it again where that is possible"
        found.append(Finding(area, Level.NOTE, f"{what}: cannot be told ({reason})", advice))
    return found


def _policy(state: State, load: Load) -> Policy | None:
    """The policy in force; None where none is, or nobody can tell."""
    try:
        known = in_force(state)
        content = None if known is None else state.rules_of(known[1].generation)
        return None if known is None or content is None else load(content, known[1].path)
    except (PolicyError, RefusedError, OSError, WireError):
        return None


def _forwards(policy: Policy) -> bool:
    return any(
        each.enabled and each.action is Action.ALLOW and Direction.FORWARD in each.directions for each in policy.rules
    )


def _backends(state: State) -> Iterator[Finding]:
    for name in ("nftables", *_KINDS):
        reason = named(name).unusable()
        if reason is None:
            yield Finding(Area.BACKEND, Level.OK, f"{name} can be used")
        else:
            yield Finding(Area.BACKEND, Level.NOTE, f"{name} cannot be used: {reason}", "only needed for --backend")
    known = in_force(state)
    try:
        name = choose("auto").name if known is None else known[0].name
        yield Finding(Area.BACKEND, Level.OK, f"pfw up takes {name} unless told otherwise")
    except RefusedError as error:
        yield Finding(Area.BACKEND, Level.FAULT, error.what, "sudo apt-get install nftables")


def _log_readers() -> Iterator[Finding]:
    groups = foreign.log_groups()
    for group in (LOG_GROUP, QUIET_GROUP):
        port = groups.get(group)
        if port is None:
            continue
        # A port is the number of its process, unless that has several sockets of this kind.
        words = foreign.command_line(port)
        who = f"{foreign.program(port)} (process {port})" if words else "a process that cannot be told"
        if any(Path(word).name == _OUR_NAME for word in words):
            yield Finding(Area.KERNEL, Level.OK, f"log group {group} is read by {who}")
        else:
            what = f"log group {group} is taken by {who}: nobody else can read what the rules tell"
            yield Finding(Area.KERNEL, Level.WARNING, what, "stop it, or have it read another group")


def _rules(ours: Ours) -> Iterator[Finding]:
    """Everybody's rules. A part that cannot be read is told of, and the others are judged."""
    objects, saved, lost = _read_rules()
    rules = objects.get("nftables") if isinstance(objects, dict) else None
    around = Around(foreign.ufw_is_on() and not foreign.in_namespace(), foreign.runs("firewalld"))
    found = [*lost, *analyse(read(rules, saved), ours, around)]
    yield from found
    if not any(each.area is Area.NEIGHBOURS for each in found):
        yield Finding(Area.NEIGHBOURS, Level.OK, "nobody else filters here")
    if not lost and not any(each.area is Area.OBSTACLE for each in found):
        yield Finding(Area.OBSTACLE, Level.OK, "no rules of others drop all that they do not know")


def _read_rules() -> tuple[object, dict[tuple[str, str], str], list[Finding]]:
    """What nft lists, decoded; what the kinds of iptables save; and what could not be read."""
    objects: object = None
    saved: dict[tuple[str, str], str] = {}
    lost = []
    try:
        objects = _decoded(foreign.nft_ruleset())
    except RefusedError as error:
        what = f"the rules of nftables cannot be read ({error.what}): who else filters there is not known"
        advice = "sudo apt-get install nftables" if error.missing else "sudo nft -t list ruleset shows them"
        lost.append(Finding(Area.NEIGHBOURS, Level.NOTE, what, advice))
    for kind in _KINDS:
        for family in FAMILIES:
            try:
                text = foreign.saved_tables(kind, family)
            except RefusedError as error:
                what = f"the {family} rules of {kind} cannot be read ({error.what})"
                lost.append(Finding(Area.NEIGHBOURS, Level.NOTE, what, "look at them with that program"))
                continue
            if text is not None:
                saved[kind, family] = text
    return objects, saved, lost


def _decoded(text: bytes) -> object:
    try:
        return msgspec.json.decode(text) if text.strip() else None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise RefusedError("what was answered is not JSON") from None


def _settings() -> Settings:
    number = foreign.number
    names = [name for name, each in _links() if name != "lo" and "UP" in _flags(each)]
    everywhere = number("net/ipv4/conf/all/rp_filter") or 0
    strict = [
        name for name in names if max(everywhere, number(f"net/ipv4/conf/{_path(name)}/rp_filter") or 0) == 1
    ]  # fmt: skip
    off = number("net/ipv6/conf/all/disable_ipv6")
    return Settings(
        tracked=number("net/netfilter/nf_conntrack_count"),
        tracked_max=number("net/netfilter/nf_conntrack_max"),
        helpers=_switch("net/netfilter/nf_conntrack_helper"),
        ipv6=off == 0,
        forward4=_switch("net/ipv4/ip_forward"),
        forward6=_switch("net/ipv6/conf/all/forwarding"),
        strict=tuple(strict),
        up=tuple(names),
        uplinks=len(foreign.uplinks()),
        bridged=_switch("net/bridge/bridge-nf-call-iptables"),
    )


def _path(interface: str) -> str:
    """An interface's name as a part of a path: it may hold anything but a slash, and is not to lead elsewhere."""
    return "_" if interface in (".", "..") else interface.replace("/", "_")


def _switch(name: str) -> bool | None:
    value = foreign.number(name)
    return None if value is None else value != 0


def _links() -> list[tuple[str, dict[str, object]]]:
    """Interfaces as `ip` lists them; none where it is not there."""
    try:
        return list(links_of(_decoded(foreign.links())))
    except RefusedError:
        return []


def _flags(link: dict[str, object]) -> list[object]:
    flags = link.get("flags")
    return flags if isinstance(flags, list) else []


def _interfaces() -> Iterator[Finding]:
    links = _decoded(foreign.links())
    filters: dict[str, object] = {}
    try:
        hooked = {
            name: None for each in _objects(_decoded(foreign.qdiscs())) if each.get("kind") in ("clsact", "ingress")
            and isinstance(name := each.get("dev"), str)
        }  # fmt: skip
        for name in list(hooked)[:_FILTERED_MAX]:
            both = [_objects(_decoded(foreign.filters(name, way))) for way in ("ingress", "egress")]
            filters[name] = [each for found in both for each in found]
    except RefusedError as error:
        what = f"whether tc carries packets past all rules cannot be told ({error.what})"
        yield Finding(Area.BYPASS, Level.NOTE, what, "sudo apt-get install iproute2")
    yield from judge_links(links, filters, _settings())


def _objects(value: object) -> list[dict[str, object]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _packet_sockets() -> Iterator[Finding]:
    inodes = foreign.packet_sockets()
    if not inodes:
        return
    held = foreign.holders(inodes)
    names = [f"{name} ({pid})" for pid, name in sorted(held.items())]
    who = listed(names) if names else "a process that cannot be told"
    what = f"packet sockets see what comes in before any rule, and send past all: {who}"
    advice = "a DHCP client, a capture and pfw monitor need theirs; look at any other"
    yield Finding(Area.BYPASS, Level.NOTE, what, advice)
