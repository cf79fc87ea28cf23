"""OpenSnitch's rules as a policy that allows nothing that they did not.

OpenSnitch holds a connection that goes out against its enabled rules in the order of their names, byte by byte. The
first that matches and denies, rejects or has precedence decides. Where there is none, the last that matches does, and
it allows. Else the default does. Here the first that matches decides. So the rules that end the search come first, in
the order of their names, and behind them the others, which all allow, in the opposite order.

That is the same. If rules that end the search match, the first of them decides there. Here it stands before the others
of its kind that match, and before all of the other kind. If none of them matches, the last of the other kind that
matches decides there. Here it is the first, as their order is turned round. If no rule matches, both take the default.
So not only the verdict is the same but also the rule. One rule of theirs may be several here (TCP over IPv6 is another
protocol there). They stand together and do the same, so that the first of them that matches stands for all.

A rule that cannot be the same is changed in the direction that allows less. An allow rule gets a part of what it
matched, or is left out: what it loses was allowed there, so whatever becomes of it here is no more. A deny rule gets
more than it matched: what it gains is blocked here, so it is no more either. It is left out only if that was asked for.
Neither touches a connection that the rule decides in both. (One thing is out of reach: letters of both cases in the
path of a deny rule. It is noted.)

What OpenSnitch does not hold against rules is not held against them here: protocols but TCP, UDP, UDP-Lite, SCTP and
ICMP, and neighbour discovery, which conntrack does not track. Loopback and DHCP it judges like the rest, so their base
rules are off and only their way in is open. What it does when it does not know the program is not compared: here no
rule for a program allows on a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from pfw.model.text import printable
from pfw.policy import blocklists, values
from pfw.policy.convert import write_json
from pfw.policy.load import VERSION, load
from pfw.policy.opensnitch_match import LISTS, Box, CannotError, NeverError, Reading
from pfw.policy.opensnitch_rule import NotLoadedError, RuleFile, SnitchRule, TooMuchError, read_rule
from pfw.policy.opensnitch_write import rules_of
from pfw.policy.report import MisfitError, shown
from pfw.policy.syntax import MAX_SIZE

KEPT, NARROWED, STRICTER, LEFT_OUT = "kept", "narrowed", "stricter", "left out"

DEFAULTS = {"ask": "ask", "allow": "allow", "deny": "block", "reject": "reject"}
"""The words of OpenSnitch for what happens without a rule, and `ask`."""

_ACTIONS = {"allow": "allow", "deny": "block", "reject": "reject"}

_WAY_IN: tuple[dict[str, object], ...] = (
    {"name": "loopback, the way in", "action": "allow", "direction": "in", "interface": "lo"},
    {
        "name": "dhcp, the way in",
        "action": "allow",
        "direction": "in",
        "from": "0.0.0.0/0",
        "protocol": "udp",
        "from_port": 67,
        "port": 68,
    },
    {
        "name": "dhcpv6, the way in",
        "action": "allow",
        "direction": "in",
        "from": "fe80::/10",
        "protocol": "udp",
        "from_port": 547,
        "port": 546,
    },
)
"""What the base rules that are off would let in. OpenSnitch judges only what goes out."""


class Outcome(Struct, frozen=True):
    """What became of a rule: one of the four words above, why, and the names of the rules or the lists here."""

    rule: str
    file: str
    outcome: str
    why: tuple[str, ...] = ()
    written: tuple[str, ...] = ()


def _no_folder(_: str) -> None:
    return None


class Settings(Struct, frozen=True, kw_only=True):
    """What there is besides the rules. `default` is a key of DEFAULTS; `unattended` what OpenSnitch does when nobody
    answers. `folder` gives the paths of a folder's lists, None where it cannot be read."""

    default: str = "ask"
    unattended: str = "deny"
    aliases: Mapping[str, tuple[str, ...]] = {}
    leave_out_denies: bool = False
    folder: Callable[[str], tuple[str, ...] | None] = _no_folder


