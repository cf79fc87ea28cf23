"""Domain names as detectors see them: which domain somebody registered, and what cannot be one.

A small rule stands in for the public suffix list, which is long and changes: the last two labels, and three where
the last but one is a word under which countries register. It errs towards domains that are too big (all of `github.io`
is one), which thresholds must bear.
"""

from __future__ import annotations

_UNDER_COUNTRIES = frozenset({
    "ac", "asn", "asso", "biz", "co", "com", "edu", "firm", "gen", "go", "gob", "gouv", "gov", "govt", "gv",
    "id", "ind", "info", "lg", "ltd", "mil", "ne", "net", "nic", "nom", "nsw", "or", "org", "plc", "police",
    "qld", "res", "sch", "vic",
})  # fmt: skip
"""Second labels of countries' zones, as in `co.uk`, `com.br`, `ne.jp`, `gob.mx` (publicsuffix.org)."""
TLD_CHARACTERS_MAX = 24
"""The longest in the root zone, `xn--vermgensberatung-pwb`, has as many."""
UNREGISTERED = frozenset({
    "arpa", "belkin", "corp", "dlink", "example", "home", "internal", "intranet", "invalid", "lan", "local",
    "localdomain", "localhost", "mail", "onion", "private", "router", "test", "workgroup",
})  # fmt: skip
"""Top labels in which nobody can register: RFC 2606, RFC 6761, RFC 6762, ICANN's `internal` and those that it holds
back for collisions (`corp`, `home`, `mail`), and what routers call their own network."""
_ESCAPE_EXTRA = 3
"""A byte that is no ordinary character is shown as `\\046`."""


def registered_domain(name: str) -> str | None:
    """The domain that a name belongs to, also where it is one of a private network; None for a single label, and for a
    name whose last label no zone has."""
    labels = name.rstrip(".").rsplit(".", 3)
    if len(labels) < 2 or not is_top_label(labels[-1]):
        return None
    depth = 3 if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _UNDER_COUNTRIES else 2
    return ".".join(labels[-depth:])


def is_registrable(domain: str) -> bool:
    """Whether it stands in a zone in which people register domains."""
    return domain.rpartition(".")[2] not in UNREGISTERED


def is_top_label(label: str) -> bool:
    """Whether the root zone could have it: letters alone, or the `xn--` form (RFC 1123, 2.1; RFC 5890)."""
    if not 2 <= len(label) <= TLD_CHARACTERS_MAX:
        return False
    return label.startswith("xn--") or (label.isascii() and label.isalpha())


def is_address(name: str) -> bool:
    """`192.0.2.1` asked for as a name, which careless programs do."""
    return all(label.isdecimal() for label in name.rstrip(".").split("."))


def name_octets(name: str) -> int:
    """How many bytes of a message a name stands for."""
    return max(len(name) - _ESCAPE_EXTRA * name.count("\\"), 0)


def is_under(name: str, domains: frozenset[str]) -> bool:
    """Whether a name is one of these domains, or below one."""
    at = 0
    while at >= 0:
        rest = name[at:]
        if rest in domains:
            return True
        dot = name.find(".", at)
        at = dot + 1 if dot >= 0 else -1
    return False
