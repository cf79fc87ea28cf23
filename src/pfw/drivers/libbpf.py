"""libbpf, as far as it is needed: load an object, attach its programs to a control group, pin, read and write maps.

The library is loaded when it is first asked for (Debian: libbpf1, which iproute2 brings). Everything raises OSError
with the kernel's reason; a library that is not there is an OSError too.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

BPF_TRACE_ITER = 28
"""enum bpf_attach_type of include/uapi/linux/bpf.h."""
_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int
_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@cache
def library() -> ctypes.CDLL:
    """The library. Raises OSError where it is not there."""
    for name in ("libbpf.so.1", "libbpf.so.0"):
        try:
            found = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        _declare(found)
        found.libbpf_set_print(None)
        return found
    raise OSError(errno.ENOENT, "libbpf is not there; install it with: apt-get install libbpf1")


def _declare(found: ctypes.CDLL) -> None:
    text, size = ctypes.c_char_p, ctypes.c_size_t
    for name, result, arguments in (
        ("libbpf_set_print", _POINTER, (_POINTER,)),
        ("bpf_object__open_mem", _POINTER, (text, size, _POINTER)),
        ("bpf_object__load", _NUMBER, (_POINTER,)),
        ("bpf_object__close", None, (_POINTER,)),
        ("bpf_object__pin_maps", _NUMBER, (_POINTER, text)),
        ("bpf_object__next_program", _POINTER, (_POINTER, _POINTER)),
        ("bpf_object__next_map", _POINTER, (_POINTER, _POINTER)),
        ("bpf_map__name", text, (_POINTER,)),
        ("bpf_map__fd", _NUMBER, (_POINTER,)),
        ("bpf_program__name", text, (_POINTER,)),
        ("bpf_program__section_name", text, (_POINTER,)),
        ("bpf_program__pin", _NUMBER, (_POINTER, text)),
        ("bpf_program__attach_cgroup", _POINTER, (_POINTER, _NUMBER)),
        ("bpf_link__pin", _NUMBER, (_POINTER, text)),
        ("bpf_link__destroy", _NUMBER, (_POINTER,)),
        ("bpf_obj_get", _NUMBER, (text,)),
        ("bpf_link_create", _NUMBER, (_NUMBER, _NUMBER, _NUMBER, _POINTER)),
        ("bpf_iter_create", _NUMBER, (_NUMBER,)),
        ("bpf_map_update_elem", _NUMBER, (_NUMBER, text, text, ctypes.c_uint64)),
        ("bpf_map_lookup_elem", _NUMBER, (_NUMBER, text, text)),
        ("bpf_map_lookup_and_delete_elem", _NUMBER, (_NUMBER, text, text)),
        ("bpf_map_delete_elem", _NUMBER, (_NUMBER, text)),
        ("bpf_map_get_next_key", _NUMBER, (_NUMBER, text, text)),
        ("ring_buffer__new", _POINTER, (_NUMBER, _SAMPLE, _POINTER, _POINTER)),
        ("ring_buffer__consume", _NUMBER, (_POINTER,)),
        ("ring_buffer__epoll_fd", _NUMBER, (_POINTER,)),
        ("ring_buffer__free", None, (_POINTER,)),
    ):
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments


def _check(result: int | None, what: str) -> int:
    """The result of a call, a number that is not negative or a pointer that is not null. Raises OSError."""
    if result is None or result < 0:
        number = ctypes.get_errno() or -(result or 0)
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def load(content: bytes, cgroup: int, folder: Path) -> None:
    """Load an object, attach its programs for control groups to the one of this descriptor, and pin maps, programs for
    iterators and links in a folder of bpffs, so that all of it outlives this process."""
    lib = library()
    loaded = _check(lib.bpf_object__open_mem(content, len(content), None), "the labels' program is not understood")
    try:
        _check(lib.bpf_object__load(loaded), "the kernel refuses the labels' program")
        _pin_maps(loaded, folder)
        program = None
        while program := lib.bpf_object__next_program(loaded, program):
            path = os.fsencode(folder / lib.bpf_program__name(program).decode())
            if not lib.bpf_program__section_name(program).startswith((b"cgroup/", b"sockops")):
                _check(lib.bpf_program__pin(program, path), f"{folder}: a program cannot be pinned")
                continue
            link = _check(lib.bpf_program__attach_cgroup(program, cgroup), "the control group refuses the labels")
            try:
                _check(lib.bpf_link__pin(link, path), f"{folder}: a program cannot be pinned")
            finally:
                lib.bpf_link__destroy(link)
    finally:
        lib.bpf_object__close(loaded)


def _pin_maps(loaded: int, folder: Path) -> None:
    # The library makes `_` of every dot in the path of a map (sanitize_pin_path): it is given one without any.
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = f"/proc/self/fd/{descriptor}".encode()
        _check(library().bpf_object__pin_maps(loaded, path), f"{folder}: maps cannot be pinned")
    finally:
        os.close(descriptor)


def get(path: Path) -> int:
    """A descriptor of what is pinned there. Raises FileNotFoundError and other OSErrors."""
    return _check(library().bpf_obj_get(os.fsencode(path)), str(path))


def iterate(program: int) -> bytes:
    """All that a pinned iterator's program tells."""
    lib = library()
    link = _check(lib.bpf_link_create(program, 0, BPF_TRACE_ITER, None), "the kernel does not iterate")
    try:
        with open(_check(lib.bpf_iter_create(link), "the kernel does not iterate"), "rb", buffering=0) as file:
            return file.readall()
    finally:
        os.close(link)


