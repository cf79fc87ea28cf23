from __future__ import annotations

from time import perf_counter

import pytest

from pfw.policy.near import near_words


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("tpc", ["tcp"]),
        ("SSH", ["ssh"]),
        ("from the office", ["from the Office 2"]),
        ("zzz", []),
        ("", []),
        ("x" * 1000, []),
    ],
)
def test_the_words_that_are_near(word, near) -> None:
    assert near_words(word, ["tcp", "ssh", "from the Office 2", "block"]) == near


def test_of_many_words_a_bounded_number_is_compared() -> None:
    begin = perf_counter()
    near_words("rule 500000", (f"rule {number}" for number in range(1_000_000)))
    assert perf_counter() - begin < 5
