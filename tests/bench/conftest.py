"""The bench is scripts beside each other, not a package: its folder goes on the path as it does when it runs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
