from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.daemon.messages import MESSAGE_BYTES_MAX, Outbox, framed, frames


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50))
def test_messages_come_whole_however_they_are_cut(payloads: list[bytes], size: int) -> None:
    stream = b"".join(map(framed, payloads))
    received, found = bytearray(), []
    for at in range(0, len(stream), size):
        received += stream[at : at + size]
        found += frames(received)
    assert found == payloads
    assert not received


def test_one_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        list(frames(bytearray((MESSAGE_BYTES_MAX + 1).to_bytes(4, "little"))))


def test_what_is_not_taken_waits_and_what_nobody_will_take_is_gone() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    outbox = Outbox(ours)
    payload = bytes(1 << 20)
    outbox.put(payload)
    outbox.flush()
    assert 0 < len(outbox) < len(framed(payload))
    received = bytearray()
    while outbox:
        received += theirs.recv(1 << 16)
        outbox.flush()
    while len(received) < len(framed(payload)):
        received += theirs.recv(1 << 16)
    assert list(frames(received)) == [payload]
    theirs.close()
    outbox.put(b"x")
    with pytest.raises(BrokenPipeError):
        outbox.flush()
    assert not outbox
    ours.close()
