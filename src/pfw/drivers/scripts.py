"""Which file an interpreter runs, told by its arguments. They are only what the process says of itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

_NAME = re.compile(r"(python|pypy|perl|ruby|nodejs|node|bash|rbash|sh|dash|ash|zsh|ksh|mksh|php|lua|luajit)[\d.]*")


class _Options(Struct, frozen=True):
    """The options of an interpreter that are more than a flag, as letters: those after which comes code (or a module,
    or the standard input) instead of a file, those with a value, and those whose value stands in the same word. `words`
    are the long ones with a value, `code_words` those with code. The value of `file` is the script."""

    code: str
    value: str = ""
    attached: str = ""
    words: tuple[str, ...] = ()
    code_words: tuple[str, ...] = ()
    file: str = ""


_PYTHON = _Options(code="cm", value="WXQ", words=("--check-hash-based-pycs",))
_SHELL = _Options(code="cs", value="oO", words=("--rcfile", "--init-file"))
_NODE = _Options(
    code="ep",
    value="rC",
    words=("--require", "--import", "--loader", "--experimental-loader", "--conditions", "--env-file", "--title"),
    code_words=("--eval", "--print"),
)
_LUA = _Options(code="e", value="l", attached="jOb")
_OPTIONS = {
    "python": _PYTHON,
    "pypy": _PYTHON,
    "perl": _Options(code="eE", value="I", attached="MmixFDCdV"),
    "ruby": _Options(code="e", value="rIEC", attached="xFWKTi"),
    "node": _NODE,
    "nodejs": _NODE,
    "php": _Options(
        code="rBRES", value="dczt", words=("--define", "--php-ini"), code_words=("--run", "--server"), file="f"
    ),
    "lua": _LUA,
    "luajit": _LUA,
}


def script_argument(interpreter: str, arguments: Sequence[bytes]) -> bytes | None:
    """The argument that names the script; None where there is none, or the program is no interpreter.

    `interpreter` is the name of the executable, `arguments` are those after the first.
    """
    match = _NAME.fullmatch(interpreter)
    if match is None:
        return None
    options = _OPTIONS.get(match[1], _SHELL)
    at = 0
    while at < len(arguments):
        word = arguments[at].decode("latin-1")
        if word == "--":
            return _file(arguments, at + 1)
        if word in ("", "-"):
            return None
        if word[0] != "-" and not (word[0] == "+" and options is _SHELL):
            return arguments[at]
        if options.file and word[1] == options.file:
            return word[2:].encode("latin-1") or _file(arguments, at + 1)
        taken = _taken(word, options)
        if taken is None:
            return None
        at += taken
    return None


def _taken(word: str, options: _Options) -> int | None:
    """How many arguments an option is, its value with it; None for one that brings code."""
    if word.startswith("--"):
        if word.partition("=")[0] in options.code_words:
            return None
        return 2 if word in options.words else 1
    for place, letter in enumerate(word[1:], 2):
        if letter in options.code:
            return None
        if letter in options.value:
            return 1 if word[place:] else 2
        if letter in options.attached:
            return 1
    return 1


def _file(arguments: Sequence[bytes], at: int) -> bytes | None:
    return arguments[at] if at < len(arguments) and arguments[at] else None
