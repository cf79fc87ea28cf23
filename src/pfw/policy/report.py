"""The report on one policy file: what does not fit, by path, until it is known whether lines are needed.

Everything of the file that gets into a message goes through `shown`, so that a message is one line of
printable characters whatever the file holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from pfw.model.policy import Fault, PolicyError
from pfw.policy.locate import Path, Positions

T = TypeVar("T")

MAX_FAULTS = 1000
"""More are counted, not kept: nobody reads them, and a broken block list could have millions."""

_MAX_SUGGESTIONS = 100
_MAX_SHOWN = 60
_PLAIN_KEY = r"[$A-Za-z_][A-Za-z0-9_-]{0,63}"


class MisfitError(Exception):
    """A value that does not fit. `reason` is for a person; `word` may be a typo for one of `known`.

    Without a reason the fault is reported already, where the alias that the value names is defined.
    """

    def __init__(self, reason: str, word: str = "", known: Iterable[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.word = word
        self.known = known


def shown(value: object) -> str:
    """A value of the file as a message may hold it: on one line, printable, not too long."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return describe(value)
    # A number of thousands of digits is cut before it becomes a text, which Python would refuse.
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of more than 77 digits"
    text = json.dumps(value[: _MAX_SHOWN + 1] if isinstance(value, str) else value, ensure_ascii=False)
    if not text.isprintable():
        text = json.dumps(value[: _MAX_SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…{text[0] if text[0] == chr(34) else ''}"


def describe(value: object) -> str:
    """What kind of value it is, in the words of the messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "an object"


def wrong_type(expected: str, value: object) -> MisfitError:
    return MisfitError(f"must be {expected}, not {describe(value)}")


def path_text(path: Path) -> str:
    """`rules[1].port`; keys that are no plain words in brackets and quotes."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif re.fullmatch(_PLAIN_KEY, step):
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{shown(step)}]")
    return "".join(parts)


def alternatives(words: Iterable[str]) -> str:
    """`"a", "b" or "c"`."""
    quoted = [shown(word) for word in words]
    return " or ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


class Report:
    """Collects faults. `count` is how many there are, those not kept with them."""

    def __init__(self) -> None:
        self.count = 0
        self._noted: list[tuple[Path, bool, str, Path | None]] = []
        self._suggestions = 0

    def fault(self, path: Path, what: str, see: Path | None = None) -> None:
        """A fault of the value at `path`. The line of `see` is put behind it."""
        self._note(path, False, what, see)

    def fault_at_key(self, path: Path, what: str) -> None:
        """A fault of the key that ends `path`."""
        self._note(path, True, what, None)

    def misfit(self, path: Path, misfit: MisfitError) -> None:
        """What a reader raised, with the nearest known words where there are some."""
        if misfit.reason:
            more = self._suggest(misfit.word, misfit.known) if misfit.word else ""
            self._note(path, False, misfit.reason + more, None)

    def unknown_key(self, path: Path, where: str, known: Iterable[str]) -> None:
        """A key that is not there. `where` is what it is no field of."""
        self._note(path, True, f"is not {where}{self._suggest(str(path[-1]), known)}", None)

    def read(self, path: Path, value: object, reader: Callable[[object], T]) -> T | None:
        """What the reader makes of the value, or None and a fault."""
        try:
            return reader(value)
        except MisfitError as misfit:
            self.misfit(path, misfit)
            return None

    def read_each(self, path: Path, value: object, reader: Callable[[object], T]) -> list[T] | None:
        """`read` of each value of a list or of a value that stands alone; None if any does not fit."""
        if not isinstance(value, list):
            alone = self.read(path, value, reader)
            return None if alone is None else [alone]
        if not value:
            self.fault(path, "is an empty list, which nothing can match; give a value or leave the field out")
            return None
        found: list[T] = []
        for index, item in enumerate(value):
            try:
                found.append(reader(item))
            except MisfitError as misfit:
                self.misfit((*path, index), misfit)
                if self.count >= MAX_FAULTS:
                    # Nobody reads them, and a broken block list would take minutes.
                    return None
        return found if len(found) == len(value) else None

    def error(self, text: str, file: str) -> PolicyError:
        """Everything that was noted, and duplicate keys, as faults in the order of the file."""
        wanted = {path[:depth] for path, _, _, _ in self._noted for depth in range(len(path) + 1)}
        wanted.update(see for _, _, _, see in self._noted if see is not None)
        positions = Positions(text, wanted)
        faults: list[Fault] = []
        for path, at_key, what, see in self._noted:
            line, column = positions.key(path) if at_key else positions.value(path)
            more = "" if see is None else f" (line {positions.value(see)[0]})"
            faults.append(Fault(line, column, path_text(path), what + more, file))
        for path, first, second in positions.duplicates[:MAX_FAULTS]:
            line, column = positions.at(second)
            what = f"is here twice, the first time in line {positions.at(first)[0]}; take one away"
            faults.append(Fault(line, column, path_text(path), what, file))
        faults.sort()
        if self.count > len(self._noted):
            last = faults[-1]
            what = f"and {self.count - len(self._noted)} more faults"
            faults.append(Fault(last.line, last.column, "", what, file))
        return PolicyError(faults)

    def _note(self, path: Path, at_key: bool, what: str, see: Path | None) -> None:
        self.count += 1
        if len(self._noted) < MAX_FAULTS:
            self._noted.append((path, at_key, what, see))

    def _suggest(self, word: str, known: Iterable[str]) -> str:
        """`; did you mean "port"?`, or nothing. Comparing is slow, so it is done a bounded number of times."""
        if self._suggestions >= _MAX_SUGGESTIONS or not 0 < len(word) <= 40:
            return ""
        self._suggestions += 1
        lower = word.lower()
        near = [name for name in known if abs(len(name) - len(word)) <= 4][:2000]
        same = [name for name in near if name.lower() == lower]
        if not same:
            from difflib import get_close_matches

            same = get_close_matches(lower, near, n=2, cutoff=0.6)
        return f"; did you mean {alternatives(same)}?" if same else ""
