"""Names of addresses, against a twin that keeps every answer in one list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.engine.names import KEPT_MAX_S, KEPT_MIN_S, NAMES_MAX, Names
from pfw.model.name import Address, Answer

A, B, C = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)), bytes.fromhex("20010db8" + "0" * 24)


def answer(name, *addresses, ttl=0):
    return Answer(name, 1, tuple(Address(each, ttl) for each in addresses))


class SlowNames:
    """All that was learnt and not pushed out, the oldest first."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.learnt = []

    def add(self, answer, now):
        for address in answer.addresses:
            self.learnt.append((address.packed, answer.name, now + sorted((600, address.ttl_s, 86400))[1]))
            last = {packed: at for at, (packed, _, _) in enumerate(self.learnt)}
            if len(last) > self.capacity:
                oldest = min(last, key=last.__getitem__)
                self.learnt = [each for each in self.learnt if each[0] != oldest]

    def all_of(self, packed, now):
        newest = {}
        for own, name, until in reversed(self.learnt):
            if own == packed:
                newest.setdefault(name, until)
        return tuple(name for name, until in list(newest.items())[:NAMES_MAX] if now < until)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a.example", "b.example", "c", "d", "e", "f"]),
        st.lists(st.sampled_from([A, B, C, b"4444"]), max_size=3),
        st.sampled_from([0, 300, 3600, 1 << 31]),
        st.sampled_from([0, 1, 300, 599, 3000, 86400]),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=300)
@given(STEPS, st.integers(1, 4))
def test_like_the_slow_twin(steps, capacity):
    fast, slow = Names(capacity), SlowNames(capacity)
    now = 0
    for name, addresses, ttl, wait in steps:
        now += wait
        for each in (fast, slow):
            each.add(answer(name, *addresses, ttl=ttl), float(now))
        for packed in (A, B, C, b"4444"):
            names = slow.all_of(packed, now)
            assert fast.all_of(packed, float(now)) == names
            assert fast.of(packed, float(now)) == (names[0] if names else None)
        assert len(fast) <= capacity


def test_a_name_of_two_addresses():
    names = Names()
    names.add(answer("a.example", A, C), 100.0)
    assert [names.of(each, 100.0) for each in (A, C, B)] == ["a.example", "a.example", None]


@pytest.mark.parametrize(("ttl", "kept"), [(0, KEPT_MIN_S), (3600, 3600), (1 << 31, KEPT_MAX_S)])
def test_how_long_it_is_kept(ttl, kept):
    names = Names()
    names.add(answer("a.example", A, ttl=ttl), 100.0)
    assert names.of(A, 100.0 + kept - 1) == "a.example"
    assert names.of(A, 100.0 + kept) is None
    assert names.all_of(A, 100.0 + kept) == ()


def test_the_newest_of_several_names_and_all_of_them():
    names = Names()
    for at, name in enumerate(("a", "b", "a", "c")):
        names.add(answer(name, A, ttl=3600 if name == "b" else 0), float(at))
    assert names.of(A, 5.0) == "c"
    assert names.all_of(A, 5.0) == ("c", "a", "b")
    assert names.all_of(A, 1000.0) == ("b",)
    assert names.of(A, 1000.0) == "b"


def test_a_server_cannot_fill_the_memory():
    names = Names(capacity=8)
    for number in range(1000):
        names.add(answer(f"{number}.example", A, number.to_bytes(4, "big")), 0.0)
    assert len(names) == 8
    assert names.of(A, 0.0) == "999.example"
    assert len(names.all_of(A, 0.0)) == NAMES_MAX
    assert names.of((991).to_bytes(4, "big"), 0.0) is None
    assert names.of((994).to_bytes(4, "big"), 0.0) == "994.example"
