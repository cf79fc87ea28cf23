"""Owns the second kernel: Debian's own, in qemu's software emulation, with the running root file system under it.

    tools/vm.py [--timeout SECONDS] COMMAND…

Rule 1: the machine stays as it is. Packages are unpacked in a cache folder (PFW_VM_CACHE, else ~/.cache/pfw-vm), the
guest sees all files over 9p, read-only, and writes to its memory. Only qemu and kmod are installed, by Debian's tool.
Rule 2: what the command wrote comes back as it is written, its exit status is the exit status, and no qemu is left
behind, whatever ends this. Where there cannot be a second kernel one line says why, and the exit status is 77.

What a ruleset needs the guest's kernel must find by itself, as it must on a user's machine: no module of netfilter is
loaded but that of connection tracking, whose settings tests change before any rule needs it.
Variables whose names begin with PFW_ go into the guest; there PFW_IN_VM is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import lzma
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

EXIT_TIMED_OUT = 124
EXIT_GUEST_DIED = 70
EXIT_NO_KERNEL = 77

QEMU = "qemu-system-x86_64"
PROGRAMS = {QEMU: "qemu-system-x86", "depmod": "kmod"}
NEWEST_KERNEL = "linux-image-amd64"
SHELL_OF_START = "busybox-static"
MODULES_OF_START = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""What Debian's kernel needs before it sees a file over 9p and can lay the writes of the guest above it."""

MODULES_OF_TESTS = "nf_conntrack tun"

MEMORY = "1G"
CPUS = 2
TIMEOUT_S = 1800.0
POLL_S = 0.1
PR_SET_PDEATHSIG = 1

# `loose` may keep what it has read: 9p without it asks for every file again, and Python opens thousands.
READ_ONLY_9P = "ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose"
SHARED_9P = "rw,trans=virtio,version=9p2000.L,msize=512000,cache=none"
# A second spent on what protects a processor from its programs would be a second of emulation.
KERNEL_ARGUMENTS = "console=ttyS0 loglevel=5 panic=-1 mitigations=off nokaslr random.trust_cpu=on audit=0 apparmor=0"
TROUBLE = re.compile(r"(?:BUG|WARNING|Oops|Kernel panic|general protection fault|Call Trace)\b.*")

# The first program, in the initial file system. The root is moved to its place by `switch_root`, for a program in a
# mere chroot may not make user namespaces.
FIRST = """\
#!/bin/busybox sh
b=/bin/busybox
for module in {modules}; do $b insmod /modules/$module; done
$b mount -t 9p -o {read_only} host /host
$b mount -t 9p -o {shared} shared /shared
$b mount -t tmpfs -o mode=755,size=75% writes /writes
$b mkdir /writes/upper /writes/work
$b mount -t overlay -o lowerdir=/host,upperdir=/writes/upper,workdir=/writes/work root /root
$b mount -t tmpfs -o mode=755 run /root/run
$b mkdir /root/run/pfw-vm
$b mount --move /shared /root/run/pfw-vm
exec $b switch_root /root /bin/sh /run/pfw-vm/start
"""

# The second one, on the machine's own root. Linux 6.1 has one limit for errors of ICMP for all namespaces, so that
# a test cannot set its own; how many connections there may be goes by memory, which is short here. The end is a restart
# that qemu does not go along with: that needs no ACPI.
START = """\
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /run/lock /lib/modules /tmp/pfw-vm
exec </dev/null >/run/pfw-vm/output 2>&1
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs temporary /tmp/pfw-vm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind {modules} /lib/modules
ip link set lo up
modprobe -a {needed}
echo 100000 >/proc/sys/net/ipv4/icmp_msgs_per_sec
echo 10000 >/proc/sys/net/ipv4/icmp_msgs_burst
echo 262144 >/proc/sys/net/netfilter/nf_conntrack_max
export TMPDIR=/tmp/pfw-vm {variables}
cd {folder} && {command}
echo $? >/run/pfw-vm/status
echo b >/proc/sysrq-trigger
sleep 60
"""


class NoKernelError(Exception):
    """Why there cannot be a second kernel here, as one line."""


class Kernel(NamedTuple):
    """Debian's kernel, unpacked."""

    image: Path
    modules: Path

    @classmethod
    def found_in(cls, package: Path) -> Kernel:
        images = sorted(package.glob("boot/vmlinuz-*"))
        modules = [path for top in ("lib", "usr/lib") for path in package.glob(f"{top}/modules/*") if path.is_dir()]
        if not images or not modules:
            raise NoKernelError(f"no kernel is in {package}; remove that folder and try again")
        return cls(images[0], modules[0])


# --- what Debian provides ---------------------------------------------------------------------------------------------


