"""Two network namespaces that can talk to each other: `near` is where the firewall is, `far` is who comes to it.

Nothing leaves them: the cable between them is a veth pair, and neither end has a route to anywhere else.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from processes import BenchError

NEAR, FAR, LISTED = "10.78.0.1", "10.78.0.2", "203.0.113.77"
"""The addresses of the ends; the far end has one more, which block lists have on them."""
CABLE = "cable0"
HOSTS = "10.80.0.0/16"
"""As if behind the far end, which answers for all of them: see `Pair.add_hosts`."""

_numbers = itertools.count(1)


class Pair:
    """`inside` is what to put before a command to have it run at the near end."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        name = f"pfwbench{os.getpid()}-{self.number}"
        self.near, self.far = f"{name}-near", f"{name}-far"
        self.inside = ("ip", "netns", "exec", self.near)
        self.outside = ("ip", "netns", "exec", self.far)

    def make(self) -> None:
        for namespace in (self.near, self.far):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", self.near, "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", self.far)
        for namespace, addresses in ((self.near, (NEAR,)), (self.far, (FAR, LISTED))):
            for address in addresses:
                _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", CABLE)
            _ip("-n", namespace, "link", "set", CABLE, "up")
        _ip("-n", self.near, "route", "add", f"{LISTED}/32", "dev", CABLE)

    def add_hosts(self) -> None:
        """Let the far end have every address of HOSTS as its own."""
        _ip("-n", self.far, "route", "add", "local", HOSTS, "dev", "lo")
        _ip("-n", self.near, "route", "add", HOSTS, "via", FAR)

    def remove(self) -> None:
        for namespace in (self.near, self.far):
            subprocess.run(("ip", "netns", "del", namespace), capture_output=True)


@contextmanager
def pair() -> Iterator[Pair]:
    """Raises BenchError without root's rights or the program ip."""
    made = Pair()
    try:
        made.make()
        yield made
    finally:
        made.remove()


class Pairs(ExitStack):
    """Pairs, and whatever else has to go when they do."""

    def pair(self) -> Pair:
        return self.enter_context(pair())


def _ip(*words: str) -> None:
    _run(("ip", *words))


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise BenchError(f"{error.filename} is missing") from None
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{' '.join(command)}: {error.stderr.strip()}") from None
