"""The policy file on disk, whatever is there in its place. All commands that read it say the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

COMMANDS = {
    "check": ("check",),
    "explain": ("explain", "in", "tcp", "203.0.113.9:50000", "192.168.1.5:22"),
    "explain many": ("explain", "-"),
    "replay": ("replay", "capture.pcap"),
    "monitor": ("monitor", "--no-log", "--read", "capture.pcap"),
    "convert": ("convert",),
}


@pytest.fixture(params=COMMANDS.values(), ids=COMMANDS)
def refused(request, pfw, capture):
    """Runs one of the commands, which is expected to be refused; what it says."""

    def run(name, **options):
        done = pfw(*request.param, "--rules", name, **options)
        assert (done.returncode, done.stdout) == (2, "")
        return done.stderr

    return run


def one_line(text):
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text


class TestWhatIsNoPolicy:
    def test_nothing(self, refused):
        assert "nope.json" in (said := one_line(refused("nope.json")))
        assert "No such file or directory" in said

    def test_a_folder(self, refused, tmp_path):
        (tmp_path / "folder").mkdir()
        assert "folder" in (said := one_line(refused("folder")))
        assert "is not a file" in said

    def test_a_named_pipe_is_not_waited_for(self, refused, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        assert "is not a file" in one_line(refused("pipe"))

    @pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/dev/full"])
    def test_a_device(self, refused, device):
        assert f"{device}" in (said := one_line(refused(device)))
        assert "is not a file" in said

    def test_too_large(self, refused, tmp_path):
        with (tmp_path / "large.json").open("wb") as file:
            file.truncate((64 << 20) + 1)
        assert "is larger than 64 MiB" in one_line(refused("large.json"))

    def test_bytes_that_are_no_text(self, refused, tmp_path):
        (tmp_path / "binary.json").write_bytes(bytes(range(256)) * 10)
        assert "binary.json:" in one_line(refused("binary.json"))
        (tmp_path / "elf.json").write_bytes(b"\x7fELF\x02\x01\xff")
        assert "0xff is not UTF-8" in one_line(refused("elf.json"))

    def test_empty(self, refused, tmp_path):
        (tmp_path / "empty.json").touch()
        assert one_line(refused("empty.json")).startswith("empty.json:1:1: is empty")

    def test_a_circle_of_links(self, refused, tmp_path):
        (tmp_path / "link.json").symlink_to("link.json")
        assert "Too many levels of symbolic links" in one_line(refused("link.json"))

    def test_a_name_that_steers_terminals(self, refused, tmp_path):
        assert r"a\x1b[31m\n.json" in one_line(refused("a\x1b[31m\n.json")).replace(r"\x0a", r"\n")

    def test_every_fault(self, refused, tmp_path):
        (tmp_path / "bad.json").write_text('{"version": 2,\n "rules": [{"name": "a", "action": "alow"}],\n "x": 1}\n')
        assert refused("bad.json").splitlines() == [
            'bad.json:2:36: rules[0].action: "alow" is not an action ("allow", "block", "reject" or "ask"); '
            'did you mean "allow"?',
            "bad.json:3:2: x: is not a part of a policy",
        ]


def test_no_right_to_read(tmp_path, rules, kit):
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, to give up its rights, and setpriv")
    rules.chmod(0o600)
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    options = {"env": kit.environment(), "cwd": "/", "capture_output": True, "text": True}
    if subprocess.run([*nobody, sys.executable, "-c", "import pfw.main, msgspec"], **options).returncode != 0:
        pytest.skip("others than root may not use this Python or read this checkout")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    done = subprocess.run([*nobody, *kit.command("check", rules)], **options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{rules}:1:1: Permission denied\n"


class TestWhichFile:
    def test_rules_json_of_the_folder(self, pfw, rules):
        assert pfw("check").stdout == "rules.json: valid, 4 rules (rules form)\n"

    def test_the_one_that_is_named(self, pfw, rules, tmp_path):
        (tmp_path / "lists.json").write_text('{"block": {"port": [23]}}')
        assert pfw("check", "lists.json").stdout == "lists.json: valid, 1 rule (lists form)\n"
        assert pfw("check", "--rules", "lists.json").stdout == "lists.json: valid, 1 rule (lists form)\n"

    def test_none(self, pfw):
        if os.path.exists("/etc/pfw/rules.json"):
            pytest.skip("this machine has a policy")
        done = pfw("check")
        assert (done.returncode, done.stdout) == (2, "")
        assert one_line(done.stderr).startswith("pfw: there is no rules.json here")
