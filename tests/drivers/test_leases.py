"""DHCP servers from the files of each client, as they write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pfw.drivers.leases import dhcp_servers

NETWORKD = (
    "# This is private data. Do not parse.\nADDRESS=192.168.1.5\nROUTER=192.168.1.1\nSERVER_ADDRESS=192.168.1.2\n"
)
DHCLIENT = (
    "lease {\n  fixed-address 10.0.0.9;\n  option dhcp-server-identifier 10.0.0.2;\n}\n"
    "lease {\n  option dhcp-server-identifier 10.0.0.3;\n}\n"
)
DHCPCD = (
    bytes(236) + b"\x63\x82\x53\x63" + b"\x35\x01\x05" + b"\x00" + b"\x36\x04\xc0\xa8\x01\xfe" + b"\xff\x36\x04abcd"
)


@pytest.mark.parametrize(
    ("path", "content", "servers"),
    [
        ("run/systemd/netif/leases/2", NETWORKD.encode(), {b"\xc0\xa8\x01\x02"}),
        ("var/lib/NetworkManager/internal-9-eth0.lease", NETWORKD.encode(), {b"\xc0\xa8\x01\x02"}),
        ("var/lib/dhcp/dhclient.eth0.leases", DHCLIENT.encode(), {b"\x0a\0\0\x02", b"\x0a\0\0\x03"}),
        ("var/lib/dhcpcd/eth0.lease", DHCPCD, {b"\xc0\xa8\x01\xfe"}),
        ("var/lib/dhcpcd/eth0.lease", DHCPCD[:-9], set()),
        ("run/systemd/netif/leases/2", b"SERVER_ADDRESS=999.1.1.1\nSERVER_ADDRESS=fe80::1\n\xff\0", set()),
        ("run/systemd/netif/leases/2", b"", set()),
        ("var/lib/dhcp/other", DHCLIENT.encode(), set()),
    ],
)
def test_files_of_each_client(tmp_path: Path, path, content, servers) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(content)
    assert dhcp_servers(tmp_path) == servers


def test_nothing_there(tmp_path: Path) -> None:
    assert dhcp_servers(tmp_path) == set()
    (tmp_path / "run/systemd/netif/leases/2").mkdir(parents=True)
    assert dhcp_servers(tmp_path) == set()
