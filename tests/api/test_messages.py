"""Messages: cut anywhere they are the same, and whatever comes is a message or a ProtocolError."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.api import messages
from pfw.api.messages import (
    Call,
    Framer,
    ParameterError,
    ProtocolError,
    Reply,
    decode_call,
    decode_object,
    decode_parameters,
    decode_reply,
    encode_call,
    encode_parameters,
    encode_reply,
)


class Three(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: int
    name: str = ""
    rest: tuple[dict[str, int], ...] = ()


def taken(framer: Framer) -> list[bytes]:
    return list(iter(framer.next, None))


class TestFramer:
    @pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
    def test_cut_anywhere(self, size):
        data = b"first\0\0second\0unfinished"
        framer, found = Framer(), []
        for at in range(0, len(data), size):
            framer.feed(data[at : at + size])
            found += taken(framer)
        assert found == [b"first", b"", b"second"]
        assert framer.waiting_bytes == len(b"unfinished")

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.binary(max_size=20)))
    def test_any_cuts(self, pieces):
        framer, found = Framer(), []
        for piece in pieces:
            framer.feed(piece)
            assert framer.whole == (b"\0" in piece)
            found += taken(framer)
        assert found == b"".join(pieces).split(b"\0")[:-1]

    def test_as_long_as_may_be(self):
        framer = Framer(10)
        framer.feed(b"0123456789\0" + b"0123456789")
        assert framer.next() == b"0123456789"
        assert framer.next() is None
        framer.feed(b"x")
        with pytest.raises(ProtocolError, match="more than 10 bytes"):
            framer.next()

    def test_too_long_with_its_end(self):
        framer = Framer(10)
        framer.feed(b"good\0" + b"0123456789x\0")
        assert framer.next() == b"good"
        with pytest.raises(ProtocolError):
            framer.next()

    def test_bounded_where_nobody_takes(self):
        framer = Framer(10)
        framer.feed(b"0123456789\0")
        framer.feed(b"more")
        with pytest.raises(ProtocolError):
            framer.feed(b"and more")
        assert framer.waiting_bytes == 15

    def test_byte_by_byte_is_not_searched_anew(self):
        framer = Framer()
        looked = 0

        class Buffer(bytearray):
            def find(self, what, start=0):
                nonlocal looked
                looked += len(self) - start
                return super().find(what, start)

        framer._buffer = Buffer()
        for _ in range(1000):
            framer.feed(b"x")
            framer.next()
        assert looked == 1000


class TestCalls:
    def test_there_and_back(self):
        call = Call("org.pfw.Firewall.Answer", encode_parameters(Three(1, "x")), more=True)
        data = encode_call(call)
        assert json.loads(data[:-1]) == {
            "method": "org.pfw.Firewall.Answer", "parameters": {"id": 1, "name": "x", "rest": []}, "more": True
        }  # fmt: skip
        back = decode_call(data[:-1])
        assert (back.method, back.more, back.oneway) == (call.method, True, None)
        assert decode_parameters(back.parameters, Three) == Three(1, "x")

    def test_as_little_as_may_be(self):
        assert encode_call(Call("a.B")) == b'{"method":"a.B"}\0'
        assert encode_reply(Reply()) == b"{}\0"

    @pytest.mark.parametrize("text", ['{"method":"a.B"}', '{"method":"a.B","parameters":null,"more":null,"x":[1]}'])
    def test_null_is_not_there(self, text):
        call = decode_call(text.encode())
        assert decode_object(call.parameters) == {}
        assert not call.more

    @pytest.mark.parametrize(
        "message",
        [
            b"", b" ", b"null", b"[]", b"{}", b"1", b'{"method":1}', b'{"method":null}', b'{"method":"a"',
            b'{"method":"a"} x', b'{"method":"a","more":1}', b'{"method":"a\xff"}', b'{"method":"\\ud800"}',
            b'{"method":"a","parameters":{"x":"\xff"}}', b'{"method":"a","x":"\xc3"}', b"\xef\xbb\xbf{}",
            b'{"method":"a","parameters":' + b"[" * 100_000, b'{"x":' * 50_000 + b"1" + b"}" * 50_000,
            b'{"method":"a","parameters":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        ],
        ids=lambda message: f"{message[:30]!r}-{len(message)}",
    )  # fmt: skip
    def test_no_call(self, message):
        with pytest.raises(ProtocolError) as caught:
            decode_call(message)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200

    @settings(deadline=None, max_examples=300)
    @given(st.binary(max_size=200) | st.text(st.sampled_from('{}[]":,methodparlus\\u0d18 1e9-n'), max_size=80))
    def test_anything(self, text):
        message = text if isinstance(text, bytes) else text.encode()
        for decode in (decode_call, decode_reply):
            try:
                value = decode(message)
                decode_object(value.parameters)
            except ProtocolError:
                continue
            assert isinstance(value, Call | Reply)


class TestParameters:
    @pytest.mark.parametrize(
        ("text", "blamed"),
        [
            ("{}", "id"),
            ('{"id":"x"}', "id"),
            ('{"id":1.5}', "id"),
            ('{"id":1e400}', "id"),
            ('{"id":' + "9" * 10_000 + "}", "id"),
            ('{"id":1,"surplus":1}', "surplus"),
            ('{"id":1,"rest":[{"a":"x"}]}', "rest"),
            ('{"id":1,"' + "x" * 1000 + '":1}', "x" * 255),
            ("[]", ""),
            ("1", ""),
            ('"text"', ""),
        ],
        ids=lambda value: value[:30],
    )
    def test_who_is_to_blame(self, text, blamed):
        with pytest.raises(ParameterError) as caught:
            decode_parameters(msgspec.Raw(text.encode()), Three)
        assert caught.value.parameter == blamed

    def test_names_that_are_no_text(self):
        raw = encode_parameters(Three(1, "/tmp/\udcff\udc80ä", ({"\udcfe": 2},)))
        assert decode_parameters(raw, Three) == Three(1, "/tmp/\\udcff\\udc80ä", ({"\\udcfe": 2},))

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=40))
    def test_every_file_name_can_be_sent(self, name):
        text = name.decode("utf-8", "surrogateescape")
        decoded = decode_parameters(encode_parameters(Three(1, text)), Three)
        assert decoded.name == text.encode("utf-8", "backslashreplace").decode()


def test_the_bound_is_what_is_said():
    assert messages.MESSAGE_BYTES_MAX == 1 << 20
