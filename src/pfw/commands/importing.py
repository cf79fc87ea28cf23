"""`pfw import`: the rules of another firewall as a policy file, with what became of each of them."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

from pfw.cli import rules
from pfw.cli.screen import encode
from pfw.commands.answer import BAD_INPUT, NO, OK, tell, told
from pfw.drivers.store import write
from pfw.model.text import counted, printable
from pfw.policy.opensnitch import (
    DEFAULTS,
    KEPT,
    LEFT_OUT,
    NARROWED,
    STRICTER,
    Imported,
    Outcome,
    Settings,
    import_rules,
)
from pfw.policy.opensnitch_rule import NotLoadedError, RuleFile, TooMuchError, read_aliases, read_default

FILES_MAX = 10_000
FILE_BYTES_MAX = 1 << 20
ALL_BYTES_MAX = 64 << 20
_LISTS_MAX = 1000
_MODE = 0o644


class _BadInputError(Exception):
    """What was named cannot be imported."""


@told(root=False)
def import_(options: Namespace) -> int:
    """`pfw import`."""
    try:
        settings = _settings(options)
        imported = import_rules(_rule_files(Path(options.folder)), settings)
        if options.output is not None:
            _write(Path(options.output), imported.text)
    except (_BadInputError, TooMuchError) as error:
        tell(str(error))
        return BAD_INPUT
    except OSError as error:
        tell(f"{error.filename or options.folder}: {error.strerror or error}")
        return BAD_INPUT
    notes = _notes(settings)
    if options.json:
        print(encode(_facts(imported, notes, options.output)))
        return OK if imported.is_exact else NO
    for each in imported.outcomes:
        print(_line(each), file=sys.stderr)
    for note in (*notes, _summary(imported)):
        tell(note)
    if options.output is None:
        print(imported.text, end="")
    return OK if imported.is_exact else NO


def _rule_files(folder: Path) -> list[RuleFile]:
    """The files that OpenSnitch would read, in its order. Raises OSError and _BadInputError."""
    names = sorted((name for name in os.listdir(folder) if name.endswith(".json")), key=os.fsencode)
    if not names:
        raise _BadInputError(f"{folder}: there is no rule (a file *.json) in it")
    if len(names) > FILES_MAX:
        raise _BadInputError(f"{folder}: has more than {FILES_MAX:,} rules")
    files: list[RuleFile] = []
    left = ALL_BYTES_MAX
    for name in names:
        content = _read(folder / name)
        left -= len(content)
        if left < 0:
            raise _BadInputError(f"{folder}: has more than {ALL_BYTES_MAX >> 20} MiB of rules")
        files.append(RuleFile(name, content))
    return files


def _read(path: Path) -> bytes:
    """A file, which OpenSnitch may read whole, so that what is too large must not be passed over."""
    if path.stat().st_size > FILE_BYTES_MAX:
        raise _BadInputError(f"{path}: is larger than {FILE_BYTES_MAX >> 20} MiB")
    content = rules.read(path)
    if len(content) > FILE_BYTES_MAX:
        raise _BadInputError(f"{path}: is larger than {FILE_BYTES_MAX >> 20} MiB")
    return content


def _settings(options: Namespace) -> Settings:
    """What is asked for, and what stands beside the folder of the rules."""
    beside = Path(options.folder).absolute().parent
    aliases = _beside(beside / "network_aliases.json")
    config = _beside(beside / "default-config.json")
    try:
        known = {} if aliases is None else read_aliases(aliases)
    except (NotLoadedError, TooMuchError) as error:
        raise _BadInputError(f"{beside / 'network_aliases.json'}: {error}") from None
    try:
        unattended = None if config is None else read_default(config)
    except (NotLoadedError, TooMuchError) as error:
        raise _BadInputError(f"{beside / 'default-config.json'}: {error}") from None
    return Settings(
        default=options.default or "ask",
        unattended=unattended if unattended in DEFAULTS else "deny",
        aliases=known,
        leave_out_denies=options.leave_out_denies,
        folder=_lists_in,
    )


def _beside(path: Path) -> bytes | None:
    try:
        return _read(path)
    except FileNotFoundError:
        return None


def _lists_in(folder: str) -> tuple[str, ...] | None:
    """The lists that OpenSnitch reads in a folder: `*.*`, those hidden left out."""
    try:
        if not os.path.isabs(folder):
            return None
        names = sorted(name for name in os.listdir(folder) if "." in name and not name.startswith("."))
    except (OSError, ValueError):
        return None
    paths = [os.path.join(folder, name) for name in names]
    return tuple(path for path in paths if os.path.isfile(path)) if len(paths) <= _LISTS_MAX else None


def _write(path: Path, text: str) -> None:
    """Nothing is written over: what is there may be in force."""
    if os.path.lexists(path):
        raise _BadInputError(f"{path}: is there already; name another file")
    if not path.absolute().parent.is_dir():
        raise _BadInputError(f"{path}: the folder is not there")
    write(path, text.encode(), _MODE)


def _notes(settings: Settings) -> list[str]:
    """What holds besides the rules."""
    default = DEFAULTS[settings.default]
    said = f"what no rule decides: {default}"
    if default == "ask":
        said += f", and without an answer {'allow' if settings.unattended == 'allow' else 'block'} (ask.unattended)"
    return [
        f"{said}; --default says otherwise",
        "what comes in and is forwarded: block, which OpenSnitch does not judge; pfw allow lets it in",
        'loopback is judged by the rules, as OpenSnitch does; "base": {"loopback": true} lets all of it through',
    ]


def _line(outcome: Outcome) -> str:
    why = f": {'; '.join(outcome.why)}" if outcome.why else ""
    return printable(f"{outcome.outcome:<9} {outcome.rule or '-'} ({outcome.file}){why}")


def _summary(imported: Imported) -> str:
    numbers = {word: sum(each.outcome == word for each in imported.outcomes) for word in _WORDS}
    rest = ", ".join(f"{number:,} {word}" for word, number in numbers.items() if number)
    return f"{counted(len(imported.outcomes), 'rule')}: {rest}"


_WORDS = (KEPT, NARROWED, STRICTER, LEFT_OUT)


def _facts(imported: Imported, notes: list[str], output: str | None) -> dict[str, object]:
    from msgspec import json

    return {
        "exact": imported.is_exact,
        "rules": [
            {
                "rule": printable(each.rule),
                "file": printable(each.file),
                "outcome": each.outcome,
                "why": [printable(text) for text in each.why],
                "written": list(each.written),
            }
            for each in imported.outcomes
        ],
        "notes": notes,
        "output": None if output is None else printable(output),
        "policy": json.decode(imported.text),
    }
