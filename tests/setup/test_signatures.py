"""docs/signatures.md, and the tool that writes it."""

import subprocess
import sys
from pathlib import Path

from pfw.engine.suspicion import TEXTS
from pfw.record.eve import CATEGORIES, SIGNATURES
from pfw.wire.anomaly import ANOMALY_TEXTS

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", ROOT / "tools" / "make_signatures.py", *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_page_is_up_to_date():
    done = run("--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_other_words_are_refused():
    done = run("--chek")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_it_has_every_name_and_id():
    page = (ROOT / "docs" / "signatures.md").read_text(encoding="utf-8")
    for name in (*SIGNATURES, *ANOMALY_TEXTS):
        assert f"| `{name}` |" in page
    for number, _, signature in SIGNATURES.values():
        assert page.count(f"| {number} |") == 1
        assert f"| PFW {signature} |" in page


def test_the_tables_speak_of_the_same_events():
    assert set(SIGNATURES) == set(TEXTS)
    assert len({number for number, _, _ in SIGNATURES.values()}) == len(SIGNATURES)
    assert all(event.startswith(tuple(CATEGORIES)) for event in SIGNATURES)
