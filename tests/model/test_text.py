from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.text import printable

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates with them
BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
HARMFUL = [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain, ünï 防火墙", "plain, ünï 防火墙"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\r\tc\0", "a\\x0ab\\x0d\\x09c\\x00"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("file\u202egpj.exe", "file\\u202egpj.exe"),
        ("one\u2028two\u2029", "one\\u2028two\\u2029"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("\ud800", "\\ud800"),
        (r"C:\temp\x1b", r"C:\temp\x1b"),
        ("no-break\u00a0space", "no-break\u00a0space"),
    ],
)
def test_known_texts(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("code", HARMFUL)
def test_no_harmful_character_is_left(code: int) -> None:
    assert chr(code) not in printable(f"a{chr(code)}b")
    assert printable(chr(code)).isascii()


@settings(deadline=None)
@given(ANY_TEXT)
def test_the_result_is_one_line_without_control_characters(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") for character in shown)
    assert not any(unicodedata.bidirectional(character) in BIDI_CONTROLS for character in shown)
    shown.encode("utf-8")


@settings(deadline=None)
@given(ANY_TEXT)
def test_twice_is_once(text: str) -> None:
    assert printable(printable(text)) == printable(text)


@settings(deadline=None)
@given(st.text(st.characters(categories=("L", "N", "P", "S"))))
def test_letters_and_signs_of_any_script_stay(text: str) -> None:
    assert printable(text) == text
