from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.policy import PolicyError
from pfw.policy.convert import WIDTH, to_full, write_json
from pfw.policy.load import load
from pfw.policy.locate import rule_lines

IPS = st.sampled_from(
    ["10.0.0.1", "192.168.0.0/16", "2001:db8::/32", "1.1.1.1-1.1.1.9", "private", "home", "!10.0.0.9"]
)
PORTS = st.one_of(st.integers(0, 65535), st.sampled_from(["ssh", "1000-2000", "web", "22"]))
PROTOCOLS = st.one_of(st.integers(0, 255), st.sampled_from(["TCP", "udp", "Icmp", "icmpv6", "gre"]))


def lists_of(item):
    return st.one_of(item, st.lists(item, max_size=30))


LISTS = st.fixed_dictionaries(
    {}, optional={"ip": lists_of(IPS), "port": lists_of(PORTS), "protocol": lists_of(PROTOCOLS)}
)
FILES = st.fixed_dictionaries(
    {"aliases": st.just({"home": ["10.1.0.0/16", "::1"], "web": [80, "https"]})},
    optional={"block": LISTS, "allow": LISTS, "note": st.just("über"), "$schema": st.just("./schema.json")},
)


@settings(deadline=None)
@given(FILES)
def test_both_files_load_to_the_same_rules(document) -> None:
    text = json.dumps(document)
    simple = load(text)
    full_text = to_full(text)
    full = load(full_text)
    assert (full.rules, full.defaults, full.base) == (simple.rules, simple.defaults, simple.base)
    assert not full.simple
    assert len(rule_lines(full_text)) == len(rule_lines(text)) == len(simple.rules)


def test_the_result_is_readable_and_keeps_the_spelling() -> None:
    text = '{"allow": {"port": ["SSH", "08"]}, "note": "für Zuhause", "block": {"ip": ["10.0.0.1"], "protocol": "TCP"}}'
    assert (
        to_full(text)
        == """{
  "version": 2,
  "note": "für Zuhause",
  "default": {"in": "allow", "out": "allow", "forward": "allow"},
  "rules": [
    {"name": "block ip", "action": "block", "remote": ["10.0.0.1"]},
    {"name": "allow port", "action": "allow", "port": ["SSH", "08"]},
    {"name": "block protocol", "action": "block", "protocol": "TCP"}
  ]
}
"""
    )


def test_a_file_of_the_full_form_comes_back_as_it_is() -> None:
    text = '{"version":2,\n\n "rules" : []}\t'
    assert to_full(text) == text
    assert to_full(text.encode()) == text


def test_a_file_with_faults_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"mine\.json:1:20: block\.port: 70000 is not a port"):
        to_full('{"block": {"port": 70000}}', "mine.json")


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=30
    )
)
def test_what_is_written_reads_back(value) -> None:
    assert json.loads(write_json(value)) == value


def test_long_lists_are_broken_into_lines() -> None:
    written = write_json({"ip": [f"10.0.0.{number}" for number in range(40)], "port": [1, 2]})
    assert all(len(line) <= WIDTH for line in written.split("\n"))
    assert '\n    "10.0.0.7",\n' in written
    assert '\n  "port": [1, 2]\n' in written
