"""The daemon: puts the policy in force and stays, for what the kernel cannot decide alone.

It keeps labels, answers prompts, and serves its interface. Nothing in the kernel depends on it but connections that
have to be asked: without it they are dropped, and all others go on as they did.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from pfw.daemon import enforcing, panic
from pfw.daemon.api import Api
from pfw.daemon.asking import Asking
from pfw.daemon.attribution import Attribution, Found, running_program
from pfw.daemon.force import Force
from pfw.daemon.lasting import add_rule
from pfw.daemon.loop import Loop
from pfw.daemon.naming import Naming
from pfw.daemon.observing import Begin, Counted, Message, ObserverProcess, Raised, Said
from pfw.daemon.programs import FILES_MAX, RUNNING, Running
from pfw.daemon.remembering import Remembering
from pfw.daemon.restoring import Restoring
from pfw.daemon.state import State
from pfw.daemon.views import Census, Connections
from pfw.drivers import bpffs, clock, handles, labels, netfilter, procfs, store
from pfw.drivers.labels import Labels
from pfw.drivers.nfqueue import QueueReader
from pfw.drivers.programs import RefusedError
from pfw.enforce.conditions import CannotError
from pfw.enforce.nft_answers import ASK
from pfw.enforce.nft_table import TABLE
from pfw.enforce.plan import PlanError
from pfw.enforce.programs import MASK
from pfw.engine.prompts import Prompts
from pfw.model.program import Certainty, File, Program
from pfw.model.prompt import Answer, Prompt
from pfw.model.verdict import Action
from pfw.policy.load import load
from pfw.record.recorder import Options as Records

QUEUE = 7846
SOCKET = "pfw.sock"
GROUP = "pfw"
"""Who is in this group may see prompts and answer them."""
_CHECK_S = 2.0
_PROGRAMS_S = 5.0


class Options(Struct, frozen=True, kw_only=True):
    """`cgroup` is where labels hold, None for the root of all; without `labels` programs are looked up. `records` are
    the logs of what is noticed."""

    cgroup: Path | None = None
    mask: int = MASK
    labels: bool = True
    records: Records = Records()


class Service:
    """The daemon. `tell` gets lines for the person. Raises RefusedError and OSError where it cannot begin."""

    def __init__(self, state: State, options: Options, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.state = state
        self.started = clock.now()
        self.folder = store.run_folder()
        self._lock = _take_lock(self.folder)
        _allow_files(2 * FILES_MAX)
        self.why_no_labels = ""
        self.labels = self._attach(options)
        self.loop = Loop(self._failed)
        self.force = Force(state, self.labels, options.mask, self._changed)
        self.attribution = Attribution(self.labels)
        self.connections = Connections(self.force, self.attribution)
        self.census = Census(self.force, self.connections)
        self.reader = _reader()
        self.naming = Naming(tell)
        self.prompts = Prompts(60.0, Action.BLOCK, False, first_id=_first_number(self.started))
        self.remembering = Remembering(self.force, self._always, self.loop.watch, self.loop.unregister)
        self.restoring = Restoring(state, tell, self._restored)
        self.api = Api(self, self.folder / SOCKET, _group())
        pinned = str(self.labels.folder.parent) if self.labels is not None else None
        self.observing = ObserverProcess(
            Begin(pinned, options.records), self._heard, tell, self.loop.watch, self.loop.unregister
        )  # fmt: skip
        self.observed: dict[str, int] = {}
        self.asking = Asking(
            self.reader, self.attribution, self.force, self.prompts, self.remembering, self.api.perform,
            self.census.note, self.observing.stopped, self._failed,
        )  # fmt: skip
        self.queued_by = ""
        self._trouble = ""
        self._say_running(options)
        if self.labels is not None:
            self.labels.admit(os.getpid())

    def run(self) -> None:
        """Until a signal ends it."""
        loop = self.loop
        loop.stop_on((signal.SIGTERM, signal.SIGINT))
        loop.watch(self.reader.fileno(), self.asking.take)
        self.naming.watch(loop.watch)
        if self.labels is not None:
            loop.watch(self.labels.listen(), self._misses)
        self._watch_state()
        self.restoring.watch(loop)
        loop.every(_CHECK_S, self.check)
        loop.every(_PROGRAMS_S, self._look_at_programs)
        self.check()
        procfs.count_connections()
        procfs.tell_connections()
        self.observing.start()
        _notify("READY=1")
        loop.run(self._deadline, self._due)

    def _watch_state(self) -> None:
        """Be woken when another policy comes into force (fcntl(2), F_NOTIFY); what is missed, `check` finds."""
        signal.signal(signal.SIGIO, lambda *_: None)
        with suppress(OSError):
            self._state_folder = os.open(self.state.files.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.fcntl(self._state_folder, fcntl.F_NOTIFY, fcntl.DN_RENAME | fcntl.DN_MULTISHOT)

    def close(self) -> None:
        """Let go of everything; what the kernel has stays."""
        _notify("STOPPING=1")
        self.observing.close()
        self.api.close()
        self.reader.close()
        self.naming.close()
        self.restoring.close()
        self.attribution.close()
        if self.labels is not None:
            self.labels.close()
        self.loop.close()
        os.close(self._lock)

    def check(self) -> None:
        """Take up what was changed by others: the policy, or the chain that hands over."""
        self.force.refresh()
        if self.force.is_asking and not self._is_handed_over():
            self._hand_over()
        if self.force.look_at_routes() and self.labels is not None:
            self.labels.put_foreign(mark for mark, _ in self.force.routes)
        self.api.attended()
        self.observing.check(clock.now())

    def _restored(self) -> None:
        """The table is another one of the same policy: the way to the queue, labels and answers go in anew."""
        self.force.forget()
        self.check()
        self.remembering.put_again(clock.now())

    def status(self) -> dict[str, int]:
        """What was counted since the daemon began."""
        counts = {**self.asking.counts, **{f"prompts_{name}": each for name, each in self.prompts.counts.items()}}
        counts |= {"verdicts_refused": self.reader.refused, "packets_lost": self.reader.lost}
        counts |= self.naming.counts | self.observed
        counts |= {"observer_restarts": self.observing.restarts, "stopped_untold_lost": self.observing.untold}
        with suppress(OSError):
            dropped = self.reader.dropped()
            counts |= {"dropped_queue_full": dropped.queue_full, "dropped_buffer_full": dropped.buffer_full}
        return counts

    def answer(self, prompt_id: int, answer: Answer) -> None:
        """A person's answer. Raises NoSuchPromptError, and ValueError for one that does not fit."""
        self.force.refresh()  # what is asked no more cannot be answered
        if answer.allow and panic.where():
            # What waits in the queue is behind the chains of the panic.
            raise ValueError("it is panic, and nothing may pass; pfw panic --off, then answer again")
        self.asking.answer(prompt_id, answer)
        self.force.refresh()  # it may have become a rule

    def _deadline(self) -> float | None:
        found = [each for each in (self.prompts.deadline(), self.remembering.answers.deadline()) if each is not None]
        return min(found, default=None)

    def _due(self) -> None:
        self.force.refresh()
        now = clock.now()
        self.asking.do(self.prompts.tick(now))
        self.remembering.tick(now)
        while self.remembering.trouble:
            self.tell(self.remembering.trouble.pop())

    def _changed(self) -> None:
        """Another policy is in force."""
        if self.force.trouble:
            self.tell(f"the policy in force is not understood, so nothing it asks passes: {self.force.trouble}")
            self.force.trouble = ""
        if self.force.policy is not None:
            ask = self.force.policy.ask
            self.asking.do(self.prompts.configure(ask.timeout_s, ask.unattended, clock.now()))
        self.asking.withdraw(self.prompts.prompts)
        if not self.force.is_asking:
            return
        self._hand_over()
        if self.labels is not None:
            self.labels.put_foreign(mark for mark, _ in self.force.routes)
            self._label_open_sockets()

    def _hand_over(self) -> None:
        with suppress(FileNotFoundError):
            self.queued_by = netfilter.queue_chain(TABLE, ASK, QUEUE)

    def _is_handed_over(self) -> bool:
        return bool(netfilter.read_rules(TABLE, [ASK])[ASK])

    def _attach(self, options: Options) -> Labels | None:
        if not options.labels:
            self.why_no_labels = "switched off (--no-labels)"
            return None
        reason = labels.usable()
        cgroup = options.cgroup or labels.root_cgroup()
        if reason is None and cgroup is None:
            reason = "there is no cgroup v2"
        if reason is None and cgroup is not None:
            try:
                return labels.attach(bpffs.folder(self.folder), cgroup, options.mask)
            except OSError as error:
                reason = f"{error.strerror or error}"
        self.why_no_labels = reason or ""
        self.tell(f"no labels on sockets: {reason}; programs are looked up, which is slower")
        return None

    def _say_running(self, options: Options) -> None:
        pinned = str(self.labels.folder.parent) if self.labels is not None else None
        content = msgspec.json.encode(Running(os.getpid(), options.mask, pinned))
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, content, 0)

    def _misses(self) -> None:
        """Programs without a label made sockets: label them, and the sockets that they have."""
        assert self.labels is not None
        for miss in self.labels.misses():
            programs = self.force.programs
            if programs is None or not self.force.is_asking:
                continue
            program = running_program(self.labels, miss.pid, miss.file)
            if program is not None and programs.add_process(miss.pid, program.path, miss.file):
                self.census.see(program.path, clock.now())
                wanted = programs.class_of(miss.file, program.uid, program.gid).mark
                handles.mark_process(miss.pid, wanted, self.force.mask, partial(self._is_noted, miss.file))

    def _is_noted(self, file: File, cookie: int) -> bool:
        """Whether this program was the last to use a socket; one that it only holds may be another's."""
        owner = self.labels.owner(cookie) if self.labels is not None else None
        return owner is not None and owner.file == file

    def _label_open_sockets(self) -> None:
        """Sockets that were open before the policy or the labels were."""
        force = self.force

        def choose(program: Program) -> int | None:
            return force.mark_of_process(program)

        marked = handles.mark_sockets(choose, force.mask, self._noted_mark)
        if marked.failed:
            self.tell(f"{marked.failed} open sockets could not be labelled; their programs are looked up")

    def _noted_mark(self, cookie: int) -> int | None:
        """The label of whoever used a socket last, whoever holds it now; no bits for a file that is not known, so that
        it is asked. None where the kernel noted nobody."""
        owner = self.labels.owner(cookie) if self.labels is not None else None
        if owner is None:
            return None
        if self.force.programs is None or owner.file not in self.force.programs.known:
            return 0
        found = Found(certainty=Certainty.LABEL, file=owner.file, uid=owner.uid, gid=owner.gid)
        return self.force.label(found)

    def _look_at_programs(self) -> None:
        """Paths that lead elsewhere by now, and files that hold something else."""
        if self.force.programs is not None and self.force.is_asking:
            self.force.programs.look_again()
        if self.force.is_stale():
            self._put_in_force_again()

    def _put_in_force_again(self) -> None:
        """The same policy, whose paths lead to other files by now."""
        applied, generation = self.force.applied, self.force.generation
        content = self.state.rules_of(generation) if generation is not None else None
        if applied is not None and content is not None:
            try:
                wanted = enforcing.Wanted(
                    policy=load(content, applied.path), path=applied.path, content=content, backend=applied.backend,
                    force=True, why="paths of programs lead elsewhere",
                )  # fmt: skip
                enforcing.up(self.state, wanted, self.tell)
            except (PlanError, CannotError, enforcing.PendingError, RefusedError, OSError) as error:
                self.tell(f"paths of programs lead elsewhere, and that could not be put in force: {error}")
        self.force.forget()
        self.check()

    def _always(self, prompt: Prompt, answer: Answer) -> None:
        try:
            name = add_rule(self.state, prompt, answer, self.tell)
            self.tell(f'rule "{name}" was added')
        except Exception as error:
            self._trouble = f"the answer could not become a rule: {error}"
            self.api.alert("answer", self._trouble)
            self.tell(self._trouble)

    def take_trouble(self) -> str:
        """Why the last answer could not be kept for good, if it was not."""
        found, self._trouble = self._trouble, ""
        return found

    def _heard(self, message: Message) -> None:
        """What the observer says."""
        match message:
            case Said():
                self.tell(message.text)
            case Raised():
                self.api.alert(message.kind, message.says)
                self.tell(f"ALERT {message.says}")
            case Counted():
                self.observed = message.counts

    def _failed(self, error: Exception) -> None:
        self.tell(f"internal error, and the daemon goes on: {type(error).__name__}: {error}")


def _first_number(started: float) -> int:
    """The number of a daemon's first prompt: ten for each second since those of a daemon before it, so that a number
    that somebody read means nothing else for more than a day; and short enough to type."""
    return int(started) % 100_000 * 10 + 1


def _reader() -> QueueReader:
    try:
        return QueueReader(QUEUE)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise RefusedError(f"queue {QUEUE} is read by another program") from None
        raise RefusedError(f"this kernel hands no packets over: {error.strerror}") from None


def _take_lock(folder: Path) -> int:
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(folder / RUNNING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # who may open it may take the lock
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RefusedError("pfw daemon runs already") from None
    return descriptor


def _allow_files(wanted: int) -> None:
    """Programs that are labelled are kept open; what a process may open is 1,024 files unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _group() -> int | None:
    with suppress(KeyError):
        return grp.getgrnam(GROUP).gr_gid
    return None


def _notify(text: str) -> None:
    """Tell the service manager, where there is one (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.send(text.encode())
