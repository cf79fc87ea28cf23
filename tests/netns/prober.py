"""Three network namespaces, client - firewall - server, and packets through the one in the middle.

Client and server are nothing but cables: frames are put on them and seen on them, no kernel answers. Each packet is
followed by its token: the kernel's log says which rule decided on it and where, the far end whether it arrived.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

from msgspec import Struct
from tests.netns.probes import CLIENT, HERE, KINDS, SERVER, Probe, frame, is_answer, packet, receiver

from pfw.drivers.netlink import NETLINK_NETFILTER, open_socket, receive
from pfw.drivers.nflog import LogReader
from pfw.enforce.nft_table import LOG_GROUP, QUIET_GROUP
from pfw.model.address import AddressSet, parse_address, parse_range
from pfw.model.packet import ICMP, ICMPV6
from pfw.wire.netlink import NLM_F_ACK, NLM_F_REQUEST
from pfw.wire.nflog import Logged
from pfw.wire.nfnetlink import CONNTRACK, question

T = TypeVar("T")

INTERFACES = {CLIENT: "eth0", SERVER: "wlan0"}
"""Of the firewall, by who is behind it."""
LOCAL = ("10.1.0.1", "10.1.0.9", "10.2.0.1", "fd01::1", "fd01::9", "fd02::1")
CLIENT_SIDE = ("10.1.0.0/16", "fd01::/32")
"""Routed to the client; all else goes to the server."""
PUBLISHED = {"10.1.0.99": "10.2.0.50", "fd01::99": "fd02::50"}
"""Addresses whose ports `PUBLISHED_PORTS` are rewritten on the way in, and what they are rewritten to."""
PUBLISHED_PORTS, INSIDE_PORT = (8000, 8100), 8443
OWNERS = ((0, 0), (1001, 50), (1001, 100), (1002, 10), (1003, 77))
"""User and group of the sockets that the firewall sends from."""

_TOKEN = re.compile(rb"\xf1\xf2....\xf3\xf4", re.DOTALL)
_FRAME_HEADER_BYTES = 14
_OUTGOING = 4
_HOOKS = {0: "before", 1: "in", 2: "forward", 3: "out"}
_ALL_FRAMES = 3
_SO_RCVBUFFORCE = 33
_CLONE_FS_CALLS = ctypes.CDLL(None, use_errno=True)
_FILL_S, _TOLD_AFTER_S = 0.002, 0.1
_CLIENT_SET = AddressSet([parse_range(text) for text in CLIENT_SIDE])


class Seen(Struct):
    """What became of a packet: who decided on it where, in order; where it arrived; whether it was refused."""

    decided: list[tuple[str, int]]
    arrived: str | None = None
    answered: bool = False


def leaves_by(destination: str) -> str:
    """The interface to an address, as the firewall's routes are."""
    if destination in LOCAL:
        return "lo"
    return INTERFACES[CLIENT if parse_address(destination) in _CLIENT_SET else SERVER]


