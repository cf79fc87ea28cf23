"""Where things stand in the text of a policy file: lines and columns of values, keys and rules.

Reading a policy needs none of this; it is asked when there is a fault or somebody wants a rule's line.
The text is known to be JSON by then. Nothing here recurses, however deep the text is nested.
Lines and columns count from 1, columns in characters.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator

Path = tuple[str | int, ...]
"""Keys and list indices from the top of the file: `("rules", 1, "port")`."""

Place = tuple[int, int]
"""Line and column."""

# Possessive: a text that never ends fails in one pass. Compiled where needed, so that reading does not wait.
STRING = r'"(?:[^"\\]++|\\.)*+"'
_TOKEN = rf'(?s)({STRING})(\s*+:)?|([\[{{])|([\]}}])|([^\s,:\[\]{{}}"]++)'
_KEY, _OPEN, _CLOSE = 2, 3, 4

_BRACKET = rf'(?s)(?:[^"\[\]{{}}]++|{STRING})*+([\[\]{{}}])'
_BEFORE_MEMBER = rf"(?s)[\s,]*+(?:({STRING})\s*+:\s*+)?"
_SCALAR = rf'(?s){STRING}|[^\s,\[\]{{}}"]++'
_UNQUOTED = rf'(?s){STRING}|([^\s,:\[\]{{}}"]++)'


def _text_of(token: str) -> str:
    """The key that a token of the text spells."""
    if "\\" in token:
        key: str = json.loads(token)
        return key
    return token[1:-1]


class _Tree(dict[str | int, "_Tree"]):
    """Paths by their steps. `wanted` tells that one ends here."""

    wanted = False


def _tree(paths: Collection[Path]) -> _Tree:
    root = _Tree()
    for path in paths:
        node = root
        for step in path:
            node = node.setdefault(step, _Tree())
        node.wanted = True
    return root


class Places:
    """Offsets of one text as lines and columns."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def at(self, offset: int) -> Place:
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


class Positions:
    """The places of keys and values of a JSON text, of all or only of the paths that are asked for.

    `duplicates` lists every key that its object has already: its path, and the offsets of the first key
    and of this one. Of equal paths the last counts, as in the value that Python's json makes of the text.
    """

    def __init__(self, text: str, only: Collection[Path] | None = None) -> None:
        self.duplicates: list[tuple[Path, int, int]] = []
        self._places = Places(text)
        self._found: dict[Path, tuple[int, int]] = {}
        self._walk(text, None if only is None else _tree(only))

    def paths(self) -> list[Path]:
        return list(self._found)

    def value(self, path: Path) -> Place:
        """Where the value begins; that of the nearest container for a path that is not there."""
        return self._places.at(self._offsets(path)[1])

    def key(self, path: Path) -> Place:
        """Where the key of the value begins; the value itself where it stands in a list."""
        return self._places.at(self._offsets(path)[0])

    def at(self, offset: int) -> Place:
        return self._places.at(offset)

    def _offsets(self, path: Path) -> tuple[int, int]:
        while path and path not in self._found:
            path = path[:-1]
        return self._found.get(path, (0, 0))

    def _walk(self, text: str, wanted: _Tree | None) -> None:
        """Goes through all values once; keeps the offsets of key and value of those that are wanted."""
        outer: list[tuple[_Tree | None, int, dict[str, int]]] = []
        trail: list[str | int] = []  # to the container that we are in; begins with a step to the top itself
        step: str | int
        key, key_at = "", 0
        index = -1  # of the list that we are in; below zero in an object
        seen: dict[str, int] = {}
        inside = wanted
        for match in re.finditer(_TOKEN, text):
            kind = match.lastindex
            if kind == _KEY:
                key, key_at = _text_of(match[1]), match.start()
                if seen.setdefault(key, key_at) != key_at:
                    self.duplicates.append(((*trail[1:], key), seen[key], key_at))
                continue
            if kind == _CLOSE:
                inside, index, seen = outer.pop()
                trail.pop()
                continue
            step = key
            if index >= 0:
                step, key_at, index = index, match.start(), index + 1
            below = inside.get(step) if inside is not None and outer else inside
            if wanted is None or (below is not None and below.wanted):
                path = (*trail, step)[1:] if outer else ()
                self._found[path] = (key_at if outer else match.start()), match.start()
            if kind == _OPEN:
                outer.append((inside, index, seen))
                trail.append(step)
                inside, index, seen = below, 0 if match[3] == "[" else -1, {}


def _skip(text: str, at: int) -> int:
    """The offset behind the list or object that begins at `at`."""
    depth = 0
    for match in re.compile(_BRACKET).finditer(text, at):
        depth += 1 if match[1] in "[{" else -1
        if depth == 0:
            return match.end()
    return len(text)


def members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """Key (empty in a list) and the offsets of the value's begin and end, of each member of the container
    that begins at `at`."""
    before_member, scalar_at = re.compile(_BEFORE_MEMBER).match, re.compile(_SCALAR).match
    at += 1
    while True:
        before = before_member(text, at)
        at = before.end() if before else len(text)
        if at >= len(text) or text[at] in "]}":
            return
        token = before[1] if before else None
        begin = at
        if text[at] in "[{":
            at = _skip(text, at)
        else:
            scalar = scalar_at(text, at)
            at = scalar.end() if scalar else len(text)
        yield _text_of(token) if token else "", begin, at


def top_values(text: str) -> dict[str, tuple[int, int]]:
    """Begin and end of the value of each key at the top."""
    start = text.find("{")
    return {key: (begin, end) for key, begin, end in members(text, start)} if start >= 0 else {}


def rule_lines(text: str) -> list[int]:
    """The line in which each rule of a valid policy file begins, in the order of `Policy.rules`.

    In the simple form, the lines of the lists that became rules.
    """
    from pfw.policy.simple import LISTS

    top = top_values(text)
    if "rules" in top:
        offsets = [at for _, at, _ in members(text, top["rules"][0])]
    else:
        lists = {
            (action, key): at
            for action in ("block", "allow")
            if action in top
            for key, at, _ in members(text, top[action][0])
            if text[at] != "[" or next(members(text, at), None) is not None
        }
        offsets = [lists[name] for name in LISTS if name in lists]
    places = Places(text)
    return [places.at(offset)[0] for offset in offsets]


def rule_line(text: str, index: int) -> int:
    """The line of one rule; for many, keep the answer of `rule_lines`. Raises IndexError."""
    return rule_lines(text)[index]


def first_too_deep(text: str, depth: int) -> int:
    """The offset of the first bracket that opens more than `depth` levels; 0 if none does."""
    level = 0
    for match in re.finditer(_BRACKET, text):
        level += 1 if match[1] in "[{" else -1
        if level > depth:
            return match.start(1)
    return 0


def first_unquoted(text: str, wanted: str) -> int:
    """The offset of the first token outside of texts that matches as a whole; 0 if none does."""
    for match in re.finditer(_UNQUOTED, text):
        if match[1] is not None and re.fullmatch(wanted, match[1]):
            return match.start()
    return 0
