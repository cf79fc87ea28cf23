"""Rules that can match one connection, against connections."""

from __future__ import annotations

import json
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.address import parse_address
from pfw.model.flow import Direction, Flow, Moment
from pfw.policy.load import load
from pfw.policy.match import Answer, answer
from pfw.policy.overlap import overlap

NOW = Moment(0.0)
ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "::1"]
SETS = st.lists(st.sampled_from(ADDRESSES), min_size=1, unique=True)
PORTS = st.lists(st.sampled_from([1, 3, 5]), min_size=1, unique=True)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "direction": st.sampled_from(["in", "out", "forward"]),
        "from": SETS,
        "to": SETS,
        "protocol": st.sampled_from(["tcp", "udp", ["tcp", "udp"]]),
        "port": PORTS,
        "enabled": st.booleans(),
    },
)
CONNECTIONS = [
    Flow(
        direction=direction,
        protocol=protocol,
        source=parse_address(source),
        destination=parse_address(destination),
        source_port=5,
        port=port,
    )
    for direction, protocol, source, destination, port in product(Direction, (6, 17), ADDRESSES, ADDRESSES, (1, 3, 5))
]


@settings(deadline=None)
@given(RULES, RULES)
def test_rules_overlap_where_some_connection_matches_both(one, other) -> None:
    named = [{"name": name, "action": "allow", **fields} for name, fields in (("a", one), ("b", other))]
    a, b = load(json.dumps({"version": 2, "rules": named})).rules
    both = any(answer(a, flow, NOW)[0] is answer(b, flow, NOW)[0] is Answer.YES for flow in CONNECTIONS)
    assert overlap(a, b) is overlap(b, a) is both


def test_the_other_end_is_the_source_or_the_destination(make_rule) -> None:
    inward, outward = frozenset({Direction.IN}), frozenset({Direction.OUT})
    remote = make_rule(remote="10.0.0.0/8")
    assert overlap(remote, make_rule(source="10.0.0.1", directions=inward))
    assert not overlap(remote, make_rule(source="192.0.2.1", directions=inward))
    assert overlap(remote, make_rule(source="192.0.2.1", directions=outward))
    assert not overlap(remote, make_rule(destination="192.0.2.1", directions=outward))
