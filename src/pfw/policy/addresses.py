"""Addresses as a policy writes them, and why something is none.

The long lists of block lists are read in one go; only where that fails is every entry looked at, to tell
which one it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pfw.model.address import EVERYWHERE, AddressSet, Range, parse_range, parse_ranges
from pfw.policy.report import MisfitError, shown, wrong_type

BUILT_IN_ALIASES: dict[str, tuple[str, ...]] = {
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    "loopback": ("127.0.0.0/8", "::1"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
}
"""Aliases that are there without being written. One of the same name in the file takes their place."""

BULK = 64
"""From so many entries on a list is first tried as addresses alone."""

# Patterns are compiled where they are first needed, which in a file without faults is nowhere.
_LEADING_ZERO = r"(?:[0-9]+\.){0,3}0[0-9]+(?:\.[0-9]+)*(?:[/-].*)?"
_MAC = r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}"
_HOST_NAME = r"(?=.*[A-Za-z])[\w-]+(?:\.[\w-]+)+\.?"
_EVERY = ("any", "all", "everywhere", "anywhere", "*")
_WHAT = "an address, a prefix, a range first-last or an alias"


def read_bulk(items: list[object]) -> list[Range] | None:
    """The ranges of a long list that holds nothing but addresses; None where it must be read one by one."""
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) < BULK or len(texts) != len(items):
        return None
    try:
        return parse_ranges(texts)
    except ValueError:
        return None


class AddressReader:
    """Reads the entries of one list, exclusions apart. `look_up` gives the set that an alias stands for
    and raises MisfitError where it is none; it answers None to a name that nobody knows."""

    def __init__(self, look_up: Callable[[str], AddressSet | None], known: Callable[[], Iterable[str]]) -> None:
        self._look_up = look_up
        self._known = known
        self._named: list[Range] = []
        self._named_sets: list[AddressSet] = []
        self._excluded: list[Range] = []

    def read(self, item: object) -> bool:
        """Takes one entry in. Raises MisfitError."""
        if not isinstance(item, str):
            raise wrong_type(_WHAT, item)
        exclude = item.startswith("!")
        text = item[1:].lstrip() if exclude else item
        try:
            found = parse_range(text)
        except ValueError as error:
            alias = self._look_up(text)
            if alias is None:
                raise explain(text, str(error), self._known()) from None
            if exclude:
                self._excluded.extend(alias.ranges)
            else:
                self._named_sets.append(alias)
        else:
            (self._excluded if exclude else self._named).append(found)
        return True

    def result(self) -> AddressSet:
        """What is named (if nothing is, everything) without what is excluded. Raises MisfitError if nothing is left."""
        if len(self._named_sets) == 1 and not self._named:
            named = self._named_sets[0]  # shared by all who name this alias
        elif self._named or self._named_sets:
            named = AddressSet(self._named).union(*self._named_sets)
        else:
            named = EVERYWHERE
        if not self._excluded:
            return named
        left = named.without(AddressSet(self._excluded))
        if not left:
            raise MisfitError("excludes every address that it names, so nothing can match")
        return left


def explain(text: str, reason: str, known: Iterable[str]) -> MisfitError:
    """Why a text is no address. `reason` is that of `parse_range`, which speaks of the text."""
    if not text:
        return MisfitError(f"must be {_WHAT}, not an empty text")
    if text != text.strip():
        return MisfitError(f"{shown(text)} begins or ends with a space")
    if text.lower() in _EVERY:
        return MisfitError(f"{shown(text)} is not needed; leave the field out to match every address")
    if text.lower() == "localhost":
        return MisfitError('"localhost" is a host name; write the alias "loopback"')
    if "://" in text:
        return MisfitError(f"{shown(text)} is a URL; a policy knows addresses only")
    if re.fullmatch(_MAC, text):
        return MisfitError(f"{shown(text)} is a hardware address; a policy knows IP addresses only")
    if re.fullmatch(_LEADING_ZERO, text):
        return MisfitError(f"{shown(text)} has a leading zero, which some programs read as octal; leave it out")
    if "%" in text:
        return MisfitError(f'{shown(text)} has a zone; leave it out and give the field "interface"')
    address, slash, mask = text.partition("/")
    if slash and "." in mask:
        return MisfitError(f"{shown(text)} has a netmask; write the prefix length, as in 192.168.0.0/16")
    if reason != "is not an address":
        return MisfitError(f"{shown(text)} {reason}")
    if re.fullmatch(_HOST_NAME, address) and not address.replace(".", "").isdigit():
        return MisfitError(f"{shown(text)} is a host name; a policy knows addresses only, so write those that it has")
    return MisfitError(f"{shown(text)} is not {_WHAT}", text, known)
