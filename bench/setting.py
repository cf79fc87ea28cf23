"""What a run of the bench works with: the interpreter, the commands, the peers, the folder, how many rounds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path

from processes import BenchError, run, say

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(__file__).resolve().parent / "programs"


class Setting:
    """Shared by all parts of a run. Files go to `folder`, which is kept for the next run."""

    def __init__(self, *, rounds: int, quick: bool) -> None:
        self.rounds = rounds
        self.quick = quick
        self.folder = Path(__file__).resolve().parent / ".work"
        self.folder.mkdir(exist_ok=True)
        self.is_root = os.geteuid() == 0

    @cached_property
    def python(self) -> str:
        """The checkout's `.venv`, or the present interpreter if it has what is needed, or a `.venv` made now."""
        in_checkout = ROOT / ".venv" / "bin" / "python"
        if in_checkout.exists():
            return str(in_checkout)
        if subprocess.run([sys.executable, "-c", "import msgspec, scapy"], capture_output=True).returncode == 0:
            return sys.executable
        say("bench: setting up .venv")
        run([sys.executable, str(ROOT / "firewall.py"), "--set-up-only"])
        return str(in_checkout)

    @property
    def is_installed(self) -> bool:
        """Whether pfw runs from the checkout's `.venv`, as people run it."""
        return self.python == str(ROOT / ".venv" / "bin" / "python")

    @cached_property
    def environment(self) -> dict[str, str]:
        """For every process: nothing of the caller's Python settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return kept if self.is_installed else kept | {"PYTHONPATH": str(ROOT / "src")}

    @cached_property
    def pfw(self) -> tuple[str, ...]:
        """The command `pfw`, as firewall.py starts it."""
        return (self.python, "-I", "-m", "pfw") if self.is_installed else (self.python, "-m", "pfw")

    def program(self, name: str) -> tuple[str, ...]:
        """One of our own programs in `programs/`."""
        return self.python, str(PROGRAMS / f"{name}.py")

    @cached_property
    def python_version(self) -> str:
        return run([self.python, "-c", "import platform; print(platform.python_version())"]).output.strip()

    @cached_property
    def dpkt_environment(self) -> dict[str, str] | None:
        """For a process that imports dpkt, installed into the bench's own folder; None where that fails."""
        target = self.folder / "packages"
        wanted = Path(__file__).with_name("requirements.txt")
        if not (target / "dpkt").exists():
            command = [self.python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
            try:
                run([*command, "--target", str(target), "-r", str(wanted)], environment=self.environment)
            except BenchError as error:
                say(f"bench: without dpkt: {error}")
                return None
        paths = [self.environment["PYTHONPATH"]] if "PYTHONPATH" in self.environment else []
        return self.environment | {"PYTHONPATH": os.pathsep.join([*paths, str(target)])}

    def has(self, program: str, package: str) -> bool:
        """Whether a Debian program is there; as root it is installed if need be."""
        if shutil.which(program) is None and self.is_root and shutil.which("apt-get") is not None:
            say(f"bench: installing the Debian package {package}")
            quiet = self.environment | {"DEBIAN_FRONTEND": "noninteractive"}
            install = ["apt-get", "install", "-y", "--no-install-recommends", package]
            for command in (install, ["apt-get", "update"], install):
                if subprocess.run(command, env=quiet, capture_output=True).returncode == 0 and command is install:
                    break
        return shutil.which(program) is not None

    def cores(self) -> tuple[int | None, int | None]:
        """A core for what is measured and another for what sends to it; (None, None) where there is only one."""
        cores = sorted(os.sched_getaffinity(0))
        return (cores[0], cores[-1]) if len(cores) > 1 else (None, None)
