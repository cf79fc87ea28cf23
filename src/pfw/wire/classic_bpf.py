"""Programs of classic BPF as the kernel takes them (include/uapi/linux/filter.h: struct sock_filter)."""

from __future__ import annotations

from struct import Struct as Layout

Program = list[tuple[int, int, int, int]]
"""Code, jump if true, jump if false, constant."""
_INSTRUCTION = Layout("=HBBI")


def encode(program: Program) -> bytes:
    return b"".join(_INSTRUCTION.pack(*each) for each in program)
