"""What people see of the past: a line a connection, alerts between them, as text, JSON or CSV. Pure; times local on
screen, UTC in JSON and CSV.

Programs, rules and names of hosts are other people's words: all of them pass through `printable` here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from pfw.cli.report import size_text
from pfw.cli.screen import COLOURS, LABELS, encode, utc_time
from pfw.cli.table import Column, clip, pad, table
from pfw.cli.times import brief_text, moment_text, span_text
from pfw.model.address import format_address
from pfw.model.flow import Direction
from pfw.model.history import Entry, FirstSeen, Noticed, Subject
from pfw.model.packet import PROTOCOL_NAMES, PROTOCOLS
from pfw.model.program import Certainty
from pfw.model.text import counted, printable
from pfw.model.verdict import Action

Event = Entry | Noticed
Services = Callable[[int], str | None]
"""What a port is called."""

_ALERT_COLOUR, _PLAIN = "\x1b[35m", "\x1b[0m"
_ARROWS = {Direction.IN: "<-", Direction.OUT: "->", Direction.FORWARD: "=>"}
_NAME_COLUMNS, _EVIDENCE_COLUMNS = 80, 400
"""A name or a sentence is cut there in text; JSON and CSV have all of it."""
_LABEL_COLUMNS, _WHO_COLUMNS, _REMOTE_COLUMNS = 10, 20, 28
_TEXTS_MAX = 4096
"""Of one sort, that are the same on many lines and are kept."""
_PERIODS = {3600: "an hour", 86400: "a day"}
_STOPPED = (Action.BLOCK, Action.REJECT)
_MAC_BYTES = 6
_FORMULA = ("=", "+", "-", "@")
"""A cell that begins with one of these is run by spreadsheets."""

ENTRY_KEYS = (
    "event", "id", "time", "end", "duration_s", "verdict", "rule", "direction", "protocol", "local", "remote", "name",
    "port", "from_port", "icmp_type", "interface", "program", "user", "uid", "unit", "certainty", "sent_bytes",
    "sent_packets", "received_bytes", "received_packets", "count", "period_s",
)  # fmt: skip
ALERT_KEYS = (
    "event", "time", "kind", "source", "target", "first", "last", "score", "evidence", "program", "response",
)  # fmt: skip


def entry_facts(entry: Entry) -> dict[str, object]:
    """A connection as JSON shows it, with the keys of `ENTRY_KEYS`."""
    subject, traffic = entry.subject, entry.traffic
    return {
        "event": "connection",
        "id": entry.id,
        "time": utc_time(entry.start),
        "end": None if entry.end is None else utc_time(entry.end),
        "duration_s": None if entry.end is None else round(entry.end - entry.start, 6),
        "verdict": subject.action,
        "rule": _safe(subject.rule),
        "direction": subject.direction,
        "protocol": protocol_text(subject.protocol),
        "local": _address_fact(subject.local),
        "remote": _address_fact(entry.remote),
        "name": _safe(entry.name),
        "port": subject.port,
        "from_port": entry.from_port,
        "icmp_type": subject.icmp_type,
        "interface": _safe(subject.interface),
        "program": _safe(subject.program),
        "user": _safe(subject.user),
        "uid": subject.uid,
        "unit": _safe(subject.unit),
        "certainty": subject.certainty,
        "sent_bytes": traffic.sent_bytes,
        "sent_packets": traffic.sent_packets,
        "received_bytes": traffic.received_bytes,
        "received_packets": traffic.received_packets,
        "count": entry.count,
        "period_s": entry.period_s,
    }


def alert_facts(alert: Noticed) -> dict[str, object]:
    """An alert as JSON shows it, with the keys of `ALERT_KEYS`."""
    return {
        "event": "alert",
        "time": utc_time(alert.time),
        "kind": alert.kind,
        "source": _address_fact(alert.source),
        "target": _address_fact(alert.target),
        "first": utc_time(alert.first),
        "last": utc_time(alert.last),
        "score": alert.score,
        "evidence": printable(alert.evidence),
        "program": _safe(alert.program),
        "response": printable(alert.response),
    }


def _facts(event: Event) -> dict[str, object]:
    return entry_facts(event) if isinstance(event, Entry) else alert_facts(event)


class JsonLog:
    """An object a line, `event` telling `connection` and `alert` apart."""

    def head(self) -> list[str]:
        return []

    def line(self, event: Event) -> str:
        return encode(_facts(event))


class CsvLog:
    """Comma-separated values (RFC 4180, but for its line ends) with the keys of JSON as names."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys

    def head(self) -> list[str]:
        return [self._row(self._keys)]

    def line(self, event: Event) -> str:
        facts = _facts(event)
        return self._row([_cell(facts[key]) for key in self._keys])

    def _row(self, cells: Sequence[object]) -> str:
        import csv
        from io import StringIO

        row = StringIO()
        csv.writer(row, lineterminator="").writerow(cells)
        return row.getvalue()


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


