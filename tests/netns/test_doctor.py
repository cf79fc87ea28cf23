"""`pfw doctor` in namespaces of its own, beside firewalls that others have put up there for real."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")

RULES = {
    "version": 2,
    "default": {"in": "block", "out": "allow", "forward": "block"},
    "rules": [
        {"name": "ssh", "action": "allow", "direction": "in", "protocol": "tcp", "port": 22},
        {"name": "web", "action": "allow", "direction": "forward", "protocol": "tcp", "port": 80},
    ],
}

DOCKER = (
    "-N DOCKER",
    "-N DOCKER-USER",
    "-N DOCKER-ISOLATION-STAGE-1",
    "-P FORWARD DROP",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
    "-A FORWARD -o docker0 -j DOCKER",
    "-A DOCKER-USER -j RETURN",
    "-t nat -N DOCKER",
    "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
    "-t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
)
"""What Docker puts into iptables, with one published port."""


class Pfw:
    """The command in one namespace, with a state of its own."""

    def __init__(self, space, folder: Path, source: Path) -> None:
        self.space = space
        self.environment = {
            **os.environ, "PYTHONPATH": str(source), "PFW_STATE_DIR": str(folder / "state"), "NO_COLOR": "1",
        }  # fmt: skip
        self.rules = folder / "rules.json"
        self.rules.write_text(json.dumps(RULES))

    def run(self, *words, before=()):
        command = [*before, sys.executable, "-P", "-m", "pfw", *words]
        return self.space.run(*command, check=False, env=self.environment, timeout=120)

    def up(self, *words):
        done = self.run("up", "--rules", str(self.rules), *words)
        assert done.returncode == 0, done.stderr

    def doctor(self, *, before=()):
        """Findings by area, without those that say that all is well."""
        done = self.run("doctor", "--json", before=before)
        assert done.stderr == ""
        answer = json.loads(done.stdout)
        assert done.returncode == (1 if answer["worst"] in ("warning", "fault") else 0)
        found = {}
        for each in answer["findings"]:
            assert bool(each["advice"]) is (each["level"] != "ok")
            if each["level"] != "ok":
                found.setdefault(each["area"], []).append((each["level"], each["what"]))
        return found


@pytest.fixture
def pfw(namespace, tmp_path, net):
    return Pfw(namespace(), tmp_path, net.source)


@pytest.fixture
def beside(pfw, tmp_path):
    """Runs a script in the namespace, with folders of /etc that are copies."""

    def run(script: str, *copies: str) -> str:
        lines = ["set -e", "mount --make-rprivate /", "mount -t tmpfs none /run"]
        for path in copies:
            copy = tmp_path / path.replace("/", "_")
            (shutil.copytree if Path(path).is_dir() else shutil.copy)(path, copy)
            lines.append(f"mount --bind {copy} {path}")
        words = ("unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", "\n".join([*lines, script]))
        done = pfw.space.run(*words, check=False, env=pfw.environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def text(found, area):
    return "\n".join(what for _, what in found.get(area, []))


def levels(found, area):
    return {level for level, _ in found.get(area, [])}


class TestOurs:
    def test_off_and_alone(self, pfw):
        found = pfw.doctor()
        assert text(found, "state") == "off: nothing of ours filters"
        assert "neighbours" not in found
        assert "obstacle" not in found

    def test_on_and_alone(self, pfw):
        pfw.up()
        found = pfw.doctor()
        assert "state" not in found
        assert "neighbours" not in found
        assert text(found, "obstacle") == "the policy lets traffic be forwarded, and the kernel forwards none"
        pfw.space.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        assert "obstacle" not in pfw.doctor()

    @pytest.mark.parametrize(
        "change",
        ["add rule inet pfw input accept", "flush chain inet pfw output", "delete table inet pfw",
         "add table inet pfw { flags dormant; }"],
    )  # fmt: skip
    def test_somebody_changes_our_table(self, pfw, change):
        pfw.up()
        pfw.space.run("nft", change)
        assert levels(pfw.doctor(), "state") == {"fault"}
        pfw.up()
        assert "state" not in pfw.doctor()

    def test_nothing_is_changed(self, pfw):
        pfw.up()
        before = pfw.space.run("nft", "list", "ruleset").stdout
        tables = pfw.space.run("cat", "/proc/net/ip_tables_names", check=False).stdout
        pfw.doctor()
        assert pfw.space.run("nft", "list", "ruleset").stdout == before
        assert pfw.space.run("cat", "/proc/net/ip_tables_names", check=False).stdout == tables

    def test_text(self, pfw):
        done = pfw.run("doctor")
        assert done.returncode == 0
        assert "what can filter here\n  ok    nftables can be used\n" in done.stdout
        assert done.stdout.endswith("\nnothing is to be done\n")

    def test_without_any_program(self, pfw, tmp_path):
        (tmp_path / "none").mkdir()
        before = ("unshare", "-m", sys.executable, "-c", _HIDE, str(tmp_path / "none"))
        found = pfw.doctor(before=before)
        assert "nothing here can filter" in text(found, "backend")
        assert "the program nft is not there" in text(found, "neighbours")
        assert "the program ip is not there" in text(found, "bypass")


_HIDE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, flags):
    if libc.mount(source.encode(), target.encode(), None, flags, None):
        raise OSError(ctypes.get_errno(), "mount", target)
mount("none", "/", 1 << 18 | 1 << 14)
for folder in ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"):
    if not sys.executable.startswith(os.path.realpath(folder) + "/"):
        mount(sys.argv[1], folder, 1 << 12)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Binds an empty folder over those of programs, and goes on as the words that follow."""


