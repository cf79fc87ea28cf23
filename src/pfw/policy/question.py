"""A question to a policy, as people write it: `in tcp 203.0.113.9:50000 192.168.1.5:22 --user alice`.

What a question leaves out is not known, and the verdict says so where it matters.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from pfw.model.address import parse_address
from pfw.model.flow import Direction, Flow, Moment
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS, protocol_name
from pfw.policy.programs import read_sha256
from pfw.policy.report import MisfitError, shown
from pfw.policy.values import ICMP_TYPES, PROTOCOL_WORDS

_OPTIONS = ("--app", "--sha256", "--script", "--user", "--unit", "--interface", "--time")
_SHAPE = "in|out|forward PROTOCOL SOURCE[:PORT] DESTINATION[:PORT]"


class Question(Struct, frozen=True):
    """A connection, and when it shall begin: `time` is in seconds since 1970, by the local clock if `local`."""

    flow: Flow
    time: float | None = None
    local: bool = False

    def moment(self, now: Moment) -> Moment:
        """The moment that is asked about: now, unless the question names a time. A local time is read
        with the offset from UTC that `now` has."""
        if self.time is None:
            return now
        return replace(now, time=self.time - now.utc_offset_s if self.local else self.time)


def parse_question(line: str) -> Question:
    """Read a question in one line. A value with spaces stands in quotes, as in a shell.

    Raises ValueError with a reason in one line.
    """
    if '"' not in line and "'" not in line and "\\" not in line:
        return parse_words(line.split())
    from shlex import split  # only here: seldom needed

    try:
        words = split(line)
    except ValueError:
        raise ValueError("a quote is opened and not closed") from None
    return parse_words(words)


def parse_words(words: list[str]) -> Question:
    """Read a question that a shell has split into words. Raises ValueError with a reason in one line."""
    plain, options = _take_options(words)
    if len(plain) < 4:
        raise ValueError(f"a question is {_SHAPE}, but there are only {len(plain)} words")
    direction = _direction(plain[0])
    source, source_port = _endpoint(plain[2])
    destination, port = _endpoint(plain[3])
    if len(source) != len(destination):
        raise ValueError(f"{shown(plain[2])} and {shown(plain[3])} are not of one family, IPv4 or IPv6")
    protocol = _protocol(plain[1], len(source) == 16)
    icmp_type = _icmp_type(protocol, plain[4:])
    if protocol in PORT_PROTOCOLS:
        if port is None:
            raise ValueError(f"{shown(plain[3])} has no port, which {protocol_name(protocol)} needs: ADDRESS:PORT")
    elif port is not None or source_port is not None:
        raise ValueError(f"{protocol_name(protocol)} has no ports; write the addresses alone")
    flow = Flow(
        direction=direction,
        protocol=protocol,
        source=source,
        destination=destination,
        source_port=source_port,
        port=port,
        icmp_type=icmp_type,
        interface=_only(options, "--interface"),
        app=_only(options, "--app"),
        app_sha256=_sha256(options),
        script=_only(options, "--script"),
        users=frozenset(options["--user"]) if "--user" in options else None,
        unit=_only(options, "--unit"),
    )
    time, local = _time(_only(options, "--time"))
    return Question(flow, time, local)


def _take_options(words: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The words that are no options, and the values of each option. Options stand anywhere."""
    plain: list[str] = []
    options: dict[str, list[str]] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            plain.append(word)
            continue
        name, equals, value = word.partition("=")
        if name not in _OPTIONS:
            raise ValueError(f"{shown(name)} is not an option; there are {', '.join(_OPTIONS)}")
        if not equals:
            value = next(rest, "")
        if not value:
            raise ValueError(f"{name} needs a value")
        options.setdefault(name, []).append(value)
    return plain, options


def _only(options: dict[str, list[str]], name: str) -> str | None:
    values = options.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise ValueError(f"{name} is given twice")
    return values[0]


def _sha256(options: dict[str, list[str]]) -> str | None:
    text = _only(options, "--sha256")
    if text is None:
        return None
    if "--app" not in options:
        raise ValueError("--sha256 is the hash of a program's file, and needs --app beside it")
    try:
        return read_sha256(text)
    except MisfitError as misfit:
        raise ValueError(misfit.reason) from None


def _direction(word: str) -> Direction:
    try:
        return Direction(word.lower())
    except ValueError:
        raise ValueError(f"{shown(word)} is not a direction; write in, out or forward") from None


def _protocol(word: str, is_ipv6: bool) -> int:
    meant = PROTOCOL_WORDS.get(word.lower(), frozenset())
    if len(meant) > 1:  # ICMP of both families
        return ICMPV6 if is_ipv6 else ICMP
    protocol = next(iter(meant), _number(word, 255))
    if protocol is None:
        raise ValueError(f"{shown(word)} is not a protocol; write tcp, udp, icmp, ... or a number (0-255)")
    if protocol == (ICMP if is_ipv6 else ICMPV6):
        raise ValueError(f"{protocol_name(protocol)} does not go with {'IPv6' if is_ipv6 else 'IPv4'} addresses")
    return protocol


def _number(text: str, most: int) -> int | None:
    """A decimal number up to `most`, None for what is none."""
    if not text.isascii() or not text.isdecimal() or len(text) > 5 or int(text) > most:
        return None
    return int(text)


def _endpoint(word: str) -> tuple[bytes, int | None]:
    """`192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`."""
    address, colon, port_text = word, "", ""
    if word.startswith("["):
        address, closing, rest = word[1:].partition("]")
        colon, port_text = rest[:1], rest[1:]
        if not closing or ":" not in address or colon not in ("", ":"):
            raise ValueError(f"{shown(word)} is not an IPv6 address with a port, as in [2001:db8::1]:53")
    elif word.count(":") == 1:
        address, colon, port_text = word.partition(":")
    try:
        packed = parse_address(address)
    except ValueError as error:
        raise ValueError(f"{shown(address)} {error}") from None
    if not colon:
        return packed, None
    port = _number(port_text, 65535)
    if port is None:
        raise ValueError(f"{shown(port_text)} is not a port (0-65535)")
    return packed, port


def _icmp_type(protocol: int, words: list[str]) -> int | None:
    """The type behind the addresses: `echo-request`, `8` or `type 8`."""
    if not words:
        return None
    if protocol not in (ICMP, ICMPV6):
        raise ValueError(f"{shown(words[0])} is one word too many; a question is {_SHAPE}")
    if words[0].lower() == "type":
        words = words[1:]
    if len(words) != 1:
        raise ValueError("an ICMP type is one word, as in: type 8")
    named = [number for of, number in ICMP_TYPES.get(words[0].lower(), ()) if of == protocol]
    number = named[0] if named else _number(words[0], 255)
    if number is None:
        raise ValueError(f"{shown(words[0])} is not a type of {protocol_name(protocol)}; write a name or 0-255")
    return number


def _time(text: str | None) -> tuple[float | None, bool]:
    if text is None:
        return None, False
    from datetime import UTC, datetime  # only here: slow to import

    try:
        written = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not a time, as in 2026-11-23T10:00") from None
    local = written.tzinfo is None
    return (written.replace(tzinfo=UTC) if local else written).timestamp(), local
