"""Programs as /proc tells of them, against real processes, honest ones and others."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pfw.drivers import processes
from pfw.drivers.processes import executable, is_same, program, started, users

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mount name spaces need root")
CAT = os.path.realpath(shutil.which("cat"))
PYTHON = os.path.realpath(sys.executable)


@contextmanager
def running(*words, **options):
    """A process that reads from a pipe until the test is done."""
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(true):
    deadline = time.monotonic() + 8
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def shown(pid):
    found = program(pid)
    return "" if found is None else found.shown


def copy(tmp_path, name="program"):
    path = tmp_path / name
    shutil.copy(CAT, path)
    return path


def test_a_plain_process():
    with running(CAT, "-", "-") as process:
        # The kernel has the executable first, the arguments a moment later.
        wait_until(lambda: shown(process.pid) == CAT and program(process.pid).command)
        found = program(process.pid)
    assert (found.pid, found.path, found.command, found.script) == (process.pid, CAT, (CAT, "-", "-"), None)
    assert (found.uid, found.gid, found.user) == (os.geteuid(), os.getegid(), pwd.getpwuid(os.geteuid()).pw_name)
    assert found.groups == tuple(sorted(os.getgroups()))
    assert found.parents[0] == PYTHON
    assert found.started > 0


def test_its_own_control_group():
    line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    assert program(os.getpid()).unit == (line[4:] or None)


@pytest.mark.parametrize("content", ["1:name=systemd:/a\n0::/x.slice/y.service\n", "0::/x.slice/y.service\n"])
def test_a_control_group_beside_those_of_version_1(tmp_path, content):
    (tmp_path / "cgroup").write_text(content)
    folder = os.open(tmp_path, os.O_RDONLY)
    assert processes._unit(folder) == "x.slice/y.service"
    for outside in ("0::/\n", "0::/../x\n", "1:cpu:/x\n"):
        (tmp_path / "cgroup").write_text(outside)
        assert processes._unit(folder) is None
    os.close(folder)


def test_nobody():
    assert program(2**22 + 1) is None
    assert program(-1) is None
    with running(CAT) as process:
        found = program(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert program(process.pid) is None  # it is there still, but has ended
        assert executable(process.pid) is None
    assert not is_same(found)
    assert started(process.pid) is None
    assert users(process.pid) == ()


def test_the_same_process_and_a_later_one_with_its_number():
    found = program(os.getpid())
    assert is_same(found)
    assert not is_same(msgspec.structs.replace(found, started=found.started + 1))


def test_a_thread_is_its_process():
    numbers = []
    stop = threading.Event()

    def work():
        numbers.append(threading.get_native_id())
        stop.wait()

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: numbers)
    assert numbers[0] != os.getpid()
    assert program(numbers[0]).pid == os.getpid()
    stop.set()
    thread.join()


@as_root
def test_a_kernel_thread():
    if executable(2) is not None:
        pytest.skip("the process 2 is no kernel thread here")
    found = program(2)
    assert (found.path, found.shown, found.command) == (None, "kthreadd", ())


class TestPath:
    def test_an_upgraded_program_keeps_its_path(self, tmp_path):
        path = copy(tmp_path)
        with running(path) as process:
            wait_until(lambda: shown(process.pid) == str(path))
            shutil.copy(CAT, tmp_path / "new")
            (tmp_path / "new").replace(path)
            found = program(process.pid)
        assert (found.path, found.shown) == (str(path), f"{path} (deleted)")

    def test_a_file_that_has_another_name_left_is_not_deleted(self, tmp_path):
        path = copy(tmp_path)
        with running(path) as process:
            wait_until(lambda: shown(process.pid) == str(path))
            os.link(path, tmp_path / "other")
            path.unlink()
            assert program(process.pid).path is None

    def test_a_file_that_is_called_as_if_it_were_deleted(self, tmp_path):
        path = copy(tmp_path, "program (deleted)")
        with running(path) as process:
            wait_until(lambda: shown(process.pid) == str(path))
            assert program(process.pid).path == str(path)
            path.unlink()
            found = program(process.pid)
        assert (found.path, found.shown) == (str(path), f"{path} (deleted)")

    def test_a_nameless_file(self):
        file = os.memfd_create("usr/bin/curl")
        os.write(file, Path(CAT).read_bytes())
        with running(f"/proc/self/fd/{file}", pass_fds=[file]) as process:
            wait_until(lambda: "memfd" in shown(process.pid))
            found = program(process.pid)
        os.close(file)
        assert (found.path, found.shown) == (None, "/memfd:usr/bin/curl (deleted)")

    def test_a_name_that_is_no_text(self, tmp_path):
        path = os.fsencode(tmp_path) + b"/\xff"
        shutil.copy(CAT, path)
        with running(path) as process:
            wait_until(lambda: "xff" in shown(process.pid))
            found = program(process.pid)
        assert (found.path, found.shown) == (None, f"{tmp_path}/\\xff")
        msgspec.json.encode(found)

    @as_root
    @pytest.mark.parametrize("deleted", [False, True])
    def test_another_mount_name_space(self, tmp_path, deleted):
        path, other = copy(tmp_path), copy(tmp_path, "other")
        code = f"mount --bind {other} {path} && exec {path}"
        if deleted:
            code = f"mount -t tmpfs t {tmp_path} && cp {CAT} {path} && exec {path}"
        with running("unshare", "-m", "--propagation", "private", "sh", "-c", code) as process:
            wait_until(lambda: shown(process.pid).startswith(str(path)))
            if deleted:
                os.unlink(f"/proc/{process.pid}/root{path}")
                wait_until(lambda: shown(process.pid) == f"{path} (deleted)")
            found = program(process.pid)
        assert found.path is None
        assert found.shown == f"{path} (deleted)" if deleted else str(path)

    @as_root
    def test_a_file_of_another_name_space_that_is_also_ours(self):
        with running("unshare", "-m", CAT) as process:
            wait_until(lambda: shown(process.pid) == CAT)
            assert program(process.pid).path == CAT

    @as_root
    def test_a_mount_that_is_attached_nowhere(self, tmp_path):
        name = str(tmp_path / "program")
        with running(PYTHON, "-c", DETACHED, CAT, name) as process:
            wait_until(lambda: shown(process.pid) == f"{name} (deleted)" or process.poll() is not None)
            if process.poll() is not None:
                pytest.skip("no mount can be made here that is attached nowhere")
            found = program(process.pid)
        assert (found.path, found.shown) == (None, f"{name} (deleted)")


DETACHED = """
import ctypes, os, shutil, sys
libc = ctypes.CDLL(None)
cat, name = sys.argv[1:]
context = libc.syscall(430, b"tmpfs", 0)
libc.syscall(431, context, 6, None, None, 0)
mount = libc.syscall(432, context, 0, 0)
if mount < 0:
    sys.exit(1)
