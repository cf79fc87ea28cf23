from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pfw.model.flow import Direction, Moment
from pfw.model.packet import ICMP, ICMPV6, SCTP, UDP
from pfw.model.rule import App, Expiry, Limit, Schedule
from pfw.model.verdict import Action, Verdict
from pfw.policy.match import Answer, answer, conditions, decide_slowly, minute_of_week

YES, NO, UNKNOWN = Answer.YES, Answer.NO, Answer.UNKNOWN
MONDAY_9 = datetime(2026, 11, 23, 9, tzinfo=UTC).timestamp()
NOW = Moment(MONDAY_9)
PING = {"protocol": ICMP, "source_port": None, "port": None, "icmp_type": 8}
PING6 = {**PING, "protocol": ICMPV6, "icmp_type": 128, "source": "2001:db8::1", "destination": "2001:db8::2"}
NO_APP = {"source_port": None, "port": None}

CURL = App("/usr/bin/curl", "a" * 64)

CASES = [
    # what the rule has, what the flow has, the answer, the field to blame
    ({}, {}, YES, None),
    ({"enabled": False}, {}, NO, "enabled"),
    ({"directions": frozenset((Direction.OUT,))}, {}, NO, "direction"),
    ({"directions": frozenset((Direction.IN,))}, {"direction": Direction.FORWARD}, NO, "direction"),
    ({"source": "203.0.113.0/24"}, {}, YES, None),
    ({"source": "203.0.113.0/29"}, {}, NO, "from"),
    ({"source": "203.0.113.9"}, {"source": "203.0.113.10"}, NO, "from"),
    ({"source": "::/0"}, {}, NO, "from"),
    ({"source": "2001:db8::/32"}, {"source": "2001:db8:ffff::1", "destination": "::2"}, YES, None),
    ({"destination": "192.168.1.0/24 10.0.0.0/8"}, {}, YES, None),
    ({"destination": "203.0.113.9"}, {}, NO, "to"),
    ({"remote": "203.0.113.9"}, {}, YES, None),
    ({"remote": "203.0.113.9"}, {"direction": Direction.OUT}, NO, "remote"),
    ({"remote": "192.168.1.5"}, {"direction": Direction.OUT}, YES, None),
    ({"remote": "0.0.0.0/0", "directions": frozenset(Direction)}, {"direction": Direction.FORWARD}, NO, "remote"),
    ({"protocols": frozenset((6, 17))}, {}, YES, None),
    ({"protocols": frozenset((17,))}, {}, NO, "protocol"),
    ({"protocols": frozenset((47,))}, {"protocol": 47, **NO_APP}, YES, None),
    ({"ports": ((22, 22),)}, {}, YES, None),
    ({"ports": ((80, 80), (1000, 2000))}, {"port": 2000}, YES, None),
    ({"ports": ((80, 80), (1000, 2000))}, {"port": 2001}, NO, "port"),
    ({"ports": ((0, 65535),)}, {"protocol": SCTP}, YES, None),
    ({"ports": ((0, 65535),)}, PING, NO, "port"),
    ({"ports": ((0, 65535),)}, {"protocol": 47, **NO_APP}, NO, "port"),
    ({"ports": ((22, 22),)}, {"port": None}, UNKNOWN, "port"),
    ({"source_ports": ((50000, 50001),)}, {}, YES, None),
    ({"source_ports": ((50001, 50001),)}, {}, NO, "from_port"),
    ({"source_ports": ((50001, 50001),)}, {"source_port": None}, UNKNOWN, "from_port"),
    ({"source_ports": ((50001, 50001),)}, PING, NO, "from_port"),
    ({"icmp_types": frozenset(((1, 8), (58, 128)))}, PING, YES, None),
    ({"icmp_types": frozenset(((1, 8), (58, 128)))}, PING6, YES, None),
    ({"icmp_types": frozenset(((1, 128), (58, 8)))}, PING6, NO, "icmp_type"),
    ({"icmp_types": frozenset(((1, 8),))}, {}, NO, "icmp_type"),
    ({"icmp_types": frozenset(((1, 8),))}, {**PING, "icmp_type": None}, UNKNOWN, "icmp_type"),
    ({"icmp_types": frozenset(((58, 128),))}, {**PING, "icmp_type": None}, NO, "icmp_type"),
    ({"interfaces": ("eth0",)}, {}, YES, None),
    ({"interfaces": ("eth",)}, {}, NO, "interface"),
    ({"interfaces": ("wlan0", "eth*")}, {}, YES, None),
    ({"interfaces": ("eth*",)}, {"interface": "eth"}, YES, None),
    ({"interfaces": ("*",)}, {}, YES, None),
    ({"interfaces": ("eth*",)}, {"interface": None}, UNKNOWN, "interface"),
    ({"interfaces": ("lo",)}, {"interface": None}, NO, "interface"),
    ({"interfaces": ("lo", "eth0")}, {"interface": None}, UNKNOWN, "interface"),
    ({"interfaces": ("lo",)}, {"interface": None, "source": "127.0.0.1", "destination": "127.0.0.2"}, YES, None),
    ({"apps": ("/usr/bin/curl",)}, {"app": "/usr/bin/curl"}, YES, None),
    ({"apps": ("/usr/bin/curl",)}, {"app": "/usr/bin/curl2"}, NO, "app"),
    ({"apps": ("/usr/bin/wget", "/usr/*")}, {"app": "/usr/bin/curl2"}, YES, None),
    ({"apps": ("/usr/bin/curl",)}, {}, UNKNOWN, "app"),
    # the empty text is known: a program without a path
    ({"apps": ("/usr/bin/curl", "/*")}, {"app": ""}, NO, "app"),
    ({"apps": (CURL,)}, {"app": "", "app_sha256": "a" * 64}, NO, "app"),
    ({"apps": ("/opt/ide/*",)}, {"app": "/opt/ide/bin/run"}, YES, None),
    ({"apps": ("/opt/ide/*",)}, {"app": "/opt/ide2"}, NO, "app"),
    ({"apps": (CURL,)}, {"app": "/usr/bin/curl", "app_sha256": "a" * 64}, YES, None),
    ({"apps": (CURL,)}, {"app": "/usr/bin/curl", "app_sha256": "b" * 64}, NO, "app"),
    ({"apps": (CURL,)}, {"app": "/usr/bin/wget", "app_sha256": "a" * 64}, NO, "app"),
    ({"apps": (CURL,)}, {"app": "/usr/bin/curl"}, UNKNOWN, "app"),
    ({"apps": (CURL,)}, {"app": "/usr/bin/wget"}, NO, "app"),
    ({"apps": (CURL,)}, {"app_sha256": "b" * 64}, UNKNOWN, "app"),
    # of several one that is certain is enough
    ({"apps": (CURL, "/usr/bin/*")}, {"app": "/usr/bin/curl"}, YES, None),
    ({"apps": (CURL, "/usr/bin/wget")}, {"app": "/usr/bin/curl"}, UNKNOWN, "app"),
    (
        {"apps": ("/usr/bin/python3",), "scripts": ("/s/a", "/s/b")},
        {"app": "/usr/bin/python3", "script": "/s/b"},
        YES,
        None,
    ),
    (
        {"apps": ("/usr/bin/python3",), "scripts": ("/s/a",)},
        {"app": "/usr/bin/python3", "script": "/s/b"},
        NO,
        "script",
    ),
    ({"apps": ("/usr/bin/python3",), "scripts": ("/s/a",)}, {"app": "/usr/bin/python3", "script": ""}, NO, "script"),
    ({"apps": ("/usr/bin/python3",), "scripts": ("/s/a",)}, {"app": "/usr/bin/python3"}, UNKNOWN, "script"),
    ({"apps": ("/usr/bin/python3",), "scripts": ("/s/a",)}, {"app": "/usr/bin/perl"}, NO, "app"),
    ({"users": ("alice", "group:wheel")}, {"users": frozenset(("bob", "1001", "group:wheel"))}, YES, None),
    ({"users": ("alice",)}, {"users": frozenset(("bob", "1001"))}, NO, "user"),
    ({"users": ("alice",)}, {"users": frozenset()}, NO, "user"),
    ({"users": ("alice",)}, {}, UNKNOWN, "user"),
    ({"units": ("ssh.service",)}, {"unit": "ssh.service"}, YES, None),
    ({"units": ("ssh.service",)}, {"unit": "cron.service"}, NO, "unit"),
    ({"units": ("ssh.service",)}, {}, UNKNOWN, "unit"),
    # what does not match outweighs what is not known
    ({"units": ("ssh.service",), "ports": ((80, 80),)}, {}, NO, "port"),
    # the limit is no affair of `answer`
    ({"limit": Limit(1, 1, 1)}, {}, YES, None),
]


