"""Edits of broken policy files: a text comes out that is still JSON, or the file is refused."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.policy import PolicyError
from pfw.policy.edit import delete_rule, insert_rule

RULE: dict[str, object] = {"name": "n\u202e\ud800", "action": "block", "port": [1, 2]}
SEEDS = [path.read_bytes() for path in sorted((Path(__file__).parent / "corpus" / "rules").glob("*.json"))]
PIECES = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"\\", b"\xff", b"\r\n", b" ", b"9" * 30, b"rules"]

ITEMS = st.recursive(
    st.one_of(st.integers(), st.text(max_size=4), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["name", "rules", "version", "block", "ip", ""]), inner, max_size=4),
    ),
    max_leaves=10,
)


def check(text: str | bytes, name: str = "n") -> None:
    for place in (None, 0, 1):
        try:
            edited = insert_rule(text, RULE, place)
        except (PolicyError, ValueError):
            continue
        inserted = json.loads(edited.text)["rules"].pop(edited.index)
        assert inserted == {**RULE, "name": edited.name}
        assert edited.rule_text in edited.text
        delete_rule(edited.text, edited.name)
    told = ""
    try:
        json.loads(delete_rule(text, name).text)
    except PolicyError:
        pass
    except ValueError as error:
        told = str(error)
    assert told.isprintable()
    assert len(told) < 500


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_mutated_files(data) -> None:
    mutated = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated)))
        size = data.draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20]))
        mutated[at : at + size] = data.draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=2)))
    check(bytes(mutated), "ping")


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(st.sampled_from(["version", "rules", "default", "block", "note"]), ITEMS),
    st.sampled_from([None, 0, 1, "\t"]),
)
def test_json_that_is_no_policy(document, indent) -> None:
    check(json.dumps(document, indent=indent))


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.binary(max_size=60), st.text(st.characters(exclude_categories=()), max_size=60)))
def test_anything(text) -> None:
    check(text)


def test_nesting_and_length_cost_no_stack_and_little_time() -> None:
    check('{"version": 2, "rules": [' + "[" * 900 + "]" * 900 + "]}")
    check("[" * 100_000)
    check('{"version": 2, "rules": [{"name":' + " " * 300_000 + '"a"' + "\n" * 300_000 + ', "action": "allow"}]}', "a")
