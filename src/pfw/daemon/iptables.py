"""Enforcing with iptables, ip6tables and ipset.

Two families are two programs, and so two transactions: the guard that every change has takes the first one back
when we do not live to make the second.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from pfw.daemon.backend import Before, Counted, Live, TablesBefore, Undo
from pfw.drivers import iptables, nft
from pfw.drivers.programs import Job, RefusedError, run
from pfw.enforce import render_iptables as rendering
from pfw.enforce.conditions import Plan
from pfw.enforce.nft_table import Ban
from pfw.enforce.plan import without_units
from pfw.enforce.render_iptables import BAN_SETS, FAMILIES, NOTHING, Tables
from pfw.model.address import Range, format_range, parse_range

_FAMILIES = {4: "ip", 6: "ip6"}
_PREFIX = re.compile(r'--nflog-prefix\s+"?pfw ([0-9]{1,9}) ')
_COUNTS = re.compile(r"^\[\d+:\d+\] ", re.MULTILINE)
_OURS = re.compile(r"^(?:\*.*|:PFW-\S+|(?:\[\d+:\d+\] )?-A (?:PFW-\S+ .*|\S+ -j PFW-\S+))$", re.MULTILINE)


class IptablesChange:
    """A generation on its way."""

    def __init__(self, kind: str, plan: Plan, generation: int, *, tell_all: bool) -> None:
        self._kind = kind
        self._plan = plan
        self._generation = generation
        self._saved = {family: iptables.saved(kind, family) for family in FAMILIES}
        self._sets_before = {name for name in iptables.set_names() if name.startswith("pfw-")}
        self.ruleset = rendering.render(plan, generation, self._sets_before, tell_all=tell_all)
        self._tell_all = tell_all

    def load(self) -> None:
        # The tables' text can only be tried out where the sets are that it names.
        iptables.load_sets(self.ruleset.sets)
        for family in FAMILIES:
            iptables.test(self._kind, family, self._text(family, self.ruleset.families[family]))

    def _text(self, family: int, tables: Tables) -> str:
        present, counts = rendering.parse_saved(self._saved[family])
        return rendering.restore(tables, present, counts)

    def undo(self, before: Before | None) -> Undo:
        saved = {str(family): text if before is not None else "" for family, text in self._saved.items()}
        gone = sorted(self.ruleset.names - self._sets_before)
        return Undo([], TablesBefore(self._kind, saved, gone))

    def switch(self) -> None:
        for family in FAMILIES:
            iptables.restore(self._kind, family, self._text(family, self.ruleset.families[family]))

    def verify(self) -> str:
        fingerprints = []
        for family in FAMILIES:
            saved = iptables.saved(self._kind, family)
            present, _ = rendering.parse_saved(saved)
            wanted = rendering.present_of(self.ruleset.families[family])
            for table, names in wanted.items():
                lost = sorted(names - present.get(table, set()))
                if lost:
                    what = f"{lost[0]} is not in table {table} right after it was loaded"
                    raise RefusedError(f"{what}; somebody else changes the tables")
            found = _generation(saved)
            if found != self._generation:
                raise RefusedError(f"generation {found} decides, not {self._generation}")
            fingerprints.append(_fingerprint(saved))
        return "".join(fingerprints)

    def sweep(self) -> None:
        ours = {name for name in iptables.set_names() if name.startswith("pfw-")}
        gone = sorted(ours - self.ruleset.names)
        if gone:
            iptables.load_sets("".join(f"destroy {name}\n" for name in gone))

    def created(self) -> list[str]:
        if iptables.same_kind(self._kind) != "iptables-nft":
            return []
        found = []
        for family, word in _FAMILIES.items():
            for table, jumps in rendering.JUMPS.items():
                if f"*{table}\n" not in self._saved[family]:
                    found.append(f"{word} {table}")
                else:
                    # iptables-save shows those that are not there as well.
                    found += [f"{word} {table} {caller}" for caller, _ in jumps if not _is_there(word, table, caller)]
        return found

    def boot(self) -> dict[str, str]:
        whole = rendering.render(without_units(self._plan), self._generation, tell_all=self._tell_all)
        files = {
            f"boot.{self._kind}.v{family}": rendering.restore(whole.families[family], {}, {}) for family in FAMILIES
        }
        return {f"boot.{self._kind}.ipset": whole.sets, **files}


def go_back(before: TablesBefore) -> None:
    """Make both families what they were, whatever they are now. Raises RefusedError."""
    for family in FAMILIES:
        old = before.saved[str(family)]
        present, _ = rendering.parse_saved(iptables.saved(before.kind, family))
        back = rendering.tables_of(old) if old else NOTHING
        iptables.restore(before.kind, family, rendering.restore(back, present, rendering.parse_saved(old)[1]))
    if before.sets:
        iptables.load_sets("".join(f"destroy {name}\n" for name in before.sets))


class Iptables:
    """The backend for iptables; `kind` is one of `drivers.iptables.KINDS`."""

    def __init__(self, kind: str = "iptables") -> None:
        self.name = kind

    def unusable(self) -> str | None:
        lacking = iptables.missing(self.name)
        if lacking is not None:
            return f"the program {lacking} is not there; install it with: apt-get install iptables ipset"
        try:
            for family in FAMILIES:
                iptables.saved(self.name, family)
            iptables.set_names()
        except RefusedError as error:
            return error.what
        return None

    def generation(self) -> int | None:
        if iptables.missing(self.name) is not None:
            return None
        live = self.live()
        return None if live is None else live.generation or 0

    def live(self) -> Live | None:
        saved = [iptables.saved(self.name, family) for family in FAMILIES]
        if not any(rendering.parse_saved(each)[0] for each in saved):
            return None
        return Live(_generation(saved[0]), "".join(map(_fingerprint, saved)))

    def sweep_others(self, generation: int) -> None:
        ours = f"pfw-g{generation}-"
        gone = sorted(name for name in iptables.set_names() if name.startswith("pfw-g") and not name.startswith(ours))
        if gone:
            iptables.load_sets("".join(f"destroy {name}\n" for name in gone))

    def show(self, plan: Plan) -> str:
        made = rendering.render(plan, 1)
        parts = [f"# ipset restore\n{made.sets}"]
        for family, program in zip(FAMILIES, ("iptables", "ip6tables"), strict=True):
            text = rendering.restore(made.families[family], {}, {})
            parts.append(f"# {program}-restore --noflush\n{text}")
        return "\n".join(parts)

    def change(self, plan: Plan, generation: int, *, tell_all: bool = False) -> IptablesChange:
        return IptablesChange(self.name, plan, generation, tell_all=tell_all)

    @property
    def kind(self) -> str:
        return iptables.same_kind(self.name)

    def removal(self, created: Sequence[str] = ()) -> list[Job]:
        jobs = []
        for family in FAMILIES:
            saved = iptables.saved(self.name, family)
            present, _ = rendering.parse_saved(saved)
            if present:
                jobs.append(iptables.restore_job(self.name, family, rendering.restore(NOTHING, present, {})))
            for table in rendering.without_others(saved):
                if f"{_FAMILIES[family]} {table}" in created:
                    jobs.append(nft.job(f"delete table {_FAMILIES[family]} {table}\n"))
            for table, jumps in rendering.JUMPS.items():
                for caller, _ in jumps if present else ():
                    place = f"{_FAMILIES[family]} {table} {caller}"
                    if place in created and _is_free(saved, table, caller):
                        jobs.append(nft.job(f"delete chain {place}\n"))
        ours = sorted(name for name in iptables.set_names() if name.startswith("pfw-"))
        others = [Iptables(kind) for kind in iptables.KINDS[1:] if kind != self.kind and not iptables.missing(kind)]
        if ours and not any(other.live() for other in others):
            jobs.append(iptables.sets_job("".join(f"destroy {name}\n" for name in ours)))
        return jobs

    def counters(self) -> dict[str, Counted]:
        sums: dict[str, tuple[int, int]] = {}
        for family in FAMILIES:
            _, counts = rendering.parse_saved(iptables.saved(self.name, family))
            for name, (packets, size) in counts.items():
                had = sums.get(name, (0, 0))
                sums[name] = had[0] + packets, had[1] + size
        counted = {}
        for name, (packets, size) in sums.items():
            if name.startswith("r_"):
                told = sums.get(f"t{name[1:]}")
                counted[name] = Counted(packets, size, packets - told[0] if told is not None else 0)
        return counted

    def ban(self, added: Sequence[Ban], lifted: Sequence[Range], everything: Sequence[Ban]) -> None:
        del everything
        lines = [f"del {_ban_set(each)} {format_range(*each)} -exist" for each in lifted]
        lines += [line for ban in added for line in rendering.ban_lines(ban)]
        if lines:
            iptables.load_sets("".join(f"{line}\n" for line in lines))

    def ban_host(self, ban: Ban) -> bool:
        self.ban([ban], [], ())
        return True

    def limit(self, limits: Sequence[Ban]) -> None:
        if limits:
            raise RefusedError("the iptables backend cannot limit an address for a time")

    def limited(self) -> set[int]:
        return set()

    def unlimit(self) -> None:
        """Nobody ever is."""

    def boot_bans(self, bans: Sequence[Ban]) -> dict[str, str]:
        return {"boot-bans.ipset": "".join(f"{line}\n" for ban in bans for line in rendering.ban_lines(ban))}

    def bans(self) -> set[Range]:
        return {parse_range(line.split()[0]) for name in BAN_SETS.values() for line in iptables.members(name)}


def _is_there(family: str, table: str, chain: str) -> bool:
    """Whether a chain is; without the program nft nobody knows, and it counts as somebody else's."""
    try:
        run(Job(("nft", "list", "chain", family, table, chain)))
    except RefusedError as error:
        return error.missing is not None
    return True


def _is_free(saved: str, table: str, chain: str) -> bool:
    """Whether a built-in chain lets all pass and nobody but us has a rule in it."""
    lines = saved.partition(f"*{table}\n")[2].partition("COMMIT\n")[0].splitlines()
    rules = [line.partition(" -A ")[2] or line.partition("-A ")[2] for line in lines if "-A " in line]
    theirs = [rule for rule in rules if rule.startswith(f"{chain} ") and not rule.startswith(f"{chain} -j PFW-")]
    return not theirs and any(line.startswith(f":{chain} ACCEPT ") for line in lines)


def _ban_set(pair: Range) -> str:
    return BAN_SETS[4 if pair[1] < 1 << 128 else 6]


def _generation(saved: str) -> int | None:
    found = _PREFIX.search(saved)
    return int(found[1]) if found else None


def _fingerprint(saved: str) -> str:
    ours = "\n".join(_COUNTS.sub("", match[0]) for match in _OURS.finditer(saved))
    return hashlib.sha256(ours.encode()).hexdigest()[:32]
