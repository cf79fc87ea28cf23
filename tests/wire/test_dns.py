"""Answers of DNS: made by hand, made by Scapy, of real captures, and hostile."""

from __future__ import annotations

import contextlib
import ipaddress
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.name import Address, Answer
from pfw.wire import dns
from pfw.wire.capture import CaptureReader
from pfw.wire.error import WireError

FOUR, SIX = bytes((192, 0, 2, 1)), bytes.fromhex("20010db8" + "0" * 23 + "1")
TO_QUESTION = b"\xc0\x0c"
ASKED = "www.example.com"


def name(text, end=b"\0"):
    return b"".join(bytes((len(label),)) + label.encode() for label in text.split(".") if label) + end


def record(owner, kind, content, ttl=300, class_=1):
    return owner + struct.pack(">HHIH", kind, class_, ttl, len(content)) + content


ASKED_NAME = name(ASKED)


def message(*records, asked=ASKED_NAME, kind=1, flags=0x8180, class_=1, questions=1, count=None):
    count = len(records) if count is None else count
    head = struct.pack(">HHHHHH", 0x1234, flags, questions, count, 0, 0)
    return head + asked + struct.pack(">HH", kind, class_) + b"".join(records)


def found(*addresses, name=ASKED, kind=1):
    return Answer(name, kind, tuple(Address(*each) for each in addresses))


def test_an_address_of_each_family():
    assert dns.read_answer(message(record(TO_QUESTION, 1, FOUR, 60))) == found((FOUR, 60))
    assert dns.read_answer(message(record(TO_QUESTION, 28, SIX, 60), kind=28)) == found((SIX, 60), kind=28)


def test_byte_by_byte():
    written = "1234 8180 0001 0001 0000 0000 0162 036f7267 00 0001 0001 c00c 0001 0001 0000003c 0004 c0000201"
    assert dns.read_answer(bytes.fromhex(written)) == found((FOUR, 60), name="b.org")


@pytest.mark.parametrize("owner", [TO_QUESTION, name(ASKED), name("WWW", b"\xc0\x10"), name("wWw.eXample.COM")])
def test_however_the_owner_is_written(owner):
    assert dns.read_answer(message(record(owner, 1, FOUR), asked=name("wwW.Example.com"))) == found((FOUR, 300))


@pytest.mark.parametrize("turned", [False, True])
def test_the_name_stands_for_others(turned):
    """The shortest time on the way is what holds; whatever the order of the records."""
    records = [
        record(TO_QUESTION, 5, name("a.cdn.example.net"), 50),
        record(name("a.cdn.example.net"), 5, name("B.cdn.example.net"), 700),
        record(name("b.cdn.example.net"), 1, FOUR, 60),
        record(name("b.cdn.example.net"), 28, SIX, 40),
    ]
    answer = dns.read_answer(message(*(reversed(records) if turned else records)))
    assert answer is not None
    assert sorted(answer.addresses, key=lambda each: each.ttl_s) == [Address(SIX, 40), Address(FOUR, 50)]
    assert answer.name == ASKED


def test_pointers_into_what_a_name_stands_for():
    alias = record(TO_QUESTION, 5, name("cdn", b"\xc0\x10"))
    at = len(message()) + 12
    tail = struct.pack(">H", 0xC000 | at)
    assert dns.read_answer(message(alias, record(tail, 1, FOUR, 9))) == found((FOUR, 9))


def test_a_pointer_reaches_no_further_than_it_can():
    """A name at 0x400c is not that at 0x000c, though the low bits of their places are the same."""
    filling = record(TO_QUESTION, 16, bytes(0x400C - len(message()) - 12 - 13))
    alias = record(b"\1x\0", 5, name("other.example"))
    answer = dns.read_answer(message(filling, alias, record(TO_QUESTION, 1, FOUR)))
    assert answer == found((FOUR, 300))


