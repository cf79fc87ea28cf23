"""Names inside a policy: aliases and service names, and the sets that they stand for.

An alias is a list of addresses or a list of ports, and may name other aliases. It is read once, after
those that it names, and every rule shares the result.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from itertools import chain

from pfw.model.address import AddressSet, parse_range
from pfw.model.rule import PortRange
from pfw.policy import addresses, ports
from pfw.policy.locate import Path
from pfw.policy.report import MisfitError, Report, describe, shown
from pfw.policy.services import COMMON_SERVICES, Services

MAX_ALIAS_NAME = 64
_ALIAS_NAME = rf"[^\W\d][\w-]{{0,{MAX_ALIAS_NAME - 1}}}"
"""Begins with a letter or underscore, so that it is never a number; no dot or colon, so never an address."""

Meaning = AddressSet | tuple[PortRange, ...]

_FAULTY: Meaning = ()
"""An alias with a fault, reported where it is defined. (No alias is of no ports.)"""

_MAX_CIRCLE_SHOWN = 5


class Names:
    """What the names of one file mean. Reads every value that may hold a name."""

    def __init__(self, report: Report, services: Services) -> None:
        self.report = report
        self._services = services
        self._aliases: dict[str, Meaning] = {}
        self._memo: dict[tuple[str, ...], AddressSet] = {}

    def read_addresses(self, path: Path, value: object) -> AddressSet | None:
        """The set of an address, a prefix, a range, an alias or a list of them; `!` in front excludes."""
        items = value if isinstance(value, list) else [value]
        ranges = addresses.read_bulk(items)
        if ranges is not None:
            return AddressSet(ranges)
        texts = tuple(item for item in items if isinstance(item, str))
        remember = len(texts) == len(items) < addresses.BULK
        if remember and texts in self._memo:
            return self._memo[texts]
        reader = addresses.AddressReader(self._address_alias, self._address_names)
        if self.report.read_each(path, value, reader.read) is None:
            return None
        result = self.report.read(path, value, lambda _: reader.result())
        if remember and result is not None:
            self._memo[texts] = result
        return result

    def read_ports(self, path: Path, value: object) -> tuple[PortRange, ...] | None:
        """The ranges of a port, a range, a service, an alias or a list of them: sorted, apart."""
        found = self.report.read_each(path, value, self._read_port)
        return None if found is None else ports.merge([pair for pairs in found for pair in pairs])

    def define_aliases(self, path: Path, value: object) -> None:
        """Takes in the object of aliases, whatever order they are in."""
        if not isinstance(value, dict):
            self.report.fault(path, f"must be an object of names and lists, not {describe(value)}")
            return
        needs: dict[str, set[str]] = {}
        for name, content in value.items():
            if not re.fullmatch(_ALIAS_NAME, name):
                what = "is no name for an alias; it begins with a letter and has letters, digits, _ and - only"
                self.report.fault_at_key((*path, name), what)
            items = content if isinstance(content, list) else [content]
            ranges = addresses.read_bulk(items)
            if ranges is None:
                needs[name] = {text for item in items if (text := _name_in(item)) in value}
            else:
                self._aliases[name] = AddressSet(ranges)
        for name in self._in_order(path, needs):
            self._aliases[name] = self._read_alias((*path, name), value[name])

    def _in_order(self, path: Path, needs: dict[str, set[str]]) -> list[str]:
        """Aliases behind those that they need. Those that need each other are reported and left out."""
        waiting = {name: {need for need in needed if need in needs} for name, needed in needs.items()}
        users: dict[str, list[str]] = {name: [] for name in needs}
        for name, needed in waiting.items():
            for need in needed:
                users[need].append(name)
        ready = deque(name for name, needed in waiting.items() if not needed)
        order: list[str] = []
        while ready:
            name = ready.popleft()
            order.append(name)
            del waiting[name]
            for user in users[name]:
                waiting[user].discard(name)
                if not waiting[user]:
                    ready.append(user)
        self._report_circles(path, waiting)
        self._aliases.update(dict.fromkeys(waiting, _FAULTY))
        return order

    def _report_circles(self, path: Path, waiting: dict[str, set[str]]) -> None:
        followed: set[str] = set()
        for start in waiting:
            steps: dict[str, int] = {}
            name = start
            while name not in followed and name not in steps:
                steps[name] = len(steps)
                name = min(waiting[name])
            if name not in followed:
                circle = list(steps)[steps[name] :]
                names = [*circle[:_MAX_CIRCLE_SHOWN], *(["…"] if len(circle) > _MAX_CIRCLE_SHOWN else []), name]
                self.report.fault((*path, name), f"names itself: {' -> '.join(shown(each)[1:-1] for each in names)}")
            followed.update(steps)

    def _read_alias(self, path: Path, value: object) -> Meaning:
        """An alias whose kind is that of its entries. What they name has been read."""
        items = value if isinstance(value, list) else [value]
        kinds = [self._kind(item) for item in items]
        known = [kind for kind in kinds if kind is not None]
        if not known and items and all(isinstance(item, str) for item in items):
            self.report.read_each(path, value, self._explain_unknown)
            return _FAULTY
        if len(set(known)) > 1:
            at = next(at for at, kind in enumerate(kinds) if kind is not None and kind is not known[0])
            here = "ports" if known[0] is tuple else "addresses"
            what = f"{shown(items[at])} does not go with the {here} before it; an alias holds addresses or ports"
            self.report.fault((*path, at), what)
            return _FAULTY
        read = self.read_ports if known and known[0] is tuple else self.read_addresses
        meaning: Meaning | None = read(path, value)
        return _FAULTY if meaning is None else meaning

    def _kind(self, item: object) -> type | None:
        """AddressSet or tuple for what an entry is meant to be; None where that cannot be told."""
        if isinstance(item, int):
            return tuple
        if not isinstance(item, str):
            return None
        text = _name_in(item)
        if text in self._aliases:
            meaning = self._aliases[text]
            return type(meaning) if meaning is not _FAULTY else None
        if text in addresses.BUILT_IN_ALIASES:
            return AddressSet
        try:
            parse_range(text)
        except ValueError:
            if ports.is_port_text(text) or self._services.ports(text) is not None:
                return tuple
            return AddressSet if set(text) & set(".:/") else None
        return AddressSet

    def _explain_unknown(self, item: object) -> bool:
        text = _name_in(item)
        if text in self._aliases:
            raise MisfitError("")
        what = f"{shown(text)} is neither an address nor a port, a service name or an alias"
        raise MisfitError(what, text, chain(self._address_names(), COMMON_SERVICES))

    def _address_alias(self, name: str) -> AddressSet | None:
        meaning = self._aliases.get(name)
        if meaning is None:
            built_in = addresses.BUILT_IN_ALIASES.get(name)
            if built_in is not None:
                meaning = self._aliases[name] = AddressSet([parse_range(text) for text in built_in])
        if meaning is None or isinstance(meaning, AddressSet):
            return meaning
        if meaning is _FAULTY:
            raise MisfitError("")
        raise MisfitError(f"{shown(name)} is an alias of ports, and addresses belong here")

    def _read_port(self, item: object) -> tuple[PortRange, ...]:
        number = ports.read_number(item)
        if number is not None:
            return (number,)
        name = str(item)
        meaning = self._aliases.get(name)
        if meaning is _FAULTY:
            raise MisfitError("")
        if isinstance(meaning, tuple):
            return meaning
        service = self._services.ports(name)
        if service is not None:
            return tuple((port, port) for port in service)
        if meaning is not None or name in addresses.BUILT_IN_ALIASES:
            raise MisfitError(f"{shown(name)} is an alias of addresses, and ports belong here")
        raise ports.explain(name, chain(self._aliases, COMMON_SERVICES))

    def _address_names(self) -> Iterable[str]:
        return chain(self._aliases, addresses.BUILT_IN_ALIASES)


def _name_in(item: object) -> str:
    """The name that an entry may hold, without the mark of an exclusion."""
    return item.removeprefix("!").lstrip() if isinstance(item, str) else ""
