"""Block lists in the forms in which they are published, and the fast reader against the slow one."""

from __future__ import annotations

import gzip
import random
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.address import format_range, parse_range
from pfw.wire import blocklist
from pfw.wire.blocklist import DATA_BYTES_MAX, parse, pieces
from pfw.wire.blocklist_line import LINE_CHARACTERS_MAX, read_line
from pfw.wire.error import WireError

DROP = b"""; Spamhaus DROP List 2026/11/23 - (c) 2026 The Spamhaus Project
; https://www.spamhaus.org/drop/drop.txt
; Last-Modified: Mon, 23 Nov 2026 04:24:02 GMT
1.10.16.0/20 ; SBL256894
1.19.0.0/16 ; SBL434604
2a06:e480::/29 ; SBL301771
"""
DROP_JSON = b"""{"cidr":"1.10.16.0/20","sblid":"SBL256894","rir":"apnic"}
{"cidr":"2a06:e480::/29","sblid":"SBL301771","rir":"ripencc"}
{"type":"metadata","timestamp":1795392000,"size":92513,"records":2,"copyright":"(c) 2026 The Spamhaus Project SLU"}
"""
NETSET = b"""#
# firehol_level1
#
# ipv4 hash:net ipset
# Entries          : 4 subnets, 611 unique IPs
0.0.0.0/8
10.0.0.0/8
1.10.16.0/20
5.188.206.14
"""
HOSTS = b"""# hosts
127.0.0.1 localhost
::1 localhost
fe80::1%lo0 localhost
255.255.255.255 broadcasthost
0.0.0.0 0.0.0.0
0.0.0.0 ads.example
0.0.0.0 1.2.3.4
127.0.0.1\ttracker.example # a remark
203.0.113.7 evil.example other.example
:: ads.example
"""
FEODO = b"""################################################################
# abuse.ch Feodo Tracker Botnet C2 IP Blocklist (CSV)           #
################################################################
"first_seen_utc","dst_ip","dst_port","c2_status","last_online","malware"
"2026-01-14 04:42:55","51.178.161.32","4643","offline","2026-11-01","Dridex"
"2026-01-15 10:00:01","2001:db8::7","443","online","2026-11-02","a, b ""c"" 9.9.9.9"
# END 2 entries
"""
CSV = b"""first,address,port
2026-01-01 00:00:00, 203.0.113.1:443, 1.1.1.1
2026-01-01,[2001:db8::1]:443,x
198.51.100.0/24,1,2
x,y, z # and 203.0.113.99, later
"""
P2P = b"""# List distributed by iblocklist.com

Some Company, Inc: a:1.2.3.4-1.2.3.9
C# School; x:5.6.7.0 - 5.6.7.255
http://x.example/:5.6.8.1-5.6.8.1
upside down:1.2.3.9-1.2.3.4
"""
DSHIELD = b"""# DShield.org Recommended Block List
#
Start\tEnd\tNetmask\tAttacks\tName\tCountry\temail
193.163.125.0\t193.163.125.255\t24\t4321\tSOME-NAME\tGB\tabuse@x.example
80.94.92.0\t80.94.93.255\t23\t12\t\t\t
80.94.92.7\t80.94.93.255\t24\t12\t\t\t
1.0.0.0 1.2.3.4
"""


def texts(data: bytes) -> list[str]:
    return [format_range(*pair) for pair in sorted(parse(data).ranges)]


