"""The bus: what others send there neither ends the agent nor fills its memory."""

from __future__ import annotations

import select
import socket
import threading

import pytest
from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call, new_signal
from jeepney.io.blocking import open_dbus_connection

from pfw.agent.bus import MESSAGE_BYTES_MAX, Bus, BusError

from .conftest import WAIT_S

EMITTER = DBusAddress("/x", interface="org.example.X")


@pytest.fixture
def bus(desk):
    with Bus(desk.bus.address) as made:
        yield made


@pytest.fixture
def stranger(desk, bus):
    with open_dbus_connection(desk.bus.address) as made:
        made.to = bus.name
        yield made


def signalled(stranger, text: object, signature: str = "s") -> None:
    message = new_signal(EMITTER, "Said", signature, (text,))
    message.header.fields[HeaderFields.destination] = stranger.to
    stranger.send(message)


def heard(bus: Bus, member: str = "Said") -> object:
    """What the next signal of this name says."""
    while True:
        assert select.select([bus], [], [], WAIT_S)[0]
        for message in bus.receive():
            if message.header.fields.get(HeaderFields.member) == member:
                return message.body[0]


def test_a_message_that_jeepney_cannot_read(bus, stranger):
    """It names a file descriptor that does not come with it; the bus lets that pass."""
    message = new_signal(EMITTER, "Said", "u", (5,))
    message.header.fields[HeaderFields.destination] = stranger.to
    data = message.serialise(serial=50)
    assert data.count(b"\x01g\0\x01u\0") == 1
    stranger.sock.sendall(data.replace(b"\x01g\0\x01u\0", b"\x01g\0\x01h\0"))
    signalled(stranger, "after it")
    assert heard(bus) == "after it"
    assert bus.unread == 1


def test_a_message_that_is_too_long(bus, stranger):
    signalled(stranger, "x" * (3 * MESSAGE_BYTES_MAX))
    signalled(stranger, "after it")
    assert heard(bus) == "after it"
    assert bus.unread == 1


def test_nothing_can_be_called(bus, stranger):
    reply: list = []
    call = new_method_call(DBusAddress("/", bus_name=bus.name, interface="org.example.X"), "Do")
    thread = threading.Thread(target=lambda: reply.append(stranger.send_and_get_reply(call, timeout=WAIT_S)))
    thread.start()
    while not reply:
        if select.select([bus], [], [], 0.05)[0]:
            bus.receive()
    thread.join()
    assert reply[0].header.message_type is MessageType.error


def test_a_name_has_one_owner(desk, bus):
    assert bus.claim("org.example.One")
    with Bus(desk.bus.address) as other:
        assert not other.claim("org.example.One")
        assert other.owner_of("org.example.One") == bus.name
        assert other.owner_of("org.example.Two") is None


@pytest.mark.parametrize(
    "address",
    ["", "nothing", "unix:path=/nowhere/bus", "tcp:host=localhost,port=1", "unix:runtime=yes", "unix:path=/dev/null"],
)
def test_no_such_bus(address):
    with pytest.raises(BusError, match="cannot be used"):
        Bus(address)


def test_somebody_who_is_no_bus(folder):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "bus"))
        listener.listen()
        with pytest.raises(BusError):
            Bus(f"unix:path={folder}/bus", timeout_s=0.2)
