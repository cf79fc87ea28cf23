"""Labels on sockets: the eBPF program of bpf/label.bpf.c, its maps, and what it tells.

All of it is pinned in a folder of bpffs: labels go on being written whether or not anybody of ours runs, and whoever is
root finds the maps there. The layouts of keys and values stand in bpf/label.bpf.c too; they change together.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import IntEnum
from importlib import resources
from pathlib import Path
from struct import Struct as Layout

from msgspec import Struct

from pfw.drivers import libbpf
from pfw.model.program import File

_FILE = Layout("=QII")
_MARK = Layout("=I")
_USER_MARK = Layout("=II")
_COOKIE = Layout("=Q")
_OWNER = Layout("=QIIQQIIII16s")
_MISS = Layout("=QIIII")
_IDENTITY = Layout("=QIII4x")
_NUMBER = Layout("=I")
_CONNECTION = Layout("=Q16s16sHHI")
_SO_NETNS_COOKIE = 71
_IS_CHANGING = 1 << 31
"""The bits of a user or group that get others: no label is made of them."""
_MISSES_MAX = 4096
_TICKS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class _Setting(IntEnum):
    """Each is written by itself, by the daemon or a command."""

    MASK = 0
    USER_BITS = 1
    DAEMON = 2


class Owner(Struct, frozen=True, gc=False):
    """Who used a socket last, as the kernel noted it: `started` in clock ticks after boot, `cgroup` the number of
    its control group."""

    file: File
    pid: int
    started: int
    uid: int
    gid: int
    cgroup: int
    mark: int
    name: str


class Miss(Struct, frozen=True, gc=False):
    """A program without a label made a socket."""

    file: File
    pid: int
    uid: int


def usable() -> str | None:
    """Why there can be no labels on this machine; None where nothing speaks against them."""
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "this kernel does not tell of its own types (no BTF), which the labels' program needs"
    try:
        libbpf.library()
    except OSError as error:
        return str(error.strerror)
    return None


def root_cgroup() -> Path | None:
    """Where cgroup v2 is mounted; None where it is not."""
    with suppress(OSError), open("/proc/self/mounts", errors="replace") as file:
        for line in file:
            words = line.split()
            if len(words) > 2 and words[2] == "cgroup2":
                return Path(words[1].encode().decode("unicode_escape"))
    return None


class Labels:
    """The labels' maps, pinned in a folder. Raises OSError for what the kernel refuses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._settings = libbpf.Map(folder / "settings", _NUMBER.size, _NUMBER.size)
        self._programs = libbpf.Map(folder / "programs", _FILE.size, _MARK.size)
        self._users = libbpf.Map(folder / "user_bits", _MARK.size, _MARK.size)
        self._groups = libbpf.Map(folder / "group_bits", _MARK.size, _MARK.size)
        self._user_marks = libbpf.Map(folder / "user_marks", _USER_MARK.size, _MARK.size)
        self._foreign = libbpf.Map(folder / "foreign", _MARK.size, 1)
        self._owners = libbpf.Map(folder / "owners", _COOKIE.size, _OWNER.size)
        self._connecting = libbpf.Map(folder / "connecting", _CONNECTION.size, _OWNER.size)
        self._ring: libbpf.RingBuffer | None = None
        self._misses: list[Miss] = []

    @property
    def mask(self) -> int:
        """The bits of a mark that are the label's."""
        return int(_NUMBER.unpack(self._settings.get(_NUMBER.pack(_Setting.MASK)) or bytes(4))[0])

    def put_programs(self, marks: Mapping[File, int]) -> None:
        """From now on sockets of these programs carry these marks."""
        for file, mark in marks.items():
            self._programs.put(_key(file), _MARK.pack(mark))

    def remove_programs(self, files: Iterable[File]) -> None:
        for file in files:
            self._programs.remove(_key(file))

    def programs(self) -> dict[File, int]:
        """The marks of all programs that are known."""
        found = {}
        for key in self._programs.all_keys():
            value = self._programs.get(key)
            if value is not None:
                inode, device, generation = _FILE.unpack(key)
                found[File(device, inode, generation)] = int(_MARK.unpack(value)[0])
        return found

    def put_users(
        self, users: Mapping[int, int], groups: Mapping[int, int], marks: Mapping[tuple[int, int], int]
    ) -> None:
        """Bits of users and groups by their numbers, and the mark that a program's becomes with such bits."""
        tables = ((self._users, users), (self._groups, groups))
        for table, wanted_bits in tables:
            # The same bits may mean somebody else from now on: no socket may get the label of that.
            for key in table.all_keys():
                if table.get(key) != _NUMBER.pack(wanted_bits.get(_NUMBER.unpack(key)[0], 0)):
                    table.put(key, _NUMBER.pack(_IS_CHANGING))
        for (mark, bits), wanted in marks.items():
            self._user_marks.put(_USER_MARK.pack(mark, bits), _MARK.pack(wanted))
        for table, wanted_bits in tables:
            for key in table.all_keys():
                if _NUMBER.unpack(key)[0] not in wanted_bits:
                    table.remove(key)
            for number, bits in wanted_bits.items():
                table.put(_NUMBER.pack(number), _NUMBER.pack(bits))
        self._set(_Setting.USER_BITS, int(bool(users or groups)))

    def put_foreign(self, marks: Iterable[int]) -> None:
        """Whole marks by which others route: sockets that carry one get no label."""
        wanted = set(marks) - {0}
        for key in self._foreign.all_keys():
            if _MARK.unpack(key)[0] not in wanted:
                self._foreign.remove(key)
        for mark in wanted:
            self._foreign.put(_MARK.pack(mark), b"\1")

    def owner(self, cookie: int) -> Owner | None:
        """Who used the socket with this cookie last; None for one that is gone, or was there before the labels."""
        value = self._owners.get(_COOKIE.pack(cookie))
        return None if value is None else _owner(value)

    def take_connecting(
        self, namespace: int, source: bytes, source_port: int, destination: bytes, port: int
    ) -> Owner | None:
        """Who began a TCP connection from here lately, to be asked once: None for one that is known no more, or was not
        begun by connect(2). `namespace` is that of the network (`network_namespace`)."""
        family = socket.AF_INET if len(source) == 4 else socket.AF_INET6
        value = self._connecting.take(_CONNECTION.pack(namespace, source, destination, source_port, port, family))
        return None if value is None else _owner(value)

    def identify(self, descriptors: Iterable[int]) -> dict[int, File]:
        """How the kernel calls the files behind these descriptors of ours."""
        wanted = set(descriptors)
        found: dict[int, File] = {}
        program = libbpf.get(self.folder / "pfw_identify")
        try:
            told = libbpf.iterate(program)
        finally:
            os.close(program)
        for inode, device, generation, descriptor in _IDENTITY.iter_unpack(told):
            if descriptor in wanted:
                found[descriptor] = File(device, inode, generation)
        return found

    def listen(self) -> int:
        """Begin to hear of programs without a label; what becomes readable when there are some."""
        if self._ring is None:
            self._ring = libbpf.RingBuffer(self.folder / "misses", self._take)
        return self._ring.fileno()

    def misses(self) -> list[Miss]:
        """Programs without a label that made sockets since the last call."""
        if self._ring is not None:
            self._ring.consume()
        found, self._misses = self._misses, []
        return found

    def close(self) -> None:
        if self._ring is not None:
            self._ring.close()
        for each in (self._settings, self._programs, self._users, self._groups, self._user_marks, self._foreign,
                     self._owners, self._connecting):  # fmt: skip
            each.close()

    def _take(self, data: bytes) -> None:
        if len(data) >= _MISS.size and len(self._misses) < _MISSES_MAX:
            inode, device, generation, pid, uid = _MISS.unpack_from(data)
            self._misses.append(Miss(File(device, inode, generation), pid, uid))

    def _set(self, setting: _Setting, number: int) -> None:
        self._settings.put(_NUMBER.pack(setting), _NUMBER.pack(number))

    def admit(self, pid: int) -> None:
        """Let a process write labels by itself, with SO_MARK; before it, another one might."""
        self._set(_Setting.DAEMON, pid)

    def begin(self, mask: int) -> None:
        """Say which bits are the label's, before any program has one."""
        self._set(_Setting.MASK, mask)


