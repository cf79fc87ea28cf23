"""Answers of DNS are told of where somebody is asked about programs, and nowhere else."""

from __future__ import annotations

import json
import re

import pytest
from msgspec.structs import replace

from pfw.enforce.plan import make_plan
from pfw.enforce.programs import MASK, Labelling
from pfw.enforce.render_nftables import TELL_NAMES, render
from pfw.policy.load import load

_CHAIN = re.compile(r"chain (\S+) \{\n(.*?)\n?\t\}", re.DOTALL)


def chains(around, *, labelled, **fields):
    around = replace(around, labelling=Labelling(MASK, lambda key: 1 + sum(key.encode()))) if labelled else around
    text = render(make_plan(load(json.dumps({"version": 2, "rules": [], **fields})), around, {}), 1).whole
    return {name: [line.strip() for line in body.splitlines()] for name, body in _CHAIN.findall(text)}


CURL = {"name": "curl", "action": "allow", "direction": "out", "app": "/usr/bin/curl"}
ASK = {"in": "block", "out": "ask"}


@pytest.mark.parametrize("fields", [{"default": ASK}, {"rules": [CURL]}])
def test_it_comes_before_all_else(around, fields):
    found = chains(around, labelled=True, **fields)
    assert found["g1_in"][0] == TELL_NAMES
    assert sum(lines.count(TELL_NAMES) for lines in found.values()) == 1


@pytest.mark.parametrize(("labelled", "fields"), [(True, {}), (False, {"default": {"in": "block"}})])
def test_it_is_not_there_where_programs_are_not_told_apart(around, labelled, fields):
    assert not any(
        "group 7848" in line for lines in chains(around, labelled=labelled, **fields).values() for line in lines
    )


def test_it_decides_nothing():
    words = TELL_NAMES.split()
    assert not {"accept", "drop", "reject", "goto", "jump", "return", "queue", "vmap"} & set(words)
