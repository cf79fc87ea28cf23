"""Single values of a rule: words, protocols, ICMP types, interfaces, paths, people.

Each `read_…` takes one value of the JSON file and gives what the model holds, or raises MisfitError. The tables
here are the vocabulary of the policy language; `schema.py` publishes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pfw.model.flow import Direction
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS, PROTOCOLS, protocol_name
from pfw.model.verdict import Action
from pfw.policy.report import MisfitError, alternatives, shown, wrong_type

ACTIONS: tuple[Action, ...] = (Action.ALLOW, Action.BLOCK, Action.REJECT, Action.ASK)

DIRECTIONS: dict[str, frozenset[Direction]] = {
    "in": frozenset({Direction.IN}),
    "out": frozenset({Direction.OUT}),
    "forward": frozenset({Direction.FORWARD}),
    "both": frozenset({Direction.IN, Direction.OUT}),
}

PROTOCOL_WORDS: dict[str, frozenset[int]] = {name: frozenset({number}) for name, number in PROTOCOLS.items()} | {
    "icmp": frozenset({ICMP, ICMPV6}),
    "ipv6-icmp": frozenset({ICMPV6}),
}
"""Any case counts."""

ICMP_TYPES: dict[str, frozenset[tuple[int, int]]] = {
    "echo-reply": frozenset({(ICMP, 0), (ICMPV6, 129)}),
    "destination-unreachable": frozenset({(ICMP, 3), (ICMPV6, 1)}),
    "packet-too-big": frozenset({(ICMPV6, 2)}),
    "source-quench": frozenset({(ICMP, 4)}),
    "redirect": frozenset({(ICMP, 5), (ICMPV6, 137)}),
    "echo-request": frozenset({(ICMP, 8), (ICMPV6, 128)}),
    "router-advertisement": frozenset({(ICMP, 9), (ICMPV6, 134)}),
    "router-solicitation": frozenset({(ICMP, 10), (ICMPV6, 133)}),
    "time-exceeded": frozenset({(ICMP, 11), (ICMPV6, 3)}),
    "parameter-problem": frozenset({(ICMP, 12), (ICMPV6, 4)}),
    "timestamp-request": frozenset({(ICMP, 13)}),
    "timestamp-reply": frozenset({(ICMP, 14)}),
    "information-request": frozenset({(ICMP, 15)}),
    "information-reply": frozenset({(ICMP, 16)}),
    "address-mask-request": frozenset({(ICMP, 17)}),
    "address-mask-reply": frozenset({(ICMP, 18)}),
    "multicast-listener-query": frozenset({(ICMPV6, 130)}),
    "multicast-listener-report": frozenset({(ICMPV6, 131)}),
    "multicast-listener-done": frozenset({(ICMPV6, 132)}),
    "multicast-listener-report-v2": frozenset({(ICMPV6, 143)}),
    "neighbour-solicitation": frozenset({(ICMPV6, 135)}),
    "neighbor-solicitation": frozenset({(ICMPV6, 135)}),
    "neighbour-advertisement": frozenset({(ICMPV6, 136)}),
    "neighbor-advertisement": frozenset({(ICMPV6, 136)}),
}
"""What the IANA registries of ICMP and ICMPv6 types have of one meaning has one name. Any case counts."""

_DEFAULTS = frozenset({"default", *(f"default {direction}" for direction in Direction)})
"""What the defaults are called where rules are listed."""

MAX_NAME = 128
MAX_TEXT = 4096
MAX_INTERFACE = 15
"""Bytes; the kernel's IFNAMSIZ with its closing zero is 16."""

LAST_USER_ID = 2**32 - 2
"""2**32 - 1 stands for "no user" in the kernel."""

SAME_ACTION = {
    "allow": ("accept", "pass", "permit", "allowed"),
    "block": ("deny", "drop", "blocked"),
    "reject": ("refuse", "rejected"),
    "ask": ("prompt",),
}
_SAME_DIRECTION = {
    "in": ("input", "incoming", "inbound", "ingress"),
    "out": ("output", "outgoing", "outbound", "egress"),
    "forward": ("route", "routed", "forwarded"),
    "both": ("any", "all", "inout"),
}
NOBODY_TO_ASK = "nobody can be asked about forwarded connections: no program of this machine owns them"
_DIGITS = "0|[1-9][0-9]{0,9}"
_USER_NAME = r"[^\s:,!*]{1,256}"


def read_text(value: object, longest: int = MAX_TEXT) -> str:
    """A text that can stand in a line of a log or a screen."""
    if not isinstance(value, str):
        raise wrong_type("a text", value)
    if len(value) > longest:
        raise MisfitError(f"is longer than {longest} characters")
    if not value.isprintable():
        odd = next(character for character in value if not character.isprintable())
        raise MisfitError(f"has a character that cannot be shown (U+{ord(odd):04X})")
    return value


def read_filled_text(value: object, longest: int = MAX_TEXT) -> str:
    text = read_text(value, longest)
    if not text:
        raise MisfitError("must not be empty")
    if text != text.strip():
        raise MisfitError(f"{shown(text)} begins or ends with a space")
    return text


def read_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise wrong_type("true or false", value)
    return value


def read_name(value: object) -> str:
    name = read_filled_text(value, MAX_NAME)
    if name.lower() in _DEFAULTS or name.lower().startswith("base "):
        raise MisfitError(f"{shown(name)} is reserved for what is always there; give the rule another name")
    return name


def read_action(value: object) -> Action:
    return Action(read_word(value, [action.value for action in ACTIONS], "an action", SAME_ACTION))


def read_direction(value: object) -> frozenset[Direction]:
    return DIRECTIONS[read_word(value, list(DIRECTIONS), "a direction", _SAME_DIRECTION)]


