"""The promise of the two commands: what a first start installs, what a second one does not, and what it says if not."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# One worker, so that the one first start of the session is made once.
pytestmark = pytest.mark.xdist_group("setup")


@pytest.mark.network
@pytest.mark.slow
class TestFirstStart:
    def test_installs_and_runs_the_command(self, first_start):
        assert first_start.done.returncode == 0, first_start.done.stderr
        assert first_start.done.stdout

    def test_says_in_one_line_what_goes_where(self, first_start):
        checkout = first_start.checkout
        assert (
            first_start.done.stderr == f"pfw: setting up {checkout.venv} (once): pip packages from requirements.txt\n"
        )

    def test_leaves_the_systems_python_alone(self, first_start):
        assert first_start.changed_in_system == set()

    def test_makes_a_command_that_runs_from_anywhere(self, first_start, tmp_path):
        command = tmp_path / "pfw"
        command.symlink_to(first_start.checkout.venv / "bin" / "pfw")
        done = subprocess.run([command, "--version"], capture_output=True, text=True, cwd=tmp_path, check=True)
        assert done.stdout.startswith("pfw ")

    def test_runs_what_is_in_the_checkout(self, installed):
        version = installed.folder / "src" / "pfw" / "__init__.py"
        version.write_text('__version__ = "99.5"\n')
        assert installed.start("--version").stdout == "pfw 99.5\n"


@pytest.mark.network
class TestSecondStart:
    def test_installs_nothing_and_needs_no_network(self, installed, offline):
        log = (installed.venv / "set-up.log").read_bytes()
        done = installed.start("--version", before=offline)
        assert (done.returncode, done.stderr) == (0, "")
        assert (installed.venv / "set-up.log").read_bytes() == log

    def test_imports_nothing_before_it_becomes_pfw(self, installed):
        python, *rest = installed.command("--version")
        done = subprocess.run([python, "-X", "importtime", *rest], capture_output=True, text=True, check=True)
        imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
        bare = subprocess.run([python, "-X", "importtime", "-c", ""], capture_output=True, text=True, check=True)
        assert imported == {line.rsplit("|", 1)[1].strip() for line in bare.stderr.splitlines() if "|" in line}

    def test_without_a_command_is_the_monitor(self, installed):
        (installed.folder / "src" / "pfw" / "__main__.py").write_text("import sys; print(sys.argv[1:])")
        assert installed.start().stdout == "['monitor']\n"
        assert installed.start("--quiet", "x").stdout == "['monitor', '--quiet', 'x']\n"
        assert installed.start("explain", "-").stdout == "['explain', '-']\n"
        assert installed.start("--version").stdout == "['--version']\n"


class TestNotSetUp:
    def test_offline_says_what_to_do(self, fresh, offline, tmp_path):
        checkout = fresh.copy(tmp_path / "offline")
        done = checkout.start("--quiet", before=offline, environment={"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": ""})
        begun, advice = done.stderr.splitlines()
        assert done.returncode == 3
        assert begun.startswith("pfw: setting up ")
        assert advice.startswith("pfw: cannot reach the Python package index")
        assert f"connect to the network, then type: {' '.join(checkout.command('--quiet'))} (" in advice
        assert str(checkout.venv / "set-up.log") in advice

        again = checkout.start(before=offline, environment={"SUDO_USER": "somebody"})
        assert f"type: sudo {checkout.command()[0]} " in again.stderr.splitlines()[-1]

    def test_a_folder_of_somebody_else(self, fresh, public_folder, as_nobody):
        checkout = fresh.copy(public_folder / "checkout")
        done = checkout.start(before=as_nobody)
        assert done.returncode == 3
        assert done.stderr.splitlines()[-1].startswith(f"pfw: may not write {checkout.venv}; type: sudo ")

    def test_debian_without_its_venv_package(self, fresh, public_folder, as_nobody):
        checkout = fresh.copy(public_folder / "checkout")
        os.chown(checkout.folder, 65534, 65534)
        bundled = subprocess.run(
            [checkout.command()[0], "-c", "import ensurepip; print(ensurepip.__path__[0])"],
            capture_output=True,
            text=True,
        ).stdout.strip()
        if bundled:
            hide = f"mount --bind {public_folder / 'nothing'} {bundled} && exec "
            (public_folder / "nothing").mkdir()
            before = ["unshare", "-m", "sh", "-c", hide + '"$@"', "sh", *as_nobody]
        else:
            before = as_nobody
        done = checkout.start(before=before)
        assert done.returncode == 3
        assert "is missing; type: sudo apt-get install python3." in done.stderr.splitlines()[-1]

    @pytest.mark.network
    @pytest.mark.slow
    def test_an_interrupted_start_heals(self, fresh, tmp_path):
        checkout = fresh.copy(tmp_path / "interrupted")
        process = subprocess.Popen(checkout.command("--version"), stderr=subprocess.PIPE, text=True, process_group=0)
        wait_for(checkout.venv / "bin" / "python")
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 130
        assert said.splitlines()[1:] == ["", "pfw: interrupted; the next start goes on with the set-up"]
        assert checkout.unfinished.exists()
        python = checkout.venv / "bin" / "python"
        python.unlink()  # it is a link to the system's own
        python.write_text("half of it")
        done = checkout.start("--version")
        assert (done.returncode, done.stdout.startswith("pfw ")) == (0, True), done.stderr
        assert checkout.start("--version").stderr == ""


@pytest.mark.network
class TestChanges:
    def test_changed_requirements_are_installed_once(self, installed, offline):
        installed.change_requirements()
        changed = installed.start("--version", before=offline)  # all of it is there already
        assert (changed.returncode, changed.stderr.count("\n")) == (0, 1)
        assert changed.stderr.startswith(f"pfw: adding to {installed.venv}")
        assert installed.start("--version", before=offline).stderr == ""

    def test_what_pip_refuses_is_told_in_a_line_and_breaks_nothing(self, installed, offline):
        good = installed.requirements.read_text()
        installed.requirements.write_text(good + "this is no requirement\n")
        refused = installed.start("--version", before=offline)
        assert refused.returncode == 3
        assert refused.stderr.splitlines()[-1].startswith("pfw: pip failed: Invalid requirement")
        installed.requirements.write_text(good)
        assert installed.start("--version", before=offline).stderr == ""

    def test_another_interpreter_is_noticed(self, installed):
        (installed.folder / "tools" / "set_up.py").write_text("def main(*_, **__): print('asked'); return 3")
        assert installed.start("--version").stdout != "asked\n"
        python = installed.venv / "bin" / "python"
        python.unlink()
        python.symlink_to(shutil.which("true"))
        assert installed.start("--version").stdout == "asked\n"

    def test_two_starts_at_once_install_once(self, installed):
        installed.change_requirements()
        log = installed.venv / "set-up.log"
        installed_before = log.read_text().count("Requirement already satisfied: scapy")
        starts = [
            subprocess.Popen(installed.command("--version"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        ends = [start.communicate(timeout=60) for start in starts]
        assert [start.returncode for start in starts] == [0, 0, 0], ends
        assert log.read_text().count("Requirement already satisfied: scapy") == installed_before + 1
        said = [line for _, errors in ends for line in errors.splitlines()]
        assert sum(line.startswith("pfw: adding to ") for line in said) == 1
        assert all(line.startswith(("pfw: adding to ", "pfw: waiting for ")) for line in said)

    def test_after_sudo_all_belongs_to_the_owner_of_the_checkout(self, first_start, public_folder, as_nobody):
        checkout = first_start.checkout.copy(public_folder / "checkout")
        for path in (checkout.folder, *checkout.folder.iterdir()):
            os.chown(path, 65534, 65534)
        checkout.change_requirements()
        old_umask = os.umask(0o077)
        try:
            assert checkout.start("--version").returncode == 0
        finally:
            os.umask(old_umask)
        assert {path.lstat().st_uid for path in checkout.venv.rglob("*")} == {65534}
        done = checkout.start("--version", before=as_nobody)
        assert (done.returncode, done.stderr) == (0, "")


class TestOldPython:
    SOURCE = (Path(__file__).parents[2] / "firewall.py").read_text()

    def test_can_read_the_file(self):
        new = (ast.JoinedStr, ast.NamedExpr, ast.AnnAssign, ast.FunctionDef, ast.Match, ast.Starred)
        found = [type(node).__name__ for node in ast.walk(ast.parse(self.SOURCE)) if isinstance(node, new)]
        assert found == []

    def start(self, folder: Path, path: str) -> subprocess.CompletedProcess[str]:
        """A real interpreter that says it is 3.6."""
        (folder / "firewall.py").write_text(self.SOURCE)
        pretend = f"import sys, runpy; sys.version_info = (3, 6, 9); runpy.run_path({str(folder / 'firewall.py')!r})"
        return subprocess.run(
            [sys.executable, "-c", pretend], capture_output=True, text=True, env={"PATH": path}, timeout=20
        )

    def test_is_told_so(self, tmp_path):
        done = self.start(tmp_path, path=str(tmp_path))
        assert done.returncode == 3
        assert done.stderr == "pfw: needs Python 3.11 or newer, this is 3.6; type: sudo apt-get install python3\n"

    def test_gives_way_to_a_newer_one_that_works(self, tmp_path):
        for name, status in (("python3.14", 1), ("python3.12", 0)):
            (tmp_path / name).write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit {status}\necho "{name} $@"\n')
            (tmp_path / name).chmod(0o755)
        assert self.start(tmp_path, path=str(tmp_path)).stdout == f"python3.12 {tmp_path}/firewall.py\n"


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that others may enter, which they may not enter those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="pfw-public-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def wait_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until, f"{path} does not appear"
        time.sleep(0.01)
