"""Policies and the rulesets that are made of them, kept word for word: `cases/NAME/policy.json` beside `ruleset.nft`
and `ruleset.iptables`, which is what `pfw show` prints.

    PFW_GOLDEN=write   writes the rulesets anew; what has changed shows in the difference
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pfw.daemon.enforcing import named
from pfw.enforce.conditions import CannotError
from pfw.enforce.owners import Group, Owners
from pfw.enforce.plan import Surroundings, make_plan
from pfw.enforce.programs import MASK, Labelling
from pfw.enforce.schedules import Clock
from pfw.model.address import AddressSet, parse_range
from pfw.policy.load import load

CASES = sorted(path.parent for path in (Path(__file__).parent / "cases").glob("*/policy.json"))
FOR_PROGRAMS = frozenset({"programs"})
"""Cases that iptables cannot do."""
FILES = {"nftables": "ruleset.nft", "iptables": "ruleset.iptables"}
NOW = datetime(2026, 11, 24, 10, tzinfo=UTC).timestamp()
USERS = {"root": 0, "guest": 1004}
GROUPS = {"staff": Group(50, frozenset({1001, 1002, 1003}))}
LISTS = {
    "both": "203.0.113.0/24 198.51.100.7 2001:db8:bad::/48",
    "scanners": "192.0.2.0-192.0.2.130",
    "trackers": "192.0.2.200 2001:db8::1",
}

_PART = re.compile(r"^# (ipset restore|ip6?tables-restore --noflush)\n", re.MULTILINE)


def last_sunday(year: int, month: int) -> int:
    day = datetime(year, month, 31, 1, tzinfo=UTC)
    return int(day.timestamp()) - (day.weekday() + 1) % 7 * 86400


def utc_offset(at: float) -> int:
    """As in Berlin: summer time from the last Sunday of March to that of October."""
    year = datetime.fromtimestamp(at, UTC).year
    return 7200 if last_sunday(year, 3) <= at < last_sunday(year, 10) else 3600


def ruleset(case: Path, backend: str) -> str:
    owners = Owners(lambda name: int(name) if name.isdecimal() else USERS.get(name), GROUPS.get, lambda _: None)
    lists = {name: AddressSet([parse_range(each) for each in text.split()]) for name, text in LISTS.items()}
    policy = load((case / "policy.json").read_text())
    numbers: dict[str, int] = {}
    labelling = Labelling(MASK, lambda key: numbers.setdefault(key, len(numbers) + 1))
    return named(backend).show(make_plan(policy, Surroundings(owners, Clock(NOW, utc_offset), labelling), lists))


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request) -> Path:
    return request.param


PAIRS = [
    pytest.param(case, backend, id=f"{case.name}-{backend}")
    for case in CASES
    for backend in FILES
    if backend == "nftables" or case.name not in FOR_PROGRAMS
]


@pytest.mark.parametrize("name", sorted(FOR_PROGRAMS))
def test_iptables_refuses_what_it_cannot_do(name) -> None:
    with pytest.raises(CannotError):
        ruleset(Path(__file__).parent / "cases" / name, "iptables")


@pytest.mark.parametrize(("case", "backend"), PAIRS)
def test_the_ruleset_is_the_one_that_is_kept(case, backend) -> None:
    path = case / FILES[backend]
    made = ruleset(case, backend)
    if os.environ.get("PFW_GOLDEN") == "write":
        path.write_text(made)
    assert made == path.read_text(), "PFW_GOLDEN=write takes the new one"


@pytest.mark.parametrize(("case", "backend"), PAIRS)
def test_it_is_the_same_each_time(case, backend) -> None:
    assert ruleset(case, backend) == ruleset(case, backend)


@pytest.mark.netns
def test_the_kernel_takes_it_for_nftables(case, namespace) -> None:
    if shutil.which("nft") is None:
        pytest.skip("needs nft")
    here = namespace()
    for _ in range(2):  # the second time over the first
        here.run("nft", "-f", case / FILES["nftables"])
    assert "chain g1_in {" in here.run("nft", "list", "table", "inet", "pfw").stdout


@pytest.mark.netns
@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.parametrize("case", [each for each in CASES if each.name not in FOR_PROGRAMS], ids=lambda case: case.name)
def test_the_kernel_takes_it_for_iptables(case, kind, namespace) -> None:
    if shutil.which(f"iptables-{kind}") is None or shutil.which("ipset") is None:
        pytest.skip(f"needs iptables-{kind} and ipset")
    here = namespace()
    for program, words, text in parts((case / FILES["iptables"]).read_text()):
        name = program if program == "ipset" else program.replace("tables-", f"tables-{kind}-")
        here.run(name, *words, input=text)
    for program in (f"iptables-{kind}-save", f"ip6tables-{kind}-save"):
        assert "-A INPUT -j PFW-IN" in here.run(program).stdout


def parts(text: str) -> Iterator[tuple[str, list[str], str]]:
    """What a file holds for each program."""
    pieces = _PART.split(text)[1:]
    for command, lines in zip(pieces[::2], pieces[1::2], strict=True):
        program, *words = command.split()
        yield program, words, lines
