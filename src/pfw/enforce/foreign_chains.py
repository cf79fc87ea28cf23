"""Other people's rules as chains: what `nft -j list ruleset` and `iptables-save` say, in one form.

Of a rule only two things are kept: what it does, and whether it does that with every packet. What cannot be read
(an extension of iptables that nft lists as `xt`, a statement of a later version) is never taken as "with every
packet", and what such a rule might do is `sure=False`. The input may have any shape; what does not fit is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct


class Does(StrEnum):
    """What a rule does."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    REWRITE = "rewrite"
    """Another destination: dnat, redirect, a local proxy."""
    QUEUE = "queue"
    UNTRACKED = "untracked"
    OFFLOAD = "offload"
    """Hands a connection to a flowtable."""
    SEND = "send"
    """Sends a packet out of another interface, past all else."""
    NOTHING = "nothing"


class Rule(Struct, frozen=True):
    """`always`: with every packet. `target` is the chain of a jump."""

    does: Does
    always: bool
    target: str = ""
    sure: bool = True


class Chain(Struct, frozen=True):
    """A chain. `by` is nft, or a kind of iptables. `hook` is empty for one that is only jumped to."""

    by: str
    family: str
    table: str
    name: str
    hook: str = ""
    kind: str = "filter"
    priority: int = 0
    policy: str = ""
    rules: tuple[Rule, ...] = ()

    @property
    def place(self) -> tuple[str, str, str]:
        return self.by, self.family, self.table


class Foreign(Struct, frozen=True):
    """All that is there, ours as well. Tables and flowtables of nftables are (family, name)."""

    chains: tuple[Chain, ...] = ()
    tables: tuple[tuple[str, str], ...] = ()
    flowtables: tuple[tuple[str, str], ...] = ()

    def targets(self) -> dict[tuple[str, str, str, str], Chain]:
        """The chains by where they are and their names."""
        return {(*chain.place, chain.name): chain for chain in self.chains}


NFT = "nft"
NFT_OF_IPTABLES = "iptables-nft"
Saved = Mapping[tuple[str, str], str]
"""Texts of `iptables-save` by kind of iptables and family (`ip`, `ip6`)."""

HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
IPTABLES_TABLES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
"""The tables of iptables with the priorities of their chains."""
FAMILIES = ("ip", "ip6")
_SOURCE_NAT = 100

_VERDICTS = {
    "accept": Does.ACCEPT,
    "drop": Does.DROP,
    "reject": Does.REJECT,
    "return": Does.RETURN,
    "jump": Does.JUMP,
    "goto": Does.GOTO,
    "dnat": Does.REWRITE,
    "redirect": Does.REWRITE,
    "tproxy": Does.REWRITE,
    "queue": Does.QUEUE,
    "notrack": Does.UNTRACKED,
    "flow": Does.OFFLOAD,
    "fwd": Does.SEND,
}
_SILENT = frozenset({"counter", "log", "mangle", "ct helper", "secmark", "dup", "snat", "masquerade"})
"""Statements of nftables behind which a packet goes on in every case."""
_TARGETS = {
    "ACCEPT": Does.ACCEPT,
    "DROP": Does.DROP,
    "REJECT": Does.REJECT,
    "RETURN": Does.RETURN,
    "DNAT": Does.REWRITE,
    "REDIRECT": Does.REWRITE,
    "TPROXY": Does.REWRITE,
    "NFQUEUE": Does.QUEUE,
    "NOTRACK": Does.UNTRACKED,
    "CT": Does.UNTRACKED,
    "FLOWOFFLOAD": Does.OFFLOAD,
}
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')


def read(objects: object, saved: Saved) -> Foreign:
    """What was decoded of `nft -j list ruleset` (None where nothing could be), and what iptables saved. A table that
    iptables-nft can read is taken from there: it knows its own extensions."""
    chains, tables, flowtables = _read_nft(objects)
    from_saved = [chain for (kind, family), text in saved.items() for chain in _read_saved(kind, family, text)]
    known = {(chain.family, chain.table) for chain in from_saved if chain.by == NFT_OF_IPTABLES}
    kept = [chain for chain in chains if (chain.family, chain.table) not in known]
    return Foreign(
        (*kept, *from_saved), tuple(each for each in tables if each not in known), tuple(dict.fromkeys(flowtables))
    )


def _read_nft(objects: object) -> tuple[list[Chain], list[tuple[str, str]], list[tuple[str, str]]]:
    found: dict[tuple[str, str, str], Chain] = {}
    rules: dict[tuple[str, str, str], list[Rule]] = {}
    tables, flowtables, asleep = [], [], set()
    for kind, each in _objects(objects):
        family, name = _text(each, "family"), _text(each, "name")
        if kind == "table":
            tables.append((family, name))
            if _sleeps(each.get("flags")):
                asleep.add((family, name))
            continue
        table = _text(each, "table")
        if kind == "flowtable":
            flowtables.append((family, table))
        elif kind == "chain":
            hook = "" if (family, table) in asleep else _text(each, "hook")
            about = (hook, _text(each, "type"), _number(each.get("prio")), _text(each, "policy"))
            found[family, table, name] = Chain(NFT, family, table, name, *about)
        elif kind == "rule":
            rules.setdefault((family, table, _text(each, "chain")), []).extend(_nft_rules(each.get("expr")))
    chains = [
        Chain(each.by, *key, each.hook, each.kind, each.priority, each.policy, tuple(rules.get(key, ())))
        for key, each in found.items()
    ]
    return chains, tables, flowtables


