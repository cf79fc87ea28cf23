"""What one decision costs as policies grow: the matcher beside its slow twin and a plain scan."""

from __future__ import annotations

import json

from policies import PREFIXES, write_policies
from processes import BenchError, run, say
from setting import Setting
from table import Section, plural_rounds, ratios, spread

FLOWS, QUICK_FLOWS = 20_000, 5_000
PATIENCE_S, QUICK_PATIENCE_S = 1.5, 0.4
_POLICIES = {
    "10 rules": "10",
    "100 rules": "100",
    "1,000 rules": "1000",
    "10,000 rules": "10000",
    f"{PREFIXES:,} prefixes": "prefixes",
}
_COLUMNS = ("", "pfw", "its slow twin", "scan with ipaddress", "pfw is, to the scan,", "reading the policy, ms")


def measure(setting: Setting) -> list[Section]:
    section = Section("One decision about a new connection, µs", _COLUMNS)
    flows = QUICK_FLOWS if setting.quick else FLOWS
    patience_s = QUICK_PATIENCE_S if setting.quick else PATIENCE_S
    rounds = min(3, setting.rounds)
    policies = write_policies(setting.folder)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in _POLICIES}
    for turn in range(rounds):
        say(f"bench: matcher, round {turn + 1} of {rounds}")
        for name, key in _POLICIES.items():
            command = (*setting.program("decide"), str(policies[key]), str(flows), str(patience_s))
            result = json.loads(run(command, environment=setting.environment).output)
            if result["differ"]:
                raise BenchError(
                    f"the matcher, its slow twin and the scan differ on {result['differ']} connections, {name}"
                )
            results[name].append(result)
    for name, runs in results.items():
        fast, slow, scan, load = ([run[key] for run in runs] for key in ("fast_us", "slow_us", "scan_us", "load_s"))
        loads = spread([seconds * 1e3 for seconds in load])
        section.row(name, spread(fast, 2), spread(slow), spread(scan), ratios(scan, fast), loads)
    section.note(
        f"{flows:,} inbound connections, no two alike, of which few match a rule before the last; "
        f"{plural_rounds(rounds)}"
    )
    return [section]
