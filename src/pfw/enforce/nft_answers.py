"""Connections that wait for somebody, in table `inet pfw`: the chain that hands them over, and what was answered.

Chain `ask` is filled by whoever reads the queue; while it is empty, whoever jumps there drops behind it. Answers are
elements in sets, with a timeout: by label, other end, protocol and port, as far as the answer goes. They belong to no
generation. Whoever adds a set here tells the daemon how its keys are made (`answer_key`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pfw.enforce import conditions as c
from pfw.enforce import nft_text as text
from pfw.enforce.conditions import Place, Plan
from pfw.enforce.nft_table import (
    TABLE,
    TYPES,
    chain,
    counted,
    filled_set,
    log_prefix,
    table,
    tell,
)
from pfw.enforce.programs import written
from pfw.model.packet import PORT_PROTOCOLS
from pfw.model.prompt import Scope

ASK = "ask"
ANSWERS_MAX = 65536
_PLACES = (Place.OUT, Place.IN)
_WORDS = {True: "allow", False: "block"}
_EXACT, _PROTOCOL, _ADDRESS, _PORT, _ANY = "exact", "protocol", "address", "port", "any"


def chain_names(plan: Plan) -> frozenset[str]:
    """The chains that stay as long as a plan asks."""
    if plan.programs is None:
        return frozenset()
    return frozenset({ASK, "answered", "refused", *(f"answers_{place}" for place in _PLACES)})


def set_names(plan: Plan) -> frozenset[str]:
    """The sets of answers."""
    if plan.programs is None:
        return frozenset()
    return SETS


def sets() -> list[str]:
    return [
        filled_set(name, f"type {kind}; flags timeout; size {ANSWERS_MAX}", ())
        for place in _PLACES
        for allow in (True, False)
        for name, kind, _ in _sets(place, allow)
    ]


def chains(plan: Plan, *, filled: bool) -> list[str]:
    """The chains of answers, empty or with their rules; the most exact answer comes first."""
    assert plan.programs is not None
    made = {name: list[str]() for name in sorted(chain_names(plan))}
    if filled:
        allowed, refused = plan.verdicts[c.ANSWERED], plan.verdicts[c.REFUSED]
        made["answered"] = [f"{counted(allowed)} accept {text.comment(allowed.name)}"]
        made["refused"] = [
            f"{counted(refused)} {tell(log_prefix(0, c.REFUSED))} drop {text.comment(refused.name)}",
            "drop",
        ]
        for place in _PLACES:
            made[f"answers_{place}"] = list(_look_ups(place, plan.programs.mask))
    return [chain(name, lines) for name, lines in made.items()]


def refill(plan: Plan) -> str:
    """Put the rules into the chains of answers, whatever was in them; the chain that hands over stays as it is."""
    flushed = "".join(f"flush chain inet {TABLE} {name}\n" for name in sorted(chain_names(plan) - {ASK}))
    return flushed + table(each for each in chains(plan, filled=True) if not each.startswith(f"chain {ASK} "))


def label_words(place: Place, mask: int) -> list[str]:
    """How a label is asked of a packet: of the socket that sends or would receive it, and of the packet, where whoever
    was asked has written it. On loopback a packet has the label of who sent it; there whoever was asked decides by
    himself."""
    label = f"meta mark & {mask:#010x} ^ {written(mask):#010x}"
    return [f"socket mark & {mask:#010x}", label if place is Place.OUT else f'iifname != "lo" {label}']


def _look_ups(place: Place, mask: int) -> Iterator[str]:
    by_set = [_sets(place, allow) for allow in (False, True)]
    for blocking, allowing in zip(*by_set, strict=True):
        for label in label_words(place, mask):
            for (name, _, keys), target in ((blocking, "refused"), (allowing, "answered")):
                yield f"{' . '.join([label, *keys])} @{name} goto {target}"


def _sets(place: Place, allow: bool) -> list[tuple[str, str, tuple[str, ...]]]:
    """Name, type and the questions behind the label of each set, the most exact first."""
    front = f"a_{place}_{_WORDS[allow]}_"
    end = "daddr" if place is Place.OUT else "saddr"
    found: list[tuple[str, str, tuple[str, ...]]] = []
    for family in (c.IPV4, c.IPV6):
        remote = f"{text.family_word(family)} {end}"
        kind = f"mark . {TYPES[family]}"
        found += [
            (f"{front}{_EXACT}{family}", f"{kind} . inet_proto . inet_service", (remote, "meta l4proto", "th dport")),
            (f"{front}{_PROTOCOL}{family}", f"{kind} . inet_proto", (remote, "meta l4proto")),
            (f"{front}{_ADDRESS}{family}", kind, (remote,)),
        ]
    found.append((f"{front}{_PORT}", "mark . inet_proto . inet_service", ("meta l4proto", "th dport")))
    return [*found, (f"{front}{_ANY}", "mark", ())]


SETS = frozenset(name for place in _PLACES for allow in (True, False) for name, _, _ in _sets(place, allow))
"""The names of all sets of answers."""


def answer_key(
    place: Place, allow: bool, scope: Scope, mark: int, remote: bytes, protocol: int, port: int | None
) -> tuple[str, bytes]:
    """The set and the key of an answer. Raises ValueError for a port of a protocol that has none."""
    front = f"a_{place}_{_WORDS[allow]}_"
    family = c.IPV4 if len(remote) == 4 else c.IPV6
    has_port = protocol in PORT_PROTOCOLS and port is not None
    label = mark.to_bytes(4, sys.byteorder)
    # Each part of a key fills whole registers of 4 bytes.
    proto, service = bytes((protocol, 0, 0, 0)), (port or 0).to_bytes(2, "big") + bytes(2)
    if scope is Scope.ANYWHERE:
        return f"{front}{_ANY}", label
    if scope is Scope.PORT:
        if not has_port:
            raise ValueError("a protocol without ports")
        return f"{front}{_PORT}", label + proto + service
    if scope is Scope.ADDRESS:
        return f"{front}{_ADDRESS}{family}", label + remote
    if has_port:
        return f"{front}{_EXACT}{family}", label + remote + proto + service
    return f"{front}{_PROTOCOL}{family}", label + remote + proto
