"""The field `blocklists`: what it loads to, in both forms, and every fault of it with its place."""

from __future__ import annotations

import json

import pytest

from pfw.model.flow import Direction
from pfw.model.policy import Blocklist, Policy, PolicyError, public_source
from pfw.policy.blocklists import FIELDS, MAX_LISTS, MAX_NAME
from pfw.policy.convert import to_full
from pfw.policy.load import load
from pfw.policy.schema import schema

IN, OUT = frozenset({Direction.IN}), frozenset({Direction.OUT})


def loaded(*lists: object, **beside: object) -> Policy:
    return load(json.dumps({**beside, "blocklists": list(lists)}))


def one(**fields: object) -> Blocklist:
    return loaded({"name": "drop", "source": "/etc/drop.txt", **fields}).blocklists[0]


def faults(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load(text)
    return [str(fault).removeprefix("rules.json:") for fault in caught.value.faults]


def fault_of(**fields: object) -> str:
    """The one fault of a list with these fields, from the field on."""
    found = faults(json.dumps({"blocklists": [{"name": "drop", "source": "/etc/drop.txt", **fields}]}))
    assert len(found) == 1, found
    return found[0].split(": ", 1)[1].removeprefix("blocklists[0].")


def test_all_fields() -> None:
    written = {
        "name": "Fire_HOL.1-a",
        "source": "https://user:secret@lists.example:8443/level1.netset?key=1",
        "refresh": "12h",
        "direction": "in",
        "enabled": False,
        "note": "n",
    }
    assert loaded(written).blocklists == (
        Blocklist(
            name="Fire_HOL.1-a",
            source="https://user:secret@lists.example:8443/level1.netset?key=1",
            refresh_s=43200,
            directions=IN,
            enabled=False,
            note="n",
        ),
    )


def test_what_is_left_out() -> None:
    assert one() == Blocklist(
        name="drop", source="/etc/drop.txt", refresh_s=86400, directions=IN | OUT, enabled=True, note=""
    )
    assert one() == Blocklist(name="drop", source="/etc/drop.txt")


@pytest.mark.parametrize("beside", [{}, {"version": 2}, {"version": 2, "rules": []}, {"block": {"ip": ["10.0.0.1"]}}])
def test_it_is_of_both_forms_and_in_the_order_of_the_file(beside) -> None:
    names = ["b", "a", "c"]
    policy = loaded(*({"name": name, "source": f"/l/{name}"} for name in names), **beside)
    assert [each.name for each in policy.blocklists] == names
    assert policy.simple is ("version" not in beside)
    assert load(json.dumps(beside)).blocklists == ()


def test_the_full_form_of_lists_keeps_it() -> None:
    text = json.dumps({"allow": {"port": 22}, "blocklists": [{"name": "x", "source": "/x", "refresh": "30m"}]})
    full = to_full(text)
    assert '"blocklists": [{"name": "x", "source": "/x", "refresh": "30m"}]' in full
    assert load(full).blocklists == load(text).blocklists
    assert not load(full).simple


@pytest.mark.parametrize(
    ("text", "seconds"), [("10m", 600), ("30m", 1800), ("12h", 43200), ("7d", 604800), ("90d", 7776000)]
)
def test_refresh(text, seconds) -> None:
    assert one(refresh=text).refresh_s == seconds


@pytest.mark.parametrize(("word", "directions"), [("in", IN), ("out", OUT), ("both", IN | OUT)])
def test_direction(word, directions) -> None:
    assert one(direction=word).directions == directions


@pytest.mark.parametrize("name", ["a", "7", "drop.v6", "A-b_c.d", "x" * MAX_NAME])
def test_names(name) -> None:
    assert one(name=name).name == name


@pytest.mark.parametrize(
    "source",
    [
        "/x",
        "/etc/pfw/a list.txt",
        "http://10.0.0.1/x",
        "https://[2001:db8::1]:8443/x",
        "HTTPS://Lists.Example./a@b?c#d",
        "https://lists.example",
        "https://u:p%40@lists.example/x",
    ],
)
def test_sources(source) -> None:
    assert one(source=source).source == source
    assert one(source=source).is_file is source.startswith("/")


NO_NAME = (
    "is no name for a block list; it begins with a letter or digit (a-z, 0-9) and has letters, digits, _ - and . only"
)
NO_URL = "is not a URL; behind {}:// come the name of a host and what is asked of it, in ASCII"


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"name": "../x"}, f'name: "../x" {NO_NAME}'),
        ({"name": ".x"}, f'name: ".x" {NO_NAME}'),
        ({"name": "a/b"}, f'name: "a/b" {NO_NAME}'),
        ({"name": "a b"}, f'name: "a b" {NO_NAME}'),
        ({"name": "für"}, f'name: "für" {NO_NAME}'),
        ({"name": ""}, "name: must not be empty"),
        ({"name": 7}, "name: must be a text, not a number"),
        ({"name": "x" * 49}, f'name: "{"x" * 49}" is longer than 48 characters'),
        ({"source": "drop.txt"}, "source: is neither the absolute path of a file nor a URL; a URL begins with https:// "
                                 "or http://"),
        ({"source": "/a/../b"}, 'source: "/a/../b" is not a plain path; take out //, . and ..'),
        ({"source": "/a//b"}, 'source: "/a//b" is not a plain path; take out //, . and ..'),
        ({"source": "/a/"}, 'source: "/a/" is a folder; a block list is one file'),
        ({"source": "/"}, 'source: "/" is a folder; a block list is one file'),
        ({"source": "file:///etc/x"}, "source: is a URL of a file; write its path alone, as in /etc/pfw/addresses.txt"),
        ({"source": "ftp://h/x"}, 'source: begins with "ftp://"; lists are read from https://, http:// or a file'),
        ({"source": "https://"}, "source: " + NO_URL.format("https")),
        ({"source": "https:/h/x"}, "source: " + NO_URL.format("https")),
        ({"source": "http://h:99999/"}, "source: " + NO_URL.format("http")),
        ({"source": "http://h:0/"}, "source: " + NO_URL.format("http")),
        ({"source": "http://a b/"}, "source: " + NO_URL.format("http")),
        ({"source": "http://h/ä"}, "source: " + NO_URL.format("http")),
        ({"source": "http://-h/"}, "source: " + NO_URL.format("http")),
        ({"source": 1}, "source: must be a text, not a number"),
        ({"source": "/a\nb"}, "source: has a character that cannot be shown (U+000A)"),
        ({"refresh": 12}, 'refresh: must be a text such as "12h", not a number'),
        ({"refresh": "12"}, 'refresh: "12" is not a time; write a number and m, h or d, as in "12h"'),
        ({"refresh": "12 hours"}, 'refresh: "12 hours" is not a time; write "12h"'),
        ({"refresh": "30min"}, 'refresh: "30min" is not a time; write "30m"'),
        ({"refresh": "7D"}, 'refresh: "7D" is not a time; write "7d"'),
        ({"refresh": "2w"}, 'refresh: "2w" is not a time; write a number and m, h or d, as in "12h"'),
        ({"refresh": "9m"}, 'refresh: "9m" is not from 10m to 90d'),
        ({"refresh": "91d"}, 'refresh: "91d" is not from 10m to 90d'),
        ({"refresh": "9999999h"}, 'refresh: "9999999h" is not a time; write a number and m, h or d, as in "12h"'),
        ({"direction": "forward"}, 'direction: "forward" is not a direction of a block list ("in", "out" or "both"); '
                                   "what is forwarded is covered by each"),
        ({"direction": "incoming"}, 'direction: "incoming" is not a direction; write "in"'),
        ({"direction": "bth"}, 'direction: "bth" is not a direction of a block list ("in", "out" or "both"); did you '
                               'mean "both"?'),
        ({"direction": None}, 'direction: must be "in", "out" or "both", not null'),
        ({"enabled": "yes"}, "enabled: must be true or false, not a text"),
        ({"note": 1}, "note: must be a text, not a number"),
        ({"refesh": "1h"}, 'refesh: is not a field of a block list; did you mean "refresh"?'),
        ({"url": "x"}, "url: is not a field of a block list"),
    ],
)  # fmt: skip
def test_faults(fields, fault) -> None:
    assert fault_of(**fields) == fault