def cache_folder(environment: Mapping[str, str]) -> Path:
    if chosen := environment.get("PFW_VM_CACHE"):
        return Path(chosen).absolute()
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pfw-vm"


def make_folder(cache: Path) -> None:
    """Raises NoKernelError where it cannot be made."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoKernelError(f"{cache}: {error.strerror}; PFW_VM_CACHE names another folder") from None


def provide_programs() -> None:
    """Raises NoKernelError where one is missing and cannot be installed."""
    if platform.machine() != "x86_64":
        raise NoKernelError(f"the second kernel is for x86_64, this is {platform.machine()}")
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        command = f"sudo apt-get install --no-install-recommends {' '.join(missing)}"
        raise NoKernelError(f"a program is missing; type: {command}")
    say(f"installing the Debian packages {' '.join(missing)}")
    install = ("apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=60", *missing)
    if not runs(install) and not (runs(("apt-get", "update")) and runs(install)):
        raise NoKernelError(f"apt-get cannot install {' '.join(missing)}")


def provide_packages(cache: Path, lock: int) -> tuple[Kernel, Path]:
    """The newest kernel that Debian has and the shell of its start. The cache stays locked against being changed."""
    wanted = _wanted_packages()
    folders = [cache / f"{name}_{version}" for name, version in wanted]
    fcntl.flock(lock, fcntl.LOCK_SH)
    if not all(folder.exists() for folder in folders):
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for every guest that runs on what may be removed
        for (name, version), folder in zip(wanted, folders, strict=True):
            if not folder.exists():
                _unpack(cache, name, version, folder)
        for old in cache.glob("*_*"):
            if old not in folders:
                shutil.rmtree(old)
        fcntl.flock(lock, fcntl.LOCK_SH)
    return Kernel.found_in(folders[0]), folders[1] / "bin" / "busybox"


def _wanted_packages() -> list[tuple[str, str]]:
    for _ in range(2):
        described = _described(NEWEST_KERNEL)
        depends = re.search(r"\b(linux-image-[0-9][^ ,]*)", described.get("Depends", ""))
        if depends:
            return [(name, _described(name)["Version"]) for name in (depends[1], SHELL_OF_START)]
        if os.geteuid() != 0 or not runs(("apt-get", "update")):  # the lists of a fresh machine are empty
            break
    raise NoKernelError(f"apt-get does not know the package {NEWEST_KERNEL}")


def _described(name: str) -> dict[str, str]:
    """The fields of the newest version that apt-get knows."""
    try:
        done = subprocess.run(("apt-cache", "show", "--no-all-versions", name), capture_output=True, text=True)
    except FileNotFoundError:
        raise NoKernelError("the second kernel comes by apt-get, which is not here") from None
    return dict(re.findall(r"^(\S+): (.*)$", done.stdout, re.MULTILINE))


def _unpack(cache: Path, name: str, version: str, folder: Path) -> None:
    say(f"getting {name} {version} (once)")
    with tempfile.TemporaryDirectory(dir=cache) as new:
        # By default another user does the download, who cannot write here.
        download = ("apt-get", "download", "-o", "APT::Sandbox::User=root", f"{name}={version}")
        if not runs(download, new) and not (runs(("apt-get", "update")) and runs(download, new)):
            raise NoKernelError(f"apt-get cannot download {name}")
        (package,) = Path(new).glob("*.deb")
        unpacked = Path(new) / "unpacked"
        subprocess.run(("dpkg-deb", "-x", package, unpacked), check=True)
        for modules in unpacked.glob("lib/modules/*"):
            subprocess.run(("depmod", "-b", unpacked, modules.name), check=True)
        unpacked.rename(folder)


def runs(command: Sequence[str], folder: str | None = None) -> bool:
    """Whether the program, which cannot be asked back, ends well."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
    return done.returncode == 0


# --- what the guest starts with ---------------------------------------------------------------------------------------


def modules_in_order(dependencies: str, names: Sequence[str]) -> list[str]:
    """Paths of the modules of these names and of all that they need, each after what it needs; from `modules.dep`.

    What is not there is built into the kernel.
    """
    needed = dict(line.split(":", 1) for line in dependencies.splitlines() if ":" in line)
    paths = {path.rsplit("/", 1)[-1].split(".")[0]: path for path in needed}
    found: dict[str, None] = {}
    for name in names:
        if path := paths.get(name):
            # depmod writes a module's whole chain, what is needed first standing last
            found |= dict.fromkeys((*reversed(needed[path].split()), path))
    return list(found)


