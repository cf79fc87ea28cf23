"""Real tunnels between two namespaces, and real pings: what is found in the capture of them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pfw.daemon.detecting import detect
from pfw.daemon.sources import CaptureFile
from pfw.model.address import format_address
from pfw.model.observation import Alert

pytestmark = pytest.mark.netns
DEVICE = Path("/dev/net/tun")
INSIDE = "10.98.0.1"
MARK, RAW = b"\x07example\x03com", b"\x10\xd1\x9e"
"""What is in each message through a name server, and in each that goes straight to port 53."""
CONNECTING_S = 40.0
"""iodine tries what names and sizes get through before it connects."""


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here")


@pytest.fixture
def captured(pair, net, tmp_path) -> Callable[..., list[Alert]]:
    """What is found in the packets that an action makes."""
    need("tcpdump")
    path = tmp_path / "captured.pcap"

    def capture(action: Callable[[], None], has_all: Callable[[bytes], bool]) -> list[Alert]:
        words = ("tcpdump", "--immediate-mode", "-U", "-Z", "root", "-i", net.cable, "-w", path)
        with running(pair.here.command(*words)):
            net.wait_until(lambda: path.exists() and path.stat().st_size >= 24, "tcpdump captures")
            action()
            net.wait_until(lambda: has_all(path.read_bytes()), "the last packet is in the capture")
        detected = detect([CaptureFile(str(path))], None)
        assert detected.errors + detected.unread == []
        return detected.alerts

    return capture


def test_pings_of_all_kinds_are_no_tunnel(captured, pair, net):
    need("ping")
    last = b"\xca\xfe" * 20

    def ping() -> None:
        for options in ("-c 150 -i 0.005 -s 1400", "-f -c 300", "-f -c 150 -s 1400 -p c0ffee12", "-c 1 -s 60 -p cafe"):
            pair.here.run("ping", "-q", *options.split(), net.there)

    assert captured(ping, lambda data: data.count(last) == 2) == []


def test_ptunnel(captured, pair, net, tmp_path):
    need("ptunnel", "curl")
    site = tmp_path / "site"
    site.mkdir()
    content = bytes(range(256)) * 200
    (site / "file").write_bytes(content)

    def fetch() -> None:
        client = ("ptunnel", "-p", net.there, "-lp", "9000", "-da", net.there, "-dp", "8000")
        server = (sys.executable, "-m", "http.server", "8000", "--directory", site)
        with contextlib.ExitStack() as started:
            for where, words in ((pair.there, server), (pair.there, ("ptunnel",)), (pair.here, client)):
                started.enter_context(running(where.command(*words)))
            curl = ("curl", "-sf", "--max-time", "5", "-o", tmp_path / "fetched", "http://127.0.0.1:9000/file")
            net.wait_until(lambda: pair.here.run(*curl, check=False).returncode == 0, "the file came")

    found = captured(fetch, lambda data: len(data) > len(content) // 2)  # tcpdump may lose some
    assert [str(each.kind) for each in found] == ["icmp-tunnel"]
    assert (format_address(found[0].source), format_address(found[0].target)) == (net.here, net.there)
    assert found[0].score >= 85
    assert found[0].ban == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "least"),
    [("-r -TNULL", 90), ("-r -TPRIVATE", 90), ("-r -TTXT", 75), ("-r -TCNAME", 75), ("-r -TA", 75), ("-TNULL", 60)],
)
def test_iodine(captured, pair, net, options, least):
    need("iodine", "iodined", "ping")
    if not DEVICE.exists():
        pytest.skip(f"there is no {DEVICE} here")

    def tunnel() -> None:
        server = ("iodined", "-f", "-c", "-P", "secret", f"{INSIDE}/24", "t.example.com")
        client = ("iodine", "-f", *options.split(), "-P", "secret", "-m", "200", net.there, "t.example.com")
        with running(pair.there.command(*server)), running(pair.here.command(*client)):
            deadline = time.monotonic() + CONNECTING_S
            while pair.here.run("ping", "-q", "-c", "1", "-W", "1", INSIDE, check=False).returncode:
                assert time.monotonic() < deadline, "iodine does not connect"
                time.sleep(0.1)
            pair.here.run("ping", "-q", "-c", "10", "-i", "0.2", "-s", "500", INSIDE)

    mark, count = (MARK, 60) if "-r" in options else (RAW, 14)
    found = [each for each in captured(tunnel, lambda data: data.count(mark) > count) if each.kind != "malformed"]
    assert [str(each.kind) for each in found] == ["dns-tunnel"]
    assert (format_address(found[0].source), format_address(found[0].target)) == (net.here, net.there)
    assert found[0].score >= least
    assert found[0].ban == ()
