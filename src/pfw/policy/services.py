"""Service names and their ports: those of /etc/services, and a table of common ones behind it.

Names count in any case. A name that stands for several ports (rare) means all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

COMMON_SERVICES: dict[str, int] = {
    "echo": 7,
    "discard": 9,
    "daytime": 13,
    "chargen": 19,
    "ftp-data": 20,
    "ftp": 21,
    "ssh": 22,
    "telnet": 23,
    "smtp": 25,
    "time": 37,
    "whois": 43,
    "tacacs": 49,
    "domain": 53,
    "dns": 53,
    "bootps": 67,
    "dhcp": 67,
    "bootpc": 68,
    "tftp": 69,
    "gopher": 70,
    "finger": 79,
    "http": 80,
    "www": 80,
    "kerberos": 88,
    "pop3": 110,
    "sunrpc": 111,
    "rpcbind": 111,
    "auth": 113,
    "ident": 113,
    "nntp": 119,
    "ntp": 123,
    "epmap": 135,
    "netbios-ns": 137,
    "netbios-dgm": 138,
    "netbios-ssn": 139,
    "imap": 143,
    "imap2": 143,
    "snmp": 161,
    "snmp-trap": 162,
    "snmptrap": 162,
    "xdmcp": 177,
    "bgp": 179,
    "irc": 194,
    "ldap": 389,
    "https": 443,
    "microsoft-ds": 445,
    "smb": 445,
    "kpasswd": 464,
    "submissions": 465,
    "smtps": 465,
    "isakmp": 500,
    "ike": 500,
    "biff": 512,
    "login": 513,
    "syslog": 514,
    "printer": 515,
    "route": 520,
    "rip": 520,
    "uucp": 540,
    "dhcpv6-client": 546,
    "dhcpv6-server": 547,
    "rtsp": 554,
    "nntps": 563,
    "submission": 587,
    "ipp": 631,
    "ldaps": 636,
    "kerberos-adm": 749,
    "domain-s": 853,
    "rsync": 873,
    "ftps-data": 989,
    "ftps": 990,
    "telnets": 992,
    "imaps": 993,
    "pop3s": 995,
    "socks": 1080,
    "openvpn": 1194,
    "ms-sql-s": 1433,
    "l2f": 1701,
    "l2tp": 1701,
    "pptp": 1723,
    "radius": 1812,
    "radius-acct": 1813,
    "mqtt": 1883,
    "ssdp": 1900,
    "nfs": 2049,
    "docker": 2375,
    "docker-s": 2376,
    "etcd-client": 2379,
    "etcd-server": 2380,
    "iscsi-target": 3260,
    "mysql": 3306,
    "ms-wbt-server": 3389,
    "rdp": 3389,
    "nut": 3493,
    "stun": 3478,
    "svn": 3690,
    "epmd": 4369,
    "ipsec-nat-t": 4500,
    "vxlan": 4789,
    "sip": 5060,
    "sip-tls": 5061,
    "xmpp-client": 5222,
    "xmpp-server": 5269,
    "mdns": 5353,
    "llmnr": 5355,
    "postgresql": 5432,
    "amqps": 5671,
    "amqp": 5672,
    "vnc": 5900,
    "x11": 6000,
    "redis": 6379,
    "ircd": 6667,
    "ircs-u": 6697,
    "http-alt": 8080,
    "mqtts": 8883,
    "git": 9418,
    "jetdirect": 9100,
    "bacula-dir": 9101,
    "zabbix-agent": 10050,
    "zabbix-trapper": 10051,
    "memcached": 11211,
    "mongodb": 27017,
    "wireguard": 51820,
}
"""Names as IANA or Debian's /etc/services have them, and what people say instead."""

_LINE = r"(?m)^(\S+)[ \t]+([0-9]{1,5})/\w+([^#\n]*)"


def read_services(text: str) -> Iterator[tuple[str, int]]:
    """Name and port of each line of a services file (services(5)), aliases too. Other lines are passed over."""
    for match in re.finditer(_LINE, text):
        port = int(match[2])
        if port <= 65535 and not match[1].startswith("#"):
            yield match[1].lower(), port
            for alias in match[3].split():
                yield alias.lower(), port


class Services:
    """Looks names up; the text of /etc/services is asked for at the first name and not before."""

    def __init__(self, source: Callable[[], str] | None = None) -> None:
        self._source = source
        self._table: dict[str, frozenset[int]] | None = None

    def ports(self, name: str) -> frozenset[int] | None:
        """The ports of a service, or None if nobody knows it."""
        return self._load().get(name.lower())

    def names(self) -> list[str]:
        return list(self._load())

    def name_of(self, port: int) -> str | None:
        """What a port is called, the name that everybody knows before that of this system; None if nobody names it."""
        return next((name for name, ports in self._load().items() if ports == {port}), None)

    def _load(self) -> dict[str, frozenset[int]]:
        if self._table is None:
            listed: dict[str, set[int]] = {}
            for name, port in read_services(self._source() if self._source else ""):
                listed.setdefault(name, set()).add(port)
            self._table = {name: frozenset({port}) for name, port in COMMON_SERVICES.items()}
            self._table.update((name, frozenset(ports)) for name, ports in listed.items())
        return self._table