def read_word(value: object, words: list[str], what: str, same: dict[str, tuple[str, ...]]) -> str:
    """One of the words. `same` are those of other firewalls, by the word that is meant; `what` is what it should be."""
    if not isinstance(value, str):
        raise wrong_type(alternatives(words), value)
    if value in words:
        return value
    for word, others in same.items():
        if word in words and value.lower() in others:
            raise MisfitError(f'{shown(value)} is not {what}; write "{word}"')
    raise MisfitError(f"{shown(value)} is not {what} ({alternatives(words)})", value, words)


def read_protocol(value: object) -> frozenset[int]:
    if isinstance(value, str):
        known = PROTOCOL_WORDS.get(value.lower())
        if known is not None:
            return known
        if not re.fullmatch(_DIGITS, value):
            raise _no_protocol(value)
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type("a protocol", value)
    if not isinstance(value, int) or not 0 <= value <= 255:
        raise MisfitError(f"{shown(value)} is not a protocol (a name or 0-255)")
    return frozenset({value})


def _no_protocol(text: str) -> MisfitError:
    if text.lower() in ("any", "all", "ip", "*"):
        return MisfitError(f"{shown(text)} is not needed; leave the field out to match every protocol")
    if set(text) & set(",/ "):
        return MisfitError(f'{shown(text)} is not a protocol; several are written as a list, as in ["tcp", "udp"]')
    return MisfitError(f"{shown(text)} is not a protocol (a name or 0-255)", text, PROTOCOL_WORDS)


def read_icmp_type(value: object) -> frozenset[tuple[int, int]]:
    """Pairs of protocol and type; a number is of both protocols, which the rule's `protocol` may narrow."""
    if isinstance(value, str):
        known = ICMP_TYPES.get(value.lower())
        if known is not None:
            return known
        if not re.fullmatch(_DIGITS, value):
            raise MisfitError(f"{shown(value)} is not an ICMP type (a name or 0-255)", value, ICMP_TYPES)
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type("an ICMP type", value)
    if not isinstance(value, int) or not 0 <= value <= 255:
        raise MisfitError(f"{shown(value)} is not an ICMP type (a name or 0-255)")
    return frozenset({(ICMP, value), (ICMPV6, value)})


def read_interface(value: object) -> str:
    name = read_filled_text(value)
    if name in ("*", "any", "all"):
        raise MisfitError(f"{shown(name)} is not needed; leave the field out to match every interface")
    if "*" in name[:-1]:
        raise MisfitError(f"{shown(name)} has a * that is not at its end")
    if len(name.encode()) > MAX_INTERFACE:
        raise MisfitError(f"{shown(name)} is longer than an interface name can be ({MAX_INTERFACE} bytes)")
    if name in (".", "..") or set(name) & set(' /:!"'):
        raise MisfitError(f"{shown(name)} is not the name of an interface")
    if name.endswith("+"):
        raise MisfitError(f"{shown(name)} ends in +; the wildcard is *")
    return name


def read_app(value: object) -> str:
    """The path of a program, or of all below a folder with `*` at its end."""
    path = _read_absolute(value, "/usr/bin/firefox")
    if "*" in path[:-1]:
        raise MisfitError(f"{shown(path)} has a * that is not at its end")
    if path.endswith("/"):
        raise MisfitError(f"{shown(path)} is a folder; {shown(path + '*')} means every program in it and below")
    return _plain_path(path)


def read_script(value: object) -> str:
    """The path of what an interpreter runs. It is whole: a folder of scripts is whatever somebody puts there."""
    path = _read_absolute(value, "/usr/local/bin/backup.py")
    if "*" in path:
        raise MisfitError(f"{shown(path)} has a *; each script is named by its whole path")
    if path.endswith("/"):
        raise MisfitError(f"{shown(path)} is a folder; a script is one file")
    return _plain_path(path)


def _read_absolute(value: object, example: str) -> str:
    path = read_filled_text(value)
    if not path.startswith("/"):
        raise MisfitError(f"{shown(path)} is not an absolute path; write it in full, as in {example}")
    return path


def _plain_path(path: str) -> str:
    if any(part in ("", ".", "..") for part in path[1:].split("/")):
        raise MisfitError(f"{shown(path)} is not a plain path; take out //, . and ..")
    return path


def read_user(value: object) -> str:
    """The spelling of `Flow.users`: a name, an id as text, `group:NAME` or `group:GID`."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise wrong_type('a user name, a user id or "group:" and a group', value)
    if isinstance(value, int):
        if not 0 <= value <= LAST_USER_ID:
            raise MisfitError(f"{shown(value)} is not a user or group id (0-{LAST_USER_ID})")
        return str(value)
    text = read_filled_text(value)
    name = text.removeprefix("group:")
    if name.startswith(("@", "%")):
        raise MisfitError(f'{shown(text)} is not a user; a group is written "group:{shown(name[1:])[1:-1]}"')
    if name.lstrip("-").isdecimal():
        if not re.fullmatch(_DIGITS, name) or int(name) > LAST_USER_ID:
            raise MisfitError(f"{shown(text)} is not a user or group id (0-{LAST_USER_ID})")
    elif not re.fullmatch(_USER_NAME, name):
        raise MisfitError(f"{shown(text)} is not a user name")
    return text


def read_unit(value: object) -> str:
    unit = read_filled_text(value)
    if " " in unit or any(part in (".", "..") for part in unit.split("/")):
        raise MisfitError(f"{shown(unit)} is not a systemd unit or a control group")
    return unit


def without_ports(protocols: Iterable[int]) -> list[str]:
    """The names of those protocols that have no ports."""
    return sorted(protocol_name(number) for number in protocols if number not in PORT_PROTOCOLS)