def test_addresses_of_other_names_are_not_the_names():
    other = record(name("other.example"), 1, FOUR)
    assert dns.read_answer(message(other)) == found()
    circle = record(TO_QUESTION, 5, name("a.example")), record(name("a.example"), 5, name(ASKED))
    assert dns.read_answer(message(*circle, other)) == found()


def test_other_records_are_passed_over():
    others = (
        record(TO_QUESTION, 46, bytes(90)),
        record(TO_QUESTION, 65, b"\0\1\0"),
        record(TO_QUESTION, 1, b"x", class_=3),
    )
    assert dns.read_answer(message(*others, record(TO_QUESTION, 1, FOUR, 1))) == found((FOUR, 1))


def test_a_time_beyond_the_sign_counts_as_none():
    assert dns.read_answer(message(record(TO_QUESTION, 1, FOUR, 1 << 31))) == found((FOUR, 0))
    assert dns.read_answer(message(record(TO_QUESTION, 1, FOUR, (1 << 31) - 1))) == found((FOUR, (1 << 31) - 1))


@pytest.mark.parametrize(
    "other",
    [{"flags": 0x0100}, {"flags": 0x8183}, {"flags": 0x8980}, {"questions": 0}, {"questions": 2}, {"class_": 3}],
    ids=["question", "no such name", "another operation", "no question", "two questions", "another class"],
)
def test_what_is_no_answer(other):
    assert dns.read_answer(message(record(TO_QUESTION, 1, FOUR), **other)) is None


def test_an_answer_that_is_cut_gives_what_is_whole():
    whole = message(record(TO_QUESTION, 1, FOUR, 1), record(name(ASKED), 1, FOUR, 2))
    first = len(message(record(TO_QUESTION, 1, FOUR, 1)))
    asked = len(message())
    for size in range(len(whole)):
        if size < asked:
            with pytest.raises(WireError):
                dns.read_answer(whole[:size])
        else:
            assert dns.read_answer(whole[:size]) == (found((FOUR, 1)) if size >= first else found())


def test_so_many_records_are_read_and_no_more():
    records = [record(TO_QUESTION, 1, number.to_bytes(4, "big")) for number in range(200)]
    answer = dns.read_answer(message(*records))
    assert answer is not None
    assert [int.from_bytes(each.packed, "big") for each in answer.addresses] == list(range(dns.RECORDS_MAX))


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (b"\0", "."),
        (b"\x04a\x1b[m\3com\0", "a\\027\\091m.com"),
        (b"\4a.bc\0", "a\\046bc"),
        (b"\3a\\b\0", "a\\092b"),
        (b"\2\xc3\xa9\0", "\\195\\169"),
        (b"\5_a-B9\0", "_a-b9"),
        (b"\1 \0", "\\032"),
        (b"\4Zz\nz\0", "zz\\010z"),
    ],
)
def test_names_are_safe_to_show(asked, shown):
    answer = dns.read_answer(message(record(TO_QUESTION, 1, FOUR), asked=asked))
    assert answer == found((FOUR, 300), name=shown)


def test_the_longest_name():
    longest = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"b" * 61 + b"\0"
    answer = dns.read_answer(message(asked=longest))
    assert answer is not None
    assert len(answer.name) == dns.SHOWN_MAX
    with pytest.raises(WireError, match="more than 255"):
        dns.read_answer(message(asked=longest[:-63] + b"\x3e" + b"b" * 62 + b"\0"))
    with pytest.raises(WireError, match="254 characters"):
        dns.read_answer(message(asked=(b"\x3f" + b"\1" * 63 + b"\1a\0")))


