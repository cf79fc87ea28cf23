"""The chain and sets of limits, as text; what they do to packets is in `tests/netns/test_responding.py`."""

from __future__ import annotations

from pfw.enforce import nft_limits, nft_table
from pfw.enforce.nft_table import Names, sweep
from pfw.enforce.plan import only_bans

HUNG = """table inet pfw {
	set limit4 { type ipv4_addr; flags timeout; size 4096; }
	set rate4 { type ipv4_addr; size 4096; flags dynamic,timeout; timeout 60s; }
	set limit6 { type ipv6_addr; flags timeout; size 4096; }
	set rate6 { type ipv6_addr; size 4096; flags dynamic,timeout; timeout 60s; }
	chain limit_in {
		type filter hook prerouting priority mangle; policy accept;
		iifname "lo" accept
		ct state new ip saddr @limit4 update @rate4 { ip saddr LIMIT } counter drop
		ct state new ip6 saddr @limit6 update @rate6 { ip6 saddr LIMIT } counter drop
	}
}
""".replace("LIMIT", "limit rate over 10/second burst 20 packets")


def test_the_text() -> None:
    assert nft_limits.hang() == HUNG


def test_what_is_hung_is_taken_away_whole() -> None:
    gone = nft_limits.unhang().splitlines()
    assert gone[:2] == ["flush chain inet pfw limit_in", "delete chain inet pfw limit_in"]
    assert gone[2:] == [f"delete set inet pfw {name}" for name in ("limit4", "rate4", "limit6", "rate6")]


def test_no_change_of_the_policy_sweeps_it_away() -> None:
    names = frozenset(name for pair in nft_table.LIMIT_SETS.values() for name in pair)
    there = Names(frozenset({*nft_table.LIMIT_CHAINS, "g1_in"}), names | {"g1_s0"})
    assert sweep(there, only_bans(), []).split("\n") == [
        "flush chain inet pfw g1_in", "delete set inet pfw g1_s0", "delete chain inet pfw g1_in", "",
    ]  # fmt: skip
