"""Firewalls in the near end of a pair, each with files of its own: what is on the machine is neither used nor changed.

ufw and firewalld keep their settings in /etc and their locks and sockets in /run. So a process holds a mount
namespace in which copies of their folders, and an empty /run, stand in the places of the machine's; all their
commands are started in there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from pair import Pair
from processes import BenchError, Finished, Running, run
from rulesets import FLOOR, Rule, firewalld_ipset, firewalld_zone, ufw_rules
from setting import Setting

_NEEDS = {
    "ufw": (("ufw", "nsenter"), "ufw"),
    "firewalld": (("firewalld", "firewall-cmd", "dbus-daemon", "nsenter"), "firewalld dbus-daemon"),
}
"""Programs, and the Debian packages that they are in. The bench does not install them: firewalld filters at once."""
FIREWALLD_START_S = 90.0

_HOLD = """
mount -t tmpfs tmpfs /run
mkdir /run/dbus /run/firewalld
while [ $# -gt 2 ] && [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 1; shift 2; done
shift
echo ready
exec "$@"
"""
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type><auth>EXTERNAL</auth><listen>unix:path=/run/dbus/system_bus_socket</listen>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""


class Pfw:
    """pfw, its state in a folder of this pair's."""

    def __init__(self, setting: Setting, pair: Pair) -> None:
        self.folder = fresh(setting, pair)
        self.rules = self.folder / "rules.json"
        self.environment = setting.environment | {"PFW_STATE_DIR": str(self.folder / "state")}
        self._words = (*pair.inside, *setting.pfw)

    def command(self, *words: str) -> tuple[str, ...]:
        return (*self._words, *words)

    def run(self, *words: str, standard_input: Path | None = None) -> Finished:
        return run(self.command(*words), environment=self.environment, standard_input=standard_input)

    def up(self, text: str, *words: str) -> Finished:
        """With this policy file."""
        self.rules.write_text(text)
        return self.run("up", "--rules", str(self.rules), *words)

    def forget(self) -> None:
        """As if it had never been on."""
        self.run("down")
        shutil.rmtree(self.folder / "state", ignore_errors=True)


class Ufw:
    """ufw with its defaults and some rules, put there as ufw itself keeps them."""

    def __init__(self, setting: Setting, pair: Pair) -> None:
        self._folder = fresh(setting, pair)
        shutil.copytree("/etc/ufw", self._folder / "ufw")
        defaults = Path("/etc/default/ufw").read_text()
        # No settings of the kernel: they are no part of filtering.
        (self._folder / "default").write_text(f"{defaults}\nIPT_SYSCTL=\n")
        places = {self._folder / "ufw": "/etc/ufw", self._folder / "default": "/etc/default/ufw"}
        self._held = _Held(pair, places, ("sleep", "infinity"))

    def command(self, *words: str) -> tuple[str, ...]:
        return self._held.command("ufw", *words)

    def run(self, *words: str) -> Finished:
        return run(self.command(*words))

    def up(self, found: Sequence[Rule]) -> None:
        file = self._folder / "ufw" / "user.rules"
        begin, end = "### RULES ###\n", "### END RULES ###\n"
        text = file.read_text()
        before, _, after = text.partition(begin)
        if end in after:
            after = after.partition(end)[2]
        file.write_text(f"{before}{begin}{ufw_rules(found)}\n{end}{after}")
        self.run("--force", "enable")

    def close(self) -> None:
        self._held.close()


class Firewalld:
    """firewalld with its default zone, on a bus of its own."""

    def __init__(self, setting: Setting, pair: Pair) -> None:
        self._folder = fresh(setting, pair)
        self._settings = self._folder / "firewalld"
        shutil.copytree("/etc/firewalld", self._settings)
        (self._folder / "log").mkdir()
        bus = self._folder / "bus.conf"
        bus.write_text(_BUS)
        places = {self._settings: "/etc/firewalld", self._folder / "log": "/var/log"}
        command = ("dbus-daemon", f"--config-file={bus}", "--nofork", "--nopidfile")
        self._held = _Held(pair, places, command)
        self._daemon: Running | None = None

    def command(self, *words: str) -> tuple[str, ...]:
        return self._held.command("firewall-cmd", "--quiet", *words)

    def run(self, *words: str) -> Finished:
        return run(self.command(*words))

    def up(self, found: Sequence[Rule], ipset: Sequence[str] = (), patience_s: float = FIREWALLD_START_S) -> float:
        """How long it takes until it says that it runs, in seconds. Raises BenchError where it has not by then."""
        self.down()
        zone = firewalld_zone(found, "bad" if ipset else None)
        (self._settings / "zones" / "public.xml").write_text(zone)
        if ipset:
            (self._settings / "ipsets" / "bad.xml").write_text(firewalld_ipset(ipset))
        began = time.perf_counter()
        self._daemon = Running(self._held.command("firewalld", "--nofork", "--nopid"))
        while time.perf_counter() - began < patience_s:
            if self._daemon.has_ended:
                raise self._daemon.fail(self._daemon.wait())
            asked = subprocess.run(self.command("--state"), capture_output=True)
            if asked.returncode == 0:
                return time.perf_counter() - began
            time.sleep(0.05)
        raise BenchError(f"firewalld does not run after {patience_s:.0f} s")

    def cpu_s(self) -> float:
        """Of the daemon so far."""
        fields = Path(f"/proc/{self._pid()}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mb(self) -> float:
        lines = Path(f"/proc/{self._pid()}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6

    def _pid(self) -> int:
        assert self._daemon is not None
        return self._daemon.pid

    def down(self) -> None:
        if self._daemon is not None:
            self._daemon.kill()
        self._daemon = None

    def close(self) -> None:
        self.down()
        self._held.close()


class _Held:
    """A process with mounts of its own in the near end, in which others are started."""

    def __init__(self, pair: Pair, places: dict[Path, str], command: Sequence[str]) -> None:
        words = [word for ours, theirs in places.items() for word in (str(ours), theirs)]
        # `ip netns exec` gives its command a mount namespace of its own, whose mounts nobody else sees.
        self._process = subprocess.Popen(
            (*pair.inside, "sh", "-c", _HOLD, "sh", *words, "--", *command),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self._process.kill()
            raise BenchError(f"no mounts of its own: {self._process.communicate()[1].strip()}")

    def command(self, *words: str) -> tuple[str, ...]:
        return ("nsenter", "--target", str(self._process.pid), "--mount", "--net", *words)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def has(name: str) -> bool:
    """Whether a firewall is there, with what the bench needs to run it."""
    return all(shutil.which(program) is not None for program in _NEEDS[name][0])


def unmeasurable(setting: Setting) -> str | None:
    """Why nothing of this can be measured here; None where it can."""
    if not setting.is_root:
        return "not measured: network namespaces need root"
    return None if setting.has("nft", "nftables") else "not measured: nft is not there; its Debian package is nftables"


def missing() -> list[str]:
    """A line for each firewall that is not there."""
    return [f"left out: {name}; its Debian packages are {packages}" for name, (_, packages) in _NEEDS.items()
            if not has(name)]  # fmt: skip


def load_floor(pair: Pair) -> None:
    nft(pair, FLOOR)


def nft(pair: Pair, text: str) -> None:
    done = subprocess.run((*pair.inside, "nft", "-f", "-"), input=text, text=True, capture_output=True)
    if done.returncode:
        raise BenchError(f"nft: {done.stderr.strip()[:200]}")


def fresh(setting: Setting, pair: Pair) -> Path:
    """An empty folder for what is in this pair."""
    folder = setting.folder / "enforce" / str(pair.number)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
