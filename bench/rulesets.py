"""One policy in the languages of several firewalls, so that each has the same to do. Pure text.

Most rules ask for a network, a protocol and a port that no packet of the bench has; the last one lets its ports in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from random import Random
from xml.sax.saxutils import quoteattr

from pair import LISTED
from policies import block_list, full, many_rules

PORTS = (5201, 5203)
"""What the last rule lets in: iperf3's port, that of our own programs, and one to spare."""
Rule = dict[str, object]

FLOOR = """table inet floor {
	chain in {
		type filter hook input priority filter; policy drop;
		ct state { established, related, new } accept
	}
	chain out {
		type filter hook output priority filter; policy drop;
		ct state { established, related, new } accept
	}
}
"""
"""What connection tracking costs, and a firewall that looks at nothing else."""

_LAST: Rule = {
    "name": "the bench",
    "action": "allow",
    "direction": "in",
    "protocol": ["tcp", "udp"],
    "port": f"{PORTS[0]}-{PORTS[1]}",
}


def rules(count: int) -> list[Rule]:
    """So many rules, of which the last is the only one that matches."""
    return [*many_rules(count - 1), _LAST]


def policy(count: int, list_file: str | None = None, *, changed: bool = False) -> str:
    """A policy file; `changed` has one rule that says something else."""
    found = rules(count)
    if changed:
        found[len(found) // 2 - 1] |= {"port": 10_001}
    document = full(found)
    if list_file is not None:
        document["blocklists"] = [{"name": "bench", "source": list_file}]
    return json.dumps(document, indent=1)


def prefixes(count: int) -> list[str]:
    """A block list: mostly hosts, some networks; they may overlap. The far end's second address is on it."""
    listed = block_list(count - 1)[0]["remote"]
    assert isinstance(listed, list)
    return [LISTED, *listed]


def merged(texts: Iterable[str]) -> list[str]:
    """The same addresses in the fewest prefixes: nft takes none that overlap."""
    return [str(network) for network in collapse_addresses(map(IPv4Network, texts))]


def hosts(count: int) -> list[str]:
    """Different addresses of hosts, for bans; none of loopback's, which nobody bans."""
    pick = Random(4)
    found: dict[str, None] = {}
    while len(found) < count:
        found[str(IPv4Address(pick.randrange(128 << 24, 223 << 24)))] = None
    return list(found)


def ufw_rules(found: Sequence[Rule]) -> str:
    """The lines of `user.rules` that ufw would have written for these rules, one by one."""
    targets = {"allow": ("allow", "ACCEPT"), "block": ("deny", "DROP"), "reject": ("reject", "REJECT")}
    lines = []
    for rule in found:
        word, target = targets[str(rule["action"])]
        source = str(rule.get("from", "0.0.0.0/0"))
        for protocol in _each(rule["protocol"]):
            port = str(rule["port"]).replace("-", ":")
            lines.append(f"### tuple ### {word} {protocol} {port} 0.0.0.0/0 any {source} in")
            many = f"-m multiport --dports {port}" if ":" in port else f"--dport {port}"
            lines.append(f"-A ufw-user-input -p {protocol} {many} -s {source} -j {target}\n")
    return "\n".join(lines)


def firewalld_zone(found: Sequence[Rule], ipset: str | None = None) -> str:
    """The default zone with these rules as rich ones, the last as its open ports; an ipset is dropped."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<zone>", "<short>Public</short>", '<service name="ssh"/>']
    lines += [f'<port port="{PORTS[0]}-{PORTS[1]}" protocol="{protocol}"/>' for protocol in ("tcp", "udp")]
    actions = {"allow": "accept", "block": "drop", "reject": "reject"}
    if ipset is not None:
        lines.append(f"<rule><source ipset={quoteattr(ipset)}/><drop/></rule>")
    for rule in found[:-1]:
        where = f'<source address="{rule["from"]}"/><port port="{rule["port"]}" protocol="{rule["protocol"]}"/>'
        lines.append(f'<rule family="ipv4">{where}<{actions[str(rule["action"])]}/></rule>')
    return "\n".join([*lines, "</zone>", ""])


def firewalld_ipset(addresses: Iterable[str]) -> str:
    """An ipset of networks, as a file of firewalld's."""
    entries = "\n".join(f"<entry>{address}</entry>" for address in addresses)
    return f'<?xml version="1.0" encoding="utf-8"?>\n<ipset type="hash:net">\n{entries}\n</ipset>\n'


def nft_replacing(ranges: Sequence[str]) -> str:
    """A table that takes the place of the one before in one transaction, with a set of intervals, as it is usual."""
    return f"""table inet listed
delete table inet listed
table inet listed {{
	set bad {{ type ipv4_addr; flags interval; elements = {{ {", ".join(ranges)} }} }}
	chain in {{
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		ip saddr @bad drop
		meta l4proto {{ tcp, udp }} th dport {PORTS[0]}-{PORTS[1]} accept
	}}
}}
"""


def _each(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]
