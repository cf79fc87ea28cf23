"""What comes back at a boot: the commands of the units that are written, run on a fresh kernel without any Python of
ours, make the same firewall."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.netns.firewalling import Changing, Firewall, arrived, opened, policy

OPEN, SHUT = 6001, 6002


def commands(unit: Path) -> list[str]:
    return re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)


def moved(pair: Any, net: Any, fresh: Any) -> None:
    """The cable of `here` goes to a namespace that has never seen a rule."""
    net.ip("-n", pair.here.name, "link", "set", net.cable, "netns", fresh.name)
    fresh.run("ip", "link", "set", net.cable, "up")
    fresh.run("ip", "addr", "add", f"{net.here}/24", "dev", net.cable)
    fresh.run("ip", "addr", "add", f"{net.here6}/64", "dev", net.cable, "nodad")


def kernel(at: Any) -> list[str]:
    """All that there is, but what only counts or runs out, and the order in which it came to be."""
    words = ("nft list ruleset", "iptables-legacy-save", "ip6tables-legacy-save", "ipset save")
    listed = "\n".join(at.run(*each.split()).stdout for each in words)
    listed = re.sub(r"set hits \{.*?\n\t\}", "", listed, flags=re.DOTALL)
    listed = re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]|(expires|timeout) \w+|initval \w+", "", listed)
    return sorted(" ".join(line.split()) for line in listed.splitlines() if not line.startswith("#"))


@pytest.fixture(params=["nftables", "iptables-nft", "iptables-legacy"])
def installed(request: pytest.FixtureRequest, firewall: Callable[..., Firewall], tmp_path: Path) -> Firewall:
    held = firewall(request.param)
    (tmp_path / "units").mkdir()
    held.pfw("install", "--units", tmp_path / "units")
    return held


def test_the_commands_of_the_units_make_the_same_firewall(
    installed: Firewall, pair: Any, net: Any, namespace: Callable[[], Any], tmp_path: Path
) -> None:
    rules = [
        {"name": "bad", "action": "reject", "direction": "in", "from": ["192.0.2.0/24", "2001:db8::/32", "!192.0.2.7"]},
        {"name": "limited", "action": "allow", "direction": "in", "protocol": "tcp", "port": 22, "limit": "6/minute"},
    ]
    installed.up(policy(*rules, opened(OPEN)))
    installed.pfw("ban", "add", "203.0.113.9", "203.0.114.0/24", "2001:db8:1::/48", "--for", "1h")
    installed.up(policy(*rules, opened(OPEN), opened(7777)))
    before = kernel(pair.here)
    unit = tmp_path / "units" / f"pfw-boot-{installed.backend}.service"
    lines = commands(unit)
    assert lines
    assert "python" not in unit.read_text()
    assert f"ConditionPathExists={installed.state}/boot" in unit.read_text()
    fresh = namespace()
    moved(pair, net, fresh)
    for line in lines:
        fresh.run("env", "-i", "sh", "-c", line)
    assert kernel(fresh) == before
    found = arrived(fresh, pair.there, (OPEN, SHUT), (net.here, net.here6))
    assert {(net.here, OPEN), (net.here6, OPEN)} <= found
    assert not {(net.here, SHUT), (net.here6, SHUT)} & found
    # A boot that is followed by commands: they see what is in force.
    installed.at = fresh
    assert installed.status()["active"]
    assert "3 bans in force" in installed.pfw("ban", "reload").stdout
    assert "nothing to do" in installed.up().stdout or installed.backend != "nftables"
    assert installed.status()["intact"]
    installed.pfw("down")
    assert installed.ours() == ""


def test_what_is_off_stays_off(installed: Firewall, tmp_path: Path) -> None:
    """The condition of every unit is a file that is not there then."""
    Changing(installed).up(policy(opened(OPEN)))
    assert list(installed.state.glob("boot*"))
    installed.pfw("down")
    assert not list(installed.state.glob("boot*"))
    for unit in (tmp_path / "units").glob("*.service"):
        (condition,) = re.findall(r"^ConditionPathExists=(.*)$", unit.read_text(), re.MULTILINE)
        assert not os.path.exists(condition)


def test_installed_and_uninstalled(installed: Firewall, tmp_path: Path) -> None:
    folder = tmp_path / "units"
    (folder / "others.service").write_text("[Unit]\nDescription=somebody else's\n")
    names = {path.name for path in folder.iterdir()}
    assert {"pfw-boot-nftables.service", "pfw-settle.service", "pfw-lists.timer"} < names
    link = folder / "sysinit.target.wants" / "pfw-boot-nftables.service"
    assert link.resolve() == folder / "pfw-boot-nftables.service"
    installed.pfw("install", "--units", folder)
    installed.pfw("uninstall", "--units", folder)
    assert [path.name for path in folder.rglob("*") if not path.is_dir()] == ["others.service"]
    assert "there was nothing of ours" in installed.pfw("uninstall", "--units", folder).stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_units(firewall: Callable[..., Firewall], tmp_path: Path) -> None:
    held = firewall()
    (tmp_path / "units").mkdir()
    held.pfw("install", "--units", tmp_path / "units")
    units = [path for path in sorted((tmp_path / "units").iterdir()) if path.is_file()]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, units)], capture_output=True, text=True, check=False
    )
    told = [line for line in done.stderr.splitlines() if "pfw" in line]
    assert (done.returncode, told) == (0, []), done.stderr
