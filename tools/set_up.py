"""Owns the set-up of a checkout: its `.venv`, with what the requirement files pin, and the system libraries by name.

Rule 1: the system's Python gets nothing (PEP 668); what Debian provides is installed by Debian's own tool.
Rule 2: a stamp is written last. Without it the work is done again; what an interrupted start left is thrown away.

The standard library alone: this runs before anything is installed. `write_stamp` and the comparison at the top of
firewall.py change together. The name of a stamp is the name of its requirement file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

EXIT_NOT_SET_UP = 3
BASE_REQUIREMENTS = "requirements.txt"

# What pip writes when no index answers, against what it writes when an index answers something unwelcome.
SIGNS_OF_NO_NETWORK = (
    "NewConnectionError",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Connection refused",
    "Cannot connect to proxy",
)

# Found by its own place: a path with spaces or quotes in it cannot stand in a `#!` line, and a folder can be moved.
COMMAND = """\
#!/bin/sh
self=$(readlink -f -- "$0")
exec "${self%/*}/python" -I -m pfw "$@"
"""

# Asked of the Python in `.venv`: does it have pip, is it new enough, is it a venv; and where do its packages go?
WHERE_ARE_PACKAGES = """\
import sys, sysconfig, pip
if sys.version_info < (3, 11) or sys.prefix == sys.base_prefix:
    sys.exit(1)