class Map:
    """A pinned map; keys and values are bytes of its sizes."""

    def __init__(self, path: Path, key_bytes: int, value_bytes: int) -> None:
        self._lib = library()
        self.fd = get(path)
        self._key_bytes = key_bytes
        self._value = ctypes.create_string_buffer(value_bytes)

    def put(self, key: bytes, value: bytes) -> None:
        _check(self._lib.bpf_map_update_elem(self.fd, key, value, 0), "a map of the labels")

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None for one that is not there. Not for several threads at once."""
        if self._lib.bpf_map_lookup_elem(self.fd, key, self._value) < 0:
            return None
        return self._value.raw

    def take(self, key: bytes) -> bytes | None:
        """The value of a key, which is taken out."""
        if self._lib.bpf_map_lookup_and_delete_elem(self.fd, key, self._value) < 0:
            return None
        return self._value.raw

    def remove(self, key: bytes) -> None:
        """Remove an element, which need not be there."""
        self._lib.bpf_map_delete_elem(self.fd, key)

    def all_keys(self) -> list[bytes]:
        """All keys; what is put in or taken out meanwhile may be among them or not."""
        found: list[bytes] = []
        key: bytes | None = None
        following = ctypes.create_string_buffer(self._key_bytes)
        place = ctypes.cast(following, ctypes.c_char_p)
        seen: set[bytes] = set()
        while self._lib.bpf_map_get_next_key(self.fd, key, place) == 0 and following.raw not in seen:
            key = following.raw
            seen.add(key)
            found.append(key)
        return found

    def close(self) -> None:
        os.close(self.fd)


class RingBuffer:
    """What programs tell, in order. `take` is called with each message."""

    def __init__(self, path: Path, take: Callable[[bytes], None]) -> None:
        self._lib = library()
        self._map = get(path)

        def sample(_context: int, data: int, size: int) -> int:
            take(ctypes.string_at(data, size))
            return 0

        self._callback = _SAMPLE(sample)
        self._ring = _check(self._lib.ring_buffer__new(self._map, self._callback, None, None), "ring buffer")

    def fileno(self) -> int:
        """What becomes readable when there is something."""
        return int(self._lib.ring_buffer__epoll_fd(self._ring))

    def consume(self) -> None:
        """Hand over all that has come."""
        self._lib.ring_buffer__consume(self._ring)

    def close(self) -> None:
        self._lib.ring_buffer__free(self._ring)
        os.close(self._map)
