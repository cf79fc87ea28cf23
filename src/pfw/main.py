"""The command `pfw`: from its words to the function that does what they say, in `cli/ask.py` for those that only ask
and in `commands/` for the others. All of ours and all that is heavy is imported when its command is asked for.
"""

from __future__ import annotations

import gc
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from io import TextIOWrapper

from pfw import __version__


def main(argv: list[str] | None = None) -> int:
    """Run one command; gives its exit status."""
    _open_closed_streams()
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            # Here, because nobody could catch what goes wrong at exit.
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough; nothing is to be written at exit either.
        sys.stdout = None
        return 0
    except OSError as error:
        sys.stdout = None
        print(f"pfw: {error.filename or 'standard output'}: {error.strerror or error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130


def _open_closed_streams() -> None:
    """Make standard streams that were closed when we began /dev/null. Else what is opened next would get their
    numbers, and messages would go into it."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _run(arguments: list[str]) -> int:
    # A command is short, or frees what it uses by itself (`engine/flows.py`); the collector's rounds would
    # walk every connection and rule that there is, and cost a third of the time.
    gc.disable()
    # Scapy, where it gets imported, would keep caches in a home folder, under sudo somebody else's.
    os.environ.update(dict.fromkeys(("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), os.devnull))
    if arguments == ["--version"]:
        print(f"pfw {__version__}")
        return 0
    from pfw.cli.parser import build_parser

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal that cannot show a character shows its number.
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser()
    options, more = parser.parse_known_args(arguments)
    words = getattr(options, _WORDS.get(options.command, ""), None)
    if more and (words is None or any(word.startswith("-") for word in more)):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if more and words is not None:
        # argparse takes the words before an option and does not come back to those behind it.
        words += more
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    return _command(options.command)(options)


_HOMES = {
    "cli.ask": ("schema", "convert", "completion"),
    "commands.testing": ("check", "test"),
    "commands.explaining": ("explain",),
    "commands.watching": ("monitor", "replay"),
    "commands.enforcing": ("up", "confirm", "down", "status", "show", "panic", "install", "uninstall"),
    "commands.editing": ("allow", "block", "reject", "delete", "undo", "history"),
    "commands.banning": ("ban",),
    "commands.listing": ("lists",),
    "commands.diagnosing": ("doctor",),
    "commands.asking": ("ask",),
    "commands.programs": ("apps", "connections", "why"),
    "commands.recalling": ("log", "stats", "first-seen"),
    "commands.rehearsing": ("rehearse", "suggest"),
    "commands.serving": ("daemon",),
    "commands.notifying": ("agent",),
    "commands.importing": ("import",),
}
"""Where each command is; nothing else is imported."""


_WORDS = {
    "allow": "words", "block": "words", "reject": "words", "ban": "addresses", "lists": "names", "ask": "words",
    "first-seen": "what",
}  # fmt: skip
"""Where a command that takes any number of words has them."""


def _command(name: str) -> Callable[[Namespace], int]:
    home = next(home for home, names in _HOMES.items() if name in names)
    function = "import_" if name == "import" else name.replace("-", "_")
    found: Callable[[Namespace], int] = getattr(import_module(f"pfw.{home}"), function)
    return found
