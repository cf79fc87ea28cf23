"""Writes docs/pfw.1 and packaging/completions/ from the parser of the command line; `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pages() -> dict[str, str]:
    """What each file, by its path in the repository, has to hold."""
    from pfw.cli.pages import completion, man_page
    from pfw.cli.parser import build_parser

    parser = build_parser()
    return {
        "docs/pfw.1": man_page(parser),
        "packaging/completions/pfw.bash": completion(parser, "bash"),
        "packaging/completions/_pfw": completion(parser, "zsh"),
        "packaging/completions/pfw.fish": completion(parser, "fish"),
    }


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: tools/make_man.py [--check]", file=sys.stderr)
        return 2
    stale = False
    for name, text in pages().items():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if arguments:
            print(f"{name} is not what the parser says; type: .venv/bin/python tools/make_man.py", file=sys.stderr)
            stale = True
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    sys.exit(main(sys.argv[1:]))
