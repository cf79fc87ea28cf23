"""Capture filters (`tcp port 443 and not host 192.0.2.1`), compiled and run by libpcap.

Live, the kernel runs the compiled program; over a capture file libpcap does, packet by packet. libpcap is
loaded only when a filter is asked for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from pfw.drivers.capture import SNAP_BYTES
from pfw.wire.classic_bpf import Program

INSTRUCTIONS_MAX = 4096
"""BPF_MAXINSNS of the kernel."""


_DLT = {101: 12}
"""Link types of files that have another number inside libpcap on Linux (pcap/dlt.h): raw IP."""

_ETHERNET, _RAW = 1, 101
_NOTHING = (0x06, 0, 0, 0)
"""`ret #0`"""
_HARDWARE_TYPE = 0xFFFFF000 + 28
"""SKF_AD_OFF + SKF_AD_HATYPE (include/uapi/linux/filter.h): the kernel gives the device's type there."""


class FilterError(Exception):
    """The filter cannot be used: what it says is wrong, or libpcap is not there."""


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


def compile_filter(text: str, linktype: int, snap_bytes: int = SNAP_BYTES) -> Program:
    """The program for frames of a link type. Raises FilterError."""
    library = _library()
    handle = library.pcap_open_dead(_DLT.get(linktype, linktype), snap_bytes)
    if not handle:
        raise FilterError("libpcap has no memory for a filter")
    program = _Program()
    try:
        if library.pcap_compile(handle, ctypes.byref(program), text.encode(errors="replace"), 1, 0xFFFFFFFF):
            reason = library.pcap_geterr(handle).decode(errors="replace")
            raise FilterError(f"the filter {text!r} is not understood: {reason}")
        if program.length > INSTRUCTIONS_MAX:
            raise FilterError(f"the filter {text!r} is too long: {program.length} instructions")
        code = [program.instructions[at] for at in range(program.length)]
        return [(each.code, each.jt, each.jf, each.k) for each in code]
    finally:
        library.pcap_freecode(ctypes.byref(program))
        library.pcap_close(handle)


def compile_live_filter(text: str) -> Program:
    """The program for a live capture on any device, with an Ethernet header or none. Raises FilterError."""
    ethernet = compile_filter(text, _ETHERNET)
    try:
        raw = compile_filter(text, _RAW)
    except FilterError:
        # It speaks of Ethernet addresses or the like: no packet without them can be meant.
        raw = [_NOTHING]
    choose = [
        (0x20, 0, 0, _HARDWARE_TYPE),  # ld  #hatype
        (0x15, 2, 0, 1),  # jeq #ARPHRD_ETHER, ethernet
        (0x15, 1, 0, 772),  # jeq #ARPHRD_LOOPBACK, ethernet
        (0x05, 0, 0, len(ethernet)),  # ja  raw
    ]
    if len(choose) + len(ethernet) + len(raw) > INSTRUCTIONS_MAX:
        raise FilterError(f"the filter {text!r} is too long for all kinds of devices at once")
    return choose + ethernet + raw


def matcher(program: Program) -> Callable[[bytes, int], bool]:
    """A function of a frame and its size on the wire: whether the program takes it."""
    library = _library()
    array = (_Instruction * len(program))(*(_Instruction(*each) for each in program))

    def matches(frame: bytes, size: int) -> bool:
        return bool(library.bpf_filter(array, frame, size, len(frame)))

    return matches


def _load() -> ctypes.CDLL:
    # Debian's name and everybody else's; ctypes.util.find_library would start a compiler to find out.
    for name in ("libpcap.so.0.8", "libpcap.so.1"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise FilterError("--filter needs libpcap; install it with: apt-get install libpcap0.8")


def _library() -> ctypes.CDLL:
    library = _load()
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
    library.pcap_compile.argtypes = (
        ctypes.c_void_p,
        ctypes.POINTER(_Program),
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_uint,
    )
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = (ctypes.c_void_p,)
    library.pcap_freecode.argtypes = (ctypes.POINTER(_Program),)
    library.pcap_close.argtypes = (ctypes.c_void_p,)
    library.bpf_filter.restype = ctypes.c_uint
    library.bpf_filter.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint)
    return library
