"""A plan as nftables: table `inet pfw`.

What changes with the policy has the number of its generation in its name and hangs on nothing while it is
loaded; a second, small transaction then turns the base chains to it. For loading a big set and using it in one
transaction is not atomic (a 100,000-element interval set that was replaced so let 30 to 37 packets through), and
turning a few chains is. What stays from one generation to the next: the sets of bans, the counters of rules that
stay the same, the sets of block lists that have not changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

from pfw.enforce import conditions as c
from pfw.enforce import nft_answers
from pfw.enforce import nft_text as text
from pfw.enforce.conditions import CannotError, Place, Plan, Step
from pfw.enforce.ladder import Ladder, Stretch, pieces
from pfw.enforce.nft_table import (
    HITS,
    HITS_TIMEOUT_S,
    LONG_SET,
    NAMES_BURST,
    NAMES_BYTES,
    NAMES_GROUP,
    NAMES_RATE,
    QUIET_GROUP,
    Names,
    Ruleset,
    ban_sets,
    base_chains,
    chain,
    counted,
    filled_set,
    is_told,
    log,
    log_prefix,
    over_counter,
    remove,
    switch,
    table,
    tell,
)
from pfw.enforce.tree import Node, Question, grow
from pfw.model.verdict import Action


def render(plan: Plan, generation: int, loaded: Iterable[str] = (), *, tell_all: bool = False) -> Ruleset:
    """The ruleset of a plan. `loaded` are the sets that the kernel has already. With `tell_all` also what is allowed
    without a word is told of, to whoever listens. Raises CannotError."""
    made = _Renderer(plan, generation, tell_all=tell_all)
    made.render()
    loaded = set(loaded)
    fresh = [block for name, block in made.long_sets.items() if name not in loaded]
    chains = [chain(name, lines) for name, lines in made.chains.items()]
    hooked = [chain(name, [head, *lines]) for name, head, lines in base_chains(plan.open, generation)]
    asking = plan.programs is not None
    answers = nft_answers.sets() if asking else []
    empty, filled = (nft_answers.chains(plan, filled=each) if asking else [] for each in (False, True))
    everything = [*made.shared(), *answers, *made.long_sets.values(), *made.sets.values(), *filled, *chains, *hooked]
    return Ruleset(
        generation,
        load=f"{table([*made.shared(), *answers, *fresh, *made.sets.values(), *empty, *chains])}"
        f"{nft_answers.refill(plan) if asking else ''}",
        switch=switch(plan.open, generation),
        whole=f"{remove()}{table(everything)}",
        rules={name: len(lines) for name, lines in made.chains.items()},
        sets=frozenset(made.sets),
        long_sets=frozenset(made.long_sets),
        shared=Names(nft_answers.chain_names(plan), nft_answers.set_names(plan)),
    )


class _Renderer:
    """The parts of one generation. `chains` holds the lines of each chain by its name."""

    def __init__(self, plan: Plan, generation: int, *, tell_all: bool) -> None:
        self._plan = plan
        self._tell_all = tell_all
        self._generation = generation
        self._front = f"g{generation}_"
        self.chains: dict[str, list[str]] = {}
        self.sets: dict[str, str] = {}
        self.long_sets: dict[str, str] = {}
        self._set_names: dict[tuple[str, tuple[str, ...]], str] = {}
        self._long_names: dict[int, str] = {}
        self._limit_sets: dict[tuple[int, int], str] = {}
        self._nodes: dict[int, str] = {}
        self._trees: list[Node] = []
        """Kept: nodes are known by their `id`, which another may have as soon as one is gone."""
        self._actions: dict[tuple[int, Place], str] = {}
        self._place_now = Place.IN

    def render(self) -> None:
        for place in Place:
            if place in self._plan.chains:
                self._place(place)
            elif place is not Place.PUBLISHED:
                self._open(place).append("accept")

    def shared(self) -> list[str]:
        """What every generation uses: the sets of bans, of hits, and the counters."""
        hits = f"typeof numgen inc mod 2; size 65535; flags dynamic,timeout; timeout {HITS_TIMEOUT_S}s"
        blocks = [*ban_sets({}), filled_set(HITS, hits, ())]
        for verdict in self._plan.verdicts:
            blocks.append(f"counter {verdict.counter} {{ {text.comment(verdict.name)}; }}")
            if is_told(verdict):
                untold = text.comment(f"not told: {verdict.name}")
                blocks.append(f"counter {over_counter(verdict.counter)} {{ {untold}; }}")
        return blocks

    def _open(self, name: str) -> list[str]:
        return self.chains.setdefault(self._front + name, [])

    def _place(self, place: Place) -> None:
        """The chain of a place: what belongs to a connection first, then the tree of the rules."""
        planned = self._plan.chains[place]
        self._place_now = place
        lines = self._open(place)
        if place is Place.IN and self._plan.programs is not None:
            lines.append(TELL_NAMES)
        for step in planned.connections:
            lines.extend(self._rule(step))
        if place is Place.FORWARD:
            lines.append(f"ct status & dnat == dnat goto {self._front}{Place.PUBLISHED}")
        ladder = Ladder(planned.rules)
        if not ladder.asks:
            self._tree(lines, planned.rules, planned.end)
            return
        if ladder.head:
            lines.append(f"jump {self._piece('head', ladder.head)}")
        self._programs(lines, ladder, planned.end)

    def _programs(self, lines: list[str], ladder: Ladder, end: Step) -> None:
        """Rules for programs: by its label a connection goes to the chain of its class."""
        classes, place = self._plan.programs, self._place_now
        assert classes is not None
        targets: dict[tuple[Step | Stretch, ...], str] = {}
        chain_of: list[str] = []
        for number in range(len(classes.all)):
            parts = ladder.of_class(number)
            if parts not in targets:
                targets[parts] = f"{self._front}{place}_p{len(targets)}"
                self._parts(self.chains.setdefault(targets[parts], []), ladder, parts, end)
            chain_of.append(targets[parts])
        known = [f"{each.mark:#010x} : goto {name}" for each, name in zip(classes.all, chain_of, strict=True)]
        by_label = self._named("type mark : verdict", "", known, word="map")
        owned = f"{self._front}{place}_programs"
        own = self.chains.setdefault(owned, [])
        members = [(self._members(at), chain_of[at]) for at, each in enumerate(classes.all) if not each.is_one]
        # Breaks where no program holds a socket; the kernel has some of its own.
        lines.append(f"{_HAS_PROGRAM[place]} goto {owned}")
        for label in (labels := nft_answers.label_words(place, classes.mask)):
            own.append(f"{label} vmap @{by_label}")
            own += [f"{label} @{name} goto {chain}" for name, chain in members]
        if place is Place.OUT and not self._minds_users(ladder):
            # Its socket was closed while somebody was asked: the packet has its label still, but no user any more.
            lines.append(f"{labels[-1]} vmap @{by_label}")
            lines += [f"{labels[-1]} @{name} goto {chain}" for name, chain in members]
        elif place is Place.OUT:
            known_labels = self._named("type mark", "", [f"{each.mark:#010x}" for each in classes.all])
            lines += [f"{labels[-1]} @{name} drop" for name in (known_labels, *(name for name, _ in members))]
        self._tree(lines, ladder.nobody(), end)
        self._tree(own, ladder.unknown(), end)

    def _minds_users(self, ladder: Ladder) -> bool:
        """Whether a rule forbids, or asks about, what only some users send."""
        return any(
            step.verdict is not None
            and self._plan.verdicts[step.verdict].action is not Action.ALLOW
            and any(isinstance(each, c.OfUser | c.OfGroup) for each in step.conditions)
            for step in ladder.steps_behind_head
        )

    def _members(self, number: int) -> str:
        """The set of further labels of a class: of programs in it that have got one of their own."""
        name = f"{self._front}k{number}"
        self.sets[name] = filled_set(name, "type mark; size 16384", ())
        return name

    def _parts(self, lines: list[str], ladder: Ladder, parts: Sequence[Step | Stretch], end: Step) -> None:
        for part in parts:
            if isinstance(part, Step):
                lines.extend(self._blamed(part))
                continue
            for piece in pieces(part):
                lines.append(f"jump {self._piece(f's{piece.first}_{piece.end}', ladder.steps(piece))}")
        lines.extend(self._rule(end))

    def _piece(self, name: str, steps: Sequence[Step]) -> str:
        """A chain of rules for everybody that comes back where none of them fits."""
        name = f"{self._front}{self._place_now}_{name}"
        if name not in self.chains:
            self._tree(self.chains.setdefault(name, []), steps, None)
        return name

    def _tree(self, lines: list[str], steps: Sequence[Step], end: Step | None) -> None:
        self._trees.append(grow(steps))
        self._node(lines, self._place_now, self._trees[-1], end)

    def _node(self, lines: list[str], place: Place, node: Node, end: Step | None) -> None:
        """Adds a node to the chain of these lines; what it leads to becomes chains of its own."""
        while node.question is not None and node.otherwise is not None:
            lines.extend(self._questions(place, node, end))
            node = node.otherwise
        for step in node.steps:
            lines.extend(self._blamed(step))
        if end is not None:
            lines.extend(self._rule(end))

    def _blamed(self, step: Step) -> list[str]:
        """A step as rules; what cannot be is told with the place of its rule."""
        try:
            return list(self._rule(step))
        except CannotError as error:
            index = None if step.verdict is None else self._plan.verdicts[step.verdict].index
            raise CannotError(error.what, index, error.field) from None

    def _questions(self, place: Place, node: Node, end: Step | None) -> Iterator[str]:
        by_key: dict[str, list[str]] = {}
        for answer in node.answers:
            target = self._node_chain(place, answer.node, end)
            key, value = _key(node.question, answer.first, answer.last)
            by_key.setdefault(key, []).append(f"{value} : goto {target}")
        for key, elements in by_key.items():
            kind = _KEY_TYPES[key] + (
                "; flags interval" if any("-" in each or "/" in each for each in elements) else ""
            )
            yield f"{key} vmap @{self._named(f'type {kind}', '', elements, word='map')}"

    def _node_chain(self, place: Place, node: Node, end: Step | None) -> str:
        name = self._nodes.get(id(node))
        if name is None:
            name = f"{place}_{len(self._nodes)}"
            self._nodes[id(node)] = self._front + name
            self._node(self._open(name), place, node, end)
            name = self._front + name
        return name

    def _rule(self, step: Step) -> Iterator[str]:
        """A step as rules: one, or with a limit one for each family that its buckets are of."""
        parts = [self._match(each) for each in step.conditions if not isinstance(each, c.UnderLimit)]
        action = self._action(step.verdict)
        limit = next((each for each in step.conditions if isinstance(each, c.UnderLimit)), None)
        if limit is None:
            yield " ".join([*parts, action])
            return
        families = {each.family for each in step.conditions if isinstance(each, c.HasAddress)}
        for family in sorted(families or {c.IPV4, c.IPV6}):
            if (c.IcmpType in map(type, step.conditions)) and not _icmp_goes(step, family):
                continue
            yield " ".join([*parts, text.limit(limit, self._limit_set(limit, family), family), action])

    def _match(self, condition: c.Condition) -> str:
        if not isinstance(condition, c.HasAddress) or len(condition.ranges) < LONG_SET:
            return text.match(condition, self._named)
        # A long list is written once for all rules that want it.
        key = id(condition.ranges)
        if key not in self._long_names:
            self._long_names[key] = text.addresses(condition, self._named)
        return text.address(condition, self._long_names[key])

    def _action(self, number: int | None) -> str:
        if number is None:
            return "accept"
        key = number, self._place_now
        if key not in self._actions:
            self._actions[key] = self._make_action(number)
        return self._actions[key]

    def _make_action(self, number: int) -> str:
        verdict = self._plan.verdicts[number]
        named = text.comment(verdict.name)
        if verdict.action is Action.ASK:
            return f"goto {self._asking_chain(number)} {named}"
        if is_told(verdict):
            return f"goto {self._verdict_chain(number)} {named}"
        if verdict.quiet:
            return f"counter name {verdict.counter} accept {named}"
        told = f"{log(log_prefix(self._generation, number), QUIET_GROUP)} " if self._tell_all else ""
        return f"{counted(verdict)} {told}accept {named}"

    def _verdict_chain(self, number: int) -> str:
        """The chain that counts, tells and ends: packets above the rate are counted once more, and not told."""
        verdict = self._plan.verdicts[number]
        name = f"v{number}"
        if self._front + name not in self.chains:
            lines = self._open(name)
            ends = self._end(verdict.action)
            told = tell(log_prefix(self._generation, number))
            lines.append(f"{counted(verdict)} {told} {ends} {text.comment(verdict.name)}")
            lines.append(f"counter name {over_counter(verdict.counter)} {ends}")
        return self._front + name

    def _asking_chain(self, number: int) -> str:
        """The chain that looks for an answer, where such a one suffices, and else hands the packet over; where nobody
        takes it, it ends there."""
        verdict = self._plan.verdicts[number]
        name = f"v{number}_{self._place_now}"
        if self._front + name not in self.chains:
            lines = self._open(name)
            if number != c.UNKNOWN and not verdict.narrow:
                lines.append(f"jump answers_{self._place_now}")
            lines += [f"{counted(verdict)} jump {nft_answers.ASK} {text.comment(verdict.name)}", "drop"]
        return self._front + name

    def _end(self, action: Action) -> str:
        """What ends a packet's way. A reject always drops, too: none of its answers lets a packet on."""
        if action is Action.REJECT:
            if f"{self._front}reject" not in self.chains:
                with_ports = self._named("type inet_proto", "", _ANSWERED_BY_PORT)
                self._open("reject").extend(line.format(with_ports=with_ports) for line in _REFUSALS)
            return f"goto {self._front}reject"
        return "drop" if action is Action.BLOCK else "accept"

    def _named(self, kind: str, what: str, elements: Sequence[str], word: str = "set") -> str:
        key = kind, tuple(elements)
        if key not in self._set_names:
            long = word == "set" and len(elements) >= LONG_SET
            name = f"l_{_digest(kind, elements)}" if long else f"{self._front}{word[0]}{len(self._set_names)}"
            self._set_names[key] = name
            (self.long_sets if long else self.sets)[name] = filled_set(name, kind, elements, what, word)
        return self._set_names[key]

    def _limit_set(self, condition: c.UnderLimit, family: int) -> str:
        key = condition.bucket, family
        if key not in self._limit_sets:
            name = f"{self._front}b{condition.bucket}_{family}"
            self._limit_sets[key] = name
            self.sets[name] = filled_set(name, text.limit_set(condition, family), ())
        return self._limit_sets[key]


