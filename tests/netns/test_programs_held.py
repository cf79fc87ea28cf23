"""The files that the daemon holds, against whoever may write them: what they hold, what keeps the daemon waiting, and
what it would keep for nobody."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.netns.attacking import (
    NOBODY,
    REACHED,
    STOPPED,
    Arena,
    allow,
    arena,  # noqa: F401
    as_user,
    asking,
    policy,
    tmp_path,  # noqa: F401
)
from tests.netns.conftest import THERE
from tests.netns.programs_lab import WEB, lab  # noqa: F401

from pfw.drivers import contents
from pfw.drivers.processes import Identity, executable


def identity(path: Path) -> Identity:
    found = path.stat()
    return found.st_dev, found.st_ino


def held(arena: Arena) -> dict[Identity, str]:  # noqa: F811
    """The files that the daemon has open, with what the kernel calls them."""
    assert arena.lab.daemon is not None
    found = {}
    folder = Path(f"/proc/{arena.lab.daemon.pid}/fd")
    for each in list(folder.iterdir()):
        try:
            found[identity(each)] = os.readlink(each)
        except OSError:
            continue
    return found


def wait_for_a_look(arena: Arena) -> None:  # noqa: F811
    """Until the daemon has looked at all paths again: a file comes to be where the policy names one."""
    witness = arena.copy("witness")
    arena.lab.until(lambda: identity(witness) in held(arena), "the daemon looks again")


def sealed_of(arena: Arena) -> tuple[Path, dict[str, Any]]:  # noqa: F811
    """A program of a plain user, and a policy that lets its content out."""
    sealed = arena.copy("own/sealed")
    with open(sealed, "rb") as file:
        if contents._file_system(file.fileno()) in contents._UNTOLD:
            pytest.skip("only root's files count on this file system")
    os.chown(sealed, NOBODY, NOBODY)
    sha256 = hashlib.sha256(sealed.read_bytes()).hexdigest()
    return sealed, policy(
        allow("out", {"path": str(sealed), "sha256": sha256}), allow("out", f"{arena.folder}/witness")
    )


MAPS = """
import mmap, os, shutil, sys
program, path = sys.argv[1:]
shutil.copy2(program, path + ".new")
os.rename(path + ".new", path)
file = open(path, "r+b")
mapped = mmap.mmap(file.fileno(), 0)
file.close()
at = mapped.find(b"give-datagrams")
mapped[at:at + 1] = mapped[at:at + 1]
print(os.stat(path).st_ctime_ns, flush=True)
for words in sys.stdin:
    mapped[at:at + 14] = words.encode()[:14]
    mapped.close()
    print(os.stat(path).st_ctime_ns, flush=True)
"""


def test_writing_what_is_mapped(arena: Arena) -> None:  # noqa: F811
    """A page that was written once is written again without a sign. So nothing is proven of a file as long as somebody
    could do that."""
    sealed, wanted = sealed_of(arena)
    arena.lab.up(wanted)
    arena.lab.until(lambda: arena.attack(sealed, "fetch") == REACHED, "its content is known")
    words: list[str | Path] = [*as_user(NOBODY), sys.executable, "-c", MAPS, arena.good, sealed]
    with arena.lab.start(*words, stdin=-1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        before = process.stdout.readline()
        arena.lab.until(lambda: identity(sealed) in held(arena), "the daemon knows the new file")
        print("other content!", file=process.stdin, flush=True)
        assert process.stdout.readline() == before, "nothing shows that it was written"
        process.stdin.close()
    assert b"other content!" in sealed.read_bytes()
    assert arena.attack(sealed, "fetch") == STOPPED
    wait_for_a_look(arena)
    assert arena.attack(sealed, "fetch") == STOPPED
    sealed.write_bytes(arena.good.read_bytes())
    arena.lab.until(lambda: arena.attack(sealed, "fetch") == REACHED, "its content is known again")


@pytest.mark.parametrize("kind", ["pipe", "sparse"])
def test_what_cannot_be_read_at_a_path_of_the_policy(arena: Arena, kind: str) -> None:  # noqa: F811
    """The daemon goes on, and so does who puts a policy in force."""
    sealed, wanted = sealed_of(arena)
    arena.lab.up(wanted)
    script = 'rm "$1" && mkfifo "$1"' if kind == "pipe" else 'truncate -s 7T "$1"'
    done = arena.lab.run(*as_user(NOBODY), "sh", "-c", script, "sh", sealed)
    assert (done.returncode, done.stderr) == (0, "")
    wait_for_a_look(arena)
    assert arena.lab.status_or_none() is not None
    arena.lab.firewall.write({**wanted, "default": {"in": "block", "out": "reject"}})
    arena.lab.pfw("up", "--rules", str(arena.lab.firewall.path))
    assert arena.lab.end() == 0


IN_MEMORY = """
import os, sys
program = os.memfd_create("hidden")
os.write(program, open(sys.argv[1], "rb").read())
os.execve(program, ["hidden", *sys.argv[2:]], {})
"""


def test_a_program_in_memory_is_let_go(arena: Arena) -> None:  # noqa: F811
    """It is known as long as it runs, and is memory of nobody behind that."""
    wanted = asking(arena)
    arena.lab.up({**wanted, "rules": [*wanted["rules"], allow("out", f"{arena.folder}/witness")]})

    def is_held() -> bool:
        return any("memfd:hidden" in name for name in held(arena).values())

    words: list[str | Path] = [sys.executable, "-c", IN_MEMORY, arena.evil, "fetch", THERE, str(WEB)]
    with arena.lab.watching(), arena.lab.start(*as_user(NOBODY), *words) as process:
        arena.lab.until(is_held, "the daemon knows the program")
        process.send_signal(signal.SIGSTOP)
        for _ in range(3):
            wait_for_a_look(arena)
        assert is_held()
        process.kill()
    arena.lab.until(lambda: not is_held(), "the daemon lets it go")


def test_a_disk_is_let_go(arena: Arena) -> None:  # noqa: F811
    """From which a program ran that no rule names."""
    arena.lab.up(policy(allow("out", str(arena.good))))
    place = arena.folder / "disk"
    place.mkdir()
    script = (
        'mount -t tmpfs none "$1" && cp "$2" "$1/program" && "$1/program" fetch "$3" "$4"; '
        'until umount "$1"; do sleep 0.2; done'
    )
    words: list[str | Path] = ["unshare", "-m", "sh", "-c", script, "sh", place, arena.evil, THERE, str(WEB)]
    assert arena.lab.run(*words).returncode == 0


def test_an_old_file_of_a_path_is_let_go(arena: Arena) -> None:  # noqa: F811
    """As soon as nobody runs it any more. Another one at its path is as good."""
    program = arena.copy("program")
    arena.lab.up(policy(allow("out", str(program)), allow("out", f"{arena.folder}/witness")))
    with arena.lab.start(program, "idle", THERE, str(WEB)) as process:
        old = identity(program)
        arena.lab.until(lambda: executable(process.pid) == old, "it runs")
        process.send_signal(signal.SIGSTOP)
        arena.copy("program")
        for _ in range(3):
            wait_for_a_look(arena)
        assert {old, identity(program)} <= set(held(arena))
        process.kill()
    arena.lab.until(lambda: old not in held(arena), "the daemon lets it go")
    wait_for_a_look(arena)
    assert identity(program) in held(arena)
    assert arena.attack(program, "fetch") == REACHED
