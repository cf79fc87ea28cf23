"""systemd's journal by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram a record.

A value with a newline in it goes with its length in front, so that no value can bring a field of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pfw.model.address import format_address
from pfw.model.flow import Flow
from pfw.model.packet import protocol_name
from pfw.model.text import printable
from pfw.model.verdict import Verdict
from pfw.record.datagram import DatagramSink
from pfw.record.syslog import TAG, Severity

SOCKET = "/run/systemd/journal/socket"


def serialise(fields: Mapping[str, str]) -> bytes:
    """The datagram. Names are upper-case ASCII letters, digits and underscores, as the protocol wants them."""
    parts = []
    for name, value in fields.items():
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


def flow_fields(flow: Flow) -> dict[str, str]:
    """`PFW_DIRECTION`, `PFW_PROTOCOL`, `PFW_SOURCE`, `PFW_DESTINATION_PORT`, … as far as they are known."""
    fields = {
        "PFW_DIRECTION": flow.direction.value,
        "PFW_PROTOCOL": protocol_name(flow.protocol),
        "PFW_SOURCE": format_address(flow.source),
        "PFW_DESTINATION": format_address(flow.destination),
    }
    numbers = {"PFW_SOURCE_PORT": flow.source_port, "PFW_DESTINATION_PORT": flow.port, "PFW_ICMP_TYPE": flow.icmp_type}
    fields |= {name: str(number) for name, number in numbers.items() if number is not None}
    names = {"PFW_INTERFACE": flow.interface, "PFW_APP": flow.app}
    return fields | {name: printable(text) for name, text in names.items() if text is not None}


def verdict_fields(verdict: Verdict) -> dict[str, str]:
    """`PFW_VERDICT`, and `PFW_RULE` where a rule decided."""
    fields = {"PFW_VERDICT": verdict.action.value}
    if verdict.rule is not None:
        fields["PFW_RULE"] = printable(verdict.rule)
    return fields


class Journal:
    """Sends records to systemd's journal."""

    def __init__(self, path: str, tell: Callable[[str], None]) -> None:
        self.sink = DatagramSink(f"journal {path}", path, tell)

    def write(self, severity: Severity, kind: str, message: str, fields: Mapping[str, str], now: float) -> bool:
        """`kind` is one word and becomes `PFW_EVENT`; `fields` are those of `flow_fields` and `verdict_fields`."""
        common = {
            "MESSAGE": message,
            "PRIORITY": str(int(severity)),
            "SYSLOG_IDENTIFIER": TAG,
            "PFW_EVENT": kind,
        }
        return self.sink.send(serialise(common | dict(fields)), now)
