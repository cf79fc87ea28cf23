"""`pfw up`, `confirm`, `down`, `status`, `show`, `panic`, `install`, `uninstall`."""

from __future__ import annotations

import hashlib
import os
from argparse import Namespace
from pathlib import Path

from pfw.cli import enforcement as screen
from pfw.cli import rules
from pfw.cli.screen import encode, utc_time
from pfw.commands.answer import NO, OK, Loaded, faults_of, loaded, state, tell, told
from pfw.daemon import backends, banning, boot, confirming, enforcing, listing, machine, programs, testing
from pfw.daemon import panic as panicking
from pfw.daemon.state import GUARD_REPORT, State
from pfw.drivers import clock
from pfw.enforce.conditions import CannotError
from pfw.enforce.plan import PlanError, make_plan
from pfw.enforce.programs import MASK, names_programs
from pfw.model.policy import Policy, PolicyError, public_source
from pfw.model.text import counted, printable
from pfw.policy.difference import difference, facts, lines


@told()
def up(options: Namespace) -> int:
    """`pfw up`."""
    found = loaded(options.rules)
    remembered = state()
    testing.check(found.policy, found.content, str(found.path), remembered.files.path / "lists")
    if getattr(options, "rehearse", False) and not _agreed(found, options):
        return NO
    wanted = enforcing.Wanted(
        policy=found.policy,
        path=str(found.path),
        content=found.content,
        backend=options.backend,
        confirm_s=options.confirm,
        force=options.force,
        dry_run=getattr(options, "dry_run", False),
    )
    outcome = apply(remembered, wanted)
    print("\n".join(outcome_lines(outcome, wanted)) if not options.json else encode(outcome_facts(outcome, wanted)))
    return OK


def _agreed(found: Loaded, options: Namespace) -> bool:
    from pfw.commands.rehearsing import agreed

    return agreed(found, options)


def apply(remembered: State, wanted: enforcing.Wanted) -> enforcing.Outcome:
    """Put in force; what no kernel can do becomes faults of the file."""
    report = taken_back(remembered)
    if report is not None:
        tell(report)
    if not wanted.dry_run:
        remembered.files.remove(GUARD_REPORT)
    try:
        return enforcing.up(remembered, wanted, tell)
    except (PlanError, CannotError) as error:
        raise faults_of(error, wanted.path, wanted.content) from None
    finally:
        for line in remembered.trouble:
            tell(line)


def taken_back(remembered: State) -> str | None:
    """What the guard did since the last `pfw up`, as a line."""
    report = remembered.files.read(GUARD_REPORT)
    if report is None:
        return None
    time, _, said = report.decode(errors="replace").strip().partition(" ")
    when = f" at {screen.moment_text(float(time))}" if time.isdecimal() else ""
    return f"a policy was taken back{when}, because nobody confirmed it: {said}"


def _before(outcome: enforcing.Outcome, path: str) -> Policy | None:
    if outcome.before is None:
        return None
    try:
        return rules.parse(outcome.before, Path(path))
    except PolicyError:
        return None


def outcome_lines(outcome: enforcing.Outcome, wanted: enforcing.Wanted) -> list[str]:
    """What was done, for a person."""
    if not outcome.changed:
        return [f"nothing to do: {printable(wanted.path)} is in force already ({outcome.backend})"]
    shown = lines(difference(_before(outcome, wanted.path), wanted.policy))
    said = [printable(line) for line in shown] or ["no rule has changed"]
    rules_text = counted(outcome.rules, "rule")
    if wanted.dry_run:
        return [*said, f"would be put in force: {printable(wanted.path)}, {rules_text} ({outcome.backend})"]
    said.append(f"in force: {printable(wanted.path)}, {rules_text} ({outcome.backend})")
    if outcome.cut:
        said.append(f"{counted(outcome.cut, 'connection')} that it forbids cut")
    if outcome.unknown:
        said.append(f"{counted(outcome.unknown, 'connection')} left alone: whose they are cannot be told")
    said += [printable(note) for note in outcome.notes]
    if outcome.until is not None:
        said.append(f"taken back at {screen.moment_text(outcome.until)} unless confirmed; type: pfw confirm")
    return said


def outcome_facts(outcome: enforcing.Outcome, wanted: enforcing.Wanted) -> dict[str, object]:
    return {
        "changed": outcome.changed,
        "dry_run": wanted.dry_run,
        "backend": outcome.backend,
        "policy": printable(wanted.path),
        "rules": outcome.rules,
        "difference": facts(difference(_before(outcome, wanted.path), wanted.policy)) if outcome.changed else None,
        "cut": outcome.cut,
        "unknown": outcome.unknown,
        "notes": [printable(note) for note in outcome.notes],
        "pending_until": None if outcome.until is None else utc_time(outcome.until),
    }


@told()
def confirm(options: Namespace) -> int:
    """`pfw confirm`."""
    remembered = state()
    kept = confirming.confirm(remembered)
    for line in remembered.trouble:
        tell(line)
    if options.json:
        print(encode({"confirmed": kept is not None, "policy": None if kept is None else printable(kept.path)}))
    elif kept is not None:
        print(f"kept: {printable(kept.path)}")
    else:
        tell("nothing waits for a confirmation: it was confirmed, or taken back already")
    return NO if kept is None else OK


@told()
def down(options: Namespace) -> int:
    """`pfw down`."""
    removed = enforcing.down(state())
    if options.json:
        print(encode({"removed": removed}))
    else:
        print(
            f"off: everything of ours is out ({', '.join(removed)})"
            if removed
            else "off already: nothing of ours is there"
        )
    return OK


