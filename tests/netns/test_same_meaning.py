"""One meaning: random policies and real packets, the kernel's verdict against that of `policy/match.py`.

Each policy is loaded by each way to enforce, packets of all kinds go in, out and through, and of each it is compared
where it arrived, whether it was refused, and which rule the kernel says decided. What differs is made as small as it
gets and shown as a policy file and a packet.

    PFW_SEED=TEXT     the policies of an earlier run, whose seed it printed
    PFW_SOAK=SECONDS  go on for at least so long, all backends together
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from random import SystemRandom

import pytest
from tests.netns.comparing import Comparison, Fault
from tests.netns.prober import World
from tests.netns.random_policies import random_case
from tests.netns.shrinking import shrunken

from pfw.daemon.enforcing import named

POLICIES = {"nftables": 80, "iptables-nft": 70, "iptables-legacy": 70}
PACKETS = 45
"""A policy: fewer than a rule may tell of at once, so that the kernel tells of each."""
CANNOT_MOST = 0.05
"""The part of policies that a backend may not be able to express (ICMP type 255, iptables; see `ipt_text.py`)."""


@pytest.fixture
def world(namespace, net) -> Iterator[World]:
    made = World(namespace, net.ip)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("backend", POLICIES)
def test_the_kernel_decides_as_the_policy_says(world, backend):
    lacking = world.firewall.call(named(backend).unusable)
    if lacking is not None:
        pytest.skip(lacking)
    seed = os.environ.get("PFW_SEED") or f"{SystemRandom().getrandbits(32):08x}"
    print(f"PFW_SEED={seed}")
    comparison = Comparison(world, backend)
    end = time.monotonic() + float(os.environ.get("PFW_SOAK", 0)) / len(POLICIES)
    number = 0
    try:
        while number < POLICIES[backend] or time.monotonic() < end:
            case = random_case(seed, number, time.time(), PACKETS)
            fault = comparison.run(case)
            if fault is not None:
                pytest.fail(_told(seed, backend, shrunken(comparison, case, fault)))
            number += 1
    finally:
        comparison.close()
    print(f"{backend}: {number} policies, {comparison.packets} packets, {comparison.rules} deciding rules; "
          f"could not express {comparison.cannot}")  # fmt: skip
    assert len(comparison.cannot) <= max(1, CANNOT_MOST * number), comparison.cannot


def _told(seed: str, backend: str, fault: Fault) -> str:
    return f"PFW_SEED={seed} {backend}\n{fault}"
