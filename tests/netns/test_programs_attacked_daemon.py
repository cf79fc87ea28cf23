"""The daemon against whoever wants to disturb it, or to be answered by it: prompts, queue, files, interface."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.netns.attacking import (
    NOBODY,
    REACHED,
    STOPPED,
    Arena,
    allow,
    arena,  # noqa: F401
    asked,  # noqa: F401
    asking,
    policy,
    shared,  # noqa: F401
    tmp_path,  # noqa: F401
)
from tests.netns.conftest import THERE
from tests.netns.programs_lab import lab  # noqa: F401

from pfw.api import interface as told
from pfw.api.client import Client
from pfw.api.definition import Nothing
from pfw.api.messages import ApiError
from pfw.daemon.attribution import Attribution
from pfw.drivers import processes
from pfw.drivers.labels import Labels, Owner, find
from pfw.engine.prompts import PROMPTS_MAX, SHARE
from pfw.model.program import Certainty
from pfw.wire.sockdiag import DiagSocket

FLOOD = 2 * PROMPTS_MAX
OWN_MAX = int(PROMPTS_MAX * SHARE)
FIRST_PORT = 10000
"""Where a flood begins (attacks.c)."""
KNOWN_S = 1.0
"""So long a connection may take that the kernel decides, whatever the daemon is busy with."""


# -- what a person sees


def test_a_name_that_would_steer_a_terminal(asked: Arena) -> None:  # noqa: F811
    """It stands in `pfw ask --list` on one line, with nothing in it that a terminal obeys; it is no rule, since with
    its star it would be one about others, but can be answered for a time, whatever is in force then."""
    evil = asked.copy("own/x\x1b[2J\x07\n\u202e7 allow own u9 *")
    with asked.lab.watching(), asked.lab.start(evil, "fetch", THERE, "9999") as process:
        prompt = prompt_about(asked, 9999)
        listed = asked.lab.pfw("ask", "--list").stdout
        with pytest.raises(ApiError, match="other programs"):
            asked.lab.answer(prompt.id, "allow", "always", "anywhere")
        process.kill()
        asked.lab.answer(prompt.id, "allow", "time", "anywhere", 600)
        with caller(asked) as client:
            client.call("Reload", Nothing(), told.ReloadResult)
        assert asked.attack(evil, "fetch") == REACHED
    assert "7 allow own u9 *" in listed
    assert all(line.isprintable() for line in listed.split("\n"))
    assert not any(line.startswith("7 allow") for line in listed.splitlines())


def test_a_path_that_is_not_proven_is_not_shown_as_one(asked: Arena) -> None:  # noqa: F811
    """A program that was mounted over an allowed one asks: there is no path in its prompt."""
    with asked.lab.watching():
        script = 'mount --bind "$1" "$2" && exec "$2" flood "$3" 1 0 1'
        words = ["unshare", "-Urm", "sh", "-c", script, "sh", str(asked.evil), str(asked.good), THERE]
        assert asked.lab.run(*words).returncode == REACHED
        prompt = prompt_about(asked, FIRST_PORT)
        assert prompt.program is None or prompt.program.path is None


# -- floods


def test_a_flood_of_prompts(asked: Arena) -> None:  # noqa: F811
    """One program asks for thousands of other ends: known programs are not held up, others are asked about, and what is
    kept is bounded."""
    with asked.lab.watching():
        assert asked.attack(asked.evil, "flood", "0", str(FLOOD)) == REACHED
        began = time.monotonic()
        assert asked.attack(asked.good, "fetch") == REACHED
        assert time.monotonic() - began < KNOWN_S
        asked.lab.until(lambda: waiting(asked, asked.evil) >= OWN_MAX, "as many wait as may")
        assert len(asked.lab.prompts()) <= 2 * PROMPTS_MAX
        assert asked.attack(asked.evil, "fetch") == STOPPED
        other = asked.copy("other")
        assert asked.attack(other, "fetch") == STOPPED, "nobody has answered yet"
        found = [each for each in asked.lab.prompts() if each.program and each.program.path == str(other)]
        assert [each.state for each in found] == ["waiting"], "there is room to ask about others"


def test_a_flood_that_nobody_reads(arena: Arena) -> None:  # noqa: F811
    """More than the queue holds, while the daemon stands still: the kernel drops it, and decides the rest as before."""
    arena.lab.up(asking(arena))
    assert arena.lab.daemon is not None
    arena.attack(arena.evil, "fetch")
    before = received(arena)
    arena.lab.daemon.send_signal(signal.SIGSTOP)
    for kind in "01":
        assert arena.attack(arena.evil, "flood", kind, "6000") == REACHED
    began = time.monotonic()
    assert arena.attack(arena.good, "fetch") == REACHED
    assert time.monotonic() - began < KNOWN_S
    assert received(arena) == before
    arena.lab.daemon.send_signal(signal.SIGCONT)
    arena.lab.until(lambda: counts(arena)["dropped_queue_full"] > 0, "the daemon reads what is left")
    assert arena.attack(arena.good, "fetch") == REACHED
    assert received(arena) == before


# -- numbers that come again


def test_a_process_of_the_same_number(shared: Arena) -> None:  # noqa: F811
    """What the kernel noted of a process is not said of a later one, nor of another program that it has begun."""
    with shared.lab.start(shared.good, "idle") as process:
        pinned = find(shared.lab.runtime / "bpf")
        assert pinned is not None
        try:
            shared.lab.until(lambda: processes.executable(process.pid) == identity(shared.good), "it has begun")
            running = processes.program(process.pid)
            assert running is not None
            real = owner_of(pinned, shared.good, process.pid, running.started)
            assert noted(pinned, real) == str(shared.good)
            assert noted(pinned, replace(real, started=running.started - 500)) is None
            assert noted(pinned, replace(real, file=replace(real.file, inode=real.file.inode + 1))) is None
        finally:
            pinned.close()
            process.kill()


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_a_file_of_the_same_number(arena: Arena, place: str) -> None:  # noqa: F811
    """An allowed program is deleted once the daemon is dead, which held it open, and its inode given to another file.
    The labels are still there: they know the generation of an inode, or a number is not given again."""
    with folder_in(arena, place) as folder:
        allowed = folder / "allowed"
        shutil.copy2(arena.good, allowed)
        arena.lab.up(policy(allow("out", str(allowed))))
        assert arena.attack(allowed, "fetch") == REACHED
        assert arena.lab.daemon is not None
        arena.lab.daemon.kill()
        arena.lab.daemon.wait()
        assert arena.attack(allowed, "fetch") == REACHED
        inode = allowed.stat().st_ino
        allowed.unlink()
        again = None
        for number in range(300):
            again = folder / f"again{number}"
            again.touch()
            if again.stat().st_ino == inode:
                break
        assert again is not None
        shutil.copyfile(arena.evil, again)
        again.chmod(0o755)
        assert (again.stat().st_ino == inode) == (place == "disk")
        assert arena.attack(again, "fetch") == STOPPED


# -- without labels, and on loopback


def test_limit_without_labels_a_socket_can_be_hidden(arena: Arena) -> None:  # noqa: F811
    """Who connected is not noted there: who holds the socket is asked, and one on its way to a process is not seen."""
    arena.lab.up(policy(allow("out", str(arena.good)), default={"in": "block", "out": "block"}), "--no-labels")
    assert arena.attack(arena.evil, "fetch") == STOPPED
    assert arena.attack(arena.evil, "change", arena.good) == STOPPED
    assert arena.attack(arena.evil, "hide", arena.good) == REACHED


def test_loopback_where_the_policy_closes_it(arena: Arena) -> None:  # noqa: F811
    """There rules for programs hold, too. A packet brings along the label of who sent it, which is not that of who
    would receive it."""
    apps = [str(arena.good), f"{arena.folder}/box/*"]
    arena.lab.up(policy(*(allow(way, apps, name=way) for way in ("out", "in")), base={"loopback": False}))
    for listener, program, result in (
        (arena.good, arena.good, REACHED),
        (arena.good, arena.evil, STOPPED),
        (arena.evil, arena.good, STOPPED),
    ):
        with arena.lab.start(listener, "listen", "127.0.0.1", "9100") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            assert arena.attack(program, "fetch", to="127.0.0.1", port=9100) == result
            process.kill()
    # One that listens without a label, and two that send: one with a label, one with the word of the daemon.
    words = (arena.copy("changer"), "change-listening", arena.good)
    with arena.unseen(*words, becomes=arena.good, to="127.0.0.1", port=9101) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        for program in (arena.good, arena.copy("box/new")):
            assert arena.attack(program, "fetch", to="127.0.0.1", port=9101) == STOPPED


# -- files and the interface


def test_others_find_nothing_to_write_and_little_to_read(shared: Arena) -> None:  # noqa: F811
    """State and runtime folder as another user sees them: the socket alone is for everybody."""
    state, run = shared.lab.firewall.state, shared.lab.runtime
    files = [path for top in (state, run) for path in (top, *top.rglob("*"))]
    assert {"labels.json", "daemon.json", "pfw.sock", "programs", "owners"} <= {path.name for path in files}
    kinds = {path: path.lstat().st_mode for path in files}
    with another_user():
        for path, mode in kinds.items():
            if not stat.S_ISSOCK(mode):
                assert not can(path, os.W_OK), path
            if stat.S_ISREG(mode):
                # Who may open a file may take the lock on it, too.
                assert not can(path, os.R_OK), path
        for folder in (state, run / "bpf"):
            with pytest.raises(PermissionError):
                os.listdir(folder)
        for change in (os.unlink, os.rmdir):
            with pytest.raises(PermissionError):
                change(run / "pfw.sock")
        with pytest.raises(PermissionError):
            os.rename(run / "pfw.sock", run / "mine.sock")


def test_others_are_answered_nothing(shared: Arena) -> None:  # noqa: F811
    answer = told.AnswerParameters(id=1, action="allow", lasting="once", scope="exact")
    calls: list[tuple[str, Any, Any]] = [
        ("Prompts", Nothing(), told.PromptsResult),
        ("Answer", answer, told.AnswerResult),
        ("Apps", Nothing(), told.AppsResult),
        ("Connections", Nothing(), told.ConnectionsResult),
        ("Why", told.WhyParameters(path="/usr/bin/curl"), told.WhyResult),
        ("Reload", Nothing(), told.ReloadResult),
    ]
    for method, parameters, result in calls:
        with another_user(), caller(shared) as client, pytest.raises(ApiError, match="PermissionDenied"):
            client.call(method, parameters, result)


def test_others_cannot_keep_root_out(shared: Arena) -> None:  # noqa: F811
    """One user has so many connections and no more, and what he sends without end is not kept."""
    path = str(shared.lab.runtime / "pfw.sock")
    opened = []
    try:
        with another_user():
            for _ in range(100):
                opened.append(socket.socket(socket.AF_UNIX))
                opened[-1].setblocking(False)
                try:
                    opened[-1].connect(path)
                    opened[-1].send(b"{" * 65536)
                except OSError:
                    continue
        assert shared.lab.status_or_none() is not None
        assert shared.attack(shared.good, "fetch") == REACHED
    finally:
        for each in opened:
            each.close()


# -- what the tests need besides


def waiting(arena: Arena, program: Path) -> int:  # noqa: F811
    """How many prompts wait that are of a program, or of nobody: once it has ended, nobody can tell."""
    found = [each.program for each in arena.lab.prompts() if each.state == "waiting"]
    return sum(each is None or each.path == str(program) for each in found)


def prompt_about(arena: Arena, port: int) -> told.Prompt:  # noqa: F811
    """The prompt about a port of the other end, waited for."""
    arena.lab.until(lambda: any(each.port == port for each in arena.lab.prompts()), "somebody is asked")
    return next(each for each in arena.lab.prompts() if each.port == port)


def counts(arena: Arena) -> dict[str, int]:  # noqa: F811
    status = arena.lab.status_or_none()
    return dict(status.counts) if status is not None else {"dropped_queue_full": 0}


def received(arena: Arena) -> int:  # noqa: F811
    """Connections and datagrams for ports of the flood that have come to the other end: they count as refused."""
    lines = [line.split() for line in arena.lab.there.run("cat", "/proc/net/snmp").stdout.splitlines()]
    found = {(line[0], name): number for at, line in enumerate(lines[::2]) for name, number in
             zip(line[1:], lines[2 * at + 1][1:], strict=True)}  # fmt: skip
    return int(found["Udp:", "NoPorts"]) + int(found["Tcp:", "OutRsts"])


def identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def owner_of(pinned: Labels, path: Path, pid: int, started: int) -> Owner:
    """What the kernel notes of a process that runs this file."""
    descriptor = os.open(path, os.O_PATH)
    try:
        file = pinned.identify((descriptor,))[descriptor]
    finally:
        os.close(descriptor)
    return Owner(file, pid, started, 0, 0, 0, 0, "good")


def noted(pinned: Labels, owner: Owner) -> str | None:
    """The path that is found for the owner of a socket of which the kernel noted this."""

    class Noted:
        identify = pinned.identify

        def owner(self, cookie: int) -> Owner:
            del cookie
            return owner

    attribution = Attribution(Noted())  # type: ignore[arg-type]
    try:
        found = attribution.of_socket(any_socket())
    finally:
        attribution.close()
    assert found.certainty is Certainty.LABEL
    assert found.program is not None
    return found.program.path


def any_socket() -> DiagSocket:
    from pfw.drivers.sockets import all_sockets

    with socket.create_server(("127.0.0.1", 0)):
        return next(each for _, each, _ in all_sockets())


@contextmanager
def folder_in(arena: Arena, place: str) -> Iterator[Path]:  # noqa: F811
    """A folder on a disk, or in memory."""
    if place == "disk":
        yield arena.own
        return
    folder = Path("/dev/shm") / arena.folder.name
    folder.mkdir(mode=0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def another_user() -> Iterator[None]:
    """What this process does meanwhile, a plain user does."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def caller(arena: Arena) -> Client:  # noqa: F811
    return Client(arena.lab.runtime / "pfw.sock")


def can(path: Path, how: int) -> bool:
    return os.access(path, how, effective_ids=True)
