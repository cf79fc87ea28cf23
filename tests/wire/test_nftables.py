"""Messages of nftables, some as `nft --debug=mnl` shows them, and the digest of a table."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.wire.error import WireError
from pfw.wire.netlink import attribute, attributes, nested, parts
from pfw.wire.nfnetlink import split, write_long, write_number, write_text
from pfw.wire.nftables import (
    BaseHook,
    Chain,
    Element,
    NamedSet,
    Rule,
    SetChange,
    SetElement,
    chains_request,
    change_request,
    counters_request,
    elements_request,
    fingerprint,
    generation_request,
    read_chain,
    read_counter,
    read_elements,
    read_generation,
    read_raw_elements,
    read_rule,
    read_set,
    read_table_flags,
    rules_request,
    sets_request,
    table_request,
)

HEADER = b"\1\0\0\0"


def body(*members):
    return memoryview(HEADER + b"".join(members))


class TestQuestions:
    @pytest.mark.parametrize(
        ("data", "kind", "flags"),
        [
            (table_request("pfw"), 2561, 1),
            (chains_request("pfw"), 2564, 0x301),
            (rules_request("pfw"), 2567, 0x301),
            (sets_request("pfw"), 2570, 0x301),
            (counters_request("pfw"), 2579, 0x301),
            (elements_request("pfw", "bans"), 2573, 0x301),
        ],
    )
    def test_name_the_table(self, data, kind, flags):
        ((found, found_flags, _, content),) = parts(data)
        assert (found, found_flags) == (kind, flags)
        family, _, rest = split(content)
        assert family == 1
        assert bytes(dict(attributes(rest))[1]) == b"pfw\0"

    def test_the_generation(self):
        ((kind, flags, _, _),) = parts(generation_request())
        assert (kind, flags) == (2576, 1)


class TestAnswers:
    def test_a_base_chain(self):
        hook = nested(4, write_number(1, 3), attribute(2, struct.pack(">i", -300)))
        found = read_chain(
            body(write_text(1, "pfw"), write_text(3, "out"), hook, write_number(5, 1), write_text(7, "filter"))
        )
        assert found == Chain("pfw", "out", BaseHook("filter", 3, -300, 1))
        assert not found.is_anonymous

    def test_other_chains(self):
        assert read_chain(body(write_text(1, "pfw"), write_text(3, "__chain7"))).is_anonymous
        assert read_chain(body()) == Chain("", "", None)

    def test_a_rule(self):
        expressions = nested(1, write_text(1, "counter"))
        found = read_rule(body(write_text(2, "in"), write_long(3, 6), nested(4, expressions), attribute(7, b"\0\2x\0")))
        assert found == Rule("in", 6, expressions, b"\0\2x\0")

    def test_a_counter(self):
        data = nested(4, write_long(1, 5_000_000_000), write_long(2, 77))
        assert read_counter(body(write_text(2, "r_1"), data)) == ("r_1", 77, 5_000_000_000)
        assert read_counter(body()) == ("", 0, 0)

    def test_sets(self):
        assert read_set(body(write_text(2, "bans"), write_number(3, 0x14))) == NamedSet("bans", 0x14)
        assert read_set(body(write_text(2, "__set0"), write_number(3, 3))).is_anonymous
        assert not read_set(body(write_text(2, "bans"))).is_anonymous

    def test_numbers(self):
        assert read_table_flags(body(write_number(2, 1))) == 1
        assert read_generation(body(write_number(1, 99))) == 99

    def test_elements(self):
        key = nested(1, attribute(1, b"\x0a\0\0\1"))
        members = (
            nested(1, key, write_long(5, 1500), write_long(4, 60_000)),
            nested(1, attribute(3, b"\0\0\0\1"), key),
            nested(1, key, attribute(3, bytes(4))),
        )
        assert list(read_elements(body(nested(3, *members)))) == [
            Element(b"\x0a\0\0\1", False, 1500, 60_000),
            Element(b"\x0a\0\0\1", True),
            Element(b"\x0a\0\0\1"),
        ]
        assert list(read_elements(body())) == []

    @pytest.mark.parametrize("read", [read_chain, read_rule, read_counter, read_set, read_table_flags])
    def test_too_short(self, read):
        with pytest.raises(WireError):
            read(memoryview(b"\1"))

    def test_a_number_of_a_wrong_size(self):
        with pytest.raises(WireError, match="number"):
            read_rule(body(attribute(3, b"abc")))


def sent(*changes):
    """Type, flags and body of each message in a batch, without its frame."""
    data, last = change_request("pfw", changes)
    found = list(parts(data))
    assert [kind for kind, *_ in (found[0], found[-1])] == [16, 17]
    assert [sequence for _, _, sequence, _ in found[1:-1]] == list(range(2, last + 1))
    return [(kind, flags, bytes(content)) for kind, flags, _, content in found[1:-1]]


def list_of(content):
    """The raw elements in a message's body."""
    return bytes(dict(attributes(split(memoryview(content))[2]))[3]).hex()


