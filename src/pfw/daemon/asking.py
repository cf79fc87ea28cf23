"""The packets that the kernel hands over: whose they are, and what a person says.

The kernel decides all it can. A connection whose label it does not know comes here, is looked up, and goes back with
its label, to be decided there (NF_REPEAT): one meaning, one place that counts. What is left to be decided here are
rules that ask a person, and rules for scripts. Nothing that comes here passes because of an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from msgspec.structs import replace

from pfw.daemon.attribution import Attribution, Found
from pfw.daemon.force import Force
from pfw.daemon.programs import reroutes
from pfw.daemon.remembering import Remembering
from pfw.drivers import clock
from pfw.drivers.nfqueue import QueueReader
from pfw.enforce.plan import REFUSED_NAME, UNKNOWN_NAME
from pfw.enforce.programs import written
from pfw.engine.prompts import Prompts
from pfw.model.event import Source
from pfw.model.flow import Direction, Flow, make_flow, split_key
from pfw.model.prompt import Answer, Prompt, PromptCommand, Release, Remember, subject_of
from pfw.model.verdict import Action, Verdict
from pfw.wire.error import WireError
from pfw.wire.nfqueue import Queued
from pfw.wire.scan import scan

_LINKTYPE_RAW = 101
_DIRECTIONS = {1: Direction.IN, 3: Direction.OUT}
"""By the hook where a packet waits."""

Perform = Callable[[list[PromptCommand]], None]
Note = Callable[[str, str, float], None]
"""Is told of the path of a program, what was decided about it here, and when."""
Stopped = Callable[[Flow, Found, str | None], None]
HELD_MAX = 16_384
"""More than the queue has room for."""


class Asking:
    """The queue's reader. `perform` is told what happens to prompts, `note` what was decided here, `stopped` of
    connections that did not pass: whose they were, and by which rule."""

    def __init__(
        self, reader: QueueReader, attribution: Attribution, force: Force, prompts: Prompts, remembering: Remembering,
        perform: Perform, note: Note, stopped: Stopped, failed: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        self._reader = reader
        self._attribution = attribution
        self._force = force
        self.prompts = prompts
        self._remembering = remembering
        self._perform = perform
        self._note = note
        self._stopped = stopped
        self._failed = failed
        # The packets that wait for an answer.
        self._held: dict[int, tuple[Flow, Found]] = {}
        self.counts = dict.fromkeys(("queued", "labelled", "decided", "asked", "unsure", "unreadable", "failed"), 0)

    def take(self) -> None:
        """Deal with the packets that have come."""
        try:
            packets = self._reader.read()
        except (OSError, WireError):
            self.counts["unreadable"] += 1
            return
        for packet in packets:
            self.counts["queued"] += 1
            try:
                self._take(packet)
            except (OSError, WireError):
                # The kernel did not answer: what cannot be looked up does not pass.
                self.counts["unsure"] += 1
                self._verdict(packet, accept=False)
            except Exception as error:
                # A mistake of ours: no packet waits for ever because of it, nor passes, and the others have their turn.
                self.counts["failed"] += 1
                self._verdict(packet, accept=False)
                self._failed(error)

    def do(self, commands: list[PromptCommand]) -> None:
        """Perform what the prompts want."""
        for command in commands:
            match command:
                case Release(packet_id=number, allow=allow):
                    self._release(number, allow=allow)
                case Remember(prompt=prompt, answer=answer):
                    self._remembering.add(replace(prompt, flow=self._described(prompt)), answer)
        self._perform(commands)

    def answer(self, prompt_id: int, answer: Answer) -> None:
        """A person's answer. Raises NoSuchPromptError, and ValueError for one that does not fit."""
        asked = self.prompts.get(prompt_id)
        if asked is not None and not self._is_asked(asked):
            self.withdraw((asked,))
            raise ValueError("the policy does not ask about this any more")
        self.do(self.prompts.answer(prompt_id, answer, clock.now()))

    def withdraw(self, prompts: Iterable[Prompt]) -> None:
        """Take back what the policy does not ask any more, or asks by another rule; what waits for it is blocked."""
        stale = [each.id for each in prompts if not self._is_asked(each)]
        if stale:
            self.do(self.prompts.withdraw(stale, clock.now()))

    def _release(self, number: int, *, allow: bool) -> None:
        """Meanwhile there may be another policy in force, or another hour, which asks nobody and blocks it."""
        held = self._held.pop(number, None)
        passes = False
        stopped_by: str | None = REFUSED_NAME
        if allow and held is not None:
            flow, owner = held
            verdict = self._verdict_on(self._force.described(flow, owner), owner, again=True)
            passes, stopped_by = verdict.action in (Action.ASK, Action.ALLOW), _stopping(verdict)
        with suppress(OSError):
            self._reader.verdict(number, passes)
        if held is not None and not passes:
            self._stopped(*held, stopped_by)

    def _is_asked(self, prompt: Prompt) -> bool:
        flow = self._described(prompt)
        verdict = self._verdict_on(flow, _owner(prompt), again=True)
        subject = subject_of(flow, prompt.program, self._force.rule_of(verdict), prompt.uid)
        return verdict.action is Action.ASK and (_rule(verdict, flow), subject) == (prompt.rule, prompt.subject)

    def _described(self, prompt: Prompt) -> Flow:
        """What was asked about, in the words of the policy in force now."""
        return self._force.described(prompt.flow, _owner(prompt))

    def _take(self, packet: Queued) -> None:
        found = _read(packet)
        direction = _DIRECTIONS.get(packet.hook)
        if found is None or direction is None or not self._force.is_asking:
            self._verdict(packet, accept=False)
            return
        key, flow = found
        index = (packet.in_index if direction is Direction.IN else packet.out_index) or 0
        interface = self._reader.interface(index) if index else None
        flow = replace(flow, direction=direction, interface=interface)
        owner = self._attribution.of(flow, index, packet.uid, int.from_bytes(key[-4:-2], "big"))
        label = self._force.label(owner)
        mark = packet.mark & ~self._force.mask | (label or 0) | written(self._force.mask)
        is_labelled = packet.mark & self._force.mask in (label, mark & self._force.mask)
        # What others route by its mark keeps that, and is decided here.
        if label is not None and not is_labelled and not reroutes(self._force.routes, packet.mark, mark):
            self.counts["labelled"] += 1
            with suppress(OSError):
                self._reader.repeat(packet.id, mark)
        else:
            self._decide(packet, key, self._force.described(flow, owner), owner)

    def _decide(self, packet: Queued, key: bytes, flow: Flow, owner: Found) -> None:
        self._force.refresh()
        now = clock.now()
        verdict = self._verdict_on(flow, owner)
        if flow.app:
            self._note(flow.app, str(verdict.action), now)
        if verdict.action is Action.ASK:
            self._ask(packet, key, flow, owner, verdict, now)
            return
        self.counts["decided" if owner.is_sure else "unsure"] += 1
        self._verdict(packet, accept=verdict.action is Action.ALLOW)
        if verdict.action is not Action.ALLOW:
            self._stopped(flow, owner, _stopping(verdict))

    def _verdict_on(self, flow: Flow, owner: Found, *, again: bool = False) -> Verdict:
        return self._force.decide(flow, clock.moment(), is_sure=owner.is_sure, again=again)

    def _ask(self, packet: Queued, key: bytes, flow: Flow, owner: Found, verdict: Verdict, now: float) -> None:
        program = owner.program
        if program is not None and program.path is None and owner.is_sure:
            # It has ended, and its file is known all the same.
            program = replace(program, path=self._force.path_of(owner))
        subject = subject_of(flow, program, self._force.rule_of(verdict), owner.uid)
        answered = self._remembering.answers.find(subject, now) if owner.is_sure else None
        if answered is not None:
            self._verdict(packet, accept=answered)
            if not answered:
                self._stopped(flow, owner, REFUSED_NAME)
            return
        if owner.program is None and packet.uid is None and flow.direction is Direction.OUT:
            self._verdict(packet, accept=False)  # the kernel's own, say a multicast report: nobody could tell
            return
        self.counts["asked"] += 1
        self._held[packet.id] = flow, owner
        if len(self._held) > HELD_MAX:
            del self._held[next(iter(self._held))]
        self.do(
            self.prompts.packet(
                packet.id, key, flow, subject, program, owner.certainty, _rule(verdict, flow), now,
                uid=owner.uid, gid=owner.gid,
            )
        )  # fmt: skip

    def _verdict(self, packet: Queued, *, accept: bool) -> None:
        with suppress(OSError):
            self._reader.verdict(packet.id, accept)


def _owner(prompt: Prompt) -> Found:
    file = prompt.program.file if prompt.program is not None else None
    return Found(program=prompt.program, certainty=prompt.certainty, file=file, uid=prompt.uid, gid=prompt.gid)


def _rule(verdict: Verdict, flow: Flow) -> str:
    return verdict.rule or f"default {flow.direction}"


def _stopping(verdict: Verdict) -> str | None:
    """The rule that stopped a connection."""
    return verdict.rule if verdict.action in (Action.BLOCK, Action.REJECT) else UNKNOWN_NAME


def _read(packet: Queued) -> tuple[bytes, Flow] | None:
    """The flow key of a packet and its flow, so far without a direction of its own; None for what is none."""
    payload = packet.payload
    source = Source(_LINKTYPE_RAW, None)
    ((key, *_),) = scan(source, payload, [(0.0, 0, len(payload), packet.full_bytes or len(payload))])
    if key is None:
        return None
    protocol, sender, receiver, tail = split_key(key)
    return key, make_flow(protocol, sender, receiver, tail, Direction.OUT, None)