@pytest.mark.parametrize(("wanted", "given", "expected", "blamed"), CASES)
def test_each_field(make_rule, make_flow, wanted, given, expected, blamed):
    assert answer(make_rule(**wanted), make_flow(**given), NOW) == (expected, (blamed,) if blamed else ())


def test_every_field_that_does_not_match_is_named(make_rule, make_flow):
    rule = make_rule(enabled=False, source="10.0.0.0/8", ports=((80, 80),), apps=("/bin/sh",))
    assert answer(rule, make_flow(), NOW) == (NO, ("enabled", "from", "port"))
    answers = conditions(rule, make_flow(), NOW)
    assert [field for field, given in answers.items() if given is UNKNOWN] == ["app"]
    assert len(answers) == 16


WORKDAY = Schedule(windows=((540, 1020), (10000, 10080)), text="mon 09:00-17:00, sun 22:40-24:00")


@pytest.mark.parametrize(
    ("second", "offset_s", "expected"),
    [
        (MONDAY_9, 0, YES),
        (MONDAY_9 - 0.001, 0, NO),
        (MONDAY_9 + 8 * 3600 - 0.001, 0, YES),
        (MONDAY_9 + 8 * 3600, 0, NO),
        (MONDAY_9 - 3600, 3600, YES),
        (MONDAY_9, -3600, NO),
        (MONDAY_9 - 9 * 3600, 0, NO),
        (MONDAY_9 - 9 * 3600 - 1, 0, YES),
        (MONDAY_9 - 9 * 3600, -1, YES),
        (-3 * 86400.0, 0, NO),
    ],
)
def test_schedule_by_the_local_clock(make_rule, make_flow, second, offset_s, expected):
    assert answer(make_rule(schedule=WORKDAY), make_flow(), Moment(second, offset_s))[0] is expected


