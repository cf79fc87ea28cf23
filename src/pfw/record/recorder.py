"""The recorder: commands in, records out to all places that were asked for.

The text log, syslog and the journal get what a person wants to read: blocked and rejected connections,
matches of rules with `log`, and what is suspicious, with repeats folded, and alerts. EVE gets every drop, alert,
anomaly and every connection's end, because programs fold for themselves. Losses are counted, never raised.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from msgspec import Struct, json

from pfw.model.command import Alerted, Command, Ended, Frame, Judged, Notice, Suspicious
from pfw.model.flow import Flow
from pfw.model.text import printable
from pfw.record import alerts, eve
from pfw.record.files import BUDGET_BYTES, FILE_BYTES, FileRefusedError, RotatingFile, why_refused
from pfw.record.fold import CAPACITY, WINDOW_S, Folded, Folder
from pfw.record.headers import read_headers
from pfw.record.journal import Journal, flow_fields, verdict_fields
from pfw.record.summary import describe_kind, plain_summary, summary
from pfw.record.syslog import Severity, Syslog
from pfw.record.textlog import fold_message, judged_reason, suspicious_reason, text_line
from pfw.record.trouble import Trouble

TICK_S = 1.0


class Options(Struct, frozen=True, kw_only=True):
    """Where to record, None for not there. The budget is for all files together.

    `summaries_per_s` bounds the work on Scapy's summaries (0.2 ms each); above it a line has a plain one.
    None is for captures read from a file, where nothing presses.
    """

    log: str | None = None
    eve: str | None = None
    syslog: str | None = None
    journal: str | None = None
    budget_bytes: int = BUDGET_BYTES
    file_bytes: int = FILE_BYTES
    pkt_src: str = "wire/pcap"
    summaries_per_s: int | None = 200
    fold_window_s: int = WINDOW_S
    fold_capacity: int = CAPACITY


class Counts(Struct, frozen=True):
    """What became of the records. Keys are the sinks `log`, `eve`, `syslog`, `journal`, as far as they are on.

    `reasons`: `log: No space left on device` and how many lines that cost. `unfolded`: lines written though
    they might have been folded, the table being full. `plain`: lines without Scapy's summary, for the rate.
    """

    lines: dict[str, int]
    lost: dict[str, int]
    lost_bytes: dict[str, int]
    reasons: dict[str, int]
    folded: int
    unfolded: int
    plain: int


class _Line(Struct, frozen=True):
    """A record for people, before it has its summary."""

    time: float
    key: Hashable
    coarse: str
    like: str
    reason: str
    severity: Severity
    kind: str
    frame: Frame | None
    flow: Flow | None
    fields: dict[str, str]


class Recorder:
    """Performs commands, in one process with nobody waiting for it.

    `now` is in seconds by one clock; times of commands may be those of a capture long ago. Raises
    FileRefusedError or ValueError when it is made for places that cannot be meant.
    """

    def __init__(self, options: Options, tell: Callable[[str], None]) -> None:
        self.options = options
        reason = why_refused(options.log, options.eve)
        if reason is not None:
            raise FileRefusedError(reason)
        files = (options.log is not None) + (options.eve is not None)
        budget_bytes = options.budget_bytes // max(files, 1)

        def file(path: str | None) -> RotatingFile | None:
            return None if path is None else RotatingFile(path, tell, budget_bytes, options.file_bytes)

        self._log = file(options.log)
        self._eve = file(options.eve)
        self._syslog = None if options.syslog is None else Syslog(options.syslog, tell)
        self._journal = None if options.journal is None else Journal(options.journal, tell)
        self._for_people = bool(self._log or self._syslog or self._journal)
        self._folder = Folder(options.fold_window_s, options.fold_capacity)
        self._run: int | None = None
        self._behind_s = 0.0
        self._ticked = 0.0
        self._second = 0.0
        self._summaries = 0
        self._plain = 0

    def perform(self, command: Command, now: float) -> None:
        """Record a command, or pass over it where it is none for the records."""
        if self._run is None:
            self._run = int(abs(now))
        if abs(now - self._ticked) >= TICK_S:
            self.tick(now)
        match command:
            case Judged():
                self._judged(command, now)
            case Suspicious():
                self._suspicious(command, now)
            case Ended():
                if self._eve is not None:
                    self._write_eve(eve.flow_event(command, self.options.pkt_src, self._run), now)
            case Alerted():
                self._alerted(command, now)
            case Notice():
                self._write_daemons(command.time, Severity.NOTICE, "notice", printable(command.text), {}, now)

    def stats(self, counters: Mapping[str, int | float], now: float) -> None:
        """Record counters, by the names of `eve.stats_event`, in EVE."""
        if self._eve is not None:
            self._write_eve(eve.stats_event(counters, now - self._behind_s), now)

    def tick(self, now: float) -> None:
        """Ends windows of folding that are over, tries again what failed; for when no commands come."""
        self._ticked = now
        self._write_folded(self._folder.ended(now - self._behind_s), now)
        for file in (self._log, self._eve):
            if file is not None:
                file.tick(now)

    def close(self, now: float) -> Counts:
        """Write what is still folded, close everything, say what became of it all."""
        self._write_folded(self._folder.flush(), now)
        for file in (self._log, self._eve):
            if file is not None:
                file.close()
        for daemon in (self._syslog, self._journal):
            if daemon is not None:
                daemon.sink.close()
        return self.counts()

    def counts(self) -> Counts:
        """What became of the records so far."""
        sinks: dict[str, tuple[int, Trouble]] = {}
        for name, file in (("log", self._log), ("eve", self._eve)):
            if file is not None:
                sinks[name] = (file.written, file.trouble)
        for name, daemon in (("syslog", self._syslog), ("journal", self._journal)):
            if daemon is not None:
                sinks[name] = (daemon.sink.written, daemon.sink.trouble)
        return Counts(
            lines={name: written for name, (written, _) in sinks.items()},
            lost={name: trouble.lost_lines for name, (_, trouble) in sinks.items()},
            lost_bytes={name: trouble.lost_bytes for name, (_, trouble) in sinks.items()},
            reasons={
                f"{name}: {reason}": count
                for name, (_, trouble) in sinks.items()
                for reason, count in trouble.reasons.items()
            },
            folded=self._folder.folded,
            unfolded=self._folder.unfolded,
            plain=self._plain,
        )

    def _judged(self, command: Judged, now: float) -> None:
        verdict, flow = command.verdict, command.flow
        if self._eve is not None and verdict.stops:
            self._write_eve(eve.drop_event(command, self.options.pkt_src, self._run or 0), now)
        if not self._for_people or not (verdict.stops or verdict.log):
            return
        which = flow.port if flow.icmp_type is None else flow.icmp_type
        key = (verdict.action, verdict.rule, flow.direction, flow.protocol, flow.source, flow.destination, which)
        reason = judged_reason(command)
        if self._folds(key, reason, command.time, now):
            return
        line = _Line(
            time=command.time,
            key=key,
            coarse=reason,
            like=f"{describe_kind(flow)} - {reason}",
            reason=reason,
            severity=Severity.WARNING if verdict.stops else Severity.NOTICE,
            kind=reason.partition(" ")[0].lower(),
            frame=command.frame,
            flow=flow,
            fields=verdict_fields(verdict) | flow_fields(flow),
        )
        self._write_line(line, now)

    def _alerted(self, command: Alerted, now: float) -> None:
        """Alerts are few, and each is written: what is too much was folded by whoever made it."""
        if self._eve is not None:
            self._eve.write(json.encode(alerts.eve_event(command)) + b"\n", now)
        text = alerts.message(command)
        if self._log is not None:
            self._log.write(text_line(command.time, text), now)
        severity = Severity.WARNING if alerts.severity(command.alert.score) < 3 else Severity.NOTICE
        self._write_daemons(command.time, severity, "alert", text, alerts.journal_fields(command), now)

    def _suspicious(self, command: Suspicious, now: float) -> None:
        if self._eve is not None:
            self._write_eve(eve.suspicious_event(command, self.options.pkt_src), now)
        if not self._for_people:
            return
        of = command.flow or read_headers(command.frame)
        key = (command.event, of and of.source, of and of.destination)
        reason = suspicious_reason(command)
        if self._folds(key, command.event, command.time, now):
            return
        like = plain_summary(command.frame, command.flow)
        fields = {"PFW_SUSPICION": printable(command.event)}
        line = _Line(
            time=command.time,
            key=key,
            coarse=command.event,
            like=f"{like} - {reason}",
            reason=reason,
            severity=Severity.NOTICE,
            kind="suspicious",
            frame=command.frame,
            flow=command.flow,
            fields=fields if command.flow is None else fields | flow_fields(command.flow),
        )
        self._write_line(line, now)

    def _folds(self, key: Hashable, coarse: str, time: float, now: float) -> bool:
        self._behind_s = now - time
        self._write_folded(self._folder.ended(time), now)
        return self._folder.repeats(key, coarse, time)

    def _write_line(self, line: _Line, now: float) -> None:
        self._folder.begin(line.key, line.like, line.coarse, f"others - {line.reason}", line.time)
        message = f"{self._summary(line.frame, line.flow, now)} - {line.reason}"
        if self._log is not None:
            self._log.write(text_line(line.time, message), now)
        self._write_daemons(line.time, line.severity, line.kind, message, line.fields, now)

    def _write_folded(self, done: list[Folded], now: float) -> None:
        for folded in done:
            message = fold_message(folded)
            if self._log is not None:
                self._log.write(text_line(folded.time, message), now)
            self._write_daemons(folded.time, Severity.NOTICE, "folded", message, {"PFW_COUNT": str(folded.count)}, now)

    def _write_daemons(
        self, time: float, severity: Severity, kind: str, message: str, fields: dict[str, str], now: float
    ) -> None:
        if self._syslog is not None:
            self._syslog.write(time, severity, kind, message, now)
        if self._journal is not None:
            self._journal.write(severity, kind, message, fields, now)

    def _write_eve(self, event: eve.Event, now: float) -> None:
        if self._eve is not None:
            self._eve.write(eve.encode(event), now)

    def _summary(self, frame: Frame | None, flow: Flow | None, now: float) -> str:
        if frame is None:
            return plain_summary(None, flow)
        if self.options.summaries_per_s is not None:
            if abs(now - self._second) >= 1:
                self._second = now
                self._summaries = 0
            if self._summaries >= self.options.summaries_per_s:
                self._plain += 1
                return plain_summary(frame, flow)
            self._summaries += 1
        return summary(frame)
