"""What tests of all rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def captures() -> list[Path]:
    """Real captures: from the folder that PFW_CAPTURES names, else from `shared/captures` beside the checkout."""
    named = os.environ.get("PFW_CAPTURES")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "captures"
    paths = sorted(path for path in folder.glob("*") if path.suffix in (".pcap", ".pcapng"))
    if not paths:
        pytest.skip(f"no captures in {folder} (PFW_CAPTURES names another folder)")
    return paths
