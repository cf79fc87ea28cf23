"""What `pfw doctor` says of rules for programs: who tells them apart, how, and whether their paths can be trusted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from pfw.daemon.programs import foreign_marks, real_path, running
from pfw.drivers import labels
from pfw.enforce.neighbours import Area, Finding, Level
from pfw.enforce.programs import MASK, names_programs
from pfw.model.policy import Policy
from pfw.model.verdict import Action

_PATHS_MAX = 1000


def findings(policy: Policy | None) -> Iterator[Finding]:
    """All that there is to say."""
    needed = policy is not None and names_programs(policy)
    daemon = running()
    if daemon is None:
        level = Level.FAULT if needed else Level.OK
        what = "pfw daemon does not run" + (": new programs, and what is asked, are dropped" if needed else "")
        yield Finding(Area.PROGRAMS, level, what, "start it: sudo pfw daemon" if needed else "")
    reason = labels.usable() or ("there is no cgroup v2" if labels.root_cgroup() is None else None)
    if reason is not None:
        what = f"sockets cannot be labelled ({reason}): programs are looked up for each connection, which is slower"
        yield Finding(
            Area.PROGRAMS, Level.WARNING if needed else Level.NOTE, what, "rules for programs hold all the same"
        )
    elif daemon is not None and daemon.bpffs is None:
        what = "the daemon does without labels: programs are looked up for each connection, which is slower"
        yield Finding(Area.PROGRAMS, Level.WARNING, what, "see what it said when it started")
    elif daemon is not None:
        yield Finding(Area.PROGRAMS, Level.OK, f"sockets are labelled in the bits {daemon.mask:#010x} of their marks")
    mask = MASK if daemon is None else daemon.mask
    for mark in sorted(foreign_marks(mask)):
        what = f"others route by the whole mark {mark:#x}: sockets that carry it have no label, and are looked up"
        yield Finding(Area.PROGRAMS, Level.NOTE, what, "nothing, unless that is too slow: pfw daemon --mask")
    for path in _untrusted(policy):
        what = f"{path} is allowed to talk, and not only root can put another program there"
        yield Finding(Area.PROGRAMS, Level.WARNING, what, "name its sha256 too, or take the right to write away")


def _untrusted(policy: Policy | None) -> list[str]:
    """Paths of allowed programs that others than root could replace, or change."""
    paths = {
        app.path
        for rule in (policy.rules if policy is not None else ())
        if rule.enabled and rule.action is Action.ALLOW
        for app in rule.apps or ()
        if app.sha256 is None
    }
    return [path for path in sorted(paths)[:_PATHS_MAX] if not _is_roots(real_path(path))]


def _is_roots(path: str) -> bool:
    place = path.rpartition("/")[0] if path.endswith("*") else path
    while True:
        with suppress(OSError):
            found = os.stat(place or "/")
            others = stat.S_IWOTH | (stat.S_IWGRP if found.st_gid else 0)
            sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
            if found.st_uid or (found.st_mode & others and not sticky):
                return False
        if place in ("", "/"):
            return True
        place = os.path.dirname(place)
