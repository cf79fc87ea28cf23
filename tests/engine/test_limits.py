"""Token buckets against a twin that keeps every match and does the sum in fractions."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.engine.limits import Buckets
from pfw.model.rule import Limit

A, B, C = b"\1", b"\2", b"\3"


class SlowBucket:
    """Tokens grow steadily up to the burst; a match takes one."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.tokens, self.at = Fraction(limit.burst), Fraction(0)

    def over(self, now: int) -> bool:
        grown = (now - self.at) * Fraction(self.limit.count, self.limit.period_s)
        self.tokens, self.at = min(Fraction(self.limit.burst), self.tokens + grown), Fraction(now)
        if self.tokens < 1:
            return True
        self.tokens -= 1
        return False


# Counts and periods whose quotient a float holds exactly, so that the sums agree to the last token.
LIMITS = st.builds(Limit, st.sampled_from([1, 2, 8]), st.sampled_from([1, 4, 64]), st.integers(1, 6))


@settings(deadline=None, max_examples=200)
@given(LIMITS, st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 40)), max_size=60))
def test_like_the_slow_twin(limit, steps):
    fast = Buckets(limit)
    slow = {source: SlowBucket(limit) for source in (A, B, C)}
    now = 0
    for source, wait in steps:
        now += wait
        assert fast.over(source, float(now)) == slow[source].over(now)


@settings(deadline=None, max_examples=100)
@given(LIMITS, st.lists(st.floats(0, 10_000), min_size=1, max_size=60))
def test_never_more_than_burst_and_rate_allow(limit, times):
    buckets = Buckets(limit)
    times.sort()
    matches = sum(not buckets.over(A, time) for time in times)
    assert matches <= limit.burst + (times[-1] - times[0]) * limit.rate_hz + 1e-6


def test_time_that_runs_backwards_gives_nothing_and_takes_nothing():
    buckets = Buckets(Limit(1, 10, 1))
    assert not buckets.over(A, 100.0)
    assert buckets.over(A, 50.0)
    assert not buckets.over(A, 60.0)


def test_a_newcomer_is_over_while_all_buckets_are_in_use():
    buckets = Buckets(Limit(1, 10, 1), capacity=2)
    assert [buckets.over(source, 0.0) for source in (A, B, C)] == [False, False, True]


def test_the_one_unseen_for_longest_makes_room_when_it_is_full_again():
    buckets = Buckets(Limit(1, 10, 1), capacity=2)
    assert [buckets.over(source, at) for source, at in ((A, 0.0), (B, 5.0))] == [False, False]
    assert not buckets.over(C, 10.0)
    assert buckets.over(A, 10.0)
    assert not buckets.over(A, 15.0)
