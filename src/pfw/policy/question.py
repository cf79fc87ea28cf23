"""A question to a policy, as people write it: `in tcp 203.0.113.9:50000 192.168.1.5:22 --user alice`.

With an arrow between its ends either may be left out, or its address, or its port: `in tcp 192.168.1.9 -> :22`.
What a question leaves out is not known, and the verdict says so where it matters: it is the verdict whatever that is.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from pfw.model.address import parse_address
from pfw.model.flow import Direction, Flow, Moment
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS, protocol_name
from pfw.policy.near import near_words
from pfw.policy.programs import read_sha256
from pfw.policy.report import MisfitError, alternatives, shown
from pfw.policy.values import ICMP_TYPES, PROTOCOL_WORDS

_OPTIONS = ("--app", "--sha256", "--script", "--user", "--unit", "--interface", "--time")
_SHAPE = "in|out|forward PROTOCOL SOURCE[:PORT] DESTINATION[:PORT]"
_ARROW = "->"
_ARROW_SHAPE = "PROTOCOL [SOURCE][:PORT] -> [DESTINATION][:PORT]"
_Endpoint = tuple[bytes, int | None]
_NOWHERE: _Endpoint = (b"", None)


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

    def known_as(self, names_of: Callable[[str], frozenset[str]]) -> Question:
        """The question with all names that a rule may use for its user; `names_of` gives those of one of them."""
        users = self.flow.users
        if users is None:
            return self
        names = frozenset[str]().union(*map(names_of, users))
        return replace(self, flow=replace(self.flow, users=names))


def parse_question(line: str) -> Question:
    """Read a question in one line. A value with spaces stands in quotes, as in a shell.

    Raises ValueError with a reason in one line.
    """
    return parse_words(split_words(line))


def split_words(line: str) -> list[str]:
    """The words of a line, as a shell splits it. Raises ValueError with a reason in one line."""
    if '"' not in line and "'" not in line and "\\" not in line:
        return line.split()
    from shlex import split  # only here: seldom needed

    try:
        return split(line)
    except ValueError:
        raise ValueError("a quote is opened and not closed") from None


def parse_words(words: list[str]) -> Question:
    """Read a question that a shell has split into words. Raises ValueError with a reason in one line."""
    plain, options = _take_options(words)
    # What a shell was given in quotes, for its arrow, is one word.
    plain = [part for word in plain for part in word.replace(_ARROW, f" {_ARROW} ").split()]
    direction, word, ends, rest = _take_ends(plain)
    source, source_port = _endpoint(ends[0])
    destination, port = _endpoint(ends[1])
    if source and destination and len(source) != len(destination):
        raise ValueError(f"{shown(ends[0])} and {shown(ends[1])} are not of one family, IPv4 or IPv6")
    protocol = _protocol(word, len(source) or len(destination))
    icmp_type = _icmp_type(protocol, rest)
    if protocol in PORT_PROTOCOLS:
        if port is None and _ARROW not in plain:
            raise ValueError(f"{shown(ends[1])} has no port, which {protocol_name(protocol)} needs: ADDRESS:PORT")
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
    return Question(flow, *parse_time(_only(options, "--time")))


def _take_ends(words: list[str]) -> tuple[Direction, str, tuple[str, str], list[str]]:
    """Direction, protocol, both ends, of which what is left out is empty, and the words behind them."""
    if _ARROW not in words:
        if words[-1:] == ["-"] and len(words) > 1:
            raise ValueError("the arrow -> is one word; in a shell the question stands in quotes, for the sake of >")
        if len(words) < 4:
            raise ValueError(f"a question is {_SHAPE}, but there are only {len(words)} words")
        return _direction(words[0]), words[1], (words[2], words[3]), words[4:]
    at = words.index(_ARROW)
    before, behind = words[:at], words[at + 1 :]
    if len(before) < 2:
        raise ValueError(f"a question is in|out|forward {_ARROW_SHAPE}")
    direction = _direction(before[0])
    if len(before) > 3:
        raise ValueError(f"{shown(before[3])} is one word too many; a question is {direction} {_ARROW_SHAPE}")
    is_icmp = PROTOCOL_WORDS.get(before[1].lower(), frozenset()) <= {ICMP, ICMPV6}
    has_end = bool(behind) and (not is_icmp or "." in behind[0] or ":" in behind[0])
    end = behind[0] if has_end else ""
    return direction, before[1], ("".join(before[2:]), end), behind[has_end:]


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


def _protocol(word: str, size: int) -> int:
    """A protocol beside an address of so many bytes, 0 for one that is not known."""
    is_ipv6 = size == 16
    meant = PROTOCOL_WORDS.get(word.lower(), frozenset())
    if len(meant) > 1:  # ICMP of both families
        if not size:
            raise ValueError(f"{shown(word)} is of both families; without an address write icmpv6, or 1 for IPv4's")
        return ICMPV6 if is_ipv6 else ICMP
    protocol = next(iter(meant), _number(word, 255))
    if protocol is None:
        near = near_words(word, PROTOCOL_WORDS)
        more = f"did you mean {alternatives(near)}?" if near else "write tcp, udp, icmp, ... or a number (0-255)"
        raise ValueError(f"{shown(word)} is not a protocol; {more}")
    if size and protocol == (ICMP if is_ipv6 else ICMPV6):
        raise ValueError(f"{protocol_name(protocol)} does not go with {'IPv6' if is_ipv6 else 'IPv4'} addresses")
    return protocol


def _number(text: str, most: int) -> int | None:
    """A decimal number up to `most`, None for what is none."""
    if not text.isascii() or not text.isdecimal() or len(text) > 5 or int(text) > most:
        return None
    return int(text)


def _endpoint(word: str) -> _Endpoint:
    """`192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, `:80` or nothing."""
    if not word:
        return _NOWHERE
    address, colon, port_text = word, "", ""
    if word.startswith("["):
        address, closing, rest = word[1:].partition("]")
        colon, port_text = rest[:1], rest[1:]
        if not closing or ":" not in address or colon not in ("", ":"):
            raise ValueError(f"{shown(word)} is not an IPv6 address with a port, as in [2001:db8::1]:53")
    elif word.count(":") == 1:
        address, colon, port_text = word.partition(":")
    try:
        packed = parse_address(address) if address or not colon else b""
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


def parse_time(text: str | None) -> tuple[float | None, bool]:
    """Seconds since 1970, and whether by the local clock. Raises ValueError with a reason in one line."""
    if text is None:
        return None, False
    from datetime import UTC, datetime  # only here: slow to import

    try:
        written = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not a time, as in 2026-11-23T10:00") from None
    local = written.tzinfo is None
    return (written.replace(tzinfo=UTC) if local else written).timestamp(), local
