"""The plain loop over Scapy that a first version of a firewall in Python is: judge every packet by the lists
of a simple rules.json, log its summary (`read`) or print it (`sniff`).

    scapy_loop.py read CAPTURE RULES LOG COUNT        prints {"packets": …, "seconds": …}
    scapy_loop.py sniff INTERFACE RULES               until SIGINT; {"packets": …, "lost": …} on standard error
"""

from __future__ import annotations

import json
import logging
import sys
import time
from itertools import islice
from pathlib import Path
from struct import unpack
from typing import Any

from scapy.config import conf
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.sendrecv import sniff
from scapy.utils import PcapReader

SOL_PACKET, PACKET_STATISTICS = 263, 6


class Lists:
    """The lists of a simple policy. Addresses are compared as text, the way such scripts do."""

    def __init__(self, path: Path) -> None:
        self._lists = json.loads(path.read_text())

    def verdict(self, packet: Any) -> str:
        layer = next((packet[kind] for kind in (IP, IPv6) if kind in packet), None)
        transport = next((packet[kind] for kind in (TCP, UDP) if kind in packet), None)
        peers = {layer.src, layer.dst} if layer is not None else set()
        port = transport.dport if transport is not None else None
        for action, verdict in (("block", "Blocked"), ("allow", "Allowed")):
            if not peers.isdisjoint(self._lists[action].get("ip", ())):
                return verdict
        for action, verdict in (("block", "Blocked"), ("allow", "Allowed")):
            if port in self._lists[action].get("port", ()):
                return verdict
        return "Allowed"


def read(capture: str, rules: Path, log: str, count: int) -> None:
    lists = Lists(rules)
    logging.basicConfig(filename=log, filemode="w", format="%(asctime)s - %(message)s", level=logging.INFO)
    began = time.perf_counter()
    packets = 0
    with PcapReader(capture) as packets_there:
        for packet in islice(packets_there, count):
            logging.info("%s - %s", packet.summary(), lists.verdict(packet))
            packets += 1
    print(json.dumps({"packets": packets, "seconds": time.perf_counter() - began}))


def watch(interface: str, rules: Path) -> None:
    lists = Lists(rules)
    seen = 0

    def show(packet: Any) -> None:
        nonlocal seen
        seen += 1
        print(f"{packet.summary()} - {lists.verdict(packet)}")

    with conf.L2listen(iface=interface) as listening:
        sniff(opened_socket=listening, store=False, prn=show)
        _, lost = unpack("=II", listening.ins.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    print(json.dumps({"packets": seen, "lost": lost}), file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1] == "read":
        read(sys.argv[2], Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
    else:
        watch(sys.argv[2], Path(sys.argv[3]))
