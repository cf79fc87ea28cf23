"""Limits of addresses: few new connections of theirs come through, the rest is dropped, until the kernel forgets them.

The chain hangs behind connection tracking, which tells what is new. Chain and sets are there only while somebody is
limited; no generation owns them.
"""

from __future__ import annotations

from pfw.enforce import nft_text as text
from pfw.enforce.nft_table import LIMIT_CHAINS, LIMIT_SETS, TABLE, TYPES, chain, filled_set, table

RATE, BURST = 10, 20
"""New connections a second, and at once: more than a person's browser needs of one machine, and no flood."""
LIMITS_MAX = 4_096
_RATE_TIMEOUT_S = 60


def hang() -> str:
    """Put chain and sets in their places."""
    sets, lines = [], ["type filter hook prerouting priority mangle; policy accept;", 'iifname "lo" accept']
    for family, (limited, rate) in LIMIT_SETS.items():
        kind, source = TYPES[family], f"{text.family_word(family)} saddr"
        sets.append(filled_set(limited, f"type {kind}; flags timeout; size {LIMITS_MAX}", ()))
        spent = f"type {kind}; size {LIMITS_MAX}; flags dynamic,timeout; timeout {_RATE_TIMEOUT_S}s"
        sets.append(filled_set(rate, spent, ()))
        bucket = f"update @{rate} {{ {source} limit rate over {RATE}/second burst {BURST} packets }}"
        lines.append(f"ct state new {source} @{limited} {bucket} counter drop")
    return table([*sets, chain(LIMIT_CHAINS[0], lines)])


def unhang() -> str:
    """Take them away."""
    chains = (f"{what} chain inet {TABLE} {name}\n" for what in ("flush", "delete") for name in LIMIT_CHAINS)
    sets = (f"delete set inet {TABLE} {name}\n" for pair in LIMIT_SETS.values() for name in pair)
    return "".join([*chains, *sets])
