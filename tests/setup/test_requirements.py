"""The pinned files against pyproject.toml, which says what they are made from."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED = {
    "requirements.txt": PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["monitor"],
    "requirements-dev.txt": PROJECT["dependency-groups"]["dev"],
}


def pinned(name: str) -> dict[str, tuple[str, int]]:
    """Each package in the file with its version and the number of its hashes."""
    blocks = re.split(r"\n(?=[a-z])", (ROOT / name).read_text())
    found = (re.match(r"([a-z0-9-]+)==(\S+)", block) for block in blocks)
    return {match[1]: (match[2], match.string.count("--hash=sha256:")) for match in found if match}


@pytest.mark.parametrize("name", WANTED)
def test_what_is_wanted_is_pinned(name):
    pins = pinned(name)
    for wanted in map(Requirement, WANTED[name]):
        version, _ = pins[wanted.name]
        assert wanted.specifier.contains(version), wanted


@pytest.mark.parametrize("name", WANTED)
def test_every_pin_has_hashes(name):
    assert min(hashes for _, hashes in pinned(name).values()) > 0


def test_both_files_pin_nothing_twice():
    assert pinned("requirements.txt").keys().isdisjoint(pinned("requirements-dev.txt"))
