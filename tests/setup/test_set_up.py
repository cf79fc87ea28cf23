"""What set_up says about libraries that are missing, and to whom it gives what it made."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def set_up() -> ModuleType:
    spec = importlib.util.spec_from_file_location("set_up", ROOT / "tools" / "set_up.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def without_libpcap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["firewall.py", "--filter", "tcp port 22"])
    monkeypatch.delenv("SUDO_USER", raising=False)


def test_missing_library_without_root(set_up, without_libpcap, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(set_up.SetUpError) as fault:
        set_up.provide_libpcap("/opt/pfw")
    assert str(fault.value) == (
        "the Debian package libpcap0.8 is missing; type: sudo apt-get install libpcap0.8 "
        f"&& {sys.executable} /opt/pfw/firewall.py --filter 'tcp port 22'"
    )


def test_missing_library_without_apt(set_up, without_libpcap, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(set_up.SetUpError, match=r"lacks what Debian calls libpcap0\.8"):
        set_up.provide_libpcap("/opt/pfw")


def test_what_is_written_goes_through_no_link(set_up, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("as it was")
    link = tmp_path / "link"
    link.symlink_to(precious)
    set_up.write_anew(link, "new", mode=0o755)
    assert precious.read_text() == "as it was"
    assert (link.read_text(), link.is_symlink(), link.stat().st_mode & 0o111 != 0) == ("new", False, True)


def test_pip_keeps_index_and_proxy_but_not_what_aims_it_elsewhere(set_up, monkeypatch):
    for name in ("PIP_INDEX_URL", "HTTPS_PROXY", "PIP_TARGET", "PIP_USER", "PYTHONHOME"):
        monkeypatch.setenv(name, "x")
    environment = set_up.pip_environment()
    assert (environment["PIP_INDEX_URL"], environment["HTTPS_PROXY"], environment["PIP_USER"]) == ("x", "x", "0")
    assert environment.keys().isdisjoint({"PIP_TARGET", "PYTHONHOME"})


def test_is_ready_only_with_the_interpreter_and_the_file_of_the_stamp(set_up, tmp_path):
    checkout = set_up.Checkout(tmp_path)
    checkout.python.parent.mkdir(parents=True)
    checkout.python.symlink_to(sys.executable)
    (tmp_path / "requirements.txt").write_text("msgspec\n")
    assert not checkout.is_ready("requirements.txt")
    checkout.write_stamp("requirements.txt")
    assert checkout.is_ready("requirements.txt")
    checkout.python.unlink()
    checkout.python.symlink_to(shutil.which("true"))
    assert not checkout.is_ready("requirements.txt")
    checkout.write_stamp("requirements.txt")
    (tmp_path / "requirements.txt").write_text("msgspec>=1\n")
    assert not checkout.is_ready("requirements.txt")
