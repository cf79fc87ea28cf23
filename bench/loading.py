"""How long it takes until a policy is in force, whole commands, beside nft alone, ufw and firewalld."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

from firewalls import Firewalld, Pfw, Ufw, has, missing, unmeasurable
from footprint import Measured
from pair import Pairs
from processes import BenchError, say
from rulesets import merged, nft_replacing, policy, prefixes, rules
from setting import Setting
from table import Section, plural_rounds, spread

RULES = (100, 1_000, 10_000)
LISTS, QUICK_LISTS = (100_000, 1_000_000), (100_000,)
ROUNDS = 3
UFW_ADDS, UFW_RULES = 20, 100
IPSETS, PATIENCE_S = (10_000, 100_000), 90.0


def measure(setting: Setting) -> list[Section]:
    section = Section("Time until a policy is in force", ("", "s", "CPU s", "peak MB"))
    reason = unmeasurable(setting)
    if reason is not None:
        section.note(reason)
        return [section]
    rounds = min(ROUNDS, setting.rounds)
    with Pairs() as pairs:
        loads = Loads(setting, pairs)
        for turn in range(rounds):
            for name, load in loads.by_rules() + loads.by_lists():
                say(f"bench: loading, round {turn + 1} of {rounds}: {name}")
                load()
        if has("ufw"):
            loads.ufw()
        if has("firewalld"):
            loads.firewalld()
    for each in loads.measured.values():
        section.row(each.name, spread(each.wall_s, 2), spread(each.cpu_s, 2), spread(each.peak_mb))
    for text in (*_NOTES, *loads.notes, *missing()):
        section.note(text)
    section.note(f"{plural_rounds(rounds)} of pfw and nft, one of ufw and firewalld")
    return [section]


_NOTES = (
    "peak MB: resident memory of the command and all that it started (nft) at one moment, looked at every 5 ms",
    '"first" is with nothing loaded or remembered; "again" is a second pfw up of the same file; the lists come from '
    "files, which are read anew each time",
    '"nft -f, the same" loads what pfw show prints into an empty namespace, which is what happens at a boot',
)
_Load = tuple[str, Callable[[], None]]


class Loads:
    """Each load, in namespaces of its own; what came of it is in `measured`, in the order of the first time."""

    def __init__(self, setting: Setting, pairs: Pairs) -> None:
        self._setting = setting
        self._pairs = pairs
        self._pair = pairs.pair()
        self._pfw = Pfw(setting, self._pair)
        self._bare = pairs.pair()
        self.measured: dict[str, Measured] = {}
        self.notes: list[str] = []

    def by_rules(self) -> list[_Load]:
        return [(f"{count:,} rules", partial(self._rules, count)) for count in RULES]

    def by_lists(self) -> list[_Load]:
        counts = QUICK_LISTS if self._setting.quick else LISTS
        return [(f"{count:,} prefixes", partial(self._list, count)) for count in counts]

    def _rules(self, count: int) -> None:
        self._up(f"{count:,} rules", policy(count), policy(count, changed=True), "one rule changed")

    def _list(self, count: int) -> None:
        # Once is enough of what takes so long.
        if count == LISTS[-1] and f"pfw up, {count:,} prefixes, first" in self.measured:
            return
        path = self._setting.folder / f"enforce-{count}.txt"
        listed = prefixes(count)
        path.write_text("\n".join(listed))
        text = policy(10, str(path))
        self._up(f"{count:,} prefixes", text, policy(10, str(path), changed=True), "one rule changed")
        self._nft(f"nft -f, {count:,} prefixes in a set", nft_replacing(merged(listed)))

    def _up(self, what: str, text: str, changed: str, change: str) -> None:
        pfw = self._pfw
        pfw.forget()
        words = pfw.command("up", "--rules", str(pfw.rules))
        for suffix, content in (("first", text), ("again", text), (change, changed)):
            pfw.rules.write_text(content)
            self._of(f"pfw up, {what}, {suffix}").run(words, environment=pfw.environment)
        self._nft(f"nft -f, the same, {what}", pfw.run("show", "--rules", str(pfw.rules)).output)
        pfw.forget()

    def _nft(self, name: str, text: str) -> None:
        file = self._pfw.folder / "ruleset.nft"
        file.write_text(text)
        words = (*self._bare.inside, "nft")
        self._of(name).run((*words, "-f", str(file)))
        Measured("flush").run((*words, "flush", "ruleset"))

    def _of(self, name: str) -> Measured:
        return self.measured.setdefault(name, Measured(name))

    def ufw(self) -> None:
        say("bench: loading, ufw")
        firewall = self._pairs.enter_context(closing(Ufw(self._setting, self._pairs.pair())))
        firewall.up(rules(UFW_RULES))
        adds = Measured("")
        for number in range(UFW_ADDS):
            adds.run(firewall.command("allow", f"{20_000 + number}/tcp"))
        mean_s = sum(adds.wall_s) / UFW_ADDS
        self._of(f"ufw allow, one rule, of {UFW_ADDS}, to {UFW_RULES} rules").add(
            mean_s, sum(adds.cpu_s) / UFW_ADDS, max(adds.peak_mb)
        )
        self.notes.append(
            f"ufw: 10,000 rules one by one would take about {mean_s * 10_000 / 60:,.0f} minutes at that pace "
            "(extrapolated; it gets slower with more rules)"
        )
        self._of(f"ufw reload, {UFW_RULES + UFW_ADDS} rules").run(firewall.command("reload"))

    def firewalld(self) -> None:
        firewall = self._pairs.enter_context(closing(Firewalld(self._setting, self._pairs.pair())))
        for what, found, count in self._daemons():
            say(f"bench: loading, firewalld, {what}")
            name = f"firewalld until it runs, {what}"
            try:
                took_s = firewall.up(found, merged(prefixes(count)) if count else (), PATIENCE_S)
            except BenchError:
                self.notes.append(f"{name}: more than {PATIENCE_S:.0f} s, given up")
                return
            self._of(name).add(took_s, firewall.cpu_s(), firewall.peak_mb())

    def _daemons(self) -> Sequence[tuple[str, list[dict[str, object]], int]]:
        counts = IPSETS[:1] if self._setting.quick else IPSETS
        sets = [(f"an ipset of {count:,} prefixes", rules(10), count) for count in counts]
        return [("10 rules", rules(10), 0), ("1,000 rules", rules(1000), 0), *sets]
