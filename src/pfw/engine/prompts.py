"""Prompts: the state machine of questions to a person. Packets, answers and the time in, commands out.

Rule 1: a packet is never allowed unless a person's answer, or the policy's word for when nobody is there, allows it.
A timer that runs out, a table that is full and a packet that comes twice all block.
Rule 2: what is only a guess is another prompt than what is certain, even with the same subject: no answer about a
program that is known lets a packet pass of which that is not known.

A prompt waits, then it is unanswered, and it ends when it is answered. Whoever drives this has looked into the policy
and into `answers.py` first: here is only what neither of them answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, isfinite

from msgspec.structs import replace

from pfw.model.flow import Flow
from pfw.model.program import Certainty, Program
from pfw.model.prompt import (
    Answer,
    Changed,
    Gone,
    Lasting,
    NoSuchPromptError,
    Prompt,
    PromptCommand,
    Publish,
    Release,
    Remember,
    State,
    Subject,
    check_answer,
    covers,
)
from pfw.model.verdict import Action

PROMPTS_MAX = 1000
"""Waiting, and as many unanswered, about 1 kB each. Nobody answers so many; more would only hide the first ones."""

SHARE = 0.75
"""So much of these places one program may take: who asks about a thousand addresses leaves room for the others."""

HELD_MAX = 8
"""Packets that wait for one answer. A browser opens six connections to a host; with PROMPTS_MAX it is more than the
1,024 packets that the kernel's queue holds unless told otherwise (nfnetlink_queue.c, NFQNL_QMAX_DEFAULT)."""

CONNECTIONS_MAX = 4096
"""Connections that were answered: about 300 bytes each."""

CONNECTION_S = 120.0
"""How long an answer for once holds for the connection that it was given for, whose first packet may come again: as
long as the kernel waits for an answer to a SYN (nf_conntrack_tcp_timeout_syn_sent), which is sent again for 63 s."""

_Name = tuple[Subject, bool, int]
"""What tells a prompt from all others: its subject, whether the program is a guess, and whose socket it is."""


class _Entry:
    """A prompt and the packets that wait for it, by flow key, the first one first."""

    __slots__ = ("held", "name", "packets", "prompt", "was_asked")

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.name: _Name = _name(prompt.subject, prompt.certainty, prompt.uid)
        self.held: dict[bytes, int] = {}
        self.packets = 0
        self.was_asked = False
        """Whether it waits or has waited: nobody is asked twice about the same user."""

    def view(self) -> Prompt:
        return replace(self.prompt, held=len(self.held), packets=self.packets)


