"""`pfw agent`: the firewall's prompts and alerts as notifications on a person's desktop."""

from __future__ import annotations

import gc
import os
import signal
import socket
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from pfw.commands.calling import OK, REFUSED, tell
from pfw.drivers.store import run_folder


def agent(_: Namespace) -> int:
    """`pfw agent`."""
    if find_spec("jeepney") is None:
        tell("this needs the package jeepney; type: pip install 'pfw[agent]'")
        return REFUSED
    from pfw.agent.bus import BusError
    from pfw.agent.daemon import DeniedError

    address = _bus_address()
    if address is None:
        tell("there is no session bus here (DBUS_SESSION_BUS_ADDRESS is not set); start it in a desktop session")
        return REFUSED
    gc.enable()  # it runs for days
    try:
        return _run(address)
    except (BusError, DeniedError) as error:
        tell(str(error))
        return REFUSED


def _run(address: str) -> int:
    from pfw.agent.bus import Bus
    from pfw.agent.notifications import OWN_NAME, Notifications
    from pfw.agent.session import Session

    with _ending() as stop, Bus(address) as bus:
        if not bus.claim(OWN_NAME):
            tell("an agent runs in this session already")
            return OK
        Session(run_folder() / "pfw.sock", Notifications(bus), tell).run(stop)
    return OK


def _bus_address() -> str | None:
    named = os.environ.get("DBUS_SESSION_BUS_ADDRESS")
    if named:
        return named
    folder = os.environ.get("XDG_RUNTIME_DIR")
    return f"unix:path={folder}/bus" if folder and (Path(folder) / "bus").is_socket() else None


@contextmanager
def _ending() -> Iterator[int]:
    """A descriptor that becomes readable when a signal asks for the end."""
    ours, theirs = socket.socketpair()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    theirs.setblocking(False)
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield ours.fileno()
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()
