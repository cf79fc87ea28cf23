"""Writes docs/signatures.md, what EVE's `alert` and `anomaly` records can say, from the tables in the code;
`--check` only compares."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "docs/signatures.md"

_HEAD = """\
# Alerts and anomalies

What `--eve FILE` can hold. (`tools/make_signatures.py` writes this page.)

## `alert`

What no honest sender makes. `alert.gid` is 1 and `alert.rev` is 1. The range of the ids is for local use, and an id
is never given to another signature. Severity 1 is the gravest, 3 the least. `firewall.log` and the screen use the words
of the last column.
"""
_DETECTED = """\
What the detectors of `pfw daemon` find in many packets. Severity goes by the score: 1 from 80 on, 2 from 60 on, else
3. `pfw.evidence` says what was seen, `pfw.response` what was done, `pfw.app` which program had to do with it;
`alert.action` is `blocked` where the source was banned.
"""
_ANOMALIES = """\
## `anomaly`

What is malformed: `anomaly.type` is `decode`, and `anomaly.event` is one of these names, which are those of Suricata's
decoder where it has one.
"""


def page() -> str:
    """What the file has to hold."""
    from pfw.engine.suspicion import TEXTS
    from pfw.record.alerts import ALERTS
    from pfw.record.eve import CATEGORIES, SIGNATURES
    from pfw.wire.anomaly import ANOMALY_TEXTS

    alerts = []
    for event, (number, severity, signature) in sorted(SIGNATURES.items(), key=lambda item: item[1]):
        category = next(text for prefix, text in CATEGORIES.items() if event.startswith(prefix))
        alerts.append((str(number), str(severity), f"PFW {signature}", category, f"`{event}`", TEXTS[event]))
    titles = ("`signature_id`", "`severity`", "`signature`", "`category`", "event", "meaning")
    anomalies = [(f"`{event}`", text) for event, text in ANOMALY_TEXTS.items()]
    found = [(str(number), f"PFW {signature}", category, f"`{kind}`") for kind, (number, signature, category)
             in ALERTS.items()]  # fmt: skip
    kinds = ("`signature_id`", "`signature`", "`category`", "kind")
    parts = (_HEAD, _table(titles, alerts), _DETECTED, _table(kinds, found), _ANOMALIES)
    return "\n".join((*parts, _table(("`event`", "meaning"), anomalies)))


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: tools/make_signatures.py [--check]", file=sys.stderr)
        return 2
    path = ROOT / NAME
    text = page()
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return 0
    if arguments:
        print(f"{NAME} is not what the code says; type: .venv/bin/python tools/make_signatures.py", file=sys.stderr)
        return 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    sys.exit(main(sys.argv[1:]))
