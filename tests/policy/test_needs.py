"""What a program needs, as a rule: bounds, ports in a row, names."""

from __future__ import annotations

import pytest

from pfw.model.flow import Direction
from pfw.policy.needs import ENDS_MAX, Need, new_need, written
from pfw.policy.values import read_name

from .histories import make_group

OUT = Direction.OUT


def need(*remotes: str, program: str | None = "/usr/bin/a", port: int = 443, protocol: int = 6, **fields) -> Need:
    made = new_need((program, OUT, protocol, None, port if program is None else None))
    for remote in remotes or ("203.0.113.9",):
        made.add(make_group(remote, program=program, port=port, protocol=protocol, **fields))
    return made


def test_what_is_kept_of_the_other_ends_is_bounded():
    made = need(*(f"10.{a}.{b}.1" for a in range(40) for b in range(40)))
    assert len(made.far_ends.addresses) == len(made.far_ends.networks) == ENDS_MAX + 1
    assert written([made], lambda port: None, ())[0].rule["to"] == "private"


def test_ends_of_both_protocols_are_put_together():
    both = [need("8.8.8.8"), need("1.1.1.1", "9.9.9.9", protocol=17)]
    (rule,) = written(both, lambda port: None, ())
    assert rule.rule["to"] == ["1.1.1.1", "8.8.8.8", "9.9.9.9"]
    (rule,) = written([*both[:1], need("1.1.1.1", "9.9.9.9", "7.7.7.7", protocol=17)], lambda port: None, ())
    assert "to" not in rule.rule


def test_ports_without_a_program_go_together_only_where_the_ends_are_the_same():
    needs = [need(program=None, port=1), need(program=None, port=3), need("8.8.8.8", program=None, port=2)]
    found = written(needs, lambda port: None, ())
    assert {(each.rule["to"], repr(each.rule["port"])) for each in found} == {
        ("203.0.113.9", "[1, 3]"),
        ("8.8.8.8", "2"),
    }
    assert sum(len(each.keys) for each in found) == 3


@pytest.mark.parametrize(
    ("program", "port", "name"),
    [
        ("/usr/bin/a", 443, "a: web"),
        ("/usr/bin/a", 22, "a: ssh"),
        ("/usr/bin/a", 7777, "a: tcp 7777"),
        ("/opt/base camp", 53, "(base camp): dns"),
        (f"/opt/{'y' * 200}", 53, f"{'y' * 122}…: dns"),
        (None, 123, "any program: ntp"),
    ],
)
def test_names_are_names_of_rules(program, port, name):
    (rule,) = written([need(program=program, port=port)], {22: "ssh", 123: "ntp"}.get, ())
    assert rule.rule["name"] == name
    assert read_name(name) == name
