"""Where the kernel refuses the ring, Scapy's sockets carry the watch."""

import os
import subprocess
import sys
import threading

import pytest

pytestmark = pytest.mark.netns

# Blocks that are no pages: the refusal is the kernel's own, and takes no memory before.
REFUSED = (
    "import sys; from pfw.drivers import capture; capture.BLOCK_BYTES = 2048; "
    "from pfw.main import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize("words", [(), ("--interface", "eth0"), ("--filter", "udp port 53")])
def test_a_watch_without_the_ring(pair, net, tmp_path, words):
    (tmp_path / "rules.json").write_text('{"block": {"port": [53]}}')
    command = ["ip", "netns", "exec", pair.here.name, sys.executable, "-P", "-c", REFUSED]
    process = subprocess.Popen(
        [*command, "monitor", "--no-log", "--count", "3", "--seconds", "20", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(net.source)},
    )
    ended = threading.Event()

    def talk():
        while not ended.wait(0.05):
            net.send(pair.there, net.here, 53)

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        out, err = process.communicate(timeout=40)
    finally:
        ended.set()
        talking.join()
    assert process.returncode == 0
    assert err.startswith("pfw: the kernel refuses a capture ring (")
    assert f'(UDP) -> {net.here}:53  rule "block port"' in out
    assert "\n3 packets (" in out
