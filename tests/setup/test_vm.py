"""The way to the second kernel, without booting one: what it starts with, what becomes of it, what is left behind."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "vm.py"


@pytest.fixture(scope="module")
def vm() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vm", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts shell scripts before the programs of the machine."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return add


@pytest.fixture
def kernel(vm, tmp_path):
    modules = tmp_path / "lib" / "modules" / "6.1.0"
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/9p.ko.xz:\n")
    (modules / "kernel").mkdir()
    (modules / "kernel" / "9p.ko.xz").write_bytes(vm.lzma.compress(b"a module"))
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "vmlinuz-6.1.0").touch()
    (tmp_path / "busybox").write_bytes(b"a shell")
    return vm.Kernel.found_in(tmp_path)


def test_each_module_comes_after_what_it_needs(vm):
    lines = "k/9p.ko: k/fscache.ko k/netfs.ko k/9pnet.ko\nk/9pnet.ko:\nk/netfs.ko:\nk/fscache.ko: k/netfs.ko\n"
    lines += "k/virtio_pci.ko.xz: k/virtio.ko.xz\nk/virtio.ko.xz:\nk/other.ko:\n"
    assert vm.modules_in_order(lines, ("virtio_pci", "built_in", "9p", "9pnet")) == [
        "k/virtio.ko.xz", "k/virtio_pci.ko.xz", "k/9pnet.ko", "k/netfs.ko", "k/fscache.ko", "k/9p.ko",
    ]  # fmt: skip


def read_archive(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Each name with its mode and content; as the kernel reads it (init/initramfs.c)."""
    found, at = {}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        numbers = [int(data[at + 6 + 8 * place : at + 14 + 8 * place], 16) for place in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        assert data[at + 110 + name_size - 1] == 0
        if name == "TRAILER!!!":
            return found
        begin = at + (110 + name_size + 3) // 4 * 4
        found[name] = mode, data[begin : begin + size]
        at = begin + (size + 3) // 4 * 4


@pytest.mark.parametrize("size", range(6))
def test_the_archive_can_be_read(vm, size):
    files = {"init": b"x" * size, "bin/name": b"content", "n": b""}
    found = read_archive(vm.archive(("bin",), files))
    assert found == {"bin": (0o040755, b"")} | {name: (0o100755, content) for name, content in files.items()}


def test_the_first_files(vm, kernel, tmp_path):
    found = {
        name: content for name, (_, content) in read_archive(vm.initial_files(kernel, tmp_path / "busybox")).items()
    }
    assert found["modules/9p.ko"] == b"a module"
    assert found["bin/busybox"] == b"a shell"
    assert b"for module in 9p.ko; do" in found["init"]


def test_words_stay_what_they_are(vm, kernel):
    words = ["echo", "two words", "$HOME", "'"]
    script = vm.start_script(kernel, words, {"PFW_SEED": "a b; c", "SECRET": "x", "PFW_IN_VM": "0"}, Path("/a folder"))
    assert f"cd '/a folder' && {shlex.join(words)}\n" in script
    assert "PFW_SEED='a b; c' PFW_IN_VM=1\n" in script
    assert "SECRET" not in script
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


# What stands in for qemu finds the folder that it shares with its guest.
SHARED = """\
for word; do case $word in *,mount_tag=shared,*) s=${word#local,path=}; esac; done
s=${s%%,*}"""


@pytest.mark.parametrize("status", [0, 7])
def test_output_and_status_come_back(vm, kernel, tmp_path, programs, capfdbinary, status):
    programs(
        "qemu-system-x86_64", f"{SHARED}\nprintf 'a\\377\\n' >$s/output; printf b >>$s/output; echo {status} >$s/status"
    )
    assert vm.run(kernel, tmp_path / "busybox", ["true"], 20) == status
    assert capfdbinary.readouterr().out == b"a\xff\nb"


def test_what_the_kernel_complains_of_is_told(vm, kernel, tmp_path, programs, capfd):
    complaint = "[    7.1] WARNING: CPU: 0 PID: 1 at net/netfilter/x.c:1 f+0x1/0x2"
    programs("qemu-system-x86_64", f"{SHARED}\necho '{complaint}' >$s/console; echo 0 >$s/status")
    assert vm.run(kernel, tmp_path / "busybox", ["true"], 20) == 0
    assert (
        capfd.readouterr().err == "vm: the kernel complained: WARNING: CPU: 0 PID: 1 at net/netfilter/x.c:1 f+0x1/0x2\n"
    )


def test_a_guest_that_dies(vm, kernel, tmp_path, programs, capfd):
    programs("qemu-system-x86_64", f"{SHARED}\necho 'no /init found' >$s/console; echo 'qemu: is old' >&2; exit 1")
    assert vm.run(kernel, tmp_path / "busybox", ["true"], 20) == vm.EXIT_GUEST_DIED
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "qemu: is old",
        "no /init found",
        "vm: the guest died before the command ended; its last words are above",
    ]


def test_one_that_takes_too_long_is_stopped(vm, kernel, tmp_path, programs, capfd):
    programs("qemu-system-x86_64", f"{SHARED}\necho $$ >{tmp_path}/number; echo early >$s/output; exec sleep 60")
    assert vm.run(kernel, tmp_path / "busybox", ["true"], 0.5) == vm.EXIT_TIMED_OUT
    told = capfd.readouterr()
    assert told.out == "early\n"
    assert told.err.endswith("vm: stopped: the command had not ended after 0 seconds\n")
    assert not Path(f"/proc/{(tmp_path / 'number').read_text().strip()}").exists()


