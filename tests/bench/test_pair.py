"""The pair of namespaces and the program that is both of its ends, on a real kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from firewalls import load_floor, nft
from pair import Pairs
from rulesets import nft_replacing

PROGRAM = str(Path(__file__).resolve().parents[2] / "bench" / "programs" / "both_ends.py")

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft"),
]


@pytest.fixture
def pairs():
    with Pairs() as made:
        yield made


def namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


def test_namespaces_go_when_they_are_not_needed_any_more():
    with Pairs() as made:
        names = [made.pair().near, made.pair().far]
        assert names[0] in namespaces()
    assert not any(name in namespaces() for name in names)


@pytest.mark.parametrize("kind", ["connections", "exchanges", "stream", "packets"])
def test_both_ends_measure_every_pair_by_turns(pairs, kind):
    open_pair, tracked = pairs.pair(), pairs.pair()
    load_floor(tracked)
    words = [kind, "2", *(f"{each.near}:{each.far}" for each in (open_pair, tracked))]
    done = subprocess.run([sys.executable, PROGRAM, *words], capture_output=True, text=True, check=True)
    rates = json.loads(done.stdout)
    assert [len(each) for each in rates] == [2, 2]
    assert all(rate > 100 for each in rates for rate in each)


def probe(pair, listed: str) -> dict[str, int]:
    words = ["probe", f"{pair.near}:{pair.far}", *([listed] if listed else [])]
    with subprocess.Popen(
        [sys.executable, PROGRAM, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as probing:
        assert probing.stdout.readline() == "ready\n"
        try:
            probing.wait(0.3)
        except subprocess.TimeoutExpired:
            return json.loads(probing.communicate("")[0])
    pytest.fail("the probe ends by itself")


def test_a_probe_tells_what_passes(pairs):
    told = probe(pairs.pair(), "listed")
    assert told["sent"] > 20
    assert (told["passed"], told["listed"], told["lost"]) == (told["sent"], told["sent"], 0)


def test_a_probe_tells_what_does_not_pass(pairs):
    pair = pairs.pair()
    nft(pair, nft_replacing(["203.0.113.0/24"]))
    told = probe(pair, "listed")
    assert told["sent"] > 20
    assert (told["passed"], told["listed"], told["lost"]) == (0, 0, 0)
    nft(pair, "flush chain inet listed in")
    told = probe(pair, "")
    assert (told["passed"], told["lost"]) == (0, told["sent"])