def test_the_week_begins_on_monday():
    assert minute_of_week(Moment(0.0)) == 3 * 1440
    assert minute_of_week(Moment(4 * 86400.0)) == 0
    assert minute_of_week(Moment(4 * 86400.0 - 1)) == 10079
    assert minute_of_week(Moment(-3 * 86400.0)) == 0


@pytest.mark.parametrize(
    ("expiry", "moment", "expected"),
    [
        (Expiry(1000.0, False, "t"), Moment(999.5), YES),
        (Expiry(1000.0, False, "t"), Moment(1000.0), NO),
        (Expiry(1000.0, False, "t"), Moment(999.5, 7200), YES),
        (Expiry(1000.0, True, "t"), Moment(999.5, 7200), NO),
        (Expiry(8200.0, True, "t"), Moment(999.5, 7200), YES),
        (Expiry(8200.0, True, "t"), Moment(1000.0, 7200), NO),
    ],
)
def test_expiry(make_rule, make_flow, expiry, moment, expected):
    assert answer(make_rule(expires=expiry), make_flow(), moment)[0] is expected


def test_the_first_rule_that_matches_decides(make_rule, make_flow, make_policy):
    policy = make_policy(
        make_rule(name="other port", ports=((80, 80),)),
        make_rule(name="refuse", action=Action.REJECT, log=True),
        make_rule(name="too late"),
    )
    expected = Verdict(action=Action.REJECT, rule="refuse", index=1, log=True, reason='rule "refuse"')
    assert decide_slowly(policy, make_flow(), NOW) == expected


def test_defaults_by_direction(make_flow, make_policy):
    policy = make_policy()
    found = {each: decide_slowly(policy, make_flow(direction=each), NOW) for each in Direction}
    assert found == {
        Direction.IN: Verdict(action=Action.BLOCK, reason="default in"),
        Direction.OUT: Verdict(action=Action.ALLOW, reason="default out"),
        Direction.FORWARD: Verdict(action=Action.BLOCK, reason="default forward"),
    }


LIMIT = Limit(count=6, period_s=60, burst=5)


def test_a_limit_is_asked_only_where_all_else_matches(make_rule, make_flow, make_policy):
    policy = make_policy(
        make_rule(name="other port", ports=((80, 80),), limit=LIMIT),
        make_rule(name="unknown program", action=Action.BLOCK, apps=("/bin/sh",), limit=LIMIT),
        make_rule(name="over", limit=LIMIT),
        make_rule(name="under", action=Action.BLOCK, limit=LIMIT),
        make_rule(name="never reached", limit=LIMIT),
    )
    asked: list[int] = []

    def over_limit(index: int) -> bool:
        asked.append(index)
        return index == 2

    verdict = decide_slowly(policy, make_flow(), NOW, over_limit)
    assert asked == [2, 3]
    assert verdict == Verdict(action=Action.BLOCK, rule="under", index=3, reason='rule "under"')


