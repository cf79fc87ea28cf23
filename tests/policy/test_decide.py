"""The fast matcher against its slow twin, and what it costs."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from itertools import product
from random import Random
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.address import ALL_RANGES, IPV4_LAST, IPV6_FIRST, IPV6_LAST, AddressSet, from_int
from pfw.model.flow import Direction, Flow, Moment
from pfw.model.policy import Base, Policy
from pfw.model.rule import App, Expiry, Limit, Rule, Schedule
from pfw.model.verdict import Action
from pfw.policy.decide import Decider
from pfw.policy.index import LineBuilder, Members, Names, Programs, vector
from pfw.policy.match import decide_slowly

# A few places where everything happens, so that borders meet and nest.
POINTS = [0, 1, 10 << 24, (10 << 24) + 256, 127 << 24 | 1, 0xC0A80105, IPV4_LAST]
POINTS += [IPV6_FIRST, IPV6_FIRST + 1, IPV6_FIRST | 0xFE80 << 112, IPV6_FIRST | 0x20010DB8 << 96, IPV6_LAST]
PORTS = [0, 1, 22, 67, 68, 79, 80, 81, 546, 547, 1000, 65535]
PROTOCOLS = [1, 6, 17, 47, 58, 132]
INTERFACES = ["lo", "eth0", "eth1", "e", "wlan0"]
APPS = ["/bin/a", "/bin/ab", "/usr/bin/b", ""]
HASHES = ["a" * 64, "b" * 64]
SCRIPTS = ["/s/one", "/s/two"]
USERS = ["alice", "1000", "group:wheel", "bob"]
UNITS = ["a.service", "b.service"]
WEEK = 7 * 86400.0
TIMES = [0.0, 59.999, 60.0, 3 * 1440 * 60.0, 4 * 86400.0, 4 * 86400.0 - 0.5, WEEK, 1_800_000_000.0, 1_800_000_000.5]


def _maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(st.none(), st.none(), strategy)


@st.composite
def _ranges(draw: st.DrawFn) -> tuple[int, int]:
    first = draw(st.sampled_from(POINTS))
    first, last = ALL_RANGES[first >= IPV6_FIRST] if draw(st.integers(0, 9)) == 0 else (first, first)
    bits = draw(st.sampled_from([0, 0, 1, 8, 16, 24]))
    if draw(st.booleans()):  # a prefix around the point, else a range that begins there
        first = first >> bits << bits
    return first, min(max(last, first + (1 << bits) - 1), IPV4_LAST if first <= IPV4_LAST else IPV6_LAST)


def _address_sets() -> st.SearchStrategy:
    included = st.lists(_ranges(), max_size=4).map(AddressSet)
    return st.builds(AddressSet.without, included, st.lists(_ranges(), max_size=1).map(AddressSet))


def _spans(values: list[int]) -> st.SearchStrategy:
    return st.tuples(st.sampled_from(values), st.sampled_from(values)).map(lambda pair: (min(pair), max(pair)))


def _windows() -> st.SearchStrategy:
    borders = st.lists(st.sampled_from([0, 1, 540, 1440, 4320, 4321, 10079, 10080]), unique=True, max_size=6)
    return borders.map(sorted).map(lambda found: tuple(zip(found[::2], found[1::2], strict=False)))


def _names(values: list[str]) -> st.SearchStrategy:
    patterns = values + [value[: len(value) // 2 + 1] + "*" for value in values] + ["*"]
    return st.lists(st.sampled_from(patterns), max_size=3).map(tuple)


def _apps() -> st.SearchStrategy:
    patterns = st.sampled_from([*APPS[:3], "/bin/*", "/usr/*", "/*"]).map(App)
    files = st.builds(App, st.sampled_from(APPS[:3]), st.sampled_from(HASHES))
    return st.lists(st.one_of(patterns, files), max_size=3).map(tuple)


CONDITIONS = {
    "source": _address_sets(),
    "destination": _address_sets(),
    "remote": _address_sets(),
    "protocols": st.sets(st.sampled_from(PROTOCOLS)).map(frozenset),
    "source_ports": st.lists(_spans(PORTS), max_size=3).map(tuple),
    "ports": st.lists(_spans(PORTS), max_size=3).map(tuple),
    "icmp_types": st.sets(st.tuples(st.sampled_from([1, 58]), st.sampled_from([8, 133]))).map(frozenset),
    "interfaces": _names(INTERFACES),
    "apps": _apps(),
    "scripts": st.lists(st.sampled_from(SCRIPTS), max_size=2).map(tuple),
    "users": st.lists(st.sampled_from(USERS), max_size=2).map(tuple),
    "units": st.lists(st.sampled_from(UNITS), max_size=2).map(tuple),
    "schedule": st.builds(Schedule, windows=_windows(), text=st.just("then")),
    "limit": st.just(Limit(6, 60, 5)),
    "expires": st.builds(Expiry, time=st.sampled_from(TIMES), local=st.booleans(), text=st.just("then")),
}

RULES = st.builds(
    Rule,
    name=st.sampled_from(["a", "b", 'c "quoted"']),
    action=st.sampled_from([Action.ALLOW, Action.BLOCK, Action.REJECT, Action.ASK]),
    directions=st.sets(st.sampled_from(list(Direction)), min_size=1).map(frozenset),
    log=st.booleans(),
    enabled=st.sampled_from([True, True, True, False]),
    **{field: _maybe(condition) for field, condition in CONDITIONS.items()},
)


def _packed() -> st.SearchStrategy:
    near = st.tuples(st.sampled_from(POINTS), st.sampled_from([-257, -256, -1, 0, 0, 0, 1, 255, 256])).map(sum)
    return near.filter(lambda value: 0 <= value <= IPV4_LAST or IPV6_FIRST <= value <= IPV6_LAST).map(from_int)


FLOWS = st.builds(
    Flow,
    direction=st.sampled_from(list(Direction)),
    protocol=st.sampled_from([*PROTOCOLS, 6, 17, 253]),
    source=st.one_of(_packed(), _packed(), st.just(b"")),
    destination=st.one_of(_packed(), _packed(), st.just(b"")),
    source_port=st.sampled_from([*PORTS, None]),
    port=st.sampled_from([*PORTS, None]),
    icmp_type=st.sampled_from([8, 133, 0, None]),
    interface=st.sampled_from([*INTERFACES, None, None, "eth", "tun0", ""]),
    app=st.sampled_from([*APPS, None, None, "/bin", "/bin/abc"]),
    app_sha256=st.sampled_from([*HASHES, None, None, "c" * 64]),
    script=st.sampled_from([*SCRIPTS, None, None, "", "/s/three"]),
    users=_maybe(st.sets(st.sampled_from(USERS)).map(frozenset)),
    unit=st.sampled_from([*UNITS, None, None, "c.service"]),
)

MOMENTS = st.builds(Moment, time=st.sampled_from(TIMES), utc_offset_s=st.sampled_from([0, 3600, -60, 60, -WEEK // 7]))

POLICIES = st.builds(
    Policy,
    rules=st.lists(RULES, max_size=9).map(tuple),
    defaults=st.fixed_dictionaries({each: st.sampled_from([Action.ALLOW, Action.BLOCK]) for each in Direction}),
    base=st.builds(Base, loopback=st.booleans(), neighbour_discovery=st.booleans(), dhcp_client=st.booleans()),
)


class Recorder:
    """Answers whether a limit is reached, the same each time it is made anew, and keeps the questions."""

    def __init__(self, over: int) -> None:
        self._over = over
        self.asked: list[int] = []

    def __call__(self, index: int) -> bool:
        self.asked.append(index)
        return bool(self._over >> index % 8 & 1)


@settings(deadline=None, max_examples=300)
@given(POLICIES, st.lists(st.tuples(FLOWS, MOMENTS), min_size=1, max_size=8), st.integers(0, 255))
def test_it_gives_the_verdicts_of_the_slow_matcher(policy, questions, over):
    decider = Decider(policy)
    for flow, moment in questions * 2:  # the second time from what was remembered
        assert decider.decide(flow, moment) == decide_slowly(policy, flow, moment)
        fast, slow = Recorder(over), Recorder(over)
        assert decider.decide(flow, moment, fast) == decide_slowly(policy, flow, moment, slow)
        assert fast.asked == slow.asked


@pytest.mark.parametrize("field", CONDITIONS)
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_each_condition_alone(field, data):
    """Where nothing else decides, a border that is off by one shows."""
    rules = tuple(
        Rule(name=action.value, action=action, directions=frozenset(Direction), **{field: data.draw(CONDITIONS[field])})
        for action in (Action.ALLOW, Action.REJECT)
    )
    policy = Policy(rules=rules, defaults=dict.fromkeys(Direction, Action.BLOCK))
    decider = Decider(policy)
    for flow, moment in data.draw(st.lists(st.tuples(FLOWS, MOMENTS), min_size=5, max_size=9)):
        assert decider.decide(flow, moment) == decide_slowly(policy, flow, moment)


def _random_rule(random: Random, number: int) -> Rule:
    """A rule that is rather exact, so that among hundreds the end is seldom near the beginning."""

    def addresses() -> AddressSet | None:
        if random.random() < 0.4:
            return None
        ranges = []
        for _ in range(random.choice((1, 1, 2, 30))):
            bits = random.choice((0, 4, 8, 12))
            first = random.choice((10 << 24, IPV6_FIRST | 0xFE80 << 112)) + random.getrandbits(16) >> bits << bits
            ranges.append((first, first + (1 << bits) - 1))
        return AddressSet(ranges)

    port = random.randrange(40)
    return Rule(
        name=f"rule {number}",
        action=random.choice((Action.ALLOW, Action.BLOCK)),
        directions=frozenset(random.sample(list(Direction), random.randrange(1, 4))),
        source=addresses(),
        destination=addresses(),
        protocols=random.choice((None, frozenset((6,)), frozenset((6, 17)))),
        ports=random.choice((None, ((port, port),), ((port, port + 9),))),
        source_ports=random.choice((None, None, None, ((port, 65535),))),
        interfaces=random.choice((None, None, ("eth0",), ("eth*", "wlan1"))),
        apps=random.choice((None, None, None, None, (App("/bin/a"),))),
        limit=random.choice((None, None, None, Limit(1, 1, 1))),
    )


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32))
def test_hundreds_of_rules(seed):
    random = Random(seed)
    rules = tuple(_random_rule(random, number) for number in range(300))
    policy = Policy(rules=rules, defaults=dict.fromkeys(Direction, Action.BLOCK))
    decider = Decider(policy)
    for direction, protocol, app in product(Direction, (6, 17, 1), (None, "/bin/a", "/bin/b")):
        base = random.choice((10 << 24, IPV6_FIRST | 0xFE80 << 112))
        flow = Flow(
            direction=direction,
            protocol=protocol,
            source=from_int(base + random.getrandbits(16)),
            destination=from_int(base + random.getrandbits(16)),
            source_port=random.choice((None, 5, 50000)),
            port=random.randrange(50),
            interface=random.choice(("eth0", "wlan0", None)),
            app=app,
        )
        fast, slow = Recorder(0x55), Recorder(0x55)
        assert decider.decide(flow, Moment(0.0), fast) == decide_slowly(policy, flow, Moment(0.0), slow)
        assert fast.asked == slow.asked


def test_the_policy_can_be_asked_for(make_policy):
    policy = make_policy()
    assert Decider(policy).policy is policy


def test_a_reason_made_for_loopback_is_not_used_for_another_connection(make_rule, make_flow, make_policy):
    policy = make_policy(make_rule(interfaces=("lo*",), apps=("/bin/a",)))
    decider = Decider(policy)
    for addresses in ({"source": "127.0.0.1", "destination": "127.0.0.1"}, {}):
        flow = make_flow(interface=None, **addresses)
        assert decider.decide(flow, Moment(0.0)) == decide_slowly(policy, flow, Moment(0.0))


def test_an_expiry_is_exact_to_the_second_whatever_was_asked_before(make_rule, make_flow, make_policy):
    decider = Decider(make_policy(make_rule(expires=Expiry(1000.5, False, "t"))))
    times = (1000.0, 1000.49, 1000.5, 2000.0, 1000.0)
    assert [decider.decide(make_flow(), Moment(time)).rule for time in times] == [
        "the rule", "the rule", None, None, "the rule",
    ]  # fmt: skip


def test_names_are_remembered_in_bounds():
    names = Names(1, [(2, ("eth*", "lo")), (4, ("e*",))])
    for number in range(5000):
        assert names.at(f"eth{number}") == 7
    assert (names.at("lo"), names.at("e"), names.at("x"), names.at("")) == (3, 5, 1, 1)
    assert len(names._remembered) <= 1024
    members = Members(0, [(1, ("a", "b")), (2, ("b",))])
    for number in range(5000):
        assert members.at(frozenset(("b", str(number)))) == 3
    assert len(members._remembered) <= 1024


def test_a_program_is_looked_up_by_path_and_by_what_its_file_holds():
    hashed = App("/bin/a", HASHES[0])
    programs = Programs(1, [(2, (App("/bin/a"),)), (4, (hashed,)), (8, (hashed, App("/bin/*"))), (16, (App("/x"),))])
    assert programs.at("/bin/a", None) == (15, 4)
    assert programs.at("/bin/a", HASHES[0]) == (15, 0)
    assert programs.at("/bin/a", HASHES[1]) == (11, 0)
    assert programs.at("/bin/b", None) == (9, 0)
    assert programs.at("", HASHES[0]) == programs.at("", None) == (1, 0)


def test_a_reason_made_for_one_program_is_not_used_for_another(make_rule, make_flow, make_policy):
    """Both rest on the script, and on the hash only where the path is that of the file."""
    policy = make_policy(make_rule(apps=(App("/bin/a", HASHES[0]), "/bin/b"), scripts=("/s/one",)))
    decider = Decider(policy)
    flows = [make_flow(app=app) for app in ("/bin/a", "/bin/b", "/bin/a")]
    verdicts = [decider.decide(flow, Moment(0.0)) for flow in flows]
    assert verdicts == [decide_slowly(policy, flow, Moment(0.0)) for flow in flows]
    assert verdicts[0].reason != verdicts[1].reason


def test_unsure_verdicts_are_kept_in_bounds(make_rule, make_flow, make_policy):
    rules = [make_rule(ports=((port, port),), apps=("/bin/a",)) for port in range(3000)]
    decider = Decider(make_policy(*rules))
    for port in range(3000):
        assert decider.decide(make_flow(port=port), Moment(0.0)).index == port
    assert len(decider._unsure) <= 1024


def test_a_line_flips_bits_at_borders():
    builder = LineBuilder()
    builder.add(1, [10, 20])
    builder.add(2, [15, 20, 30, 40])
    line = builder.build(4)
    assert line.starts == [10, 15, 20, 30, 40]
    assert line.vectors == [4, 5, 7, 4, 6, 4]
    assert line.vectors[0] is line.vectors[3]


def test_a_line_of_one_rule():
    builder = LineBuilder()
    builder.add(2, [30, 10, 40, 20])
    line = builder.build(5)
    assert (line.starts, line.vectors) == ([10, 20, 30, 40], [5, 7, 5, 7, 5])


def test_vector_of_nothing():
    assert vector([]) == 0
    assert vector([1, 0, 1]) == 5


def _distinct_rules(count: int) -> list[Rule]:
    random = Random(7)
    return [
        Rule(
            name=f"rule {number}",
            action=Action.BLOCK if number % 2 else Action.ALLOW,
            directions=frozenset((Direction.IN, Direction.OUT)),
            remote=AddressSet([(random.getrandbits(32),) * 2]),
            protocols=frozenset((6,)),
            ports=((number % 65536, number % 65536),),
        )
        for number in range(count)
    ]


def _steps(decider: Decider, flows: list[Flow]) -> int:
    """How many instructions of the interpreter the verdicts take: the same on every machine at any time."""
    steps = 0

    def count(frame: FrameType, event: str, _: object) -> Callable[..., object]:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return count

    for flow in flows:
        decider.decide(flow, Moment(0.0))
    before = sys.gettrace()
    sys.settrace(count)
    try:
        for flow in flows:
            decider.decide(flow, Moment(0.0))
    finally:
        sys.settrace(before)
    return steps


@pytest.fixture
def some_flows(make_flow):
    random = Random(3)
    return [make_flow(source=f"198.51.100.{random.randrange(256)}", port=random.randrange(20000)) for _ in range(200)]


def test_a_thousand_times_the_rules_cost_hardly_more(make_policy, some_flows):
    few = _steps(Decider(make_policy(*_distinct_rules(10), base=Base())), some_flows)
    many = _steps(Decider(make_policy(*_distinct_rules(10_000), base=Base())), some_flows)
    assert 0 < many < 1.5 * few


def test_a_long_list_costs_no_more_than_a_short_one(make_rule, make_policy, some_flows):
    def listed(count: int) -> Decider:
        prefixes = AddressSet([(number << 9, (number << 9) + 255) for number in range(count)])
        rule = Rule(name="list", action=Action.BLOCK, directions=frozenset(Direction), remote=prefixes)
        return Decider(make_policy(rule))

    short, long = listed(10), listed(100_000)
    assert 0 < _steps(long, some_flows) <= _steps(short, some_flows)


def test_ten_thousand_rules_take_bounded_memory(make_policy):
    policy = make_policy(*_distinct_rules(10_000))
    tracemalloc.start()
    try:
        decider = Decider(policy)
        used_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decider.policy is policy
    assert used_bytes < 40e6


def test_a_long_list_behind_many_rules_shares_its_vectors(make_policy):
    prefixes = AddressSet([(number << 9, (number << 9) + 255) for number in range(20_000)])
    last = Rule(name="list", action=Action.BLOCK, directions=frozenset((Direction.IN,)), source=prefixes)
    policy = make_policy(*_distinct_rules(5000), last)
    tracemalloc.start()
    try:
        Decider(policy)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 60e6
