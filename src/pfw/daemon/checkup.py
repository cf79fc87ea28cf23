"""Whether what is ours is as it should be: in the kernel, on the disk, and at the next boot. Nothing is changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from time import localtime, strftime

import msgspec

from pfw.daemon import banning, listing, panic
from pfw.daemon.backend import Backend
from pfw.daemon.backends import any_active, in_force
from pfw.daemon.state import GUARD_REPORT, Applied, State
from pfw.drivers import clock, foreign, netfilter
from pfw.drivers.programs import RefusedError
from pfw.enforce.neighbours import Area, Finding, Level
from pfw.enforce.nft_table import BANS_MAX, TABLE, base_chains
from pfw.model.policy import Blocklist, Policy
from pfw.model.text import counted

_SYSTEMD = Path("/run/systemd/system")
_POLICY_BYTES_MAX = 64 << 20
_BANS_FULL_AT = 0.9
_OLD_REFRESHES = 3
_REPAIR = "sudo pfw up puts it right"
_HEAD_BYTES = 2000


def state_findings(state: State, policy: Policy | None) -> Iterator[Finding]:
    """The policy in force, what waits, block lists and bans."""
    known = in_force(state)
    backend = known[0] if known is not None else any_active()
    if known is None or backend is None:
        yield from _off(backend)
    else:
        yield from _in_kernel(*known)
        yield from _on_disk(state, known[1])
    yield from _panic(backend)
    if state.files.read(GUARD_REPORT) is not None:
        what = "a policy was taken back because nobody confirmed it"
        yield Finding(Area.STATE, Level.NOTE, what, "the next sudo pfw up says when, and forgets it")
    for each in policy.blocklists if policy is not None else ():
        if each.enabled:
            yield _list_finding(state, each)
    yield from _bans(state)


def _off(backend: Backend | None) -> Iterator[Finding]:
    if backend is None:
        yield Finding(Area.STATE, Level.NOTE, "off: nothing of ours filters", "sudo pfw up puts a policy in force")
    else:
        what = f"something of ours is in {backend.name}, and what it is was not written down: only bans, or a rest"
        yield Finding(Area.STATE, Level.NOTE, what, "sudo pfw up puts a policy in force, sudo pfw down takes it out")


def _in_kernel(backend: Backend, applied: Applied) -> Iterator[Finding]:
    live = None if (reason := backend.unusable()) is not None else backend.live()
    if reason is not None:
        what = f"what is in force cannot be read back: {reason}"
        yield Finding(Area.STATE, Level.FAULT, what, "put that right, then: sudo pfw up")
    elif live is None:
        what = f"{applied.path} should be in force, and nothing of ours is in the kernel"
        yield Finding(Area.STATE, Level.FAULT, what, _REPAIR)
    elif live.generation != applied.generation:
        what = f"generation {live.generation} decides, and {applied.generation} was applied"
        yield Finding(Area.STATE, Level.FAULT, what, _REPAIR)
    elif live.fingerprint != applied.fingerprint:
        what = f"somebody else has changed our rules in {backend.name} since they were applied"
        yield Finding(Area.STATE, Level.FAULT, what, _REPAIR)
    else:
        what = f"on ({backend.name}), generation {applied.generation}, as it was applied"
        yield Finding(Area.STATE, Level.OK, what)
    if backend.name == "nftables" and live is not None:
        yield from _hooks()


def _hooks() -> Iterator[Finding]:
    """A chain that has lost its hook sees nothing."""
    table = netfilter.read_table(TABLE)
    wanted = [name for name, _, _ in base_chains(frozenset(), 0)]
    lost = [name for name in wanted if table is None or table.chains.get(name) is None]
    if lost:
        what = f"no traffic is led to {counted(len(lost), 'chain')} of ours: {', '.join(lost)}"
        yield Finding(Area.STATE, Level.FAULT, what, _REPAIR)


def _on_disk(state: State, applied: Applied) -> Iterator[Finding]:
    pending = state.pending()
    if pending is not None:
        when = strftime("%H:%M:%S", localtime(pending.until))
        what = f"the policy is taken back at {when} unless it is confirmed"
        yield Finding(Area.STATE, Level.NOTE, what, "sudo pfw confirm keeps it")
    try:
        with open(applied.path, "rb") as file:
            same = hashlib.sha256(file.read(_POLICY_BYTES_MAX)).hexdigest() == applied.sha256
    except OSError as error:
        what = f"{applied.path} cannot be read any more: {error.strerror or error}"
        yield Finding(Area.STATE, Level.WARNING, what, "what is in force stays; sudo pfw up --rules FILE names another")
        return
    if not same:
        what = f"{applied.path} has changed since, and what it says now is not in force"
        yield Finding(Area.STATE, Level.WARNING, what, "sudo pfw up puts it in force")


def _panic(backend: Backend | None) -> Iterator[Finding]:
    try:
        if panic.is_on(backend.name if backend is not None else "nftables"):
            yield Finding(Area.STATE, Level.WARNING, "panic: everything is cut off", "sudo pfw panic --off ends it")
    except (RefusedError, OSError):
        return


def _list_finding(state: State, each: Blocklist) -> Finding:
    """A block list by what was written down of it; its addresses are not looked at."""
    content = state.files.read(f"lists/{each.name}.json")
    try:
        record = listing.Record() if content is None else msgspec.json.decode(content, type=listing.Record)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        record = listing.Record()
    name, advice = f'block list "{each.name}"', f"sudo pfw lists update {each.name}"
    if not record.fetched_at:
        reason = f": {record.last_error}" if record.last_error else ""
        return Finding(Area.STATE, Level.WARNING, f"{name} never came{reason}", advice)
    if record.last_error is not None:
        return Finding(Area.STATE, Level.WARNING, f"{name} could not be fetched: {record.last_error}", advice)
    age_s = clock.now() - record.fetched_at
    if not each.is_file and age_s > _OLD_REFRESHES * each.refresh_s:
        what = f"{name} is {counted(int(age_s // 3600), 'hour')} old, and should be fetched more often"
        return Finding(Area.STATE, Level.WARNING, what, f"{advice}; sudo pfw install has it done by itself")
    return Finding(Area.STATE, Level.OK, f"{name} has {counted(record.entries, 'line')}")


def _bans(state: State) -> Iterator[Finding]:
    number = len(banning.records(state, clock.now()))
    if number > _BANS_FULL_AT * BANS_MAX:
        what = f"there are {number:,} bans, and there can be {BANS_MAX:,}"
        yield Finding(Area.LIMITS, Level.WARNING, what, "ban prefixes, or put them into a block list")
    else:
        yield Finding(Area.LIMITS, Level.OK, f"{number:,} of {BANS_MAX:,} bans are there")


def boot_findings(state: State, units: Path) -> Iterator[Finding]:
    """Whether what is in force comes back with the next boot."""
    known = in_force(state)
    if known is None:
        return
    yield from _units(state, known[0].name, units)
    if state.pending() is None:
        yield from _boot_files(state, known[0].name, known[1].generation)


def _units(state: State, backend: str, units: Path) -> Iterator[Finding]:
    name = f"pfw-boot-{backend}.service"
    if not _SYSTEMD.is_dir():
        what = "systemd does not run here, and only it is told to load the policy at a boot"
        yield Finding(Area.BOOT, Level.NOTE, what, f"have another init load the files {state.files.path}/boot*")
    elif foreign.in_namespace():
        what = "a network namespace does not outlast a boot, nor does what filters in it"
        yield Finding(Area.BOOT, Level.NOTE, what, "who makes the namespace has to call pfw up in it")
    elif _is_enabled(units, name, state.files.path):
        yield Finding(Area.BOOT, Level.OK, f"{name} loads the policy at each boot")
    else:
        yield Finding(Area.BOOT, Level.WARNING, "the policy does not come back with the next boot", "sudo pfw install")


def _is_enabled(units: Path, name: str, folder: Path) -> bool:
    """Whether a unit is there, is led to from a target, and loads what is in our folder."""
    try:
        text = (units / name).read_text(errors="replace")[:_HEAD_BYTES]
        return f"{folder}/".replace("%", "%%") in text and any(units.glob(f"*.wants/{name}"))
    except OSError:
        return False


def _boot_files(state: State, backend: str, generation: int) -> Iterator[Finding]:
    if backend == "nftables":
        wanted = {"boot.nft": rf"goto g{generation}_in\b", "boot-bans.nft": ""}
    else:
        wanted = {f"boot.{backend}.v{family}": rf'"pfw {generation} ' for family in (4, 6)}
        wanted |= {f"boot.{backend}.ipset": "", "boot-bans.ipset": ""}
    contents = {name: state.files.read(name) for name in wanted}
    lost = [name for name, content in contents.items() if content is None]
    old = [name for name, content in contents.items()
           if content is not None and not re.search(wanted[name].encode(), content)]  # fmt: skip
    if lost or old:
        told = f"{', '.join(lost)} not there" if lost else f"{', '.join(old)} of another generation"
        what = f"the files for the next boot are not those of what is in force: {told}"
        yield Finding(Area.BOOT, Level.WARNING, what, "sudo pfw down, then sudo pfw up writes them anew")
    else:
        yield Finding(Area.BOOT, Level.OK, "the files for the next boot are those of what is in force")
