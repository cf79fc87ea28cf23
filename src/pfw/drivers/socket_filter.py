"""Filters on sockets: what the kernel hands over, and what not."""

from __future__ import annotations

import ctypes
import socket
from struct import Struct as Layout

from pfw.wire.classic_bpf import Program, encode

_SO_ATTACH_FILTER = 26


def attach(sock: socket.socket, program: Program) -> None:
    """From now on only what the program takes comes in. Raises OSError."""
    memory = ctypes.create_string_buffer(encode(program))
    header = Layout("@HP").pack(len(program), ctypes.addressof(memory))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
