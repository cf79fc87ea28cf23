"""`pfw ban` and the two functions for programs, with packets: who is banned is, for as long as he should be."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.netns.firewalling import Changing, Firewall, arrived, opened, policy

PORT = 6001


class Banning:
    """A firewall, and whether `there` still comes through to it."""

    def __init__(self, firewall: Firewall, pair: Any, net: Any) -> None:
        self.firewall, self.pair, self.net = firewall, pair, net
        self.changing = Changing(firewall)

    def up(self) -> None:
        self.changing.up(policy(opened(PORT)))

    def ban(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.firewall.pfw("ban", *words, **options)

    def passes(self) -> list[bool]:
        """Of both families, whether anything comes in, and goes out."""
        found = []
        for here, there in ((self.net.here, self.net.there), (self.net.here6, self.net.there6)):
            done = subprocess.run(
                self.pair.there.command("ping", "-c1", "-W0.3", here), capture_output=True, check=False
            )
            back = subprocess.run(
                self.pair.here.command("ping", "-c1", "-W0.3", there), capture_output=True, check=False
            )
            assert done.returncode == back.returncode
            found.append(done.returncode == 0)
        return found

    def listed(self) -> dict[str, float | None]:
        """The bans that it tells of, with the seconds that they have left."""
        return {each["what"]: each["until"] for each in self.records()}

    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.firewall.state / "bans.json").read_text())
        return found

    def kernel(self) -> str:
        if self.firewall.backend == "nftables":
            return "".join(
                self.pair.here.run("nft", "list", "set", "inet", "pfw", name).stdout
                for name in ("ban4", "ban4net", "ban6", "ban6net")
            )
        return self.pair.here.run("ipset", "save").stdout


def open_policy() -> dict[str, Any]:
    return policy({"name": "ping", "action": "allow", "icmp_type": "echo-request"}, opened(PORT))


@pytest.fixture(params=["nftables", "iptables-nft"])
def banning(request: pytest.FixtureRequest, firewall: Callable[..., Firewall], pair: Any, net: Any) -> Banning:
    made = Banning(firewall(request.param), pair, net)
    # A neighbour that is banned is not asked for its address any more, and that is remembered for a while.
    for at, other, addresses in ((pair.here, pair.there, (net.there, net.there6)),
                                 (pair.there, pair.here, (net.here, net.here6))):  # fmt: skip
        mac = other.run("cat", f"/sys/class/net/{net.cable}/address").stdout.strip()
        for address in addresses:
            at.run("ip", "neigh", "replace", address, "lladdr", mac, "dev", net.cable, "nud", "permanent")
    made.changing.up(open_policy())
    return made


def test_in_the_kernel_and_out_again(banning: Banning, net: Any) -> None:
    assert banning.passes() == [True, True]
    assert "1 banned" in banning.ban("add", net.there, "--for", "1h").stdout
    assert banning.passes() == [False, True]
    banning.ban("add", net.there6)
    assert banning.passes() == [False, False]
    assert "2" in banning.ban("remove", net.there, net.there6).stdout
    assert banning.passes() == [True, True]
    done = banning.ban("remove", net.there, status=1)
    assert "10.77.0.2 is not banned" in done.stderr


def test_the_kernel_ends_it(banning: Banning, net: Any) -> None:
    """By itself: nobody of ours runs then."""
    banning.changing.ban([net.there6])  # for ten minutes
    code = (
        "import sys; from pfw.commands.banning import block_ip; "
        "block_ip(sys.argv[1], 2.0, force=True); block_ip(sys.argv[2], 2.0, force=True)"
    )
    words = banning.pair.here.command(sys.executable, "-P", "-c", code, net.there, "10.77.0.0/29")
    banning.firewall.run(words)
    begin = time.monotonic()
    assert banning.passes() == [False, False]
    banning.net.wait_until(lambda: banning.passes()[0], "the ban is over")
    assert time.monotonic() - begin < 6
    assert banning.passes() == [True, False]
    assert "1 ban\n" in banning.ban("list").stdout


def test_prefixes_that_lie_in_each_other(banning: Banning, net: Any) -> None:
    """Each is lifted by its own name, and the others still hold."""
    for what in ("10.77.0.0/24", "10.77.0.0/30", net.there, "fd77::/64", "fd77::2/127"):
        banning.ban("add", what, "--force")
    assert banning.passes() == [False, False]
    banning.ban("remove", "10.77.0.0/30", net.there, "fd77::/64")
    assert banning.passes() == [False, False]
    done = banning.ban("remove", "10.77.0.0/30", status=1)
    assert "the ban on 10.77.0.0/24 holds it" in done.stderr
    banning.ban("remove", "10.77.0.0/24", "fd77::2/127")
    assert banning.passes() == [True, True]
    assert "10.77" not in banning.kernel()


def test_ten_thousand_at_once(banning: Banning, net: Any) -> None:
    lines = [f"198.18.{number >> 8}.{number & 255}  # one" for number in range(5000)]
    lines += [f"2001:db8::{number:x}" for number in range(4000)]
    lines += [f"45.{number >> 8}.{number & 255}.0/24" for number in range(999)]
    begin = time.monotonic()
    done = banning.ban(
        "add", "-", "--for", "1h", "--json", input="\n".join([*lines, net.there, "nonsense", ""]), status=2
    )
    assert time.monotonic() - begin < 10
    told = json.loads(done.stdout)
    assert told["banned"] == 10_000
    assert "nonsense" in told["faults"][0]
    assert banning.passes() == [False, True]
    assert len(banning.records()) == 10_000
    done = banning.ban("remove", "-", input="\n".join(lines))
    assert "9,999" in done.stdout
    assert banning.passes() == [False, True]
    banning.ban("remove", net.there)
    assert banning.passes() == [True, True]


@pytest.mark.parametrize("banning", ["nftables", "iptables-nft", "iptables-legacy"], indirect=True)
def test_they_outlast_what_happens_to_policies(banning: Banning, net: Any) -> None:
    banning.ban("add", net.there, "--for", "1h")
    banning.ban("add", "fd77::/120", "--force")
    until = banning.listed()
    banning.firewall.up({**open_policy(), "base": {}})
    assert banning.passes() == [False, False]
    banning.firewall.pfw("down")
    assert banning.passes() == [True, True]
    banning.firewall.up(open_policy())
    assert banning.passes() == [False, False]
    assert banning.listed() == until
    # Everything is lost but the disk.
    if banning.firewall.backend != "iptables-legacy":
        banning.pair.here.run("nft", "flush", "ruleset")
    else:
        for program in ("iptables-legacy", "ip6tables-legacy"):
            for table in ("raw", "mangle", "filter"):
                banning.pair.here.run(program, "-t", table, "-F")
                banning.pair.here.run(program, "-t", table, "-X")
        banning.pair.here.run("ipset", "destroy")
    assert banning.passes() == [True, True]
    banning.firewall.up(open_policy())
    assert banning.passes() == [False, False]
    assert banning.listed() == until


def test_the_boot_file_holds_the_time_that_is_left(banning: Banning) -> None:
    banning.ban("add", "203.0.113.9", "--for", "1h")
    banning.ban("add", "203.0.114.0/24", "--for", "ever")
    name = "boot-bans.nft" if banning.firewall.backend == "nftables" else "boot-bans.ipset"
    text = (banning.firewall.state / name).read_text()
    left = int(text.split("203.0.113.9", 1)[1].replace("/32", "").replace("timeout", "").split()[0].strip("s},;"))
    assert 3500 < left <= 3600
    assert "203.0.114.0" in text
    banning.ban("remove", "203.0.113.9")
    assert "203.0.113.9" not in (banning.firewall.state / name).read_text()


def test_reload_makes_the_kernel_what_is_written_down(banning: Banning, net: Any) -> None:
    banning.ban("add", net.there, "--for", "1h")
    banning.changing.ban(["203.0.113.0/24"])
    path: Path = banning.firewall.state / "bans.json"
    path.write_text(json.dumps([each for each in banning.records() if each["what"] != net.there]))
    assert banning.passes() == [False, True]
    assert "1 ban in force" in banning.ban("reload").stdout
    assert banning.passes() == [True, True]
    assert "203.0.113.0" in banning.kernel()


def test_what_only_the_kernel_knows_is_lifted_too(banning: Banning, net: Any) -> None:
    """As after the machine slept: the ban is over in the book, and the kernel goes on."""
    banning.ban("add", net.there, "--for", "1h")
    (banning.firewall.state / "bans.json").write_text("[]")
    assert banning.passes() == [False, True]
    done = banning.ban("remove", net.there, "203.0.113.77", status=1)
    assert "203.0.113.77 is not banned" in done.stderr
    assert net.there not in done.stderr
    assert banning.passes() == [True, True]


def test_programs_may_call_it(banning: Banning, net: Any) -> None:
    code = f"""
