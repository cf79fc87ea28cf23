"""Observations: what detectors are told, one value for each thing that happened, however many packets it took.

Addresses are packed, times seconds since 1970, sizes bytes on the wire. A connection is named by its first packet:
`source` began it. What was quoted inside an ICMP error is not a packet, and observed only as the refusal that it is.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from pfw.model.packet import Arp


def link_of(interface: str | None, vlans: tuple[int, ...]) -> str:
    """What tells links apart on which neighbours hear each other: a name for the interface and the VLANs of a frame.
    Empty where a capture tells neither."""
    return " ".join((interface or "", *map(str, vlans))).strip() if interface or vlans else ""


class Began(Struct, frozen=True, gc=False):
    """The first packet of a connection: a TCP SYN, or the first of any other protocol between these ends.

    In a flood one `stands_for` many that went to the same port, or where it `stands_for_host` to any port of the host,
    and were not looked at (`engine/detect/crowd.py`).
    `program` is the path of the one on this machine that the connection belongs to, where it is known.
    """

    time: float
    protocol: int
    source: bytes
    destination: bytes
    source_port: int | None
    port: int | None
    icmp_type: int | None = None
    size_bytes: int = 0
    stands_for: int = 1
    program: str | None = None
    stands_for_host: bool = False


class Reply(StrEnum):
    """How the other end met the first packet of a connection."""

    ANSWERED = "answered"
    """SYN-ACK, or a packet back."""
    REFUSED = "refused"
    """A reset, or ICMP that the port cannot be reached."""
    FORBIDDEN = "forbidden"
    """ICMP that says more: host, network or protocol out of reach, or administratively prohibited."""
    EXPIRED = "expired"
    """ICMP that it did not get there in time, as traceroute wants it: nothing is known of the other end."""
    SILENT = "silent"
    """Nothing within SILENCE_S (`engine/detect/watch.py`). Not told of what goes to many at once."""


class Met(Struct, frozen=True, gc=False):
    """The first reply to a connection, or that there was none. `began` is its first packet, which came `attempts`
    times."""

    time: float
    began: Began
    reply: Reply
    attempts: int = 1


class Confirmed(Struct, frozen=True, gc=False):
    """Whoever began a TCP connection went on after the SYN-ACK. With an acknowledgement its address is not forged. A
    reset says less (`by_reset`): a host in whose name somebody else began sends one, too, and it can be forged."""

    time: float
    began: Began
    by_reset: bool = False


class HalfOpen(Struct, frozen=True, gc=False):
    """A TCP connection was answered by a SYN-ACK, and for SILENCE_S (`engine/detect/watch.py`) whoever began it said
    nothing to that, not even with a reset: a scanner that keeps quiet, or a source that somebody else has invented."""

    time: float
    began: Began


class Ended(Struct, frozen=True, gc=False):
    """A connection that had a reply is over, or has been silent for long; also what is open at the end. `sent` is what
    whoever began it sent. One that `is_older` than the capture has no `Began` before; who began it is guessed."""

    time: float
    began: Began
    sent_bytes: int
    sent_packets: int
    received_bytes: int
    received_packets: int
    by_reset: bool = False
    is_open: bool = False
    is_older: bool = False


class Busy(Struct, frozen=True, gc=False):
    """What a connection carried a second since `since`, told about once a second while it carries many packets, or some
    that nobody answers. `sent` is what whoever began it sent, `attempts` how many of those packets were a SYN, the very
    first one left out. `is_answered` tells whether the other end has ever sent a packet of it; a SYN-ACK after which
    nothing but SYNs come is no answer."""

    time: float
    began: Began
    since: float
    sent_bytes: int
    sent_packets: int
    received_bytes: int
    received_packets: int
    attempts: int = 0
    is_answered: bool = False


class Stray(Struct, frozen=True, gc=False):
    """A TCP packet that belongs to no connection and begins none: probes with odd flags, resets and SYN-ACKs that
    nobody asked for (backscatter). An ACK counts when nothing else of a connection has come for some seconds: `time`
    is the packet's, what was told before may be later. `stands_for` is as in `Began`."""

    time: float
    source: bytes
    destination: bytes
    source_port: int
    port: int
    flags: int
    size_bytes: int = 0
    stands_for: int = 1


class ArpSeen(Struct, frozen=True, gc=False):
    """An ARP message, and the Ethernet addresses of the frame that carried it. `link` is as `link_of` has it."""

    time: float
    source_mac: bytes | None
    destination_mac: bytes | None
    arp: Arp
    link: str = ""


class RouterSeen(Struct, frozen=True, gc=False):
    """An IPv6 router advertisement (RFC 4861). `prefixes` are pairs of packed prefix and length."""

    time: float
    source: bytes
    source_mac: bytes | None
    hop_limit: int
    lifetime_s: int
    preference: int = 0
    prefixes: tuple[tuple[bytes, int], ...] = ()
    name_servers: tuple[bytes, ...] = ()
    link: str = ""


class NeighbourSeen(Struct, frozen=True, gc=False):
    """An IPv6 neighbour solicitation or advertisement. `mac` is what its option says, `override` as in the
    advertisement."""

    time: float
    source: bytes
    destination: bytes
    source_mac: bytes | None
    target: bytes
    is_answer: bool
    mac: bytes | None = None
    override: bool = False
    solicited: bool = False
    link: str = ""


