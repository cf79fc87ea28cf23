"""What brings the policy back at a boot: units for systemd that need nothing of ours to run.

Before any network is up a unit hands the last good ruleset, a file, to nft or to the `*-restore` programs. No
Python takes part in that, so nothing that is wrong with Python, or with us, leaves a machine open. Behind it, when
all else is up, bans get back the times that they had left, and block lists are looked after.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from pfw.daemon import banning
from pfw.daemon.backend import Backend, Change
from pfw.daemon.state import State
from pfw.drivers import clock, store
from pfw.drivers.iptables import KINDS
from pfw.drivers.programs import Job, RefusedError, find, run

UNITS = Path("/etc/systemd/system")
_PREPARED = "pending-"
_FILES = "boot"
"""What the names of those files begin with."""
_RUNNING = Path("/run/systemd/system")
_EARLY = """[Unit]
Description=Personal Firewall: the last good ruleset ({name})
Documentation=man:pfw(1)
DefaultDependencies=no
After=local-fs.target
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
ConditionPathExists={state}/{first}

[Service]
Type=oneshot
RemainAfterExit=yes
{commands}

[Install]
WantedBy=sysinit.target
"""
_SETTLE = """[Unit]
Description=Personal Firewall: bans get back the time that they had left
Documentation=man:pfw(1)
After=local-fs.target time-sync.target
ConditionPathExists={state}/current

[Service]
Type=oneshot
Environment={variable}={state}
ExecStart={pfw} ban reload
{sandbox}

[Install]
WantedBy=multi-user.target
"""
_DAEMON = """[Unit]
Description=Personal Firewall: programs, prompts, history and detection
Documentation=man:pfw(1)
After=local-fs.target pfw-boot-nftables.service
Before=network-online.target
ConditionPathExists={state}/labels.json

[Service]
Type=notify
Environment={variable}={state}
ExecStart={pfw} daemon
Restart=always
RestartSec=1
RuntimeDirectory=pfw
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF CAP_PERFMON
CapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_LEASE
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={state} {policies}
ProtectHome=read-only
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6 AF_PACKET
SystemCallArchitectures=native
SystemCallFilter=@system-service bpf pidfd_getfd

[Install]
WantedBy=multi-user.target
"""
"""There only once a policy was in force that needs it: then the numbers of labels are written down."""
_LISTS = """[Unit]
Description=Personal Firewall: block lists that are due are fetched
Documentation=man:pfw(1)
After=network-online.target
ConditionPathExists={state}/current

[Service]
Type=oneshot
Environment={variable}={state}
ExecStart={pfw} lists update --due
{sandbox}
"""
_TIMER = """[Unit]
Description=Personal Firewall: look after block lists
Documentation=man:pfw(1)

[Timer]
OnBootSec=3min
OnUnitActiveSec=10min
RandomizedDelaySec=60

