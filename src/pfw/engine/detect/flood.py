"""What the detectors of floods share: what came to one destination in a second, and what was told of it.

A flood is seen at its destination. Its sources may be forged: they are counted, but neither kept beyond a bound nor
told of, unless it is one that sent nearly all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pfw.engine.detect.detector import Key, Table
from pfw.model.address import format_address

WINDOW_S = 1.0
GRACE_S = 2.0
"""So long after its end a window is judged: who was asked last had time to answer."""
COUNTED_MAX = 256
"""Sources, and ports, of a window that are counted one by one. All that matters is whether they are many."""
QUIET_S = 60.0
"""What begins after such a pause is another flood."""
ONE_SHARE = 0.9
"""Who sent so much of a flood is its source; the others only came at the same time."""
_REST = -1
_WINDOWS_MAX = 6


class Counts:
    """What came to one port, in packets that begin something."""

    __slots__ = ("answered", "begun", "refused")

    def __init__(self) -> None:
        self.begun = self.answered = self.refused = 0


class Window:
    """What came to one destination within WINDOW_S. `total` counts for all ports; `streamed` are packets of connections
    that nobody ever answered, `unwanted` those of them that go to a closed port, `skipped` what was counted only."""

    __slots__ = ("last", "ports", "size_bytes", "skipped", "sources", "start", "streamed", "total", "unwanted")

    def __init__(self, start: float) -> None:
        self.start = self.last = start
        self.total = Counts()
        self.ports: dict[int, Counts] = {}
        self.sources: dict[bytes, int] = {}
        self.size_bytes = self.skipped = self.streamed = self.unwanted = 0

    @property
    def packets(self) -> int:
        return self.total.begun + self.streamed

    @property
    def has_many_sources(self) -> bool:
        return self.estimated(len(self.sources)) >= COUNTED_MAX

    def estimated(self, counted: int) -> float:
        """How many there are of what was counted among those packets that were looked at, if they all differ."""
        looked_at = max(1, self.packets - self.skipped)
        return counted * self.packets / looked_at if counted * 2 >= looked_at else counted

    def port(self, port: int | None) -> Counts:
        number = _REST if port is None else port
        found = self.ports.get(number)
        if found is None:
            if len(self.ports) >= COUNTED_MAX:
                return self.ports.setdefault(_REST, Counts())
            found = self.ports[number] = Counts()
        return found

    def busiest(self) -> tuple[int | None, Counts]:
        """The port to which most came that nobody answered."""
        known = [(port, counts) for port, counts in self.ports.items() if port != _REST]
        return max(known, key=lambda each: each[1].begun - each[1].answered, default=(None, self.total))

    def add_source(self, source: bytes, packets: int = 1) -> None:
        if source in self.sources or len(self.sources) < COUNTED_MAX:
            self.sources[source] = self.sources.get(source, 0) + packets

    def begin(self, port: int | None, packets: int, *, skipped: int = 0, is_one_port: bool = True) -> Counts:
        """So many began, `skipped` of them only counted, and to another port each unless it `is_one_port`."""
        self.total.begun += packets
        self.skipped += skipped
        counts = self.port(port)
        counts.begun += packets if is_one_port else packets - skipped
        return counts

    def take(self, other: Window) -> None:
        """Add what another window has, without its ports."""
        self.last = max(self.last, other.last)
        self.total.begun += other.total.begun
        self.total.answered += other.total.answered
        self.total.refused += other.total.refused
        self.skipped += other.skipped
        for source, packets in other.sources.items():
            self.add_source(source, packets)

    def one_source(self) -> bytes | None:
        """Who sent nearly all, if it was one."""
        source = max(self.sources, key=self.sources.__getitem__, default=None)
        return source if source is not None and self.sources[source] >= ONE_SHARE * self.packets else None


class Flood:
    """One destination: the windows that are not judged yet, and the flood that they are part of. `tried` counts what
    may as well be a scan, `slow` is the long window of what is too little for one second."""

    __slots__ = ("_told", "first", "last", "most", "packets", "seconds", "skipped", "slow", "source", "sources",
                 "tried", "what", "windows")  # fmt: skip

    def __init__(self) -> None:
        self.windows: deque[Window] = deque()
        self.what = ""
        self.slow: Window | None = None
        self._restart(0.0)

    def _restart(self, first: float) -> None:
        self.first = self.last = first
        self.packets = self.seconds = self.most = self.tried = self.skipped = 0
        self._told = 0
        self.source: bytes | None = None
        self.sources = 0

    def at(self, time: float) -> Window:
        """The window for what happens now. Times may run backwards a little."""
        if not self.windows or time >= self.windows[-1].start + WINDOW_S:
            self.windows.append(Window(time))
        window = self.windows[-1]
        window.last = max(window.last, time)
        return window

    def of(self, time: float) -> Window | None:
        """The window in which something happened before, if it is still there."""
        for window in reversed(self.windows):
            if window.start <= time:
                return window if time < window.start + WINDOW_S else None
        return None

    def ripe(self, now: float) -> list[Window]:
        """The windows that can be judged; they go."""
        judged = []
        while self.windows and (
            now >= self.windows[0].start + WINDOW_S + GRACE_S or len(self.windows) > _WINDOWS_MAX
        ):  # fmt: skip
            judged.append(self.windows.popleft())
        return judged

    def rest(self, now: float) -> list[Window]:
        """The windows that can be judged where perhaps nothing more comes: nobody was answered, or there was some time
        for it. They go."""
        judged = [each for each in self.windows if not each.total.answered or now >= each.start + WINDOW_S]
        self.windows = deque(each for each in self.windows if each not in judged)
        return judged

    def grow(self, window: Window, packets: int, what: str) -> None:
        """A window was part of the flood, with so many packets; `what` they were."""
        if window.start - self.last > QUIET_S or not self.seconds:
            self._restart(window.start)
        source = window.one_source()
        self.source = source if not self.seconds or self.source == source else None
        self.sources = max(self.sources, len(window.sources))
        self.first, self.last = min(self.first, window.start), max(self.last, window.last)
        self.packets += packets
        self.skipped += window.skipped
        lasting_s = max(WINDOW_S, window.last - window.start)
        self.most = max(self.most, round(packets / lasting_s))
        self.seconds += round(lasting_s)
        self.what = what

    @property
    def is_quiet(self) -> bool:
        """Nothing of it was a flood so far. What is busy was used last, and so is not asked."""
        return not self.seconds

    def is_due_at(self, now: float, judge: Callable[..., None], *whom: object) -> bool:
        """Have the windows judged that can be, by `judge(*whom, flood, window)`; whether it is to be told of."""
        for window in self.ripe(now):
            judge(*whom, self, window)
        return self.is_due()

    def is_grown_at_end(self, now: float, judge: Callable[..., None], *whom: object) -> bool:
        """The same where perhaps nothing more comes."""
        for window in self.rest(now):
            judge(*whom, self, window)
        return self.has_grown()

    def is_due(self) -> bool:
        """Whether it is to be told of: whenever it has doubled."""
        return self.packets >= 2 * self._told and self.has_grown()

    def has_grown(self) -> bool:
        """Whether there is more than was told of last. From now on it is told of."""
        if self.packets == self._told:
            return False
        self._told = self.packets
        return True

    def pace(self) -> str:
        """How fast it came at most, and how much of it was only counted, for sentences."""
        skipped = f" ({self.skipped} of them only counted)" if self.skipped else ""
        return f"up to {self.most} a second{skipped}"

    def whence(self) -> str:
        """From how many, for sentences."""
        if self.source is not None:
            return f"from {format_address(self.source)}"
        return f"from {COUNTED_MAX} or more sources" if self.sources >= COUNTED_MAX else f"from {self.sources} sources"


def floods(destinations_max: int, keep_s: float) -> Table[Key, Flood]:
    """A table of destinations, in which those that nobody floods make room."""
    return Table(destinations_max, keep_s, Flood, lambda flood: flood.is_quiet)