class Prompts:
    """All prompts. Do what its methods return, in order; after `deadline` call `tick`.

    `timeout_s` is how long a prompt waits. While nobody is there to be asked (`attended`), packets get the action
    `unattended`, ALLOW or BLOCK. `capacity` bounds the waiting and the unanswered prompts, each of them. They are
    numbered from `first_id` on.

    `counts` says what was left out: packets blocked because the first one of their connection waits (`repeated`) or was
    answered and their socket is gone (`late`), too many wait for the prompt (`crowded`), too many prompts wait (`full`)
    or nobody answered (`unanswered`); packets decided because nobody was there (`unattended`), blocked when the time
    was over (`timed_out`) and dropped by the kernel (`lost`); unanswered prompts (`forgotten`) and answered connections
    (`connections`) that made room.
    """

    def __init__(
        self, timeout_s: float, unattended: Action, attended: bool, *, capacity: int = PROMPTS_MAX, first_id: int = 1
    ) -> None:
        if not (timeout_s > 0 and isfinite(timeout_s)):
            raise ValueError(f"{timeout_s} is not a time that a prompt can wait")
        if unattended not in (Action.ALLOW, Action.BLOCK):
            raise ValueError(f'"{unattended}" cannot be done while nobody is there: allow or block')
        names = "repeated late crowded full unanswered unattended timed_out lost forgotten connections"
        self.counts = dict.fromkeys(names.split(), 0)
        self._timeout_s = timeout_s
        self._unattended: Action = unattended
        self._attended = attended
        self._capacity = capacity
        self._next_id = first_id
        self._latest = -inf
        self._entries: dict[_Name, _Entry] = {}
        # By id. All wait for as long, so the waiting are in the order in which they are due.
        self._waiting: dict[int, _Entry] = {}
        self._unanswered: dict[int, _Entry] = {}
        # Where each packet waits, by its id.
        self._held: dict[int, tuple[_Entry, bytes]] = {}
        # Connections that were answered, by flow key: what was asked, where that was decided for them alone, the answer
        # and when it is no longer known, the oldest first.
        self._decided: dict[bytes, tuple[_Name | None, bool, float]] = {}

    @property
    def prompts(self) -> list[Prompt]:
        """Those that wait, the one that is due next first, then the unanswered, the oldest first."""
        return [entry.view() for entry in (*self._waiting.values(), *self._unanswered.values())]

    def deadline(self) -> float | None:
        """When `tick` has something to do next; None for never."""
        first = next(iter(self._waiting.values()), None)
        return None if first is None else first.prompt.until

    def packet(
        self,
        packet_id: int,
        flow_key: bytes,
        flow: Flow,
        subject: Subject,
        program: Program | None,
        certainty: Certainty,
        rule: str,
        now: float,
        *,
        uid: int,
        gid: int = 0,
    ) -> list[PromptCommand]:
        """A packet of this user's waits in the kernel for a verdict. An id that is held already means that the kernel
        forgot the earlier packet."""
        # In this order: a verdict for the forgotten packet would be one on this packet.
        commands = [*self.lost((packet_id,)), *self.tick(now)]
        name = _name(subject, certainty, uid)
        decided = self._decision(name, flow_key, now)
        if decided is not None:
            return [*commands, Release(packet_id, decided)]
        entry = self._entries.get(name)
        if entry is not None and entry.was_asked:
            return commands + self._join(entry, packet_id, flow_key)
        prompt = Prompt(
            id=self._next_id if entry is None else entry.prompt.id,
            subject=subject, program=program, certainty=certainty, flow=flow, rule=rule,
            asked=now, until=None, state=State.UNANSWERED, uid=uid, gid=gid,
        )  # fmt: skip
        if entry is None:
            entry = _Entry(prompt)
            self._next_id += 1
        entry.packets += 1
        return commands + self._ask(entry, prompt, packet_id, flow_key)

    def answer(self, prompt_id: int, answer: Answer, now: float) -> list[PromptCommand]:
        """A person answers: for good, for a time, or for the connections that wait. An answer that lasts is one to
        all other prompts that it covers, too, but no guess is allowed by it.

        Raises NoSuchPromptError, and ValueError for an answer that the prompt cannot have; then nothing has changed.
        """
        entry = self._waiting.get(prompt_id) or self._unanswered.get(prompt_id)
        if entry is None:
            raise NoSuchPromptError(prompt_id)
        check_answer(entry.prompt, answer)
        commands = self._set_clock(now)
        prompt = entry.view()
        once = answer.lasting is Lasting.ONCE
        self._decide(entry, answer.allow, now + CONNECTION_S, once)
        if once:
            return [*commands, *self._remove(entry, answer.allow), Gone(prompt_id)]
        commands += [*self._remove(entry, answer.allow), Remember(prompt, answer), Gone(prompt_id)]
        for other in list(self._entries.values()):
            subject, is_guess, _ = other.name
            if covers(prompt.subject, answer.scope, subject) and not (answer.allow and is_guess):
                self._decide(other, answer.allow, now + CONNECTION_S, once)
                commands += [*self._remove(other, answer.allow), Gone(other.prompt.id)]
        return commands

    def get(self, prompt_id: int) -> Prompt | None:
        """A prompt that can be answered."""
        entry = self._waiting.get(prompt_id) or self._unanswered.get(prompt_id)
        return None if entry is None else entry.view()

    def withdraw(self, prompt_ids: Iterable[int], now: float) -> list[PromptCommand]:
        """These are asked no more: what waits for them is blocked, and nothing is remembered."""
        commands = self.tick(now)
        for prompt_id in prompt_ids:
            entry = self._waiting.get(prompt_id) or self._unanswered.get(prompt_id)
            if entry is not None:
                commands += [*self._remove(entry, allow=False), Gone(prompt_id)]
        return commands

    def configure(self, timeout_s: float, unattended: Action, now: float) -> list[PromptCommand]:
        """From now on prompts wait as long, and nobody being there means this. Those that wait do so no longer."""
        self._timeout_s, self._unattended = timeout_s, unattended
        for entry in self._waiting.values():
            until = entry.prompt.until
            if until is not None and until > now + timeout_s:
                entry.prompt = replace(entry.prompt, until=now + timeout_s)
        return self.tick(now)

    def attend(self, attended: bool, now: float) -> list[PromptCommand]:
        """Somebody is there to be asked from now on, or nobody any more. Prompts that wait go on waiting."""
        self._attended = attended
        return self.tick(now)

    def tick(self, now: float) -> list[PromptCommand]:
        """Time passes: who waited for too long is blocked, and can be answered still."""
        commands = self._set_clock(now)
        while self._waiting:
            entry = next(iter(self._waiting.values()))
            if entry.prompt.until is not None and entry.prompt.until > now:
                break
            self.counts["timed_out"] += len(entry.held)
            commands += self._release(entry, allow=False)
            del self._waiting[entry.prompt.id]
            entry.prompt = replace(entry.prompt, state=State.UNANSWERED, until=None)
            commands += [*self._keep(entry), Changed(entry.view())]
        return commands

    def lost(self, packet_ids: Iterable[int]) -> list[PromptCommand]:
        """The kernel holds these packets no more. Their prompts go on waiting; ids of no packet here mean nothing."""
        touched: dict[int, _Entry] = {}
        for packet_id in packet_ids:
            place = self._held.pop(packet_id, None)
            if place is not None:
                entry, flow_key = place
                del entry.held[flow_key]
                touched[entry.prompt.id] = entry
                self.counts["lost"] += 1
        return [Changed(entry.view()) for entry in touched.values()]

    def reopened(self) -> list[PromptCommand]:
        """The kernel's queue is another one: no packet is held any more."""
        return self.lost(list(self._held))

    def _ask(self, entry: _Entry, prompt: Prompt, packet_id: int, flow_key: bytes) -> list[PromptCommand]:
        """Ask what nobody could be asked until now, or keep it for later."""
        if self._attended and self._has_room(prompt.subject.program):
            self._unanswered.pop(prompt.id, None)
            entry.prompt = replace(prompt, state=State.WAITING, until=prompt.asked + self._timeout_s)
            entry.was_asked = True
            self._entries[entry.name] = self._waiting[prompt.id] = entry
            self._hold(entry, packet_id, flow_key)
            return [Publish(entry.view())]
        allow = not self._attended and self._unattended is Action.ALLOW
        self.counts["full" if self._attended else "unattended"] += 1
        commands: list[PromptCommand] = [Release(packet_id, allow)]
        if prompt.id not in self._unanswered:
            commands += [*self._keep(entry), Publish(entry.view())]
        return commands

    def _has_room(self, program: str) -> bool:
        """Whether another prompt of a program may wait."""
        if len(self._waiting) < self._capacity * SHARE:
            return True
        own = sum(entry.prompt.subject.program == program for entry in self._waiting.values())
        return len(self._waiting) < self._capacity and own < self._capacity * SHARE

    def _join(self, entry: _Entry, packet_id: int, flow_key: bytes) -> list[PromptCommand]:
        """One more packet for a prompt that waits, or that was asked in vain."""
        entry.packets += 1
        if entry.prompt.state is State.UNANSWERED:
            self.counts["unanswered"] += 1
        elif flow_key in entry.held:
            self.counts["repeated"] += 1
        elif len(entry.held) >= HELD_MAX:
            self.counts["crowded"] += 1
        else:
            self._hold(entry, packet_id, flow_key)
            return [Changed(entry.view())]
        return [Release(packet_id, allow=False)]

    def _hold(self, entry: _Entry, packet_id: int, flow_key: bytes) -> None:
        entry.held[flow_key] = packet_id
        self._held[packet_id] = entry, flow_key

    def _release(self, entry: _Entry, allow: bool) -> list[PromptCommand]:
        packet_ids = list(entry.held.values())
        entry.held.clear()
        for packet_id in packet_ids:
            del self._held[packet_id]
        return [Release(packet_id, allow) for packet_id in packet_ids]

    def _remove(self, entry: _Entry, allow: bool) -> list[PromptCommand]:
        """The prompt is answered."""
        del self._entries[entry.name]
        self._waiting.pop(entry.prompt.id, None)
        self._unanswered.pop(entry.prompt.id, None)
        return self._release(entry, allow)

    def _keep(self, entry: _Entry) -> list[PromptCommand]:
        """Keep it among the unanswered, the oldest of which makes room."""
        commands: list[PromptCommand] = []
        if len(self._unanswered) >= self._capacity:
            oldest = next(iter(self._unanswered.values()))
            self.counts["forgotten"] += 1
            # Nothing waits for it.
            self._remove(oldest, allow=False)
            commands.append(Gone(oldest.prompt.id))
        self._entries[entry.name] = self._unanswered[entry.prompt.id] = entry
        return commands

    def _decide(self, entry: _Entry, allow: bool, until: float, once: bool) -> None:
        """The connections that wait are answered: they alone, or by an answer that lasts, which is kept elsewhere."""
        for flow_key in entry.held:
            self._decided.pop(flow_key, None)
            if len(self._decided) >= CONNECTIONS_MAX:
                oldest = next(iter(self._decided))
                self.counts["connections"] += self._decided.pop(oldest)[2] > self._latest
            self._decided[flow_key] = entry.name if once else None, allow, until

    def _decision(self, name: _Name, flow_key: bytes, now: float) -> bool | None:
        """What was answered for this connection, and for it alone. What comes late of one that was answered, when its
        socket is gone, is a guess: it does not pass, and nobody is asked about it."""
        of, allow, until = self._decided.get(flow_key, (None, False, -inf))
        if not now < until <= now + CONNECTION_S:
            return None
        if of == name:
            return allow
        _, is_guess, _ = name
        if not is_guess:
            return None
        self.counts["late"] += 1
        return False

    def _set_clock(self, now: float) -> list[PromptCommand]:
        """Where the clock was set back, nobody waits for longer than a prompt may; so they stay in order, too."""
        commands: list[PromptCommand] = []
        if now < self._latest:
            until = now + self._timeout_s
            for entry in self._waiting.values():
                if entry.prompt.until is not None and entry.prompt.until > until:
                    entry.prompt = replace(entry.prompt, until=until)
                    commands.append(Changed(entry.view()))
        self._latest = now
        return commands


def _name(subject: Subject, certainty: Certainty, uid: int) -> _Name:
    return subject, certainty is Certainty.GUESS, uid