def test_without_an_answer_no_limit_is_taken_as_reached_and_the_reason_says_so(make_rule, make_flow, make_policy):
    verdict = decide_slowly(make_policy(make_rule(name="ssh", limit=LIMIT)), make_flow(), NOW)
    assert verdict.action is Action.ALLOW
    assert verdict.reason == 'rule "ssh", while under 6/minute from one address'


def test_unknown_program_before_another_verdict(make_rule, make_flow, make_policy):
    browser = make_rule(name="browser", apps=("/usr/bin/firefox",), log=True)
    verdict = decide_slowly(make_policy(browser), make_flow(), NOW)
    assert verdict == Verdict(
        action=Action.UNKNOWN,
        rule="browser",
        index=0,
        log=True,
        reason='allow if the program is /usr/bin/firefox (rule "browser"), otherwise block (default in)',
    )


def test_unknown_is_harmless_before_the_same_verdict(make_rule, make_flow, make_policy):
    browser = make_rule(name="browser", apps=("/usr/bin/firefox",))
    verdict = decide_slowly(make_policy(browser), make_flow(direction=Direction.OUT), NOW)
    assert verdict == Verdict(action=Action.ALLOW, reason="default out")


def test_unknown_behind_the_end_does_not_count(make_rule, make_flow, make_policy):
    policy = make_policy(make_rule(name="all", action=Action.BLOCK), make_rule(name="browser", apps=("/bin/x",)))
    assert decide_slowly(policy, make_flow(), NOW).rule == "all"


def test_the_first_rule_that_would_do_something_else_is_named(make_rule, make_flow, make_policy):
    policy = make_policy(
        make_rule(name="shell", action=Action.BLOCK, apps=("/bin/sh",)),
        make_rule(name="ours", users=("alice", "bob"), units=("a.service",), limit=LIMIT),
        make_rule(name="ask", action=Action.ASK, apps=("/bin/a", "/bin/b", "/bin/c", "/bin/d", "/bin/e")),
    )
    verdict = decide_slowly(policy, make_flow(), NOW)
    assert (verdict.action, verdict.rule, verdict.index) == (Action.UNKNOWN, "ours", 1)
    assert verdict.reason == (
        "allow if the user is alice or bob and the unit is a.service and under 6/minute from one address "
        '(rule "ours"), 2 more rules may match, otherwise block (default in)'
    )
    verdict = decide_slowly(make_policy(policy.rules[2]), make_flow(), NOW)
    assert verdict.reason == (
        'ask if the program is /bin/a, /bin/b, /bin/c or 2 more (rule "ask"), otherwise block (default in)'
    )


@pytest.mark.parametrize(
    ("wanted", "given", "words"),
    [
        ({"apps": (CURL,)}, {"app": CURL.path}, f"the program is /usr/bin/curl (sha256 {'a' * 16}…)"),
        ({"apps": ("/p",), "scripts": ("/s",)}, {"app": "/p"}, "the script is /s"),
        ({"apps": ("/p",), "scripts": ("/s",)}, {}, "the program is /p and the script is /s"),
        ({"source_ports": ((67, 68),)}, {"protocol": UDP, "source_port": None}, "the source port is 67-68"),
        ({"ports": ((1, 1), (3, 4))}, {"port": None}, "the port is 1 or 3-4"),
        ({"interfaces": ("eth*",)}, {"interface": None}, "the interface is eth*"),
        (
            {"icmp_types": frozenset(((1, 8), (58, 128)))},
            {**PING, "icmp_type": None},
            "the ICMP type is 8",
        ),
    ],
)
def test_words_for_what_is_not_known(make_rule, make_flow, make_policy, wanted, given, words):
    verdict = decide_slowly(make_policy(make_rule(**wanted)), make_flow(**given), NOW)
    assert verdict.reason == f'allow if {words} (rule "the rule"), otherwise block (default in)'


@pytest.mark.parametrize(
    "wanted", [{"apps": ("/bin/a",)}, {"scripts": ("/s",)}, {"users": ("alice",)}, {"units": ("a.service",)}]
)
@pytest.mark.parametrize(
    "known", [{}, {"app": "/bin/a", "script": "/s", "users": frozenset(("alice",)), "unit": "a.service"}]
)
def test_a_forwarded_connection_is_nobodys_here(make_rule, make_flow, wanted, known):
    rule = make_rule(directions=frozenset(Direction), **wanted)
    assert answer(rule, make_flow(direction=Direction.FORWARD, **known), NOW)[0] is NO
    assert answer(rule, make_flow(direction=Direction.IN, **known), NOW)[0] is (YES if known else UNKNOWN)