[Install]
WantedBy=timers.target
"""
_SANDBOX = """CapabilityBoundingSet=CAP_NET_ADMIN CAP_DAC_OVERRIDE CAP_SYS_PTRACE
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={state}
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelModules=yes
RestrictSUIDSGID=yes"""


def keep_files(state: State, backend: Backend, change: Change) -> None:
    """Write the files that bring the policy and the bans back; those of another backend go. Raises OSError."""
    files = {**change.boot(), **backend.boot_bans(banning.active(state, clock.now()))}
    for name, text in files.items():
        state.files.write(name, text.encode(errors="surrogateescape"))
    remove_files(state, frozenset(files))


def prepare_files(state: State, change: Change) -> None:
    """Write down what a boot brings back if the change is confirmed. Raises OSError."""
    drop_prepared(state)
    for name, text in change.boot().items():
        state.files.write(f"{_PREPARED}{name}", text.encode(errors="surrogateescape"))


def keep_prepared(state: State, backend: Backend) -> None:
    """The change is confirmed: what was written down counts. Raises OSError."""
    names = [name.removeprefix(_PREPARED) for name in state.files.names(".") if name.startswith(_PREPARED)]
    bans = backend.boot_bans(banning.active(state, clock.now()))
    for name in names:
        state.files.rename(f"{_PREPARED}{name}", name)
    for name, text in bans.items():
        state.files.write(name, text.encode(errors="surrogateescape"))
    remove_files(state, frozenset([*names, *bans]))


def drop_prepared(state: State) -> None:
    for name in state.files.names("."):
        if name.startswith(_PREPARED):
            state.files.remove(name)


def has_files(state: State) -> bool:
    """Whether something is there that a boot would bring back."""
    return any(name.startswith(_FILES) for name in state.files.names("."))


def remove_files(state: State, kept: frozenset[str] = frozenset()) -> None:
    for name in state.files.names("."):
        if name.startswith(_FILES) and name not in kept:
            state.files.remove(name)


def units(state: Path) -> dict[str, str]:
    """The units by name, for a state in this folder."""
    # systemd reads % as the beginning of a specifier.
    folder = str(state).replace("%", "%%")
    python = f"{sys.executable} -I -m pfw" if sys.flags.isolated else f"{sys.executable} -P -m pfw"
    words = {"state": folder, "variable": store.VARIABLE, "pfw": python, "sandbox": _SANDBOX.format(state=folder)}
    nft = find("nft") or "/usr/sbin/nft"
    made = {
        "pfw-boot-nftables.service": _early("nftables", folder, "boot.nft", [
            f"{nft} -f {folder}/boot.nft", f"{nft} -f {folder}/boot-bans.nft"]),
        "pfw-settle.service": _SETTLE.format(**words),
        "pfw-lists.service": _LISTS.format(**words),
        "pfw-lists.timer": _TIMER,
        "pfw-daemon.service": _DAEMON.format(**words, policies=_policies(state).replace("%", "%%")),
    }  # fmt: skip
    for kind in KINDS:
        if (restore := find(f"{kind}-restore")) and (restore6 := find(f"{kind.replace('ip', 'ip6', 1)}-restore")):
            ipset = find("ipset") or "/usr/sbin/ipset"
            name = f"boot.{kind}"
            made[f"pfw-boot-{kind}.service"] = _early(kind, folder, f"{name}.v4", [
                f"{ipset} -exist restore -file {folder}/{name}.ipset",
                f"{ipset} -exist restore -file {folder}/boot-bans.ipset",
                f"{restore} --noflush {folder}/{name}.v4",
                f"{restore6} --noflush {folder}/{name}.v6",
            ])  # fmt: skip
    return made


def _policies(state: Path) -> str:
    """The folder of the policy file in force, which answers that hold always are written into."""
    known = State(store.Store(state))
    applied = known.applied(known.current())
    return str(Path(applied.path).parent) if applied is not None and applied.path.startswith("/") else ""


def _early(name: str, state: str, first: str, commands: list[str]) -> str:
    lines = "\n".join(f"ExecStart={command}" for command in commands)
    return _EARLY.format(name=name, state=state, first=first, commands=lines)


def install(state: Path, folder: Path = UNITS) -> list[str]:
    """Write the units and switch them on; their paths. Raises OSError and RefusedError."""
    written = []
    for name, text in units(state).items():
        store.write(folder / name, text.encode(), 0o644)
        written.append(str(folder / name))
        if (target := _wanted_by(text)) is not None:
            link = folder / f"{target}.wants" / name
            link.parent.mkdir(mode=0o755, exist_ok=True)
            with suppress(FileExistsError):
                link.symlink_to(f"../{name}")
    _reload(folder)
    return written


def uninstall(folder: Path = UNITS) -> list[str]:
    """Take the units out again; what was there of them. Raises OSError and RefusedError."""
    removed = []
    for path in sorted([*folder.glob("pfw-*.service"), *folder.glob("pfw-*.timer"), *folder.glob("*.wants/pfw-*")]):
        if path.is_symlink() or "Description=Personal Firewall" in path.read_text(errors="replace"):
            path.unlink()
            removed.append(str(path))
    _reload(folder)
    return removed


def _wanted_by(text: str) -> str | None:
    return next((line.partition("=")[2] for line in text.splitlines() if line.startswith("WantedBy=")), None)


def _reload(folder: Path) -> None:
    """Have systemd take notice, where it runs and these are its units."""
    if folder == UNITS and _RUNNING.is_dir() and os.geteuid() == 0:
        try:
            run(Job(("systemctl", "daemon-reload")))
        except RefusedError as error:
            raise RefusedError(f"the units are written, but systemd did not take notice: {error.what}") from None
