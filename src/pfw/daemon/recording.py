"""The recorder process, both ends: logs are written beside the capture, never in its way.

The watching process sends what is to be recorded over a socket pair and does not wait; the recorder
dissects, folds, formats and writes. So a slow disk, a full one, or Scapy's quarter of a second to load cost
no packet, and Scapy's 35 MB are spent only where something is logged. How messages travel says `messages.py`;
both ends are in this file and change together.
"""

from __future__ import annotations

import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

from msgspec import Struct, msgpack

from pfw.daemon.messages import Outbox, frames, start
from pfw.model.command import Alerted, Command, Ended, Judged, Notice, Suspicious
from pfw.record.files import FileRefusedError
from pfw.record.recorder import Counts, Options, Recorder

PENDING_BYTES_MAX = 4 << 20
"""What may wait for a slow recorder; beyond it records are lost, and counted."""
_TICK_S = 1.0
_CLOSE_TIMEOUT_S = 30.0
_READ_BYTES = 1 << 18


class Begin(Struct, tag=True):
    """Where to record; the first message."""

    options: Options


class Commands(Struct, tag=True):
    """Things to record, in order."""

    commands: list[Command]


class Statistics(Struct, tag=True):
    """Counters for a `stats` record."""

    counters: dict[str, int]


Message = Begin | Commands | Statistics


class RecorderProcess:
    """The watching process's end. With `wait` nothing is lost: for capture files, which can wait.

    Raises OSError when the recorder cannot be started.
    """

    def __init__(self, options: Options, *, wait: bool) -> None:
        self.sent = 0
        """Records for the recorder."""
        self.lost = 0
        """Those of them that it could not take."""
        self.broken = False
        """Whether it has ended before its time: then nobody knows what it did with what it took."""
        self._wait = wait
        self._eve = options.eve is not None
        self._encoder = msgpack.Encoder()
        self._pending_records = 0
        self._process, self._sock = start("pfw.daemon.recording")
        self._outbox = Outbox(self._sock)
        self._sock.setblocking(wait)
        self._put(Begin(options), 0)

    def send(self, commands: list[Command]) -> None:
        """Have these recorded, those of them that any log wants."""
        wanted = [command for command in commands if self._wants(command)]
        if wanted:
            self._put(Commands(wanted), len(wanted))

    def statistics(self, counters: dict[str, int]) -> None:
        """Have the counters recorded, where there is a log for them."""
        if self._eve:
            self._put(Statistics(counters), 0)

    def flush(self) -> None:
        """Give the recorder what it takes now."""
        try:
            self._outbox.flush()
        except OSError:
            self.broken = True
            self.lost += self._pending_records
        if not self._outbox:
            self._pending_records = 0

    def close(self) -> Counts | None:
        """Let it finish; what it counted, or None when it did not live to say."""
        self._sock.settimeout(_CLOSE_TIMEOUT_S)
        self.flush()
        answer = b""
        try:
            self._sock.shutdown(socket.SHUT_WR)
            while piece := self._sock.recv(_READ_BYTES):
                answer += piece
            self._process.wait(_CLOSE_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._sock.close()
        self.broken |= not answer
        return msgpack.decode(answer, type=Counts) if answer else None

    def _wants(self, command: Command) -> bool:
        if isinstance(command, Judged):
            return command.verdict.stops or command.verdict.log
        return isinstance(command, Suspicious | Notice | Alerted) or (self._eve and isinstance(command, Ended))

    def _put(self, message: Message, records: int) -> None:
        payload = self._encoder.encode(message)
        self.sent += records
        if len(self._outbox) + len(payload) > PENDING_BYTES_MAX and not self._wait:
            self.lost += records
        else:
            self._outbox.put(payload)
            self._pending_records += records
        self.flush()


def _messages(sock: socket.socket) -> Iterator[Message | None]:
    """What arrives, and None about once a second; ends with the connection."""
    decoder = msgpack.Decoder(Message)
    buffer = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        while True:
            if not selector.select(_TICK_S):
                yield None
                continue
            try:
                piece = sock.recv(_READ_BYTES)
            except OSError:
                return
            if not piece:
                return
            buffer += piece
            try:
                yield from map(decoder.decode, frames(buffer))
            except ValueError:
                return


def _tell(text: str) -> None:
    print(f"pfw: {text}", file=sys.stderr, flush=True)


def _recorder(options: Options) -> Recorder:
    try:
        return Recorder(options, _tell)
    except (FileRefusedError, ValueError) as error:
        _tell(str(error))
        sys.exit(1)


def _record(recorder: Recorder, message: Message | None) -> None:
    match message:
        case Commands(commands=commands):
            for command in commands:
                recorder.perform(command, time.time())
        case Statistics(counters=counters):
            recorder.stats(counters, time.time())
        case _:
            recorder.tick(time.time())


def main() -> None:
    """The recorder's end, on standard input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sock = socket.socket(fileno=0)
    recorder: Recorder | None = None
    for message in _messages(sock):
        if isinstance(message, Begin):
            recorder = _recorder(message.options)
        elif recorder is not None:
            _record(recorder, message)
    if recorder is not None:
        counts = msgpack.encode(recorder.close(time.time()))
        with suppress(OSError):
            # Who would read them may have been killed.
            sock.sendall(counts)


if __name__ == "__main__":
    main()