def initial_files(kernel: Kernel, busybox: Path) -> bytes:
    """The archive that the kernel unpacks as its first root."""
    order = modules_in_order((kernel.modules / "modules.dep").read_text(), MODULES_OF_START)
    modules = {}
    for path in order:
        content = (kernel.modules / path).read_bytes()
        name = Path(path).name
        modules[name.removesuffix(".xz")] = lzma.decompress(content) if name.endswith(".xz") else content
    first = FIRST.format(modules=" ".join(modules), read_only=READ_ONLY_9P, shared=SHARED_9P)
    files = {"init": first.encode(), "bin/busybox": busybox.read_bytes()}
    return archive(
        ("bin", "dev", "host", "modules", "root", "shared", "writes"),
        files | {f"modules/{name}": content for name, content in modules.items()},
    )


def archive(folders: Sequence[str], files: Mapping[str, bytes]) -> bytes:
    """A cpio archive of the kind `newc`, as Documentation/driver-api/early-userspace/buffer-format.rst describes it."""
    entries = [(name, 0o040755, b"") for name in folders] + [(name, 0o100755, files[name]) for name in files]
    parts = []
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        numbers = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % each for each in numbers) + name.encode() + b"\0"
        parts += [head, bytes(-len(head) % 4), content, bytes(-len(content) % 4)]
    return b"".join(parts)


def start_script(kernel: Kernel, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> str:
    variables = {name: value for name, value in environment.items() if name.startswith("PFW_")} | {"PFW_IN_VM": "1"}
    return START.format(
        modules=shlex.quote(str(kernel.modules.parent)),
        needed=MODULES_OF_TESTS,
        variables=" ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items()),
        folder=shlex.quote(str(folder)),
        command=shlex.join(command),
    )


# --- the guest --------------------------------------------------------------------------------------------------------


def qemu_command(image: Path, shared: Path) -> list[str]:
    """KVM is never asked for: a machine that is itself a guest may offer one that hangs."""
    return [
        QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", str(CPUS), "-m", MEMORY,
        "-kernel", str(image), "-initrd", str(shared / "initial"), "-append", KERNEL_ARGUMENTS,
        "-serial", f"file:{shared / 'console'}",
        "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        "-virtfs", f"local,path={shared},mount_tag=shared,security_model=none",
    ]  # fmt: skip


@contextlib.contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program, which ends with this one whatever ends it."""
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def die_with_parent() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, preexec_fn=die_with_parent
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run(kernel: Kernel, busybox: Path, command: Sequence[str], timeout_s: float) -> int:
    """Run the command in the guest; its exit status, or one that says how the guest failed."""
    with tempfile.TemporaryDirectory(prefix="pfw-vm-") as name:
        shared = Path(name)
        (shared / "initial").write_bytes(initial_files(kernel, busybox))
        (shared / "start").write_text(start_script(kernel, command, os.environ, ROOT))
        (shared / "output").touch()
        end = time.monotonic() + timeout_s
        with (
            running(qemu_command(kernel.image, shared), shared / "qemu") as process,
            (shared / "output").open("rb") as output,
        ):
            while process.poll() is None and time.monotonic() < end:
                pass_on(output.read())
                time.sleep(POLL_S)
            timed_out = process.poll() is None
            pass_on(output.read())
        return outcome(shared, timed_out, timeout_s)


def outcome(shared: Path, timed_out: bool, timeout_s: float) -> int:
    """What the guest left behind, as an exit status; what its kernel complained of is shown."""
    console = (shared / "console").read_text(errors="replace") if (shared / "console").exists() else ""
    status = (shared / "status").read_text().strip() if (shared / "status").exists() else ""
    if trouble := TROUBLE.search(console):
        say(f"the kernel complained: {trouble[0].strip()}")
    if status.isdecimal():
        return int(status)
    for line in [*(shared / "qemu").read_text(errors="replace").splitlines(), *console.splitlines()][-20:]:
        print(line, file=sys.stderr)
    if timed_out:
        say(f"stopped: the command had not ended after {timeout_s:.0f} seconds")
        return EXIT_TIMED_OUT
    say("the guest died before the command ended; its last words are above")
    return EXIT_GUEST_DIED


def pass_on(written: bytes) -> None:
    sys.stdout.buffer.write(written)
    sys.stdout.buffer.flush()


def say(what: str) -> None:
    print(f"vm: {what}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="vm.py", description="Run a command on Debian's own kernel, in emulation.")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    wanted = parser.parse_args(arguments)
    if not wanted.command:
        parser.error("a command is missing")
    cache = cache_folder(os.environ)
    try:
        provide_programs()
        make_folder(cache)
        with (cache / "lock").open("wb") as lock:
            kernel, busybox = provide_packages(cache, lock.fileno())
            say(f"{kernel.modules.name} on {CPUS} emulated processors")
            return run(kernel, busybox, wanted.command, wanted.timeout)
    except NoKernelError as error:
        say(f"no second kernel: {error}")
        return EXIT_NO_KERNEL


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
