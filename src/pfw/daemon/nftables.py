"""Enforcing with nftables: texts go to the program nft, bans and questions to the kernel itself.

A program started for each ban would take 3 ms, and 130 to 250 ms once a big set is there; a message takes 10 µs.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence

from pfw.daemon.backend import Before, Counted, Live, Undo
from pfw.drivers import netfilter, nft
from pfw.drivers.programs import Job, RefusedError, find
from pfw.enforce import nft_limits, nft_table, render_nftables
from pfw.enforce.bans import flattened
from pfw.enforce.conditions import BANNED, IPV4, Plan, Verdict
from pfw.enforce.nft_table import BAN_SETS, FREE_CHAINS, HITS, HITS_TIMEOUT_S, LIMIT_SETS, TABLE, Ban
from pfw.enforce.nft_text import family_of
from pfw.enforce.plan import only_bans, without_units
from pfw.model.address import IPV4_LAST, IPV6_LAST, Range, as_int, from_int
from pfw.wire.netlink import attributes

_PROBE = """table inet pfw_probe {
	set hits { typeof numgen inc mod 2; size 2; flags dynamic,timeout; timeout 1d; }
	counter c { }
	chain c {
		type filter hook input priority filter;
		ct state established accept
		meta l4proto tcp ct original proto-dst 1 accept
		update @hits { numgen inc mod 1 offset 1 } counter name c
		limit rate over 1/second log prefix "x" group 1 snaplen 64
		meta l4proto tcp reject with tcp reset
	}
}
"""
"""What every ruleset of ours uses; asked of the kernel and never loaded."""

_GOTO = re.compile(rb"g([0-9]{1,9})_in\0")
_NAMELESS = re.compile(rb"__(?:set|map)[0-9]+\0+")
_RULE_HANDLE, _RULE_POSITION = 3, 6


class NftChange:
    """A generation on its way."""

    def __init__(self, plan: Plan, generation: int, *, tell_all: bool) -> None:
        self._plan = plan
        self._generation = generation
        self._is_first = not netfilter.table_exists(TABLE)
        self.ruleset = render_nftables.render(plan, generation, netfilter.read_set_names(TABLE), tell_all=tell_all)

    def load(self) -> None:
        nft.load(self.ruleset.load)

    def undo(self, before: Before | None) -> Undo:
        if before is None:
            return Undo([nft.job(nft_table.remove())])
        back = nft_table.switch(before.open, before.generation)
        return Undo([nft.job(back), nft.job(nft_table.drop_generation(self.ruleset))])

    def switch(self) -> None:
        nft.load(self.ruleset.switch)

    def verify(self) -> str:
        hooks = netfilter.read_chains(TABLE)
        if hooks is None:
            raise RefusedError("the table was taken out while it was put in; somebody else changes the ruleset")
        found = _read(hooks, self._generation)
        for name, number in self.ruleset.rules.items():
            there = len(found.get(name, ()))
            if there != number:
                raise RefusedError(f"chain {name} has {there} rules in the kernel, not {number}")
        decides = _generation(found)
        if decides != self._generation:
            raise RefusedError(f"generation {decides} decides, not {self._generation}")
        return _fingerprint(hooks, found)

    def sweep(self) -> None:
        there = None if self._is_first else netfilter.read_names(TABLE)
        if there is None:
            return
        names = nft_table.Names(there.chains, there.sets, there.counters)
        leftovers = nft_table.sweep(names, self._plan, [self.ruleset])
        if leftovers:
            nft.load(leftovers)

    def created(self) -> list[str]:
        return []

    def boot(self) -> dict[str, str]:
        plan = without_units(self._plan)
        whole = self.ruleset.whole if plan is self._plan else render_nftables.render(plan, self._generation).whole
        return {"boot.nft": whole}


class Nftables:
    """The backend for nftables."""

    name = kind = "nftables"

    def unusable(self) -> str | None:
        if find("nft") is None:
            return "the program nft is not there; install it with: apt-get install nftables"
        try:
            nft.check(_PROBE)
        except RefusedError as error:
            return f"this kernel's nftables lacks what is needed ({error})"
        return None

    def generation(self) -> int | None:
        if not netfilter.table_exists(TABLE):
            return None
        return _generation(netfilter.read_rules(TABLE, ["input"])) or 0

    def live(self) -> Live | None:
        hooks = netfilter.read_chains(TABLE)
        generation = self.generation()
        if hooks is None or generation is None:
            return None
        return Live(generation or None, _fingerprint(hooks, _read(hooks, generation)))

    def sweep_others(self, generation: int) -> None:
        there = netfilter.read_names(TABLE)
        if there is not None:
            leftovers = nft_table.sweep_generations(nft_table.Names(there.chains, there.sets), generation)
            if leftovers:
                nft.load(leftovers)

    def show(self, plan: Plan) -> str:
        return render_nftables.render(plan, 1).whole

    def change(self, plan: Plan, generation: int, *, tell_all: bool = False) -> NftChange:
        return NftChange(plan, generation, tell_all=tell_all)

    def removal(self, created: Sequence[str] = ()) -> list[Job]:
        del created
        return [nft.job(nft_table.remove())] if netfilter.table_exists(TABLE) else []

    def counters(self) -> dict[str, Counted]:
        found = netfilter.read_counters(TABLE)
        hits = {
            int.from_bytes(element.key, sys.byteorder): element.left_ms
            for element in netfilter.read_elements(TABLE, HITS)
        }
        counted = {}
        for name, (packets, size) in found.items():
            if not name.startswith("r_"):
                continue
            left_ms = hits.get(nft_table.hit_number(name))
            last_s = None if left_ms is None or not packets else max(0.0, HITS_TIMEOUT_S - left_ms / 1000)
            untold = found.get(nft_table.over_counter(name), (0, 0))[0]
            counted[name] = Counted(packets, size, untold, last_s)
        return counted

    def ban(self, added: Sequence[Ban], lifted: Sequence[Range], everything: Sequence[Ban]) -> None:
        changes: list[netfilter.SetChange] = []
        for family, (hosts, nets) in BAN_SETS.items():
            fresh = [each for each in added if family_of(each.range[0]) == family]
            gone = [each for each in lifted if family_of(each[0]) == family]
            new_hosts = [_host(each) for each in fresh if _is_host(each.range)]
            old_hosts = [netfilter.SetElement(from_int(each[0])) for each in gone if _is_host(each)]
            if old_hosts:
                changes.append(netfilter.SetChange(hosts, "delete", old_hosts))
            if new_hosts:
                changes.append(netfilter.SetChange(hosts, "add", new_hosts))
            if any(not _is_host(each.range) for each in fresh) or any(not _is_host(each) for each in gone):
                changes += _all_nets(nets, family, everything)
        try:
            netfilter.change_set(TABLE, changes)
        except OSError:
            # One had run out, or was there already: say all of them anew, in one go.
            netfilter.change_set(TABLE, list(_all(everything)))
        if everything:
            _hang_bans()
        elif "ban_in" in (netfilter.read_chains(TABLE) or {}):
            nft.load(nft_table.unhang_bans())

    def ban_host(self, ban: Ban) -> bool:
        name = BAN_SETS[family_of(ban.range[0])][0]
        try:
            netfilter.change_set(TABLE, [netfilter.SetChange(name, "add", [_host(ban)])])
        except FileExistsError:
            is_new = False
        else:
            is_new = True
        # Also where it is there already: whoever lifted the last ban that he knew of took the chains away.
        _hang_bans()
        return is_new

    def boot_bans(self, bans: Sequence[Ban]) -> dict[str, str]:
        nets = flattened(ban for ban in bans if not _is_host(ban.range))
        return {"boot-bans.nft": nft_table.bans_file([ban for ban in bans if _is_host(ban.range)], nets, _banned())}

    def limit(self, limits: Sequence[Ban]) -> None:
        if "limit_in" not in (netfilter.read_chains(TABLE) or {}):
            nft.load(nft_limits.hang())
        there = self.limited()
        for family, (name, _) in LIMIT_SETS.items():
            own = [each for each in limits if family_of(each.range[0]) == family]
            gone = [netfilter.SetElement(from_int(each.range[0])) for each in own if each.range[0] in there]
            changes = [netfilter.SetChange(name, "delete", gone)] if gone else []
            if own:
                changes.append(netfilter.SetChange(name, "add", [_host(each) for each in own]))
            netfilter.change_set(TABLE, changes)

    def limited(self) -> set[int]:
        if "limit_in" not in (netfilter.read_chains(TABLE) or {}):
            return set()
        names = (name for name, _ in LIMIT_SETS.values())
        return {as_int(element.key) for name in names for element in netfilter.read_elements(TABLE, name)}

    def unlimit(self) -> None:
        if "limit_in" in (netfilter.read_chains(TABLE) or {}):
            nft.load(nft_limits.unhang())

    def bans(self) -> set[Range]:
        found: set[Range] = set()
        for family, (hosts, nets) in BAN_SETS.items():
            for element in netfilter.read_elements(TABLE, hosts):
                value = as_int(element.key)
                found.add((value, value))
            found |= set(_intervals(netfilter.read_elements(TABLE, nets), family))
        return found


def _hang_bans() -> None:
    if "ban_in" not in (netfilter.read_chains(TABLE) or {}):
        nft.load(nft_table.hang_bans(_banned()))


def _all(everything: Sequence[Ban]) -> Iterable[netfilter.SetChange]:
    for family, (hosts, nets) in BAN_SETS.items():
        own = [each for each in everything if family_of(each.range[0]) == family and _is_host(each.range)]
        yield netfilter.SetChange(hosts, "flush", [])
        if own:
            yield netfilter.SetChange(hosts, "add", [_host(each) for each in own])
        yield from _all_nets(nets, family, everything)


def _all_nets(name: str, family: int, everything: Sequence[Ban]) -> list[netfilter.SetChange]:
    """All prefixes anew: they may lie within each other, and an interval set holds none that do."""
    wide = [each for each in everything if family_of(each.range[0]) == family and not _is_host(each.range)]
    elements = [
        netfilter.SetElement(from_int(first), left_ms, from_int(last))
        for (first, last), left_ms in ((each.range, _ms(each)) for each in flattened(wide))
    ]
    changes = [netfilter.SetChange(name, "flush", [])]
    return [*changes, netfilter.SetChange(name, "add", elements)] if elements else changes


def _host(ban: Ban) -> netfilter.SetElement:
    return netfilter.SetElement(from_int(ban.range[0]), _ms(ban))


def _ms(ban: Ban) -> int | None:
    return None if ban.left_s is None else max(1, ban.left_s) * 1000


def _is_host(pair: Range) -> bool:
    return pair[0] == pair[1]


def _intervals(elements: Iterable[netfilter.Element], family: int) -> Iterable[Range]:
    """Intervals of their borders: each begins at an element, and ends before the next that is marked as an end."""
    last = IPV4_LAST if family == IPV4 else IPV6_LAST
    borders = sorted((as_int(element.key), not element.is_end) for element in elements)
    start: int | None = None
    for value, begins in borders:
        if begins:
            start = value
        elif start is not None:
            yield start, value - 1
            start = None
    if start is not None:
        yield start, last


def _read(hooks: Mapping[str, netfilter.BaseHook | None], generation: int) -> dict[str, list[bytes]]:
    """The rules of the base chains and of one generation: what others there are decide nothing."""
    front = f"g{generation}_"
    bases = [name for name, hook in hooks.items() if hook and name not in FREE_CHAINS]
    return netfilter.read_rules(TABLE, [*bases, *(name for name in hooks if name.startswith(front))])


def _generation(rules: Mapping[str, list[bytes]]) -> int | None:
    """The generation to which the base chains are turned."""
    found = _GOTO.search(b"".join(rules.get("input", ())))
    return int(found[1]) if found else None


def _hooked(hooks: Mapping[str, netfilter.BaseHook | None]) -> list[tuple[str, netfilter.BaseHook | None]]:
    """What hangs on hooks; not the chains of bans and limits, which come and go with them."""
    return sorted(((name, hook) for name, hook in hooks.items() if hook and name not in FREE_CHAINS), key=str)


def _banned() -> Verdict:
    return only_bans().verdicts[BANNED]


def _fingerprint(hooks: Mapping[str, netfilter.BaseHook | None], rules: Mapping[str, list[bytes]]) -> str:
    """A digest of what was read, the hooks and the table's flags with it: the same after a boot."""
    digest = hashlib.sha256(repr((netfilter.table_flags(TABLE), _hooked(hooks))).encode())
    for name in sorted(rules):
        digest.update(name.encode() + b"\0" + b"".join(map(_steady, rules[name])))
    return digest.hexdigest()


def _steady(rule: bytes) -> bytes:
    """A rule without what it gets anew when the same is loaded again, to go back or at a boot: the numbers of rules,
    and of sets without a name."""
    kept = (value for kind, value in attributes(memoryview(rule)) if kind not in (_RULE_HANDLE, _RULE_POSITION))
    return _NAMELESS.sub(b"__set", b"".join(kept))
