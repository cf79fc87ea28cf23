"""The command `pfw`: what each word of the command line sets going. The only module that knows both the
screens and the system; all of ours and all that is heavy is imported when its command is asked for.
"""

from __future__ import annotations

import gc
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pfw.cli.ask import Loaded
    from pfw.daemon.watching import Outcome, Wish
    from pfw.drivers.files import Watch
    from pfw.model.command import Command


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
        from pfw import __version__

        print(f"pfw {__version__}")
        return 0
    from pfw.cli.parser import build_parser

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal that cannot show a character shows its number.
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    return _command(options.command)(options)


def _command(name: str) -> Callable[[Namespace], int]:
    if name == "monitor":
        return monitor
    if name == "replay":
        return replay
    from pfw.cli import ask

    commands = {
        "check": ask.check,
        "explain": ask.explain,
        "schema": ask.schema,
        "convert": ask.convert,
        "completion": ask.completion,
    }
    return commands[name]


def monitor(options: Namespace) -> int:
    """`pfw monitor`."""
    from pfw.cli import rules, watch
    from pfw.cli.ask import BAD_INPUT, REFUSED, loaded, tell
    from pfw.drivers.files import Watch
    from pfw.drivers.output import Output

    seen = Watch(Path(options.rules) if options.rules is not None else next(rules.defaults(), Path()))
    rules_file = loaded(options.rules)
    if isinstance(rules_file, int):
        return rules_file
    try:
        wish = _wish(options)
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    output = Output(wait=options.read is not None)
    screen = watch.screen(options)
    outcome = _watched(wish, rules_file, seen, lambda commands: output.write(screen.lines(commands)))
    if isinstance(outcome, int):
        return outcome
    losses = {**outcome.losses, "lines on the screen": output.left_out}
    output.close(watch.summary(options, outcome.totals, losses, outcome.duration_s))
    if outcome.error is not None:
        tell(f"{options.read or options.interface or 'capture'}: {outcome.error}")
        return BAD_INPUT if options.read else REFUSED
    return 0


def _watched(wish: Wish, rules_file: Loaded, seen: Watch, show: Callable[[list[Command]], None]) -> Outcome | int:
    """The watch; or, with what is wrong told, the exit status."""
    from pfw.cli import rules
    from pfw.cli.ask import BAD_INPUT, REFUSED, tell
    from pfw.daemon.watching import watching
    from pfw.drivers.bpf import FilterError
    from pfw.record.files import FileRefusedError

    try:
        return watching(wish, rules_file.policy, (rules_file.path, seen, rules.load), show, tell)
    except FilterError as error:
        tell(str(error))
        return BAD_INPUT
    except FileRefusedError as error:
        tell(str(error))
        return REFUSED
    except BrokenPipeError:
        raise
    except OSError as error:
        if isinstance(error, PermissionError) and wish.read is None:
            tell("capturing packets needs root (CAP_NET_RAW); type: sudo python3 firewall.py")
            return REFUSED
        tell(f"{wish.read or wish.interface or 'capture'}: {error.strerror or error}")
        return BAD_INPUT if wish.read else REFUSED


def _wish(options: Namespace) -> Wish:
    """What the command line of `monitor` asks for. Raises ValueError."""
    from pfw.cli.watch import addresses
    from pfw.daemon.watching import Wish
    from pfw.record.recorder import Options
    from pfw.record.syslog import parse_target

    if options.read is not None and options.interface is not None:
        raise ValueError("--read and --interface do not go together: a file is read, or an interface watched")
    if options.local is not None and options.read is None:
        raise ValueError("--local is for captures (--read); live, this machine's addresses are known")
    if options.syslog is not None:
        try:
            parse_target(options.syslog)
        except ValueError as error:
            raise ValueError(f"--syslog {options.syslog!r} {error}") from None
    for name in ("log", "eve", "syslog", "journal", "interface"):
        if not (getattr(options, name) or "").isprintable():
            raise ValueError(f"--{name} {getattr(options, name)!r} has characters that cannot be shown")
    file_bytes = max(1, options.log_budget // 10)
    return Wish(
        interface=options.interface,
        read=options.read,
        filter_text=options.filter,
        local=addresses(options.local),
        packets=options.count,
        seconds=options.seconds,
        every_packet=options.every_packet,
        records=Options(
            log=options.log,
            eve=options.eve,
            syslog=options.syslog,
            journal=options.journal,
            budget_bytes=options.log_budget,
            file_bytes=file_bytes,
            summaries_per_s=None if options.read is not None else 200,
        ),
    )


def replay(options: Namespace) -> int:
    """`pfw replay`."""
    from contextlib import closing

    from pfw.cli import watch
    from pfw.cli.ask import BAD_INPUT, loaded, tell
    from pfw.cli.progress import Progress
    from pfw.daemon import replay as replaying
    from pfw.daemon.local import viewpoint
    from pfw.daemon.sources import CaptureFile
    from pfw.drivers.bpf import FilterError
    from pfw.drivers.files import size_bytes

    rules_file = loaded(options.rules)
    if isinstance(rules_file, int):
        return rules_file
    try:
        local = viewpoint(watch.addresses(options.local))
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    try:
        sizes = [size_bytes(path) for path in options.files]
        progress = Progress(sum(size or 0 for size in sizes) if None not in sizes else None)
        files = [CaptureFile(path, options.filter, progress.advance) for path in options.files]
        with closing(progress):
            replayed = replaying.replay(files, rules_file.policy, local)
    except FilterError as error:
        tell(str(error))
        return BAD_INPUT
    except OSError as error:
        tell(f"{error.filename or options.files[0]}: {error.strerror or error}")
        return BAD_INPUT
    tops, losses = replayed.tops.rows(options.top), {"packets by the capturing system": replayed.dropped}
    print("\n".join(watch.replay_report(options, replayed.totals, tops, losses, replayed.duration_s)))
    for error_text in replayed.errors:
        tell(error_text)
    return BAD_INPUT if replayed.errors else 0