@told(root=False)
def show(options: Namespace) -> int:
    """`pfw show`."""
    found = loaded(options.rules)
    kind = options.backend
    if kind == "auto":
        known = backends.in_force(state()) if os.geteuid() == 0 else None
        kind = known[0].name if known is not None else "nftables"
    try:
        lists = {name: each.addresses for name, each in
                 listing.load(state().files.path / "lists", found.policy.blocklists).items()}  # fmt: skip
        book = programs.book(state()) or programs.LabelBook(state(), MASK)
        plan = make_plan(programs.resolved(found.policy), machine.surroundings(book.labelling()), lists)
        text = backends.named(kind).show(plan)
    except (PlanError, CannotError) as error:
        raise faults_of(error, str(found.path), found.content) from None
    print(encode({"backend": kind, "ruleset": text}) if options.json else printable_lines(text))
    return OK


def printable_lines(text: str) -> str:
    return "\n".join(printable(line.replace("\t", "    ")) for line in text.splitlines())


@told()
def status(options: Namespace) -> int:
    """`pfw status`."""
    remembered = state()
    found = _status(remembered)
    for line in (*remembered.trouble, taken_back(remembered)):
        if line is not None:
            tell(line)
    print(encode(screen.status_facts(found)) if options.json else "\n".join(screen.status_lines(found, clock.now())))
    return OK if found.active else NO


def _status(remembered: State) -> screen.Status:
    now = clock.now()
    if remembered.pending() is not None:
        with remembered.files.locked():
            confirming.drop_stale(remembered)
    known = backends.in_force(remembered)
    bans = [screen.BanStatus(each.what, each.since, each.until, each.why)
            for each in banning.records(remembered, now).values()]  # fmt: skip
    backend = known[0] if known is not None else backends.any_active()
    live = backend.live() if backend is not None else None
    if backend is None or live is None:
        return screen.Status(active=False, bans=bans, panic=bool(panicking.where()))
    applied = known[1] if known is not None else None
    if applied is None:
        return screen.Status(active=True, backend=backend.name, bans=bans, panic=bool(panicking.where()))
    counted_by = backend.counters()
    found = []
    for each in applied.verdicts:
        did = counted_by.get(each.counter)
        last = None if did is None or did.last_s is None else now - did.last_s
        packets, size, untold = (did.packets, did.bytes, did.untold) if did is not None else (0, 0, 0)
        found.append(screen.RuleStatus(each.name, each.action, packets, size, last, untold, always=each.index is None))
    pending = remembered.pending()
    policy = _policy(remembered, applied.generation, applied.path)
    needs_daemon = policy is not None and names_programs(policy)
    return screen.Status(
        active=True,
        backend=backend.name,
        policy=applied.path,
        applied=applied.time,
        changed_since=_changed(applied.path, applied.sha256),
        intact=(live.generation, live.fingerprint) == (applied.generation, applied.fingerprint),
        daemon=programs.running() is not None if needs_daemon else None,
        panic=bool(panicking.where()),
        pending_until=None if pending is None else pending.until,
        rules=found,
        bans=bans,
        lists=list_status(remembered, policy),
        notes=applied.notes,
    )


def list_status(remembered: State, policy: Policy | None) -> list[screen.ListStatus]:
    """The block lists of a policy as they are on the disk."""
    if policy is None:
        return []
    found = []
    for each in policy.blocklists:
        record = listing.record_of(remembered.files.path / "lists", each)
        fetched = record.fetched_at or None
        source = public_source(each.source)
        in_force = each.enabled and fetched is not None
        found.append(screen.ListStatus(each.name, source, record.entries, fetched, record.last_error, in_force))
    return found


def _policy(remembered: State, generation: int, path: str) -> Policy | None:
    content = remembered.rules_of(generation)
    try:
        return None if content is None else rules.parse(content, Path(path))
    except PolicyError:
        return None


def _changed(path: str, sha256: str) -> bool:
    try:
        return hashlib.sha256(rules.read(Path(path))).hexdigest() != sha256
    except OSError:
        return True


@told()
def panic(options: Namespace) -> int:
    """`pfw panic`."""
    remembered = state()
    known = backends.in_force(remembered)
    kind = options.backend
    if kind == "auto":
        kind = known[0].name if known is not None else backends.choose("auto").name
    sessions = machine.own_sessions()
    if options.off:
        found = panicking.where()
        for each in found:
            panicking.stop(each)
        said = "panic is over: the policy decides again" if found else "there was no panic"
    else:
        panicking.start(kind, sessions)
        left = f" and your session {sessions[0]}" if sessions else ""
        said = f"everything is cut off but loopback{left}; pfw panic --off ends it"
    print(encode({"panic": not options.off, "sessions": [str(each) for each in sessions]}) if options.json else said)
    return OK


@told()
def install(options: Namespace) -> int:
    """`pfw install`."""
    remembered = state()
    remembered.files.make()
    written = boot.install(remembered.files.path, Path(options.units) if options.units else boot.UNITS)
    if options.json:
        print(encode({"written": written}))
    else:
        print("\n".join(f"wrote {printable(path)}" for path in written))
        if remembered.current() is None:
            print("no policy is in force yet: what pfw up puts in force comes back at each boot")
    return OK


@told()
def uninstall(options: Namespace) -> int:
    """`pfw uninstall`."""
    removed = boot.uninstall(Path(options.units) if options.units else boot.UNITS)
    if options.json:
        print(encode({"removed": removed}))
    else:
        print("\n".join(f"removed {printable(path)}" for path in removed) or "there was nothing of ours")
    return OK
