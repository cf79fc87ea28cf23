"""Table `inet pfw`: how things in it are called, the chains that hang on hooks, how they are turned to another
generation and how what is of no use any more is removed. What a generation consists of is in `render_nftables.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from pfw.enforce import conditions as c
from pfw.enforce import nft_text as text
from pfw.enforce.conditions import Place, Plan, Verdict
from pfw.model.address import Range
from pfw.model.verdict import Action

TABLE = "pfw"
LONG_SET = 512
"""From so many elements on a set is named by what is in it: it stays in the kernel as long as it says the same."""
LOG_GROUP, QUIET_GROUP = 7846, 7847
"""NFLOG groups: of what is told (blocked, or asked to be logged), and of what is allowed without a word, which
only somebody who wants to see everything reads."""
HISTORY_GROUP = 7849
"""What is told goes here, too: for the history, beside whoever watches. A group has one reader."""
NAMES_GROUP, NAMES_BYTES = 7848, 600
"""The group of answers of DNS, which the daemon reads: their first part, where the addresses are."""
NAMES_RATE, NAMES_BURST = 200, 500
"""Answers a second that are told of, and how many at once: so much a server can make the daemon read."""
LOG_BYTES = 192
LOG_RATE, LOG_BURST = 10, 50
"""Packets a second that a rule tells of, and how many at once. The rest is counted, not told."""
HITS = "hits"
HITS_TIMEOUT_S = 365 * 86400
"""An element a rule, put there anew at each hit: what is left of its time tells when that was."""
BAN_SETS = {c.IPV4: ("ban4", "ban4net"), c.IPV6: ("ban6", "ban6net")}
"""Hosts, and prefixes, by family."""
BANS_MAX = 1_000_000
LIMIT_SETS = {c.IPV4: ("limit4", "rate4"), c.IPV6: ("limit6", "rate6")}
"""Who is limited, and how much they still may, by family (`nft_limits.py`). They come and go with their chain."""
LIMIT_CHAINS = ("limit_in",)
TYPES = {c.IPV4: "ipv4_addr", c.IPV6: "ipv6_addr"}

_HOOKS = {Place.IN: "input", Place.OUT: "output", Place.FORWARD: "forward"}
_PRIORITY = "filter - 5"
"""Before ufw, iptables and Docker, so that counts are true; order does not matter for the verdict."""
_OWN = re.compile("g([0-9]{1,9})_")
_MAP = re.compile("g[0-9]+_m[0-9]+")


class Ban(Struct, frozen=True):
    """What is banned, a range of one family, and for how many seconds more; None for good."""

    range: Range
    left_s: int | None


class Names(Struct, frozen=True):
    """What a table has: its chains, sets (maps with them) and counters."""

    chains: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    counters: frozenset[str] = frozenset()


class Ruleset(Struct, frozen=True):
    """`load` changes no verdict, `switch` is what counts. `whole` is both as one file, for reading and for a boot
    without network. `rules` tells how many rules each chain of this generation has, `sets` its own sets; `long_sets`
    are named by what is in them, and stay from one generation to the next."""

    generation: int
    load: str
    switch: str
    whole: str
    rules: dict[str, int]
    sets: frozenset[str]
    long_sets: frozenset[str]
    shared: Names = Names()
    """The chains and sets beside those of bans that no generation owns: of answers, where programs are told apart."""


def switch(open_places: Iterable[Place], generation: int) -> str:
    """Turn the base chains to a generation that is loaded, whatever they were turned to."""
    bases = list(base_chains(frozenset(open_places), generation))
    return "\n".join(
        [
            table([chain(name, [head]) for name, head, _ in bases]),
            *(f"flush chain inet {TABLE} {name}" for name, _, _ in bases),
            *(f"add rule inet {TABLE} {name} {line}" for name, _, lines in bases for line in lines),
            "",
        ]
    )


def remove() -> str:
    """Everything of ours goes."""
    return f"table inet {TABLE}\ndelete table inet {TABLE}\n"


def sweep(there: Names, plan: Plan, kept: Iterable[Ruleset]) -> str:
    """Delete what is in the table and of no use to these rulesets: older generations, sets and counters."""
    kept = list(kept)
    chains = {*FREE_CHAINS, *(name for name, _, _ in base_chains(plan.open, 0))}
    chains = chains.union(*(each.rules.keys() | each.shared.chains for each in kept))
    sets = {HITS, *(name for pairs in (BAN_SETS, LIMIT_SETS) for pair in pairs.values() for name in pair)}
    sets = sets.union(*(each.sets | each.long_sets | each.shared.sets for each in kept))
    counters = {name for verdict in plan.verdicts for name in (verdict.counter, over_counter(verdict.counter))}
    return _delete(Names(there.chains - chains, there.sets - sets, there.counters - counters))


def sweep_generations(there: Names, kept: int) -> str:
    """Delete what belongs to other generations than this one, whatever they were."""

    def other(names: frozenset[str]) -> frozenset[str]:
        return frozenset(name for name in names if (own := _OWN.match(name)) and int(own[1]) != kept)

    return _delete(Names(other(there.chains), other(there.sets)))


def drop_generation(ruleset: Ruleset) -> str:
    """Delete what was loaded for a generation that is not in force; counters and lists may be others' too."""
    return _delete(Names(frozenset(ruleset.rules), ruleset.sets))


