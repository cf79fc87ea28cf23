"""A plan as iptables, ip6tables and ipset, in chains `PFW-…` and sets `pfw-…`.

Chains are flushed and filled anew in one `iptables-restore --noflush` a family, which is one transaction a table;
sets are made before under names of their generation and destroyed behind. What we let pass is returned to the
chain that we were called from, as an accept in nftables ends only its own base chain: others' rules still count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import product

from msgspec import Struct

from pfw.enforce import conditions as c
from pfw.enforce import ipt_text as text
from pfw.enforce.conditions import CannotError, Place, Plan, Step
from pfw.enforce.lists import prefixes
from pfw.enforce.nft_table import (
    BANS_MAX,
    HISTORY_GROUP,
    LOG_BURST,
    LOG_BYTES,
    LOG_GROUP,
    LOG_RATE,
    LONG_SET,
    QUIET_GROUP,
    Ban,
    log_prefix,
)
from pfw.model.address import AddressSet, Range, format_address
from pfw.model.verdict import Action

FAMILIES = (c.IPV4, c.IPV6)
BAN_SETS = {c.IPV4: "pfw-ban4", c.IPV6: "pfw-ban6"}
_FAMILY_WORDS = {c.IPV4: "inet", c.IPV6: "inet6"}
_CHAINS = {Place.IN: "PFW-IN", Place.OUT: "PFW-OUT", Place.FORWARD: "PFW-FWD", Place.PUBLISHED: "PFW-PUB"}

JUMPS = {
    "raw": (("PREROUTING", "PFW-EIN"), ("OUTPUT", "PFW-EOUT")),
    "filter": (("INPUT", "PFW-IN"), ("OUTPUT", "PFW-OUT"), ("FORWARD", "PFW-FWD")),
}
"""By table: the built-in chains, and ours that they call first."""

_RULE = re.compile(r"(?:\[\d+:\d+\] )?-A (PFW-\S+) (.*)")
_JUMP = re.compile(r"(?:\[\d+:\d+\] )?-A (?!PFW-)(\S+) -j (PFW-\S+)")

Counts = Mapping[str, tuple[int, int]]
"""Packets and bytes by what a rule's comment begins with."""


class Tables(Struct, frozen=True):
    """The rules of one family, by table: the lines of each chain."""

    chains: dict[str, dict[str, list[str]]]


class Ruleset(Struct, frozen=True):
    """`sets` is for `ipset restore`; `families` holds the chains of IPv4 and of IPv6; `names` are all sets."""

    generation: int
    sets: str
    families: dict[int, Tables]
    names: frozenset[str]


def render(plan: Plan, generation: int, loaded: Iterable[str] = (), *, tell_all: bool = False) -> Ruleset:
    """The ruleset of a plan. `loaded` are the sets that the kernel has already. With `tell_all` also what is allowed
    without a word is told of, to whoever listens. Raises CannotError."""
    if plan.programs is not None:
        what = 'rules for programs, for users that receive, and "ask" need nftables; leave --backend out'
        raise CannotError(what)
    renderer = _Renderer(plan, generation, tell_all=tell_all)
    families = {family: renderer.tables(family) for family in FAMILIES}
    loaded = set(loaded)
    lines = [_create(name, family, " timeout 0", BANS_MAX) for family, name in BAN_SETS.items()]
    lines += [line for name, block in renderer.sets.items() if name not in loaded for line in block]
    return Ruleset(generation, "\n".join([*lines, ""]), families, frozenset([*renderer.sets, *BAN_SETS.values()]))


def restore(tables: Tables, present: Mapping[str, Iterable[str]], counts: Counts) -> str:
    """The text for `iptables-restore --noflush --counters`. `present` are our chains that are there, by table, and the
    jumps to them as `CALLER>CHAIN`; chains that are no longer needed go, counts of rules that stay are kept."""
    blocks = []
    # A rule may be counted in several tables: what they counted together goes to the first of them.
    left = dict(counts)
    for table, jumps in JUMPS.items():
        chains = tables.chains.get(table, {})
        there = set(present.get(table, ()))
        old = sorted(name for name in there if ">" not in name and name not in chains)
        lines = [f"*{table}", *(f":{name} - [0:0]" for name in [*chains, *old])]
        for name, rules in chains.items():
            lines.extend(f"{_counts(rule, left)}-A {name} {rule}" for rule in rules)
        for caller, name in jumps:
            if f"{caller}>{name}" in there:
                lines.append(f"-D {caller} -j {name}")
            if name in chains:
                # In front again, whatever others have put there meanwhile.
                lines.append(f"-I {caller} 1 -j {name}")
        lines.extend(f"-X {name}" for name in old)
        blocks.append("\n".join([*lines, "COMMIT", ""]))
    return "".join(blocks)


NOTHING = Tables({})
"""Of a machine without us."""