@pytest.mark.parametrize(
    ("data", "entries", "skipped"),
    [
        (DROP, ["1.10.16.0/20", "1.19.0.0/16", "2a06:e480::/29"], 0),
        (DROP_JSON, ["1.10.16.0/20", "2a06:e480::/29"], 0),
        (NETSET, ["0.0.0.0/8", "1.10.16.0/20", "5.188.206.14", "10.0.0.0/8"], 0),
        (HOSTS, ["203.0.113.7", "255.255.255.255"], 8),
        (FEODO, ["51.178.161.32", "2001:db8::7"], 1),
        (CSV, ["198.51.100.0/24", "203.0.113.1", "2001:db8::1"], 2),
        (P2P, ["1.2.3.4-1.2.3.9", "5.6.7.0/24", "5.6.8.1"], 1),
        (DSHIELD, ["1.0.0.0", "80.94.92.0/23", "80.94.92.7", "193.163.125.0/24"], 1),
        (b"", [], 0),
        (b"\n\r\n \t\n#", [], 0),
    ],
    ids=["drop", "json", "netset", "hosts", "feodo", "csv", "p2p", "dshield", "nothing", "blank"],
)
@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_published_forms(data, entries, skipped, ends) -> None:
    data = data.replace(b"\n", ends)
    for form in (data, b"\xef\xbb\xbf" + data, gzip.compress(data, mtime=0), data.rstrip()):
        assert (texts(form), parse(form).skipped) == (entries, skipped)


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("\t1.2.3.4/24  ", "1.2.3.0/24"),
        ("1.2.3.4/32", "1.2.3.4"),
        ("1.2.3.4/08", "1.0.0.0/8"),
        ("2001:DB8::1", "2001:db8::1"),
        ("2001:db8:0:0:0:0:0:1/127", "2001:db8::/127"),
        ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
        ("::1:2", "::1:2"),
        ("1::", "1::"),
        ("2001:db8::/32#x", "2001:db8::/32"),
        ("1.2.3.4-1.2.3.9", "1.2.3.4-1.2.3.9"),
        ("1.2.3.4 -  1.2.3.9 x", "1.2.3.4-1.2.3.9"),
        ("1.2.3.4- 1.2.3.9", "1.2.3.4-1.2.3.9"),
        ("2001:db8::1 - 2001:db8::2", "2001:db8::1-2001:db8::2"),
        ("1.2.3.4 - 1.2.3.9 , 100 , Some Company", "1.2.3.4-1.2.3.9"),
        ("1.2.3.4#x", "1.2.3.4"),
        ("1.2.3.4;x", "1.2.3.4"),
        ("1.2.3.4 // x", "1.2.3.4"),
        ("1.2.3.4 # see: 9.9.9.8-9.9.9.9", "1.2.3.4"),
        ("1.2.3.4 - talk", "1.2.3.4"),
        ("1.2.3.0/24 1.2.9.9", "1.2.3.0/24"),
        ("1.2.3.0/255.255.255.0", "1.2.3.0/24"),
        ("1.2.3.7/255.255.255.255", "1.2.3.7"),
        ("1.2.3.4:443", "1.2.3.4"),
        ("1.2.3.4:443 x", "1.2.3.4"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ('"1.2.3.4",', "1.2.3.4"),
        ('{"ip": "1.2.3.4"},', "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.0/120", "1.2.3.0/24"),
        ("::ffff:1.2.3.4 - ::ffff:1.2.3.5", "1.2.3.4/31"),
        ("0:0:0:0:0:ffff:102:304", "1.2.3.4"),
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0/8", "0.0.0.0/8"),
        ("0.0.0.01", None),
        ("0.0.0.0", None),
        ("0.0.0.0/0", None),
        ("1.2.3.4/0", None),
        ("0.0.0.0/32", None),
        ("0.0.0.0-255.255.255.255", None),
        ("0.0.0.0/0.0.0.0", None),
        ("::", None),
        ("::/0", None),
        ("1::/0", None),
        ("::ffff:0:0/96", None),
        ("0.0.0.0,1.2.3.4", None),
        ("0.0.0.0 1.2.3.4 24", None),
        ("127.0.0.1 1.2.3.4", None),
        ("1.2.3.9 - 1.2.3.4", None),
        ("1.2.3.9-1.2.3.4", None),
        ("1.2.3.4 - 2001:db8::1", None),
        ("1.2.3.4/33", None),
        ("1.2.3.256", None),
        ("1.2.3", None),
        ("1.2.3.4.5", None),
        ("01.2.3.4", None),
        ("1.2.3.4:66666", None),
        ("1.2.3.0/255.0.255.0", None),
        ("1.2.3.0/0.0.0.255", None),
        ("fe80::1%eth0", None),
        ("1:2:3:4:5:6:7:8:9", None),
        ("1:2:3:4:5:6:7::8:9", None),
        ("1::2::3", None),
        ("1:2:3", None),
        ("evil.example", None),
        ("http://1.2.3.4/", None),
        ("evil.example ; was 1.2.3.4", None),
        ("!1.2.3.4", None),
        ("*.1.2.3.4", None),
        ("{}", None),
        ('{"cidr": 7}', None),
        ('{"cidr": "x"}', None),
        ('{"cidr": "1.2.3.4"', None),
        ("1.2.3.4é", None),
    ],
)  # fmt: skip
def test_lines(line, entry) -> None:
    parsed = parse(line.encode())
    assert [format_range(*pair) for pair in parsed.ranges] == ([] if entry is None else [entry])
    assert parsed.skipped == (entry is None)
    try:
        found = read_line(line)
    except ValueError:
        found = None
    assert (None if found is None else format_range(*found)) == entry


