"""`pfw monitor --enforce`: put the policy in force, then show what the kernel does with it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from pfw.cli import rules, watch
from pfw.cli.ask import BAD_INPUT, OK, REFUSED, tell, tell_faults
from pfw.commands.answer import loaded, state, told
from pfw.commands.enforcing import apply, outcome_lines
from pfw.commands.watching import wish_of
from pfw.daemon import backends, testing
from pfw.daemon.enforcing import PendingError, Wanted
from pfw.daemon.kernel_watch import KernelWatch
from pfw.daemon.lockout import LockoutError
from pfw.daemon.monitor import Stop
from pfw.daemon.state import State
from pfw.drivers.files import Watch
from pfw.drivers.output import Output
from pfw.drivers.programs import RefusedError
from pfw.model.policy import PolicyError
from pfw.record.files import why_refused

_NOT_WITH = ("interface", "read", "filter", "local", "every_packet")


@told()
def enforced(options: Namespace) -> int:
    """`pfw monitor --enforce`."""
    for name in _NOT_WITH:
        if getattr(options, name):
            tell(f"--{name.replace('_', '-')} and --enforce do not go together: the kernel tells of what it decides")
            return BAD_INPUT
    try:
        wish = wish_of(options)
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    refused = why_refused(wish.records.log, wish.records.eve)
    if refused is not None:
        tell(refused)
        return REFUSED
    found = loaded(options.rules)
    seen = Watch(found.path)
    remembered = state()
    testing.check(found.policy, found.content, str(found.path), remembered.files.path / "lists")
    wanted = Wanted(
        policy=found.policy,
        path=str(found.path),
        content=found.content,
        backend=options.backend,
        confirm_s=options.confirm,
        force=options.force,
        tell_all=True,
    )
    for line in outcome_lines(apply(remembered, wanted), wanted):
        tell(line)
    return _watch(options, remembered, found.path, seen)


def _watch(options: Namespace, remembered: State, path: Path, seen: Watch) -> int:
    known = backends.in_force(remembered)
    if known is None:
        raise RefusedError("the policy was taken out while it was put in force")
    output = Output(wait=False)
    screen = watch.screen(options)
    wish = wish_of(options)
    watching = KernelWatch(
        remembered, known[0], lambda commands: output.write(screen.lines(commands)), tell, wish.records
    )
    outcome = watching.run(
        Stop(wish.packets, wish.seconds), (seen, lambda: _again(remembered, path, known[0].name, options))
    )
    losses = {**outcome.losses, "lines on the screen": output.left_out}
    output.close(watch.summary(options, outcome.totals, losses, outcome.duration_s))
    return OK


def _again(remembered: State, path: Path, backend: str, options: Namespace) -> None:
    """The file has changed: put it in force, or say why not; then what was in force stays."""
    try:
        content = rules.read(path)
        policy = rules.parse(content, path)
        testing.check(policy, content, str(path), remembered.files.path / "lists")
        wanted = Wanted(policy=policy, path=str(path), content=content, backend=backend, force=options.force)
        for line in outcome_lines(apply(remembered, wanted), wanted):
            tell(line)
        return
    except PolicyError as error:
        tell_faults(error.faults)
    except (LockoutError, PendingError, RefusedError) as error:
        tell(str(error))
    except OSError as error:
        tell(f"{path}: {error.strerror or error}")
    tell("the policy before stays in force")
