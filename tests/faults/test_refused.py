"""Whatever fails once while a policy is put in force, the old one or the new one is whole then; with what the system
lacks, nothing is changed and one line says what it is."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.faults.trying import NEW, OLD, Trial, new_policy, old_policy, on
from tests.netns.firewalling import Firewall, opened, policy

from pfw.daemon import nftables
from pfw.drivers import netfilter, netlink, nft, programs, store
from pfw.drivers.programs import RefusedError

REFUSALS: tuple[tuple[Callable[..., Any], Exception], ...] = (
    (programs.run, RefusedError("the program broke")),
    (netfilter.read_table, OSError(errno.ENOBUFS, "no room")),
    (netfilter.read_names, OSError(errno.ENOBUFS, "no room")),
    (netfilter.change_set, OSError(errno.ENOMEM, "no memory")),
    (netfilter.connections, OSError(errno.EOPNOTSUPP, "no such thing")),
    (netfilter.cut, OSError(errno.EPERM, "not allowed")),
    (netfilter.track, OSError(errno.EPERM, "not allowed")),
    (netlink.local_addresses, OSError(errno.ENOBUFS, "no room")),
    (netlink.tcp_sockets, OSError(errno.ENOBUFS, "no room")),
    (store.write, OSError(errno.ENOSPC, "No space left on device")),
)


class Breaking:
    """Makes the N-th call of all these drivers fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.failed = ""
        for real, error in REFUSALS:
            self._replace(monkeypatch, real, error)

    def _replace(self, monkeypatch: pytest.MonkeyPatch, real: Callable[..., Any], error: Exception) -> None:
        def breaking(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if not self.left:
                self.failed = f"{real.__name__} {arguments[:1]}"
                raise error
            return real(*arguments, **named)

        for module in list(sys.modules.values()):
            if module.__name__.startswith("pfw."):
                for name, value in list(vars(module).items()):
                    if value is real:
                        monkeypatch.setattr(module, name, breaking)


@on("nftables", "iptables-nft", "iptables-legacy")
def test_each_driver_call_fails_once(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking, changing = Breaking(monkeypatch), trial.changing
    step = refused = 0
    while step < 150:
        step += {"nftables": 1, "iptables-nft": 4, "iptables-legacy": 7}[trial.firewall.backend]
        breaking.left = 0
        changing.up(old_policy())
        breaking.left, breaking.failed = step, ""
        error: Exception | None = None
        try:
            changing.up(new_policy())
        except (RefusedError, OSError) as raised:
            error = raised
        if not breaking.failed:
            break
        trial.rest()
        where = f"step {step}: {breaking.failed}: {error}"
        found = trial.open_ports()
        assert found in (trial.of(OLD), trial.of(NEW)), where
        if error is None:
            assert found == trial.of(NEW), where
        refused += error is not None
        breaking.left = 0
        changing.up(new_policy())
        assert trial.open_ports() == trial.of(NEW), where
        trial.check_tidy()
    assert refused > 2
    breaking.left = 0
    changing.down()
    assert trial.firewall.ours() == ""


@on("nftables", "iptables-legacy")
def test_what_was_in_force_is_in_force_when_it_says_no(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full at any of the writes."""
    changing = trial.changing
    changing.up(old_policy())
    writes = 0
    real = store.write

    def full(path: Path, content: bytes, *more: Any) -> None:
        nonlocal writes
        writes -= 1
        if writes < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, content, *more)

    monkeypatch.setattr(store, "write", full)
    said = []
    for room in range(25):
        writes = room
        refused = refusal(lambda: changing.up(new_policy()))
        if refused is None:
            break
        said.append(refused)
        trial.rest()
        in_force = "it is in force, but" in refused
        assert trial.open_ports() == trial.of(NEW if in_force else OLD), (room, refused)
        writes = 99
        if in_force:
            changing.up(old_policy())
    assert all("No space left on device" in each for each in said)
    assert 4 <= len(said) < 25
    writes = 99
    changing.up(new_policy())
    assert trial.open_ports() == trial.of(NEW)


def refusal(function: Callable[[], object]) -> str | None:
    """What it says when it says no."""
    try:
        function()
    except (OSError, RefusedError) as error:
        return str(error)
    return None


@contextmanager
def small_disk(firewall: Firewall, size: str) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs `pfw` where its state is on a disk so small, which nobody else sees."""
    firewall.state.mkdir()
    script = f"mount -t tmpfs -o size={size} tmpfs {firewall.state} && echo ready && cat"
    holder = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"

        def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            return firewall.run(["nsenter", "-t", str(holder.pid), "-m", *words], **options)

        yield run
    finally:
        holder.kill()
        holder.communicate()


@on("nftables", "iptables-legacy")
def test_a_disk_that_is_full(trial: Trial) -> None:
    firewall = trial.firewall
    with small_disk(firewall, "200k") as run:
        firewall.write(old_policy())
        run(firewall.up_words())
        rules = [{"name": f"r{number} {'x' * 60}", "action": "block", "port": number} for number in range(1, 900)]
        firewall.write(policy(opened(NEW), *rules))
        done = run(firewall.up_words(), status=3)
        assert "No space left" in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        trial.rest()
        assert trial.open_ports() == trial.of(OLD)
        run(firewall.words("status"))
        firewall.write(new_policy())
        run(firewall.up_words())
        assert trial.open_ports() == trial.of(NEW)


@on("nftables")
@pytest.mark.parametrize("step", ["load", "switch"])
def test_a_ruleset_that_the_kernel_refuses(trial: Trial, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    changing = trial.changing
    changing.up(old_policy())

    def refused(change: nftables.NftChange) -> None:
        text = change.ruleset.load if step == "load" else change.ruleset.switch
        nft.load(f"{text}\nadd rule inet pfw input goto nowhere\n")

    monkeypatch.setattr(nftables.NftChange, step, refused)
    with pytest.raises(RefusedError, match="nft: "):
        changing.up(new_policy())
    assert trial.open_ports() == trial.of(OLD)
    assert trial.firewall.status()["intact"]
    monkeypatch.undo()
    changing.up(new_policy())
    assert trial.open_ports() == trial.of(NEW)
    trial.check_tidy()


@on("nftables", "iptables-nft", "iptables-legacy")
def test_somebody_flushes_the_tables(trial: Trial) -> None:
    firewall = trial.firewall
    trial.changing.up(old_policy())
    if firewall.backend == "iptables-legacy":
        for program in ("iptables-legacy", "ip6tables-legacy"):
            trial.pair.here.run(program, "-F")
    else:
        trial.pair.here.run("nft", "flush", "ruleset")
    assert trial.open_ports() == trial.of(OLD, NEW)
    said = firewall.pfw("status", status=None)
    assert said.returncode == 1 or "changed" in said.stdout, (said.stdout, said.stderr)
    done = firewall.up()
    assert "in force" in done.stdout
    assert "nothing to do" not in done.stdout
    assert trial.open_ports() == trial.of(OLD)
    assert firewall.status()["intact"]


@on("nftables", "iptables-nft")
def test_somebody_flushes_the_tables_again_and_again(trial: Trial) -> None:
    firewall = trial.firewall
    loop = "while true; do nft flush ruleset; done"
    flushing = subprocess.Popen(trial.pair.here.command("sh", "-c", loop), start_new_session=True)
    try:
        for number in range(5):
            done = firewall.up(old_policy() if number % 2 else new_policy(), status=None)
            assert done.returncode in (0, 3), done
            if done.returncode:
                assert len(done.stderr.splitlines()) == 1, done.stderr
    finally:
        os.killpg(flushing.pid, 9)
        flushing.wait()
    trial.rest()
    firewall.up(new_policy())
    assert trial.open_ports() == trial.of(NEW)
    trial.check_tidy()


@on("nftables", "iptables-nft", "iptables-legacy")
def test_two_at_once(trial: Trial) -> None:
    firewall = trial.firewall
    other = Firewall(firewall.at, firewall.path.parent, firewall.backend)
    other.path = firewall.path.with_name("other.json")
    for _ in range(2 if firewall.backend == "nftables" else 1):
        trial.changing.up(policy())
        firewall.write(old_policy())
        other.write(new_policy())
        both = [each.start(each.up_words()) for each in (firewall, other, firewall, other)]
        for process in both:
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (0, "")
        found = trial.check_whole(trial.of(OLD), trial.of(NEW))
        assert firewall.status()["policy"] == str(firewall.path if found == trial.of(OLD) else other.path)
        assert firewall.status()["intact"]
        trial.check_tidy()


def without(firewall: Firewall, folder: Path, programs_left: list[str], *words: str | Path) -> list[str]:
    """`pfw` on a machine that has no other programs than these; what they are elsewhere is not changed."""
    folder.mkdir()
    for name in programs_left:
        path = programs.find(name)
        assert path is not None
        (folder / name).symlink_to(path)
    code = (
        f"import sys; from pfw.drivers import programs; programs._PATH = {str(folder)!r}; from pfw.main import main; "
    )
    command: list[str] = firewall.at.command(sys.executable, "-P", "-c", code + "sys.exit(main(sys.argv[1:]))", *words)
    return command


def timeless(listed: str) -> str:
    """A ruleset without what only counts and runs out."""
    listed = re.sub(r"set hits \{.*?\n\t\}", "", listed, flags=re.DOTALL)
    return re.sub(r"packets \d+ bytes \d+|expires \w+", "", listed)


IPTABLES = ["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"]


@pytest.mark.parametrize(
    ("left", "backend", "said"),
    [
        ([], "auto", "nothing here can filter: nftables: the program nft is not there"),
        ([], "nftables", "the program nft is not there; install it with: apt-get install nftables"),
        (["nft"], "iptables", "the program iptables-restore is not there; install it with: apt-get install iptables"),
        (["nft", *IPTABLES], "iptables", "the program ipset is not there"),
        (["ipset", *IPTABLES[:2]], "auto", "the program ip6tables-restore is not there"),
    ],
)
@on("nftables")
def test_programs_that_are_not_there(trial: Trial, tmp_path: Path, left: list[str], backend: str, said: str) -> None:
    firewall = trial.firewall
    firewall.write(new_policy())
    words = without(firewall, tmp_path / "bin", left, "up", "--rules", firewall.path, "--backend", backend)
    done = firewall.run(words, status=3)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert firewall.ours() == ""
    assert trial.open_ports() == trial.of(OLD, NEW)


@on("nftables")
def test_the_program_goes_while_a_policy_is_in_force(trial: Trial, tmp_path: Path) -> None:
    firewall = trial.firewall
    firewall.up(old_policy())
    before = timeless(firewall.ours())
    firewall.write(new_policy())
    done = firewall.run(without(firewall, tmp_path / "bin", [], "up", "--rules", firewall.path), status=3)
    assert "the program nft is not there" in done.stderr
    assert timeless(firewall.ours()) == before
    assert trial.open_ports() == trial.of(OLD)


@on("nftables")
def test_a_kernel_that_lacks_something(trial: Trial) -> None:
    firewall = trial.firewall
    firewall.write(new_policy())
    code = (
        "import sys; from pfw.daemon import nftables; from pfw.main import main; "
        "nftables._PROBE = nftables._PROBE.replace('reject with tcp reset', 'reject with nonsense'); "
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["up", "--rules", str(firewall.path), "--backend", "nftables"]
    done = firewall.run(firewall.at.command(sys.executable, "-P", "-c", code, *words), status=3)
    assert done.stderr.startswith(
        "pfw: nftables cannot be used here: this kernel's nftables lacks what is needed (nft: "
    )
    assert len(done.stderr.splitlines()) == 1
    assert firewall.ours() == ""
    assert trial.open_ports() == trial.of(OLD, NEW)


@on("nftables")
def test_state_that_is_broken(trial: Trial) -> None:
    """Files of the state that hold nonsense are told of and do no harm."""
    firewall = trial.firewall
    firewall.up(old_policy())
    for name in ("bans.json", "pending.json", "current", *(f"generations/{each}.json" for each in range(1, 4))):
        (firewall.state / name).write_bytes(b'{"nonsense": ')
    said = firewall.pfw("status", "--json", status=None)
    assert json.loads(said.stdout)["active"], (said.stdout, said.stderr)
    firewall.up(new_policy())
    assert trial.open_ports() == trial.of(NEW)
    trial.check_tidy()
