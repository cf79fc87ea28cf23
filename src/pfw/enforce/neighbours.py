"""What other people's rules mean for us: who else filters, what lets packets pass us, what stops what we allow.

In nftables only a drop is final. An accept ends its own base chain, so neither side can let anything in against the
other, and each may drop what the other allows. In iptables an accept ends the whole table, so there it counts who
stands first. A finding says what was found, and what to do about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum

from msgspec import Struct

from pfw.enforce.foreign_chains import (
    FAMILIES,
    IPTABLES_TABLES,
    NFT,
    NFT_OF_IPTABLES,
    Chain,
    Does,
    Foreign,
    Rule,
    all_rules,
    stops,
)
from pfw.enforce.nft_table import TABLE


class Area(StrEnum):
    """What a finding is about, in the order in which they are shown."""

    KERNEL = "kernel"
    BACKEND = "backend"
    STATE = "state"
    BOOT = "boot"
    PROGRAMS = "programs"
    NEIGHBOURS = "neighbours"
    BYPASS = "bypass"
    OBSTACLE = "obstacle"
    LIMITS = "limits"


class Level(StrEnum):
    """How bad it is; the worst is the last."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAULT = "fault"


class Finding(Struct, frozen=True):
    """Something that was found, a line, and what to do about it, another; that is empty where all is well."""

    area: Area
    level: Level
    what: str
    advice: str = ""


class Ours(Struct, frozen=True):
    """Whether a policy is in force, and whether any of its rules lets something be forwarded."""

    active: bool = False
    forwards: bool = False


class Around(Struct, frozen=True):
    """What the system says of firewalls: whether ufw is switched on in its file, whether firewalld runs."""

    ufw_on: bool = False
    firewalld_runs: bool = False


class _Product(Struct, frozen=True):
    """Somebody who is known by the names of chains, or of tables of nftables."""

    name: str
    chains: re.Pattern[str]
    tables: re.Pattern[str]
    means: str
    advice: str
    level: Level = Level.NOTE


_NONE = re.compile("(?!)")
_FINAL = "only a drop is final, so it may still drop what the policy allows"
_FORWARDED = "what goes to and from {} is forwarded, and a published port is judged by the port that was published"
_FORWARD_ADVICE = 'rules with "direction": "forward" decide about it; write the port that was published'
_BANS = "what it bans is dropped as well as what is banned here"

PRODUCTS = (
    _Product("ufw", re.compile("ufw6?-"), _NONE, _FINAL,
             "one is enough: sudo ufw disable; or allow the same in both", Level.WARNING),
    _Product("firewalld", _NONE, re.compile("firewalld(_.*)?"), _FINAL,
             "one is enough: sudo systemctl disable --now firewalld; or allow the same in both", Level.WARNING),
    _Product("Docker", re.compile("DOCKER"), re.compile("docker-bridges"), _FORWARDED.format("containers"),
             _FORWARD_ADVICE),
    _Product("Podman", re.compile("NETAVARK|CNI-"), re.compile("netavark"), _FORWARDED.format("containers"),
             _FORWARD_ADVICE),
    _Product("Kubernetes", re.compile("KUBE-|cali-|CILIUM_|FLANNEL"), re.compile("kube-proxy|calico"),
             _FORWARDED.format("pods"), _FORWARD_ADVICE),
    _Product("libvirt", re.compile("LIBVIRT_"), re.compile("libvirt_network"),
             "what goes to and from guests is forwarded", 'rules with "direction": "forward" decide about guests'),
    _Product("fail2ban", re.compile("f2b-"), re.compile("f2b-table"), _BANS, "nothing to do"),
    _Product("SSHGuard", re.compile("sshguard"), re.compile("sshguard"), _BANS, "nothing to do"),
    _Product("CrowdSec", re.compile("CROWDSEC|crowdsec"), re.compile("crowdsec6?"), _BANS, "nothing to do"),
    _Product("Tailscale", re.compile("ts-"), re.compile("tailscale"), "what comes by it is judged like all else",
             'let its network in with a rule that has "interface": "tailscale0"'),
    _Product("WireGuard (wg-quick)", _NONE, re.compile("wg-quick-.*"),
             "it drops what others send to the tunnel's own address", "nothing to do"),
    _Product("Mullvad", _NONE, re.compile("mullvad"), _FINAL,
             "its app decides what goes past the tunnel; allow the same in both"),
)  # fmt: skip

_OUR_TABLES = frozenset({TABLE, f"{TABLE}_panic", f"{TABLE}_probe"})
_OUR_CHAINS = ("PFW-", "PFWPANIC-")
_LISTED_MAX = 4
_OTHERS_MAX = 10
_SINGLE = frozenset({"INPUT", "OUTPUT"})
"""The chains into which those whom we know put jumps only; a rule in them is somebody else's."""


