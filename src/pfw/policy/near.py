"""Words that a person may have meant: those near to one that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 128
_MOST_COMPARED = 2000
"""Comparing is slow, and there may be as many names as a file holds."""


def near_words(word: str, known: Iterable[str]) -> list[str]:
    """The nearest two of the known words, the nearest first; none where none is near."""
    if not 0 < len(word) <= _LONGEST:
        return []
    lower = word.lower()
    near = [each for each in known if abs(len(each) - len(word)) <= max(4, len(word) // 2)][:_MOST_COMPARED]
    same = [each for each in near if each.lower() == lower]
    if same:
        return same[:2]
    from difflib import get_close_matches  # only here: seldom needed

    by_lower = {each.lower(): each for each in near}
    return [by_lower[each] for each in get_close_matches(lower, by_lower, n=2, cutoff=0.6)]
