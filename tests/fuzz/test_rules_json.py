"""Broken policy files: whatever comes in, out comes a Policy or faults, each one printable line with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.policy import Policy, PolicyError
from pfw.policy.convert import to_full
from pfw.policy.fields import RULE_FIELDS
from pfw.policy.load import FULL_KEYS, SHARED_KEYS, load
from pfw.policy.locate import rule_lines

CORPUS = sorted((Path(__file__).parent / "corpus" / "rules").glob("*.json"))
SEEDS = [path.read_bytes() for path in CORPUS]
PIECES = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"-1",
    b"1e999",
    b"\\",
    b"\xff",
    b"\x00",
    b"\n",
    b"NaN",
    b"9" * 30,
    b"\\ud800",
    b"!",
]

WORDS = st.sampled_from(
    [
        "lan",
        "web",
        "tcp",
        "icmp",
        "10.0.0.0/8",
        "::1",
        "!lan",
        "ssh",
        "80-90",
        "mon",
        "24:00",
        "6/minute",
        "allow",
        "in",
        "\ud800",
        "2026-12-01",
        "/usr/bin/x",
        "/opt/*",
        "a" * 64,
        "ask",
        "forward",
        "90s",
        "group:1",
        "echo-request",
        "",
        "*",
        "\x1b[31m",
        "\u202e",
        "x" * 300,
        "0" * 5000,
        "1.2.3.4/99",
    ]
)
VALUES = st.recursive(
    st.one_of(WORDS, st.text(max_size=6), st.integers(), st.integers(-2, 70000), st.floats(), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                st.sampled_from(
                    ["days", "from", "until", "ip", "port", "in", "path", "sha256", "timeout", "unattended"]
                ),
                st.text(max_size=3),
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)
RULES = st.dictionaries(st.one_of(st.sampled_from(list(RULE_FIELDS)), st.text(max_size=4)), VALUES, max_size=7)
FILES = st.dictionaries(
    st.sampled_from([*FULL_KEYS, *SHARED_KEYS, "block", "allow", "other"]),
    st.one_of(
        VALUES, st.just(2), st.lists(RULES, max_size=4), st.dictionaries(st.sampled_from(["lan", "web", "a b"]), VALUES)
    ),
)


def check(data: str | bytes) -> Policy | None:
    try:
        policy = load(data, "rules.json")
    except PolicyError as error:
        check_faults(data, error)
        return None
    text = data if isinstance(data, str) else data.decode()
    assert len(rule_lines(text)) == len(policy.rules)
    assert load(to_full(text)).rules == policy.rules
    return policy


def check_faults(data: str | bytes, error: PolicyError) -> None:
    text = data if isinstance(data, str) else data.decode(errors="replace")
    lines = text.split("\n")
    assert error.faults
    places = [(fault.line, fault.column) for fault in error.faults]
    assert places == sorted(places)
    for fault in error.faults:
        assert str(fault).isprintable()
        assert len(str(fault)) < 500
        assert not fault.what.endswith(".")
        assert 1 <= fault.line <= len(lines)
        assert 1 <= fault.column <= len(lines[fault.line - 1]) + 1


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_the_corpus_itself(path) -> None:
    assert (check(path.read_bytes()) is None) is (path.stem == "faults")


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_file_that_ends_anywhere(path) -> None:
    data = path.read_bytes()
    for end in range(len(data.rstrip())):
        assert check(data[:end]) is None


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_mutated_bytes(data) -> None:
    mutated = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated)))
        size = data.draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20]))
        mutated[at : at + size] = data.draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=2)))
    check(bytes(mutated))


@settings(deadline=None, max_examples=200)
@given(FILES, st.booleans())
def test_files_of_the_right_words_in_the_wrong_places(document, ascii_only) -> None:
    check(json.dumps(document, ensure_ascii=ascii_only, indent=1))


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.binary(max_size=60), st.text(st.characters(exclude_categories=()), max_size=60)))
def test_anything(data) -> None:
    check(data)