class Imported(Struct, frozen=True):
    """A policy in the full form, and what became of each rule, in the order in which OpenSnitch looks at them."""

    text: str
    outcomes: tuple[Outcome, ...]

    @property
    def is_exact(self) -> bool:
        return all(each.outcome == KEPT for each in self.outcomes)


def import_rules(files: Iterable[RuleFile], settings: Settings) -> Imported:
    """The policy of the files, which stand in the order of their names. Raises TooMuchError."""
    importing = _Import(settings)
    rules, outcomes = _loaded(files)
    for rule in sorted(rules, key=lambda each: each.order):
        outcomes.append(importing.take(rule))
    text = write_json(importing.policy()) + "\n"
    # Whatever the files hold, what comes out is a policy; if not, it is our fault and must not become a file.
    load(text)
    return Imported(text, tuple(outcomes))


def _loaded(files: Iterable[RuleFile]) -> tuple[list[SnitchRule], list[Outcome]]:
    """The rules that OpenSnitch has in its memory: of two of one name the later file's."""
    rules: dict[str, SnitchRule] = {}
    outcomes: list[Outcome] = []
    for file in files:
        try:
            rule = read_rule(file)
        except TooMuchError as error:
            raise TooMuchError(f"{file.name}: {error}") from None
        except NotLoadedError as error:
            outcomes.append(Outcome("", file.name, LEFT_OUT, (f"OpenSnitch does not load it either: it {error}",)))
            continue
        before = rules.pop(rule.name, None)
        if before is not None:
            why = f"{shown(file.name)} has a rule of the same name, which takes its place"
            outcomes.append(Outcome(before.name, before.file, LEFT_OUT, (why,)))
        rules[rule.name] = rule
    return list(rules.values()), outcomes


class _LeftOutError(Exception):
    """Nothing is written for the rule."""


