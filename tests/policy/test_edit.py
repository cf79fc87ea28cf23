"""Edits of a policy file's text: what is not touched stays byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.policy import PolicyError
from pfw.model.rule import App
from pfw.policy.convert import to_full
from pfw.policy.edit import NoRuleError, delete_rule, insert_rule
from pfw.policy.load import load

LAPTOP = (Path(__file__).parents[2] / "rules.json").read_text(encoding="utf-8")
RULE: dict[str, object] = {"name": "new", "action": "block", "remote": "203.0.113.7"}
WRITTEN = '{"name": "new", "action": "block", "remote": "203.0.113.7"}'

NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=12)
RULES = st.fixed_dictionaries(
    {"action": st.sampled_from(["allow", "block"])},
    optional={
        "from": st.sampled_from(["10.0.0.0/8", ["::1", "1.2.3.4"], "net"]),
        "port": st.one_of(st.integers(0, 65535), st.just([80, "ssh"])),
        "app": st.sampled_from(["/bin/a", {"path": "/bin/b", "sha256": "0" * 64}, ["/c/*", {"path": "/d"}]]),
        "log": st.booleans(),
        "note": st.text(st.characters(codec="utf-8", categories=("L", "N", "S")), max_size=90),
        "schedule": st.just({"days": ["mon"], "from": "09:00"}),
    },
)
LISTS = st.lists(st.tuples(NAMES, RULES), min_size=1, max_size=6, unique_by=lambda pair: pair[0]).map(
    lambda pairs: [{"name": name, **fields} for name, fields in pairs]
)
SPACES = ["", "", " ", "  ", "\n", "\n  ", "\r\n\t", "\n\n    ", " \n \t", "\r", "\r\n\r\n"]


def scatter(value: object, random: Random, ascii_only: bool) -> str:
    """JSON with any whitespace that may be in it."""

    def space() -> str:
        return random.choice(SPACES)

    if isinstance(value, dict):
        inner = ",".join(
            f"{space()}{json.dumps(key)}{space()}:{space()}{scatter(item, random, ascii_only)}{space()}"
            for key, item in value.items()
        )
        return "{" + inner + "}"
    if isinstance(value, list):
        inner = ",".join(f"{space()}{scatter(item, random, ascii_only)}{space()}" for item in value)
        return f"[{inner}]"
    return json.dumps(value, ensure_ascii=ascii_only)


@st.composite
def policies(draw: st.DrawFn) -> str:
    document = {"version": 2, "aliases": {"net": ["10.0.0.0/8"]}, "rules": draw(LISTS)}
    if draw(st.booleans()):
        document = dict(reversed(document.items()))
    layout = draw(st.sampled_from([{"indent": 2}, {"indent": "\t"}, {}, {"separators": (",", ":")}, None]))
    ascii_only = draw(st.booleans())
    if layout is None:
        text = scatter(document, Random(draw(st.integers(0, 2**32))), ascii_only)
    else:
        text = json.dumps(document, ensure_ascii=ascii_only, **layout)
    if draw(st.booleans()):
        text = text.replace("\r\n", "\n").replace("\n", "\r\n")
    return draw(st.sampled_from(["", "\n", " "])) + text + draw(st.sampled_from(["", "\n", "\r\n "]))


@settings(deadline=None, max_examples=300)
@given(policies(), LISTS, st.data())
def test_a_rule_goes_in_at_its_place_and_comes_out_without_a_trace(text, new, data) -> None:
    rules = load(text).rules
    place = data.draw(st.one_of(st.none(), st.integers(0, len(rules))))
    edited = insert_rule(text, new[0], place)
    index = len(rules) if place is None else place
    assert edited.index == index
    assert json.loads(edited.rule_text) == {**new[0], "name": edited.name}
    after = load(edited.text).rules
    assert after[:index] + after[index + 1 :] == rules
    assert after[index].name == edited.name
    begin = sum(len(line) + 1 for line in edited.text.split("\n")[: edited.line - 1])
    assert edited.text.index(edited.rule_text, begin) < len(edited.text)
    deleted = delete_rule(edited.text, edited.name)
    assert deleted.text == text
    assert (deleted.index, deleted.line, deleted.rule_text) == (index, edited.line, edited.rule_text)


@settings(deadline=None, max_examples=200)
@given(policies(), st.data())
def test_a_rule_that_goes_leaves_the_others_as_they_are(text, data) -> None:
    rules = load(text).rules
    index = data.draw(st.integers(0, len(rules) - 1))
    edited = delete_rule(text, rules[index].name)
    assert load(edited.text).rules == rules[:index] + rules[index + 1 :]
    assert json.loads(edited.rule_text)["name"] == rules[index].name
    assert text.endswith(edited.text[-1])


def test_one_rule_a_line_and_a_long_one_wrapped_like_its_neighbours() -> None:
    long = {**RULE, "name": "allow in tcp 22 from lan", "direction": "in", "note": "from home and from nowhere else"}
    edited = insert_rule(LAPTOP, long, 0)
    assert edited.line == 11
    assert edited.text.splitlines()[9:14] == [
        '  "rules": [',
        '    {"name": "allow in tcp 22 from lan", "action": "block", "remote": "203.0.113.7", "direction": "in",',
        '     "note": "from home and from nowhere else"},',
        '    {"name": "ssh from the lan", "action": "allow", "direction": "in", "from": "lan", "protocol": "tcp", '
        '"port": "ssh",',
        '     "limit": "6/minute", "log": true},',
    ]
    last = insert_rule(LAPTOP, RULE, None)
    assert last.text.splitlines()[-4:] == [
        '     "note": "Mail programs use port 465 or 587; port 25 is what spam bots use"},',
        f"    {WRITTEN}",
        "  ]",
        "}",
    ]


def test_a_program_with_its_hash_stands_on_one_line() -> None:
    program = {"path": "/usr/bin/python3", "sha256": "0" * 64}
    rule = {"name": "backup", "action": "allow", "direction": "out", "app": program, "script": "/usr/local/bin/backup"}
    edited = insert_rule(LAPTOP, rule, 0)
    assert edited.text.splitlines()[10:13] == [
        '    {"name": "backup", "action": "allow", "direction": "out",',
        f'     "app": {json.dumps(program)},',
        '     "script": "/usr/local/bin/backup"},',
    ]
    assert load(edited.text).rules[0].apps == (App("/usr/bin/python3", "0" * 64),)


HEAD = '{\n  "version": 2,\n  "rules": '


@pytest.mark.parametrize(
    ("rules", "place", "expected"),
    [
        ("[]", None, f"[\n    {WRITTEN}\n  ]"),
        ("[\n\n  ]", 0, f"[\n    {WRITTEN}\n  ]"),
        ('[{"name": "a"}]', 0, f'[{WRITTEN}, {{"name": "a"}}]'),
        ('[{"name": "a"}]', 1, f'[{{"name": "a"}}, {WRITTEN}]'),
        ('[\n    {"name": "a"}\n  ]', 0, f'[\n    {WRITTEN},\n    {{"name": "a"}}\n  ]'),
        ('[\n    {"name": "a"}\n  ]', 1, f'[\n    {{"name": "a"}},\n    {WRITTEN}\n  ]'),
        ('[{"name":"a","x":1}]', 0, '[{"name":"new","action":"block","remote":"203.0.113.7"},{"name":"a","x":1}]'),
        (
            '[\n    { "name": "a" }\n  , { "name": "b" }\n  ]', 1,
            '[\n    { "name": "a" }\n  , { "name": "new", "action": "block", "remote": "203.0.113.7" }\n'
            '  , { "name": "b" }\n  ]',
        ),
        (
            '[\n    {"name": "a"},\n\n    {"name": "b"}\n  ]', 1,
            f'[\n    {{"name": "a"}},\n\n    {WRITTEN},\n    {{"name": "b"}}\n  ]',
        ),
        (
            '[\n    {\n      "name": "a",\n      "action": "allow"\n    }\n  ]', 1,
            '[\n    {\n      "name": "a",\n      "action": "allow"\n    },\n    {\n      "name": "new",\n'
            '      "action": "block",\n      "remote": "203.0.113.7"\n    }\n  ]',
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_layout_around_is_imitated(rules, place, expected, newline) -> None:
    text = f"{HEAD}{rules}\n}}".replace("\n", newline)
    edited = insert_rule(text, RULE, place)
    assert edited.text == f"{HEAD}{expected}\n}}".replace("\n", newline)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"version": 2}', f'{{"version": 2, "rules": [{WRITTEN}]}}'),
        (
            '{"version":2,"note":"x"}\n',
            '{"version":2,"note":"x","rules":[{"name":"new","action":"block","remote":"203.0.113.7"}]}\n',
        ),
        ('{\n\t"version": 2\n}\n', f'{{\n\t"version": 2,\n\t"rules": [\n\t\t{WRITTEN}\n\t]\n}}\n'),
        ('{"rules": [], "version": 2}', f'{{"rules": [{WRITTEN}], "version": 2}}'),
    ],
)
def test_the_first_rule_of_a_file(text, expected) -> None:
    edited = insert_rule(text, RULE, None)
    assert edited.text == expected
    assert edited.rule_text in edited.text.splitlines()[edited.line - 1]
    assert [rule.name for rule in load(edited.text).rules] == ["new"]
    assert load(delete_rule(edited.text, "new").text).rules == ()


def test_among_rules_in_one_line_no_line_is_broken() -> None:
    text = json.dumps({"version": 2, "rules": [{"name": "a", "action": "allow", "note": "x" * 200}]})
    assert "\n" not in insert_rule(text, {**RULE, "note": "y" * 200}, 0).text


def test_a_long_neighbour_that_is_broken_up_is_not_imitated_where_the_other_is_not() -> None:
    lists = {"block": {"ip": [f"10.0.0.{number}" for number in range(99)], "port": [1]}, "aliases": {"a": ["::1"]}}
    sources = [{"name": "drop", "source": "/etc/drop"}]
    full = to_full(json.dumps({"$schema": "./x", "note": "mine", **lists, "blocklists": sources}))
    edited = insert_rule(full, RULE, 1)
    assert f"\n    {WRITTEN}," in edited.text
    assert json.loads(edited.text)["aliases"] == {"a": ["::1"]}
    assert list(json.loads(edited.text)) == ["$schema", "version", "note", "aliases", "blocklists", "default", "rules"]
    assert json.loads(edited.text)["blocklists"] == sources


def test_a_name_that_is_taken_gets_a_number() -> None:
    text = '{"version": 2, "rules": []}'
    for name in ("new", "new 2", "new 3"):
        edited = insert_rule(text, RULE, None)
        assert edited.name == name
        text = edited.text
    long = insert_rule(insert_rule(text, {**RULE, "name": "x" * 128}, None).text, {**RULE, "name": "x" * 128}, None)
    assert long.name == "x" * 126 + " 2"
    load(long.text)


def test_bytes_are_taken_too() -> None:
    assert insert_rule(LAPTOP.encode(), RULE, 0) == insert_rule(LAPTOP, RULE, 0)


def test_of_a_rule_that_is_not_there_the_near_names_are_told() -> None:
    with pytest.raises(NoRuleError, match=r'^there is no rule "pong"; did you mean "ping"\?$') as caught:
        delete_rule(LAPTOP, "pong")
    assert caught.value.near == ["ping"]
    with pytest.raises(LookupError, match=r'^there is no rule ""$'):
        delete_rule(LAPTOP, "")


def test_lists_have_no_rules() -> None:
    text = '{"block": {"ip": ["1.2.3.4"]},\n "allow": {"port": [22]}}'
    with pytest.raises(ValueError, match="has lists and no rules; make rules of it first"):
        insert_rule(text, RULE, None)
    with pytest.raises(ValueError, match=r"take the entry out of its list \(line 2\), or make rules"):
        delete_rule(text, "allow port")


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"mine\.json:1:1: is empty"):
        insert_rule("", RULE, None, "mine.json")
    with pytest.raises(ValueError, match="not a list"):
        delete_rule("[]", "x")
    with pytest.raises(ValueError, match='"rules" must be a list of rules, not a number'):
        insert_rule('{"rules": 5}', RULE, 0)
    with pytest.raises(ValueError, match="there is no place 7 among 6 rules"):
        insert_rule(LAPTOP, RULE, 7)
    with pytest.raises(ValueError, match="a rule needs a name"):
        insert_rule(LAPTOP, {"action": "allow"}, 0)
