"""Who is logged in is not banned; who only asks to be let in is nobody. With a real sshd."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pfw.daemon import machine
from pfw.drivers import procfs
from pfw.model.address import parse_address

SSHD = "/usr/sbin/sshd"
WHOSE = "of somebody who is logged in"


@pytest.fixture
def served(pair: SimpleNamespace, net: Any, tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """An sshd at `here`, and how to start a client of it at `there`."""
    if not (os.path.exists(SSHD) and shutil.which("ssh")):
        pytest.skip("needs sshd and ssh")
    os.makedirs("/run/sshd", exist_ok=True)
    for name in ("host", "mine"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    settings = {
        "UsePAM": "no", "PidFile": "none", "StrictModes": "no", "PermitRootLogin": "yes",
        "AuthorizedKeysFile": tmp_path / "mine.pub",
    }  # fmt: skip
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    words = pair.here.command(SSHD, "-D", "-e", "-f", "/dev/null", "-h", tmp_path / "host", *options)
    server = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    known = ("-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    try:
        net.wait_until(lambda: ":22 " in pair.here.run("ss", "-Hltn").stdout, "sshd listens")
        yield lambda *words: pair.there.command("ssh", *known, "-i", tmp_path / "mine", *words, f"root@{net.here}")
    finally:
        server.terminate()
        server.wait()


def is_kept(pair: SimpleNamespace, address: str) -> bool:
    kept = dict(pair.here.call(machine.protected))
    return parse_address(address) in kept[WHOSE]


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-nobody\r\n"])
def test_who_only_connects_is_not_kept(pair: SimpleNamespace, net: Any, served: Any, says: bytes) -> None:
    with pair.there.call(lambda: socket.create_connection((net.here, 22), timeout=5)) as sock:
        assert sock.recv(100).startswith(b"SSH-2.0")
        sock.sendall(says)
        if says:
            assert sock.recv(100)  # its proposal: the process without privileges is there
        assert pair.here.call(procfs.login_inodes)
        assert not is_kept(pair, net.there)


def test_who_has_a_shell_is_kept(pair: SimpleNamespace, net: Any, served: Any) -> None:
    with subprocess.Popen([*served("-T"), "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdin.write(b"there\n")
        shell.stdin.flush()
        assert shell.stdout.readline() == b"there\n"
        assert is_kept(pair, net.there)
        shell.stdin.close()
    net.wait_until(lambda: not is_kept(pair, net.there), "he has gone")


def test_who_has_been_there_for_longer_than_a_login_takes_is_kept(
    pair: SimpleNamespace, net: Any, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tunnel has no process that works for it."""
    with subprocess.Popen(served("-N"), stdin=subprocess.DEVNULL) as tunnel:
        try:
            net.wait_until(lambda: pair.here.call(procfs.login_inodes) and _has_settled(), "the tunnel is there")
            assert not is_kept(pair, net.there)
            monkeypatch.setattr(procfs, "_LOGIN_S", -1.0)
            assert is_kept(pair, net.there)
        finally:
            tunnel.terminate()


def _has_settled() -> bool:
    """Whether no process asks for a password any more."""
    found = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    return "sshd: root" in found and "[net]" not in found and "[accepted]" not in found
