"""Events read fast: the same as the careful way makes of them, whatever comes."""

import random
from timeit import repeat

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.wire.test_conntrack_event import BEGAN, ENDED

from pfw.model.packet import GRE, ICMP, ICMPV6, SCTP, TCP, UDP
from pfw.wire.conntrack import Tuple, write_tuple
from pfw.wire.conntrack_decoder import SHAPES_MAX, EventDecoder
from pfw.wire.conntrack_event import read_event
from pfw.wire.error import WireError
from pfw.wire.netlink import attribute, nested, parts, request
from pfw.wire.nfnetlink import write_long, write_number

SEED = 20_261_124
A, B = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))

ports, bytes_of = st.integers(0, 65535), st.integers(0, 255)
longs = st.integers(0, 2**64 - 1)
ends = st.sampled_from([4, 16]).flatmap(
    lambda size: st.tuples(*[st.sampled_from([bytes(size), b"\1" * size, b"\2" * size])] * 2)
)
tuples = st.one_of(
    st.builds(
        lambda pair, protocol, *rest: Tuple(protocol, *pair, *rest),
        ends, st.sampled_from([TCP, UDP, SCTP, GRE]), ports | st.none(), ports | st.none(),
    ),
    st.builds(
        lambda pair, protocol, kind, code, number: Tuple(protocol, *pair, None, None, kind, code, number),
        ends, st.sampled_from([ICMP, ICMPV6]), bytes_of | st.none(), bytes_of, ports,
    ),
    st.builds(lambda pair, protocol: Tuple(protocol, *pair), ends, st.sampled_from([2, TCP, ICMP, ICMPV6])),
)  # fmt: skip
state = st.builds(lambda state: nested(4, nested(1, attribute(1, bytes((state,))), attribute(2, b"\x0a"))), bytes_of)
counters = st.builds(
    lambda kind, packets, size: nested(kind, write_long(1, packets), write_long(2, size)),
    st.sampled_from([9, 10]), longs, longs,
)  # fmt: skip
others = st.lists(
    st.one_of(
        st.builds(write_number, st.sampled_from([3, 7, 8, 12]), st.integers(0, 2**32 - 1)),
        state,
        counters,
        st.builds(lambda start, stop: nested(20, write_long(1, start), write_long(2, stop)), longs, longs),
        st.builds(lambda time: write_long(27, time), longs),
        st.builds(lambda zone: attribute(18, zone.to_bytes(2, "big")), ports),
        st.builds(attribute, st.integers(0, 30), st.binary(max_size=8)),
        st.builds(lambda kind, part, count: nested(kind, write_long(part, count)),
                  st.sampled_from([9, 10, 20]), st.integers(1, 2), longs),
        st.just(nested(4, b"\0\0\1\0\1\0\0\0\3")),
        st.just(nested(4, nested(1, attribute(1, b"\3")) * 2)),
    ),
    max_size=7,
)  # fmt: skip
kinds = st.sampled_from([(0x100, 0x600), (0x100, 0), (0x102, 0)])


def message(kind, forth, back, more):
    return request(kind[0], bytes(4) + write_tuple(1, forth) + write_tuple(2, back) + b"".join(more), kind[1], 0)


usual = st.builds(message, kinds, tuples, tuples, others)


def carefully(data):
    """The events, and how many messages could not be read."""
    found = []
    try:
        for kind, flags, _, body in parts(data):
            event = read_event(kind, flags, body)
            if event is not None:
                found.append(event)
    except WireError:
        return found, 1
    return found, 0


def check(decoder, data):
    unreadable = decoder.unreadable
    events = decoder.read([data])
    assert (events, decoder.unreadable - unreadable) == carefully(data)


