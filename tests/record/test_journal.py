from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pfw.record.journal import Journal, flow_fields, serialise, verdict_fields
from pfw.record.syslog import Severity


def parse(data: bytes) -> dict[str, bytes]:
    """A reader of the native protocol, written from its description."""
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            data = rest
        else:
            size = int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + size], rest[8 + size + 1 :]
            assert rest[8 + size : 8 + size + 1] == b"\n"
        fields[name.decode()] = value
    return fields


def test_it_arrives(tmp_path: Path, make: Any, tell: Callable[[str], None]) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(5)
        journal = Journal(str(path), tell)
        command = make.judged()
        fields = verdict_fields(command.verdict) | flow_fields(command.flow)
        assert journal.write(Severity.WARNING, "blocked", "TCP a > b - Blocked", fields, 1.0)
        data = receiver.recv(5000)
    journal.sink.close()
    assert parse(data) == {
        "MESSAGE": b"TCP a > b - Blocked",
        "PRIORITY": b"4",
        "SYSLOG_IDENTIFIER": b"pfw",
        "PFW_EVENT": b"blocked",
        "PFW_VERDICT": b"block",
        "PFW_RULE": b"block ip",
        "PFW_DIRECTION": b"in",
        "PFW_PROTOCOL": b"TCP",
        "PFW_SOURCE": b"192.168.1.100",
        "PFW_SOURCE_PORT": b"51514",
        "PFW_DESTINATION": b"192.168.1.5",
        "PFW_DESTINATION_PORT": b"80",
        "PFW_INTERFACE": b"eth0",
    }


@given(
    st.dictionaries(st.sampled_from(["MESSAGE", "PFW_RULE", "PFW_X"]), st.text(st.characters(exclude_categories=())))
)
def test_no_value_brings_a_field_of_its_own(fields: dict[str, str]) -> None:
    read = parse(serialise(fields))
    assert read == {name: value.encode("utf-8", "backslashreplace") for name, value in fields.items()}


def test_an_injected_field_stays_a_value() -> None:
    assert parse(serialise({"MESSAGE": "x\nPRIORITY=0\n", "PRIORITY": "5"}))["PRIORITY"] == b"5"
