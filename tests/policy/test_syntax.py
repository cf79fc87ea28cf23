"""Files that are no JSON: one fault, at its place, with what to do."""

from __future__ import annotations

import pytest

from pfw.model.policy import PolicyError
from pfw.policy.syntax import MAX_SIZE, read_document


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", '1:1: is empty; the smallest policy is {"version": 2, "rules": []}'),
        (" \n ", '1:1: is empty; the smallest policy is {"version": 2, "rules": []}'),
        ("\ufeff{}", "1:1: begins with a byte order mark; save it as UTF-8 without one"),
        (b"\xef\xbb\xbf{}", "1:1: begins with a byte order mark; save it as UTF-8 without one"),
        ("{}".encode("utf-16"), "1:1: is UTF-16; save it as UTF-8"),
        (b'{\n"\xc3\xa9": "\xe9"}', "2:7: the byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ('{"a": 1,}', "1:8: this comma is one too many: nothing follows it"),
        ('{"a": [1, 2, \n]}', "1:12: this comma is one too many: nothing follows it"),
        ('{\n  // web\n  "a": 1}', '2:3: JSON has no comments; put the remark into a "note"'),
        ('{"a": 1 /* x */}', '1:9: JSON has no comments; put the remark into a "note"'),
        ("# rules\n{}", '1:1: JSON has no comments; put the remark into a "note"'),
        ("{'a': 1}", '1:2: a text stands in double quotes ("), not in single ones'),
        ('{"a": True}', '1:7: "True" is not a value in JSON; write true, false or null'),
        ('{"a": allow}', '1:7: "allow" is no JSON value; a text stands in double quotes'),
        ('{"a": 010}', "1:8: a number is written in decimal digits, without a zero in front"),
        ('{"a": 0x16}', "1:8: a number is written in decimal digits, without a zero in front"),
        ('{"a": 1\n "b": 2}', "2:2: a comma is missing before this text"),
        ('{"a" 1}', '1:6: a colon is missing before "1"'),
        ('{"a": }', '1:7: a value is missing before "}"'),
        ('{"a": "x}', "1:7: this text has no closing quote"),
        ('{"a": "x\n"}', "1:9: a line break, tab or control character inside a text; is a closing quote missing?"),
        (r'{"a": "C:\x"}', r"1:10: a backslash in a text must be written twice (\\)"),
        ('{"a": [1, 2', "1:12: the file ends too early; a closing bracket is missing"),
        ("{} {}", "1:4: something follows the end of the policy; a file holds one object"),
        ('{"a": "NaN", "b": NaN}', "1:19: NaN is not a number in JSON"),
        ('{"a": -Infinity', "1:7: -Infinity is not a number in JSON"),
        ('{"a": ' + "9" * 5000 + "}", "1:7: has a number with too many digits"),
        ("[" * 100_000, "1:33: is nested too deep; a policy needs 5 levels"),
        ('{"a":' * 100_000, "1:161: is nested too deep; a policy needs 5 levels"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_explained(text, fault) -> None:
    with pytest.raises(PolicyError) as caught:
        read_document(text, "rules.json")
    assert [str(each) for each in caught.value.faults] == [f"rules.json:{fault}"]


def test_a_file_that_is_too_large_is_not_read() -> None:
    with pytest.raises(PolicyError, match="is larger than 64 MiB"):
        read_document(b" " * (MAX_SIZE + 1), "rules.json")


def test_a_document_is_the_value_and_says_whether_a_key_is_there_twice() -> None:
    once = read_document(b'{"a": [1, {"b": "\xc3\xa9"}]}', "rules.json")
    assert (once.value, once.duplicate_keys) == ({"a": [1, {"b": "é"}]}, False)
    twice = read_document('{"a": {"b": 1, "b": 2}}', "rules.json")
    assert (twice.value, twice.duplicate_keys) == ({"a": {"b": 2}}, True)
