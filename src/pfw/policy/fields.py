"""The fields of a rule: how each is read, and what they demand of each other.

`RULE_FIELDS` is the list of them; a new field is added there, to `Rule`, and to `schema.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pfw.model.flow import Direction
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS, TCP, UDP, protocol_name
from pfw.model.rule import Rule
from pfw.model.verdict import Action
from pfw.policy import programs, times, values
from pfw.policy.locate import Path
from pfw.policy.names import Names
from pfw.policy.report import Report, alternatives, describe, shown

Read = dict[str, Any]
"""Field -> what its reader made of it; fields with a fault are not in it."""

FieldReader = Callable[[Names, Path, object], object]


def _one(reader: Callable[[object], object]) -> FieldReader:
    return lambda names, path, value: names.report.read(path, value, reader)


def _several(reader: Callable[[object], object]) -> FieldReader:
    """A value or a list of them, as a tuple in the order of the file, each once."""

    def read(names: Names, path: Path, value: object) -> object:
        found = names.report.read_each(path, value, reader)
        return None if found is None else tuple(dict.fromkeys(found))

    return read


def read_protocols(names: Names, path: Path, value: object) -> frozenset[int] | None:
    found = names.report.read_each(path, value, values.read_protocol)
    return None if found is None else frozenset().union(*found)


def _read_icmp_types(names: Names, path: Path, value: object) -> object:
    return names.report.read_each(path, value, values.read_icmp_type)


def _read_apps(names: Names, path: Path, value: object) -> object:
    return programs.read_apps(names.report, path, value)


def _read_schedule(names: Names, path: Path, value: object) -> object:
    return times.read_schedule(names.report, path, value)


RULE_FIELDS: dict[str, FieldReader] = {
    "name": _one(values.read_name),
    "action": _one(values.read_action),
    "direction": _one(values.read_direction),
    "from": Names.read_addresses,
    "to": Names.read_addresses,
    "remote": Names.read_addresses,
    "protocol": read_protocols,
    "port": Names.read_ports,
    "from_port": Names.read_ports,
    "icmp_type": _read_icmp_types,
    "interface": _several(values.read_interface),
    "app": _read_apps,
    "script": _several(values.read_script),
    "user": _several(values.read_user),
    "unit": _several(values.read_unit),
    "schedule": _read_schedule,
    "limit": _one(times.read_limit),
    "burst": _one(times.read_burst),
    "expires": _one(times.read_expiry),
    "log": _one(values.read_flag),
    "enabled": _one(values.read_flag),
    "note": _one(values.read_text),
}

REQUIRED = ("name", "action")


def read_rule(names: Names, path: Path, value: object) -> Rule | None:
    """A rule, or None and faults."""
    report = names.report
    faults = report.count
    if not isinstance(value, dict):
        report.fault(path, f"must be an object, not {describe(value)}")
        return None
    read: Read = {}
    for key, item in value.items():
        reader = RULE_FIELDS.get(key)
        if reader is None:
            report.unknown_key((*path, key), "a field of a rule", RULE_FIELDS)
            continue
        found = reader(names, (*path, key), item)
        if found is not None:
            read[key] = found
    for key in REQUIRED:
        if key not in value:
            report.fault(path, f'has no "{key}"')
    _check_ends(report, path, value, read)
    _check_owner(report, path, value, read)
    protocols = _settle_protocols(report, path, value, read)
    icmp_types = _settle_icmp_types(report, path, value, read, protocols)
    if "burst" in value and "limit" not in value:
        report.fault((*path, "burst"), 'goes only with a "limit"')
    elif "burst" in read and "limit" in read and read["limit"][2] is not None:
        report.fault((*path, "burst"), 'is in the text of "limit" already; give it once')
    return None if report.count > faults else _make_rule(read, protocols, icmp_types)


def _make_rule(read: Read, protocols: frozenset[int] | None, icmp_types: frozenset[tuple[int, int]] | None) -> Rule:
    limit = read.get("limit")
    return Rule(
        name=read["name"],
        action=read["action"],
        directions=read.get("direction", values.DIRECTIONS["both"]),
        source=read.get("from"),
        destination=read.get("to"),
        remote=read.get("remote"),
        protocols=protocols,
        source_ports=read.get("from_port"),
        ports=read.get("port"),
        icmp_types=icmp_types,
        interfaces=read.get("interface"),
        apps=read.get("app"),
        scripts=read.get("script"),
        users=read.get("user"),
        units=read.get("unit"),
        schedule=read.get("schedule"),
        limit=None if limit is None else times.make_limit(limit, read.get("burst")),
        expires=read.get("expires"),
        log=read.get("log", False),
        enabled=read.get("enabled", True),
        note=read.get("note", ""),
    )


def _check_ends(report: Report, path: Path, value: dict[str, object], read: Read) -> None:
    if "remote" not in value:
        return
    for key in ("from", "to"):
        if key in value:
            what = f'does not go with "{key}"; "remote" is the other end, whichever side started'
            report.fault((*path, "remote"), what)
    if read.get("direction") == values.DIRECTIONS["forward"]:
        what = 'does not go with direction "forward", which has two other ends; use "from" and "to"'
        report.fault((*path, "remote"), what)


def _check_owner(report: Report, path: Path, value: dict[str, object], read: Read) -> None:
    if "script" in value and "app" not in value:
        report.fault((*path, "script"), 'goes only with an "app", which is the interpreter that runs it')
    if read.get("action") is Action.ASK and Direction.FORWARD in read.get("direction", ()):
        report.fault((*path, "action"), values.NOBODY_TO_ASK)


def _settle_protocols(report: Report, path: Path, value: dict[str, object], read: Read) -> frozenset[int] | None:
    """The protocols of the rule, those that ports or ICMP types imply where it names none."""
    protocols: frozenset[int] | None = read.get("protocol")
    with_ports = [key for key in ("port", "from_port") if key in value]
    if protocols is not None:
        portless = values.without_ports(protocols)
        for key in with_ports if portless else ():
            fit = ", ".join(sorted(protocol_name(number).lower() for number in PORT_PROTOCOLS))
            report.fault((*path, key), f"goes only with protocols that have ports ({fit}); {portless[0]} has none")
        return protocols
    if "protocol" in value:
        return None
    if with_ports and "icmp_type" in value:
        report.fault((*path, "icmp_type"), f"does not go with {alternatives(with_ports)}, which ICMP does not have")
        return None
    if with_ports:
        return frozenset({TCP, UDP})
    return frozenset({ICMP, ICMPV6}) if "icmp_type" in value else None


def _settle_icmp_types(
    report: Report, path: Path, value: dict[str, object], read: Read, protocols: frozenset[int] | None
) -> frozenset[tuple[int, int]] | None:
    """The types that the rule's protocols have."""
    if "icmp_type" not in value or protocols is None:
        return None
    others = sorted(protocols - {ICMP, ICMPV6})
    if others:
        what = f'goes only with protocol "icmp" or "icmpv6"; {protocol_name(others[0])} has no such types'
        report.fault((*path, "icmp_type"), what)
        return None
    settled: set[tuple[int, int]] = set()
    written = value["icmp_type"]
    for index, pairs in enumerate(read.get("icmp_type", ())):
        fitting = {pair for pair in pairs if pair[0] in protocols}
        if not fitting:
            place = (*path, "icmp_type", index) if isinstance(written, list) else (*path, "icmp_type")
            item = written[index] if isinstance(written, list) else written
            mine, its = (protocol_name(number) for number in (min(protocols), next(iter(pairs))[0]))
            report.fault(place, f"{shown(item)} is a type of {its}, and the rule is for {mine} only")
        settled |= fitting
    return frozenset(settled)
