"""OpenSnitch's rules as ours, held against a literal model of how OpenSnitch decides."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address, ip_network
from random import Random

import pytest

from pfw.model.address import format_address, parse_address
from pfw.model.flow import Direction, Flow, Moment
from pfw.policy.load import load
from pfw.policy.match import decide_slowly
from pfw.policy.opensnitch import KEPT, LEFT_OUT, NARROWED, STRICTER, Imported, Settings, import_rules
from pfw.policy.opensnitch_rule import RuleFile, TooMuchError

NOW = Moment(1_800_000_000.0)
ALIASES = {"LAN": ("10.0.0.0/8", "192.168.0.0/16", "fc00::/7"), "MULTICAST": ("224.0.0.0/4", "ff00::/8")}
NAMES = {6: "tcp", 17: "udp", 136: "udplite", 132: "sctp"}
OURS = {"allow": "allow", "deny": "block", "reject": "reject", "ask": "ask"}
STRICTNESS = {"allow": 0, "ask": 1, "block": 2, "reject": 2}


class Connection:
    """What OpenSnitch knows of a connection; the command and the host are known to nobody here."""

    def __init__(self, flow: Flow, command: str = "", host: str = "") -> None:
        self.flow, self.command, self.host = flow, command, host

    @property
    def protocol(self) -> str | None:
        """None where no rule is asked."""
        six = "6" if len(self.flow.destination) == 16 else ""
        if self.flow.protocol in NAMES:
            return NAMES[self.flow.protocol] + six
        return {1: "icmp", 58: "icmp" + six}.get(self.flow.protocol)

    def value(self, operand: str) -> str:
        flow = self.flow
        return {
            "process.path": flow.app,
            "process.command": self.command,
            "user.id": next(iter(flow.users or ())),
            "dest.ip": format_address(flow.destination),
            "source.ip": format_address(flow.source),
            "dest.host": self.host,
            "dest.port": str(flow.port or 0),
            "source.port": str(flow.source_port or 0),
            "protocol": self.protocol,
            "iface.out": flow.interface,
        }[operand]


def matches(operator: dict, connection: Connection) -> bool:
    """An operator of OpenSnitch, word by word."""
    kind, operand, data = operator["type"], operator["operand"], operator["data"]
    if operand == "true":
        return True
    if kind == "list":
        return all(matches(each, connection) for each in operator["list"])
    if operand == "iface.in" or (operand == "dest.host" and not connection.host):
        return False
    if kind == "network":
        packed = connection.flow.source if operand == "source.network" else connection.flow.destination
        return any(ip_address(packed) in ip_network(each, strict=False) for each in ALIASES.get(data, (data,)))
    value = connection.value(operand)
    if kind == "range":
        first, last = data.split("-")
        return int(first) <= int(value) <= int(last)
    if not operator["sensitive"]:
        value, data = value.lower(), data.lower()
    return value == data if kind == "simple" else re.search(data, value) is not None


def decide(rules: list[dict], connection: Connection, default: str) -> tuple[str, str | None]:
    """The action of OpenSnitch and the rule that it is of."""
    found: dict | None = None
    if connection.protocol is not None:
        for rule in sorted(rules, key=lambda each: each["name"].encode()):
            if rule["enabled"] and matches(rule["operator"], connection):
                found = rule
                if rule["action"] in ("deny", "reject") or rule["precedence"]:
                    break
    return (default, None) if found is None else (found["action"], found["name"])


def operator(operand: str, data: str = "", kind: str = "simple", sensitive: bool = True) -> dict:
    return {"type": kind, "operand": operand, "data": data, "sensitive": sensitive, "list": None}


def rule(name: str, found: dict, action: str = "allow", **more: object) -> dict:
    made = {"name": name, "enabled": True, "precedence": False, "action": action, "duration": "always"}
    return {**made, "operator": found, **more}


def imported(*rules: dict, **settings: object) -> Imported:
    files = [RuleFile(f"{number:04}.json", json.dumps(each).encode()) for number, each in enumerate(rules)]
    return import_rules(files, Settings(aliases=ALIASES, **settings))


EXACT = [
    *(operator("process.path", path) for path in ("/bin/a", "/bin/b", "/opt/x/run", "/no//path")),
    *(
        operator("process.path", data, "regexp")
        for data in ("^/bin/(a|b)$", "^/opt/.*", "^/opt/x/.*$", "^/opt/.+", "^/bin/a", ".*", "^(/bin/[ab]|/opt/x/.*)$")
    ),
    *(operator("user.id", user, sensitive=False) for user in ("0", "1000", "01000")),
    operator("user.id", "^(0|1000)$", "regexp"),
    *(operator("dest.ip", ip, sensitive=False) for ip in ("10.0.0.1", "FE80::1", "2001:db8::1", "::1", "10.0.0.01")),
    *(
        operator("dest.ip", data, "regexp")
        for data in (r"^10\..*", r"^(127\.0\.0\.1|::1)$", "^fe80:.*", r"^192\.168\.\d{1,3}\.\d{1,3}$", "^1", "^20")
    ),
    *(
        operator("dest.network", data, "network")
        for data in ("10.0.0.0/24", "LAN", "MULTICAST", "2001:db8::/32", "0.0.0.0/0")
    ),
    operator("source.network", "192.168.0.0/16", "network"),
    operator("source.ip", "192.168.1.5"),
    *(operator("dest.port", port) for port in ("0", "53", "80", "443", "080")),
    *(
        operator("dest.port", data, "regexp")
        for data in ("^(80|443)$", "53", "^5", "80|^443$", r"^\d{2}$", "^[48][04]?3?$")
    ),
    *(operator("dest.port", data, "range") for data in ("0-100", "50-60", "443-443", "100-99999")),
    *(operator("source.port", data, "range") for data in ("0-100", "50000-60000")),
    *(operator("protocol", data, sensitive=False) for data in ("tcp", "TCP6", "udp", "icmp", "icmp6", "sctp", "tpc")),
    *(operator("protocol", data, "regexp") for data in ("^(tcp|udp)6?$", "udp", "6$", "^icmp")),
    *(operator("iface.out", data) for data in ("eth0", "lo", "wg0", "name-that-is-too-long")),
    operator("iface.out", "^(eth|wg).*", "regexp"),
    operator("iface.in", "eth0"),
    operator("true"),
]
UNKEPT = [
    operator("process.command", "/bin/a -x"),
    operator("process.command", "-x", "regexp"),
    operator("dest.host", "ads.example.com"),
    operator("dest.host", r".*\.com$", "regexp"),
    operator("process.path", "/b[ai]n/", "regexp"),
    operator("process.path", "^/.in/a$", "regexp"),
    operator("process.path", "^/opt/.*/run$", "regexp"),
    operator("process.path", "^/bin/[^x]$", "regexp"),
    operator("process.path", r"^/opt/\S+$", "regexp"),
    operator("dest.ip", "^10.0.0.1$", "regexp"),
    operator("dest.ip", r"\.1$", "regexp"),
    operator("dest.ip", "^fe80::.*", "regexp"),
    operator("dest.ip", "^f[cde].*::.*$", "regexp"),
    operator("dest.ip", r"^10\.\d+\.0\.1$", "regexp"),
    operator("dest.port", "^8.$", "regexp"),
    operator("dest.port", "0", "regexp"),
    operator("dest.port", "3$", "regexp"),
    operator("dest.port", "^8+$", "regexp"),
    operator("protocol", "^.dp", "regexp"),
    operator("iface.out", "0$", "regexp"),
    operator("user.id", "^10", "regexp"),
]


ENDS = (
    ("10.0.0.1", "10.0.0.77", "10.9.0.1", "127.0.0.1", "192.168.1.5", "192.168.1.9", "224.0.0.251", "20.0.0.1"),
    ("::1", "fe80::1", "fe80:1::1", "2001:db8::1", "2001:db8:0:1::9", "ff02::fb", "fd00:1:2:3:4:5:6:7", "1000::1"),
)
ODD = [
    *(
        "",
        "*",
        "a*b",
        "/",
        "/*",
        "/a/",
        " ",
        "\x00",
        "é" * 2000,
        "\ud800",
        "-1",
        "9" * 400,
        "::",
        "1.2.3.4/99",
        "(" * 40,
    ),
    *("1-", "99999-0", "x" * 5000, "^" * 9, "[", "[^a]", "/a\nb", "a b", "!x", "eth+", "[0-9]{9}{9}", "((a{9}){9}){9}"),
]


def random_rules(random: Random, operators: list[dict]) -> list[dict]:
    found = []
    for number in random.sample(range(1000), random.randint(1, 9)):
        several = random.choices(operators, k=random.choice((1, 1, 2, 3)))
        whole = several[0] if len(several) == 1 else operator("list", kind="list") | {"list": several}
        if random.random() < 0.1:
            whole = operator("list", kind="list") | {"list": [operator("true"), whole]}
        found.append(
            rule(
                f"{random.choice(('a', 'B', 'é', '~', '0'))}{number}",
                whole,
                random.choice(("allow", "allow", "deny", "reject")),
                precedence=random.random() < 0.25,
                enabled=random.random() < 0.9,
            )
        )
    return found


def random_connection(random: Random) -> Connection:
    protocol = random.choice((6, 6, 6, 17, 17, 136, 132, 1, 58, 47, 33))
    ends = ENDS[random.choice((0, 0, 1))]
    ported = protocol in (6, 17, 136, 132, 33)
    flow = Flow(
        direction=Direction.OUT,
        protocol=protocol,
        source=parse_address(random.choice(ends)),
        destination=parse_address(random.choice(ends)),
        source_port=random.choice((0, 68, 546, 50000)) if ported else None,
        port=random.choice((0, 8, 22, 43, 53, 67, 80, 88, 443, 547, 853, 5353, 65535)) if ported else None,
        icmp_type=random.choice((0, 8, 128)) if protocol in (1, 58) else None,
        interface=random.choice(("eth0", "lo", "wg0", "wlan0")),
        app=random.choice(("/bin/a", "/bin/b", "/bin/ab", "/opt/x/run", "/opt/run", "/bxn/a", "/usr/bin/z")),
        users=frozenset({random.choice(("0", "1000", "10001"))}),
    )
    command = random.choice(("/bin/a", "/bin/a -x", ""))
    return Connection(flow, command, random.choice(("", "ads.example.com", "example.org")))


def test_model_sees_the_difference_that_the_order_makes():
    """The model itself, by hand: the last allow decides, a deny ends the search, precedence too."""
    connection = random_connection(Random(1))
    connection.flow = Flow(
        direction=Direction.OUT, protocol=6, source=bytes(4), destination=bytes(4), port=80, users=frozenset({"0"})
    )
    first, last, deny = rule("a", operator("true")), rule("c", operator("true")), rule("b", operator("true"), "deny")
    assert decide([first, last], connection, "ask") == ("allow", "c")
    assert decide([first, last, deny], connection, "ask") == ("deny", "b")
    assert decide([first | {"precedence": True}, deny], connection, "ask") == ("allow", "a")
    assert decide([], connection, "ask") == ("ask", None)


@pytest.mark.parametrize("seed", range(20))
def test_rules_that_are_kept_decide_the_same_by_the_same_rule(seed):
    random = Random(seed)
    for _ in range(5):
        rules = random_rules(random, EXACT)
        default = random.choice(("ask", "allow", "deny", "reject"))
        made = imported(*rules, default=default)
        policy = load(made.text)
        # A rule that never matched may be left out; nothing else happens to these.
        assert {each.outcome for each in made.outcomes} <= {KEPT, LEFT_OUT}
        rule_of = {name: each.rule for each in made.outcomes for name in each.written}
        for _ in range(25):
            connection = random_connection(random)
            verdict = decide_slowly(policy, connection.flow, NOW)
            ours = verdict.action, None if verdict.index is None else rule_of[verdict.rule]
            action, name = decide(rules, connection, default)
            assert ours == (OURS[action], name), (rules, connection.flow, made.text)


@pytest.mark.parametrize("seed", range(20))
def test_rules_that_are_not_kept_never_allow_more(seed):
    random = Random(seed)
    changed = 0
    for _ in range(5):
        rules = random_rules(random, EXACT + UNKEPT * 3)
        default = random.choice(("ask", "allow", "deny"))
        made = imported(*rules, default=default)
        changed += not made.is_exact
        policy = load(made.text)
        for _ in range(25):
            connection = random_connection(random)
            ours = decide_slowly(policy, connection.flow, NOW).action
            theirs = OURS[decide(rules, connection, default)[0]]
            assert STRICTNESS[ours] >= STRICTNESS[theirs], (rules, connection.flow, made.text)
    assert changed


@pytest.mark.parametrize("each", UNKEPT, ids=lambda each: f"{each['operand']} {each['data']}")
@pytest.mark.parametrize("action", ["allow", "deny"])
def test_each_condition_that_cannot_be_kept_alone_is_told_of(each, action):
    made = imported(rule("x", each, action))
    assert made.outcomes[0].outcome in ((LEFT_OUT, NARROWED) if action == "allow" else (STRICTER,))
    assert made.outcomes[0].why


@pytest.mark.parametrize("operand", ["process.id", "process.parent.path", "process.env.HOME", "process.hash.md5",
                                     "process.hash.sha1", "lists.domains", "something.new"])  # fmt: skip
def test_deny_without_its_condition_blocks_and_an_allow_is_left_out(operand):
    both = operator("list", kind="list") | {"list": [operator(operand, "1"), operator("dest.port", "25")]}
    made = imported(rule("a", both), rule("b", both, "deny"))
    assert [each.outcome for each in made.outcomes] == [LEFT_OUT, STRICTER]
    written = json.loads(made.text)["rules"][3:]
    assert [(each["action"], each["port"]) for each in written] == [("block", 25)]
    gone = imported(rule("b", both, "deny"), leave_out_denies=True)
    assert gone.outcomes[0].outcome == LEFT_OUT
    assert len(load(gone.text).rules) == 3


def test_deny_that_loses_its_only_condition_says_that_it_blocks_everything():
    made = imported(rule("ads", operator("dest.host", "ads.example.com"), "deny"))
    assert "EVERYTHING" in made.outcomes[0].why[-1]


def test_letters_of_both_cases_are_told_of():
    made = imported(rule("a", operator("process.path", "/bin/A", sensitive=False)),
                    rule("b", operator("process.path", "/42", sensitive=False), "deny"))  # fmt: skip
    assert [each.outcome for each in made.outcomes] == [NARROWED, KEPT]
    assert load(made.text).rules[-1].apps[0].path == "/bin/A"


def test_pattern_that_lower_case_changes_is_not_read():
    made = imported(rule("a", operator("process.path", r"^/opt/\Qx\E$", "regexp", sensitive=False)))
    assert made.outcomes[0].outcome == LEFT_OUT


def test_list_as_a_text_is_read_and_an_empty_one_matches_everything():
    text = json.dumps([operator("dest.port", "25"), operator("protocol", "tcp")])
    old = operator("list", text, "list") | {"list": []}
    empty = operator("list", "", "list") | {"list": []}
    made = imported(rule("a", old), rule("b", empty), rule("c", empty, "deny"))
    assert [each.outcome for each in made.outcomes] == [NARROWED, LEFT_OUT, STRICTER]
    written = {each.name: each for each in load(made.text).rules}
    assert written["a"].ports == ((25, 25),)
    assert written["c"].ports is None


@pytest.mark.parametrize("duration", ["once", "until restart", "12h", ""])
def test_rule_for_a_time_is_left_out_and_a_deny_blocks_for_good(duration):
    port = operator("dest.port", "25")
    made = imported(rule("a", port, duration=duration), rule("b", port, "deny", duration=duration))
    assert [each.outcome for each in made.outcomes] == [LEFT_OUT, STRICTER]


def test_lists_of_addresses_that_deny_become_block_lists():
    folders = {"/lists": ("/lists/bad one.txt", "/lists/worse.txt"), "/empty": ()}
    listed, more = operator("lists.nets", "/lists", "lists"), operator("dest.port", "25")
    made = imported(
        rule("deny", listed, "deny"),
        rule("allow", listed),
        rule("both", operator("list", kind="list") | {"list": [listed, more]}, "deny"),
        rule("none", operator("lists.ips", "/empty", "lists"), "deny"),
        rule("gone", operator("lists.ips", "/gone", "lists"), "deny"),
        folder=folders.get,
    )
    policy = load(made.text)
    assert [each.source for each in policy.blocklists] == list(folders["/lists"])
    assert {each.directions for each in policy.blocklists} == {frozenset({Direction.OUT})}
    outcomes = {each.rule: each.outcome for each in made.outcomes}
    assert outcomes == {"deny": STRICTER, "allow": LEFT_OUT, "both": STRICTER, "none": LEFT_OUT, "gone": STRICTER}


def test_of_two_rules_of_one_name_the_later_file_holds():
    made = imported(rule("x", operator("dest.port", "25")), rule("x", operator("dest.port", "80")))
    assert [each.outcome for each in made.outcomes] == [LEFT_OUT, KEPT]
    assert load(made.text).rules[-1].ports == ((80, 80),)


def test_names_are_made_fit_and_stay_apart():
    names = ["a\x1b[31m\n", "a [31m", "default", "base x", "", "n" * 500, "n" * 501, "loopback, the way in", "\u202e"]
    made = imported(*(rule(name, operator("dest.port", str(at + 1))) for at, name in enumerate(names)))
    written = [each.name for each in load(made.text).rules]
    assert len(written) == len(names) + 3
    assert all(name.isprintable() for name in written)


def test_description_and_date_become_the_note():
    more = {"description": "For\nme\x00", "created": "2025-04-09T23:21:35-06:00", "nolog": True}
    note = load(imported(rule("a", operator("dest.port", "25"), **more)).text).rules[-1].note
    assert note == r"For me\x00; made 2025-04-09; was not logged"
    assert imported(rule("a", operator("dest.port", "25"), created=1700000000)).is_exact


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b'{"name": 3}', b'{"operator": []}', b'{"operator": {"type": "list", "list": [3]}}',
     b'{"name": "\xff"', b'{"operator": {"data": {}}}'],
)  # fmt: skip
def test_what_is_no_rule_is_left_out(content):
    made = import_rules([RuleFile("x.json", content)], Settings())
    assert [each.outcome for each in made.outcomes] == [LEFT_OUT]
    assert len(load(made.text).rules) == 3


@pytest.mark.parametrize("content", [
    b'{"operator": ' * 100_000,
    json.dumps(rule("x", operator("list", kind="list") | {"list": [operator("true")] * 1001})).encode(),
])  # fmt: skip
def test_what_is_too_much_is_refused(content):
    with pytest.raises(TooMuchError):
        import_rules([RuleFile("x.json", content)], Settings())


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_members_hold_the_result_is_a_policy(seed):
    random = Random(seed)
    operands = [each["operand"] for each in EXACT + UNKEPT] + ["user.name", "lists.ips", "source.port", "list", ""]
    kinds = ["simple", "regexp", "network", "range", "lists", "list", "complex", ""]
    rules = [
        rule(
            random.choice(ODD) + str(number),
            operator(random.choice(operands), random.choice(ODD), random.choice(kinds), random.random() < 0.5),
            random.choice(["allow", "deny", "reject", "", "drop"]),
            description=random.choice(ODD),
        )
        for number in range(60)
    ]
    made = imported(*rules)
    assert len(made.outcomes) == len(rules)
    load(made.text)