def analyse(foreign: Foreign, ours: Ours, around: Around) -> list[Finding]:
    """All that a ruleset says."""
    theirs = Foreign(
        tuple(each for each in foreign.chains if not is_ours(each)),
        tuple(each for each in foreign.tables if each[1] not in _OUR_TABLES),
        foreign.flowtables,
    )
    return [
        *_products(theirs, around),
        *_others(theirs),
        *_both_kinds(foreign),
        *_bypasses(theirs),
        *_before_ours(foreign),
        *_obstacles(theirs, ours),
    ]


def is_ours(chain: Chain) -> bool:
    return (chain.by == NFT and chain.table in _OUR_TABLES) or chain.name.startswith(_OUR_CHAINS)


def product_of(chain: Chain) -> _Product | None:
    """Whose a chain is by its name, or by that of its table."""
    for each in PRODUCTS:
        if each.chains.match(chain.name) or (chain.by == NFT and each.tables.fullmatch(chain.table)):
            return each
    return None


def _products(foreign: Foreign, around: Around) -> Iterator[Finding]:
    found: dict[str, list[Chain]] = {}
    for chain in foreign.chains:
        product = product_of(chain)
        if product is not None:
            found.setdefault(product.name, []).append(chain)
    called = {(*chain.place, rule.target) for chain, rule in all_rules(foreign.chains) if rule.target}
    for product in PRODUCTS:
        chains = found.get(product.name, [])
        if not chains:
            continue
        where = listed(table_text(chain) for chain in chains)
        if any(chain.hook or (*chain.place, chain.name) in called for chain in chains):
            what = f"{product.name} filters here, in {where}: {product.means}"
            yield Finding(Area.NEIGHBOURS, product.level, what, product.advice)
        else:
            what = f"{product.name} has left chains behind in {where}; nothing leads to them"
            yield Finding(Area.NEIGHBOURS, Level.NOTE, what, "nothing to do")
    if around.ufw_on and "ufw" not in found:
        what = "ufw is switched on in /etc/ufw/ufw.conf, and none of its rules are here: it comes with the next boot"
        yield Finding(Area.NEIGHBOURS, Level.NOTE, what, "one is enough: sudo ufw disable")
    if around.firewalld_runs and "firewalld" not in found:
        what = "firewalld runs, and none of its rules are here: they may come back at any time"
        yield Finding(Area.NEIGHBOURS, Level.NOTE, what, "one is enough: sudo systemctl disable --now firewalld")


def _others(foreign: Foreign) -> Iterator[Finding]:
    """Rules of nobody that we know."""
    hooks: dict[str, list[str]] = {}
    shared = {chain.place for chain in foreign.chains if product_of(chain) is not None}
    for chain in foreign.chains:
        if not chain.hook or product_of(chain) is not None:
            continue
        own = [rule for rule in chain.rules if not _is_call(chain, rule)]
        if _is_of_iptables(chain):
            counts = own and (chain.place not in shared or chain.name in _SINGLE)
        else:
            counts = own or chain.policy == "drop"
        if counts:
            hooks.setdefault(table_text(chain), []).append(chain.hook)
    if hooks:
        names = [f"{name} (at {listed(places)})" for name, places in hooks.items()]
        what = f"there are other rules in {listed(names, _OTHERS_MAX)}; {_FINAL.replace('it may', 'they may')}"
        advice = "nothing to do if you know them: sudo nft -t list ruleset and iptables-save show them"
        yield Finding(Area.NEIGHBOURS, Level.NOTE, what, advice)


def _is_of_iptables(chain: Chain) -> bool:
    """Whether several may share a table, as they do those of iptables."""
    return chain.by != NFT or (chain.family in FAMILIES and chain.table in IPTABLES_TABLES)


def _is_call(chain: Chain, rule: Rule) -> bool:
    """Whether a rule only leads to a chain of ours, or of somebody whom we know."""
    target = Chain(chain.by, chain.family, chain.table, rule.target)
    return bool(rule.target) and (is_ours(target) or product_of(target) is not None)


def _both_kinds(foreign: Foreign) -> Iterator[Finding]:
    kinds = {chain.by for chain in foreign.chains if chain.by != NFT and chain.rules}
    if {NFT_OF_IPTABLES, "iptables-legacy"} <= kinds:
        what = "rules are in both kinds of iptables, over nftables and legacy: both count, each shows only its own"
        advice = "move to one of them: update-alternatives --config iptables, then empty the other"
        yield Finding(Area.NEIGHBOURS, Level.WARNING, what, advice)


