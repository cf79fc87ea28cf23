"""Processes and who is logged in, as /proc and the record of logins tell."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from pfw.drivers import procfs


def test_ancestors_begin_with_this_process_and_end_with_the_first():
    found = procfs.ancestors()
    assert found[:2] == [os.getpid(), os.getppid()]
    assert len(found) == len(set(found))


def test_a_program_whose_name_is_full_of_brackets(tmp_path):
    name = ") 1 (x) y ("
    code = (
        f"import ctypes, sys; ctypes.CDLL(None).prctl(15, {name.encode()!r}); print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert procfs._parent(process.pid) == os.getpid()
        process.stdin.close()


def test_sockets_of_a_process():
    with socket.socket() as sock:
        assert os.fstat(sock.fileno()).st_ino in procfs.socket_inodes(os.getpid())
    assert procfs.socket_inodes(2**22 + 1) == set()


def test_variables_as_they_were_at_the_start():
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env={"SSH_CONNECTION": "a b", "X": ""}) as process:
        # Popen returns when the old program has gone, which is before the new one's variables are there.
        while procfs.variable(process.pid, "X") != "":
            assert process.poll() is None
        assert procfs.variable(process.pid, "SSH_CONNECTION") == "a b"
        assert procfs.variable(process.pid, "SSH") is None
        process.stdin.close()


def _record(kind: int, address: bytes) -> bytes:
    return procfs._UTMP_RECORD.pack(kind, 1, b"pts/0", b"0", b"alice", b"host", 0, 0, 0, 0, 0, address, b"")


def test_logins(tmp_path, monkeypatch):
    four, six = bytes([203, 0, 113, 7]) + bytes(12), bytes.fromhex("20010db8") + bytes(11) + b"\1"
    path = tmp_path / "utmp"
    path.write_bytes(
        _record(7, four) + _record(8, bytes([9] * 16)) + _record(7, bytes(16)) + _record(7, six) + b"cut off"
    )
    monkeypatch.setattr(procfs, "_UTMP", (tmp_path / "none", path))
    assert procfs.logged_in_from() == {bytes([203, 0, 113, 7]), six}


def test_resolvers(monkeypatch, tmp_path):
    text = "# nameserver 9.9.9.9\nnameserver 192.0.2.53\n  nameserver 2001:db8::53 # x\nnameserver fe80::1%eth0\n"
    (tmp_path / "resolv.conf").write_text(text)
    monkeypatch.setattr(procfs, "Path", lambda path: tmp_path / Path(path).name)
    assert procfs.resolvers() == {"192.0.2.53", "2001:db8::53", "fe80::1"}


def test_units(tmp_path, monkeypatch):
    (tmp_path / "system.slice" / "ssh.service").mkdir(parents=True)
    monkeypatch.setattr(procfs, "_cgroup_root", lambda: tmp_path)
    assert procfs.unit_path("ssh.service") == "system.slice/ssh.service"
    assert procfs.unit_path("/system.slice/ssh.service") == "system.slice/ssh.service"
    assert procfs.unit_path("system.slice") == "system.slice"
    assert procfs.unit_path("no.service") is None
    assert procfs.unit_path("a/no.service") is None
    assert procfs.unit_path("/") is None
