"""The judge: the verdict on a new connection, by the policy, the viewpoint and the limits.

`policy.decide` knows nothing of the past; what a verdict needs of it, the token buckets of `limit`, is
kept here. Every verdict of the engine comes from this file.
"""

from __future__ import annotations

from collections.abc import Callable

from pfw.engine.limits import Buckets
from pfw.model.flow import Flow, Moment
from pfw.model.policy import Policy
from pfw.model.verdict import Verdict
from pfw.policy.decide import Decider

_ANY_MOMENT = Moment(0.0)


class Judge:
    """Verdicts under one policy. `utc_offset` gives the local clock's distance from UTC at a time, in seconds."""

    def __init__(self, policy: Policy, utc_offset: Callable[[float], int]) -> None:
        self.policy = policy
        self._utc_offset = utc_offset
        self._decider = Decider(policy)
        self._buckets = {index: Buckets(rule.limit) for index, rule in enumerate(policy.rules) if rule.limit}

    def verdict(self, views: tuple[Flow, ...], time: float) -> tuple[Flow, Verdict]:
        """Judge a new connection by the best of its views (`viewpoint.py`): that on which the earliest rule
        has a say, and the first of them where none is earlier."""
        # Few policies ask for the time of day, and to reckon it costs a third of the verdict.
        moment = Moment(time, self._utc_offset(time)) if self._decider.asks_time else _ANY_MOMENT
        over: dict[int, bool] = {}
        best = views[0]
        verdict = self._decide(best, moment, time, over)
        for other in views[1:]:
            answer = self._decide(other, moment, time, over)
            if self._rank(answer) < self._rank(verdict):
                best, verdict = other, answer
        return best, verdict

    def again(self, flow: Flow, time: float) -> Verdict:
        """The verdict on a connection that is there already; it uses up nothing of a limit."""
        return self._decider.decide(flow, Moment(time, self._utc_offset(time)), None)

    def _decide(self, flow: Flow, moment: Moment, time: float, over: dict[int, bool]) -> Verdict:
        """`over` are the answers of limits to this connection, which takes one token of each, however often seen."""
        if not self._buckets:
            return self._decider.decide(flow, moment, None)

        def over_limit(index: int) -> bool:
            if index not in over:
                over[index] = self._buckets[index].over(flow.source, time)
            return over[index]

        return self._decider.decide(flow, moment, over_limit)

    def _rank(self, verdict: Verdict) -> int:
        """Its place in the order of rules: base rules, the policy's, the default."""
        if verdict.index is not None:
            return verdict.index
        return -1 if verdict.base else len(self.policy.rules)