_HAS_PROGRAM = {Place.OUT: "meta skuid != 4294967295", Place.IN: "socket mark & 0x00000000 == 0x00000000"}
"""Never false, but for want of a socket, or of a program that holds it."""

TELL_NAMES = (
    "meta l4proto udp th sport 53 ct state established ct direction reply "
    f"limit rate {NAMES_RATE}/second burst {NAMES_BURST} packets "
    f"log group {NAMES_GROUP} snaplen {NAMES_BYTES} queue-threshold 1"
)
"""Tells of answers of DNS, before the loopback interface is let through: many a resolver is there. It is no verdict.

Only what answers something that was asked from here: in a connection that somebody else began, packets from port 53
are "established" as well, and could say what they like. A forged answer has to hit the port and the moment; the
question's number is not checked. Told of at once, and not when there are more: the program connects in no time."""

_ANSWERED_BY_PORT = ("17", "33", "132", "136")
_REFUSALS = (
    "meta l4proto tcp reject with tcp reset",
    "meta l4proto @{with_ports} reject with icmpx port-unreachable",
    "reject with icmpx admin-prohibited",
)
"""The answers to what is refused: a reset, or an ICMP error that says "this port" where there are ports."""

_KEY_TYPES = {
    "meta l4proto": "inet_proto : verdict",
    "th dport": "inet_service : verdict",
    "ip saddr": "ipv4_addr : verdict",
    "ip daddr": "ipv4_addr : verdict",
    "ip6 saddr": "ipv6_addr : verdict",
    "ip6 daddr": "ipv6_addr : verdict",
}


def _digest(kind: str, elements: Sequence[str]) -> str:
    return blake2b("\n".join([kind, *elements]).encode(), digest_size=8).hexdigest()


_KEYS = {Question.SOURCE: "saddr", Question.DESTINATION: "daddr"}


def _key(question: Question | None, first: int, last: int) -> tuple[str, str]:
    """What of a packet is looked up, and how the values from first to last are written."""
    if question is Question.PROTOCOL:
        return "meta l4proto", str(first)
    if question is Question.PORT:
        return "th dport", text.port_text((first, last))
    assert question is not None
    return f"{text.family_word(text.family_of(first))} {_KEYS[question]}", text.range_text((first, last))


def _icmp_goes(step: Step, family: int) -> bool:
    protocols = {each.protocol for each in step.conditions if isinstance(each, c.IcmpType)}
    return protocols == ({1} if family == c.IPV4 else {58})
