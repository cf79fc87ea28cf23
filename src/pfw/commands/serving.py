"""`pfw daemon`: the policy put in force, and whoever is needed for its programs and prompts."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from pfw.cli.ask import tell_faults
from pfw.commands.answer import BAD_INPUT, OK, loaded, state, tell, told
from pfw.commands.enforcing import apply, outcome_lines
from pfw.commands.watching import records_of
from pfw.daemon import backends, enforcing, testing
from pfw.daemon.service import Options, Service
from pfw.enforce.programs import MASK
from pfw.model.policy import PolicyError


@told()
def daemon(options: Namespace) -> int:
    """`pfw daemon`."""
    remembered = state()
    cgroup = None if options.cgroup is None else Path(options.cgroup)
    try:
        records = records_of(options)
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    found = Options(cgroup=cgroup, mask=options.mask or MASK, labels=options.labels, records=records)
    service = Service(remembered, found, tell)
    try:
        _put_in_force(options)
        service.run()
    finally:
        service.close()
    return OK


def _put_in_force(options: Namespace) -> None:
    """The policy that was named, else the one in force, else the usual one, as `pfw up` does.

    Where nobody named it, the file of the policy in force may fail its tests by now: then what is in force stays.
    """
    remembered = state()
    known = backends.in_force(remembered)
    path = options.rules or (known[1].path if known is not None else None)
    policy = loaded(path)
    failing = testing.failing(policy.policy, policy.content, str(policy.path), remembered.files.path / "lists")
    if failing and options.rules is None and known is not None:
        tell_faults(failing)
        tell("the policy in force stays")
        return
    if failing:
        raise PolicyError(failing)
    wanted = enforcing.Wanted(policy=policy.policy, path=str(policy.path), content=policy.content, why="daemon")
    for line in outcome_lines(apply(remembered, wanted), wanted):
        tell(line)