import sys
from pfw.commands.banning import block_ip, unblock_ip
block_ip("{net.there}", 60.0, why="tried too often")
try:
    block_ip("127.0.0.1")
except PermissionError as error:
    print("refused:", error)
for text in ("nonsense", "1.2.3.4/40"):
    try:
        block_ip(text)
    except ValueError as error:
        print("value:", error)
print(unblock_ip("203.0.113.77"))
"""
    done = banning.firewall.run(banning.pair.here.command(sys.executable, "-P", "-c", code))
    assert done.stdout.splitlines()[0] == "refused: 127.0.0.1 is loopback and is not banned (--force bans it)"
    assert done.stdout.count("value:") == 2
    assert done.stdout.splitlines()[-1] == "False"
    assert banning.passes() == [False, True]
    assert banning.records()[0]["why"] == "tried too often"


def test_without_a_policy(banning: Banning, net: Any) -> None:
    """Then nothing is dropped but what is banned."""
    firewall = banning.firewall
    firewall.pfw("down")
    assert firewall.ours() == ""
    done = banning.ban("add", net.there, "--for", "1h")
    assert "no policy is in force: nothing is dropped but what is banned" in done.stderr
    assert banning.passes() == [False, True]
    found = arrived(banning.pair.here, banning.pair.there, (6500,), (net.here6,))
    assert (net.here6, 6500) in found
    banning.firewall.up(open_policy())
    assert banning.passes() == [False, True]
    assert arrived(banning.pair.here, banning.pair.there, (6500, PORT), (net.here6,)) >= {(net.here6, PORT)}
    firewall.pfw("down")
    assert firewall.ours() == ""


def test_all_that_are_written_down_are_loaded_without_a_policy(banning: Banning, net: Any) -> None:
    firewall = banning.firewall
    banning.ban("add", net.there, "--for", "1h")
    firewall.pfw("down")
    assert banning.passes() == [True, True]
    assert "nobody who is banned is dropped" in banning.ban("list").stderr
    assert "nobody who is banned is dropped" in banning.ban("show", net.there).stderr
    banning.ban("add", "203.0.113.3", "--for", "1h")
    assert banning.passes() == [False, True]
    assert banning.ban("list").stderr == ""
    firewall.pfw("down")
    assert banning.passes() == [True, True]
    assert "2 bans in force" in banning.ban("reload").stdout
    assert banning.passes() == [False, True]
    firewall.pfw("down")
    banning.ban("remove", net.there, "203.0.113.3")
    assert "0 bans in force" in banning.ban("reload").stdout
    assert firewall.ours() == ""


@pytest.mark.parametrize("banning", ["nftables"], indirect=True)
def test_a_ban_does_not_pass_for_the_policy_that_somebody_took_away(banning: Banning, net: Any) -> None:
    firewall = banning.firewall
    banning.pair.here.run("nft", "delete", "table", "inet", "pfw")
    assert firewall.pfw("status", status=1).stdout.startswith("off")
    told = banning.ban("add", "203.0.113.9").stderr
    assert "the policy is gone from the kernel, pfw up puts it back" in told
    assert "without a policy" in firewall.pfw("status").stdout
    assert json.loads(firewall.pfw("status", "--json").stdout)["policy"] is None
    assert (net.here, 6500) in arrived(banning.pair.here, banning.pair.there, (6500,), (net.here,))
    firewall.up(open_policy())
    assert (net.here, 6500) not in arrived(banning.pair.here, banning.pair.there, (6500,), (net.here,))
    assert "203.0.113.9" in banning.kernel()


def test_bans_within_bans_are_told_of(banning: Banning, net: Any) -> None:
    banning.ban("add", net.there, "--for", "1h")
    banning.ban("add", f"{net.there}/31", "--for", "ever")
    assert "lifted by hand" in banning.ban("show", net.there).stdout
    done = banning.ban("remove", net.there)
    assert "1 no longer banned" in done.stdout
    assert f"{net.there} is dropped still: the ban on {net.there}/31 holds it" in done.stderr
    assert banning.passes() == [False, True]
    banning.ban("remove", f"{net.there}/31")
    assert banning.passes() == [True, True]


def test_what_follows_in_a_long_line_is_no_other_line(banning: Banning) -> None:
    text = f"# {'x' * 4094}203.0.113.50 is a friend, never ban it\n203.0.113.60 # {'y' * 9000}\n203.0.113.70"
    done = banning.firewall.run(
        banning.pair.here.command(sys.executable, "-P", "-m", "pfw", "ban", "add", "-"), input=text
    )
    assert done.returncode == 0, done.stderr
    assert sorted(banning.listed()) == ["203.0.113.60", "203.0.113.70"]
