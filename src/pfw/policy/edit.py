"""Edits of a policy file's text: a rule goes in or out, everything else stays as it is, byte for byte.

The file must be of the full form; one of lists is made into it by `convert.py` first. Where a new rule
goes is for `placing.py` to say, how it is written for `layout.py`.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from pfw.policy.layout import Layout, indent_at, layout_of, newline_of, squeeze, write_object
from pfw.policy.load import FULL_KEYS
from pfw.policy.locate import Places, members, rule_lines, top_values
from pfw.policy.near import near_words
from pfw.policy.report import alternatives, describe, shown
from pfw.policy.simple import filled_lists
from pfw.policy.syntax import read_document
from pfw.policy.values import MAX_NAME

_Span = tuple[int, int]
"""Offsets of a value's begin and end."""


class Edited(Struct, frozen=True):
    """A text that was edited: the rule that went in or out, as it is written, and where.

    `index` is its place among the rules and `line` the line in which it begins, from 1: in the new text
    of a rule that went in, in the old text of one that went out.
    """

    text: str
    rule_text: str
    index: int
    line: int
    name: str


class NoRuleError(ValueError, LookupError):
    """There is no rule of that name. `near` are the names of the file that may have been meant."""

    def __init__(self, name: str, near: list[str]) -> None:
        meant = f"; did you mean {alternatives(near)}?" if near else ""
        super().__init__(f"there is no rule {shown(name)}{meant}")
        self.name = name
        self.near = near


def insert_rule(text: str | bytes, rule: dict[str, object], place: int | None, file: str = "rules.json") -> Edited:
    """Write a rule into the file before the one at `place`, or behind all if that is None.

    A name that is taken gets a number. Raises PolicyError for a text that is no JSON, ValueError for one
    that is no policy of rules.
    """
    content, document = _read(text, file)
    if not any(key in document for key in FULL_KEYS):
        raise ValueError('the file has lists and no rules; make rules of it first, as "pfw convert" does')
    rules = _rules_in(document)
    index = len(rules) if place is None else place
    if not 0 <= index <= len(rules):
        raise ValueError(f"there is no place {index} among {len(rules)} rules")
    named = {**rule, "name": _free_name(rule.get("name"), _names(rules))}
    if rules:
        before, rule_text, after = _beside(content, named, index)
    elif "rules" in document:
        before, rule_text, after = _alone(content, named)
    else:
        before, rule_text, after = _with_key(content, named)
    line = before.count("\n") + 1
    return Edited(before + rule_text + after, rule_text, index, line, str(named["name"]))


def delete_rule(text: str | bytes, name: str, file: str = "rules.json") -> Edited:
    """Take a rule out of the file, with its comma and its lines.

    Raises NoRuleError; PolicyError for a text that is no JSON, ValueError for one that is no policy of rules.
    """
    content, document = _read(text, file)
    if not any(key in document for key in FULL_KEYS):
        raise ValueError(_how_without_rules(content, document, name))
    names = _names(_rules_in(document))
    if name not in names:
        raise NoRuleError(name, near_words(name, [each for each in names if each]))
    index = names.index(name)
    array, spans = _rule_spans(content)
    begin, end = spans[index]
    line, _ = Places(content).at(begin)
    # The inverse of `_beside`: what a rule brought with it goes with it.
    if index + 1 < len(spans):
        edited = content[:begin] + content[spans[index + 1][0] :]
    elif index:
        edited = content[: spans[index - 1][1]] + content[end:]
    else:
        edited = content[: array[0]] + "[]" + content[array[1] :]
    return Edited(edited, content[begin:end], index, line, name)


def _read(text: str | bytes, file: str) -> tuple[str, dict[str, object]]:
    document = read_document(text, file)
    if not isinstance(document.value, dict):
        raise ValueError(f"a policy is an object in braces {{…}}, not {describe(document.value)}")
    return document.text, document.value


def _rules_in(document: dict[str, object]) -> list[object]:
    rules = document.get("rules", [])
    if not isinstance(rules, list):
        raise ValueError(f'"rules" must be a list of rules, not {describe(rules)}')
    return rules


