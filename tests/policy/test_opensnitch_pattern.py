"""OpenSnitch's patterns: what is read of them against Python's own `re`, where the two languages are the same."""

from __future__ import annotations

import re
from itertools import product
from random import Random

import pytest

from pfw.policy.opensnitch_pattern import ANYTHING, MAX_TEXTS, Found, Piece, read_pattern

TEXTS = ["".join(each) for size in range(5) for each in product("ab.1", repeat=size)]
ATOMS = ["a", "b", r"\.", ".", "[ab]", "[a-b]", "[^a]", r"\d", r"\w", "1", ".*", ".+", r"\d+", r"\d{1,3}", "(?:a|b)"]
REPEATS = ["", "", "", "?", "*", "+", "{2}", "{0,1}", "{1,}", "??"]


def random_pattern(random: Random, depth: int = 0) -> str:
    parts = []
    for _ in range(random.randint(0, 3)):
        if depth < 2 and random.random() < 0.3:
            parts.append(f"({random_pattern(random, depth + 1)})" + random.choice(REPEATS))
            continue
        atom = random.choice(ATOMS)
        repeats = len(atom) < 2 or atom[-1] in "])" or atom in (r"\.", r"\d", r"\w")
        parts.append(atom + (random.choice(REPEATS) if repeats else ""))
    if random.random() < 0.2:
        parts.append("|" + random_pattern(random, depth + 1))
    whole = "".join(parts)
    return f"{random.choice(('', '^'))}{whole}{random.choice(('', '$'))}" if random.random() < 0.6 else whole


@pytest.mark.parametrize("seed", range(20))
def test_inside_is_found_and_what_is_found_is_around(seed):
    random = Random(seed)
    read = 0
    for _ in range(60):
        pattern = random_pattern(random)
        found = read_pattern(pattern)
        read += ANYTHING not in found.around
        compiled = re.compile(pattern)
        for text in TEXTS:
            held = compiled.search(text) is not None
            # Nothing that is asked about ends in a dot, so that `.+` behind one is read as `.*`.
            assert (
                held or (".+" in pattern and text.endswith(".")) or not any(each.finds(text) for each in found.inside)
            ), (pattern, text)
            assert not held or any(each.finds(text) for each in found.around), (pattern, text)
    assert read > 5


@pytest.mark.parametrize(
    ("pattern", "pieces"),
    [
        ("^(80|443)$", (Piece("80"), Piece("443"))),
        ("53", (Piece("53", open_left=True, open_right=True),)),
        ("^/usr/lib/x/.*", (Piece("/usr/lib/x/", open_right=True),)),
        ("^/usr/lib/x/.+$", (Piece("/usr/lib/x/", open_right=True),)),
        (r"^/usr/bin/(curl|wget)$", (Piece("/usr/bin/curl"), Piece("/usr/bin/wget"))),
        ("^(tcp|udp)6?$", tuple(map(Piece, ("tcp", "tcp6", "udp", "udp6")))),
        (r"^10\.\d{1,3}\.\d{1,3}\.\d{1,3}$", (Piece("10.", open_right=True),)),
        (r"^192\.168\.\d+\.\d+", (Piece("192.168.", open_right=True),)),
        ("", (ANYTHING,)),
    ],
)
def test_common_patterns_are_read_exactly(pattern, pieces):
    assert read_pattern(pattern) == Found(tuple(sorted(pieces, key=pieces.index)), pieces)


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "[", "[]", "*", "a**", "a{2}{2}", "(?i)a", "(?=a)", "(?P<x>a)", "\\", r"\pL", r"\Qa\E", r"\bfoo",
     "[[:alpha:]]", "[z-a]", "[a-Z]", "x" * 513, "(" * 40 + "a" + ")" * 40, "a\nb", "{2}", "a{99}{99}", "|*"],
)  # fmt: skip
def test_what_is_not_understood_may_be_anything(pattern):
    assert read_pattern(pattern) == Found((), (ANYTHING,))


@pytest.mark.parametrize(
    "pattern", ["[a-z]" * 100, "(a|b)?" * 80, "((((a{16}){16}){16}){16}){16}", "(a|b|c|d){9}", "[0-9]{9}"]
)
def test_what_is_spelled_out_is_bounded(pattern):
    found = read_pattern(f"^x{pattern}$")
    assert found.inside == ()
    assert len(found.around) <= MAX_TEXTS
    assert all(len(each.text) < 2000 for each in found.around)
