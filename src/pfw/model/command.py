"""Commands: everything that the engine wants done. They can be serialised and sent to another process."""

from __future__ import annotations

from msgspec import Struct

from pfw.model.flow import Flow
from pfw.model.observation import Alert
from pfw.model.verdict import Verdict


class Frame(Struct, frozen=True, gc=False, array_like=True):
    """A packet's bytes as captured, for those who dissect or store it. `size` is that on the wire."""

    linktype: int
    data: bytes
    size: int


class Judged(Struct, frozen=True, tag=True):
    """A connection was judged by its first packet, or again because the policy changed (`again`)."""

    time: float
    connection: int
    """A number that this connection alone has."""
    flow: Flow
    verdict: Verdict
    frame: Frame | None = None
    tcp_flags: int = 0
    again: bool = False


class Seen(Struct, frozen=True, tag=True):
    """A packet was seen; only where every packet was asked for. `reply` tells the way it went."""

    time: float
    connection: int
    flow: Flow
    verdict: Verdict
    size: int
    reply: bool = False


class Suspicious(Struct, frozen=True, tag=True):
    """A single packet that no honest sender makes, or that lies about itself.

    `event` is a name of `engine/suspicion.py` (`tcp.flags.syn_fin`, `martian.loopback`) or of Suricata's
    decoder (`decoder.ipv4.trunc_pkt`); `text` says it in words.
    """

    time: float
    event: str
    text: str
    frame: Frame
    flow: Flow | None = None
    interface: str | None = None


class Ended(Struct, frozen=True, tag=True):
    """A connection is over. Bytes and packets are those of the originator (`sent`) and of the other side."""

    time: float
    connection: int
    flow: Flow
    verdict: Verdict
    start: float
    end: float
    packets_sent: int
    packets_received: int
    bytes_sent: int
    bytes_received: int
    reason: str
    """`timeout`, `closed` (TCP said so), `forced` (the table was full) or `shutdown` (we stopped watching)."""
    state: str
    """`new`, `established` or `closed`."""
    flags_sent: int = 0
    flags_received: int = 0


class Notice(Struct, frozen=True, tag=True):
    """Something that a person should be told in a line, such as a table that is full."""

    time: float
    text: str


class Alerted(Struct, frozen=True, tag=True):
    """A detector found something suspicious. `program` is who had to do with it here, `response` what was done about
    it in words, `blocked` whether it was stopped by that."""

    time: float
    alert: Alert
    program: str | None = None
    response: str = ""
    blocked: bool = False


Command = Judged | Seen | Suspicious | Ended | Notice | Alerted
