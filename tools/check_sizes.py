"""Holds the size budget: how long a file and a function may be, and what is allowed to be longer for now.

The list of exceptions beside this file can only shrink: an exception that grew, that fits the budget by now or whose
place is gone is a fault, and so is one that records more lines than there are. A line of it is

    PATH LINES            or            PATH:FUNCTION LINES

A function is counted from its `def` to its last line (no decorators), a method is called Class.method.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXCEPTIONS = Path(__file__).with_name("size_exceptions.txt")

FUNCTION_LINES = 40
# The first pattern that finds a file decides. Tests are lists of cases, which are easier to read in one piece.
FILE_LINES = (
    ("firewall.py", 400),
    ("src/**/*.py", 400),
    ("tools/**/*.py", 400),
    ("bench/*.py", 400),
    ("bench/programs/*.py", 400),
    ("tests/**/*.py", 600),
)


def measure(root: Path) -> Iterator[tuple[str, int, int]]:
    """Each file and function as (name, lines, lines allowed); `name` as in the list of exceptions."""
    for pattern, allowed in FILE_LINES:
        for path in sorted(root.glob(pattern)):
            text = path.read_text(encoding="utf-8")
            name = path.relative_to(root).as_posix()
            yield name, len(text.splitlines()), allowed
            for function, lines in functions_in(ast.parse(text, name)):
                yield f"{name}:{function}", lines, FUNCTION_LINES


def functions_in(tree: ast.Module) -> Iterator[tuple[str, int]]:
    todo: list[tuple[str, ast.AST]] = [("", tree)]
    while todo:
        prefix, parent = todo.pop()
        for node in ast.iter_child_nodes(parent):
            inner = prefix
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{prefix}{node.name}."
                if not isinstance(node, ast.ClassDef):
                    yield f"{prefix}{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1
            todo.append((inner, node))


def read_exceptions(path: Path) -> dict[str, int]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    entries = [line.rsplit(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    return {name: int(size) for name, size in entries}


def faults(sizes: Mapping[str, tuple[int, int]], exceptions: Mapping[str, int]) -> Iterator[str]:
    for name, (lines, allowed) in sizes.items():
        excepted = exceptions.get(name)
        if excepted is None:
            if lines > allowed:
                yield f"{name}: {lines} lines, {allowed} are allowed"
        elif lines <= allowed:
            yield f"{name}: fits into {allowed} lines now, take it off the list of exceptions"
        elif lines > excepted:
            yield f"{name}: {lines} lines, grew beyond the {excepted} of its exception"
        elif lines < excepted:
            yield f"{name}: {lines} lines, lower its exception from {excepted}"
    for name in exceptions.keys() - sizes.keys():
        yield f"{name}: does not exist, take it off the list of exceptions"


def main() -> int:
    # Of two functions with one name (an overload, a branch), the longer one counts.
    sizes: dict[str, tuple[int, int]] = {}
    for name, lines, allowed in measure(ROOT):
        sizes[name] = max(sizes.get(name, (0, 0)), (lines, allowed))
    found = sorted(faults(sizes, read_exceptions(EXCEPTIONS)))
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
