"""`pfw lists`: the block lists of the policy, what is on them, and fetching them anew."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from pfw.cli import enforcement as screen
from pfw.cli import rules
from pfw.cli.screen import encode
from pfw.commands.answer import BAD_INPUT, NO, OK, loaded, state, tell, told
from pfw.commands.enforcing import apply, list_status
from pfw.daemon import backends, enforcing, listing, machine
from pfw.daemon.state import State
from pfw.drivers import clock
from pfw.model.address import AddressSet, parse_address
from pfw.model.policy import Blocklist, Policy
from pfw.model.text import printable


@told()
def lists(options: Namespace) -> int:
    """`pfw lists`."""
    remembered = state()
    policy = _policy(remembered, options.rules)
    if options.what == "why":
        return _why(remembered, policy, options)
    if options.what == "update":
        return _update(remembered, policy, options)
    found = list_status(remembered, policy)
    if options.json:
        print(encode([screen.list_facts(each) for each in found]))
    else:
        print("\n".join(screen.list_lines(found, clock.now())[1:]) or 'the policy has no "blocklists"')
    return OK


def _policy(remembered: State, named: str | None) -> Policy:
    """The policy that is in force, or the one that is named."""
    known = backends.in_force(remembered) if named is None else None
    content = remembered.rules_of(known[1].generation) if known is not None else None
    if known is not None and content is not None:
        return rules.parse(content, Path(known[1].path))
    return loaded(named).policy


def _update(remembered: State, policy: Policy, options: Namespace) -> int:
    names = {each.name for each in policy.blocklists}
    for name in options.names:
        if name not in names:
            tell(f"the policy has no block list {name!r}")
            return BAD_INPUT
    wanted = [each for each in policy.blocklists if each.enabled and (not options.names or each.name in options.names)]
    with remembered.files.locked():
        return _update_locked(remembered, policy, options, wanted)


def _update_locked(remembered: State, policy: Policy, options: Namespace, wanted: list[Blocklist]) -> int:
    folder = remembered.files.path / "lists"
    own = AddressSet().union(*(addresses for _, addresses in machine.protected()))
    results = listing.refresh(
        folder, wanted, own, clock.now(), due_only=options.due, accept_shrunken=options.accept_shrunken,
        progress=(lambda _: None) if options.json else tell,
    )  # fmt: skip
    listing.prune(folder, policy.blocklists)
    if any(each.outcome == "updated" for each in results):
        _load(remembered)
    if options.json:
        print(encode([{"name": each.name, "outcome": each.outcome, "text": printable(each.line)} for each in results]))
    else:
        print("\n".join(printable(each.line) for each in results) or "no block list to update")
    return NO if any(each.outcome in ("kept", "failed") for each in results) else OK


def _load(remembered: State) -> None:
    """Bring the new content into the kernel, with the policy that is in force there."""
    known = backends.in_force(remembered)
    content = remembered.rules_of(known[1].generation) if known is not None else None
    if known is None or content is None or remembered.pending() is not None:
        return
    path = known[1].path
    policy = rules.parse(content, Path(path))
    wanted = enforcing.Wanted(policy=policy, path=path, content=content, backend=known[0].name, why="lists")
    apply(remembered, wanted)


def _why(remembered: State, policy: Policy, options: Namespace) -> int:
    stored = listing.load(remembered.files.path / "lists", policy.blocklists)
    if not options.names:
        tell("name an address, as in: pfw lists why 203.0.113.7")
        return BAD_INPUT
    found = {}
    for text in options.names:
        try:
            found[text] = listing.why(stored, parse_address(text))
        except ValueError as error:
            tell(f"{text!r} {error}")
            return BAD_INPUT
    if options.json:
        print(encode([{"address": text, "lists": [{"name": name, "entry": entry} for name, entry in rows]}
                      for text, rows in found.items()]))  # fmt: skip
    else:
        for text, rows in found.items():
            print("\n".join(f"{text} is on {name} ({entry})" for name, entry in rows) or f"{text} is on no list")
    return OK if any(found.values()) else NO