def network_namespace() -> int:
    """The kernel's number of the network namespace of the thread that asks. Raises OSError."""
    with socket.socket() as sock:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)


def _owner(value: bytes) -> Owner:
    inode, device, generation, started_ns, cgroup, pid, uid, gid, mark, name = _OWNER.unpack(value)
    text = name.partition(b"\0")[0].decode(errors="backslashreplace")
    return Owner(File(device, inode, generation), pid, started_ns // _TICKS, uid, gid, cgroup, mark, text)


def attach(bpffs: Path, cgroup: Path, mask: int) -> Labels:
    """The labels of a control group, those that are there already if they are the same: the same program, control
    group and mask. Others that are pinned there go. Raises OSError."""
    content = resources.files("pfw.drivers").joinpath("label.bpf.o").read_bytes()
    identity = f"{os.stat(cgroup).st_ino}:{mask:#x}:".encode() + content
    name = f"labels_{hashlib.sha256(identity).hexdigest()[:16]}"
    folder = bpffs / name
    if not (folder / "complete").exists():
        _load(content, folder, cgroup, mask)
    labels = Labels(folder)
    detach(bpffs, kept=name)
    return labels


def _load(content: bytes, folder: Path, cgroup: Path, mask: int) -> None:
    _remove(folder)
    folder.mkdir(mode=0o700)
    try:
        descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            libbpf.load(content, descriptor, folder)
        finally:
            os.close(descriptor)
        labels = Labels(folder)
        labels.begin(mask)
        labels.close()
        (folder / "complete").mkdir()  # bpffs holds no plain files
    except OSError:
        _remove(folder)
        raise


def find(bpffs: Path) -> Labels | None:
    """The labels that are pinned there; None where there are none."""
    with suppress(OSError):
        for folder in sorted(bpffs.glob("labels_*")):
            if (folder / "complete").exists():
                return Labels(folder)
    return None


def detach(bpffs: Path, kept: str | None = None) -> bool:
    """Take the labels away: no socket gets one any more. Whether there were any. Raises OSError."""
    there = [folder for folder in bpffs.glob("labels_*") if folder.name != kept]
    for folder in there:
        _remove(folder)
    return bool(there)


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        for entry in list(folder.iterdir()):
            if entry.is_dir():
                entry.rmdir()
            else:
                entry.unlink()
        folder.rmdir()


def _key(file: File) -> bytes:
    return _FILE.pack(file.inode, file.device, file.generation)


def need_bpffs(path: Path) -> None:
    """Raises OSError where a folder is not on bpffs."""
    with open("/proc/self/mountinfo", errors="replace") as file:
        mounted = {words[4]: words[words.index("-") + 1] for words in map(str.split, file)}
    best = max((point for point in mounted if path.is_relative_to(point)), key=len, default="/")
    if mounted.get(best) != "bpf":
        raise OSError(errno.ENOTSUP, "is on no bpf file system", str(path))
