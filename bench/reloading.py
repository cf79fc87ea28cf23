"""What gets through, and what gets lost, while the ruleset is replaced by another: one packet of each kind a
millisecond at most, each of a flow of its own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from contextlib import closing

from firewalls import Firewalld, Pfw, Ufw, has, missing, nft, unmeasurable
from pair import Pair, Pairs
from processes import BenchError, say
from rulesets import merged, nft_replacing, policy, prefixes, rules
from setting import Setting
from table import NOTHING, Section, plural_rounds, spread

PREFIXES = 100_000
ROUNDS = 3
SETTLE_S = 0.2


class Reload:
    """A ruleset that is up, how it is replaced, and what its probes told. `listed` says that it has a block list."""

    def __init__(self, name: str, pair: Pair, reload: Callable[[], object], *, listed: bool = False) -> None:
        self.name = name
        self.pair = pair
        self.reload = reload
        self.listed = listed
        self.seconds: list[float] = []
        self.told: dict[str, list[float]] = {kind: [] for kind in ("sent", "passed", "lost", "listed")}


def measure(setting: Setting) -> list[Section]:
    columns = (
        "",
        "s",
        "probes sent",
        "passed to a closed port",
        "passed from a listed address",
        "lost to an open port",
    )
    section = Section("Packets while the ruleset is replaced", columns)
    reason = unmeasurable(setting)
    if reason is not None:
        section.note(reason)
        return [section]
    rounds = min(ROUNDS, setting.rounds)
    with Pairs() as pairs:
        say("bench: reloading, loading the firewalls")
        everyone = reloads(setting, pairs)
        for turn in range(rounds):
            for each in everyone:
                say(f"bench: reloading, round {turn + 1} of {rounds}: {each.name}")
                probe(setting, each)
    for each in everyone:
        listed = spread(each.told["listed"]) if each.listed else NOTHING
        told = [spread(each.told[kind]) for kind in ("sent", "passed", "lost")]
        section.row(each.name, spread(each.seconds, 2), *told[:2], listed, told[2])
    section.note(
        f"{plural_rounds(rounds)}; a datagram of each kind about every millisecond, each from another port, from "
        f"{SETTLE_S} s before the command to {SETTLE_S} s behind it"
    )
    for text in missing():
        section.note(text)
    return [section]


def reloads(setting: Setting, pairs: Pairs) -> list[Reload]:
    file = setting.folder / "enforce-reloaded.txt"
    listed = prefixes(PREFIXES)
    file.write_text("\n".join(listed))
    found = [
        _pfw(setting, pairs, "pfw up, a rule of 10 changed", []),
        _pfw(setting, pairs, "pfw up, a rule of 1,000 changed", [], count=1000),
        _pfw(setting, pairs, "pfw up, iptables, a rule of 10 changed", ["--backend", "iptables"]),
    ]
    found.append(_list_of_pfw(setting, pairs, listed))
    pair = pairs.pair()
    text = nft_replacing(merged(listed))
    nft(pair, text)
    name = f"nft -f with delete table, {PREFIXES:,} prefixes"
    found.append(Reload(name, pair, lambda: nft(pair, text), listed=True))
    if has("ufw"):
        ufw = pairs.enter_context(closing(Ufw(setting, made := pairs.pair())))
        ufw.up(rules(10))
        found.append(Reload("ufw reload, 10 rules", made, lambda: ufw.run("reload")))
    if has("firewalld"):
        firewalld = pairs.enter_context(closing(Firewalld(setting, made := pairs.pair())))
        firewalld.up(rules(10))
        found.append(Reload("firewall-cmd --reload, 10 rules", made, lambda: firewalld.run("--reload")))
    return found


def _pfw(setting: Setting, pairs: Pairs, name: str, words: list[str], count: int = 10) -> Reload:
    """The policy and one with a rule changed, by turns."""
    pair = pairs.pair()
    pfw = Pfw(setting, pair)
    pfw.up(policy(count), *words)
    texts = [policy(count, changed=True), policy(count)]

    def reload() -> None:
        texts.append(texts.pop(0))
        pfw.up(texts[-1], *words)

    return Reload(name, pair, reload)


def _list_of_pfw(setting: Setting, pairs: Pairs, listed: list[str]) -> Reload:
    """A block list and one with some entries less, by turns."""
    pair = pairs.pair()
    pfw = Pfw(setting, pair)
    file = pfw.folder / "listed.txt"
    texts = ["\n".join(listed[:-100]), "\n".join(listed)]
    file.write_text(texts[-1])
    pfw.up(policy(10, str(file)))

    def reload() -> None:
        texts.append(texts.pop(0))
        file.write_text(texts[-1])
        pfw.up(policy(10, str(file)))

    return Reload(f"pfw up, {PREFIXES:,} prefixes, the list changed", pair, reload, listed=True)


def probe(setting: Setting, each: Reload) -> None:
    """Probe while the ruleset is replaced once."""
    words = (*setting.program("both_ends"), "probe", f"{each.pair.near}:{each.pair.far}")
    probing = subprocess.Popen(
        (*words, *(["listed"] if each.listed else [])), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert probing.stdout is not None
        if probing.stdout.readline() != "ready\n":
            raise BenchError(f"{each.name}: the probe does not start")
        time.sleep(SETTLE_S)
        began = time.perf_counter()
        each.reload()
        each.seconds.append(time.perf_counter() - began)
        time.sleep(SETTLE_S)
        told = json.loads(probing.communicate()[0])
    finally:
        probing.kill()
        probing.wait()
    for kind, found in each.told.items():
        found.append(told[kind])
