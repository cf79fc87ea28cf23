"""`pfw ask`: prompts as they come, and answers by key, by line, or by the command line.

The stream of prompts stays open all the time: it is what tells the daemon that somebody is there. Answers go by a
connection of their own, so that nothing which comes meanwhile is lost.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress

from pfw.api.client import Client, Stream
from pfw.api.definition import Nothing
from pfw.api.interface import Action, AnswerParameters, AnswerResult, Prompt, PromptsResult
from pfw.api.messages import ApiError
from pfw.cli import prompts as screen
from pfw.cli.programs import endpoint, program_name
from pfw.cli.table import clip
from pfw.commands.calling import BAD_INPUT, NO, OK, called, colour, daemon, fault, taken, tell, told
from pfw.drivers import clock, terminal

_TICK_S = 1.0
_SETTLE_S = 0.4
"""Keys that come sooner after a prompt was shown were meant for something else: nobody reads so fast."""
_LINE_BYTES_MAX = 4096
_READ_BYTES = 1 << 16
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


@told
def ask(options: Namespace) -> int:
    """`pfw ask`."""
    if options.what == "answer":
        return _answer(options)
    if options.words or any(getattr(options, name) is not None for name in ("for_", "lasting", "scope")):
        tell("to answer one prompt: pfw ask answer ID allow|block [--for TIME] [--scope SCOPE]")
        return BAD_INPUT
    if options.list:
        return _list(options)
    with daemon() as client, suppress(KeyboardInterrupt):
        stream = client.stream("Prompts", Nothing(), PromptsResult, 0.0)
        if not options.json and sys.stdin.isatty() and sys.stdout.isatty():
            return _by_keys(client, stream)
        return _by_lines(client, stream, options)
    return OK


def _list(options: Namespace) -> int:
    found = called("Prompts", Nothing(), PromptsResult).prompts
    if options.json:
        from pfw.cli.programs import facts
        from pfw.cli.screen import encode

        print(encode([facts(each) for each in sorted(found, key=screen.urgency)]))
    else:
        print("\n".join(screen.list_lines(found, clock.now(), terminal.width())))
    return OK


def _answer(options: Namespace) -> int:
    try:
        number, action = screen.parse_head(options.words)
        choice = screen.Choice(options.lasting or "once", options.scope or "exact")
        if options.for_ is not None:
            choice = screen.lasting(options.for_, choice.scope)
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    if options.list:
        tell("--list and answer do not go together")
        return BAD_INPUT
    # Whoever typed a number sees whose it was.
    asked = next((each for each in called("Prompts", Nothing(), PromptsResult).prompts if each.id == number), None)
    done = called("Answer", screen.answer(number, action, choice), AnswerResult).done
    if options.json:
        print(_done_json(number, done, asked))
    else:
        said = screen.done_line(action, choice, done, None).strip()
        print(clip(said if asked is None else f"{said}: {_of(asked)}", terminal.width()))
    return OK


def _of(prompt: Prompt) -> str:
    """Whose a prompt is, and the other end."""
    who = "an unknown program" if prompt.program is None else program_name(prompt.program)
    return f"{who}, {prompt.direction} {endpoint(prompt.remote, prompt.port)}"


def _done_json(number: int, done: str, prompt: Prompt | None = None) -> str:
    from pfw.cli.screen import encode
    from pfw.model.text import printable

    found: dict[str, object] = {"id": number, "done": printable(done)}
    if prompt is not None:
        found["program"] = None if prompt.program is None else program_name(prompt.program)
    return encode(found)


# --- by lines -------------------------------------------------------------------------------------------------------


def _by_lines(client: Client, stream: Stream[PromptsResult], options: Namespace) -> int:
    """Prompts are printed, answers are read, until there are no more lines. The worst exit status of an answer."""
    lines, status, is_open = _Lines(), OK, True
    queue = screen.Queue()
    descriptor = sys.stdin.fileno()
    while is_open:
        ready = terminal.wait([client.fileno(), descriptor], None)
        if client.fileno() in ready:
            for result in taken(stream):
                _print_news(queue, result, options)
        if descriptor in ready:
            data = os.read(descriptor, _READ_BYTES)
            is_open = bool(data)
            for line in lines.feed(data):
                status = max(status, _answer_line(line, options))
    return status


class _Lines:
    """Lines of what is read in pieces; what is longer than an answer can be is cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Those that are whole; with nothing, which is the end, the last one without its end."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[:_LINE_BYTES_MAX]
        if not data:
            whole, self._rest = [self._rest], b""
        return [each[:_LINE_BYTES_MAX].decode(errors="replace").strip() for each in whole]


def _print_news(queue: screen.Queue, result: PromptsResult, options: Namespace) -> None:
    fresh = queue.update(result)
    if options.json:
        from pfw.cli.programs import facts
        from pfw.cli.screen import encode

        lines = [encode(facts(each)) for each in result.prompts]
        lines += [encode({"gone": list(result.gone)})] if result.gone else []
    else:
        lines = [screen.line(each) for each in fresh]
        lines += [f"{number}: gone" for number in result.gone]
    if lines:
        print("\n".join(lines), flush=True)


def _answer_line(line: str, options: Namespace) -> int:
    if not line or line.startswith("#"):
        return OK
    try:
        given = screen.parse_line(line)
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    try:
        done = called("Answer", given, AnswerResult).done
    except ApiError as error:
        text, status = fault(error)
        tell(f"{given.id}: {text}")
        return status
    choice = screen.Choice(given.lasting, given.scope, given.seconds)
    shown = screen.done_line(given.action, choice, done, None).strip()
    print(_done_json(given.id, done) if options.json else f"{given.id}: {shown}", flush=True)
    return OK


