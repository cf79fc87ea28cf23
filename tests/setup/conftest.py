"""A copy of the checkout, where a stranger's first start can be tried: nothing is installed in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def system_python() -> str:
    """Debian's own where it is new enough: the one that pip must leave alone. Else what this virtual one comes from."""
    debian = "/usr/bin/python3"
    is_new = "import sys; sys.exit(sys.version_info < (3, 11))"
    if os.path.exists(debian) and subprocess.run([debian, "-c", is_new]).returncode == 0:
        return debian
    return getattr(sys, "_base_executable", sys.executable)


class Checkout:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / ".venv"
        self.requirements = folder / "requirements.txt"
        self.unfinished = self.venv / "pfw-unfinished"

    def command(self, *arguments: str) -> list[str]:
        return [system_python(), str(self.folder / "firewall.py"), *arguments]

    def start(
        self, *arguments: str, before: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What `python3 firewall.py` does, in another folder and in the environment that a fresh shell has."""
        return subprocess.run(
            [*before, *self.command(*arguments)],
            capture_output=True,
            text=True,
            cwd="/",
            env=clean_environment() | dict(environment or {}),
            timeout=60,
        )

    def copy(self, folder: Path) -> "Checkout":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Checkout(folder)

    def change_requirements(self) -> None:
        with self.requirements.open("a") as file:
            file.write("# changed\n")


def clean_environment() -> dict[str, str]:
    unwanted = ("PYTHON", "VIRTUAL_ENV", "SUDO")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


def skip_without_network(done: subprocess.CompletedProcess[str]) -> None:
    if "cannot reach the Python package index" in done.stderr:
        pytest.skip("the Python package index is out of reach")


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone as it arrives; not to be started in, but copied."""
    folder = tmp_path_factory.mktemp("clone") / "checkout"
    folder.mkdir()
    for name in ("firewall.py", "requirements.txt", "requirements-dev.txt", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, folder)
    for name in ("src", "tools", "docs", "packaging"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "rules.json").write_text('{"block": {"port": [23]}}')
    return Checkout(folder)


class FirstStart:
    def __init__(self, checkout: Checkout, done: subprocess.CompletedProcess[str], changed: set[str]) -> None:
        self.checkout = checkout
        self.done = done
        self.changed_in_system = changed


@pytest.fixture(scope="session")
def first_start(fresh: Checkout, tmp_path_factory: pytest.TempPathFactory) -> FirstStart:
    """A first start where much could go wrong: an odd path, and settings that aim pip and Python elsewhere."""
    checkout = fresh.copy(tmp_path_factory.mktemp("first") / 'it\'s my "fire wall"')
    decoy = tmp_path_factory.mktemp("decoy")
    for name in ("msgspec.py", "pfw.py"):
        (decoy / name).write_text("raise SystemExit('the wrong module')")
    hostile = {"PYTHONPATH": str(decoy), "PIP_USER": "1", "PIP_REQUIRE_VIRTUALENV": "1", "PIP_TARGET": str(decoy / "x")}
    before = system_packages()
    rules = str(checkout.folder / "rules.json")
    done = checkout.start("check", rules, environment=hostile)
    skip_without_network(done)
    return FirstStart(checkout, done, system_packages() ^ before)


def system_packages() -> set[str]:
    where = "import site; print(*site.getsitepackages(), site.getusersitepackages(), sep='\\n')"
    folders = subprocess.run([system_python(), "-c", where], capture_output=True, text=True, check=True).stdout
    found = (path for folder in folders.splitlines() if os.path.isdir(folder) for path in os.scandir(folder))
    return {path.path for path in found if path.name != "__pycache__"}


@pytest.fixture
def installed(first_start: FirstStart, tmp_path: Path) -> Checkout:
    """A set-up checkout of the test's own, moved after its set-up."""
    return first_start.checkout.copy(tmp_path / "moved checkout")


@pytest.fixture(scope="session")
def offline() -> list[str]:
    """What to put before a command to take its network away."""
    before = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    try:
        works = subprocess.run([*before, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        works = False
    if not works:
        pytest.skip("cannot make a network namespace here")
    return before


@pytest.fixture
def as_nobody() -> list[str]:
    """What to put before a command to run it without root's rights."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    if not os.path.realpath(system_python()).startswith("/usr/"):
        pytest.skip("only root may use this Python")
    return ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "env", "HOME=/nonexistent"]
