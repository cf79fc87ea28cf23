"""How long bans take, many at once and one at a time, beside what fail2ban does with ufw and firewalld."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from firewalls import Firewalld, Pfw, Ufw, has, missing, nft, unmeasurable
from footprint import Measured
from pair import Pairs
from processes import say
from rulesets import hosts, merged, nft_replacing, policy, prefixes, rules
from setting import Setting
from table import Section, plural_rounds, spread

BANS, PREFIXES = 10_000, 100_000
ONE_BY_ONE = 10
ROUNDS = 3


def measure(setting: Setting) -> list[Section]:
    section = Section("Time until addresses are banned", ("", "s", "CPU s", "ms a ban"))
    reason = unmeasurable(setting)
    if reason is not None:
        section.note(reason)
        return [section]
    rounds = min(ROUNDS, setting.rounds)
    addresses = hosts(BANS + ONE_BY_ONE * (rounds + 1))
    files = [setting.folder / name for name in ("enforce-bans.txt", "enforce-100000.txt")]
    files[0].write_text("\n".join(addresses[:BANS]))
    files[1].write_text("\n".join(prefixes(PREFIXES)))
    found: list[tuple[Measured, int]] = []
    with Pairs() as pairs:
        for what, text in (("", policy(10)), (f", {PREFIXES:,} prefixes listed", policy(10, str(files[1])))):
            many, more = Measured(f"pfw ban add -, {BANS:,} addresses{what}"), Measured(f"… and one more{what}")
            found += [(many, BANS), (more, 1)]
            for turn in range(rounds):
                say(f"bench: banning, round {turn + 1} of {rounds}{what}")
                pfw = Pfw(setting, pairs.pair())
                pfw.up(text)
                _pfw(pfw, files[0], addresses[BANS + turn], many, more)
        found += _others(setting, pairs, addresses[-ONE_BY_ONE:])
    for each, bans in found:
        per_ban = [wall_s / bans * 1e3 for wall_s in each.wall_s]
        section.row(each.name, spread(each.wall_s, 2), spread(each.cpu_s, 2), spread(per_ban, 2 if bans > 1 else 0))
    section.note(f"{plural_rounds(rounds)} of pfw; {ONE_BY_ONE} bans one by one of the others, with 100 rules")
    section.note("a ban by pfw is also on the disk, ends by itself, and is refused for this machine's own addresses")
    for text in missing():
        section.note(text)
    return [section]


def _pfw(pfw: Pfw, file: Path, one: str, many: Measured, more: Measured) -> None:
    many.run(pfw.command("ban", "add", "-"), environment=pfw.environment, standard_input=file)
    more.run(pfw.command("ban", "add", one), environment=pfw.environment)


def _others(setting: Setting, pairs: Pairs, addresses: Sequence[str]) -> list[tuple[Measured, int]]:
    """A command for each address."""
    bare = pairs.pair()
    nft(bare, nft_replacing(merged(prefixes(PREFIXES))))
    element = Measured(f"nft add element, to a set of {PREFIXES:,} prefixes")
    for address in addresses:
        say(f"bench: banning, nft, {address}")
        element.run((*bare.inside, "nft", "add", "element", "inet", "listed", "bad", f"{{ {address} }}"))
    found = [(element, 1)]
    if has("ufw"):
        ufw = pairs.enter_context(closing(Ufw(setting, pairs.pair())))
        ufw.up(rules(100))
        insert = Measured("ufw insert 1 deny from")
        for address in addresses:
            say(f"bench: banning, ufw, {address}")
            insert.run(ufw.command("insert", "1", "deny", "from", address))
        found.append((insert, 1))
    if has("firewalld"):
        firewalld = pairs.enter_context(closing(Firewalld(setting, pairs.pair())))
        firewalld.up(rules(100))
        add = Measured("firewall-cmd --add-rich-rule")
        for address in addresses:
            say(f"bench: banning, firewalld, {address}")
            add.run(firewalld.command(f'--add-rich-rule=rule family="ipv4" source address="{address}" drop'))
        found.append((add, 1))
    return found
