"""The files of OpenSnitch, read: a rule a file, aliases of networks, the default action.

The text of a file is somebody else's. What is no rule to OpenSnitch raises NotLoadedError, and what only we refuse
TooMuchError. Missing members are what Go makes of them: false, an empty text (its encoding/json, which also does not
look at the case of keys).
"""

from __future__ import annotations

from typing import TypeVar

from msgspec import DecodeError, Struct, json

from pfw.policy.opensnitch_match import Operator
from pfw.policy.report import describe

T = TypeVar("T")

MAX_OPERATORS = 1000


class NotLoadedError(Exception):
    """OpenSnitch does not load the file either."""


class TooMuchError(Exception):
    """The file is beyond our bounds, and OpenSnitch may have loaded it."""


class RuleFile(Struct, frozen=True):
    """A file by its name, and what is in it."""

    name: str
    content: bytes


class SnitchRule(Struct, frozen=True, kw_only=True):
    """A rule as its file says it. `operators` must all match; `empty_list`: a list among them is empty, which
    matches everything; `old_list`: a list stood as a text in `data`, as older versions wrote it."""

    file: str
    name: str
    action: str
    duration: str
    enabled: bool
    precedence: bool
    nolog: bool
    description: str
    created: str
    operators: tuple[Operator, ...]
    empty_list: bool
    old_list: bool

    @property
    def allows(self) -> bool:
        return self.action == "allow"

    @property
    def order(self) -> bytes:
        """Go compares texts byte by byte."""
        return self.name.encode(errors="surrogatepass")


def read_rule(file: RuleFile) -> SnitchRule:
    """Raises NotLoadedError and TooMuchError."""
    value = _keys(read_json(file.content))
    operators, empty_list, old_list = _conditions(_member(value, "operator", dict, {}))
    created = value.get("created")
    return SnitchRule(
        file=file.name,
        name=_member(value, "name", str, ""),
        action=_member(value, "action", str, ""),
        duration=_member(value, "duration", str, ""),
        enabled=_member(value, "enabled", bool, False),
        precedence=_member(value, "precedence", bool, False),
        nolog=_member(value, "nolog", bool, False),
        description=_member(value, "description", str, ""),
        # Some versions export a number of seconds.
        created=created[:10] if isinstance(created, str) else "",
        operators=operators,
        empty_list=empty_list,
        old_list=old_list,
    )


def read_json(content: bytes) -> object:
    """Raises NotLoadedError for what is no JSON, and TooMuchError for what is nested too deep."""
    try:
        return json.decode(content.decode(errors="replace"))
    except RecursionError:
        raise TooMuchError("is nested too deep") from None
    except (DecodeError, ValueError) as error:
        raise NotLoadedError(f"is no JSON: {error}") from None


def _keys(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise NotLoadedError(f"must be an object, not {describe(value)}")
    return {key.lower(): item for key, item in value.items() if item is not None}


def _member(value: dict[str, object], key: str, kind: type[T], missing: T) -> T:
    found = value.get(key, missing)
    if not isinstance(found, kind):
        raise NotLoadedError(f'"{key}" has a value of the wrong kind: {describe(found)}')
    return found


def _conditions(operator: dict[str, object]) -> tuple[tuple[Operator, ...], bool, bool]:
    """The conditions that must all hold, lists in lists laid flat; whether a list is empty, and one a text."""
    found: list[Operator] = []
    empty_list = old_list = False
    waiting: list[object] = [operator]
    for _ in range(MAX_OPERATORS):
        if not waiting:
            return tuple(found), empty_list, old_list
        value = _keys(waiting.pop())
        kind, operand = _member(value, "type", str, ""), _member(value, "operand", str, "")
        data = _member(value, "data", str, "")
        if kind != "list" and operand != "list":
            found.append(Operator(kind, operand, data, _member(value, "sensitive", bool, False)))
            continue
        members = _member(value, "list", list, [])
        if not members and data:
            members, old_list = _list_in_text(data), True
        empty_list = empty_list or not members
        waiting += reversed(members)
    raise TooMuchError(f"has more than {MAX_OPERATORS} conditions")


def _list_in_text(data: str) -> list[object]:
    try:
        members = read_json(data.encode(errors="replace"))
    except NotLoadedError:
        return []
    return members if isinstance(members, list) and all(isinstance(each, dict) for each in members) else []


def read_aliases(content: bytes) -> dict[str, tuple[str, ...]]:
    """network_aliases.json: names of networks. Raises NotLoadedError and TooMuchError."""
    value = read_json(content)
    if not isinstance(value, dict):
        raise NotLoadedError(f"must be an object, not {describe(value)}")
    aliases: dict[str, tuple[str, ...]] = {}
    for name, networks in value.items():
        if not isinstance(networks, list) or not all(isinstance(each, str) for each in networks):
            raise NotLoadedError("must hold lists of texts")
        aliases[name] = tuple(networks)
    return aliases


def read_default(content: bytes) -> str | None:
    """The DefaultAction of default-config.json. Raises NotLoadedError and TooMuchError."""
    return _member(_keys(read_json(content)), "defaultaction", str, "") or None
