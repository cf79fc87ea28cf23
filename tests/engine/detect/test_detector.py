"""Tables with a bound: who is refused, and who makes room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pfw.engine.detect.detector import Table


def test_a_full_table_refuses_newcomers_until_some_were_unused_for_long():
    table: Table[int, list] = Table(2, 10.0, list)
    assert table.get(1, 0.0) == table.get(2, 1.0) == []
    assert table.get(3, 10.0) is None
    assert (table.refused, table.let_go, len(table)) == (1, 0, 2)
    assert table.get(3, 10.5) == []
    assert [key for key, _ in table.items()] == [2, 3]


def test_who_may_go_makes_room_if_it_is_among_those_used_longest_ago():
    table: Table[int, list] = Table(3, 10.0, list, may_go=lambda value: not value)
    for key in (1, 2, 3):
        table.get(key, 0.0).append(key)
    assert table.get(4, 1.0) is None
    table.peek(2).clear()
    assert table.get(4, 1.0) == []
    assert [key for key, _ in table.items()] == [1, 3, 4]
    assert (table.refused, table.let_go) == (1, 1)
    many: Table[int, list] = Table(100, 10.0, list, may_go=lambda value: not value)
    for key in range(100):
        many.get(key, 0.0).extend([key] * (key < 99))
    assert many.get(100, 1.0) is None


def test_what_was_unused_for_long_is_made_anew():
    table: Table[int, list] = Table(2, 10.0, list)
    table.get(1, 0.0).append("x")
    assert table.get(1, 10.0) == ["x"]
    assert table.get(1, 21.0) == []


def test_a_clock_that_is_set_back_keeps_nobody_for_longer():
    table: Table[int, list] = Table(2, 10.0, list)
    year = 365 * 86_400.0
    for key in (1, 2):
        table.get(key, year).append(key)
    assert table.get(3, 5.0) == []
    assert table.get(2, 5.0) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 100), st.booleans()), max_size=100), st.booleans())
def test_never_more_than_its_capacity(steps, may_go):
    table: Table[int, list] = Table(4, 5.0, list, (lambda value: not value) if may_go else None)
    for key, now, fills in steps:
        value = table.get(key, now)
        if value is not None and fills:
            value.append(key)
        assert len(table) <= 4
        assert table.peek(key) is value