class TestChanges:
    def test_an_element_as_nft_sends_it(self):
        ((kind, flags, content),) = sent(SetChange("a", "add", [SetElement(b"\1\1\1\1", 60_000)]))
        assert (kind, flags) == (2572, 0x605)
        names = "0800010070667700" + "0600020061000000"
        assert content.hex().startswith("01000000" + names)
        assert list_of(content) == "1c000180" + "0c0001800800010001010101" + "0c000400000000000000ea60"

    def test_intervals_as_nft_sends_them(self):
        made = [
            SetElement(b"\xff\0\0\0", None, b"\xff\xff\xff\xff"),
            SetElement(b"\x0a\0\0\0", 60_000, b"\x0a\xff\xff\xff"),
        ]
        ((_, _, content),) = sent(SetChange("c", "add", made))
        start, end = "0c000180080001000a000000", "08000300000000010c000180080001000b000000"
        assert list_of(content) == (
            "1c000180" + start + "0c000400000000000000ea60"
            "18000180" + end +
            "1c000180" + "0c00018008000100ff000000" + "0a00060001040100000000" + "00"
        )  # fmt: skip

    def test_taking_out(self):
        changes = SetChange("a", "flush"), SetChange("a", "delete", [SetElement(b"\1\1\1\1")])
        flush, delete = sent(*changes)
        assert flush == (2574, 1, bytes.fromhex("01000000" + "0800010070667700" + "0600020061000000"))
        assert delete[:2] == (2574, 5)

    def test_only_the_last_is_acknowledged(self):
        found = sent(SetChange("a", "flush"), SetChange("b", "flush"), SetChange("c", "flush"))
        assert [flags & 4 for _, flags, _ in found] == [0, 0, 4]

    def test_nothing(self):
        assert change_request("pfw", []) == (b"", 0)
        assert change_request("pfw", [SetChange("a", "add", [])]) == (b"", 0)

    @pytest.mark.parametrize(
        ("element", "text"),
        [
            (SetElement(b"\2\0\0\0", None, b"\1\0\0\0"), "before it begins"),
            (SetElement(b"\2\0\0\0", None, bytes(16)), "before it begins"),
            (SetElement(bytes(70_000)), "65535"),
        ],
    )
    def test_what_is_no_element(self, element, text):
        with pytest.raises(ValueError, match=text):
            change_request("pfw", [SetChange("a", "add", [element])])

    def test_what_cannot_be_done(self):
        with pytest.raises(ValueError, match="'replace'"):
            change_request("pfw", [SetChange("a", "replace", [SetElement(bytes(4))])])

    @given(
        st.lists(st.tuples(st.binary(min_size=4, max_size=4), st.integers(0, 1 << 40) | st.none()), max_size=30),
        st.integers(1, 300),
    )
    @settings(deadline=None)
    def test_what_is_written_can_be_read(self, made, times):
        elements = [SetElement(key, timeout_ms) for key, timeout_ms in made] * times
        data, last = change_request("pfw", [SetChange("a", "add", elements)])
        found = []
        for kind, _, sequence, content in parts(data):
            if kind == 2572:
                assert len(content) < 1 << 16
                assert sequence <= last
                found += read_elements(content)
        expected = sorted(((each.key, each.timeout_ms) for each in elements), key=lambda pair: pair[0])
        assert [(each.key, each.timeout_ms) for each in found] == expected