print(sysconfig.get_path("purelib"))
"""


class SetUpError(Exception):
    """What is in the way and what to do about it, as one line for the person at the keyboard."""


def main(here: str, extra_requirements: Sequence[str], *, needs_libpcap: bool) -> int:
    """Set up the checkout in the folder `here`; the exit status is 0, or 3 after a line on standard error."""
    checkout = Checkout(Path(here))
    try:
        try:
            checkout.set_up((BASE_REQUIREMENTS, *extra_requirements))
            if needs_libpcap:
                provide_libpcap(here)
        except PermissionError as error:
            raise SetUpError(f"may not write {error.filename or here}; type: sudo {start_again(here)}") from error
        except OSError as error:
            raise SetUpError(f"cannot set up {checkout.venv}: {error.strerror or error}") from error
    except SetUpError as error:
        say(str(error))
        return EXIT_NOT_SET_UP
    return 0


class Checkout:
    """A folder with firewall.py in it, and the `.venv` in there."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.venv = here / ".venv"
        self.python = self.venv / "bin" / "python"
        self.log = self.venv / "set-up.log"
        self._stamps = self.venv / "pfw-set-up"
        self._unfinished = self.venv / "pfw-unfinished"

    def set_up(self, requirement_names: Sequence[str]) -> None:
        """Make `.venv` hold all the requirement files named; quick and silent where it does already.

        Raises SetUpError, OSError.
        """
        with only_one_at_a_time(self.here) as lock:
            missing = [name for name in requirement_names if not self.is_ready(name)]
            if not missing:
                return
            old_umask = os.umask(0o022)  # root's may be 077, and others run this too
            try:
                self._install(missing, lock)
                for name in missing:
                    self.write_stamp(name)
                self._unfinished.unlink()
            finally:
                os.umask(old_umask)
                give_to_owner_of(self.here, (self.venv, *self.here.glob("src/**/__pycache__")))

    def is_ready(self, requirement_name: str) -> bool:
        try:
            return (
                not self._unfinished.exists()
                and os.access(self.python, os.X_OK)
                and (self._stamps / requirement_name).read_bytes() == self._stamp(requirement_name)
            )
        except OSError:
            return False

    def write_stamp(self, requirement_name: str) -> None:
        self._stamps.mkdir(exist_ok=True)
        (self._stamps / requirement_name).write_bytes(self._stamp(requirement_name))

    def _stamp(self, requirement_name: str) -> bytes:
        """The whole requirement file rather than a hash of it (hashlib costs each start 5 ms), and the interpreter:
        after an upgrade of the system `.venv/bin/python` is another Python, without its packages."""
        interpreter = os.fsencode(os.path.realpath(self.python))
        return interpreter + b"\n" + (self.here / requirement_name).read_bytes()

    def _install(self, missing: Sequence[str], lock: int) -> None:
        files = " and ".join(missing)
        packages = None if self._unfinished.exists() else self._packages_folder()
        doing = "adding to" if packages and self._stamps.exists() else "setting up"
        say(f"{doing} {self.venv} (once): pip packages from {files}")
        if packages is None:
            packages = self._make_venv(lock)
        self._unfinished.touch()
        self._run_pip(missing, lock)
        # Relative, so that a checkout may be moved: .venv/lib/python3.x/site-packages -> src
        write_anew(packages / "pfw.pth", "../../../../src\n", mode=0o644)
        write_anew(self.venv / "bin" / "pfw", COMMAND, mode=0o755)
        self._run(["-m", "compileall", "-q", str(self.here / "src")], lock)
        if self._run(["-c", "import msgspec, pfw"], lock) != 0:
            raise SetUpError(f"what was installed does not work: {self._reason()} (details: {self.log})")

    def _packages_folder(self) -> Path | None:
        """Where `.venv` keeps its packages, or None where there is no `.venv` that works."""
        try:
            answer = subprocess.run(
                [self.python, "-I", "-c", WHERE_ARE_PACKAGES], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return Path(answer.stdout.strip()) if answer.stdout.strip() else None

    def _make_venv(self, lock: int) -> Path:
        # The interpreter that stands behind a venv that happens to be active, which may be the very one to be removed.
        interpreter = getattr(sys, "_base_executable", sys.executable)
        provide_ensurepip(interpreter, self.here)
        if self.venv.is_symlink():
            raise SetUpError(f"{self.venv} is a symbolic link to something that does not work; remove it and try again")
        if self.venv.exists():
            shutil.rmtree(self.venv)
        self.venv.mkdir()
        self._unfinished.touch()
        with self.log.open("ab") as log:
            made = subprocess.run(
                [interpreter, "-I", "-m", "venv", str(self.venv)], stdout=log, stderr=log, pass_fds=(lock,)
            )
        packages = self._packages_folder() if made.returncode == 0 else None
        if packages is None:
            raise SetUpError(f"{interpreter} could not make {self.venv}: {self._reason()} (details: {self.log})")
        return packages

    def _run_pip(self, requirement_names: Sequence[str], lock: int) -> None:
        arguments = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--retries", "2"]
        for name in requirement_names:
            arguments += ["-r", str(self.here / name)]
        started_at = self.log.stat().st_size if self.log.exists() else 0
        if self._run(arguments, lock) == 0:
            return
        self._unfinished.unlink()  # pip takes back what it could not finish, so the next start need not begin anew
        again = start_again(self.here)
        with self.log.open("rb") as log:
            log.seek(started_at)
            said = log.read().decode(errors="replace")
        if any(sign in said for sign in SIGNS_OF_NO_NETWORK):
            raise SetUpError(
                f"cannot reach the Python package index, which the first start needs; connect to the network, then "
                f"type: {again} (details: {self.log})"
            )
        raise SetUpError(f"pip failed: {self._reason()}; when that is mended type: {again} (details: {self.log})")

    def _run(self, arguments: Sequence[str], lock: int) -> int:
        """Run the Python of `.venv`, printing to the log. It holds the lock too, in case this process is killed."""
        command = [str(self.python), "-I", *arguments]
        with self.log.open("ab") as log:
            return subprocess.run(command, stdout=log, stderr=log, env=pip_environment(), pass_fds=(lock,)).returncode

    def _reason(self) -> str:
        """The line of the log that says most: pip's last error, else the last line."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        return (errors or lines or ["no reason given"])[-1]


def write_anew(path: Path, text: str, mode: int) -> None:
    """Write a file of our own: never through a link, which in a venv may lead to the system's files."""
    path.unlink(missing_ok=True)
    with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(text)


def pip_environment() -> dict[str, str]:
    """The caller's environment (its index, proxy and certificates count) without what would aim pip elsewhere."""
    aims = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_DRY_RUN", "PIP_NO_DEPS", "PIP_REQUIREMENT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON") and name not in aims}
    # Set, not removed: a variable overrules pip.conf, where the same switches may stand.
    return kept | {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_BREAK_SYSTEM_PACKAGES": "0"}


@contextlib.contextmanager
def only_one_at_a_time(folder: Path) -> Iterator[int]:
    """Hold the lock on the folder itself, which needs no file of its own and ends with the process; yields its fd."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another start that is setting up {folder}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            pass  # a shared folder of a virtual machine knows no locks; then two first starts at once are not caught
        yield descriptor
    finally:
        os.close(descriptor)


def give_to_owner_of(folder: Path, made: Sequence[Path]) -> None:
    """After `sudo`, hand what was made to whose checkout it is, so that ./test and `git clean` work without root."""
    if os.geteuid() != 0:
        return
    owner = folder.stat()
    if owner.st_uid == 0:
        return
    for top in made:
        for path in (top, *top.rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def provide_ensurepip(interpreter: str, here: str | Path) -> None:
    """Debian keeps the part of `venv` that brings pip in a package of its own. Raises SetUpError."""
    if has_ensurepip(interpreter):
        return
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if not os.path.realpath(interpreter).startswith("/usr/bin/"):
        raise SetUpError(f"{interpreter} has no ensurepip; type: {start_again(here, python='/usr/bin/python3')}")
    install_debian_package(package, here)
    if not has_ensurepip(interpreter):
        raise SetUpError(f"{interpreter} has no ensurepip although {package} is installed; reinstall that package")


def has_ensurepip(interpreter: str) -> bool:
    """It must do something: what Debian leaves of the package when it is removed can be imported too."""
    ask = [interpreter, "-I", "-c", "import ensurepip; ensurepip.version()"]
    return subprocess.run(ask, capture_output=True).returncode == 0


def provide_libpcap(here: str | Path) -> None:
    """`--filter` lets libpcap compile its expression. Raises SetUpError."""
    from ctypes.util import find_library

    if find_library("pcap") is None:
        # Since Debian 13 the package is libpcap0.8t64, which apt-get takes by this name too.
        install_debian_package("libpcap0.8", here)


def install_debian_package(name: str, here: str | Path) -> None:
    """Install it where that can be done; else say what to type. Raises SetUpError."""
    again = start_again(here)
    if shutil.which("apt-get") is None:
        raise SetUpError(f"the system lacks what Debian calls {name}; install it, then type: {again}")
    if os.geteuid() != 0:
        raise SetUpError(f"the Debian package {name} is missing; type: sudo apt-get install {name} && {again}")
    say(f"installing the Debian package {name}")
    install = ["apt-get", "install", "-y", "-o", "DPkg::Lock::Timeout=60", name]
    if run_apt(install) == 0:
        return
    run_apt(["apt-get", "update"])  # the lists of a fresh machine are empty or old
    if run_apt(install) != 0:
        raise SetUpError(f"cannot install the Debian package {name}; connect to the network, then type: {again}")


def run_apt(command: Sequence[str]) -> int:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment).returncode


def start_again(here: str | Path, python: str = sys.executable) -> str:
    """The command that was typed, in a form that works from any folder."""
    before = ["sudo"] if "SUDO_USER" in os.environ else []
    return shlex.join([*before, python, os.path.join(here, "firewall.py"), *sys.argv[1:]])


def say(line: str) -> None:
    print(f"pfw: {line}", file=sys.stderr, flush=True)
