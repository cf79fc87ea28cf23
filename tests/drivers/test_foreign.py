"""Programs that are asked little and briefly, and what /proc says."""

import os
import socket

import pytest

from pfw.drivers import foreign
from pfw.drivers.programs import RefusedError


class TestOutput:
    def test_what_it_prints(self):
        assert foreign.output("echo", "some words") == b"some words\n"

    def test_one_that_is_not_there(self):
        with pytest.raises(RefusedError) as raised:
            foreign.output("pfw-no-such-program")
        assert raised.value.missing == "pfw-no-such-program"

    def test_one_that_fails_is_told_with_its_words(self):
        with pytest.raises(RefusedError, match=r"^sh: no luck$"):
            foreign.output("sh", "-c", "echo printed; echo no luck >&2; exit 4")
        with pytest.raises(RefusedError, match="status 1"):
            foreign.output("false")

    def test_one_that_prints_without_end(self):
        with pytest.raises(RefusedError, match="prints more than 1 MiB"):
            foreign.output("yes", bytes_max=1 << 20)

    def test_one_that_complains_without_end(self):
        assert foreign.output("sh", "-c", "yes 2>/dev/null | head -c 3000000 >&2; echo done") == b"done\n"

    @pytest.mark.parametrize("words", [("sleep", "60"), ("sh", "-c", "exec >&- 2>&-; sleep 60")])
    def test_one_that_takes_too_long(self, words):
        with pytest.raises(RefusedError, match="did not end in time"):
            foreign.output(*words, timeout_s=0.2)


class TestSettings:
    def test_those_that_are_there(self):
        assert foreign.setting("kernel/ostype") == "Linux"
        assert foreign.number("kernel/pid_max") > 0

    @pytest.mark.parametrize("name", ["kernel/no_such_thing", "kernel", "kernel/ostype"])
    def test_what_is_no_number(self, name):
        assert foreign.number(name) is None


class TestProcesses:
    def test_who_holds_a_socket(self):
        with socket.socket(socket.AF_UNIX) as held:
            holders = foreign.holders([os.fstat(held.fileno()).st_ino])
        assert holders == {os.getpid(): foreign.program(os.getpid())}
        assert foreign.holders([]) == {}

    def test_one_that_is_not_there(self):
        assert foreign.program(1 << 30) == ""
        assert foreign.command_line(1 << 30) == []

    def test_by_name(self):
        assert foreign.runs(foreign.program(os.getpid()))
        assert not foreign.runs("pfw-no-such-program")

    def test_the_words_it_was_started_with(self):
        assert "python" in foreign.command_line(os.getpid())[0]


@pytest.mark.parametrize(
    ("text", "is_on"),
    [
        ("ENABLED=yes\n", True),
        ("# ENABLED=yes\nENABLED=no\n", False),
        ("", False),
        ('LOGLEVEL=low\nENABLED="Yes"\n', True),
    ],
)
def test_ufws_switch(tmp_path, monkeypatch, text, is_on):
    (tmp_path / "ufw.conf").write_text(text)
    monkeypatch.setattr(foreign, "_UFW", tmp_path / "ufw.conf")
    assert foreign.ufw_is_on() is is_on


def test_default_routes(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "_NET", tmp_path)
    assert foreign.uplinks() == set()
    (tmp_path / "route").write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        "eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    none = "0" * 32
    (tmp_path / "ipv6_route").write_text(
        f"{none} 00 {none} 00 fe8000000000000000000000000000fe 00000400 00000001 00000000 00450003    wlan0\n"
        f"{none} 00 {none} 00 {none} ffffffff 00000001 00000000 00200200       lo\n"
        f"fe80{none[4:]} 40 {none} 00 {none} 00000100 00000001 00000000 00000001     eth2\n"
    )
    assert foreign.uplinks() == {"eth0", "wlan0"}


def test_log_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "_NET", tmp_path)
    assert foreign.log_groups() == {}
    (tmp_path / "netfilter").mkdir()
    (tmp_path / "netfilter/nfnetlink_log").write_text(" 7846   4242     0 2 65535    100  1\nbroken\n\n")
    assert foreign.log_groups() == {7846: 4242}
