"""Indexes: from a value of one field to the set of rules whose condition on that field it meets.

A set of rules is a vector: an integer whose bit i stands for rule i. A field's answer for all rules at once
is then one look-up, and the answer of all fields the AND of a handful of integers (Lakshman and Stiliadis,
"High-speed policy-based packet forwarding using efficient multi-dimensional range matching", SIGCOMM 1998).
Rules without a condition on the field are in every answer; an index is told them as `free`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, cycle, islice
from operator import xor

from pfw.model.rule import App

MOST_REMEMBERED = 1024
"""Answers that an index of names keeps. Names of programs are many, but few at a time."""


def vector(members: Iterable[object]) -> int:
    """The vector of the places that hold something true."""
    digits = "".join(["1" if member else "0" for member in members])
    return int(digits[::-1], 2) if digits else 0


class Line:
    """Vectors along a line of numbers: addresses, ports, times.

    The vector for a value is `vectors[bisect_right(starts, value)]`; `vectors` is one longer than `starts`.
    """

    __slots__ = ("starts", "vectors")

    def __init__(self, starts: list[float], vectors: list[int]) -> None:
        self.starts = starts
        self.vectors = vectors


class LineBuilder:
    """Collects where on the line rules begin and cease to hold.

    Each border flips the rule's bit, so a running XOR over the sorted borders gives the vectors, whatever
    overlaps: sorting is the only cost that is more than linear.
    """

    def __init__(self) -> None:
        self._rules: list[tuple[int, Iterable[float]]] = []

    def add(self, bit: int, borders: Iterable[float]) -> None:
        """The rule whose vector is `bit` holds from the first border up to the second, from the third …

        No border of a rule comes twice.
        """
        self._rules.append((bit, borders))

    def build(self, before: int) -> Line:
        """The index, where `before` is the vector in front of all borders: free rules have no border."""
        if len(self._rules) == 1:  # one long block list: a third of the time
            bit, borders = self._rules[0]
            starts = sorted(borders)
            return Line(starts, list(islice(cycle((before, before ^ bit)), len(starts) + 1)))
        flips = self._flips()
        starts = sorted(flips)
        # A long list has many borders but few different vectors, each of which is kept once.
        seen: dict[int, int] = {}
        keep = seen.setdefault
        vectors = [keep(each, each) for each in accumulate(map(flips.__getitem__, starts), xor, initial=before)]
        return Line(starts, vectors)

    def _flips(self) -> dict[float, int]:
        """The bits that each border flips. Bits are shared, not copied: they may be long, and the borders many."""
        flips: dict[float, int] = {}
        for bit, borders in self._rules:
            fresh = dict.fromkeys(borders, bit)
            if len(fresh) > len(flips):
                flips, fresh = fresh, flips
            for border in flips.keys() & fresh.keys():
                fresh[border] ^= flips[border]
            flips.update(fresh)
        return flips


class Names:
    """Vectors by name, where a rule names values whole or by how they begin (`eth*`)."""

    def __init__(self, free: int, rules: Iterable[tuple[int, Iterable[str]]]) -> None:
        """`rules` holds the bit of each rule with a condition, and its patterns."""
        self._free = free
        self._whole: dict[str, int] = {}
        self._beginnings: dict[str, int] = {}
        for bit, patterns in rules:
            for pattern in patterns:
                if pattern.endswith("*"):
                    self._beginnings[pattern[:-1]] = self._beginnings.get(pattern[:-1], 0) | bit
                else:
                    self._whole[pattern] = self._whole.get(pattern, 0) | bit
        self._lengths = sorted({len(beginning) for beginning in self._beginnings})
        self._remembered: dict[str, int] = {}

    def at(self, name: str) -> int:
        """The rules that a value of this name meets."""
        found = self._remembered.get(name)
        if found is None:
            found = self._free | self._whole.get(name, 0)
            for length in self._lengths:
                if length > len(name):
                    break
                found |= self._beginnings.get(name[:length], 0)
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[name] = found
        return found


class Programs:
    """Vectors by program: its path, and what its file holds where a rule asks for that too. Paths with a hash are
    whole."""

    def __init__(self, free: int, rules: Iterable[tuple[int, Iterable[App]]]) -> None:
        self._free = free
        self._hashed: dict[str, int] = {}
        self._files: dict[tuple[str, str], int] = {}
        paths: list[tuple[int, list[str]]] = []
        for bit, apps in rules:
            paths.append((bit, [app.path for app in apps if app.sha256 is None]))
            for app in apps:
                if app.sha256 is not None:
                    file = app.path, app.sha256
                    self._hashed[app.path] = self._hashed.get(app.path, 0) | bit
                    self._files[file] = self._files.get(file, 0) | bit
        self._paths = Names(free, paths)

    def at(self, path: str, sha256: str | None) -> tuple[int, int]:
        """The rules that a program meets or may meet; of them those that only its hash could tell."""
        if not path:
            return self._free, 0
        certain = self._paths.at(path)
        hashed = self._hashed.get(path, 0)
        if not hashed:
            return certain, 0
        if sha256 is None:
            return certain | hashed, hashed & ~certain
        return certain | self._files.get((path, sha256), 0), 0


class Members:
    """Vectors by a set of names, of which a rule wants any one: the owners of a connection."""

    def __init__(self, free: int, rules: Iterable[tuple[int, Iterable[str]]]) -> None:
        self._free = free
        self._single: dict[str, int] = {}
        for bit, names in rules:
            for name in names:
                self._single[name] = self._single.get(name, 0) | bit
        self._remembered: dict[frozenset[str], int] = {}

    def at(self, names: frozenset[str]) -> int:
        """The rules that want at least one of these names."""
        found = self._remembered.get(names)
        if found is None:
            found = self._free
            for name in names:
                found |= self._single.get(name, 0)
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[names] = found
        return found
