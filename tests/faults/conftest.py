"""Faults are tried on the real kernel, in the namespaces of `tests/netns`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.trying import trial  # noqa: F401
from tests.netns.conftest import namespace, namespaces_work, net, pair  # noqa: F401
from tests.netns.firewalling import firewall  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.netns)
