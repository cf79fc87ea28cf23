"""The text of a policy file as a value, and in plain words what is wrong where it is no JSON.

Every way in which reading can fail ends in a PolicyError with one fault: bytes that are no text, text
that is no JSON, numbers that Python does not read, nesting that is too deep.
"""

from __future__ import annotations

import json
import re

from pfw.model.policy import Fault, PolicyError
from pfw.policy.locate import Places, first_too_deep, first_unquoted
from pfw.policy.report import shown

MAX_SIZE = 64 << 20
"""Bytes (characters where a text is given). 64 MiB hold some 3 million prefixes."""

MAX_DEPTH = 32
"""Nesting that is reported when Python's own bound was passed; a policy has 5 levels."""

_CONSTANT = "NaN|-?Infinity"
_LONG_NUMBER = r"-?[0-9]{1000,}"


class _NoNumberError(Exception):
    """NaN or Infinity, which Python reads and JSON does not have."""


class Document:
    """A file that is JSON. `duplicate_keys` tells that an object has a key twice (the last one counts)."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.duplicate_keys = False
        self.value: object = None
        try:
            self.value = json.loads(text, object_pairs_hook=self._make_object, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            offset, what = _explain(text, error.pos, error.msg)
        except _NoNumberError as error:
            offset, what = first_unquoted(text, _CONSTANT), f"{error} is not a number in JSON"
        except RecursionError:
            offset, what = first_too_deep(text, MAX_DEPTH), "is nested too deep; a policy needs 5 levels"
        except ValueError:  # more digits than Python reads
            offset, what = first_unquoted(text, _LONG_NUMBER), "has a number with too many digits"
        else:
            return
        raise _one_fault(text, offset, what, file)

    def _make_object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) != len(pairs):
            self.duplicate_keys = True
        return made


def read_document(text: str | bytes, file: str) -> Document:
    """The file as a value. Raises PolicyError with one fault."""
    if len(text) > MAX_SIZE:
        raise PolicyError([Fault(1, 1, "", f"is larger than {MAX_SIZE >> 20} MiB", file)])
    decoded = text if isinstance(text, str) else _decode(text, file)
    if decoded.startswith("\ufeff"):
        raise PolicyError([Fault(1, 1, "", "begins with a byte order mark; save it as UTF-8 without one", file)])
    if not decoded.strip():
        what = 'is empty; the smallest policy is {"version": 2, "rules": []}'
        raise PolicyError([Fault(1, 1, "", what, file)])
    return Document(decoded, file)


def _refuse_constant(name: str) -> object:
    raise _NoNumberError(name)


def _one_fault(text: str, offset: int, what: str, file: str) -> PolicyError:
    line, column = Places(text).at(offset)
    return PolicyError([Fault(line, column, "", what, file)])


def _decode(data: bytes, file: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PolicyError([Fault(1, 1, "", "is UTF-16; save it as UTF-8", file)])
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        what = f"the byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise _one_fault(before, len(before), what, file) from None


def _explain(text: str, at: int, message: str) -> tuple[int, str]:
    """Offset and words for what Python's json said about `at`. Its messages differ between versions."""
    rest = text[at : at + 2]
    before = text[:at].rstrip()
    after = text[at + 1 : at + 1000].lstrip()
    if rest.startswith(("#", "//", "/*")):
        return at, 'JSON has no comments; put the remark into a "note"'
    if rest[:1] in ("]", "}") and before.endswith(","):
        return len(before) - 1, "this comma is one too many: nothing follows it"
    if rest[:1] == "," and after[:1] in ("]", "}"):
        return at, "this comma is one too many: nothing follows it"
    if message.startswith("Unterminated string"):
        return at, "this text has no closing quote"
    if message.startswith("Invalid control character"):
        return at, "a line break, tab or control character inside a text; is a closing quote missing?"
    if message.startswith("Invalid"):
        return at, r"a backslash in a text must be written twice (\\)"
    if at >= len(text.rstrip()):
        return at, "the file ends too early; a closing bracket is missing"
    if message.startswith("Extra data"):
        return at, "something follows the end of the policy; a file holds one object"
    return at, _explain_token(text, at, message)


def _explain_token(text: str, at: int, message: str) -> str:
    word = re.compile(r"[\w.+-]*").match(text, at)
    token = word[0] if word else ""
    if text[at] == "'":
        return 'a text stands in double quotes ("), not in single ones'
    if token.lower() in ("true", "false", "null", "none", "yes", "no", "on", "off"):
        return f"{shown(token)} is not a value in JSON; write true, false or null"
    if text[at - 1 : at] in ("0", "-") and token:
        return "a number is written in decimal digits, without a zero in front"
    if "delimiter" in message:
        missing = "comma" if "','" in message else "colon"
        before = "this text" if text[at] == '"' else shown(token or text[at])
        return f"a {missing} is missing before {before}"
    if token:
        return f"{shown(token)} is no JSON value; a text stands in double quotes"
    if "property name" in message:
        return f"a name in double quotes is missing before {shown(text[at])}"
    return f"a value is missing before {shown(text[at])}"