@pytest.mark.parametrize(
    "records",
    [
        [record(b"\xc0\x0b", 1, FOUR)],
        [record(b"\xc0" + bytes((len(message()),)), 1, FOUR)],
        [record(b"\xff\xff", 1, FOUR)],
        [record(b"\x40" + bytes(64) + b"\0", 1, FOUR)],
        [record(TO_QUESTION, 1, FOUR + b"x")],
        [record(TO_QUESTION, 28, FOUR)],
        [record(TO_QUESTION, 5, b"\1a\0more")],
        [record(TO_QUESTION, 5, b"\5abc")],
        [record(TO_QUESTION, 5, b"")],
    ],
    ids=["header", "itself", "ahead", "kind of label", "long A", "short AAAA", "behind", "cut", "empty"],
)
def test_what_does_not_fit(records):
    with pytest.raises(WireError):
        dns.read_answer(message(*records))


def test_pointers_lead_backwards_and_not_too_often():
    """A chain of pointers, each to the one before."""
    asked_at, records, at = 12, [], len(message())
    target = asked_at
    for _ in range(dns.JUMPS_MAX + 2):
        content = b"\1a" + struct.pack(">H", 0xC000 | target)
        records.append(record(TO_QUESTION, 5, content))
        target, at = at + 12, at + 12 + len(content)
    few = dns.read_answer(message(*records[: dns.JUMPS_MAX]))
    assert few is not None
    with pytest.raises(WireError, match="points to"):
        dns.read_answer(message(*records))


def test_in_a_packet(make):
    whole = message(record(TO_QUESTION, 1, FOUR, 5), record(name(ASKED), 28, SIX, 6))
    both = found((FOUR, 5), (SIX, 6))
    extension = b"\x11\0\1\4\0\0\0\0"
    for packet in (
        make.ipv4(make.udp(whole), 17),
        make.ipv4(make.udp(whole), 17, options=b"\x94\x04\0\0"),
        make.ipv6(make.udp(whole), 17),
        make.ipv6(extension + make.udp(whole), 60),
        make.ipv6(make.udp(whole), 17) + b"padding",
    ):
        assert dns.read_packet(packet) == both
    # Cut by whoever copied it.
    assert dns.read_packet(make.ipv4(make.udp(whole), 17)[:-1]) == found((FOUR, 5))
    assert dns.read_packet(make.ipv6(make.udp(whole), 17)[:-1]) == found((FOUR, 5))


def test_packets_of_others(make):
    whole = message(record(TO_QUESTION, 1, FOUR, 5))
    assert dns.read_packet(make.ipv4(make.tcp(whole), 6)) is None
    assert dns.read_packet(make.ipv4(make.udp(whole), 17, fragment=0x0004)) is None
    assert dns.read_packet(b"") is None
    assert dns.read_packet(b"\x50") is None


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=400)
def test_hostile_packets(packet):
    with contextlib.suppress(WireError):
        assert isinstance(dns.read_packet(packet), Answer | None)


PIECES = st.sampled_from(
    [TO_QUESTION, b"\xc0\x10", b"\xc0\x2d", b"\xff\xff", b"\0", b"\3www", b"\x3f", b"\x40", b"\xc0", name(ASKED),
     record(TO_QUESTION, 1, FOUR), record(TO_QUESTION, 28, SIX), record(TO_QUESTION, 5, name("a.b")),
     record(TO_QUESTION, 5, b"\1a\xc0\x10"), b"\0\5\0\1\0\0\0\1\0\2", b"\0\1\0\1\0\0\0\1\0\4"]
) | st.binary(max_size=12)  # fmt: skip


@given(st.lists(PIECES, max_size=30), st.integers(0, 65535), st.booleans())
@settings(deadline=None, max_examples=600)
def test_hostile_messages(pieces, count, asks_well):
    asked = name(ASKED) if asks_well else b"".join(pieces[:3])
    answer = None
    with contextlib.suppress(WireError):
        answer = dns.read_answer(message(b"".join(pieces), asked=asked, count=count))
    if answer is not None:
        assert 0 < len(answer.name) <= dns.SHOWN_MAX
        assert answer.name.isascii()
        assert answer.name.isprintable()
        assert len(answer.addresses) <= dns.RECORDS_MAX
        assert all(len(each.packed) in (4, 16) and 0 <= each.ttl_s < 1 << 31 for each in answer.addresses)