name = name.lstrip("/")
for at, letter in enumerate(name):
    if letter == "/":
        os.mkdir(name[:at], dir_fd=mount)
file = os.open(name, os.O_CREAT | os.O_WRONLY, 0o755, dir_fd=mount)
os.write(file, open(cat, "rb").read())
os.close(file)
held = os.open(name, os.O_PATH, dir_fd=mount)
os.set_inheritable(held, True)
os.unlink(name, dir_fd=mount)
os.execv(f"/proc/self/fd/{held}", [cat])
"""


class TestCommand:
    def test_long_ones_are_cut(self):
        with running(CAT, *["-"] * 99) as process:
            wait_until(lambda: shown(process.pid) == CAT)
            assert len(program(process.pid).command) == processes.ARGUMENTS_MAX
        with running(CAT, "-", "x" * 5000, stderr=subprocess.DEVNULL) as process:
            wait_until(lambda: shown(process.pid) == CAT)
            assert len(program(process.pid).command[2]) == processes.ARGUMENT_BYTES_MAX

    def test_a_script(self, tmp_path):
        script = tmp_path / "real.py"
        script.write_text("import sys; print(flush=True); sys.stdin.read()")
        (tmp_path / "link.py").symlink_to(script)
        with running(PYTHON, "-B", "link.py", "-c", cwd=tmp_path) as process:
            process.stdout.readline()
            assert program(process.pid).script == str(script)
            script.unlink()
            assert program(process.pid).script is None

    def test_code_is_no_script(self):
        with running(PYTHON, "-c", "import sys; print(flush=True); sys.stdin.read()", __file__) as process:
            process.stdout.readline()
            assert program(process.pid).script is None

    @as_root
    def test_a_script_somewhere_else(self, tmp_path):
        script = tmp_path / "script.sh"
        script.write_text("echo; read x")
        with running("unshare", "-m", "sh", script) as process:
            process.stdout.readline()
            assert program(process.pid).script is None
        with running("sh", script) as process:
            process.stdout.readline()
            assert program(process.pid).script == str(script)


def test_parents_end_at_a_bound():
    code = "import os, sys\nfor _ in range(20):\n    if os.fork():\n        os.wait(); os._exit(0)\n"
    code += "print(os.getpid(), flush=True)\nsys.stdin.read()"
    with running(PYTHON, "-c", code) as process:
        found = program(int(process.stdout.readline()))
        assert found.parents == (PYTHON,) * processes.PARENTS_MAX
        process.stdin.close()
        process.wait()


@as_root
def test_another_user_and_groups():
    with running("setpriv", "--reuid=12345", "--regid=23456", "--groups=7,8", CAT) as process:
        wait_until(lambda: shown(process.pid) == CAT)
        found = program(process.pid)
        assert users(process.pid) == (12345,) * 4
    assert (found.uid, found.gid, found.user, found.groups) == (12345, 23456, "", (7, 8))


def test_processes_that_come_and_go():
    """Half of what is read here belongs to processes that are ending, or beginning another program."""
    seen = 0
    for _ in range(40):
        with running("sh", "-c", f"exec {CAT}") as process:
            for _ in range(3):
                found = program(process.pid)
                seen += found is not None
            process.send_signal(signal.SIGKILL)
            while found is not None:
                found = program(process.pid)
                assert found is None or found.path in (None, CAT, PYTHON, os.path.realpath("/bin/sh"))
    assert seen


def test_the_command_of_now():
    """A process that begins another script is the same one, with other arguments."""
    with running(PYTHON, "-c", f"import os; input(); os.execv({CAT!r}, ['renamed', '-u'])") as process:
        wait_until(lambda: processes.command(process.pid) == program(process.pid).command)
        assert processes.command(process.pid)[:2] == (PYTHON, "-c")
        process.stdin.write(b"\n")
        process.stdin.flush()
        wait_until(lambda: processes.command(process.pid) == ("renamed", "-u"))
    process.wait()
    assert processes.command(process.pid) is None


PIECES = st.sampled_from(
    [b"Tgid:", b"State:", b"Uid:", b"Gid:", b"0::/", b")", b"(", b"\n", b"\t", b" ", b"7", b"\xff"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=40).map(b"".join) | st.binary(max_size=80))
def test_anything_for_a_record(tmp_path, content):
    for name in ("status", "stat", "cgroup", "cmdline"):
        (tmp_path / name).write_bytes(content)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        for read in (processes._status, processes._started_and_parent):
            with suppress(ValueError, IndexError):
                read(folder)
        assert processes._unit(folder) != ""
        assert len(processes._arguments(folder)) <= processes.ARGUMENTS_MAX
    finally:
        os.close(folder)
