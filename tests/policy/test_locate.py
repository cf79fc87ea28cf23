"""Places in a text, against json itself: what is read from a place is what stands at the path."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.policy.locate import Places, Positions, first_too_deep, rule_line, rule_lines

KEYS = st.one_of(st.sampled_from(["rules", "name", "a", "", "\\", '"', "é", "\n", "x y"]), st.text(max_size=4))
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=20,
)
LAYOUTS = st.fixed_dictionaries(
    {
        "indent": st.sampled_from([None, 0, 2, "\t"]),
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([None, (",", ":"), (" , ", " : ")]),
    }
)


def every_path(value, path=()):
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from every_path(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from every_path(item, (*path, index))


def offset_of(text, place) -> int:
    line, column = place
    return sum(len(each) + 1 for each in text.split("\n")[: line - 1]) + column - 1


@settings(deadline=None)
@given(VALUES, LAYOUTS, st.sampled_from(["", " ", "\n\n", "\r\n\t"]))
def test_what_stands_at_a_place_is_what_json_reads(value, layout, before) -> None:
    text = before + json.dumps(value, **layout)
    positions = Positions(text)
    decoder = json.JSONDecoder()
    expected = dict(every_path(value))
    assert set(positions.paths()) == set(expected)
    assert positions.duplicates == []
    for path, item in expected.items():
        read, _ = decoder.raw_decode(text, offset_of(text, positions.value(path)))
        assert read == item
        key, _ = decoder.raw_decode(text, offset_of(text, positions.key(path)))
        assert key == (path[-1] if path and isinstance(path[-1], str) else item)


@given(VALUES)
def test_only_the_paths_asked_for_are_kept(value) -> None:
    text = json.dumps(value)
    paths = [path for path, _ in every_path(value)]
    some = set(paths[::2])
    kept = Positions(text, some)
    assert set(kept.paths()) == some
    assert all(kept.value(path) == Positions(text).value(path) for path in some)


def test_lines_and_columns_count_from_one_and_in_characters() -> None:
    text = '{\n  "é🙂": 1, "b":\n [10,\n\t20]}'
    positions = Positions(text)
    assert positions.key(("é🙂",)) == (2, 3)
    assert positions.value(("é🙂",)) == (2, 9)
    assert positions.value(("b", 0)) == (3, 3)
    assert positions.value(("b", 1)) == (4, 2)
    assert Places("").at(0) == (1, 1)


def test_a_path_that_is_not_there_is_placed_at_what_would_hold_it() -> None:
    positions = Positions('{"a":\n [1]}')
    assert positions.value(("a", 7, "b")) == positions.value(("a",)) == (2, 2)


def test_keys_that_are_there_twice_are_found_wherever_they_are() -> None:
    text = '{"a": {"b": 1, "c": 2, "\\u0062": 3}, "d": [{"e": 1, "e": 2}], "a": {"b": 1}}'
    positions = Positions(text)
    assert [path for path, _, _ in positions.duplicates] == [("a", "b"), ("d", 0, "e"), ("a",)]
    _, first, second = positions.duplicates[0]
    assert (text[first : first + 3], text[second : second + 8]) == ('"b"', '"\\u0062"')


def test_nesting_costs_no_stack() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    assert Positions(deep, {(0, 0)}).value((0, 0)) == (1, 3)
    assert first_too_deep(deep, 32) == 32
    assert rule_lines('{"x": ' + deep + ', "rules": [\n{}]}') == [2]


@settings(deadline=None)
@given(st.lists(VALUES, max_size=6), VALUES, LAYOUTS)
def test_the_quick_way_to_a_rules_line_gives_what_the_slow_one_does(rules, other, layout) -> None:
    text = json.dumps({"[{": other, "rules": rules, "z": other}, **layout)
    positions = Positions(text)
    assert rule_lines(text) == [positions.value(("rules", index))[0] for index in range(len(rules))]


def test_the_lines_of_the_simple_form_are_those_of_its_lists() -> None:
    text = '{"allow": {"port": [ ],\n "ip": "::1"},\n"block": {\n"protocol": [],\n "port": [1]\n,"ip":\n ["::2"]}}'
    assert rule_lines(text) == [7, 2, 5]
    assert rule_line(text, 2) == 5
    with pytest.raises(IndexError):
        rule_line(text, 3)


def test_ten_thousand_rules_are_all_found() -> None:
    rule = {"name": "n", "action": "allow", "from": ["192.168.0.0/16", "fe80::/10"], "port": [22, 80]}
    text = json.dumps({"version": 2, "rules": [rule] * 10_000}, indent=1)
    lines = rule_lines(text)
    assert len(lines) == 10_000
    assert text.split("\n")[lines[-1] - 1].strip() == "{"
