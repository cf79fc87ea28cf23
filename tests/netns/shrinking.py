"""A case in which policy and kernel differ, made as small as it gets: greedily, for as long as it still does."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from tests.netns.comparing import Comparison, Fault
from tests.netns.random_policies import Case

from pfw.enforce.plan import PlanError
from pfw.model.policy import PolicyError

LONGEST_S = 150.0


def shrunken(comparison: Comparison, case: Case, fault: Fault) -> Fault:
    """The smallest fault found; `fault` itself, marked, where it does not come again."""
    again = _fault(comparison, case)
    comparison.world.patience_s = 1.0
    if again is None:
        fault.what += "\nIT DID NOT COME AGAIN with the same policy and packets"
        return fault
    best = again
    deadline = time.monotonic() + LONGEST_S
    while (smaller := _smaller_fault(comparison, best, deadline)) is not None:
        best = smaller
    return best


def _smaller_fault(comparison: Comparison, fault: Fault, deadline: float) -> Fault | None:
    for smaller in _smaller(fault):
        if time.monotonic() > deadline:
            return None
        found = _fault(comparison, smaller)
        if found is not None:
            return found
    return None


def _fault(comparison: Comparison, case: Case) -> Fault | None:
    try:
        return comparison.run(case)
    except (PolicyError, PlanError):
        return None


def _smaller(fault: Fault) -> Iterator[Case]:
    case = fault.case
    if len(case.probes) > 1:
        if fault.probe is not None:
            yield _with(case, probes=[fault.probe])
            yield _with(case, probes=[each for each in case.probes if each.source == fault.probe.source])
        for part in _parts(len(case.probes)):
            yield _with(case, probes=[each for at, each in enumerate(case.probes) if at not in part])
    for document in _smaller_documents(case.document):
        yield _with(case, document=document)
    for name in case.lists:
        for at in range(len(case.lists[name])):
            shorter = [each for place, each in enumerate(case.lists[name]) if place != at]
            yield _with(case, lists={**case.lists, name: shorter})


def _with(case: Case, **fields: Any) -> Case:
    return msgspec.structs.replace(case, **fields)


def _parts(count: int) -> Iterator[range]:
    """Halves, quarters, … single ones."""
    size = count // 2
    while size:
        for first in range(0, count, size):
            yield range(first, min(first + size, count))
        size //= 2


def _smaller_documents(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    rules = document.get("rules", [])
    for part in _parts(len(rules)):
        yield {**document, "rules": [rule for at, rule in enumerate(rules) if at not in part]}
    if len(rules) == 1:
        yield {**document, "rules": []}
    for key in document:
        if key not in ("version", "rules"):
            yield {name: value for name, value in document.items() if name != key}
    for at, rule in enumerate(rules):
        for changed in _smaller_rules(rule):
            copied = copy.deepcopy(document)
            copied["rules"][at] = changed
            yield copied


def _smaller_rules(rule: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key, value in rule.items():
        if key not in ("name", "action"):
            yield {name: each for name, each in rule.items() if name != key}
        if isinstance(value, list) and len(value) > 1:
            for part in _parts(len(value)):
                yield {**rule, key: [each for at, each in enumerate(value) if at not in part]}
