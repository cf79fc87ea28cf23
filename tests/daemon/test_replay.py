"""Replays: the counts of several files in one, and the most frequent names within bounds."""

import subprocess

from pfw.daemon import replay as replaying
from pfw.daemon.replay import Tops, replay
from pfw.daemon.sources import CaptureFile
from pfw.model.address import AddressSet, parse_address, parse_range
from pfw.model.command import Judged
from pfw.model.event import LocalAddresses
from pfw.model.flow import Direction, make_flow
from pfw.model.packet import UDP
from pfw.model.verdict import Action, Verdict

LOCAL = LocalAddresses(AddressSet([parse_range("192.0.2.1")]))


def judged(number, action=Action.BLOCK, direction=Direction.IN):
    source, destination = parse_address(f"198.51.{number >> 8}.{number & 255}"), parse_address("192.0.2.1")
    tail = (40000).to_bytes(2) + number.to_bytes(2)
    return Judged(0.0, number, make_flow(UDP, source, destination, tail, direction), Verdict(action))


def test_files_follow_each_other_through_one_engine(capture_file, made, policy):
    files = [CaptureFile(capture_file(*made.frames[first:], name=f"{first}.pcap")) for first in (0, 2)]
    replayed = replay(files, policy, LOCAL)
    assert (replayed.totals.packets, replayed.totals.connections, replayed.totals.allowed) == (8, 5, 5)
    assert replayed.errors == []
    assert replayed.tops.rows(2)["ports_allowed"] == [("51/udp", 1), ("52/udp", 1)]
    assert len(replayed.tops.rows(9)["peers_allowed"]) == 5


def test_a_broken_file_is_named_and_the_others_are_read(capture_file, policy):
    files = [CaptureFile(capture_file(name="cut.pcap", cut=1)), CaptureFile(capture_file())]
    replayed = replay(files, policy, LOCAL)
    assert replayed.totals.packets == 9
    assert len(replayed.errors) == 1
    assert "cut.pcap: " in replayed.errors[0]


class TestTops:
    def test_the_most_frequent_first(self):
        tops = Tops()
        for number in (1, 2, 2, 2, 3, 3):
            tops.add(judged(number))
        tops.add(judged(9, Action.ALLOW, Direction.OUT))
        rows = tops.rows(2)
        assert rows["peers_blocked"] == [("198.51.0.2", 3), ("198.51.0.3", 2)]
        assert rows["ports_blocked"] == [("2/udp", 3), ("3/udp", 2)]
        assert rows["peers_allowed"] == [("192.0.2.1", 1)]

    def test_what_is_neither_allowed_nor_stopped_is_left_out(self):
        tops = Tops()
        tops.add(judged(1, Action.UNKNOWN))
        tops.add(judged(1, Action.ASK))
        assert not any(tops.rows(9).values())

    def test_memory_is_bounded_and_the_frequent_stay(self, monkeypatch):
        monkeypatch.setattr(replaying, "NAMES_MAX", 100)
        tops = Tops()
        for number in range(1000):
            tops.add(judged(number % 60_000))
            tops.add(judged(7))
        assert max(len(rows) for rows in tops.rows(10_000).values()) <= 100
        assert tops.rows(1)["peers_blocked"] == [("198.51.0.7", 1001)]


def test_from_standard_input(pfw, made):
    process = pfw("replay", "-", "--json", "--local", "192.0.2.1", stdin=subprocess.PIPE, text=False)
    out, errors = process.communicate(made.pcap(*made.frames), timeout=20)
    assert (process.returncode, errors) == (0, b"")
    assert b'"packets":5' in out
