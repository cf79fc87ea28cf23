"""What a packet is in a line: Scapy's summary of it, and a cheap one of our own.

Scapy is imported only when the first summary is wanted (0.3 s). Scapy is made for
trust and not for hostile bytes, so it gets no more than the beginning of a packet, its exceptions and its
log stay here, and its text is escaped and bounded like any other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from pfw.model.address import format_address, format_endpoint
from pfw.model.command import Frame
from pfw.model.flow import Flow
from pfw.model.packet import protocol_name
from pfw.model.text import printable
from pfw.record import headers
from pfw.record.headers import read_headers

_MOST_BYTES = 2048
"""Holds every header that a summary speaks of; what is behind it would only cost time."""
_MOST_CHARACTERS = 400

_Dissector = Callable[[bytes], Any]


@cache
def _dissectors() -> dict[int, _Dissector]:
    """Scapy's layer for each link type; raw IP is told apart by its version."""
    import logging
    import warnings
    from importlib.util import find_spec

    if find_spec("scapy") is None:
        # An installation of the core alone: all lines are plain ones.
        return {}
    scapy_log = logging.getLogger("scapy")
    scapy_log.setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings(), _spare_scapy():
        warnings.simplefilter("ignore")
        # SCTP and DHCP are imported because importing them binds them to the layers below.
        from scapy.layers import dhcp, dns, inet, inet6, l2, sctp  # noqa: F401
    scapy_log.setLevel(logging.CRITICAL + 1)  # importing has set it

    def raw(data: bytes) -> Any:
        return inet6.IPv6(data) if data[:1] and data[0] >> 4 == 6 else inet.IP(data)

    return {
        headers.ETHERNET: l2.Ether,
        headers.LINUX_SLL: l2.CookedLinux,
        headers.LINUX_SLL2: l2.CookedLinuxV2,
        headers.NULL: l2.Loopback,
        headers.LOOP: l2.LoopbackOpenBSD,
        headers.RAW: raw,
        headers.RAW_BSD: raw,
        headers.RAW_OPENBSD: raw,
        headers.IPV4: inet.IP,
        headers.IPV6: inet6.IPv6,
    }


@contextmanager
def _spare_scapy() -> Iterator[None]:
    """Within, Scapy is imported without what no summary speaks of, and leaves nothing on the disk.

    The tables of hardware makers and of Bluetooth companies take 24 of Scapy's 38 MB and half of its time.
    It would also keep caches in the home folder, which under sudo may be somebody else's.
    """
    for name, nothing in (("scapy.libs.manuf", ""), ("scapy.libs.bluetoothids", {})):
        module = ModuleType(name)
        module.DATA = nothing  # type: ignore[attr-defined]
        sys.modules.setdefault(name, module)
    before = {name: os.environ.get(name) for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    os.environ.update(dict.fromkeys(before, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def summary(frame: Frame) -> str:
    """`Ether / IP / TCP 192.168.1.100:51514 > 192.168.1.5:http S`; the plain one where Scapy has none."""
    try:
        dissector = _dissectors().get(frame.linktype)
        text = dissector(frame.data[:_MOST_BYTES]).summary() if dissector is not None and frame.data else ""
    except Exception:  # whatever goes wrong in there, a record is written
        text = ""
    if not text:
        return plain_summary(frame, None)
    text = printable(text)
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "…"


def plain_summary(frame: Frame | None, flow: Flow | None) -> str:
    """`TCP 192.0.2.1:51514 > 192.0.2.9:80`, from the flow or else from the headers, without Scapy."""
    if flow is not None:
        return describe_flow(flow)
    if frame is None:
        return "Raw"
    seen = read_headers(frame)
    if seen is None:
        return f"Raw {frame.size} bytes"
    ends = f"{format_endpoint(seen.source, seen.source_port)} > {format_endpoint(seen.destination, seen.port)}"
    return f"{protocol_name(seen.protocol)} {ends}"


def describe_flow(flow: Flow) -> str:
    """`TCP 192.0.2.1:51514 > 192.0.2.9:80`, `ICMP 192.0.2.1 > 192.0.2.9 type 8`."""
    kind = "" if flow.icmp_type is None else f" type {flow.icmp_type}"
    source = format_endpoint(flow.source, flow.source_port)
    return f"{protocol_name(flow.protocol)} {source} > {format_endpoint(flow.destination, flow.port)}{kind}"


def describe_kind(flow: Flow) -> str:
    """`TCP 192.0.2.1 > 192.0.2.9:80`: what connections have in common that differ in the source port."""
    kind = "" if flow.icmp_type is None else f" type {flow.icmp_type}"
    source = format_address(flow.source)
    return f"{protocol_name(flow.protocol)} {source} > {format_endpoint(flow.destination, flow.port)}{kind}"
