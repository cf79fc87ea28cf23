"""What one decision costs: the fast matcher, its slow twin, and a plain scan with the ipaddress module.

    decide.py RULES FLOWS PATIENCE        prints {"load_s": …, "fast_us": …, "slow_us": …, "scan_us": …, "differ": 0}

Times are of one decision in microseconds, the mean over FLOWS connections of which no two are alike. `load_s` is
reading the file and making the matcher. Nobody gets more than PATIENCE seconds:
the slow ones decide on fewer. `differ` counts where the others do not agree with the first.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random
from typing import Any

from pfw.cli.rules import load
from pfw.model.address import format_address
from pfw.model.flow import Direction, Flow, Moment
from pfw.policy.decide import Decider
from pfw.policy.match import decide_slowly

MOMENT = Moment(1_790_000_000.0)


def main(rules: Path, count: int, patience_s: float) -> None:
    began = time.perf_counter()
    policy = load(rules)
    decider = Decider(policy)
    load_s = time.perf_counter() - began
    flows = [_flow(Random(number)) for number in range(count)]
    decider.decide(flows[0], MOMENT)
    fast_us, verdicts = _time(lambda flow: decider.decide(flow, MOMENT), flows, patience_s)
    slow_us, slow_verdicts = _time(lambda flow: decide_slowly(policy, flow, MOMENT), flows, patience_s)
    scan_us, actions = _time(Scan(json.loads(rules.read_text())).action, flows, patience_s)
    differ = sum(slow != fast for slow, fast in zip(slow_verdicts, verdicts, strict=False))
    differ += sum(action != fast.action for action, fast in zip(actions, verdicts, strict=False))
    result = {"load_s": load_s, "fast_us": fast_us, "slow_us": slow_us, "scan_us": scan_us, "differ": differ}
    print(json.dumps(result))


def _time(decide: Callable[[Flow], Any], flows: list[Flow], patience_s: float) -> tuple[float, list[Any]]:
    """Microseconds a decision and the answers, for as many flows as there is patience for."""
    answers: list[Any] = []
    began = time.perf_counter()
    for flow in flows:
        answers.append(decide(flow))
        if len(answers) % 64 == 1 and time.perf_counter() - began > patience_s:
            break
    return (time.perf_counter() - began) / len(answers) * 1e6, answers


def _flow(pick: Random) -> Flow:
    source = pick.randrange(16 << 24, 223 << 24).to_bytes(4)
    return Flow(
        direction=Direction.IN,
        protocol=pick.choice((6, 6, 6, 17)),
        source=source,
        destination=bytes((192, 168, 1, 5)),
        source_port=pick.randrange(1024, 65_536),
        port=pick.randrange(1, 10_000),
    )


class Scan:
    """Rule after rule and prefix after prefix, as a first version does; fields that these policies use, for inbound."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._rules = [
            (rule["action"], self._networks(rule), rule.get("protocol"), self._ports(rule.get("port")))
            for rule in document["rules"]
            if rule.get("direction", "both") in ("in", "both") and "icmp_type" not in rule
        ]
        self._default = document["default"]["in"]

    def action(self, flow: Flow) -> str:
        source = ip_address(format_address(flow.source))
        protocol = "tcp" if flow.protocol == 6 else "udp"
        for action, networks, wanted, ports in self._rules:
            if wanted is not None and wanted != protocol:
                continue
            if ports is not None and not any(first <= (flow.port or 0) <= last for first, last in ports):
                continue
            if networks is None or any(source in network for network in networks):
                return str(action)
        return str(self._default)

    @staticmethod
    def _networks(rule: dict[str, Any]) -> list[Any] | None:
        texts = rule.get("from", rule.get("remote"))
        if texts is None:
            return None
        return [ip_network(text) for text in ([texts] if isinstance(texts, str) else texts)]

    @staticmethod
    def _ports(ports: Any) -> list[tuple[int, int]] | None:
        if ports is None:
            return None
        pairs = [str(each).partition("-") for each in (ports if isinstance(ports, list) else [ports])]
        return [(int(first), int(last or first)) for first, _, last in pairs]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