def test_nothing_is_left_behind_by_one_that_is_killed(tmp_path):
    program = f"""
import sys, time
sys.path.insert(0, {str(TOOL.parent)!r})
import pathlib, vm
with vm.running(["sleep", "60"], pathlib.Path({str(tmp_path / "log")!r})) as process:
    print(process.pid, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True)
    number = parent.stdout.readline().strip()
    assert Path(f"/proc/{number}").exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while is_alive(number):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(number: str) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class TestDebian:
    @pytest.fixture
    def debian(self, vm, tmp_path, programs):
        """A Debian with one version of two packages, and what was asked of it."""
        if shutil.which("dpkg-deb") is None:
            pytest.skip("needs dpkg-deb")
        asked = tmp_path / "asked"
        (tmp_path / "cache").mkdir()
        programs("depmod", 'touch "$2/lib/modules/$3/modules.dep"')
        programs("apt-get", f"""\
echo "$@" >>{asked}; [ "$1" = download ] || exit 0
for word; do :; done; name=${{word%=*}}; version=${{word#*=}}; mkdir -p t/DEBIAN t/boot t/bin t/lib/modules/$version
printf '%s\\n' "Package: $name" "Version: $version" 'Architecture: all' >t/DEBIAN/control
printf '%s\\n' 'Maintainer: x' 'Description: x' >>t/DEBIAN/control
touch t/boot/vmlinuz-$version t/bin/busybox; dpkg-deb -b t $name.deb""")  # fmt: skip

        def new(version: str) -> None:
            programs("apt-cache", f"""\
for word; do :; done; echo "Package: $word"; echo "Version: {version}"
echo "Depends: linux-image-{version}-amd64 (= {version}), other" """)  # fmt: skip

        new("6.1.0-1")
        return tmp_path / "cache", asked, new

    def provide(self, vm, cache):
        with (cache / "lock").open("wb") as lock:
            return vm.provide_packages(cache, lock.fileno())

    def test_the_newest_is_got_once(self, vm, tmp_path, debian):
        cache, asked, new = debian
        kernel, busybox = self.provide(vm, cache)
        assert kernel.image == cache / "linux-image-6.1.0-1-amd64_6.1.0-1" / "boot" / "vmlinuz-6.1.0-1"
        assert (kernel.modules / "modules.dep").exists()
        assert busybox.exists()
        before = asked.read_text()
        assert self.provide(vm, cache) == (kernel, busybox)
        assert asked.read_text() == before
        new("6.1.0-2")
        newer, _ = self.provide(vm, cache)
        assert newer.image.name == "vmlinuz-6.1.0-2"
        names = {path.name for path in cache.iterdir()}
        assert names == {"lock", "linux-image-6.1.0-2-amd64_6.1.0-2", "busybox-static_6.1.0-2"}

    def test_a_download_that_fails(self, vm, debian, programs):
        programs("apt-get", "exit 100")
        with pytest.raises(vm.NoKernelError, match=r"^apt-get cannot download linux-image-6\.1\.0-1-amd64$"):
            self.provide(vm, debian[0])
        assert [path.name for path in debian[0].iterdir()] == ["lock"]

    def test_a_package_that_is_not_known(self, vm, debian, programs):
        programs("apt-cache", "exit 100")
        with pytest.raises(vm.NoKernelError, match=r"^apt-get does not know the package linux-image-amd64$"):
            self.provide(vm, debian[0])


class TestWhereItCannotBe:
    @pytest.fixture(autouse=True)
    def _bare(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PFW_VM_CACHE", str(tmp_path / "cache"))

    def test_another_processor(self, vm, monkeypatch, capsys):
        monkeypatch.setattr(vm.platform, "machine", lambda: "aarch64")
        assert vm.main(["true"]) == vm.EXIT_NO_KERNEL
        assert capsys.readouterr().err == "vm: no second kernel: the second kernel is for x86_64, this is aarch64\n"

    def test_no_qemu_and_no_right_to_install_it(self, vm, monkeypatch, capsys):
        monkeypatch.setattr(vm.platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(vm.shutil, "which", lambda name: None if name.startswith("qemu") else f"/bin/{name}")
        monkeypatch.setattr(vm.os, "geteuid", lambda: 1000)
        assert vm.main(["true"]) == vm.EXIT_NO_KERNEL
        assert capsys.readouterr().err == (
            "vm: no second kernel: a program is missing; type: sudo apt-get install --no-install-recommends "
            "qemu-system-x86\n"
        )

    def test_no_command(self, vm, capsys):
        with pytest.raises(SystemExit) as end:
            vm.main(["--timeout", "5"])
        assert end.value.code == 2
        assert "a command is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"PFW_VM_CACHE": "/x/y", "XDG_CACHE_HOME": "/z"}, "/x/y"),
        ({"XDG_CACHE_HOME": "/z"}, "/z/pfw-vm"),
        ({}, str(Path.home() / ".cache" / "pfw-vm")),
    ],
)
def test_the_cache_folder(vm, environment, expected):
    assert vm.cache_folder(environment) == Path(expected)