class TestNeighbours:
    @pytest.mark.skipif(shutil.which("ufw") is None, reason="needs ufw")
    @pytest.mark.slow
    def test_ufw(self, pfw, beside):
        pfw.up()
        beside("ufw --force enable", "/etc/ufw", "/etc/default/ufw")
        found = pfw.doctor()
        assert text(found, "neighbours").startswith("ufw filters here, in table ip filter (iptables-nft)")
        assert levels(found, "neighbours") == {"warning"}
        assert "at input, chain INPUT of table ip filter (iptables-nft)" in text(found, "obstacle")
        assert "(ufw)" in text(found, "obstacle")

    @pytest.mark.skipif(not all(map(shutil.which, ("firewalld", "dbus-daemon"))), reason="needs firewalld and D-Bus")
    @pytest.mark.slow
    def test_firewalld(self, pfw, beside, tmp_path):
        (tmp_path / "log").mkdir()
        script = f"""mount --bind {tmp_path / "log"} /var/log
            mkdir -p /run/dbus
            dbus-daemon --system --fork --nopidfile
            firewalld --nofork --nopid >&2 &
            for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
                firewall-cmd --state >&2 && break
                sleep 0.5
            done
            {sys.executable} -P -m pfw doctor --json || true"""
        answer = json.loads(beside(script, "/etc/firewalld"))
        (who,) = [each for each in answer["findings"] if each["area"] == "neighbours"]
        assert who["what"].startswith("firewalld filters here, in table inet firewalld:")
        assert who["level"] == "warning"
        stops = [each["what"] for each in answer["findings"] if each["area"] == "obstacle"]
        assert any("chain filter_INPUT of table inet firewalld refuses" in each for each in stops)

    def test_docker(self, pfw):
        for line in DOCKER:
            pfw.space.run("iptables-nft", *line.split())
        pfw.up()
        found = pfw.doctor()
        assert levels(found, "neighbours") == {"note"}
        assert text(found, "neighbours").startswith("Docker filters here, in table ip ")
        assert "chain DOCKER of table ip nat (iptables-nft) send packets elsewhere" in text(found, "bypass")
        assert "chain FORWARD of table ip filter (iptables-nft) drops what is not let pass there (Docker)" in text(
            found, "obstacle"
        )

    def test_both_kinds_of_iptables(self, pfw):
        for kind in ("iptables-nft", "iptables-legacy"):
            if pfw.space.run(kind, "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP", check=False).returncode:
                pytest.skip(f"needs {kind}")
        found = pfw.doctor()
        assert "rules are in both kinds of iptables" in text(found, "neighbours")
        assert "table ip filter (iptables-legacy) (at input)" in text(found, "neighbours")

    def test_another_table(self, pfw):
        pfw.space.run("nft", "add table inet mine; add chain inet mine c { type filter hook input priority 0; "
                             "policy drop; }; add rule inet mine c tcp dport 22 accept")  # fmt: skip
        found = pfw.doctor()
        assert text(found, "neighbours").startswith("there are other rules in table inet mine (at input);")
        assert found["obstacle"] == [("note", "at input, chain c of table inet mine drops what is not let pass there")]

    def test_a_big_set_is_not_listed(self, pfw):
        elements = ", ".join(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(200_000))
        text_ = f"table inet big {{\n set s {{ type ipv4_addr; elements = {{ {elements} }}; }}\n}}\n"
        pfw.space.run("nft", "-f", "-", input=text_)
        assert "neighbours" not in pfw.doctor()