def _bypasses(foreign: Foreign) -> Iterator[Finding]:
    by_what: dict[Does, list[Chain]] = {}
    unsure: set[Does] = set()
    for chain, rule in all_rules(foreign.chains):
        by_what.setdefault(rule.does, []).append(chain)
        if not rule.sure:
            unsure.add(rule.does)
    if foreign.flowtables or Does.OFFLOAD in by_what:
        names = [*(f"table {family} {name}" for family, name in foreign.flowtables),
                 *(table_text(chain) for chain in by_what.get(Does.OFFLOAD, ()))]  # fmt: skip
        what = f"a flowtable ({listed(names)}) carries forwarded connections past all rules once they are established"
        advice = "a ban or a new rule stops such a connection only when it begins anew; take the flowtable out for more"
        yield Finding(Area.BYPASS, Level.WARNING, what, advice)
    if untracked := by_what.get(Does.UNTRACKED):
        may = "may leave" if Does.UNTRACKED in unsure else "leave"
        what = f"rules in {_chains_text(untracked)} {may} packets without connection tracking: each is judged alone"
        advice = "allow such traffic in both directions, or take these rules out"
        yield Finding(Area.BYPASS, Level.WARNING, what, advice)
    if sent := by_what.get(Does.SEND):
        what = f"rules in {_chains_text(sent)} send packets on by another interface, past all of ours"
        yield Finding(Area.BYPASS, Level.WARNING, what, "take these rules out if they should be filtered")
    if rewritten := by_what.get(Does.REWRITE):
        what = f"rules in {_chains_text(rewritten)} send packets elsewhere than they were addressed to"
        advice = "what is passed on is judged as forwarded, by the port that was sent; what is kept here by the new one"
        yield Finding(Area.BYPASS, Level.NOTE, what, advice)


def _before_ours(foreign: Foreign) -> Iterator[Finding]:
    """In iptables an accept ends the table: what stands before our jump decides instead of us."""
    targets = foreign.targets()
    found = []
    for chain in foreign.chains:
        if not chain.hook or chain.by == NFT:
            continue
        at = next((at for at, rule in enumerate(chain.rules) if rule.target.startswith(_OUR_CHAINS)), 0)
        for rule in chain.rules[:at]:
            leads = (*chain.place, rule.target) in targets
            if rule.does in (Does.ACCEPT, Does.QUEUE) or (rule.does in (Does.JUMP, Does.GOTO) and leads):
                found.append(chain)
                break
    if found:
        what = f"in {_chains_text(found)} rules of others stand before ours: what they let pass we never see"
        yield Finding(Area.BYPASS, Level.WARNING, what, "put ours first again: sudo pfw down, then sudo pfw up")


def _obstacles(foreign: Foreign, ours: Ours) -> Iterator[Finding]:
    targets = foreign.targets()
    queued = [chain for chain, rule in all_rules(foreign.chains) if rule.does is Does.QUEUE]
    ends: dict[tuple[str, str], list[Chain]] = {}
    for chain in foreign.chains:
        if chain.hook and (how := stops(chain, targets)):
            ends.setdefault((chain.hook, how), []).append(chain)
    for (hook, how), chains in ends.items():
        owners = listed(_owners(chains))
        whose = f" ({owners})" if owners else ""
        verb = how if len({_chain_text(chain) for chain in chains}) == 1 else how.removesuffix("s")
        what = f"at {hook}, {_chains_text(chains)} {verb} what is not let pass there{whose}"
        matters = ours.active and (hook != "forward" or ours.forwards)
        advice = "what the policy allows has to be let pass there as well"
        yield Finding(Area.OBSTACLE, Level.WARNING if matters else Level.NOTE, what, advice)
    if queued:
        what = f"rules in {_chains_text(queued)} hand packets to a program (NFQUEUE), which may drop them"
        yield Finding(Area.OBSTACLE, Level.NOTE, what, "where allowed traffic gets stuck, look at that program")


def _owners(chains: Iterable[Chain]) -> Iterator[str]:
    """Whose base chains are, by their tables and by the chains that they lead to."""
    for chain in chains:
        for product in [product_of(chain), *(product_of(Chain(*chain.place, rule.target)) for rule in chain.rules)]:
            if product is not None:
                yield product.name


def table_text(chain: Chain) -> str:
    """`table inet filter`, or `table ip filter (iptables-legacy)`."""
    return f"table {chain.family} {chain.table}{'' if chain.by == NFT else f' ({chain.by})'}"


def _chain_text(chain: Chain) -> str:
    return f"chain {chain.name} of {table_text(chain)}"


def _chains_text(chains: Iterable[Chain]) -> str:
    return listed(map(_chain_text, chains))


def listed(names: Iterable[str], most: int = _LISTED_MAX) -> str:
    """Different names, the first of them and how many more there are."""
    distinct = list(dict.fromkeys(names))
    text = ", ".join(distinct[:most])
    return f"{text} and {len(distinct) - most:,} more" if len(distinct) > most else text