def test_comments_are_of_any_encoding() -> None:
    # 0x85 is a line break to Python's str and half of a letter to UTF-8.
    data = b"1.2.3.4 # \xe9t\xe9 \x85 \xc3\x85 9.9.9.9\n# \x85 8.8.8.8\n\xe9\n\x0c1.2.3.5\n"
    assert texts(data) == ["1.2.3.4", "1.2.3.5"]
    assert parse(data).skipped == 1


def test_samples_are_few_short_and_safe_to_show() -> None:
    parsed = parse(b"\x1b[31m\nz\xc3\xa4h\n" + b"x" * 900_000 + b"\nfour\nfive\n1.2.3.4\n")
    assert parsed.skipped == 5
    assert parsed.samples == ("\\x1b[31m", "zäh", "x" * 80)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PK\x03\x04...", "is a ZIP archive"),
        (b"BZh9", "is compressed with bzip2"),
        ("1.2.3.4".encode("utf-16"), "is UTF-16"),
        (b"\n <!DOCTYPE html>\n<p>1.2.3.4\n</p>", "is a web page, not a list"),
        (b"<html>", "is a web page, not a list"),
        (b"\x7fELF\x02\x01\x01\0\0", "is no text"),
        (gzip.compress(b"1.2.3.4\n" * 9, mtime=0)[:-6], "is compressed with gzip, and damaged or cut off"),
        (gzip.compress(b"1.2.3.4\n" * 9, mtime=0)[:12] + b"x" * 40, "is compressed with gzip, and damaged or cut off"),
        (b"\x1f\x8b", "is compressed with gzip, and damaged or cut off"),
    ],
)
def test_what_is_no_list_is_refused(data, what) -> None:
    with pytest.raises(WireError, match=what):
        parse(data)


def test_size_is_bounded_packed_and_unpacked(monkeypatch) -> None:
    with pytest.raises(WireError, match=r"^is larger than 64 MiB$"):
        parse(bytes(DATA_BYTES_MAX + 1))
    bomb = gzip.compress(bytes(300 << 20), compresslevel=1, mtime=0)
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="is larger than 64 MiB when it is unpacked"):
            parse(bomb)
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(blocklist, "ENTRIES_MAX", 1000)
    assert len(parse(b"1.2.3.4\n" * 1000).ranges) == 1000
    with pytest.raises(WireError, match=r"has more than 1,000 entries"):
        parse(b"1.2.3.4\n" * 1001)


def test_several_compressed_parts_are_one_list() -> None:
    assert texts(gzip.compress(b"1.2.3.4\n", mtime=0) + gzip.compress(b"1.2.3.9\n", mtime=0)) == ["1.2.3.4", "1.2.3.9"]


def test_pieces_are_whole_lines(monkeypatch) -> None:
    monkeypatch.setattr(blocklist, "PIECE_BYTES", 10)
    data = b"\r\n".join(b"%d.2.3.4" % number for number in range(1, 200))
    lines = [line for piece in pieces(data) for line in piece if line]
    assert lines == [f"{number}.2.3.4" for number in range(1, 200)]
    assert len(parse(data).ranges) == 199


