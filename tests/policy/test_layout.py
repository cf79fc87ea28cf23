from __future__ import annotations

import json

import pytest

from pfw.policy.layout import Layout, layout_of, squeeze, write_object


@pytest.mark.parametrize(
    ("gap", "squeezed"),
    [
        (", ", ", "),
        (",\n  ", ",\n  "),
        (",\n\n \n  ", ",\n  "),
        (",\r\n\r\n\t", ",\r\n\t"),
        ("\n\n  , ", "\n  , "),
        ("\r", "\r"),
    ],
)
def test_blank_lines_are_not_copied(gap, squeezed) -> None:
    assert squeeze(gap) == squeezed


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "b": [1, 2], "c": {"d": "e"}}',
        '{"a":1,"b":[1,2],"c":{"d":"e"}}',
        '{ "a" : 1 , "b" : [1, 2] , "c" : {"d": "e"} }',
        '{\n  "a": 1,\n  "b": [1, 2],\n  "c": {"d": "e"}\n}',
        '{\r\n\t"a": 1,\r\n\t"b": [1, 2],\r\n\t"c": {"d": "e"}\r\n}',
        '{ "a": 1\n, "b": [1, 2]\n, "c": {"d": "e"}\n}',
    ],
)
def test_an_object_is_written_as_it_was_laid_out(text) -> None:
    assert write_object(json.loads(text), layout_of(text, 0), 0) == text


def test_lines_are_broken_where_the_object_has_its_own() -> None:
    value = {"a": "x" * 50, "b": "y" * 50, "c": "z" * 50}
    assert layout_of('[{"a": 1}]', 1).line_break is None
    written = write_object(value, layout_of('[\n  {"a": 1}]', 4), 2)
    assert written.split("\n")[1] == f'   "c": "{"z" * 50}"}}'
    own = layout_of('[\n  {"a": 1, "b": 2,\n      "c": 3}]', 4)
    assert write_object(value, own, 2).split("\n")[1] == f'      "c": "{"z" * 50}"}}'


def test_what_is_no_object_has_the_usual_layout() -> None:
    assert layout_of("[]", 0) == layout_of("{}", 0) == Layout()