def varied(data, chance):
    """The same with other values: any bytes may differ."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] = chance.choice((0, 1, 2, 4, 0x80, 0xFF, chance.randrange(256)))
    return bytes(changed)


@pytest.mark.parametrize("data", [BEGAN, ENDED], ids=["began", "ended"])
def test_messages_of_the_kernel(data):
    decoder = EventDecoder()
    first, again = decoder.read([data]), decoder.read([data, data])
    assert again == first * 2
    assert (first, 0) == carefully(data)


def test_a_known_layout_is_not_read_carefully(monkeypatch):
    """Other values in the same places: addresses, ports, state, counters, sequence number."""
    layouts = [BEGAN, ENDED, message((0x100, 0x600), Tuple(UDP, A, B, 1, 2), Tuple(UDP, B, A, 2, 1), [])]
    decoder = EventDecoder()
    decoder.read(layouts)
    monkeypatch.setattr("pfw.wire.conntrack_decoder.read_event", None)
    changed = [
        BEGAN.replace(bytes((10, 77, 0, 1)), A).replace(b"\x13\xb9", b"\1\xbb").replace(b"\5\0\1\0\2", b"\5\0\1\0\3"),
        ENDED.replace(b"\x68\x1c", b"\x99\x1c"),
        message((0x100, 0x600), Tuple(UDP, B, B, 9, 9), Tuple(UDP, A, A, 7, 8), []),
    ]
    assert [decoder.read([each]) for each in changed] == [carefully(each)[0] for each in changed]
    assert all(each != before for each, before in zip(changed, layouts, strict=True))


@given(st.lists(usual, min_size=1, max_size=4), st.integers(0, 2**32))
def test_the_same_as_the_careful_way(messages, seed):
    """Each is read when it is met first, again, and changed here and there."""
    decoder, chance = EventDecoder(), random.Random(seed)
    for data in messages:
        check(decoder, data)
        check(decoder, data)
        for _ in range(10):
            check(decoder, varied(data, chance))


@given(st.lists(usual, max_size=3), usual, st.integers(0, 400))
def test_more_and_less_than_one_message(messages, last, kept):
    decoder = EventDecoder()
    for _ in range(2):
        check(decoder, last)
        check(decoder, b"".join(messages) + last)
        check(decoder, last[:kept])
        check(decoder, last + bytes(kept))


def test_another_message_behind():
    """A layout that was learnt with one that is no event is not taken for that of two events."""
    decoder, behind = EventDecoder(), (0x100).to_bytes(2, "little")
    for _ in range(2):
        check(decoder, BEGAN + BEGAN.replace(behind, b"\3\0", 1))
        check(decoder, BEGAN + BEGAN)


BOTH = nested(
    1, nested(1, *(attribute(kind, address) for kind, address in ((3, A * 4), (4, B * 4), (1, A), (2, B)))),
    nested(2, attribute(1, bytes((2,)))),
)  # fmt: skip


@pytest.mark.parametrize("zones", [(0, 7), (7, 0), (7, 8)])
@pytest.mark.parametrize("original", [BOTH, write_tuple(1, Tuple(2, A, B))])
def test_the_same_told_twice(original, zones):
    """Addresses of both families, zones of the tuple and of the whole: which of them counts is for the careful way."""
    zoned = nested(1, original[4:], attribute(3, zones[0].to_bytes(2, "big")))
    body = bytes(4) + zoned + write_tuple(2, Tuple(2, B, A)) + attribute(18, zones[1].to_bytes(2, "big"))
    decoder = EventDecoder()
    for _ in range(2):
        check(decoder, request(0x100, body, 0))
    check(decoder, request(0x100, body.replace(b"\0\7", b"\0\0"), 0))


def test_counters_in_two_pieces():
    """The last piece counts, as for everything that is told twice."""
    pieces = [nested(9, write_long(1, 5)), nested(9, write_long(2, 6))]
    data = message((0x102, 0), Tuple(UDP, A, B, 1, 2), Tuple(UDP, B, A, 2, 1), pieces)
    decoder = EventDecoder()
    for _ in range(2):
        check(decoder, data)
    (event,) = decoder.read([data])
    assert (event.packets, event.bytes) == (None, 6)


@given(st.binary(max_size=300))
@example(b"\x10\0\0\0\0\1")
def test_any_bytes(data):
    check(EventDecoder(), data)


def test_messages_of_the_kernel_with_bytes_changed():
    chance, decoder = random.Random(SEED), EventDecoder()
    for _ in range(3000):
        check(decoder, varied(chance.choice((BEGAN, ENDED)), chance))


def test_what_cannot_be_read_is_counted():
    decoder = EventDecoder()
    short = BEGAN[:-1]
    assert decoder.read([short, BEGAN, b"", short, ENDED]) == carefully(BEGAN)[0] + carefully(ENDED)[0]
    assert decoder.unreadable == 2


def test_layouts_without_end():
    """What is known stays bounded, and layouts that matter are known again."""
    decoder = EventDecoder()
    sizes = []
    for number in range(3 * SHAPES_MAX):
        data = message((0x100, 0), Tuple(UDP, A, B, 1, 2), Tuple(UDP, B, A, 2, 1), [attribute(100 + number, b"")])
        check(decoder, data)
        check(decoder, data)
        sizes.append(sum(map(len, decoder._shapes.values())))
    assert max(sizes) == SHAPES_MAX
    assert sizes[-1] > 0


def test_the_price_of_an_event():
    """Far below what the careful way costs: a regression to it would show even on a busy machine."""
    decoder = EventDecoder()
    fast = min(repeat(lambda: decoder.read([BEGAN] * 100), number=5, repeat=20)) / 500
    slow = min(repeat(lambda: carefully(BEGAN), number=20, repeat=20)) / 20
    assert fast < slow / 4
