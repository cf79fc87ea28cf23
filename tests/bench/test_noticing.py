"""Cells for scans, and the program that watches until somebody is banned, on a real kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from firewalls import nft
from noticing import cells, policy
from pair import CABLE, NEAR, Pairs
from per_program import inside
from pfw.model.observation import Kind
from pfw.model.policy import Doing
from pfw.policy.load import load
from setting import PROGRAMS
from table import NOTHING

SOURCE = "10.80.0.9"
RESET = f"""
import socket
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
    sock.bind(("{SOURCE}", 0))
    sock.sendto(bytes.fromhex("9c4000160000000000000000500400000000 0000"), ("{NEAR}", 0))
"""


@pytest.mark.parametrize("default", ["block", "allow"])
def test_the_policy_bans_port_scans(default):
    read = load(policy(default).encode(), "bench")
    assert [(each.kinds, each.do) for each in read.respond.reactions] == [(frozenset({Kind.PORT_SCAN}), Doing.BAN)]


def test_cells_of_scans():
    scans = [
        {"banned_s": 0.2, "after_reset_s": 0.005, "packets": 30},
        {"banned_s": None, "after_reset_s": None, "packets": 900},
        {"banned_s": 0.4, "after_reset_s": 0.009, "packets": 50},
    ]
    assert cells("x", scans) == ("x", "3", "2", "300", "400", "9", "40")
    assert cells("x", scans[1:2]) == ("x", "1", "0", NOTHING, NOTHING, NOTHING, NOTHING)
    scans[0]["after_reset_s"] = None
    assert cells("x", scans[:1]) == ("x", "1", "1", "200", "200", NOTHING, "30")


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft")
def test_the_time_from_the_first_packet_to_the_ban():
    with Pairs() as pairs:
        pair = pairs.pair()
        pair.add_hosts()
        nft(pair, "table inet pfw { set ban4 { type ipv4_addr; }; }")
        program = (sys.executable, str(PROGRAMS / "until_banned.py"), CABLE, "pfw", "ban4", "20")
        with subprocess.Popen(
            (*inside(pair.near), *program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as watching:
            try:
                assert watching.stdout.readline() == "ready\n"
                watching.stdin.write(f"{SOURCE}\n")
                watching.stdin.flush()
                ping = ("ping", "-c3", "-i0.2", "-I", SOURCE, NEAR)
                subprocess.run((*inside(pair.far), *ping), capture_output=True, check=True)
                time.sleep(0.2)
                subprocess.run((*inside(pair.far), sys.executable, "-c", RESET), check=True)
                nft(pair, f"add element inet pfw ban4 {{ {SOURCE} }}")
                told = json.loads(watching.stdout.readline())
            finally:
                watching.kill()
    assert told["packets"] == 4
    assert 0.6 < told["banned_s"] < 15
    assert 0 < told["after_reset_s"] < told["banned_s"] - 0.5
