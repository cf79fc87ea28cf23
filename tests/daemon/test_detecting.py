"""Detection in files: what belongs together, whose traffic counts, who is never banned, which files are bad."""

from __future__ import annotations

import json
import struct
from ipaddress import ip_address

import pytest

from pfw.daemon import detecting
from pfw.daemon.detecting import ANOTHER_S, detect
from pfw.daemon.sources import CaptureFile
from pfw.model.address import AddressSet, parse_address, parse_range
from pfw.model.observation import Alert, ArpSeen, Began, Confirmed, DnsSeen, EchoSeen, Ended, Kind, Met, Odd, Stray

SCANNER, TARGET, OTHER = "203.0.113.9", "192.0.2.1", "198.51.100.7"
NOON = 1_795_392_000


def tcp(source: str, destination: str, ports: tuple[int, int], flags: int, numbers: tuple[int, int] = (0, 0)) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0)
    ends = ip_address(source).packed + ip_address(destination).packed
    return head + ends + struct.pack(">HHIIBBHHH", *ports, *numbers, 0x50, flags, 512, 0, 0)


def write(path, frames, begin: float = NOON, step_s: float = 0.05) -> str:
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    records = b""
    for number, frame in enumerate(frames):
        time = begin + number * step_s
        records += struct.pack("<IIII", int(time), int(time % 1 * 1e6), len(frame), len(frame)) + frame
    path.write_bytes(head + records)
    return str(path)


def port_scan(target: str = TARGET, source: str = SCANNER) -> list[bytes]:
    """Twenty closed ports."""
    frames = []
    for port in range(20, 40):
        frames.append(tcp(source, target, (50000, port), 2))
        frames.append(tcp(target, source, (port, 50000), 0x14))
    return frames


class Recorder:
    """A detector that keeps what it is told, and in the end says what it was made for."""

    def __init__(self, alert: Alert | None = None) -> None:
        self.wants = (Began, Met, Confirmed, Ended, Stray, DnsSeen, EchoSeen, Odd, ArpSeen)
        self.refused = 0
        self.told: list = []
        self.alert = alert

    def observe(self, seen):
        self.told.append(seen)
        return ()

    def end(self, now):
        return () if self.alert is None else (self.alert,)


@pytest.fixture
def recorders(monkeypatch) -> list[Recorder]:
    """One for each run of packets that belong together."""
    made: list[Recorder] = []

    def make(lists) -> list[Recorder]:
        made.append(Recorder())
        return [made[-1]]

    monkeypatch.setattr(detecting, "detectors", make)
    return made


def local(*texts: str) -> AddressSet:
    return AddressSet([parse_range(text) for text in texts])


def run(*paths: str, local: AddressSet | None = None):
    return detect([CaptureFile(path) for path in paths], local)


def test_a_scan_is_found(tmp_path):
    found = run(write(tmp_path / "scan.pcap", port_scan()))
    (alert,) = found.alerts
    assert (alert.kind, alert.source, alert.target) == (
        Kind.PORT_SCAN, parse_address(SCANNER), parse_address(TARGET),
    )  # fmt: skip
    assert (found.packets, found.errors, found.unread) == (40, [], [])


def test_only_what_has_a_local_end_counts(tmp_path):
    path = write(tmp_path / "scan.pcap", [*port_scan(), *port_scan(OTHER)])
    assert len(run(path).alerts) >= 1
    (alert,) = run(path, local=local(TARGET)).alerts
    assert alert.target == parse_address(TARGET)
    assert run(path, local=local("192.0.2.200")).alerts == []


def test_what_has_no_local_end_is_not_told(tmp_path, recorders, made):
    frames = [
        *(tcp(SCANNER, each, (50000, 80), 2) for each in (TARGET, OTHER)),
        *(tcp(SCANNER, each, (50001, 80), 1) for each in (TARGET, OTHER)),
        *(made.udp(SCANNER, each, 53, b"broken") for each in (TARGET, OTHER)),
    ]
    run(write(tmp_path / "some.pcap", frames), local=local(TARGET))
    (recorder,) = recorders
    assert {type(seen) for seen in recorder.told} == {Began, Stray, Met, Odd}
    for seen in recorder.told:
        assert getattr(seen, "began", seen).destination == parse_address(TARGET)