class World:
    """The three namespaces. `namespace` makes one; `close` closes what is open in them."""

    def __init__(self, namespace: Callable[[], Any], ip: Callable[..., None]) -> None:
        self.firewall, self._outside = namespace(), {CLIENT: namespace(), SERVER: namespace()}
        self._ip = ip
        self._open = ExitStack()
        self._macs: dict[str, tuple[bytes, bytes]] = {}
        self._wires: dict[str, socket.socket] = {}
        self._sniffers: dict[str, socket.socket] = {}
        self._number = 0
        self.patience_s = 5.0
        """How long to wait for what shall become of a packet."""
        self.others: Counter[int] = Counter()
        """Since the last packets were sent: what else the kernel told of, by the number of the verdict."""
        for side, (four, six) in {CLIENT: ("10.1.0", "fd01:"), SERVER: ("10.2.0", "fd02:")}.items():
            self._connect(side, four, six)
        self._route()
        self._senders = self.firewall.call(self._make_senders)
        self._receivers = self.firewall.call(self._make_receivers)
        self.log = self.firewall.call(lambda: LogReader([LOG_GROUP, QUIET_GROUP]))
        self._open.callback(self.log.close)

    def close(self) -> None:
        self._open.close()

    def _set(self, *names: str) -> None:
        self.firewall.run("sysctl", "-eqw", *names)

    def _connect(self, side: str, four: str, six: str) -> None:
        name, here, there = INTERFACES[side], self.firewall.name, self._outside[side].name
        self._outside[side].run("sysctl", "-eqw", "net.ipv6.conf.all.disable_ipv6=1")
        self._ip("link", "add", name, "netns", here, "type", "veth", "peer", "name", "eth0", "netns", there)
        self._ip("-n", there, "link", "set", "eth0", "arp", "off", "up")
        self._ip("-n", here, "link", "set", name, "up")
        for last in ("1", "9") if side == CLIENT else ("1",):
            self._ip("-n", here, "addr", "add", f"{four}.{last}/24", "dev", name)
            self._ip("-n", here, "addr", "add", f"{six}:{last}/64", "dev", name, "nodad")
        own, theirs = self._mac(self.firewall, name), self._mac(self._outside[side], "eth0")
        self._macs[side] = own, theirs
        for gateway in (f"{four}.2", f"{six}:2"):
            self._ip("-n", here, "neigh", "add", gateway, "lladdr", theirs.hex(":"), "dev", name, "nud", "permanent")
        self._wires[side], self._sniffers[side] = self._outside[side].call(lambda: (_link_socket(0), _link_socket(3)))
        self._open.callback(self._wires[side].close)
        self._open.callback(self._sniffers[side].close)

    def _mac(self, at: Any, name: str) -> bytes:
        def read() -> bytes:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
                sock.bind((name, 0))
                return bytes(sock.getsockname()[4])

        return bytes(at.call(read))

    def _route(self) -> None:
        # Forwarding first: turning it on puts the routes of IPv6 in order anew.
        self._set("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0",
                  "net.ipv4.conf.default.rp_filter=0", "net.ipv4.conf.all.send_redirects=0",
                  "net.ipv4.icmp_ratelimit=0", "net.ipv4.icmp_msgs_per_sec=100000", "net.ipv4.icmp_msgs_burst=10000",
                  "net.ipv6.icmp.ratelimit=0",
                  # Connection tracking sums up UDP-Lite as UDP (udplite_error, Linux 6.18), and calls it invalid.
                  "net.netfilter.nf_conntrack_checksum=0",
                  *(f"net.ipv4.conf.{name}.{what}=0" for name in INTERFACES.values()
                    for what in ("rp_filter", "send_redirects")))  # fmt: skip
        here = self.firewall.name
        for side, four, six in ((CLIENT, "10.1.0.2", "fd01::2"), (SERVER, "10.2.0.2", "fd02::2")):
            name = INTERFACES[side]
            nets = CLIENT_SIDE if side == CLIENT else ("10.2.0.0/16", "fd02::/32", "default", "default")
            for net, gateway in zip(nets, (four, six, four, six), strict=False):
                family = "-6" if ":" in gateway else "-4"
                self._ip("-n", here, family, "route", "add", net, "via", gateway, "dev", name)
            # No neighbour but the gateway: what would be asked for by its own address is sent there, too.
            for net, gateway in ((f"{four[:-1]}0/24", four), (f"{six[:-1]}/64", six)):
                family = "-6" if ":" in gateway else "-4"
                self._ip("-n", here, family, "route", "del", net, "dev", name)
                self._ip("-n", here, family, "route", "add", gateway, "dev", name)
        rules = "".join(
            f"{'ip6' if ':' in outside else 'ip'} daddr {outside} meta l4proto {{ tcp, udp }} "
            f"th dport {PUBLISHED_PORTS[0]}-{PUBLISHED_PORTS[1]} "
            f"dnat {'ip6' if ':' in outside else 'ip'} to {f'[{inside}]' if ':' in inside else inside}:{INSIDE_PORT}\n"
            for outside, inside in PUBLISHED.items()
        )
        table = f"table inet publishing {{ chain c {{ type nat hook prerouting priority dstnat;\n{rules}}}\n}}\n"
        self.firewall.run("nft", "-f", "-", input=table)

    def _make_senders(self) -> dict[tuple[int, int, bool], socket.socket]:
        """Raw sockets by owner and family: the kernel asks whose file a socket is."""
        made = {}
        for uid, gid in OWNERS:
            _CLONE_FS_CALLS.setfsgid(gid)
            _CLONE_FS_CALLS.setfsuid(uid)
            for six in (False, True):
                sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
                made[uid, gid, six] = self._open.enter_context(sock)
        return made

    def _make_receivers(self) -> list[socket.socket]:
        made = [receiver(six, protocol) for six in (False, True) for protocol in KINDS if (protocol == 58) <= six]
        for each in made:
            each.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20)
            self._open.callback(each.close)
        return made

    def send(
        self, probes: list[Probe], done: Callable[[list[Seen]], bool], before: Callable[[Probe], None]
    ) -> list[Seen]:
        """Send packets one behind the other, and see what becomes of them: until that is `done`, or time is up.

        Only in the firewall's namespace (`firewall.call`), and after `begin`. `before` is told of each packet before
        it is sent.
        """
        tokens = [self._token() for _ in probes]
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(processors)})  # one queue on the way, so that order is kept
        for probe, token in zip(probes, tokens, strict=True):
            before(probe)
            self._send(probe, token)
        os.sched_setaffinity(0, processors)
        seen = [Seen([]) for _ in probes]
        by_token = {token: (probe, each) for probe, token, each in zip(probes, tokens, seen, strict=True)}
        deadline = time.monotonic() + self.patience_s
        while True:
            self._look(by_token)
            if done(seen) or time.monotonic() > deadline:
                return seen
            time.sleep(_FILL_S)

    def settle(self) -> None:
        """Wait until the kernel has told of all that it has counted."""
        time.sleep(_TOLD_AFTER_S)
        self._look({})

    def _token(self) -> bytes:
        self._number += 1
        return b"\xf1\xf2" + self._number.to_bytes(4) + b"\xf3\xf4"

    def _send(self, probe: Probe, token: bytes) -> None:
        sent = packet(probe, token)
        if probe.sender == HERE:
            sock = self._senders[probe.uid, probe.gid, probe.is_ipv6]
            with suppress(PermissionError):  # what is dropped on its way out is told to who sent it
                sock.sendto(sent, (probe.destination, 0))
            return
        self._wires[probe.sender].send(frame(sent, *self._macs[probe.sender]))

    def begin(self) -> None:
        """Forget all that was before: connections, and what is still on its way."""
        forget_connections()
        self.log.read()
        self.others.clear()
        for sock in (*self._sniffers.values(), *self._receivers):
            for _ in _waiting(sock):
                pass

    def _look(self, by_token: dict[bytes, tuple[Probe, Seen]]) -> None:
        for logged in self.log.read():
            self._note_decision(logged, by_token)
        for side, sock in self._sniffers.items():
            for content, address in _waiting(sock):
                if address[2] != _OUTGOING:
                    _note_frame(side, content[_FRAME_HEADER_BYTES:], by_token)
        for sock in self._receivers:
            for content, _ in _waiting(sock):
                found = by_token.get(_token_in(content))
                if found is not None and _is_delivered(content, sock, found[0]):
                    found[1].arrived = HERE

    def _note_decision(self, logged: Logged, by_token: dict[bytes, tuple[Probe, Seen]]) -> None:
        found = by_token.get(_token_in(logged.payload))
        _, number = logged.prefix.removeprefix("pfw ").split()
        if found is None or not _is_of(logged.payload, found[0]):
            self.others[int(number)] += 1
            return
        found[1].decided.append((_HOOKS[logged.hook or 0], int(number)))


