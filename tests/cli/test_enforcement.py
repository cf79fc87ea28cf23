"""What `status` says: every fact once, escaped, in words and as JSON."""

from msgspec.structs import replace

from pfw.cli.enforcement import (
    BanStatus,
    ListStatus,
    RuleStatus,
    Status,
    ago_text,
    span_text,
    status_facts,
    status_lines,
)

RULES = (
    RuleStatus("base invalid", "block", 0, 0, None, always=True),
    RuleStatus("web \x1b[31m", "allow", 1200, 72000, 940.0),
    RuleStatus("default in", "block", 3, 180, None, untold=1, always=True),
)
STATUS = Status(active=True, backend="nftables", policy="/etc/pfw/rules\n.json", applied=900.0, changed_since=False,
                intact=True, rules=RULES)  # fmt: skip


def test_off():
    assert status_lines(Status(active=False), 0.0) == ["off: nothing is filtered (pfw up puts a policy in force)"]


def test_rules_with_what_they_did():
    lines = status_lines(STATUS, 1000.0)
    assert lines[0].startswith("on (nftables), policy /etc/pfw/rules\\x0a.json, since ")
    table = [line.split() for line in lines[2:]]
    assert table[0] == ["rule", "action", "packets", "bytes", "last", "hit"]
    assert table[1] == ["web", "\\x1b[31m", "allow", "1,200", "72.0", "kB", "1", "min", "ago"]
    assert table[2] == ["default", "in", "block", "3", "180", "B", "-"]
    assert len(table) == 3


def test_what_needs_attention_is_said():
    text = "\n".join(
        status_lines(replace(STATUS, changed_since=True, intact=False, panic=True, pending_until=2000.0), 1000.0)
    )
    for words in ("the policy file has changed since", "somebody else has changed", "PANIC", "pfw confirm"):
        assert words in text


def test_json_has_the_promised_shape():
    facts = status_facts(
        replace(STATUS, bans=(BanStatus("203.0.113.7", 1.0, None, "x\x07"),),
                lists=(ListStatus("drop", "https://a.example/\u202e", 3, 5.0, "bad\n"),))
    )  # fmt: skip
    assert facts["active"] is True
    assert facts["rules"][1] == {"name": "web \\x1b[31m", "action": "allow", "packets": 1200, "bytes": 72000,
                                 "last_hit": "1970-01-01T00:15:40.000000Z", "untold": 0}  # fmt: skip
    assert facts["bans"] == [
        {"address": "203.0.113.7", "since": "1970-01-01T00:00:01.000000Z", "until": None, "why": "x\\x07"}
    ]
    assert facts["lists"][0]["source"] == "https://a.example/\\u202e"
    assert facts["lists"][0]["error"] == "bad\\x0a"


def test_spans():
    assert [span_text(each) for each in (0, 59, 60, 3661, 86400 * 3 + 3600, -5)] == [
        "0 s", "59 s", "1 min", "1 h 1 min", "3 d 1 h", "0 s",
    ]  # fmt: skip
    assert ago_text(0.2) == "just now"
