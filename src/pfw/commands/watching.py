"""`pfw monitor` and `pfw replay`: from the words of the command line to a watch and its end."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pfw.cli.ask import Loaded
    from pfw.daemon.watching import Outcome, Wish
    from pfw.drivers.files import Watch
    from pfw.model.command import Command
    from pfw.model.policy import Policy
    from pfw.record.recorder import Options as Records


def monitor(options: Namespace) -> int:
    """`pfw monitor`."""
    from pfw.cli import rules, watch
    from pfw.cli.ask import BAD_INPUT, REFUSED, loaded, tell
    from pfw.commands.explaining import known_lists
    from pfw.drivers.files import Watch
    from pfw.drivers.output import Output

    if options.enforce:
        from pfw.commands.kernel import enforced

        return enforced(options)
    seen = Watch(Path(options.rules) if options.rules is not None else next(rules.defaults(), Path()))
    rules_file = loaded(options.rules)
    if isinstance(rules_file, int):
        return rules_file
    try:
        wish = wish_of(options)
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    rules_file = rules_file._replace(policy=known_lists(rules_file.policy))
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
    from pfw.cli.ask import BAD_INPUT, REFUSED, tell
    from pfw.daemon.watching import watching
    from pfw.drivers.bpf import FilterError
    from pfw.record.files import FileRefusedError

    try:
        return watching(wish, rules_file.policy, (rules_file.path, seen, _load), show, tell)
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


def _load(path: Path) -> Policy:
    from pfw.cli import rules
    from pfw.commands.explaining import known_lists

    return known_lists(rules.load(path))


def wish_of(options: Namespace) -> Wish:
    """What the command line of `monitor` asks for. Raises ValueError."""
    from pfw.cli.watch import addresses
    from pfw.daemon.watching import Wish

    if options.read is not None and options.interface is not None:
        raise ValueError("--read and --interface do not go together: a file is read, or an interface watched")
    if options.local is not None and options.read is None:
        raise ValueError("--local is for captures (--read); live, this machine's addresses are known")
    if not (options.interface or "").isprintable():
        raise ValueError(f"--interface {options.interface!r} has characters that cannot be shown")
    return Wish(
        interface=options.interface,
        read=options.read,
        filter_text=options.filter,
        local=addresses(options.local),
        packets=options.count,
        seconds=options.seconds,
        every_packet=options.every_packet,
        records=records_of(options, summaries_per_s=None if options.read is not None else 200),
    )


def records_of(options: Namespace, summaries_per_s: int | None = 200) -> Records:
    """The logs that a command line asks for. Raises ValueError."""
    from pfw.record.recorder import Options
    from pfw.record.syslog import parse_target

    if options.syslog is not None:
        try:
            parse_target(options.syslog)
        except ValueError as error:
            raise ValueError(f"--syslog {options.syslog!r} {error}") from None
    for name in ("log", "eve", "syslog", "journal"):
        if not (getattr(options, name) or "").isprintable():
            raise ValueError(f"--{name} {getattr(options, name)!r} has characters that cannot be shown")
    return Options(
        log=options.log,
        eve=options.eve,
        syslog=options.syslog,
        journal=options.journal,
        budget_bytes=options.log_budget,
        file_bytes=max(1, options.log_budget // 10),
        summaries_per_s=summaries_per_s,
    )


def replay(options: Namespace) -> int:
    """`pfw replay`."""
    return _detect(options) if options.detect else _judge(options)


def _judge(options: Namespace) -> int:
    """What the policy would have done."""
    from contextlib import closing

    from pfw.cli import watch
    from pfw.cli.ask import BAD_INPUT, loaded, tell
    from pfw.cli.progress import Progress
    from pfw.commands.explaining import known_lists
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
            replayed = replaying.replay(files, known_lists(rules_file.policy), local)
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


def _detect(options: Namespace) -> int:
    """`pfw replay --detect`: what is no capture is bad input, one that is cut at its end is not."""
    from contextlib import closing

    from pfw.cli import detected, watch
    from pfw.cli.ask import BAD_INPUT, tell
    from pfw.cli.progress import Progress
    from pfw.daemon.detecting import detect
    from pfw.daemon.sources import CaptureFile
    from pfw.drivers.bpf import FilterError
    from pfw.drivers.files import size_bytes

    try:
        local = watch.addresses(options.local)
        sizes = [size_bytes(path) for path in options.files]
        progress = Progress(sum(size or 0 for size in sizes) if None not in sizes else None)
        files = [CaptureFile(path, options.filter, progress.advance) for path in options.files]
        with closing(progress):
            found = detect(files, local)
    except (FilterError, ValueError) as error:
        tell(str(error))
        return BAD_INPUT
    except OSError as error:
        tell(f"{error.filename or options.files[0]}: {error.strerror or error}")
        return BAD_INPUT
    facts = detected.Facts(
        found.alerts, found.packets, found.refused, found.errors, found.dropped, found.duration_s, found.sampled
    )
    print("\n".join(detected.json_lines(facts) if options.json else detected.text_lines(facts)))
    for error_text in found.errors:
        tell(error_text)
    return BAD_INPUT if found.unread else 0