def test_this_machine_and_what_is_no_host_is_never_banned(tmp_path, monkeypatch):
    ban = [SCANNER, TARGET, "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "ff02::1", "::1", "2001:db8::9"]
    alert = Alert(
        kind=Kind.SWEEP, source=None, target=None, first=0.0, last=1.0, score=90, evidence="made up",
        ban=tuple(map(parse_address, ban)),
    )  # fmt: skip
    monkeypatch.setattr(detecting, "detectors", lambda lists: [Recorder(alert)])
    path = write(tmp_path / "some.pcap", port_scan())
    (with_local,) = run(path, local=local("192.0.2.0/24")).alerts
    assert with_local.ban == (parse_address(SCANNER), parse_address("2001:db8::9"))
    (without,) = run(path).alerts
    assert without.ban == (parse_address(SCANNER), parse_address(TARGET), parse_address("2001:db8::9"))


def test_files_that_follow_each_other_are_one_story(tmp_path, recorders):
    frames = port_scan()
    paths = [write(tmp_path / f"{at}.pcap", frames[at : at + 13], NOON + at * 0.05) for at in range(0, 40, 13)]
    run(*paths)
    assert len(recorders) == 1


def test_a_file_from_before_is_another_story(tmp_path, recorders):
    later = write(tmp_path / "later.pcap", port_scan())
    earlier = write(tmp_path / "earlier.pcap", port_scan(), NOON - ANOTHER_S - 1)
    a_little = write(tmp_path / "a-little.pcap", port_scan(), NOON - ANOTHER_S)
    assert run(later, earlier, a_little).packets == 120
    assert [sum(isinstance(seen, Began) for seen in each.told) for each in recorders] == [20, 40]


def test_only_who_knows_the_numbers_is_confirmed(tmp_path, recorders):
    there = tcp(TARGET, SCANNER, (80, 50000), 0x12, (1000, 1))
    for number, acknowledged in enumerate((1001, 7)):
        answer = tcp(SCANNER, TARGET, (50000, 80), 0x10, (1, acknowledged))
        run(write(tmp_path / "some.pcap", [tcp(SCANNER, TARGET, (50000, 80), 2), there, answer]))
        assert any(isinstance(seen, Confirmed) for seen in recorders[number].told) == (acknowledged == 1001)


def test_messages_are_looked_into(tmp_path, recorders, made):
    question = struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\x03www\x07example\0\0\x10\0\1"
    run(write(tmp_path / "some.pcap", [made.udp(TARGET, OTHER, 53, question), made.udp(TARGET, OTHER, 53, b"?")]))
    (recorder,) = recorders
    (seen,) = (seen for seen in recorder.told if isinstance(seen, DnsSeen))
    assert (seen.name, seen.kind) == ("www.example", 16)
    (odd,) = (seen for seen in recorder.told if isinstance(seen, Odd))
    assert (odd.names, odd.source) == (("dns.malformed",), parse_address(TARGET))


def test_what_is_no_capture_is_named_and_the_others_are_read(tmp_path):
    bad, cut = tmp_path / "bad.pcap", tmp_path / "cut.pcap"
    bad.write_text("not a capture, only a text")
    good = write(tmp_path / "good.pcap", port_scan())
    cut.write_bytes((tmp_path / "good.pcap").read_bytes()[:-1])
    found = run(str(bad), good, str(cut))
    assert found.packets == 79
    assert found.unread == [str(bad)]
    assert [error.split(": ")[0] for error in found.errors] == [str(bad), str(cut)]


def test_the_command(tmp_path, pfw):
    path = write(tmp_path / "scan.pcap", port_scan())
    # No policy is needed.
    (tmp_path / "rules.json").unlink()
    process = pfw("replay", "--detect", path, "--local", TARGET)
    out, talk = process.communicate(timeout=60)
    assert (process.returncode, talk) == (0, "")
    assert out.splitlines()[0].split() == ["first", "seen", "what", "from", "to", "score", "evidence"]
    assert f"port-scan  {SCANNER}" in out
    assert out.splitlines()[-1].startswith("1 alert in 40 packets, ")
    process = pfw("replay", "--detect", path, "--json")
    facts = json.loads(process.communicate(timeout=60)[0])
    assert facts.keys() == {"alerts", "packets", "duration_s", "refused", "sampled", "dropped", "errors"}
    (alert,) = facts["alerts"]
    assert alert.keys() == {"kind", "source", "target", "first", "last", "score", "evidence", "would_ban"}
    assert (alert["kind"], alert["source"], alert["target"]) == ("port-scan", SCANNER, TARGET)
    assert NOON <= alert["first"] <= alert["last"] <= NOON + 2


@pytest.mark.parametrize(("content", "status"), [(b"no capture", 2), (b"", 2), (None, 2), ("cut", 0), ("quiet", 0)])
def test_exit_status(tmp_path, pfw, content, status):
    path = tmp_path / "some.pcap"
    if content == "cut":
        write(path, port_scan())
        path.write_bytes(path.read_bytes()[:-1])
    elif content == "quiet":
        write(path, [tcp(TARGET, OTHER, (50000, 443), 2)])
    elif content is not None:
        path.write_bytes(content)
    process = pfw("replay", "--detect", str(path))
    _, talk = process.communicate(timeout=60)
    assert process.returncode == status
    assert (talk == "") == (content == "quiet")


def test_a_local_address_that_is_none(tmp_path, pfw):
    process = pfw("replay", "--detect", write(tmp_path / "scan.pcap", port_scan()), "--local", "nowhere")
    _, talk = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "nowhere" in talk
