"""`pfw rehearse`, `pfw suggest`, `pfw up --rehearse`: a policy held against the history. Nothing is put in force here.

The daemon need not run; the history is read as `pfw log` reads it.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pfw.cli import ask, recall, rules
from pfw.cli import rehearsal as screen
from pfw.cli.ask import BAD_INPUT, OK, REFUSED, Loaded, tell, tell_faults
from pfw.cli.parser_rehearsal import DEFAULT_SINCE
from pfw.cli.screen import encode
from pfw.commands.calling import NO
from pfw.daemon import machine
from pfw.drivers import clock, terminal
from pfw.drivers.programs import RefusedError
from pfw.drivers.store import folder, write
from pfw.enforce.plan import ANSWERED_NAME, BAN_NAME, INVALID_NAME, REFUSED_NAME
from pfw.model.history import Entry, Group, Query
from pfw.model.policy import Fault, Policy, PolicyError
from pfw.policy.rehearsal import Rehearsal, World
from pfw.policy.rehearsal import rehearse as hold_against
from pfw.policy.rehearsed import Rehearsed
from pfw.record.history_read import HistoryError, Reader, open_history
from pfw.record.history_schema import FILE

if TYPE_CHECKING:
    from pfw.policy.suggest import Suggested

_BEFORE = frozenset((BAN_NAME, INVALID_NAME))
_ANSWERED = frozenset((ANSWERED_NAME, REFUSED_NAME))
"""What people's answers are called where rules are named (`enforce/plan.py`)."""
_MODE = 0o644
_QUIET_S, _STEP = 1.0, 10_000
_KEPT_MAX = 100_000
"""So many groups are kept in memory, about 30 MB."""
_WORDS = ("until", "remote", "protocol", "user", "port", "direction", "blocked", "rule")


def rehearse(options: Namespace) -> int:
    """`pfw rehearse`."""
    found = ask.loaded(options.file or options.rules)
    if isinstance(found, int):
        return found
    try:
        query = _query(options)
        outcome, since = _rehearsed(found.policy, query)
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    except HistoryError as error:
        tell(str(error))
        return REFUSED
    if options.json:
        print(encode(screen.facts(outcome, str(found.path), since)))
    else:
        print("\n".join(screen.lines(outcome, since, terminal.width())))
    return NO if outcome.changes else OK


