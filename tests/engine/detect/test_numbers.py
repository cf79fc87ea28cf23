"""Sets of ports beside the standard library's sets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pfw.engine.detect.numbers import MANY_MAX, Numbers

NUMBERS = st.one_of(
    st.lists(st.integers(0, 65_535), max_size=30),
    st.lists(st.integers(0, 200), min_size=MANY_MAX, max_size=300),
)


def made(some) -> Numbers:
    numbers = Numbers()
    assert [numbers.add(each) for each in some] == [each not in some[:at] for at, each in enumerate(some)]
    return numbers


@given(NUMBERS, NUMBERS)
def test_like_a_set(some, others):
    one, two = made(some), made(others)
    assert (one.count, two.count) == (len(set(some)), len(set(others)))
    assert one.shared(two) == two.shared(one) == len({*some} & {*others})
    assert all(each in one for each in some)
    assert [each for each in others if each in one] == [each for each in others if each in some]


def test_many_take_no_more_room_than_all():
    numbers = Numbers()
    assert all(numbers.add(each) for each in range(65_536))
    assert numbers.count == 65_536
    assert len(numbers._few) == 0
    assert len(numbers._bits) == 8_192
