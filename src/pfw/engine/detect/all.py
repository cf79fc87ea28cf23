"""Every detector that there is, made anew: whoever writes one adds it here."""

from __future__ import annotations

from pfw.engine.detect.arp_scan import ArpScan
from pfw.engine.detect.arp_spoof import ArpSpoof
from pfw.engine.detect.beacon import Beacon
from pfw.engine.detect.brute_force import BruteForce
from pfw.engine.detect.changed_program import ChangedProgram
from pfw.engine.detect.datagram_flood import IcmpFlood, UdpFlood
from pfw.engine.detect.detector import Detector
from pfw.engine.detect.dga import Dga
from pfw.engine.detect.dns_tunnel import DnsTunnel
from pfw.engine.detect.fragment_evasion import FragmentEvasion
from pfw.engine.detect.icmp_tunnel import IcmpTunnel
from pfw.engine.detect.known_bad import KnownBad
from pfw.engine.detect.malformed import Malformed
from pfw.engine.detect.new_listener import NewListener
from pfw.engine.detect.port_scan import PortScan
from pfw.engine.detect.reflection import Reflection
from pfw.engine.detect.rogue_dhcp import RogueDhcp
from pfw.engine.detect.rogue_router import RogueRouter
from pfw.engine.detect.stealth_scan import StealthScan
from pfw.engine.detect.sweep import Sweep
from pfw.engine.detect.syn_flood import SynFlood
from pfw.engine.detect.upload_spike import UploadSpike


def detectors(known_bad: KnownBad | None = None, new_listener: NewListener | None = None) -> list[Detector]:
    """All. Of those that are given whoever makes them may want to tell them more later."""
    return [
        PortScan(),
        Sweep(),
        StealthScan(),
        ArpScan(),
        SynFlood(),
        UdpFlood(),
        IcmpFlood(),
        Reflection(),
        BruteForce(),
        DnsTunnel(),
        Dga(),
        IcmpTunnel(),
        Beacon(),
        UploadSpike(),
        ArpSpoof(),
        RogueRouter(),
        RogueDhcp(),
        Malformed(),
        FragmentEvasion(),
        new_listener or NewListener(),
        ChangedProgram(),
        known_bad or KnownBad(),
    ]
