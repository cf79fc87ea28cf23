from __future__ import annotations

import json
from pathlib import Path

import pytest

from pfw.cli.rules import load
from policies import block_list, full, many_rules, write_policies


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_policies(tmp_path_factory.mktemp("policies"))


@pytest.mark.parametrize(
    ("name", "rules"), [("simple", 5), ("10", 10), ("100", 100), ("1000", 1_000), ("10000", 10_000), ("prefixes", 11)]
)
def test_policies_are_valid_and_as_long_as_they_say(name: str, rules: int, policies: dict[str, Path]):
    policy = load(policies[name])
    assert len(policy.rules) == rules
    assert policy.simple == (name == "simple")


def test_block_list_has_its_prefixes():
    assert len(block_list(500)[0]["remote"]) == 500


def test_the_same_every_time():
    assert json.dumps(full(many_rules(50))) == json.dumps(full(many_rules(50)))
