"""A policy in the kernel and in Python, and packets that tell whether both mean the same."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
from msgspec import Struct
from tests.netns.oracle import Expected, Oracle
from tests.netns.prober import Seen, World
from tests.netns.probes import Probe
from tests.netns.random_policies import Case, owners

from pfw.daemon.backend import Backend, Counted
from pfw.daemon.enforcing import named
from pfw.drivers.programs import RefusedError, run
from pfw.enforce.conditions import CannotError, Plan
from pfw.enforce.plan import Surroundings, make_plan
from pfw.model.flow import Moment

STRAYS_MOST = 8
"""Packets of the kernel's own while one policy replaces another."""


class Fault(Struct):
    """A case in which policy and kernel differ, and how. `probe` is None where it is not about a packet."""

    case: Case
    what: str
    probe: Probe | None = None

    def __str__(self) -> str:
        case = self.case
        lists = f"\nlists: {json.dumps(case.lists)}" if case.lists else ""
        probes = "\n".join(msgspec.json.encode(each).decode() for each in case.probes)
        return f"{_shown(case.document)}{lists}\n{case.zone}\npackets:\n{probes}\n{self.what}"


def _shown(document: dict[str, Any]) -> str:
    parts = {key: value for key, value in document.items() if key != "rules"}
    rules = ",\n  ".join(json.dumps(rule, ensure_ascii=False) for rule in document.get("rules", ()))
    return f'{json.dumps(parts, ensure_ascii=False)[:-1]}, "rules": [\n  {rules}\n]}}'


class Comparison:
    """One backend in a world."""

    def __init__(self, world: World, backend: str) -> None:
        self.world = world
        self._backend: Backend = named(backend)
        self._generation = 0
        self._counted: dict[str, Counted] = {}
        self.packets = 0
        self.rules = 0
        self.cannot: list[str] = []
        """Why the policies that the backend could not express could not be."""

    def run(self, case: Case) -> Fault | None:
        """How policy and kernel differ in a case; None where they do not."""
        result: Fault | None = self.world.firewall.call(lambda: self._run(case))
        return result

    def close(self) -> None:
        self.world.firewall.call(lambda: [run(job) for job in self._backend.removal()])

    def _run(self, case: Case) -> Fault | None:
        policy, lists = case.policy(), case.addresses()
        plan = make_plan(policy, Surroundings(owners(), case.clock(time.time())), lists)
        try:
            self._apply(plan)
        except CannotError as error:
            self.cannot.append(error.what)
            return None
        except RefusedError as error:
            return Fault(case, f"refused: {error}")
        self.world.begin()
        before = self._backend.counters()
        lost = self._lost(before)
        if lost is not None:
            return Fault(case, lost)
        oracle = Oracle(policy, lists)
        expected: list[Expected] = []

        def ask(probe: Probe) -> None:
            now = time.time()
            expected.append(oracle.expect(probe, Moment(now, case.zone.utc_offset(now))))

        names = [verdict.name for verdict in plan.verdicts]
        seen = self.world.send(
            case.probes, lambda found: all(map(_as_expected, expected, found, [names] * len(found))), ask
        )
        self.packets += len(seen)
        for probe, wanted, found in zip(case.probes, expected, seen, strict=True):
            if not _as_expected(wanted, found, names):
                lost = f"\n{self.world.log.lost} lost" if self.world.log.lost else ""
                return Fault(case, f"differs: {probe}\npolicy: {wanted}\nkernel: {_named(found, names)}{lost}", probe)
        self.rules += len({number for each in seen for _, number in each.decided})
        return self._miscounted(case, plan, before, seen)

    def _apply(self, plan: Plan) -> None:
        self._generation += 1
        change = self._backend.change(plan, self._generation, tell_all=True)
        change.load()
        change.switch()
        change.verify()
        change.sweep()

    def _lost(self, before: dict[str, Counted]) -> str | None:
        """What a rule that stayed the same has not kept of its counts, or got on top."""
        had, self._counted = self._counted, {}
        # ip6tables-nft 1.8.9 does not set the counts that it is told to restore.
        most_lost = float("inf") if self._backend.name == "iptables-nft" else STRAYS_MOST
        for name in before.keys() & had.keys():
            if not -most_lost <= before[name].packets - had[name].packets <= STRAYS_MOST:
                return f"counter {name} had {had[name]}, and behind the change {before[name]}"
        return None

    def _miscounted(self, case: Case, plan: Plan, before: dict[str, Counted], seen: list[Seen]) -> Fault | None:
        """The counters tell what the log does; what the kernel sends of its own may come on top."""
        after = self._counted = self._backend.counters()
        for number, verdict in enumerate(plan.verdicts):
            told = sum(number == each for found in seen for _, each in found.decided)
            was, now = before.get(verdict.counter), after.get(verdict.counter)
            if now is None and not told:
                continue  # iptables has no chain for what nothing leads to
            counted = (now.packets if now else 0) - (was.packets if was else 0)
            if not verdict.quiet and counted > told + self.world.others[number]:
                self.world.settle()
            others = self.world.others[number]
            if not verdict.quiet and not told <= counted <= told + others:
                return Fault(case, f"{verdict.name}: counted {counted}, told {told} and {others}")
            if now is not None and now.untold != (was.untold if was else 0):
                return Fault(case, f"{verdict.name}: {now.untold} untold")
        return None


def _named(seen: Seen, names: list[str]) -> str:
    decided = [(place, names[number]) for place, number in seen.decided]
    return f"decided={decided} arrived={seen.arrived} answered={seen.answered}"


def _as_expected(wanted: Expected, found: Seen, names: list[str]) -> bool:
    decided = sorted((place, names[number]) for place, number in found.decided if number < len(names))
    if decided != sorted(wanted.decided) or found.arrived != wanted.arrives:
        return False
    return wanted.answered is None or wanted.answered is found.answered
