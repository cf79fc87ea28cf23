from __future__ import annotations

from datetime import UTC, datetime
from re import escape

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pfw.model.address import parse_address
from pfw.model.flow import Direction, Flow, Moment
from pfw.policy.question import Question, parse_question, parse_words

TEN = datetime(2026, 11, 23, 10, tzinfo=UTC).timestamp()


def _flow(direction: Direction, protocol: int, source: str, destination: str, **facts: object) -> Flow:
    return Flow(
        direction=direction,
        protocol=protocol,
        source=parse_address(source) if source else b"",
        destination=parse_address(destination) if destination else b"",
        **facts,
    )


IN, OUT, FORWARD = Direction
SHAPE = "PROTOCOL [SOURCE][:PORT] -> [DESTINATION][:PORT]"

QUESTIONS = [
    (
        "in tcp 203.0.113.9:50000 192.168.1.5:22",
        _flow(IN, 6, "203.0.113.9", "192.168.1.5", source_port=50000, port=22),
    ),
    (
        "out udp [2001:db8::5]:5353 [2001:db8::1]:53",
        _flow(OUT, 17, "2001:db8::5", "2001:db8::1", source_port=5353, port=53),
    ),
    ("  IN  Tcp\t203.0.113.9  192.168.1.5:22\n", _flow(IN, 6, "203.0.113.9", "192.168.1.5", port=22)),
    ("in 132 2001:db8::5 [2001:db8::1]:53", _flow(IN, 132, "2001:db8::5", "2001:db8::1", port=53)),
    ("in tcp [2001:db8::5] [2001:db8::1]:0", _flow(IN, 6, "2001:db8::5", "2001:db8::1", port=0)),
    ("forward icmp 10.0.0.1 10.0.0.2", _flow(FORWARD, 1, "10.0.0.1", "10.0.0.2")),
    ("in icmp 1.2.3.4 5.6.7.8 echo-request", _flow(IN, 1, "1.2.3.4", "5.6.7.8", icmp_type=8)),
    ("in icmp 1.2.3.4 5.6.7.8 type 8", _flow(IN, 1, "1.2.3.4", "5.6.7.8", icmp_type=8)),
    ("in icmp 1.2.3.4 5.6.7.8 255", _flow(IN, 1, "1.2.3.4", "5.6.7.8", icmp_type=255)),
    ("in icmp ::1 ::2 type echo-request", _flow(IN, 58, "::1", "::2", icmp_type=128)),
    ("in icmpv6 ::1 ::2 Packet-Too-Big", _flow(IN, 58, "::1", "::2", icmp_type=2)),
    ("in 58 ::1 ::2", _flow(IN, 58, "::1", "::2")),
    ("in gre 1.2.3.4 5.6.7.8", _flow(IN, 47, "1.2.3.4", "5.6.7.8")),
    (
        "out tcp 10.0.0.1 1.1.1.1:443 --app /usr/bin/firefox --user alice --unit a.service --interface eth0",
        _flow(
            OUT, 6, "10.0.0.1", "1.1.1.1", port=443, app="/usr/bin/firefox",
            users=frozenset(("alice",)), unit="a.service", interface="eth0",
        ),
    ),
    (
        f"out tcp 10.0.0.1 1.1.1.1:443 --script=/s --app /usr/bin/python3 --sha256 {'AB' * 32}",
        _flow(
            OUT, 6, "10.0.0.1", "1.1.1.1", port=443, app="/usr/bin/python3", app_sha256="ab" * 32, script="/s"
        ),
    ),
    (
        "--user=alice out --user group:wheel tcp 10.0.0.1 1.1.1.1:443 --app='/opt/My App/run'",
        _flow(
            OUT, 6, "10.0.0.1", "1.1.1.1", port=443, app="/opt/My App/run", users=frozenset(("alice", "group:wheel"))
        ),
    ),
    # With an arrow an end, an address or a port may be left out.
    ("in tcp 192.168.1.9:5 -> 192.168.1.2:22", _flow(IN, 6, "192.168.1.9", "192.168.1.2", source_port=5, port=22)),
    ("in tcp 192.168.1.9 -> :22", _flow(IN, 6, "192.168.1.9", "", port=22)),
    ("in tcp 192.168.1.9->:22", _flow(IN, 6, "192.168.1.9", "", port=22)),
    ("out tcp -> 203.0.113.5:25", _flow(OUT, 6, "", "203.0.113.5", port=25)),
    ("out tcp -> [2001:db8::5]:25 --user a", _flow(OUT, 6, "", "2001:db8::5", port=25, users=frozenset(("a",)))),
    ("in udp :67 -> :68", _flow(IN, 17, "", "", source_port=67, port=68)),
    ("in tcp -> :22", _flow(IN, 6, "", "", port=22)),
    ("in tcp 203.0.113.9 ->", _flow(IN, 6, "203.0.113.9", "")),
    ("out tcp -> 203.0.113.9", _flow(OUT, 6, "", "203.0.113.9")),
    ("forward tcp 10.0.0.1 -> :80", _flow(FORWARD, 6, "10.0.0.1", "", port=80)),
    ("in gre ->", _flow(IN, 47, "", "")),
    ("in icmp 1.2.3.4 -> echo-request", _flow(IN, 1, "1.2.3.4", "", icmp_type=8)),
    ("in icmp ::1 -> type 128", _flow(IN, 58, "::1", "", icmp_type=128)),
    ("in icmp -> ::1 echo-request", _flow(IN, 58, "", "::1", icmp_type=128)),
    ("in icmpv6 -> echo-request", _flow(IN, 58, "", "", icmp_type=128)),
    ("in 1 -> 8", _flow(IN, 1, "", "", icmp_type=8)),
    ("in tcp 192.168.1.9 :22", _flow(IN, 6, "192.168.1.9", "", port=22)),
]  # fmt: skip


