"""Bans as they are written down: older files, whom a load leaves out, and what was forgiven."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pfw.daemon import banning, machine, offending, sparing
from pfw.daemon.ban_batch import Batch, record_of
from pfw.daemon.banning import Record
from pfw.daemon.state import State
from pfw.drivers.store import Store
from pfw.enforce.nft_table import Ban
from pfw.engine.respond import Offence
from pfw.model.address import AddressSet, Range, parse_range

NOW = 1_000.0
HOST, OTHER, NET = parse_range("203.0.113.7"), parse_range("203.0.113.8"), parse_range("2001:db8::/64")


class Kernel:
    """A backend that only remembers."""

    def __init__(self) -> None:
        self.there: dict[Range, int | None] = {}
        self.whole: list[list[Ban]] = []
        self.boots = 0

    def ban_host(self, ban: Ban) -> bool:
        if ban.range in self.there:
            return False
        self.there[ban.range] = ban.left_s
        return True

    def ban(self, added: Sequence[Ban], lifted: Sequence[Range], everything: Sequence[Ban]) -> None:
        self.whole.append(list(everything))
        for pair in lifted:
            del self.there[pair]
        self.there |= {each.range: each.left_s for each in added}

    def bans(self) -> set[Range]:
        return set(self.there)

    def boot_bans(self, bans: Sequence[Ban]) -> dict[str, str]:
        self.boots += 1
        return {"boot-bans.nft": f"{len(bans)}"}


def no_kernel() -> Any:
    return Kernel()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    made = State(Store(tmp_path / "state"))
    made.files.make()
    monkeypatch.setattr(machine, "protected", lambda: [("the gateway's", AddressSet([OTHER]))])
    monkeypatch.setattr("pfw.drivers.clock.now", lambda: NOW)
    return made


def test_files_of_older_versions_are_read(state: State) -> None:
    written = [{"what": "203.0.113.7", "since": 1.0, "until": 2000.0, "why": "tried"}]
    state.files.write("bans.json", json.dumps(written).encode())
    assert banning.records(state, NOW) == {HOST: Record("203.0.113.7", 1.0, 2000.0, "tried", "hand", "", 1)}
    assert state.trouble == []


def test_what_is_by_hand_is_written_as_ever(state: State) -> None:
    banning.write(state, {HOST: Record("203.0.113.7", 1.0, None)})
    assert json.loads(state.files.read("bans.json") or b"") == [{"what": "203.0.113.7", "since": 1.0, "until": None}]


def test_a_load_leaves_out_bans_of_alerts_that_hit_somebody_spared(state: State) -> None:
    wide = parse_range("203.0.113.0/24")
    found = {
        HOST: Record("203.0.113.7", 1.0, 2000.0, by="sweep"),
        OTHER: Record("203.0.113.8", 1.0, 2000.0, by="sweep"),
        wide: Record("203.0.113.0/24", 1.0, 2000.0),
        parse_range("192.0.2.1"): Record("192.0.2.1", 1.0, 2000.0, by="sweep"),
    }
    banning.write(state, found)
    assert {each.range for each in banning.active(state, NOW)} == {*found} - {OTHER}
    never = AddressSet([parse_range("192.0.2.0/24")])
    assert {each.range for each in banning.active(state, NOW, never)} == {HOST, wide}
    kernel = no_kernel()
    kernel.there = dict.fromkeys(found)
    assert banning.spare(state, kernel) == {OTHER: "203.0.113.8 is the gateway's"}
    assert kernel.bans() == set(banning.records(state, NOW)) == {*found} - {OTHER}


def test_what_is_lifted_by_hand_is_forgiven_until_banned_by_hand(state: State) -> None:
    kernel = no_kernel()
    banning.add(state, kernel, [HOST, NET], None)
    assert banning.remove(state, kernel, [HOST, NET, OTHER]).done == 2
    assert sparing.forgiven(state, NOW) == dict.fromkeys((HOST, NET), NOW + sparing.FORGIVEN_S)
    assert sparing.forgiven(state, NOW + sparing.FORGIVEN_S) == {}
    assert ("forgiven by a person", AddressSet([HOST, NET])) in sparing.spared(state, NOW, AddressSet())
    banning.add(state, kernel, [parse_range("203.0.113.0/29")], None, force=True)
    assert set(sparing.forgiven(state, NOW)) == {NET}


def test_what_is_forgiven_is_bounded(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparing, "FORGIVEN_MAX", 3)
    for number in range(5):
        sparing.forgive(state, [(number, number)], NOW)
    assert list(sparing.forgiven(state, NOW)) == [(2, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize("content", [b"{", b"[5]", b'[{"what": "x", "until": 1}]', b"\xff"])
def test_broken_files_are_told_and_taken_as_not_there(state: State, content: bytes) -> None:
    state.files.write("forgiven.json", content)
    state.files.write("offences.json", content)
    assert sparing.forgiven(state, NOW) == {}
    assert offending.remembered(state) == []
    assert [line.split(": ")[0].rpartition("/")[2] for line in state.trouble] == ["forgiven.json", "offences.json"]


def test_offences_outlast_us(state: State) -> None:
    offences = [Offence(NET, 3, 5.0), Offence(HOST, 1, 7.0)]
    offending.keep(state, offences)
    assert offending.remembered(state) == offences
    before = (state.files.path / "offences.json").stat()
    offending.keep(state, offences)
    assert (state.files.path / "offences.json").stat().st_mtime_ns == before.st_mtime_ns
    assert offending.times(state)[HOST].count == 1


def ban(pair: Range, seconds: float = 600.0) -> Record:
    return record_of(pair, seconds, why="sweep, score 80", by="sweep", evidence="e", count=2)


def test_a_batch_is_in_the_kernel_first_and_on_the_disk_later(state: State) -> None:
    kernel, batch = no_kernel(), Batch(state)
    assert batch.add(kernel, HOST, ban(HOST))
    assert kernel.there == {HOST: 600}
    assert banning.records(state, NOW) == {}
    assert batch.waits
    batch.write(kernel)
    assert banning.records(state, NOW) == {
        HOST: Record("203.0.113.7", NOW, NOW + 600, "sweep, score 80", "sweep", "e", 2)
    }
    assert not batch.add(kernel, HOST, ban(HOST))
    assert kernel.whole == [], "a host needs no look at the others"


def test_a_longer_ban_takes_the_place_of_a_shorter_one(state: State) -> None:
    kernel, batch = no_kernel(), Batch(state)
    banning.add(state, kernel, [HOST], 60.0)
    assert batch.add(kernel, HOST, ban(HOST))
    assert kernel.there[HOST] == 600
    banning.add(state, kernel, [HOST], None)
    batch.write(kernel)
    assert banning.records(state, NOW)[HOST].until is None, "a person's is longer still"
    assert not batch.add(kernel, HOST, ban(HOST, 1e6))


def test_a_prefix_is_told_to_the_kernel_with_all_others(state: State) -> None:
    kernel, batch = no_kernel(), Batch(state)
    banning.add(state, kernel, [OTHER], None, force=True)
    batch.add(kernel, HOST, ban(HOST))
    batch.add(kernel, NET, ban(NET))
    assert {each.range for each in kernel.whole[-1]} == {HOST, OTHER, NET}
    # Somebody who did not know of them has changed the sets.
    kernel.there.clear()
    batch.write(kernel)
    assert kernel.bans() == {HOST, NET}


def test_the_file_for_the_boot_is_written_now_and_then(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    state.files.write("boot.nft", b"")
    kernel, batch = no_kernel(), Batch(state)
    for number in range(5):
        batch.add(kernel, (number, number), ban((number, number)))
        batch.write(kernel)
    assert kernel.boots == 0
    monkeypatch.setattr("pfw.drivers.clock.now", lambda: NOW + 31)
    batch.write(kernel)
    assert state.files.read("boot-bans.nft") == b"5"
    assert not batch.waits
    batch.write(kernel, last=True)
    assert kernel.boots == 1


def test_what_cannot_be_written_goes_on_to_wait(state: State) -> None:
    kernel, batch = no_kernel(), Batch(state)
    batch.add(kernel, HOST, ban(HOST))
    (state.files.path / "bans.json").mkdir()
    with pytest.raises(IsADirectoryError):
        batch.write(kernel)
    (state.files.path / "bans.json").rmdir()
    assert batch.waits
    batch.write(kernel)
    assert set(banning.records(state, NOW)) == {HOST}


def test_a_clock_that_is_set_back_makes_no_ban_longer_and_nobody_safe(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, batch = no_kernel(), Batch(state)
    batch.add(kernel, HOST, ban(HOST))
    batch.write(kernel)
    monkeypatch.setattr("pfw.drivers.clock.now", lambda: NOW - 900)
    assert [each.left_s for each in banning.active(state, NOW - 900)] == [600]
    kernel.there.clear()  # its own clock has ended it
    assert batch.add(kernel, HOST, ban(HOST))
    assert HOST in kernel.there
    batch.write(kernel)
    assert banning.records(state, NOW - 900)[HOST].until == NOW - 300
