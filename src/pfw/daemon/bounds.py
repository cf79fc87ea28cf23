"""Bounds that were hit, for `pfw doctor`: what the daemon and its observer left out, what the kernel had no room for.

What is counted by the daemon comes over its interface; each count that stands for something that was left out is in
BOUNDS. A count that is new to `Service.status` or `Observer.counts` and means that goes there, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pfw.api.client import Client
from pfw.api.definition import Nothing
from pfw.api.interface import StatusResult
from pfw.api.messages import ApiError, ProtocolError
from pfw.daemon.programs import running
from pfw.drivers.store import run_folder
from pfw.enforce.neighbours import Area, Finding, Level
from pfw.model.text import counted

_SOCKET = "pfw.sock"
_TIMEOUT_S = 3.0
_LOAD = "nothing, if it was a flood; else less is asked of this machine, or more has to be given to it"
_HISTORY = "see whether the disk is slow or full; what was lost is not in pfw log"
BOUNDS: dict[str, tuple[str, str]] = {
    "connection_events_lost": ("events of connections that came too fast to be read, and are not in pfw log", _LOAD),
    "connections_follow_refused": ("connections that were too many to follow", _LOAD),
    "connections_sampled_out": ("connections like many others, which the detectors were not shown", "nothing"),
    "owners_look_up_refused": ("connections recorded without their program, being too many at once", "nothing"),
    "stopped_packets_lost": ("packets stopped by rules that are not in pfw log, being too many at once", _LOAD),
    "stopped_untold_lost": ("connections that the daemon stopped and that are not in pfw log", _LOAD),
    "special_packets_lost": ("packets that the detectors were not shown, being too many at once", _LOAD),
    "detectors_refused": ("times that a detector had no room for another source", _LOAD),
    "listeners_refused": ("listening sockets that were too many to look at", "see what opens so many: ss -ltnup"),
    "history_lost": ("things that the history lost", _HISTORY),
    "records_lost": ("records that the logs lost", "see whether the disk is slow or full"),
    "alerts_untold_lost": ("alerts that your program or webhook was not told of", "see why it is slow"),
    "bans_refused": ("bans that were due and not given, being too many a minute", "look at pfw log --alerts"),
    "names_lost": ("answers of DNS that came too fast to be read", "nothing"),
    "packets_lost": ("packets that should be asked about, and were lost", _LOAD),
    "dropped_queue_full": ("packets dropped because too many waited to be asked about", _LOAD),
    "dropped_buffer_full": ("packets dropped on their way to be asked about", _LOAD),
    "verdicts_refused": ("verdicts that the kernel did not take", "nothing: it asks again"),
    "prompts_crowded": ("packets blocked behind too many of their kind that waited", "nothing"),
    "prompts_full": ("connections blocked because too many waited for an answer", "answer them: pfw ask"),
    "prompts_lost": ("waiting packets that the kernel gave up", _LOAD),
    "observer_restarts": ("times that the observer had ended, and was started again", "see what the daemon said then"),
}
"""By the name of a count: what one of it means, and what can be done."""
_STATISTICS = Path("/proc/net/stat/nf_conntrack")
_COUNT, _MAX = (Path(f"/proc/sys/net/netfilter/nf_conntrack_{name}") for name in ("count", "max"))
_FULL_SHARE = 0.9


def findings() -> Iterator[Finding]:
    """Each bound that was hit since the daemon began, and since the kernel did."""
    hit = list(_of_daemon(_counts()))
    hit += _of_kernel()
    yield from hit or (Finding(Area.STATE, Level.OK, "no bound was hit"),)


def _counts() -> Mapping[str, int]:
    if running() is None:
        return {}
    with suppress(OSError, ApiError, ProtocolError), Client(run_folder() / _SOCKET, _TIMEOUT_S) as client:
        return client.call("Status", Nothing(), StatusResult).counts
    return {}


def _of_daemon(counts: Mapping[str, int]) -> Iterator[Finding]:
    for name, (what, advice) in BOUNDS.items():
        count = counts.get(name, 0)
        if count > 0:
            level = Level.NOTE if advice == "nothing" else Level.WARNING
            yield Finding(Area.STATE, level, f"since the daemon began, {what}: {count:,}", advice)


def _of_kernel() -> Iterator[Finding]:
    with suppress(OSError, ValueError):
        entries, most = int(_COUNT.read_text()), int(_MAX.read_text())
        if most and entries >= most * _FULL_SHARE:
            what = f"the kernel tracks {entries:,} connections of {most:,} that it may: new ones are soon dropped"
            yield Finding(Area.KERNEL, Level.WARNING, what, f"sysctl net.netfilter.nf_conntrack_max={most * 2}")
    dropped = _dropped()
    if dropped:
        what = f"since it began, the kernel had no room for {counted(dropped, 'connection')}, and dropped its packets"
        yield Finding(Area.KERNEL, Level.WARNING, what, "raise net.netfilter.nf_conntrack_max")


def _dropped() -> int:
    """Connections that were not tracked for want of room, by all processors."""
    with suppress(OSError, ValueError, IndexError):
        names, *rows = (line.split() for line in _STATISTICS.read_text().splitlines())
        at = names.index("drop")
        return sum(int(row[at], 16) for row in rows)
    return 0