def expression(name, *members):
    return nested(1, write_text(1, name), nested(2, *members))


CHAINS = [Chain("pfw", "in", BaseHook("filter", 1, 0, 1)), Chain("pfw", "__chain3", None)]


def digest(expressions=b"", userdata=b"", *, flags=0, chains=CHAINS, chain="in", handle=6, anonymous=()):
    rule = Rule(chain, handle, expressions, userdata)
    sets = {name: (set_flags, list(read_raw_elements(body(nested(3, *raw))))) for name, set_flags, *raw in anonymous}
    return fingerprint(flags, chains, [rule], sets)


def quota(size, *more):
    return expression("quota", write_long(1, size), *more)


def jump(name):
    return expression("immediate", write_number(1, 0), nested(2, nested(2, write_number(1, 0xFFFFFFFD),
                                                                        write_text(2, name))))  # fmt: skip


def member(key, *more):
    return nested(1, nested(1, attribute(1, key)), *more)


class TestFingerprint:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (expression("counter", write_long(1, 1)), expression("counter", write_long(1, 2))),
            (expression("last", write_number(1, 0)), expression("last", write_number(1, 1), write_long(2, 5))),
            (quota(9, write_long(4, 1)), quota(9, write_long(4, 2))),
        ],
    )  # fmt: skip
    def test_what_changes_by_itself(self, one, other):
        assert digest(one) == digest(other)

    def test_handles(self):
        assert digest(handle=1) == digest(handle=2)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"userdata": b"a"}, {"userdata": b"b"}),
            ({"flags": 0}, {"flags": 1}),
            ({"chain": "in"}, {"chain": "out"}),
            ({"chains": CHAINS}, {"chains": CHAINS[:1]}),
            ({"chains": CHAINS}, {"chains": [Chain("pfw", "in", BaseHook("filter", 1, 0, 0)), CHAINS[1]]}),
            ({"chains": CHAINS}, {"chains": [Chain("pfw", "in", BaseHook("filter", 1, 1, 1)), CHAINS[1]]}),
            ({"expressions": expression("counter")}, {"expressions": expression("last")}),
            ({"expressions": quota(8)}, {"expressions": quota(9)}),
            ({"expressions": jump("a")}, {"expressions": jump("b")}),
            ({"expressions": jump("a")}, {"expressions": b""}),
        ],
    )  # fmt: skip
    def test_what_people_change(self, one, other):
        assert digest(**one) != digest(**other)

    def test_names_of_anonymous_chains(self):
        renamed = [CHAINS[0], Chain("pfw", "__chain12", None)]
        assert digest(jump("__chain3")) == digest(jump("__chain12"), chains=renamed)
        assert digest(chain="__chain3") == digest(chain="__chain12", chains=renamed)

    def test_anonymous_sets_count_by_what_is_in_them(self):
        def lookup(name, *elements):
            return digest(expression("lookup", write_text(1, name)), anonymous=[(name, 3, *elements)])

        first = lookup("__set0", member(b"\0\1"), member(b"\0\2"))
        assert lookup("__set15", member(b"\0\2"), member(b"\0\1")) == first
        assert lookup("__set0", member(b"\0\2", write_long(5, 7), nested(7, b"")), member(b"\0\1")) == first
        assert lookup("__set0", member(b"\0\1"), member(b"\0\3")) != first
        assert lookup("__set0", member(b"\0\1")) != first
        assert lookup("__set0", member(b"\0\1"), member(b"\0\2", attribute(3, b"\0\0\0\1"))) != first

    def test_anonymous_maps_count_by_their_verdicts(self):
        def lookup(name, verdict):
            data = nested(2, nested(2, write_number(1, verdict)))
            return digest(expression("lookup", write_text(1, name)), anonymous=[(name, 8, member(b"\0\1", data))])

        assert lookup("__map0", 1) == lookup("__map9", 1)
        assert lookup("__map0", 1) != lookup("__map0", 0)

    def test_named_sets_count_by_their_names(self):
        assert digest(expression("lookup", write_text(1, "a"))) != digest(expression("lookup", write_text(1, "b")))
