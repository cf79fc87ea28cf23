"""Programs that nobody here made, against an enforced host: nmap sees the open ports of the policy and no others, what
is allowed works at full length, and a refusal is one."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

BACKENDS = ("nftables", "iptables-nft", "iptables-legacy")
RULES = [
    {"name": "web", "action": "allow", "direction": "in", "protocol": "tcp", "port": [8080, "8100-8102"]},
    {"name": "iperf", "action": "allow", "direction": "in", "port": 5201},
    {"name": "refused", "action": "reject", "direction": "in", "protocol": "tcp", "port": 8200},
    {"name": "ping", "action": "allow", "direction": "in", "icmp_type": "echo-request"},
]


def needs(*programs: str):
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


@pytest.fixture(params=BACKENDS)
def enforced(request, pair, net, tmp_path) -> None:
    """`here` with the policy in force; everything listens on ports that are open, closed and refused."""
    (tmp_path / "rules.json").write_text(json.dumps({"version": 2, "rules": RULES}))
    done = pair.here.run(sys.executable, "-P", "-m", "pfw", "up", "--backend", request.param, cwd=tmp_path,
                         env={"PYTHONPATH": str(net.source), "PFW_STATE_DIR": str(tmp_path / "state"),
                              "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})  # fmt: skip
    assert "in force" in done.stdout


@contextlib.contextmanager
def program(namespace, *words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(namespace.command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(0.5)
        yield process
        process.terminate()


@needs("nmap")
class TestNmap:
    PORTS = (8080, 8100, 8101, 8102, 8103, 8200, 9090, 9091)

    def listening(self, pair, net) -> contextlib.ExitStack:
        """Something listens on every port, whatever the policy says of it."""
        code = (
            "import socket, time\n"
            "listen = lambda at: socket.create_server(('::', at), family=socket.AF_INET6, dualstack_ipv6=True)\n"
            f"sockets = [listen(port) for port in {self.PORTS}]\n"
            "time.sleep(60)"
        )
        stack = contextlib.ExitStack()
        stack.enter_context(program(pair.here, sys.executable, "-c", code))
        return stack

    @pytest.mark.parametrize(("scan", "family"), [("-sS", 4), ("-sT", 6)])
    def test_sees_what_is_open_and_nothing_else(self, enforced, pair, net, scan, family):
        address = net.here if family == 4 else net.here6
        with self.listening(pair, net):
            ports = "8079,8080,8099-8103,8200,9090"
            words = ("-n", "-Pn", "-p", ports, "--max-retries", "1", "-T4", *(["-6"] if family == 6 else []))
            seen = pair.there.run("nmap", scan, *words, address).stdout
        states = dict(re.findall(r"^(\d+)/tcp +(\w+)", seen, re.MULTILINE))
        assert [port for port, state in states.items() if state == "open"] == ["8080", "8100", "8101", "8102"]
        assert [port for port, state in states.items() if state == "closed"] == ["8200"]

    @pytest.mark.parametrize("enforced", ["nftables"], indirect=True)
    @pytest.mark.parametrize("scan", ["-sA", "-sX", "-sN"])
    def test_odd_flags_learn_nothing(self, enforced, pair, net, scan):
        with self.listening(pair, net):
            seen = pair.there.run(
                "nmap", scan, "-n", "-Pn", "-p", "8080,8103,9090", "--max-retries", "1", "-T4", net.here
            ).stdout
        assert set(re.findall(r"^\d+/tcp +(\S+)", seen, re.MULTILINE)) <= {"filtered", "open|filtered"}
        assert "unfiltered" not in seen


@needs("iperf3")
def test_iperf3_both_ways(enforced, pair, net):
    with program(pair.here, "iperf3", "-s", "-1"):
        forth = json.loads(pair.there.run("iperf3", "-c", net.here, "-t", "1", "-J").stdout)
    assert forth["end"]["sum_received"]["bytes"] > 10_000_000
    with program(pair.here, "iperf3", "-s", "-1"):
        back = json.loads(pair.there.run("iperf3", "-c", net.here6, "-t", "1", "-J", "-R").stdout)
    assert back["end"]["sum_received"]["bytes"] > 10_000_000


@needs("curl")
def test_curl(enforced, pair, net, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "big").write_bytes(b"x" * 5_000_000)
    serve = (sys.executable, "-m", "http.server", "--directory", site)
    with program(pair.here, *serve, "8080"), program(pair.here, *serve, "8200"), program(pair.here, *serve, "9090"):
        fetched = pair.there.run(
            "curl", "-s", "-o", "/dev/null", "-w", "%{size_download}", f"http://{net.here}:8080/big"
        )
        assert fetched.stdout == "5000000"
        refused = pair.there.run("curl", "-s", "--max-time", "3", f"http://{net.here}:8200/big", check=False)
        assert refused.returncode == 7
        silent = pair.there.run("curl", "-s", "--max-time", "1", f"http://{net.here}:9090/big", check=False)
        assert silent.returncode == 28
    with program(pair.there, *serve, "8300"):
        out = pair.here.run("curl", "-s", "-o", "/dev/null", "-w", "%{size_download}", f"http://{net.there}:8300/big")
        assert out.stdout == "5000000"


@needs("ping")
@pytest.mark.parametrize("family", ["-4", "-6"])
def test_ping_and_its_errors(enforced, pair, net, family):
    address = net.here if family == "-4" else net.here6
    assert "0% packet loss" in pair.there.run("ping", family, "-c", "3", "-i", "0.2", "-W", "1", address).stdout
