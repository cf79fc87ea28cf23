"""Where and when a bench ran, in a line."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path


def describe_machine(python_version: str) -> str:
    """Date (UTC), processor and cores, memory, kernel, distribution, the Python that ran pfw, and the load before."""
    facts = (
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        f"{_processor()}, {os.cpu_count()} cores, {_memory_gb():.0f} GB",
        f"Linux {platform.release()}",
        platform.freedesktop_os_release().get("PRETTY_NAME", "unknown distribution"),
        f"Python {python_version}",
        f"load before the run {os.getloadavg()[0]:.1f}",
    )
    return "; ".join(facts)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "Hardware"):
            return " ".join(value.split())
    return platform.machine()


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