def test_faults_stand_where_they_are() -> None:
    text = """{
  "blocklists": [
    {"name": "a", "source": "/a"},
    {"source": "/b"},
    {"name": "a"},
    "x"
  ]
}"""
    assert faults(text) == [
        '4:5: blocklists[1]: has no "name"',
        '5:5: blocklists[2]: has no "source"',
        '5:14: blocklists[2].name: "a" is the name of an earlier list (line 3)',
        "6:5: blocklists[3]: must be an object, not a text",
    ]


@pytest.mark.parametrize("value", [{}, "x", None, True])
def test_it_is_a_list(value) -> None:
    assert "blocklists: must be a list of block lists, not" in faults(json.dumps({"blocklists": value}))[0]


def test_there_are_so_many_and_no_more() -> None:
    lists = [{"name": f"l{number}", "source": f"/l/{number}"} for number in range(MAX_LISTS + 1)]
    assert len(loaded(*lists[:-1]).blocklists) == MAX_LISTS
    what = "blocklists: has 65 lists, and there can be 64; put addresses together into one"
    assert faults(json.dumps({"blocklists": lists})) == [f"1:16: {what}"]


def test_a_typo_of_the_field_itself() -> None:
    assert faults('{"version": 2, "block_lists": []}') == [
        '1:16: block_lists: is not a part of a policy; did you mean "blocklists"?'
    ]


@pytest.mark.parametrize(
    "source", ["http://user:geheim@h:0/x", "http://user:geheim@a b/x", "htps://user:geheim@h/x", "user:geheim@h/x"]
)
def test_a_message_holds_no_password(source) -> None:
    assert "geheim" not in fault_of(source=source)


@pytest.mark.parametrize(
    ("source", "public"),
    [
        ("/etc/x?y@z", "/etc/x?y@z"),
        ("https://h.example/a/b.txt", "https://h.example/a/b.txt"),
        ("https://u:p@h.example:8/a", "https://h.example:8/a"),
        ("https://u:p@@h/a@b", "https://h/a@b"),
        ("https://h/a?key=secret#f", "https://h/a?…"),
        ("https://u:p@h?key=secret", "https://h?…"),
        ("https://h/a#secret", "https://h/a"),
        ("/a://u:p@b", "/a://u:p@b"),
    ],
)
def test_what_of_a_source_may_be_shown(source, public) -> None:
    assert public_source(source) == public


def test_the_schema_describes_every_field() -> None:
    properties = schema()["$defs"]["blocklist"]["properties"]
    assert list(properties) == list(FIELDS)
    assert all(field["description"] for field in properties.values())
