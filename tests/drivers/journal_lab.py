"""A journal of its own in a mount namespace of its own, with real programs that write to it: `journal_lab.py FOLDER`.

Started by `unshare --mount --net`. It prints what `Journal` tells of it, one login a line, between lines that say which
part begins.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from pfw.drivers.journal import Journal, login_log
from pfw.model.address import format_address

CONFIGURATION = "[Journal]\nStorage=volatile\nAudit=\nReadKMsg=no\nForwardToSyslog=no\nForwardToWall=no\n"
DEVICES = {"null": (1, 3), "zero": (1, 5), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0), "ptmx": (5, 2)}
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
SSHD = """HostKey {0}/host
ListenAddress 127.0.0.1:2222
AuthorizedKeysFile {0}/good.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile none
"""
WRONG = "Failed password for {} from 203.0.113.{} port 1 ssh2"


def quietly(*words: str | Path, **options) -> None:
    subprocess.run(list(map(str, words)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20, **options)


def set_up(folder: Path) -> subprocess.Popen:
    """All that is needed of /run and /dev, and journald."""
    (folder / "journald.conf").write_text(CONFIGURATION)
    quietly("mount", "--bind", folder / "journald.conf", "/etc/systemd/journald.conf", check=True)
    for place in ("/run", "/dev"):
        quietly("mount", "-t", "tmpfs", "none", place, check=True)
    for name, (major, minor) in DEVICES.items():
        os.mknod(f"/dev/{name}", 0o020666, os.makedev(major, minor))
        os.chmod(f"/dev/{name}", 0o666)
    os.symlink("/run/systemd/journal/dev-log", "/dev/log")
    for place in ("/run/systemd/journal", "/run/log/journal", "/run/sshd"):
        os.makedirs(place)
    quietly("ip", "link", "set", "lo", "up", check=True)
    daemon = subprocess.Popen(["/lib/systemd/systemd-journald"])
    wait_for(lambda: os.path.exists("/run/systemd/journal/dev-log"))
    return daemon


def wait_for(true, seconds=8.0):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)


def tell(journal: Journal, until: str) -> None:
    """Print what comes, until the user of this name has failed."""
    seen = []

    def came():
        for login in journal.read():
            seen.append(login.user)
            print(type(login).__name__, login.user, format_address(login.source), flush=True)
        return until in seen

    wait_for(came)


@contextmanager
def writing(*command: str | Path, user: str, number: int):
    """A program that writes to the journal, and stays: of one that has ended journald often cannot tell what it was."""
    with subprocess.Popen([*map(str, command), "-t", "sshd"], stdin=subprocess.PIPE, text=True) as process:
        process.stdin.write(WRONG.format(user, number) + "\n")
        process.stdin.flush()
        yield


def forge(folder: Path, journal: Journal) -> None:
    """Who writes in sshd's name, and who is one."""
    ours, sshd = shutil.which("logger"), folder / "sshd"
    shutil.copy(ours, sshd)
    with (
        writing(ours, user="root-by-logger", number=1),
        writing(*NOBODY, ours, user="nobody-by-logger", number=2),
        writing(*NOBODY, sshd, user="nobody-by-its-own-sshd", number=3),
    ):
        time.sleep(0.5)
        with writing(sshd, user="root-by-sshd", number=4):
            tell(journal, "root-by-sshd")


def log_in(folder: Path, journal: Journal) -> None:
    """Real failures, and a login, at a real sshd that writes to syslog."""
    for name in ("host", "good", "bad"):
        quietly("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name, check=True)
    (folder / "sshd.conf").write_text(SSHD.format(folder))
    (folder / "ask").write_text("#!/bin/sh\necho wrong\n")
    (folder / "ask").chmod(0o755)
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", folder / "sshd.conf"])
    options = ("-F", "none", "-p", "2222", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    environment = {**os.environ, "SSH_ASKPASS": str(folder / "ask"), "SSH_ASKPASS_REQUIRE": "force"}

    def log_in_as(user: str, *more: str) -> None:
        command = ("ssh", *options, *more, "-l", user, "127.0.0.1", "true")
        quietly(*command, env=environment, stdin=subprocess.DEVNULL, cwd=folder)

    passwords = ("-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=2")
    only_key = ("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-i")
    try:
        wait_for(lambda: subprocess.run(["ss", "-Hltn", "sport", "=", "2222"], capture_output=True).stdout)
        log_in_as("root", *passwords)
        log_in_as("x from 10.0.0.1 port 22 ssh2", *passwords)
        log_in_as("root", *only_key, str(folder / "bad"))
        log_in_as("root", *only_key, str(folder / "good"))
        log_in_as("somebody", *passwords)
    finally:
        server.terminate()
        server.wait()
    with writing(folder / "sshd", user="the-last", number=5):
        tell(journal, "the-last")


def main(folder: Path) -> None:
    daemon = set_up(folder)
    journal = login_log()
    try:
        assert isinstance(journal, Journal)
        print("forged", flush=True)
        forge(folder, journal)
        print("logins", flush=True)
        log_in(folder, journal)
    finally:
        if journal is not None:
            journal.close()
        daemon.terminate()
        daemon.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