@pytest.mark.parametrize(("line", "flow"), QUESTIONS)
def test_questions(line, flow):
    assert parse_question(line) == Question(flow)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "a question is in|out|forward PROTOCOL SOURCE[:PORT] DESTINATION[:PORT], but there are only 0 words"),
        ("in tcp 1.2.3.4", "a question is in|out|forward PROTOCOL SOURCE[:PORT] DESTINATION[:PORT], "
         "but there are only 3 words"),
        ("up tcp 1.2.3.4 5.6.7.8:1", '"up" is not a direction; write in, out or forward'),
        ("in tpc 1.2.3.4 5.6.7.8:1", '"tpc" is not a protocol; did you mean "tcp"?'),
        ("in xyzzy 1.2.3.4 -> :1", '"xyzzy" is not a protocol; write tcp, udp, icmp, ... or a number (0-255)'),
        ("in -> :22", f"a question is in|out|forward {SHAPE}"),
        ("-> :22", f"a question is in|out|forward {SHAPE}"),
        ("up tcp -> :22", '"up" is not a direction; write in, out or forward'),
        ("in tcp 1.2.3.4 5.6.7.8 -> :22", f'"5.6.7.8" is one word too many; a question is in {SHAPE}'),
        ("in tcp 1.2.3.4 -> :22 now", '"now" is one word too many; a question is '
         "in|out|forward PROTOCOL SOURCE[:PORT] DESTINATION[:PORT]"),
        ("in tcp 1.2.3.4 -> 22", '"22" is not an address'),
        ("in tcp 1.2.3.4 -> :", '"" is not a port (0-65535)'),
        ("in tcp 1.2.3.4 -> [::1]:1", '"1.2.3.4" and "[::1]:1" are not of one family, IPv4 or IPv6'),
        ("in tcp 1.2.3.4 -", "the arrow -> is one word; in a shell the question stands in quotes, for the sake of >"),
        ("in icmp -> 8", "\"icmp\" is of both families; without an address write icmpv6, or 1 for IPv4's"),
        ("in gre -> :22", "GRE has no ports; write the addresses alone"),
        ("in 256 1.2.3.4 5.6.7.8:1", '"256" is not a protocol; write tcp, udp, icmp, ... or a number (0-255)'),
        ("in tcp 1.2.3 5.6.7.8:1", '"1.2.3" is not an address'),
        ("in tcp 1.2.3.4 fe80::1%eth0", '"fe80::1%eth0" is not an address'),
        ("in tcp 1.2.3.4 5.6.7.8", '"5.6.7.8" has no port, which TCP needs: ADDRESS:PORT'),
        ("in udp ::1 2001:db8::1", '"2001:db8::1" has no port, which UDP needs: ADDRESS:PORT'),
        ("in tcp 1.2.3.4 5.6.7.8:ssh", '"ssh" is not a port (0-65535)'),
        ("in tcp 1.2.3.4: 5.6.7.8:22", '"" is not a port (0-65535)'),
        ("in tcp 1.2.3.4 5.6.7.8:65536", '"65536" is not a port (0-65535)'),
        ("in tcp 1.2.3.4 5.6.7.8:\u0662\u0662", '"\u0662\u0662" is not a port (0-65535)'),
        ("in tcp [::1 [::1]:1", '"[::1" is not an IPv6 address with a port, as in [2001:db8::1]:53'),
        ("in tcp [::1]x [::1]:1", '"[::1]x" is not an IPv6 address with a port, as in [2001:db8::1]:53'),
        ("in tcp ::1 [1.2.3.4]:1", '"[1.2.3.4]:1" is not an IPv6 address with a port, as in [2001:db8::1]:53'),
        ("in tcp 1.2.3.4 [::1]:1", '"1.2.3.4" and "[::1]:1" are not of one family, IPv4 or IPv6'),
        ("in icmp 1.2.3.4:1 5.6.7.8", "ICMP has no ports; write the addresses alone"),
        ("in gre 1.2.3.4 5.6.7.8:1", "GRE has no ports; write the addresses alone"),
        ("in icmpv6 1.2.3.4 5.6.7.8", "ICMPv6 does not go with IPv4 addresses"),
        ("in 1 ::1 ::2", "ICMP does not go with IPv6 addresses"),
        ("in icmp 1.2.3.4 5.6.7.8 packet-too-big", '"packet-too-big" is not a type of ICMP; write a name or 0-255'),
        ("in icmp 1.2.3.4 5.6.7.8 type", "an ICMP type is one word, as in: type 8"),
        ("in icmp 1.2.3.4 5.6.7.8 8 8", "an ICMP type is one word, as in: type 8"),
        ("in tcp 1.2.3.4 5.6.7.8:1 now", '"now" is one word too many; a question is '
         "in|out|forward PROTOCOL SOURCE[:PORT] DESTINATION[:PORT]"),
        ("in tcp 1.2.3.4 5.6.7.8:1 --group x", '"--group" is not an option; there are '
         "--app, --sha256, --script, --user, --unit, --interface, --time"),
        ("in tcp 1.2.3.4 5.6.7.8:1 --app", "--app needs a value"),
        ("in tcp 1.2.3.4 5.6.7.8:1 --app=", "--app needs a value"),
        ("in tcp 1.2.3.4 5.6.7.8:1 --app a --app b", "--app is given twice"),
        ("in tcp 1.2.3.4 5.6.7.8:1 --script /a --script /b", "--script is given twice"),
        (f"in tcp 1.2.3.4 5.6.7.8:1 --sha256 {'a' * 64}",
         "--sha256 is the hash of a program's file, and needs --app beside it"),
        ("in tcp 1.2.3.4 5.6.7.8:1 --app /a --sha256 beef",
         '"beef" is not a SHA-256 hash (64 hex digits, as sha256sum prints them)'),
        ("in tcp 1.2.3.4 5.6.7.8:1 --time noon", '"noon" is not a time, as in 2026-11-23T10:00'),
        ("in tcp 1.2.3.4 5.6.7.8:1 --app 'x", "a quote is opened and not closed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(line, reason):
    with pytest.raises(ValueError, match=f"^{escape(reason)}$"):
        parse_question(line)


def test_words_keep_their_spaces():
    question = parse_words(["in", "tcp", "1.2.3.4", "5.6.7.8:1", "--app", "/opt/My App/run"])
    assert question.flow.app == "/opt/My App/run"


def test_a_question_in_one_word_as_a_shell_gives_what_stood_in_quotes():
    assert parse_words(["in tcp 192.168.1.9 -> :22", "--app", "/opt/My App/run"]) == Question(
        _flow(IN, 6, "192.168.1.9", "", port=22, app="/opt/My App/run")
    )


def test_a_user_is_known_by_all_names():
    question = parse_question("out tcp -> :80 --user alice --user 7")
    known = question.known_as(lambda name: frozenset((name, f"group:{name}")))
    assert known.flow.users == {"alice", "group:alice", "7", "group:7"}
    assert parse_question("out tcp -> :80").known_as(frozenset).flow.users is None


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2026-11-23T10:00", Moment(TEN - 3600, 3600)),
        ("2026-11-23", Moment(TEN - 11 * 3600, 3600)),
        ("2026-11-23T10:00Z", Moment(TEN, 3600)),
        ("2026-11-23T12:00+02:00", Moment(TEN, 3600)),
    ],
)
def test_the_time_asked_about(written, moment):
    question = parse_question(f"in tcp 1.2.3.4 5.6.7.8:1 --time {written}")
    assert question.moment(Moment(5.0, 3600)) == moment


def test_without_a_time_it_is_about_now():
    assert parse_question("in tcp 1.2.3.4 5.6.7.8:1").moment(Moment(5.0, 3600)) == Moment(5.0, 3600)


WORDS = ["in", "tcp", "icmp", "1.2.3.4", "5.6.7.8:22", "[::1]:5", "::", "--app", "--time", "--user=", "type", "8", "'"]
WORDS += ["->", ":22"]


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=8))).map(" ".join)))
@example("in tcp 1.2.3.4 5.6.7.8:1 --time 0001-01-01T00:00+14:00")
@example("in tcp 1.2.3.4 5.6.7.8:1 --time 9999-12-31T23:59-14:00")
@example("in \x1b[31m\u2028 1.2.3.4 '\n'")
@example("in tcp " + "1" * 100_000 + " x")
def test_anything_else_is_refused_in_one_printable_line(line):
    try:
        told = repr(parse_question(line).moment(Moment(0.0)))
    except ValueError as error:
        told = str(error)
    assert told.isprintable()
    assert len(told) < 300