LABELS = st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=6)


@given(LABELS, st.integers(0, 1 << 31), st.lists(st.binary(min_size=4, max_size=4), max_size=6))
@settings(deadline=None, max_examples=200)
def test_what_was_written_is_read(labels, ttl, addresses):
    asked = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    answer = dns.read_answer(message(*(record(TO_QUESTION, 1, each, ttl) for each in addresses), asked=asked))
    shown = ".".join(
        "".join(chr(octet) if chr(octet) in "abcdefghijklmnopqrstuvwxyz0123456789-_" else f"\\{octet:03}"
                for octet in label.lower())
        for label in labels
    )  # fmt: skip
    assert answer == found(*((each, ttl if ttl < 1 << 31 else 0) for each in addresses), name=shown)


def scapy_answer(payload):
    """Name and addresses as Scapy sees them, from a message that it made or can read."""
    layers = pytest.importorskip("scapy.layers.dns")
    read = layers.DNS(payload)
    question = read.qd[0]
    rows = list(read.an or ())
    aliases = {row.rrname.lower(): row.rdata.lower() for row in reversed(rows) if row.type == 5}
    names, at = set(), question.qname.lower()
    while at is not None and at not in names:
        names.add(at)
        at = aliases.get(at)
    addresses = [str(row.rdata) for row in rows if row.type in (1, 28) and row.rrname.lower() in names]
    return question.qname.decode().lower().rstrip("."), addresses


def test_made_by_scapy():
    layers = pytest.importorskip("scapy.layers.dns")
    rows = [
        layers.DNSRR(rrname=ASKED, type="CNAME", rdata="edge.example.net", ttl=30),
        layers.DNSRR(rrname="edge.example.net", type="A", rdata="192.0.2.7", ttl=20),
        layers.DNSRR(rrname="edge.example.net", type="AAAA", rdata="2001:db8::7", ttl=90),
    ]
    made = layers.DNS(id=1, qr=1, qd=[layers.DNSQR(qname=ASKED, qtype="A")], an=rows)
    expected = found((bytes((192, 0, 2, 7)), 20), (ipaddress.ip_address("2001:db8::7").packed, 30))
    assert dns.read_answer(bytes(made)) == expected
    assert dns.read_answer(bytes(layers.dns_compress(made))) == expected


def answers_of(path):
    """UDP payloads from port 53 in a capture of Ethernet."""
    reader = CaptureReader()
    for source, buffer, frames in reader.feed(path.read_bytes()):
        for _, at, end, _ in frames:
            frame = bytes(buffer[at:end])
            if source.linktype == 1 and frame[12:14] == b"\x08\0" and frame[23] == 17 and frame[34:36] == b"\0\x35":
                yield frame[14:]


def test_real_answers(captures):
    known = {"benign-dns-ssdp.pcap", "benign-iphone.pcap", "benign-mixture.pcap", "benign-web-mixed.pcap"}
    seen = with_addresses = 0
    for path in captures:
        if path.name not in known:
            continue
        for packet in answers_of(path):
            answer = dns.read_packet(packet)
            if answer is None:
                continue
            seen += 1
            with_addresses += bool(answer.addresses)
            asked, addresses = scapy_answer(packet[28:])
            assert (answer.name, [str(ipaddress.ip_address(each.packed)) for each in answer.addresses]) == (
                asked,
                addresses,
            )
    if not seen:
        pytest.skip("none of the known captures is there")
    assert with_addresses > 10


def test_malformed_answers(captures):
    """Nothing but the documented error, also of bytes that real malware sends."""
    for path in captures:
        if path.name in {"malformed-dns.pcap", "dnstunnel-dnscat.pcap", "benign-mixture.pcap"}:
            for packet in answers_of(path):
                for cut in range(0, len(packet), 7):
                    with contextlib.suppress(WireError):
                        dns.read_packet(packet[: len(packet) - cut])
