"""Two network namespaces with a wire between them, made for one measurement and removed behind it.

Nothing leaves them: the wire is a veth pair, neither end has a route, and what arrives is addressed to a
MAC address that nobody has, so that the system behind the watched end drops it unread.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ends import LOCAL4, LOCAL6
from processes import BenchError, Running

WIRE = "wire0"
"""The name of the interface in both namespaces."""
_READY_S = 10.0


class Wire:
    """`sending` and `watched` are what to put before a command to have it run at that end."""

    def __init__(self, name: str) -> None:
        self._names = (f"{name}-tx", f"{name}-rx")
        self.sending = ("ip", "netns", "exec", self._names[0])
        self.watched = ("ip", "netns", "exec", self._names[1])

    def make(self) -> None:
        sending, watched = self._names
        for namespace in self._names:
            _ip("netns", "add", namespace)
            _in(namespace, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        _ip("-n", sending, "link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns", watched)
        # No IPv6 and no ARP on the wire: nothing is to be heard there but what is sent on purpose. The
        # watching machine has the addresses nevertheless, so that the traffic is its own.
        _ip("-n", watched, "addr", "add", f"{LOCAL4}/32", "dev", WIRE)
        for namespace in self._names:
            _ip("-n", namespace, "link", "set", WIRE, "arp", "off", "up")
        _in(watched, "sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=0")
        _ip("-n", watched, "link", "set", "lo", "up")
        _ip("-n", watched, "addr", "add", f"{LOCAL6}/128", "dev", "lo")

    def remove(self) -> None:
        for namespace in self._names:
            subprocess.run(("ip", "netns", "del", namespace), capture_output=True)

    def arrived(self) -> int:
        """Packets that have come out of the wire so far."""
        counter = f"/sys/class/net/{WIRE}/statistics/rx_packets"
        return int(_in(self._names[1], "cat", counter))


@contextmanager
def wire() -> Iterator[Wire]:
    """Raises BenchError without root's rights or the programs for it."""
    made = Wire(f"pfwbench{os.getpid()}")
    try:
        made.make()
        yield made
    finally:
        made.remove()


def wait_until_listening(running: Running) -> None:
    """Until the process has a packet socket open and bound. Raises BenchError when it does not come to that."""
    until = time.monotonic() + _READY_S
    sockets = Path(f"/proc/{running.pid}/net/packet")
    while time.monotonic() < until and not running.has_ended:
        try:
            # Columns: sk, RefCnt, Type, Proto, Iface, R(unning), Rmem, User, Inode.
            rows = [line.split() for line in sockets.read_text().splitlines()[1:]]
        except OSError:
            rows = []
        if any(row[4] != "0" and row[5] == "1" and row[3] != "0000" for row in rows):
            return
        time.sleep(0.01)
    if running.has_ended:
        raise running.fail(running.wait())
    running.kill()
    raise BenchError("a program that should listen does not")


def _ip(*arguments: str) -> None:
    _run(("ip", *arguments))


def _in(namespace: str, *command: str) -> str:
    return _run(("ip", "netns", "exec", namespace, *command))


def _run(command: tuple[str, ...]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError as error:
        raise BenchError(f"{error.filename} is missing") from None
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{' '.join(command)}: {error.stderr.strip()}") from None