def parse_saved(saved: str) -> tuple[dict[str, set[str]], dict[str, tuple[int, int]]]:
    """What `iptables-save -c` says of us: chains and jumps by table, as `restore` wants them, and the counts."""
    present: dict[str, set[str]] = {}
    counts: dict[str, tuple[int, int]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":PFW-"):
            present.setdefault(table, set()).add(line[1:].split()[0])
        elif line.startswith("[") and " -A PFW-" in line and '--comment "' in line:
            _count(line, counts)
        elif (jump := _JUMP.fullmatch(line)) is not None:
            present.setdefault(table, set()).add(f"{jump[1]}>{jump[2]}")
    return present, counts


def tables_of(saved: str) -> Tables:
    """Our chains as they were saved, as tables that can be restored."""
    chains: dict[str, dict[str, list[str]]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":PFW-"):
            chains.setdefault(table, {})[line[1:].split()[0]] = []
        elif (rule := _RULE.fullmatch(line)) is not None:
            chains.setdefault(table, {}).setdefault(rule[1], []).append(rule[2])
    return Tables(chains)


def without_others(saved: str) -> list[str]:
    """The tables in which there is nothing but what is ours: no rule, no chain, no policy of anybody else."""
    found, table, alone = [], "", False
    for line in saved.splitlines():
        if line.startswith("*"):
            table, alone = line[1:].strip(), True
        elif line == "COMMIT" and alone:
            found.append(table)
        elif line.startswith(":"):
            alone = alone and (line.startswith(":PFW-") or line.split()[1] == "ACCEPT")
        elif line.startswith(("-A", "[")):
            alone = alone and (_RULE.fullmatch(line) is not None or _JUMP.fullmatch(line) is not None)
    return found


def present_of(tables: Tables) -> dict[str, set[str]]:
    """What `parse_saved` would say was there if these tables were."""
    found = {table: set(chains) for table, chains in tables.chains.items()}
    for table, jumps in JUMPS.items():
        found.setdefault(table, set()).update(f"{caller}>{name}" for caller, name in jumps if name in found[table])
    return found


def ban_lines(ban: Ban) -> list[str]:
    """What bans for `ipset restore`: a range that is no prefix is several."""
    left = f"timeout {0 if ban.left_s is None else max(1, ban.left_s)} -exist"
    found = prefixes(AddressSet([ban.range]))
    name = BAN_SETS[c.IPV4 if len(found[0][0]) == 4 else c.IPV6]
    return [f"add {name} {format_address(packed)}/{length} {left}" for packed, length in found]


def _count(line: str, counts: dict[str, tuple[int, int]]) -> None:
    numbers, _, rest = line[1:].partition("]")
    key = rest.split('--comment "', 1)[1].split(None, 1)[0].strip('"')
    packets, _, size = numbers.partition(":")
    if packets.isdecimal() and size.isdecimal():
        had = counts.get(key, (0, 0))
        counts[key] = had[0] + int(packets), had[1] + int(size)


def _counts(rule: str, left: dict[str, tuple[int, int]]) -> str:
    """What a rule begins with; taken out of what is left."""
    if '--comment "' not in rule:
        return ""
    key = rule.split('--comment "', 1)[1].split(None, 1)[0].strip('"')
    packets, size = left.pop(key, (0, 0))
    return f"[{packets}:{size}] "