class TextLog:
    """Lines for a person."""

    def __init__(self, services: Services, *, colour: bool) -> None:
        self._services = services
        self._colour = colour
        self._subjects: dict[Subject, tuple[str, str, str]] = {}
        self._remotes: dict[tuple[bytes, str | None], str] = {}
        self._second, self._moment = -1, ""

    def head(self) -> list[str]:
        return []

    def line(self, event: Event) -> str:
        return self._entry(event) if isinstance(event, Entry) else self._alert(event)

    def _entry(self, entry: Entry) -> str:
        who, service, rule = self._subjects.get(entry.subject) or self._subject(entry.subject)
        remote = entry.remote, entry.name
        where = self._remotes.get(remote) or self._remote(*remote)
        second = int(entry.start)
        if second != self._second:
            self._second, self._moment = second, moment_text(second)
        what = ", ".join(_told(entry))
        return f"{self._moment} {who}  {where}  {service}  {what}{'  ' if what else ''}{rule}"

    def _subject(self, subject: Subject) -> tuple[str, str, str]:
        label = self._label(LABELS[subject.action], COLOURS[subject.action])
        who = f"{label} {_ARROWS[subject.direction]} {pad(who_text(subject), _WHO_COLUMNS)}"
        if len(self._subjects) >= _TEXTS_MAX:
            self._subjects.clear()
        found = self._subjects[subject] = who, service_text(subject, self._services), rule_text(subject)
        return found

    def _remote(self, packed: bytes, name: str | None) -> str:
        if len(self._remotes) >= _TEXTS_MAX:
            self._remotes.clear()
        found = self._remotes[packed, name] = pad(remote_text(packed, name), _REMOTE_COLUMNS)
        return found

    def _alert(self, alert: Noticed) -> str:
        source, target = address_text(alert.source or b""), address_text(alert.target or b"")
        program = [_name(alert.program)] if alert.program else []
        response = [clip(printable(alert.response), _EVIDENCE_COLUMNS)] if alert.response else []
        evidence = clip(printable(alert.evidence), _EVIDENCE_COLUMNS)
        front = f"{moment_text(alert.time)} {self._label('ALERT', _ALERT_COLOUR)} {printable(alert.kind)}"
        return "  ".join([front, f"{source} -> {target}", f"{evidence} (score {alert.score})", *program, *response])

    def _label(self, text: str, colour: str) -> str:
        shown = f"[{text}]"
        gap = " " * (_LABEL_COLUMNS - len(shown))
        return f"{colour}{shown}{_PLAIN}{gap}" if self._colour else shown + gap


Log = TextLog | JsonLog | CsvLog


def who_text(subject: Subject) -> str:
    """`curl (alice)`: the program, short, and its user; where neither can be known, this machine's end."""
    if subject.direction is Direction.FORWARD:
        return address_text(subject.local)
    user = subject.user if subject.user is not None else subject.uid
    doubt = " ?" if subject.certainty is Certainty.GUESS else ""
    return _name(subject.program) + doubt + ("" if user is None else f" ({_clipped(str(user))})")