def _delete(names: Names) -> str:
    """Rules first, then what they and the chains hold on to, then the chains."""
    lines = [f"flush chain inet {TABLE} {name}" for name in sorted(names.chains)]
    for name in sorted(names.sets):
        lines.append(f"delete {'map' if _MAP.fullmatch(name) else 'set'} inet {TABLE} {name}")
    lines += [f"delete chain inet {TABLE} {name}" for name in sorted(names.chains)]
    lines += [f"delete counter inet {TABLE} {name}" for name in sorted(names.counters)]
    return "\n".join([*lines, ""]) if lines else ""


def over_counter(counter: str) -> str:
    """The counter of what a rule did without telling of it, by the name of its own."""
    return f"o{counter[1:]}"


def hit_number(counter: str) -> int:
    """A rule's element in the set of hits, by the name of its counter."""
    return int(counter[2:10], 16) >> 1


def ban_sets(elements: Mapping[str, Sequence[str]]) -> list[str]:
    """The sets of bans, with these elements."""
    return [
        filled_set(name, f"type {TYPES[family]}; flags {flags}; size {BANS_MAX}", elements.get(name, ()))
        for family, names in BAN_SETS.items()
        for name, flags in zip(names, ("timeout", "interval,timeout"), strict=True)
    ]


def bans_file(hosts: Iterable[Ban], nets: Iterable[Ban], verdict: Verdict) -> str:
    """Bans as a file for a boot; prefixes do not overlap."""
    elements: dict[str, list[str]] = {}
    for of_nets, bans in enumerate((hosts, nets)):
        for ban in bans:
            left = "" if ban.left_s is None else f" timeout {max(1, ban.left_s)}s"
            name = BAN_SETS[text.family_of(ban.range[0])][of_nets]
            elements.setdefault(name, []).append(f"{text.range_text(ban.range)}{left}")
    return table([*ban_sets(elements), *(ban_chains(verdict) if elements else ())])


def is_told(verdict: Verdict) -> bool:
    return verdict.action is not Action.ALLOW or verdict.log


def log_prefix(generation: int, number: int) -> str:
    """What a packet that is told of carries: whose it is. `daemon` reads it back."""
    return f"pfw {generation} {number}"


def table(blocks: Iterable[str]) -> str:
    body = "\n".join(f"\t{block}" for block in blocks)
    return f"table inet {TABLE} {{\n{body}\n}}\n"


def chain(name: str, lines: Iterable[str]) -> str:
    body = "\n".join(f"\t\t{line}" for line in lines)
    return f"chain {name} {{\n{body}\n\t}}"


def filled_set(name: str, kind: str, elements: Sequence[str], note: str = "", word: str = "set") -> str:
    noted = f" {text.comment(note)};" if note else ""
    filled = f" elements = {{ {', '.join(elements)} }};" if elements else ""
    return f"{word} {name} {{ {kind};{noted}{filled} }}"


def base_chains(open_places: frozenset[Place], generation: int) -> Iterator[tuple[str, str, list[str]]]:
    """The chains that hang on hooks: name, what makes them one, and their rules."""
    for place, hook in _HOOKS.items():
        policy = "accept" if place in open_places else "drop"
        head = f"type filter hook {hook} priority {_PRIORITY}; policy {policy};"
        yield hook, head, [f"goto g{generation}_{place}"]


def ban_chains(verdict: Verdict) -> list[str]:
    """The chains that drop what is banned, both ways and before connections are looked up. They are there only
    while there are bans, because every packet goes through them; no generation owns them."""
    stop = "goto banned"
    checks = {"saddr": [f"{word} saddr @{name} {stop}" for word, name in _ban_words()],
              "daddr": [f"{word} daddr @{name} {stop}" for word, name in _ban_words()]}  # fmt: skip
    return [
        chain("banned", [
            f"{counted(verdict)} {tell(log_prefix(0, c.BANNED))} drop {text.comment(verdict.name)}",
            f"counter name {over_counter(verdict.counter)} drop",
        ]),
        chain("ban_in", ["type filter hook prerouting priority raw; policy accept;", 'iifname "lo" accept',
                         *checks["saddr"]]),
        chain("ban_out", ["type filter hook output priority raw; policy accept;", 'oifname "lo" accept',
                          *checks["daddr"]]),
        chain("ban_forward", ["type filter hook forward priority raw; policy accept;", *checks["daddr"]]),
    ]  # fmt: skip


BAN_CHAINS = ("ban_in", "ban_out", "ban_forward", "banned")
"""In the order in which they can be deleted."""
FREE_CHAINS = (*BAN_CHAINS, *LIMIT_CHAINS)
"""Those on hooks that come and go whatever generation is in force."""


def hang_bans(verdict: Verdict) -> str:
    """Put the chains of bans in their places."""
    return table(ban_chains(verdict))


def unhang_bans() -> str:
    """Take them away."""
    return "".join(f"{what} chain inet {TABLE} {name}\n" for what in ("flush", "delete") for name in BAN_CHAINS)


def counted(verdict: Verdict) -> str:
    """Count a packet for a rule, and remember when that was."""
    return f"counter name {verdict.counter} update @{HITS} {{ numgen inc mod 1 offset {hit_number(verdict.counter)} }}"


def tell(prefix: str) -> str:
    """Tell of packets, so many a second, and end for those above."""
    told = " ".join(log(prefix, group) for group in (LOG_GROUP, HISTORY_GROUP))
    return f"limit rate {LOG_RATE}/second burst {LOG_BURST} packets {told}"


def log(prefix: str, group: int) -> str:
    return f'log prefix "{prefix}" group {group} snaplen {LOG_BYTES}'


def _ban_words() -> list[tuple[str, str]]:
    return [(text.family_word(family), name) for family, names in BAN_SETS.items() for name in names]