class _Import:
    """The policy while it is put together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._first: list[dict[str, object]] = []
        self._allows: list[list[dict[str, object]]] = []
        self._lists: list[dict[str, object]] = []
        self._bytes = 0
        self._names = {str(each["name"]) for each in _WAY_IN}

    def take(self, rule: SnitchRule) -> Outcome:
        """Take a rule in. They come in the order in which OpenSnitch looks at them."""
        reading = Reading(not rule.allows, self._settings.aliases)
        try:
            written = self._write_lists(rule, reading) or self._write_rules(rule, reading)
        except (CannotError, NeverError, _LeftOutError) as error:
            return Outcome(rule.name, rule.file, LEFT_OUT, (str(error),))
        why = tuple(each.text for each in reading.differences)
        if any(each.stricter for each in reading.differences):
            return Outcome(rule.name, rule.file, STRICTER, why, written)
        return Outcome(rule.name, rule.file, NARROWED if why else KEPT, why, written)

    def policy(self) -> dict[str, object]:
        """The whole file."""
        default = DEFAULTS[self._settings.default]
        policy: dict[str, object] = {
            "version": VERSION,
            "note": "Made of the rules of OpenSnitch, which judges only what goes out.",
            "default": {"in": "block", "out": default, "forward": "block"},
            "base": {"loopback": False, "dhcp_client": False},
        }
        if default == "ask" and self._settings.unattended == "allow":
            policy["ask"] = {"unattended": "allow"}
        if self._lists:
            policy["blocklists"] = self._lists
        last = [each for several in reversed(self._allows) for each in several]
        policy["rules"] = [*_WAY_IN, *self._first, *last]
        return policy

    def _write_rules(self, rule: SnitchRule, reading: Reading) -> tuple[str, ...]:
        box = self._box(rule, reading)
        if self._settings.leave_out_denies and any(each.stricter for each in reading.differences):
            raise _LeftOutError("; ".join(each.text for each in reading.differences) + "; left out as it was asked for")
        wholes = rules_of(box)
        self._bytes += sum(len(str(each)) for each in wholes) + values.MAX_TEXT
        if self._bytes > MAX_SIZE:
            raise TooMuchError(f"the rules are more than a policy can hold ({MAX_SIZE >> 20} MiB)")
        if not wholes:
            raise NeverError("no connection can match all of it")
        rules = [
            {
                "name": self._unique(rule.name),
                "action": _ACTIONS.get(rule.action, "block"),
                "direction": "out",
                **fields,
                **({} if rule.enabled else {"enabled": False}),
                **_note(rule, reading),
            }
            for fields in wholes
        ]
        if rule.allows and not rule.precedence:
            self._allows.append(rules)
        else:
            self._first += rules
        return tuple(str(each["name"]) for each in rules)

    def _box(self, rule: SnitchRule, reading: Reading) -> Box:
        _check_rule(rule, reading)
        box = reading.read(rule.operators)
        if reading.wide and box == Box() and any(each.stricter for each in reading.differences):
            reading.note("nothing else is asked for, so that it blocks EVERYTHING that goes out", stricter=True)
        return box

    def _write_lists(self, rule: SnitchRule, reading: Reading) -> tuple[str, ...]:
        """A deny of what is on lists of addresses, and nothing else, as block lists; nothing where it is none."""
        asked = [each for each in rule.operators if each.operand != "true"]
        if rule.allows or len(asked) != 1 or asked[0].operand not in LISTS or rule.duration != "always":
            return ()
        paths = self._settings.folder(asked[0].data)
        if paths is None or len(self._lists) + len(paths) > blocklists.MAX_LISTS:
            return ()
        if not paths:
            raise NeverError(f"there is no list in {shown(asked[0].data)}")
        try:
            for path in paths:
                blocklists.read_source(path)
        except MisfitError:
            return ()
        _check_rule(rule, reading)
        reading.note("a block list is dropped before all rules and in silence", stricter=True)
        reading.note("a list that is added to the folder later must be added here too", stricter=False)
        names: list[str] = []
        for path in paths:
            names.append(_list_name(rule.name, path, {str(each["name"]) for each in self._lists}))
            entry: dict[str, object] = {"name": names[-1], "source": path, "direction": "out"}
            if not rule.enabled:
                entry["enabled"] = False
            self._lists.append({**entry, **_note(rule, reading)})
        return tuple(names)

    def _unique(self, name: str) -> str:
        """A name that a rule may have, and that none has yet."""
        plain = _plain(name)[: values.MAX_NAME - 12].strip() or "rule"
        try:
            values.read_name(plain)
        except MisfitError:
            plain = f"rule {plain}"
        number, unique = 1, plain
        while unique in self._names:
            number += 1
            unique = f"{plain} ({number})"
        self._names.add(unique)
        return unique


def _check_rule(rule: SnitchRule, reading: Reading) -> None:
    """What there is to say of a rule as a whole. Raises _LeftOutError."""
    if rule.duration != "always":
        if rule.allows:
            raise _LeftOutError(f"it is for a time ({shown(rule.duration)})")
        reading.note(f"it is for a time ({shown(rule.duration)}), and blocks for good", stricter=True)
    if rule.action not in _ACTIONS:
        reading.note(f"its action {shown(rule.action)} is not known, so it blocks", stricter=True)
    if rule.empty_list:
        if rule.allows:
            raise _LeftOutError("a list of conditions is empty, which allows everything")
        reading.note("a list of conditions is empty, which matches everything", stricter=True)
    if rule.old_list:
        reading.note("its conditions are a text, which newer versions take for an empty list", stricter=False)


def _note(rule: SnitchRule, reading: Reading) -> dict[str, object]:
    said = [rule.description, *(each.text for each in reading.differences)]
    if rule.created:
        said.append(f"made {rule.created}")
    if rule.nolog:
        said.append("was not logged")
    note = _plain("; ".join(filter(None, said)))
    return {"note": note[: values.MAX_TEXT]} if note else {}


def _plain(text: str) -> str:
    """On one line, and all of it can be shown."""
    shown_text = printable(re.sub(r"\s+", " ", text))
    return "".join(each if each.isprintable() else "_" for each in shown_text).strip()


def _list_name(rule: str, path: str, taken: set[str]) -> str:
    base = re.sub("[^A-Za-z0-9_.-]+", "-", f"{rule}-{path.rpartition('/')[2]}").strip("-._") or "list"
    base = base[: blocklists.MAX_NAME - 4]
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name
