"""Where labels are pinned."""

from __future__ import annotations

from typing import Any

from tests.netns.programs_lab import Lab, lab  # noqa: F401


def test_a_folder_with_a_dot_in_its_name(lab: Lab, net: Any) -> None:  # noqa: F811
    """libbpf writes `_` for each dot in the path of a map, and finds no such folder."""
    lab.runtime = lab.folder / "run.d"
    lab.firewall.environment["PFW_RUN_DIR"] = str(lab.runtime)
    lab.up({"version": 2, "default": {"in": "block", "out": "block"}, "rules": []})
    status = lab.status_or_none()
    assert status is not None
    assert status.labels.startswith("mask")
