"""A rule as people ask for it: `allow in tcp 22 --from lan --limit 6/minute` becomes the object of a policy file.

ufw's long syntax is understood too: `block in on eth0 from 198.51.100.0/24 to any port 22 proto tcp`. Only
the shape is looked at here; whether `lan` is an alias and 70000 a port, the loader of the file tells.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from math import ceil

from msgspec import Struct

from pfw.model.address import parse_range
from pfw.model.flow import Moment
from pfw.policy.addresses import BUILT_IN_ALIASES, explain
from pfw.policy.near import near_words
from pfw.policy.report import alternatives, shown
from pfw.policy.services import Services
from pfw.policy.times import DAYS
from pfw.policy.values import ACTIONS, DIRECTIONS, ICMP_TYPES, MAX_NAME, PROTOCOL_WORDS

KEYS: tuple[str, ...] = (
    "name", "action", "direction", "interface", "from", "to", "remote", "protocol", "port", "from_port", "icmp_type",
    "app", "script", "user", "unit", "limit", "burst", "schedule", "expires", "log", "note",
)  # fmt: skip
"""The order in which a rule has its fields."""

_CLAUSES: dict[str, str] = {
    "from": "from", "to": "to", "remote": "remote", "port": "port", "proto": "protocol", "protocol": "protocol",
    "on": "interface", "type": "icmp_type", "app": "app", "script": "script", "user": "user",
    "unit": "unit", "limit": "limit", "for": "for", "until": "expires", "comment": "note", "note": "note",
}  # fmt: skip
"""Words behind which a value stands, and the field that it is for."""

_LABELS: dict[str, str] = {
    "from": "from ", "to": "to ", "remote": "", "protocol": "", "port": "port ", "from_port": "from port ",
    "icmp_type": "", "interface": "on ", "app": "app ", "script": "script ", "user": "user ", "unit": "unit ",
}  # fmt: skip
"""What a rule is called after, besides what was typed: options, and what stands before them in the name."""

_ANY = ("any", "anywhere", "all", "everywhere")
_LOG = ("log", "log-all")
_PING = "echo-request"
_ICMP_WORDS = ("icmp", "icmpv6", "ipv6-icmp")
_OWNERS = ("app", "script", "user", "unit")

_NUMBER = "[0-9]{1,9}"
_PORTS = "([0-9]+)[-:]([0-9]+)"
_DURATION = "(?:[0-9]{1,9}[smhdw])+"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
LONGEST_DURATION_S = 10 * 365 * 86400
_TIMES = "([0-9:]+)-([0-9:]+)"


class Options(Struct, frozen=True, kw_only=True):
    """What is given beside the words, each as it was typed; of several values one list with commas.

    `for_` is a duration (`30s`, `1h30m`, `2w`), `until` a time, `schedule` days and times: `mon-fri 09:00-17:00`.
    """

    from_: str | None = None
    to: str | None = None
    remote: str | None = None
    protocol: str | None = None
    port: str | None = None
    from_port: str | None = None
    icmp_type: str | None = None
    interface: str | None = None
    app: str | None = None
    script: str | None = None
    user: str | None = None
    unit: str | None = None
    limit: str | None = None
    burst: int | None = None
    schedule: str | None = None
    for_: str | None = None
    until: str | None = None
    log: bool = False
    note: str | None = None
    name: str | None = None

    def given(self) -> Iterator[tuple[str, str]]:
        """Field and text of each that stands for one field of a rule; `for` besides."""
        for field in (*_LABELS, "limit", "schedule", "note", "name"):
            text = self.from_ if field == "from" else getattr(self, field)
            if text is not None:
                yield field, text
        for field, text in (("for", self.for_), ("expires", self.until)):
            if text is not None:
                yield field, text


def rule_from_words(
    action: str, words: list[str], options: Options, now: Moment, services: Callable[[], str] | None = None
) -> dict[str, object]:
    """The rule as an object of a policy file. `services` gives the text of /etc/services.

    Raises ValueError with a reason in one line.
    """
    if action not in ACTIONS:
        raise ValueError(f"{shown(action)} is not an action ({alternatives(ACTIONS)})")
    request = _Request(now, Services(services))
    request.read_words(words)
    request.read_options(options)
    request.settle_ends()
    fields = request.fields
    fields.update({"action": action, "burst": options.burst, "name": fields.get("name") or request.name(action)})
    return {key: fields[key] for key in KEYS if fields.get(key) is not None}


class _Request:
    """What has been said so far, each thing once. A field that may be anything is None."""

    def __init__(self, now: Moment, services: Services) -> None:
        self.fields: dict[str, object] = {}
        self._now = now
        self._services = services
        self._named: list[str] = []
        self._everything = False

    def read_words(self, words: list[str]) -> None:
        rest = iter(words)
        last = ""
        for word in rest:
            field = _CLAUSES.get(word.lower())
            if field is None:
                self._bare(word)
                self._named.append(word)
                continue
            if field == "port" and last == "from":
                field = "from_port"
            value = next(rest, None)
            if field in ("from", "to") and value is not None and value.lower() == "port":
                # `to port 443`, where ufw would have "to any port 443".
                field, word, value = {"from": "from_port"}.get(field, "port"), f"{word} {value}", next(rest, None)
            if value is None:
                raise ValueError(f"a value is missing behind {shown(word)}")
            self._read(field, value)
            if field in _LABELS:
                self._named += [word, value]
            last = field

    def read_options(self, options: Options) -> None:
        for field, text in options.given():
            is_new = field not in self.fields
            self._read(field, text)
            if is_new and field in _LABELS and text.lower() not in _ANY:
                self._named.append(f"{_LABELS[field]}{text}")
        if options.log:
            self._say("log", True)

    def name(self, action: str) -> str:
        text = " ".join(" ".join([action, *self._named]).split())
        text = "".join(letter if letter.isprintable() else "?" for letter in text)
        return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1].rstrip()}…"

    def settle_ends(self) -> None:
        """The direction where none was said, and which end an address is that stands alone."""
        said = self.fields.keys()
        address = self.fields.pop("address", None)
        if not said & {"direction", *_LABELS} and address is None and not self._everything:
            raise ValueError("what is the rule for? Write a port, a service or an address, as in: in tcp 22 --from lan")
        direction = self.fields.get("direction")
        if direction is None and address is None and "remote" not in said:
            direction = self._direction()
        if direction is not None:
            self.fields["direction"] = direction
        if address is None:
            return
        if direction == "forward":
            what = f"{shown(_typed(address))} may be either end of what is forwarded; write from or to before it"
            raise ValueError(what)
        end = {"in": "from", "out": "to"}.get(str(direction), "remote")
        beside = next((field for field in ("from", "to") if end == "remote" and self.fields.get(field)), None)
        if beside:
            what = f'stands alone beside "{beside}"; write from or to before it as well'
            raise ValueError(f"{shown(_typed(address))} {what}")
        self._say(end, address)

    def _direction(self) -> str | None:
        """A port alone is one of this machine, as with ufw. What may be meant in two ways is asked back."""
        if "from" in self.fields:
            return "in"
        if self.fields.get("to"):
            raise ValueError('say "in" (to an address of this machine) or "out", since "to" fits both')
        served = any(self.fields.get(field) for field in ("protocol", "port", "from_port", "icmp_type"))
        owner = next((field for field in _OWNERS if field in self.fields), None)
        if served and owner:
            raise ValueError(f'say "in" or "out": what stands with "{owner}" may be meant for both')
        return "in" if served or "port" in self.fields else None

    def _say(self, field: str, value: object) -> None:
        if field not in self.fields:
            self.fields[field] = value
        elif self.fields[field] != value:
            what = {"address": "an address", "expires": "the end"}.get(field, f'"{field}"')
            texts = _typed(self.fields[field]), _typed(value)
            more = "; several are one list with commas" if field in ("port", "address", "protocol") else ""
            raise ValueError(f"{what} is given twice: {shown(texts[0])} and {shown(texts[1])}{more}")

    def _bare(self, word: str) -> None:
        lower = word.lower()
        if lower in DIRECTIONS:
            self._say("direction", lower)
        elif lower in _ANY:
            self._everything = True
        elif lower in _LOG:
            self._say("log", True)
        elif self._is_protocol(lower):
            self._read("protocol", word)
        elif self._is_icmp_type(lower):
            self._read("icmp_type", word)
        elif self._is_port(lower):
            self._read("port", word)
        elif all(_is_address(part) for part in word.split(",")):
            self._read("address", word)
        else:
            raise self._unknown(word)

    def _read(self, field: str, text: str) -> None:
        """A value for a field."""
        if not text:
            raise ValueError(f'the value of "{field}" is empty')
        if field in _LABELS and text.lower() in _ANY:
            self._say(field, None)
        elif field in ("port", "from_port"):
            ports, protocol = _split_protocol(text)
            self._say(field, _each(ports, _port))
            if protocol is not None:
                self._read("protocol", protocol)
        elif field == "for":
            self._say("expires", _time_text(self._now.time + _duration_s(text)))
        elif field == "schedule":
            self._say(field, _schedule(text))
        else:
            read = _READERS.get(field)
            self._say(field, _each(text, read) if read else text)

    def _is_protocol(self, lower: str) -> bool:
        if not all(part in PROTOCOL_WORDS for part in lower.split(",")):
            return False
        # A few are services too (l2tp): behind a protocol they are.
        return "protocol" not in self.fields or self._services.ports(lower) is None

    def _is_icmp_type(self, lower: str) -> bool:
        numbers = self.fields.get("protocol") in _ICMP_WORDS
        parts = lower.split(",")
        return all(part in ICMP_TYPES or part == "ping" or (numbers and part.isdecimal()) for part in parts)

    def _is_port(self, lower: str) -> bool:
        parts = _split_protocol(lower)[0].split(",")
        return all(
            re.fullmatch(_NUMBER, part) or re.fullmatch(_PORTS, part) or self._services.ports(part) for part in parts
        )

    def _unknown(self, word: str) -> ValueError:
        ports, slash, protocol = word.rpartition("/")
        if slash and self._is_port(ports.lower()) and not protocol.isdecimal():
            near = near_words(protocol, PROTOCOL_WORDS)
            more = f"; did you mean {alternatives(near)}?" if near else ""
            return ValueError(f"{shown(protocol)} is not a protocol{more}")
        if set(word) & set(".:/"):
            part = next(part for part in word.split(",") if not _is_address(part)).removeprefix("!")
            try:
                reason = f"{shown(part)} is no address"
                parse_range(part)
            except ValueError as error:
                reason = explain(part, str(error), ()).reason
            return ValueError(reason)
        known = chain(DIRECTIONS, _CLAUSES, PROTOCOL_WORDS, ICMP_TYPES, BUILT_IN_ALIASES, _ANY, self._services.names())
        near = near_words(word, dict.fromkeys(known))
        more = f"; did you mean {alternatives(near)}?" if near else ""
        return ValueError(f"{shown(word)} means nothing here{more} (an alias stands behind from, to, remote or port)")


def _typed(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "any" if value is None else str(value)


def _each(text: str, read: Callable[[str], object]) -> object:
    """A value or a list of them, between commas."""
    values = [read(part.strip()) for part in text.split(",")]
    if "" in values:
        raise ValueError(f"a value is missing beside a comma of {shown(text)}")
    return values if len(values) > 1 else values[0]


def _is_address(text: str) -> bool:
    text = text.removeprefix("!").lstrip()
    try:
        parse_range(text)
    except ValueError:
        return text in BUILT_IN_ALIASES
    return True


def _split_protocol(text: str) -> tuple[str, str | None]:
    """`80,443/tcp` as ports and protocol."""
    ports, slash, protocol = text.rpartition("/")
    if slash and all(part in PROTOCOL_WORDS or part in _ANY for part in protocol.lower().split(",")):
        return ports, protocol
    return text, None


def _number(text: str) -> object:
    return int(text) if re.fullmatch(_NUMBER, text) else text


def _port(text: str) -> object:
    ends = re.fullmatch(_PORTS, text)
    return f"{ends[1]}-{ends[2]}" if ends else _number(text)


def _protocol(text: str) -> object:
    return text.lower() if text.lower() in PROTOCOL_WORDS else _number(text)


def _icmp_type(text: str) -> object:
    return _PING if text.lower() == "ping" else _number(text)


_READERS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("from", "to", "remote", "address", "interface", "user"), str),
    "protocol": _protocol,
    "icmp_type": _icmp_type,
}
"""Of fields that may hold a list with commas. The others are taken as they are."""


def _duration_s(text: str) -> int:
    if not re.fullmatch(_DURATION, text.lower()):
        raise ValueError(f"{shown(text)} is not a duration; write it as 30s, 10m, 1h, 7d or 2w")
    pieces = re.findall("([0-9]+)([smhdw])", text.lower())
    seconds = sum(int(number) * _SECONDS[unit] for number, unit in pieces)
    if not 0 < seconds <= LONGEST_DURATION_S:
        raise ValueError(f"{shown(text)} is not a duration between a second and ten years")
    return seconds


def _time_text(seconds: float) -> str:
    """UTC in whole seconds, not a moment too early."""
    from datetime import datetime, timedelta  # only here: slow to import

    return f"{(datetime(1970, 1, 1) + timedelta(seconds=ceil(seconds))).isoformat()}Z"


def _schedule(text: str) -> dict[str, object]:
    """`mon-fri 09:00-17:00`, or either half."""
    schedule: dict[str, object] = {}
    for word in text.split():
        times = re.fullmatch(_TIMES, word)
        if times:
            schedule["from"], schedule["until"] = times[1], times[2]
        else:
            schedule["days"] = [day for part in word.split(",") for day in _days(part)]
    if not schedule or len(text.split()) > len(schedule) - ("from" in schedule):
        raise ValueError(f"{shown(text)} is not a schedule; write it as mon-fri 09:00-17:00")
    return schedule


def _days(text: str) -> list[str]:
    """`mon-fri` as days; what is none stays for the loader to complain of."""
    first, dash, last = text.lower().partition("-")
    if not dash or first not in DAYS or last not in DAYS:
        return [text.lower()]
    begin, length = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7
    return [DAYS[(begin + step) % 7] for step in range(length + 1)]
