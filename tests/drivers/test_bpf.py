"""Capture filters against tcpdump's own compiler, and on frames."""

import shutil
import subprocess

import pytest

from pfw.drivers.bpf import FilterError, compile_filter, compile_live_filter, matcher

ETHERNET, RAW_IP = 1, 101
UDP_53 = bytes.fromhex("02000000000102000000000208004500001c000000004011000001020304050607080bb8003500080000")


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump")
@pytest.mark.parametrize("text", ["udp", "tcp port 443 and not host 192.0.2.1", "ip6 or arp", "net 10.0.0.0/8", ""])
def test_the_program_is_tcpdumps(text):
    done = subprocess.run(["tcpdump", "-ddd", "-s", "512", "-y", "EN10MB", text], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"tcpdump cannot compile here: {done.stderr.strip()}")
    lines = done.stdout.splitlines()
    program = [tuple(map(int, line.split())) for line in lines[1:]]
    assert compile_filter(text, ETHERNET) == program


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("udp port 53", True),
        ("udp", True),
        ("", True),
        ("udp port 54", False),
        ("tcp", False),
        ("src host 1.2.3.4", True),
    ],
)
def test_it_takes_what_it_says(text, taken):
    for linktype, frame in ((ETHERNET, UDP_53), (RAW_IP, UDP_53[14:])):
        assert matcher(compile_filter(text, linktype))(frame, len(frame)) is taken


def test_a_frame_shorter_than_what_is_asked_for_is_not_taken():
    matches = matcher(compile_filter("udp port 53", ETHERNET))
    assert [size for size in range(len(UDP_53) + 1) if matches(UDP_53[:size], len(UDP_53))] == list(range(38, 43))


def test_the_size_on_the_wire_counts():
    matches = matcher(compile_filter("greater 1000", ETHERNET))
    assert matches(UDP_53, 1500)
    assert not matches(UDP_53, 60)


@pytest.mark.parametrize("text", ["udp prt 53", "host", "(", "port 99999999", "ü", "ip6 and arp"])
def test_what_is_wrong_is_said_in_a_line(text):
    with pytest.raises(FilterError) as raised:
        compile_filter(text, ETHERNET)
    assert "is not understood" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_ethernet_addresses_may_be_asked_for_where_all_devices_are_watched():
    program = compile_live_filter("ether host 02:00:00:00:00:01")
    assert program[-1] == (0x06, 0, 0, 0)


def test_what_is_wrong_for_every_device_is_refused():
    with pytest.raises(FilterError, match="is not understood"):
        compile_live_filter("udp prt 53")
