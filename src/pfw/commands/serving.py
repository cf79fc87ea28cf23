"""`pfw daemon`: the policy put in force, and whoever is needed for its programs and prompts."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from pfw.commands.answer import OK, loaded, state, tell, told
from pfw.commands.enforcing import apply, outcome_lines
from pfw.daemon import backends, enforcing
from pfw.daemon.service import Options, Service
from pfw.enforce.programs import MASK


@told()
def daemon(options: Namespace) -> int:
    """`pfw daemon`."""
    remembered = state()
    cgroup = None if options.cgroup is None else Path(options.cgroup)
    found = Options(cgroup=cgroup, mask=options.mask or MASK, labels=options.labels)
    service = Service(remembered, found, tell)
    try:
        _put_in_force(options)
        service.run()
    finally:
        service.close()
    return OK


def _put_in_force(options: Namespace) -> None:
    """The policy that was named, else the one in force, else the usual one, as `pfw up` does."""
    remembered = state()
    known = backends.in_force(remembered)
    path = options.rules or (known[1].path if known is not None else None)
    policy = loaded(path)
    wanted = enforcing.Wanted(policy=policy.policy, path=str(policy.path), content=policy.content, why="daemon")
    for line in outcome_lines(apply(remembered, wanted), wanted):
        tell(line)