def _objects(objects: object) -> Iterator[tuple[str, dict[str, object]]]:
    for each in objects if isinstance(objects, list) else ():
        if isinstance(each, dict):
            for kind, value in each.items():
                if isinstance(kind, str) and isinstance(value, dict):
                    yield kind, value


def _sleeps(flags: object) -> bool:
    """Whether a table is dormant; nft 1.0 writes one flag as a text, and this one as `dorm`."""
    words = flags if isinstance(flags, list) else [flags]
    return any(isinstance(word, str) and word.startswith("dorm") for word in words)


def _text(value: dict[str, object], key: str) -> str:
    found = value.get(key)
    return found if isinstance(found, str) else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _nft_rules(statements: object) -> Iterator[Rule]:
    """All that one rule does, in order; nothing, where it only counts or tells."""
    always, told = True, False
    for each in statements if isinstance(statements, list) else ():
        word, value = next(iter(each.items()), ("", None)) if isinstance(each, dict) else ("", None)
        does = _VERDICTS.get(word)
        if word == "xt":
            does = _extension(value)
        if does is not None:
            target = _text(value, "target") if isinstance(value, dict) else ""
            told = True
            yield Rule(does, always, target, sure=word != "xt" or does is not Does.UNTRACKED)
        elif word not in _SILENT:
            always = False
    if not told:
        yield Rule(Does.NOTHING, always=False)


def _extension(value: object) -> Does | None:
    """What a target of iptables does that nft does not know."""
    if not isinstance(value, dict) or _text(value, "type") != "target":
        return None
    return _TARGETS.get(_text(value, "name"))


def _read_saved(kind: str, family: str, text: str) -> list[Chain]:
    found: dict[tuple[str, str], Chain] = {}
    rules: dict[tuple[str, str], list[Rule]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            name, policy = (*line[1:].split(maxsplit=2), "", "")[:2]
            hook = HOOKS.get(name, "") if policy != "-" else ""
            found[table, name] = _saved_chain(kind, family, table, name, hook, policy)
        elif line.startswith(("-A ", "[")):
            chain, rule = _saved_rule(_WORD.findall(line))
            rules.setdefault((table, chain), []).append(rule)
    return [
        Chain(*each.place, each.name, each.hook, each.kind, each.priority, each.policy, tuple(rules.get(key, ())))
        for key, each in found.items()
    ]


def _saved_chain(kind: str, family: str, table: str, name: str, hook: str, policy: str) -> Chain:
    is_source_nat = table == "nat" and hook in ("postrouting", "input")
    priority = _SOURCE_NAT if is_source_nat else IPTABLES_TABLES.get(table, 0)
    what = "nat" if table == "nat" else "filter"
    return Chain(kind, family, table, name, hook, what, priority, policy.lower() if hook else "")


def _saved_rule(words: Sequence[str]) -> tuple[str, Rule]:
    """A line as the chain that it is in, and what it does."""
    rest = [*words[words.index("-A") :]] if "-A" in words else []
    chain = rest[1] if len(rest) > 1 else ""
    at = next((at for at, word in enumerate(rest) if word in ("-j", "-g")), None)
    if at is None or at + 1 >= len(rest):
        return chain, Rule(Does.NOTHING, always=False)
    target, options = rest[at + 1], rest[at + 2 :]
    always = not _asks(rest[2:at])
    does = _TARGETS.get(target)
    if target == "CT" and "--notrack" not in options:
        does = Does.NOTHING
    if does is None:
        # A target that there is no word for, such as LOG, has no chain of its name and leads nowhere.
        return chain, Rule(Does.GOTO if rest[at] == "-g" else Does.JUMP, always, target)
    return chain, Rule(does, always)


def _asks(words: Sequence[str]) -> bool:
    """Whether what stands before the target asks for anything; a comment does not."""
    at = 0
    while at < len(words):
        if words[at : at + 2] != ["-m", "comment"] and words[at] != "--comment":
            return True
        at += 2
    return False


def stops(base: Chain, targets: Mapping[tuple[str, str, str, str], Chain]) -> str:
    """How a base chain ends packets that nothing in it lets through, in words; empty where it may let them go on."""
    todo, seen, accepts = [base], {base.name}, False
    while todo:
        chain = todo.pop()
        for rule in chain.rules:
            if not rule.always:
                continue
            if rule.does in (Does.DROP, Does.REJECT):
                return "drops" if rule.does is Does.DROP else "refuses"
            if rule.does in (Does.ACCEPT, Does.RETURN, Does.QUEUE):
                accepts = accepts or (chain is base and rule.does is not Does.RETURN)
                break
            target = targets.get((*base.place, rule.target))
            if target is not None and target.name not in seen:
                seen.add(target.name)
                todo.append(target)
            if rule.does is Does.GOTO and target is not None:
                break
    return "drops" if base.policy == "drop" and not accepts else ""


def all_rules(chains: Iterable[Chain]) -> Iterator[tuple[Chain, Rule]]:
    for chain in chains:
        for rule in chain.rules:
            yield chain, rule