def test_a_long_comment_is_a_comment_and_a_long_line_is_none() -> None:
    talk = "x" * 2 * LINE_CHARACTERS_MAX
    assert texts(f"1.2.3.4 # {talk}\n2001:db8::1 ;{talk}\n1.2.3.5-1.2.3.6 //{talk}\n".encode()) == [
        "1.2.3.4", "1.2.3.5-1.2.3.6", "2001:db8::1",
    ]  # fmt: skip
    assert parse(f"1.2.3.4 {talk}\n".encode()).skipped == 1


ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded.upper()),
    st.sampled_from(["0.0.0.0", "::", "1::", "::1", "::ffff:1.2.3.4", "127.0.0.1"]),
    st.sampled_from(["01.2.3.4", "256.1.1.1", "1:2:3:4:5:6:7:8", "1:2:3", "1:2:3:4:5:6:7::8"]),
)
LENGTHS = st.one_of(st.integers(0, 130), st.sampled_from(["00", "08", "0128", ""]))
PREFIXES = st.builds("{}/{}".format, ADDRESSES, LENGTHS)
RANGES = st.builds("{}{}{}".format, ADDRESSES, st.sampled_from(["-", " - "]), ADDRESSES)
BEFORE = st.sampled_from(["", "", "", " ", "\t", "#", ";", "x,", '"x",', "x:", "c# "])
BEHIND = st.sampled_from(
    [
        "",
        "",
        " ",
        "\t",
        "#x",
        " ; SBL1",
        " //",
        " name",
        " - x",
        ":443",
        ",x",
        "#1.2.3.4, x",
        "\x0b",
        " :1.1.1.1-2.2.2.2",
    ]
)
LINES = st.builds("{}{}{}".format, BEFORE, st.one_of(ADDRESSES, PREFIXES, RANGES), BEHIND)


@settings(deadline=None, max_examples=400)
@given(st.lists(LINES, max_size=30))
def test_the_fast_reader_reads_as_the_slow_one(lines) -> None:
    expected, skipped = [], 0
    for line in lines:
        try:
            found = read_line(line)
        except ValueError:
            skipped += 1
            continue
        if found is not None:
            expected.append(found)
    parsed = parse("\n".join(lines).encode())
    assert sorted(parsed.ranges) == sorted(expected)
    assert parsed.skipped == skipped


def random_lists(count: int) -> dict[str, list[str]]:
    chance = random.Random(1)
    octets = [[chance.randrange(1, 224), *(chance.randrange(256) for _ in range(3))] for _ in range(count)]
    ipv4 = [".".join(map(str, each)) for each in octets]
    return {
        "hosts": ipv4,
        "prefixes": [f"{each}/{chance.randrange(8, 33)}" for each in ipv4],
        "drop": [f"{each}/24 ; SBL{chance.randrange(10**6)}" for each in ipv4],
        "ipv6": [f"2001:{chance.randrange(1, 1 << 16):x}:{chance.randrange(1 << 16):x}::/48" for _ in ipv4],
    }


@pytest.mark.parametrize("form", ["hosts", "prefixes", "drop", "ipv6"])
def test_a_long_list_takes_no_time(form) -> None:
    lines = random_lists(100_000)[form]
    data = "\n".join(lines).encode()
    begin = time.process_time()
    parsed = parse(data)
    took_s = time.process_time() - begin
    assert sorted(parsed.ranges) == sorted(parse_range(line.partition(" ")[0]) for line in lines)
    assert took_s < 15  # a fortieth of it on a quiet machine


@pytest.mark.parametrize(
    "line",
    ["x:" * 2000, "1-" * 2000, '"' * 4000, "1.," * 1300, "{" * 4000, "1.1.1.1 " * 500, " " * 4000 + "x", "::" * 2000,
     ":1.1.1.1-" * 400, '{"cidr":' * 500, "[" * 4000, "1.1.1.1," * 500, '{"x":' + "[" * 3000],
)  # fmt: skip
def test_no_line_is_slow(line) -> None:
    data = (line + "\n").encode() * 250
    begin = time.process_time()
    parse(data)
    assert time.process_time() - begin < 10  # a megabyte; a fiftieth of it on a quiet machine
