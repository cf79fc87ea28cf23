"""`pfw test` and `pfw check`: whether a policy file is all right, and whether it does what its tests say."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from pfw.cli import ask
from pfw.cli.ask import OK, tell
from pfw.model.policy import Fault, Policy

NO = 1
"""The exit status of "the answer is no"."""


def check(options: Namespace) -> int:
    """`pfw check`."""
    return ask.check(options, _failing)


def _failing(policy: Policy, content: bytes, path: str) -> Iterable[Fault]:
    """The tests that do not hold, as faults of the file."""
    if not policy.tests:
        return ()
    from pfw.daemon import testing
    from pfw.drivers.store import folder

    return testing.failing(policy, content, path, folder() / "lists")


def test(options: Namespace) -> int:
    """`pfw test`."""
    found = ask.loaded(options.file or options.rules)
    if isinstance(found, int):
        return found
    from pfw.cli.trials import trial_lines, trials_json
    from pfw.commands.explaining import known_lists
    from pfw.daemon import testing

    policy = known_lists(found.policy)
    trials = testing.run(policy)
    text, file = found.content.decode(errors="replace"), str(found.path)
    if options.json:
        print(trials_json(policy, text, file, trials))
    else:
        for line in trial_lines(policy, text, file, trials):
            print(line)
        if not trials:
            tell(f'{file} has no tests; "tests" in it says what must hold')
    return OK if all(trial.holds for trial in trials) else NO
