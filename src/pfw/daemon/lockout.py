"""Never locked out: a policy is asked about the very session that applies it, before it comes into force."""

from __future__ import annotations

from collections.abc import Callable

from pfw.daemon import machine
from pfw.drivers import clock
from pfw.model.flow import Flow
from pfw.model.policy import Policy
from pfw.model.verdict import Action, Verdict
from pfw.policy.match import decide_slowly


class LockoutError(Exception):
    """The policy would cut the session that applies it."""

    def __init__(self, session: machine.Session, verdict: Verdict) -> None:
        super().__init__(f"it would cut your session {session}: {verdict.action} by {verdict.reason}")
        self.session = session
        self.verdict = verdict


def check_lockout(policy: Policy, describe: Callable[[Flow], Flow] | None = None) -> None:
    """Raises LockoutError where the policy, with its block lists, would cut the remote session that asks; where
    that cannot be told, any remote login."""
    moment = clock.moment()
    for session in machine.own_sessions() or machine.login_sessions():
        flow = session.flow()
        verdict = decide_slowly(policy, flow if describe is None else describe(flow), moment)
        if verdict.action is not Action.ALLOW:
            raise LockoutError(session, verdict)