class TestBypasses:
    def test_in_iptables_who_stands_before_us(self, pfw):
        pfw.up("--backend", "iptables-nft")
        found = pfw.doctor()
        assert "state" not in found
        assert "boot" not in found or levels(found, "boot") == {"note"}
        assert "bypass" not in found
        pfw.space.run("iptables-nft", "-A", "INPUT", "-p", "tcp", "-j", "ACCEPT")
        assert "bypass" not in pfw.doctor()
        pfw.space.run("iptables-nft", "-I", "INPUT", "-p", "tcp", "-j", "ACCEPT")
        found = pfw.doctor()
        assert levels(found, "bypass") == {"warning"}
        assert "rules of others stand before ours" in text(found, "bypass")

    def test_untracked(self, pfw):
        untracked = "iptables-nft -t raw -A PREROUTING -p udp --dport 53 -j CT --notrack"
        pfw.space.run(*untracked.split())
        assert "leave packets without connection tracking" in text(pfw.doctor(), "bypass")

    def test_programs_and_bridges_on_interfaces(self, pfw):
        for line in ("ip link add v0 type veth peer name v1", "ip link add br0 type bridge",
                     "ip link set v1 master br0", "tc qdisc add dev v0 clsact"):  # fmt: skip
            if pfw.space.run(*line.split(), check=False).returncode:
                pytest.skip(f"needs what this needs: {line}")
        assert "tc programs" not in text(pfw.doctor(), "bypass")
        redirect = "tc filter add dev v0 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev v1"
        if pfw.space.run(*redirect.split(), check=False).returncode:
            pytest.skip("needs redirects in tc")
        pfw.space.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", check=False)
        found = pfw.doctor()
        assert "tc programs or redirects are on v0" in text(found, "bypass")
        assert "what a bridge carries between its ports (br0) is not seen" in text(found, "bypass")

    def test_packet_sockets(self, pfw):
        with pfw.space.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))):
            assert f"({os.getpid()})" in text(pfw.doctor(), "bypass")
        assert "bypass" not in pfw.doctor()

    def test_somebody_else_reads_our_log(self, pfw):
        from pfw.drivers.nflog import LogReader

        reader = pfw.space.call(lambda: LogReader([7846]))
        try:
            assert "log group 7846 is taken by" in text(pfw.doctor(), "kernel")
        finally:
            reader.close()
        assert "kernel" not in pfw.doctor()

    def test_how_full_the_table_of_connections_is(self, pfw):
        most = Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text().strip()
        assert f"of {int(most):,} connections are tracked" in pfw.run("doctor").stdout
