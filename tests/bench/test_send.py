from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ends import LOCAL4, LOCAL6
from live import WIRE
from namespaces import wire
from pfw.model.address import parse_address
from pfw.model.flow import reverse_key
from pfw.wire.link import ETHERNET
from pfw.wire.packet import decode
from processes import run
from send import Frames
from traffic import Mix, generate, write_capture

HERE = {parse_address(LOCAL4), parse_address(LOCAL6)}


def flows_in(data: bytes, sizes: list[int]) -> set[bytes]:
    flows = set()
    at = 0
    for size in sizes:
        packet = decode(ETHERNET, data[at : at + size], size)
        assert not {packet.source, packet.destination}.isdisjoint(HERE)
        flows.add(min(packet.key, reverse_key(packet.key)))
        at += size
    return flows


def test_a_fresh_lap_has_as_many_flows_and_none_of_them_is_old():
    frames = [frame for _, frame in generate(Mix(1_000, 50))]
    sizes = [len(frame) for frame in frames]
    loaded = Frames(frames)
    laps = []
    for lap in (0, 1, 2):
        loaded.renew(0, len(frames), lap)
        laps.append(flows_in(bytes(loaded.bytes), sizes))
    assert [len(flows) for flows in laps] == [50, 50, 50]
    assert laps[0].isdisjoint(laps[1] | laps[2])
    assert laps[1].isdisjoint(laps[2])


@pytest.mark.netns
def test_what_is_sent_arrives_and_nothing_else(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    capture = tmp_path / "made.pcap"
    write_capture(capture, generate(Mix(1_000, 50)))
    program = Path(__file__).resolve().parents[2] / "bench" / "send.py"
    with wire() as made:
        finished = run((*made.sending, sys.executable, str(program), str(capture), WIRE, "50000", "2500"))
        assert made.arrived() == 2_500
    assert json.loads(finished.output)["packets"] == 2_500