class DhcpSeen(Struct, frozen=True, gc=False):
    """A DHCP message for IPv4 (RFC 2131): `kind` is option 53, `client_mac` its chaddr. Addresses of zeros are None."""

    time: float
    source: bytes
    source_mac: bytes | None
    kind: int
    client_mac: bytes
    offered: bytes | None = None
    server: bytes | None = None
    routers: tuple[bytes, ...] = ()
    name_servers: tuple[bytes, ...] = ()
    link: str = ""


class DnsSeen(Struct, frozen=True, gc=False):
    """A DNS message over UDP. `client` asks, `server` answers; `name` is that of the first question, lower case, as a
    text with dots; `kind` its type. `answer_bytes` is the size of all records that are not the question."""

    time: float
    client: bytes
    server: bytes
    is_answer: bool
    name: str
    kind: int
    code: int = 0
    answers: int = 0
    size_bytes: int = 0
    answer_bytes: int = 0
    port: int = 53


class EchoSeen(Struct, frozen=True, gc=False):
    """An ICMP echo request or reply. `digest` tells contents apart; `is_pattern` says that the payload is of the kind
    that ping programs send: a time and counting bytes, or one letter after the other."""

    time: float
    source: bytes
    destination: bytes
    is_request: bool
    identifier: int
    sequence: int
    payload_bytes: int
    digest: int
    is_pattern: bool


class Odd(Struct, frozen=True, gc=False):
    """A packet in which the decoder found something wrong (`wire/anomaly.py` has the names), or a fragment that does
    not fit to the others of its datagram (`engine/detect/fragments.py`): `overlap`, `tiny`, `gap`, `too_many`."""

    time: float
    source: bytes | None
    destination: bytes | None
    protocol: int | None
    names: tuple[str, ...]
    is_fragment: bool = False


class ProtocolTried(Struct, frozen=True, gc=False):
    """A packet of an IP protocol other than TCP, UDP, ICMP and ICMPv6, once for each pair of ends and protocol."""

    time: float
    source: bytes
    destination: bytes
    protocol: int


class LoginFailed(Struct, frozen=True, gc=False):
    """A service says that somebody did not get in. `service` is a name of `/etc/services`, `source` who tried. Where it
    is not `is_sure` that the service said so, anybody may have, of anybody."""

    time: float
    service: str
    source: bytes
    user: str | None = None
    is_sure: bool = True


class LoginSucceeded(Struct, frozen=True, gc=False):
    """A service says that somebody got in. `is_sure` is as in `LoginFailed`."""

    time: float
    service: str
    source: bytes
    user: str | None = None
    is_sure: bool = True


class Listening(Struct, frozen=True, gc=False):
    """A program waits for connections, or for datagrams, at a port of this machine. `address` is all zeros where it
    waits at all of them, `program` its path where it is known. `first` says that it is part of the first look at what
    was there already. To be told when it begins, and may be told again while it goes on."""

    time: float
    protocol: int
    address: bytes
    port: int
    program: str | None = None
    first: bool = False


class ProgramTalks(Struct, frozen=True, gc=False):
    """A program of this machine has to do with somebody else. `is_replaced` says that the file that it was started from
    is no longer the one at its path, `is_missing` that nothing is there now; `changed` is when that came about, as far
    as it is known (the time at which the new file or its folder was changed). What runs from memory alone has a
    `program` that begins with `memfd:`."""

    time: float
    program: str
    pid: int
    started: float
    is_replaced: bool
    remote: bytes
    port: int | None = None
    is_missing: bool = False
    changed: float | None = None


Observation = (
    Began | Met | Confirmed | HalfOpen | Ended | Busy | LoginFailed | LoginSucceeded | Stray | ArpSeen | RouterSeen
    | NeighbourSeen | DhcpSeen | DnsSeen | EchoSeen | Odd | ProtocolTried | Listening | ProgramTalks
)  # fmt: skip


class Kind(StrEnum):
    """What an alert is about."""

    PORT_SCAN = "port-scan"
    SWEEP = "sweep"
    STEALTH_SCAN = "stealth-scan"
    ARP_SCAN = "arp-scan"
    SYN_FLOOD = "syn-flood"
    UDP_FLOOD = "udp-flood"
    ICMP_FLOOD = "icmp-flood"
    REFLECTION = "reflection"
    BRUTE_FORCE = "brute-force"
    ARP_SPOOF = "arp-spoof"
    ROGUE_ROUTER = "rogue-router"
    ROGUE_DHCP = "rogue-dhcp"
    DNS_TUNNEL = "dns-tunnel"
    ICMP_TUNNEL = "icmp-tunnel"
    DGA = "dga"
    BEACON = "beacon"
    UPLOAD_SPIKE = "upload-spike"
    NEW_LISTENER = "new-listener"
    KNOWN_BAD = "known-bad"
    MALFORMED = "malformed"
    FRAGMENT_EVASION = "fragment-evasion"
    CHANGED_PROGRAM = "changed-program"


class Alert(Struct, frozen=True, kw_only=True):
    """Something suspicious. `source` and `target` are addresses, MAC addresses (6 bytes), or None for many. `score`
    goes from 0 to 100. `evidence` says in plain words what was seen. `ban` are the addresses that could be banned for
    it: never one that may be forged, or that only answered. `program` is the path of the program on this machine that
    it is about, `about` what else tells it from others of its kind. `by_reset` says that those in `ban` proved
    themselves by resetting answers alone, which somebody else could have done in their name with some effort."""

    kind: Kind
    source: bytes | None
    target: bytes | None
    first: float
    last: float
    score: int
    evidence: str
    ban: tuple[bytes, ...] = ()
    program: str | None = None
    about: str | None = None
    by_reset: bool = False
