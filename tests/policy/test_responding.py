"""The object `respond` of a policy file: what it loads to, and every fault of it with its place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pfw.model.address import AddressSet, parse_range
from pfw.model.observation import Kind
from pfw.model.policy import Doing, PolicyError, Reaction, Respond, public_webhook
from pfw.policy.convert import to_full
from pfw.policy.load import load
from pfw.policy.responding import KEYS, REACTION_KEYS, respond_texts, time_text

ALIASES = {"lan": ["192.168.1.0/24", "fd00::/64"], "web": [80]}
PORT_SCAN, SYN_FLOOD = frozenset({Kind.PORT_SCAN}), frozenset({Kind.SYN_FLOOD})


def responding(value: object, **more: object) -> Respond:
    return load(json.dumps({"version": 2, "aliases": ALIASES, "respond": value, **more})).respond


def test_what_holds_where_nothing_is_said() -> None:
    assert load('{"version": 2}').respond == load("{}").respond == responding({}) == Respond()
    assert Respond().reactions == ()


def test_reactions_in_their_order() -> None:
    found = responding(
        {"when": [
            {"alert": "port-scan", "score": 80, "do": "ban", "time": "1h"},
            {"alert": ["syn-flood"], "do": "limit"},
            {"alert": ["arp-scan", "sweep"], "do": "nothing"},
            {"alert": "all", "do": "alert"},
        ]}
    )  # fmt: skip
    assert found.reactions == (
        Reaction(kinds=PORT_SCAN, do=Doing.BAN, score=80, for_s=3600),
        Reaction(kinds=SYN_FLOOD, do=Doing.LIMIT, score=0, for_s=600),
        Reaction(kinds=frozenset({Kind.ARP_SCAN, Kind.SWEEP}), do=Doing.NOTHING),
        Reaction(kinds=None, do=Doing.ALERT),
    )
    assert responding({"when": [{"alert": ["sweep", "all"], "do": "ban"}]}).reactions[0].kinds is None


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_alert_can_be_named(kind) -> None:
    assert responding({"when": [{"alert": kind, "do": "ban"}]}).reactions[0].kinds == {kind}


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("90s", 90), ("10m", 600), ("24h", 86400), ("7d", 604800), ("010m", 600)]
)
def test_times(text, seconds) -> None:
    assert responding({"when": [{"alert": "all", "do": "limit", "time": text}]}).reactions[0].for_s == seconds


def test_who_is_never_banned_is_written_as_in_a_rule() -> None:
    found = responding({"never": ["lan", "203.0.113.7", "10.0.0.5-10.0.0.9", "!fd00::5"]}).never
    assert found == AddressSet(
        [parse_range(text) for text in
         ("192.168.1.0/24", "203.0.113.7", "10.0.0.5-10.0.0.9", "fd00::-fd00::4", "fd00::6-fd00::ffff:ffff:ffff:ffff")]
    )  # fmt: skip
    assert responding({"never": []}).never == AddressSet()


def test_it_is_of_both_forms_and_outlasts_a_conversion() -> None:
    text = json.dumps({"block": {"port": [23]}, "aliases": ALIASES,
                       "respond": {"when": [{"alert": "all", "do": "ban"}], "never": ["lan"]}})  # fmt: skip
    simple = load(text)
    assert simple.simple
    assert simple.respond.reactions
    assert load(to_full(text)).respond == simple.respond


def test_command_and_webhook() -> None:
    found = responding(
        {"command": ["/usr/local/bin/on-alert", "--json", ""], "webhook": "https://u:p@h.example/s3cret"}
    )
    assert found.command == ("/usr/local/bin/on-alert", "--json", "")
    assert found.webhook == "https://u:p@h.example/s3cret"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example/services/T0/B0/XXXX", "https://hooks.example/…"),
        ("https://user:word@h.example:8443", "https://h.example:8443"),
        ("http://h.example?key=1", "http://h.example/…"),
        ("https://[2001:db8::1]/", "https://[2001:db8::1]/…"),
    ],
)
def test_of_a_webhook_only_the_host_is_shown(url, shown) -> None:
    assert public_webhook(url) == shown
    assert respond_texts(Respond(webhook=url))["webhook"] == shown


ALL_KEYS = '"when", "never", "command" and "webhook"'
DOING = 'is not what is done about an alert ("ban", "limit", "alert" or "nothing")'
ALL = {"alert": "all", "do": "ban"}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([], f"respond: must be an object with {ALL_KEYS}, not a list"),
        ({"whne": []}, 'respond.whne: is not a field of this object; did you mean "when"?'),
        ({"when": {}}, "respond.when: must be a list of objects, not an object"),
        ({"when": [ALL] * 101}, "respond.when: has 101 entries, and there can be 100"),
        ({"when": [5]}, 'respond.when[0]: must be an object with "alert" and "do", not a number'),
        ({"when": [{"do": "ban"}]}, 'respond.when[0]: has no "alert"'),
        ({"when": [ALL, {"alert": "all"}]}, 'respond.when[1]: has no "do"'),
        ({"when": [{**ALL, "kind": 1}]}, "respond.when[0].kind: is not a field of such an entry"),
        ({"when": [{**ALL, "do": "drop"}]},
         'respond.when[0].do: "drop" is not what is done about an alert; write "ban"'),
        ({"when": [{**ALL, "do": "bann"}]}, f'respond.when[0].do: "bann" {DOING}; did you mean "ban"?'),
        ({"when": [{**ALL, "alert": []}]},
         "respond.when[0].alert: is an empty list, which nothing can match; give a value or leave the field out"),
        ({"when": [{**ALL, "score": 101}]}, "respond.when[0].score: 101 is not a score (0-100)"),
        ({"when": [{**ALL, "score": True}]}, "respond.when[0].score: must be a whole number from 0 to 100, not true"),
        ({"when": [{**ALL, "score": 1.5}]},
         "respond.when[0].score: must be a whole number from 0 to 100, not a number"),
        ({"when": [{**ALL, "time": 600}]}, 'respond.when[0].time: must be a text such as "10m", not a number'),
        ({"when": [{**ALL, "time": "9s"}]}, 'respond.when[0].time: "9s" is not from 10s to 7d'),
        ({"when": [{**ALL, "time": "8d"}]}, 'respond.when[0].time: "8d" is not from 10s to 7d'),
        ({"when": [{**ALL, "time": "1w"}]},
         'respond.when[0].time: "1w" is not a time; write a number and s, m, h or d, as in "10m"'),
        ({"when": [{"alert": "all", "do": "alert", "time": "1h"}]},
         'respond.when[0].time: is of no use where what is done is "alert"; leave it out'),
        ({"never": ["web"]}, 'respond.never[0]: "web" is an alias of ports, and addresses belong here'),
        ({"command": "/bin/x"},
         "respond.command: must be a list of the program and its arguments, not a text; no shell reads it"),
        ({"command": []}, "respond.command: has 0 words; the first is the program, and there can be 64"),
        ({"command": ["on-alert"]},
         'respond.command[0]: "on-alert" is not an absolute path; write it in full, as in /usr/local/bin/on-alert'),
        ({"command": ["/a/../b"]},
         'respond.command[0]: "/a/../b" is not the plain path of a file; take out //, . and .., and / at its end'),
        ({"command": ["/a", 5]}, "respond.command[1]: must be a text, not a number"),
        ({"webhook": "ftp://h/"},
         "respond.webhook: is not a URL; behind https:// or http:// come the name of a host and what is asked of it, "
         "in ASCII"),
        ({"webhook": "https://h:70000/k3y"},
         "respond.webhook: is not a URL; behind https:// or http:// come the name of a host and what is asked of it, "
         "in ASCII"),
    ],
)  # fmt: skip
def test_each_fault(value, fault) -> None:
    with pytest.raises(PolicyError) as caught:
        responding(value)
    assert [str(each).split(": ", 1)[1] for each in caught.value.faults] == [fault]


def test_a_fault_has_its_line_and_column() -> None:
    with pytest.raises(PolicyError, match=r"^rules\.json:3:35: respond\.when\[0\]\.alert: \"portscan\" is not a kind"):
        load('{"version": 2,\n "respond": {\n  "when": [{"do": "ban", "alert": "portscan"}]}}')


def test_texts_for_people() -> None:
    found = responding(
        {"when": [{"alert": ["sweep", "port-scan"], "score": 80, "do": "ban", "time": "1h"},
                  {"alert": "all", "do": "alert"}], "never": ["lan"], "command": ["/a", "b"]}
    )  # fmt: skip
    assert respond_texts(found) == {
        "when": "ban port-scan, sweep from score 80 for 1h; alert all",
        "never": "192.168.1.0/24, fd00::/64",
        "command": "/a b",
        "webhook": "none",
    }
    assert respond_texts(Respond())["when"] == "none"
    assert [time_text(seconds) for seconds in (90, 600, 5400, 7200, 604800)] == ["90s", "10m", "90m", "2h", "7d"]


def test_what_is_written_of_it_is_true() -> None:
    """docs/respond.md: its policy loads, and it has every kind and every field."""
    text = (Path(__file__).parents[2] / "docs" / "respond.md").read_text(encoding="utf-8")
    block = re.search(r"^```json\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert block is not None
    assert len(load(block[1]).respond.reactions) == 3
    kinds = re.search(r"^Kinds: (.*?)\.\n\n", text, re.DOTALL | re.MULTILINE)
    assert kinds is not None
    assert kinds[1].replace("\n", " ").split(", ") == [kind.value for kind in Kind]
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(REACTION_KEYS)
    assert all(f"`{key}`" in text for key in KEYS)