def agreed(found: Loaded, options: Namespace) -> bool:
    """For `pfw up --rehearse`: show what the policy would have done, and ask whether to apply it. Without a terminal
    nobody can be asked, and the answer is no. Raises RefusedError where there is no history."""
    try:
        outcome, since = _rehearsed(found.policy, _query(Namespace(since=DEFAULT_SINCE, app=None)))
    except HistoryError as error:
        raise RefusedError(f"{error}; without --rehearse it is applied unseen") from None
    # With --json standard output is for what was done.
    print("\n".join(screen.lines(outcome, since, terminal.width())), file=sys.stderr if options.json else sys.stdout)
    if options.yes or options.dry_run:
        return True
    if not sys.stdin.isatty():
        tell("nothing was changed: there is no terminal to ask at; --yes applies it without a question")
        return False
    sys.stdout.flush()
    print("apply? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    tell("nothing was changed")
    return False


def suggest(options: Namespace) -> int:
    """`pfw suggest`."""
    found = ask.loaded(options.file or options.rules)
    if isinstance(found, int):
        return found
    why_not = None if options.output is None else _cannot_be_new(options.output)
    if why_not is not None:
        tell(why_not)
        return BAD_INPUT
    try:
        query = replace(_query(options), blocked=False)
        return _suggest(found, query, options)
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    except HistoryError as error:
        tell(str(error))
        return REFUSED


def _suggest(found: Loaded, query: Query, options: Namespace) -> int:
    from pfw.cli import suggestion as screen

    before = content = found.content.decode()
    file = str(found.path)
    if found.policy.simple:
        from pfw.policy.convert import to_full

        content = to_full(content, file, rules.services)
        tell(f"{file} is of the lists form; it becomes rules that mean the same")
    outcome, since = _suggested(found, content, query)
    failing = _failing(outcome.text, options.output or file) if found.policy.tests else []
    shown = list(screen.diff_lines(before, outcome.text, file)) if outcome.lines else []
    if options.output is not None and outcome.lines:
        try:
            write(Path(options.output), outcome.text.encode(), _MODE)
        except OSError as error:
            tell(f"{options.output}: {error.strerror or error}")
            return REFUSED
    if options.json:
        print(encode(screen.facts(outcome, failing, shown, file, since, options.output)))
    else:
        if options.output is None and shown:
            print("\n".join(shown))
            sys.stdout.flush()
        for line in screen.remarks(outcome):
            print(line, file=sys.stderr)
        tell_faults(failing)
        if failing:
            tell("with these rules the tests of the file do not all hold: pfw up refuses it like this")
    return OK if outcome.lines and not failing else NO


def _suggested(found: Loaded, content: str, query: Query) -> tuple[Suggested, float]:
    """What is suggested, and since when the past was looked at. Raises HistoryError."""
    from pfw.policy.suggest import suggest as look_for_rules

    with open_history(folder() / FILE) as history:
        groups, file = _Again(history, query), str(found.path)
        try:
            outcome = look_for_rules(content, file, groups, _world(found.policy), rules.services, _Lists())
        except PolicyError as error:
            # The file has been read before: it is the connections of which no rule can be made.
            raise HistoryError(
                f"{history.path} is damaged: no rule can be made of it: {error.faults[0].what}"
            ) from None
        return outcome, _since(history, query)


def _failing(text: str, path: str) -> list[Fault]:
    """The tests of the new file that do not hold."""
    from pfw.daemon import testing

    content = text.encode()
    return testing.failing(rules.parse(content, Path(path)), content, path, folder() / "lists")


def _cannot_be_new(name: str) -> str | None:
    """Why a file cannot be written. Nothing is written over: what is there may be in force."""
    if not name:
        return "--output '' is an empty name; name a new file"
    if os.path.lexists(name):
        return f"{name}: is there already; name another file"
    return None if Path(name).absolute().parent.is_dir() else f"{name}: the folder is not there"


class _Again:
    """The groups of a history, as often as they are asked for: read anew only where they are many."""

    def __init__(self, history: Reader, query: Query) -> None:
        self._history = history
        self._query = query
        self._kept: list[Group] | None = None

    def __call__(self) -> Iterable[Group]:
        if self._kept is not None:
            return self._kept
        groups = self._history.groups(self._query)
        first = list(islice(groups, _KEPT_MAX + 1))
        if len(first) <= _KEPT_MAX:
            self._kept = first
        return chain(first, groups)


class _Lists:
    """What is on block lists, read once: what they cannot tell is told once, too."""

    def __init__(self) -> None:
        self._known: Policy | None = None

    def __call__(self, policy: Policy) -> Policy:
        if self._known is None:
            self._known = known_lists(policy)
        return replace(policy, list_rules=self._known.list_rules)


def known_lists(policy: Policy) -> Policy:
    """The policy with what is on its block lists, as far as that is known here."""
    if not policy.blocklists:
        return policy
    from pfw.commands import explaining

    return explaining.known_lists(policy)


def _query(options: Namespace) -> Query:
    """What part of the past is meant. Raises ValueError."""
    given = dict.fromkeys(_WORDS) | vars(options)
    return recall.read_query(Namespace(**given), clock.now())


def _rehearsed(policy: Policy, query: Query) -> tuple[Rehearsed, float]:
    """How it went, and since when the past was looked at. Raises HistoryError."""
    with open_history(folder() / FILE) as history:
        since = _since(history, query)
        rehearsal = Rehearsal(known_lists(policy), _world(policy))
        groups, entries = history.groups(query), lambda: _counted(history.entries(query))
        return hold_against(rehearsal, groups, entries), since


def _counted(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The same, with how many there were by now on a terminal: where each is looked at, it takes a while."""
    if not sys.stderr.isatty():
        yield from entries
        return
    due = time.monotonic() + _QUIET_S
    try:
        for number, entry in enumerate(entries, 1):
            yield entry
            if number % _STEP == 0 and time.monotonic() >= due:
                print(f"\rlooked at {number:,} connections", end="", file=sys.stderr, flush=True)
    finally:
        if time.monotonic() >= due:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _since(history: Reader, query: Query) -> float:
    """From when on there is something of what is wanted."""
    span = history.span()
    first = clock.now() if span is None else span[0]
    return first if query.since is None else max(first, query.since)


def _world(policy: Policy) -> World:
    """Users and groups are those of today."""
    owners = machine.surroundings().owners
    named: dict[str, frozenset[int]] = {}
    for name in {name for rule in policy.rules for name in rule.users or ()}:
        if name.startswith("group:"):
            group = owners.group(name.removeprefix("group:"))
            named[name] = frozenset() if group is None else group.members
        else:
            uid = owners.user(name)
            named[name] = frozenset() if uid is None else frozenset((uid,))
    return World(now=clock.moment(), utc_offset_s=clock.utc_offset_s, named=named, before=_BEFORE, answered=_ANSWERED)
