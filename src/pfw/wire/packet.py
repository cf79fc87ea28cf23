"""The packet decoder: from the bytes of a frame to a `Packet`, carefully and in full.

`scan.py` reads the common packet faster and must agree with this. The steps are `link`, then `ipv4` or
`ipv6`, then `transport` and `icmp`; anomalies are explained in `anomaly.py`.
"""

from __future__ import annotations

from pfw.model.packet import SCTP, TCP, UDP, Packet
from pfw.wire.draft import Draft
from pfw.wire.ipv4 import read_ipv4
from pfw.wire.ipv6 import read_ipv6
from pfw.wire.link import LINKS
from pfw.wire.transport import read_transport

_PLAIN = frozenset({TCP, UDP, SCTP})


def decode(linktype: int, frame: bytes | memoryview, size: int) -> Packet:
    """Decode one frame. `size` is its bytes on the wire, of which `frame` may be the first part only.

    Never raises, whatever the bytes. A packet is `undecodable` when its headers are too broken for the
    kernel's connection tracking, or when the capture cut off what is needed to tell (`capture.snapped`).
    """
    read_link = LINKS.get(linktype)
    if read_link is None:
        return Packet(not_ip=f"linktype {linktype}")
    draft = Draft(bytes(frame), size)
    version = read_link(draft)
    if version and (read_ipv4(draft) if version == 4 else read_ipv6(draft)):
        read_transport(draft)
    return draft.finish()


def in_order(packet: Packet) -> bool:
    """Whether the key says everything: a whole TCP, UDP or SCTP packet in which nothing is odd."""
    return packet.protocol in _PLAIN and packet.key is not None and not packet.anomalies and packet.fragment is None