def _note_frame(side: str, content: bytes, by_token: dict[bytes, tuple[Probe, Seen]]) -> None:
    token = _token_in(content)
    if token in by_token:
        probe, seen = by_token[token]
        if _is_of(content, probe):
            seen.arrived = side
        elif is_answer(content, probe, token):
            seen.answered = True
        return
    for probe, seen in by_token.values():
        if is_answer(content, probe, token or b"none"):
            seen.answered = True


def _is_of(content: bytes, probe: Probe) -> bool:
    """Whether a packet is the probe itself, maybe with another destination, and not an error about it."""
    six = content[0] >> 4 == 6
    protocol, source, rest = (content[6], content[8:24], content[40:]) if six else (
        content[9], content[12:16], content[20:])  # fmt: skip
    if protocol != probe.protocol or source != parse_address(probe.source):
        return False
    return protocol not in (ICMP, ICMPV6) or rest[0] == probe.icmp_type


def _is_delivered(content: bytes, sock: socket.socket, probe: Probe) -> bool:
    """Whether what a raw socket got is the probe itself. IPv6 is given without its header."""
    transport = content[20:] if sock.family == socket.AF_INET else content
    is_icmp = probe.protocol in (ICMP, ICMPV6)
    return sock.proto == probe.protocol and (not is_icmp or transport[0] == probe.icmp_type)


def _token_in(content: bytes) -> bytes:
    found = _TOKEN.search(content)
    return found[0] if found is not None else b""


def _link_socket(protocol: int) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind(("eth0", protocol))
    sock.setblocking(False)
    return sock


def _waiting(sock: socket.socket) -> Iterable[tuple[bytes, Any]]:
    while True:
        try:
            yield sock.recvfrom(2048)
        except BlockingIOError:
            return


def forget_connections() -> None:
    """Connection tracking of this namespace begins anew."""
    with open_socket(NETLINK_NETFILTER) as sock:
        sock.send(question(CONNTRACK, 2, 0, flags=NLM_F_REQUEST | NLM_F_ACK))
        receive(sock)
