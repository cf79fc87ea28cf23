"""Where labels are pinned, on real bpf file systems."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pfw.drivers import bpffs, store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def systems(tmp_path, monkeypatch):
    """A bpf file system in the place of the system's."""
    place = tmp_path / "systems"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "bpf", "bpf", place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr)
    monkeypatch.setattr(bpffs, "_SYSTEMS", place)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("name", ["", "netns/plain", "netns/web.example", "netns/4026532000"])
def test_the_systems_where_there_is_one(systems, name):
    """Also for a network namespace whose name has a dot, which the file system takes in no name."""
    run = store.RUN_DIR / name
    place = bpffs.folder(run)
    assert place.is_dir()
    assert place.is_relative_to(systems / "pfw")
    assert bpffs.found(run) == place
    assert bpffs.folder(run) == place


def test_no_two_have_the_same(systems):
    names = ("a.b", "a_b", "ab", "a")
    assert len({bpffs.folder(store.RUN_DIR / "netns" / name) for name in names}) == len(names)


def test_a_runtime_folder_elsewhere_has_its_own(systems, tmp_path):
    run = tmp_path / "run"
    place = bpffs.folder(run)
    try:
        assert place == run / "bpf" == bpffs.found(run)
    finally:
        bpffs.let_go(run)
    assert bpffs.found(run) is None
    assert bpffs.found(Path("/nowhere")) is None