# --- by keys --------------------------------------------------------------------------------------------------------


def _by_keys(client: Client, stream: Stream[PromptsResult]) -> int:
    with terminal.Keys(sys.stdin.fileno()) as keys:
        page = _Page(lambda: terminal.width() or 80)
        try:
            _Session(keys, page, colour=colour()).run(client, stream)
        finally:
            page.end()
    return OK


class _Page:
    """Lines that stay, and below them the one at which keys are taken. It needs nothing of a terminal but that a
    carriage return goes back to the line's beginning."""

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._shown = ""

    @property
    def width(self) -> int:
        # In the last column some terminals begin a new line.
        return max(1, self._width() - 1)

    def lines(self, lines: list[str]) -> None:
        self._write(self._cleared() + "".join(f"{line}\n" for line in lines))
        self._shown = ""

    def status(self, text: str, *, anew: bool = False) -> None:
        if anew:
            self._shown = ""
        if text != self._shown:
            cleared, self._shown = self._cleared(), text  # who interrupts us while it is written leaves it behind, too
            self._write(cleared + text)

    def end(self) -> None:
        """Leave the line behind. The terminal may have gone."""
        if self._shown:
            with suppress(OSError):
                self._write("\n")

    def _cleared(self) -> str:
        return f"\r{' ' * min(len(self._shown), self.width)}\r" if self._shown else ""

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


class _Session:
    """A person at a terminal: one prompt at a time, and what was chosen for it so far."""

    def __init__(self, keys: terminal.Keys, page: _Page, *, colour: bool) -> None:
        self._keys = keys
        self._page = page
        self._colour = colour
        self._queue = screen.Queue()
        self._asked: Prompt | None = None
        self._choice = screen.Choice()
        self._since = 0.0
        self._over = False

    def run(self, client: Client, stream: Stream[PromptsResult]) -> None:
        # What waits already comes at once; without this it would be said first that there is nothing.
        terminal.wait([client.fileno()], _SETTLE_S)
        for result in taken(stream):
            self._queue.update(result)
        while not self._over:
            self._show()
            ready = terminal.wait([client.fileno(), self._keys.fileno()], _TICK_S)
            if client.fileno() in ready:
                for result in taken(stream):
                    self._queue.update(result)
                self._look_again()
            if self._keys.fileno() in ready:
                self._type(self._keys.read())

    def _look_again(self) -> None:
        """What is shown may have changed, or be no more."""
        if self._asked is None:
            return
        number = self._asked.id
        self._asked = self._queue.get(number)
        if self._asked is None:
            self._page.lines([f"  #{number} was answered elsewhere, or given up"])
            return
        following = self._queue.next()
        if self._asked.state != "waiting" and following is not None and following.state == "waiting":
            self._page.lines([f"  #{number} comes later: #{following.id} still waits"])
            self._asked = None

    def _show(self) -> None:
        """Ask the next one where none is asked, and bring the last line up to date."""
        width = self._page.width
        if self._asked is None:
            self._asked = self._queue.next()
            if self._asked is not None:
                self._begin(self._asked)
        anew, self._keys.resumed = self._keys.resumed, False
        if self._asked is None:
            self._page.status(screen.idle(self._queue.put_off, width), anew=anew)
            return
        others = self._queue.others(self._asked.id)
        self._page.status(screen.question(self._asked, self._choice, clock.now(), others, width), anew=anew)

    def _begin(self, prompt: Prompt) -> None:
        self._choice = screen.Choice()
        self._print(prompt)
        self._keys.discard()
        self._since = time.monotonic()

    def _print(self, prompt: Prompt) -> None:
        first, *more = screen.prompt_lines(prompt, self._page.width)
        self._page.lines([f"{_BOLD}{first}{_PLAIN}" if self._colour else first, *more])

    def _type(self, typed: str | None) -> None:
        if typed is None:
            self._over = True
            return
        asked = self._asked
        for key in typed:
            if self._over or self._asked is not asked:
                # The rest was typed for the prompt before.
                return
            self._press(key)

    def _press(self, key: str) -> None:
        if key in ("q", "\x04"):
            self._over = True
        elif key == "?":
            self._page.lines(screen.HELP.splitlines())
        elif key == "l":
            self._page.lines(screen.list_lines(self._queue, clock.now(), self._page.width))
        elif key == "r":
            self._queue.bring_back()
        elif self._asked is not None and time.monotonic() - self._since >= _SETTLE_S:
            self._press_about(self._asked, key)

    def _press_about(self, prompt: Prompt, key: str) -> None:
        if key == "s":
            self._queue.defer(prompt.id)
            self._asked = None
        elif key in screen.ACTION_KEYS:
            self._send(prompt, screen.ACTION_KEYS[key])
        elif key == "P" and prompt.port is None:
            self._page.lines([screen.problem(f"{prompt.protocol} has no ports", self._page.width)])
        else:
            self._choice = screen.pressed(self._choice, key) or self._choice

    def _send(self, prompt: Prompt, action: Action) -> None:
        given: AnswerParameters = screen.answer(prompt.id, action, self._choice)
        try:
            done = called("Answer", given, AnswerResult).done
        except ApiError as error:
            text, status = fault(error)
            self._page.lines([screen.problem(text, self._page.width)])
            if status == NO:
                self._queue.answered(prompt.id)
                self._asked = None
            return
        self._page.lines([screen.done_line(action, self._choice, done, self._page.width)])
        self._queue.answered(prompt.id)
        self._asked = None
