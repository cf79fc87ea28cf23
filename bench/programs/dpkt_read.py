"""A plain loop over dpkt: parse Ethernet, IP and TCP or UDP of each packet, look its flow up in a dict.

dpkt_read.py CAPTURE                              prints {"packets": …, "flows": …, "seconds": …}
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module


def main(capture: str) -> None:
    # Installed for the bench alone, so by name: who checks types does not have it.
    ethernet, pcap = import_module("dpkt.ethernet").Ethernet, import_module("dpkt.pcap")
    began = time.perf_counter()
    flows: dict[tuple[bytes, bytes, int, int], int] = {}
    packets = 0
    with open(capture, "rb") as file:
        for _, frame in pcap.Reader(file):
            network = ethernet(frame).data
            transport = network.data
            key = (network.src, network.dst, transport.sport, transport.dport)
            flows[key] = flows.get(key, 0) + 1
            packets += 1
    print(json.dumps({"packets": packets, "flows": len(flows), "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main(sys.argv[1])