def _name(program: str | None) -> str:
    if program is None:
        return "-"
    return _clipped((program.rstrip("/").rpartition("/")[2] or program) if program.startswith("/") else program)


def remote_text(packed: bytes, name: str | None) -> str:
    """`example.net (192.0.2.1)`, or the address alone."""
    return address_text(packed) if name is None else f"{_clipped(name)} ({address_text(packed)})"


def service_text(subject: Subject, services: Services) -> str:
    """`443/tcp (https)`, `icmp echo-request`, `gre`."""
    protocol = protocol_text(subject.protocol)
    if subject.port is not None:
        name = services(subject.port)
        return f"{subject.port}/{protocol}" + (f" ({_clipped(name)})" if name else "")
    if subject.icmp_type is not None:
        return f"{protocol} {_icmp_text(subject.protocol, subject.icmp_type)}"
    return protocol


@lru_cache(maxsize=512)
def _icmp_text(protocol: int, number: int) -> str:
    from pfw.policy.values import ICMP_TYPES

    return next((name for name, pairs in ICMP_TYPES.items() if (protocol, number) in pairs), f"type {number}")


def rule_text(subject: Subject) -> str:
    """`rule "web"`, `default in`."""
    if subject.rule is None:
        return f"default {subject.direction}"
    name = _clipped(subject.rule)
    # These names are reserved (`policy/values.py`).
    return name if name.startswith(("base ", "default ")) else f'rule "{name}"'


def _told(entry: Entry) -> list[str]:
    """How many it stands for, what they carried, and how long it took."""
    stopped, traffic, end = entry.subject.action in _STOPPED, entry.traffic, entry.end
    parts = []
    if entry.period_s:
        within = _PERIODS.get(entry.period_s) or span_text(entry.period_s)
        parts.append(f"{counted(entry.count, 'connection')} within {within}")
    elif entry.count > 1:
        parts.append(counted(entry.count, "packet" if stopped else "connection"))
    if traffic.sent_bytes or traffic.received_bytes or (end is not None and not stopped):
        parts.append(f"{size_text(traffic.sent_bytes)} out, {size_text(traffic.received_bytes)} in")
    if end is not None and not stopped:
        parts.append(brief_text(end - entry.start))
    elif not stopped and not entry.period_s:
        parts.append("open")
    return parts


def first_seen_facts(found: FirstSeen) -> dict[str, object]:
    return {"time": utc_time(found.time), "new": found.new, "what": printable(found.what), "by": _safe(found.by)}


def first_seen_lines(found: Sequence[FirstSeen], width: int | None) -> list[str]:
    """A table, in the order in which they came."""
    heads = [Column("first seen"), Column("new"), Column("what", 16), Column("by", 12)]
    rows = [
        [
            moment_text(each.time),
            printable(each.new),
            printable(each.what),
            "-" if each.by is None else printable(each.by),
        ]
        for each in found
    ]
    return table(heads, rows, width) if rows else ["nothing was seen for the first time"]


def protocol_text(number: int) -> str:
    """`tcp`, as policies write it, or the number."""
    return PROTOCOL_NAMES[number].lower() if number in PROTOCOL_NAMES else str(number)


def protocol_number(text: str) -> int:
    """The inverse. Raises ValueError with a reason that can stand behind the text."""
    found = PROTOCOLS.get(text.lower())
    if found is None and text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) <= 255:
        found = int(text)
    if found is None:
        raise ValueError("is not a protocol, as in tcp, udp or icmp")
    return found


def address_text(packed: bytes) -> str:
    """An address, or a MAC address; `many` for none in particular."""
    return _address_fact(packed) or "many"


def _address_fact(packed: bytes | None) -> str | None:
    if not packed:
        return None
    if len(packed) in (4, 16):
        return format_address(packed)
    # What is neither comes from a damaged file.
    return packed.hex(":") if len(packed) == _MAC_BYTES else packed.hex()


def _clipped(text: str) -> str:
    return clip(printable(text), _NAME_COLUMNS)


def _safe(text: str | None) -> str | None:
    return None if text is None else printable(text)