class _Renderer:
    def __init__(self, plan: Plan, generation: int, *, tell_all: bool) -> None:
        self._plan = plan
        self._tell_all = tell_all
        self._generation = generation
        self.sets: dict[str, list[str]] = {}
        self._long_names: dict[int, str] = {}
        self._set_names: dict[tuple[int, tuple[Range, ...]], str] = {}
        self._chains: dict[str, dict[str, list[str]]] = {}
        self._family = c.IPV4

    def tables(self, family: int) -> Tables:
        self._family = family
        self._chains = {table: {name: [] for _, name in jumps} for table, jumps in JUMPS.items()}
        self._chains["filter"][_CHAINS[Place.PUBLISHED]] = []
        self._bans()
        for place in self._plan.chains:
            self._place(place)
        return Tables(self._chains)

    def _bans(self) -> None:
        """What is banned is dropped before connections are looked up, and on its way through."""
        raw, forward = self._chains["raw"], self._chains["filter"]["PFW-FWD"]
        raw["PFW-EIN"].append("-i lo -j RETURN")
        raw["PFW-EOUT"].append("-o lo -j RETURN")
        banned = BAN_SETS[self._family]
        for table, lines, end in (
            ("raw", raw["PFW-EIN"], "src"),
            ("raw", raw["PFW-EOUT"], "dst"),
            ("filter", forward, "dst"),
        ):
            lines.append(f"-m set --match-set {banned} {end} -g {self._verdict_chain(table, c.BANNED)}")

    def _place(self, place: Place) -> None:
        chain = self._plan.chains[place]
        lines = self._chains["filter"][_CHAINS[place]]
        for step in chain.connections:
            lines.extend(self._step(step))
        if place is Place.FORWARD:
            lines.append(f"-m conntrack --ctstate DNAT -g {_CHAINS[Place.PUBLISHED]}")
        for step in (*chain.rules, chain.end):
            try:
                lines.extend(self._step(step))
            except CannotError as error:
                index = None if step.verdict is None else self._plan.verdicts[step.verdict].index
                raise CannotError(error.what, index, error.field) from None

    def _step(self, step: Step) -> Iterator[str]:
        target = "-j RETURN" if step.verdict is None else f"-g {self._verdict_chain('filter', step.verdict)}"
        alternatives = [text.transport(step)]
        last = ""
        for condition in step.conditions:
            if isinstance(condition, c.UnderLimit):
                last = text.limit(condition, "" if step.verdict is None else self._plan.verdicts[step.verdict].counter)
            elif not isinstance(condition, c.OfProtocol | c.HasPort):
                alternatives.append(text.match(condition, self._family, self._named))
        for words in product(*alternatives):
            yield " ".join(filter(None, (*words, last, target)))

    def _verdict_chain(self, table: str, number: int) -> str:
        """The chain that counts, tells and ends. Its first rule only counts."""
        name = f"PFW-V{number}"
        chains = self._chains[table]
        if name in chains:
            return name
        verdict = self._plan.verdicts[number]
        lines = chains[name] = [text.comment(f"{verdict.counter} {verdict.name}")]
        told = verdict.action is not Action.ALLOW or verdict.log
        if told:
            rate = f"-m limit --limit {LOG_RATE}/second --limit-burst {LOG_BURST} "
            lines.append(f"{rate}{text.comment(f't{verdict.counter[1:]} told')} {self._log(number, LOG_GROUP)}")
            lines.append(f"{rate}{self._log(number, HISTORY_GROUP)}")
        elif self._tell_all and not verdict.quiet:
            lines.append(self._log(number, QUIET_GROUP))
        if verdict.action is Action.REJECT:
            self._chains[table].setdefault("PFW-REJECT", self._refusals())
            lines.append("-g PFW-REJECT")
        else:
            lines.append("-j RETURN" if verdict.action is Action.ALLOW else "-j DROP")
        return name

    def _log(self, number: int, group: int) -> str:
        prefix = text.quoted(log_prefix(self._generation, number))
        return f"-j NFLOG --nflog-group {group} --nflog-size {LOG_BYTES} --nflog-prefix {prefix}"

    def _refusals(self) -> list[str]:
        six = self._family == c.IPV6
        port, admin = ("icmp6-port-unreachable", "icmp6-adm-prohibited") if six else (
            "icmp-port-unreachable", "icmp-admin-prohibited")  # fmt: skip
        # The target can fail to answer, and then lets go of the packet: what is behind it drops.
        return [
            "-p tcp -j REJECT --reject-with tcp-reset",
            *(f"-p {number} -j REJECT --reject-with {port}" for number in (17, 136, 33, 132)),
            f"-j REJECT --reject-with {admin}",
            "-j DROP",
        ]

    def _named(self, family: int, ranges: Sequence[Range]) -> str:
        known = self._long_names.get(id(ranges))
        if known is not None:
            return known
        key = family, tuple(ranges)
        if key not in self._set_names:
            name = f"pfw-g{self._generation}-s{len(self._set_names)}"
            if len(ranges) >= LONG_SET:
                name = f"pfw-l{family}-{blake2b(repr(key).encode(), digest_size=8).hexdigest()}"
            self._set_names[key] = name
            self.sets[name] = _filled(name, family, ranges)
        if len(ranges) >= LONG_SET:
            self._long_names[id(ranges)] = self._set_names[key]
        return self._set_names[key]


def _filled(name: str, family: int, ranges: Sequence[Range]) -> list[str]:
    found = prefixes(AddressSet(list(ranges)))
    lines = [_create(name, family, "", max(65536, len(found) + 1))]
    for packed, length in found:
        if length == 0:
            # A hash of prefixes cannot hold everything; two halves can.
            lines += [
                f"add {name} {half}/1" for half in (("0.0.0.0", "128.0.0.0") if family == c.IPV4 else ("::", "8000::"))
            ]
        else:
            lines.append(f"add {name} {format_address(packed)}/{length}")
    return lines


def _create(name: str, family: int, timeout: str, most: int) -> str:
    size = max(1024, 1 << (most // 2).bit_length() if timeout == "" and most > 65536 else 1024)
    return f"create {name} hash:net family {_FAMILY_WORDS[family]} hashsize {size} maxelem {most}{timeout} -exist"
