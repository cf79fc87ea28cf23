"""The names by which this machine knows a user."""

from __future__ import annotations

import grp
import pwd


def names_of(user: str) -> frozenset[str]:
    """All that a rule may call a user of this name or number: name, id, and groups by both; of a stranger the name."""
    try:
        found = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError, ValueError):
        return frozenset({user})
    names = {user, found.pw_name, str(found.pw_uid), f"group:{found.pw_gid}"}
    for group in grp.getgrall():
        if group.gr_gid == found.pw_gid or found.pw_name in group.gr_mem:
            names |= {f"group:{group.gr_name}", f"group:{group.gr_gid}"}
    return frozenset(names)
