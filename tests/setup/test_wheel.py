"""The package that pip builds: everything that belongs to it is in it, at the place where it is looked for."""

import subprocess
import sys
import zipfile

import pytest


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.xdist_group("setup")
def test_wheel(fresh, tmp_path):
    readme = fresh.folder / "README.md"
    if not readme.exists():
        readme.write_text("pfw\n")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--retries", "1", "-w", tmp_path, fresh.folder]
    done = subprocess.run(build, capture_output=True, text=True)
    if "NewConnectionError" in done.stderr + done.stdout:
        pytest.skip("the Python package index is out of reach")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("pfw-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(about).decode()
    folder = wheel.name.removesuffix("-py3-none-any.whl")
    assert {
        "pfw/main.py",
        "pfw/model/flow.py",
        "pfw/drivers/label.bpf.o",
        "pfw/api/org.pfw.Firewall.varlink",
        f"{folder}.dist-info/licenses/LICENSE",
    } <= names
    shared = {name.removeprefix(f"{folder}.data/data/") for name in names if ".data/" in name}
    assert shared == {
        "share/man/man1/pfw.1",
        "share/bash-completion/completions/pfw",
        "share/zsh/site-functions/_pfw",
        "share/fish/vendor_completions.d/pfw.fish",
        "etc/xdg/autostart/pfw-agent.desktop",
        "lib/systemd/user/pfw-agent.service",
    }
    assert "Requires-Dist: msgspec>=0.20\n" in metadata
    assert "Requires-Dist: scapy>=2.6; extra == 'monitor'\n" in metadata