def _names(rules: list[object]) -> list[str]:
    """The name of each rule; empty for what has none."""
    names = [rule.get("name") if isinstance(rule, dict) else "" for rule in rules]
    return [name if isinstance(name, str) else "" for name in names]


def _free_name(name: object, taken: Collection[str]) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError("a rule needs a name")
    names = set(taken)
    free, number = name, 1
    while free in names:
        number += 1
        free = f"{name[: MAX_NAME - len(str(number)) - 1].rstrip()} {number}"
    return free


def _how_without_rules(content: str, document: dict[str, object], name: str) -> str:
    lists = [f"{action} {key}" for action, key, _ in filled_lists(document)]
    lines = dict(zip(lists, rule_lines(content), strict=False))
    where = f" (line {lines[name]})" if name in lines else ""
    return f'the file has lists and no rules; take the entry out of its list{where}, or make rules with "pfw convert"'


def _rule_spans(content: str) -> tuple[_Span, list[_Span]]:
    """Where the list of rules is, and each of them."""
    array = top_values(content)["rules"]
    return array, [(begin, end) for _, begin, end in members(content, array[0])]


def _beside(content: str, rule: dict[str, object], index: int) -> tuple[str, str, str]:
    """The text before a rule that is written among others, its own, and the text behind it."""
    array, spans = _rule_spans(content)
    layout = _neighbours_layout(content, spans, index)
    if len(spans) > 1:
        behind = min(max(index, 1), len(spans) - 1)
        gap = squeeze(content[spans[behind - 1][1] : spans[behind][0]])
    else:
        space = squeeze(content[array[0] + 1 : spans[0][0]])
        gap = f",{space}" if space or layout.compact else ", "
    if index < len(spans):
        before, after = content[: spans[index][0]], gap + content[spans[index][0] :]
    else:
        before, after = content[: spans[-1][1]] + gap, content[spans[-1][1] :]
    return before, write_object(rule, layout, _column(before)), after


def _neighbours_layout(content: str, spans: list[_Span], index: int) -> Layout:
    """That of the rule before or behind, rather of one that is not a member a line: that may be for its length."""
    layouts = [layout_of(content, begin) for begin, _ in spans[max(index - 1, 0) : index + 1]]
    return next((layout for layout in layouts if not layout.member_a_line), layouts[0])


def _alone(content: str, rule: dict[str, object]) -> tuple[str, str, str]:
    """The same for the first rule of a list that is empty."""
    begin, end = top_values(content)["rules"]
    top = content.index("{")
    layout = layout_of(content, top)
    indent = indent_at(content, begin) if "\n" in content[top:begin] else None
    return _in_brackets(content[:begin], rule, layout, indent, content[end:])


def _with_key(content: str, rule: dict[str, object]) -> tuple[str, str, str]:
    """The same for the first rule of a file that has no list for it."""
    top = content.index("{")
    layout = layout_of(content, top)
    end = max(end for _, end in top_values(content).values())
    line = layout.comma.rpartition("\n")
    indent = line[2][: len(line[2]) - len(line[2].lstrip(" \t"))] if line[1] else None
    return _in_brackets(f'{content[:end]}{layout.comma}"rules"{layout.colon}', rule, layout, indent, content[end:])


def _in_brackets(
    before: str, rule: dict[str, object], top: Layout, indent: str | None, after: str
) -> tuple[str, str, str]:
    """A list of one rule: on lines of its own, indented below what has `indent`, or where that is None all on one."""
    layout = Layout(colon=":", comma=",") if top.compact else Layout()
    if indent is None:
        return f"{before}[", write_object(rule, layout, 0), f"]{after}"
    newline = newline_of(before)
    inner = indent * 2 or "  "
    layout = Layout(colon=layout.colon, comma=layout.comma, line_break=f",{newline}{inner} ")
    return f"{before}[{newline}{inner}", write_object(rule, layout, len(inner)), f"{newline}{indent}]{after}"


def _column(before: str) -> int:
    return len(before) - before.rfind("\n") - 1
