"""The contracts in pyproject.toml, each broken once: a rule that nobody can break by accident must be seen to bite."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("model", "wire", "policy", "engine", "enforce", "record", "drivers", "cli", "daemon", "commands")

LINT = """
import sys
sys.path.insert(0, "src")
from importlinter.cli import lint_imports_command
lint_imports_command(["--no-cache"])
"""

LAYERS = "imports go down only"
PURE = "the core has no I/O, no clock and no chance"


@pytest.mark.parametrize(
    ("room", "line", "broken"),
    [
        ("policy", "import pfw.model, re, ipaddress", None),
        ("cli", "import pfw.engine, pfw.record, pfw.wire, os", None),
        ("model", "import pfw.policy", LAYERS),
        ("engine", "import pfw.drivers", LAYERS),
        ("policy", "import pfw.wire", LAYERS),
        ("record", "import pfw.drivers", LAYERS),
        ("enforce", "import pfw.drivers", LAYERS),
        ("daemon", "import pfw.commands", LAYERS),
        ("enforce", "import os", PURE),
        ("daemon", "import pfw.cli", LAYERS),
        ("cli", "import pfw.daemon", LAYERS),
        ("wire", "def f() -> None:\n    from time import monotonic", PURE),
        ("engine", "import random", PURE),
        ("cli", "import pfw.drivers", "screens never touch the system"),
        ("record", "import pfw.policy", "drivers and records carry bytes and values, they do not decide"),
        ("engine", "import pfw.wire", "the engine takes values, never bytes"),
    ],
)
def test_contract(tmp_path, room, line, broken):
    package = tmp_path / "src" / "pfw"
    for name in ("", *ROOMS):
        (package / name).mkdir(parents=True, exist_ok=True)
        (package / name / "__init__.py").touch()
    (package / "main.py").write_text("import pfw.cli, pfw.daemon\n")
    (package / room / "offender.py").write_text(line + "\n")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    done = subprocess.run([sys.executable, "-P", "-c", LINT], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == (0 if broken is None else 1), done.stdout + done.stderr
    found = [row.removesuffix(" BROKEN") for row in done.stdout.splitlines() if row.endswith(" BROKEN")]
    assert found == ([] if broken is None else [broken])
