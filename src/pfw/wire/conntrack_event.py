"""Events of connection tracking (ctnetlink): a connection is new, has changed, is gone.

Source: net/netfilter/nf_conntrack_netlink.c, ctnetlink_conntrack_event, and the headers that `conntrack.py` names. An
event is a message like that for an entry; its type and flags say what happened. Counters, and when it began and ended,
are told with the end alone, where the system counts (nf_conntrack_acct) and takes times (nf_conntrack_timestamp).

This is the careful way, which reads whatever fits. `conntrack_decoder.py` is the fast one.
"""

from __future__ import annotations

import struct
from struct import Struct as Layout

from msgspec import Struct

from pfw.model.flow import make_key
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS
from pfw.wire.conntrack import Entry, entry
from pfw.wire.error import WireError
from pfw.wire.netlink import NLM_F_CREATE, attributes
from pfw.wire.nfnetlink import CONNTRACK, message_type, read_number, split

NEW, UPDATE, DESTROY = 1, 2, 3
"""What happened, as netlink's groups are numbered (NFNLGRP_CONNTRACK_NEW, …)."""

EVENT_NEW, EVENT_DESTROY = message_type(CONNTRACK, 0), message_type(CONNTRACK, 2)
"""Types of messages. NEW and UPDATE are of one type: the flags tell them apart."""

TCP_TIME_WAIT, TCP_CLOSE = 7, 8
"""enum tcp_conntrack: both ends have closed, and a connection that was reset."""

_PORTS, _ECHO = Layout(">HH"), Layout(">HBB")

_TIMES, _EVENT_TIME = 20, 27
_START, _STOP = 1, 2


class Event(Struct, frozen=True, gc=False):
    """What happened to a connection.

    `id` is the kernel's for it, a number of 32 bits: together with the key it is unique. `key` is the flow key of the
    first packet (`model/flow.py`); addresses and ports are that packet's as well. `reply_source` and `reply_port` are
    those of who really answers, where the destination was rewritten, else None. `status` is made of the IPS_* bits,
    `tcp_state` is a number of enum tcp_conntrack. Counters and times (ns since 1970) are None where the kernel does not
    tell.
    """

    what: int
    key: bytes
    protocol: int
    source: bytes
    destination: bytes
    source_port: int | None
    port: int | None
    icmp_type: int | None
    reply_source: bytes | None
    reply_port: int | None
    id: int = 0
    status: int = 0
    tcp_state: int | None = None
    time_ns: int | None = None
    """When it happened (CTA_TIMESTAMP_EVENT, which only newer kernels tell)."""
    mark: int = 0
    packets: int | None = None
    bytes: int | None = None
    reply_packets: int | None = None
    reply_bytes: int | None = None
    start_ns: int | None = None
    stop_ns: int | None = None
    zone: int = 0


def read_event(kind: int, flags: int, body: memoryview) -> Event | None:
    """What a message tells; None where it is no event of a connection. Raises WireError for what does not fit."""
    if kind not in (EVENT_NEW, EVENT_DESTROY):
        return None
    what = DESTROY if kind == EVENT_DESTROY else NEW if flags & NLM_F_CREATE else UPDATE
    known = entry(body)
    found = dict(attributes(split(body)[2]))
    times = dict(attributes(found.get(_TIMES, memoryview(b""))))
    has_ports = known.protocol in PORT_PROTOCOLS
    return Event(
        what,
        flow_key(known),
        known.protocol,
        known.source,
        known.destination,
        known.source_port if has_ports else None,
        known.port if has_ports else None,
        known.icmp_type,
        None if known.reply_source == known.destination else known.reply_source,
        None if known.reply_source_port == known.port or not has_ports else known.reply_source_port,
        known.id,
        known.status,
        known.tcp_state,
        _time(found, _EVENT_TIME),
        known.mark,
        known.packets,
        known.bytes,
        known.reply_packets,
        known.reply_bytes,
        _time(times, _START),
        _time(times, _STOP),
        known.zone,
    )


def _time(found: dict[int, memoryview], kind: int) -> int | None:
    return read_number(found[kind]) if kind in found else None


def flow_key(known: Entry) -> bytes:
    """The flow key of a connection's first packet. Raises WireError for numbers that no packet can hold."""
    if known.protocol > 0xFF:
        raise WireError(f"conntrack tuple with the protocol {known.protocol}")
    return make_key(known.protocol, known.source, known.destination, _tail(known))


def _tail(known: Entry) -> bytes:
    if known.protocol in PORT_PROTOCOLS:
        return _packed(_PORTS, known.source_port, known.port)
    if known.protocol in (ICMP, ICMPV6):
        return _packed(_ECHO, known.icmp_id, known.icmp_type, known.icmp_code)
    return bytes(4)


def _packed(layout: Layout, *numbers: int | None) -> bytes:
    try:
        return layout.pack(*(number or 0 for number in numbers))
    except struct.error:
        raise WireError("conntrack tuple with a port or an ICMP type that is too big") from None
