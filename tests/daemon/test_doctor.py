"""What the doctor says of our own state, and that one examination that fails keeps no other from being made."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import msgspec
import pytest

from pfw.daemon import checkup, doctor, listing
from pfw.daemon.backend import Live
from pfw.daemon.state import Applied, Pending, State
from pfw.drivers.programs import RefusedError
from pfw.drivers.store import Store
from pfw.enforce.neighbours import Area, Finding, Level
from pfw.model.flow import Direction
from pfw.model.policy import Blocklist, Policy
from pfw.model.verdict import Action

TEXT = b'{"version": 2}'
NOW = 1_795_392_000.0


class Backend:
    """A kernel that holds what it is told to."""

    name = "iptables-nft"

    def __init__(self, live, reason=None):
        self._live = live
        self._reason = reason

    def unusable(self):
        return self._reason

    def live(self):
        return self._live


@pytest.fixture
def state(tmp_path):
    return State(Store(tmp_path / "state"))


@pytest.fixture
def applied(tmp_path):
    (tmp_path / "rules.json").write_bytes(TEXT)
    return Applied(
        generation=7,
        backend="iptables-nft",
        path=str(tmp_path / "rules.json"),
        sha256=hashlib.sha256(TEXT).hexdigest(),
        digest="d",
        time=NOW,
        verdicts=[],
        fingerprint="f",
    )


@pytest.fixture
def kernel(monkeypatch, applied):
    """Sets what is in the kernel."""
    monkeypatch.setattr(checkup.panic, "is_on", lambda _: False)
    monkeypatch.setattr(checkup.clock, "now", lambda: NOW)

    def hold(live, reason=None):
        known = (Backend(live, reason), applied)
        monkeypatch.setattr(checkup, "in_force", lambda _: known)

    hold(Live(7, "f"))
    return hold


def found(state, policy=None):
    return [each for each in checkup.state_findings(state, policy) if each.level is not Level.OK]


def policy(*lists):
    return Policy(defaults=dict.fromkeys(Direction, Action.BLOCK), blocklists=lists)


class TestState:
    def test_all_well(self, state, kernel):
        assert found(state) == []

    @pytest.mark.parametrize(
        ("live", "reason", "what"),
        [
            (None, None, "nothing of ours is in the kernel"),
            (Live(8, "f"), None, "generation 8 decides, and 7 was applied"),
            (Live(7, "other"), None, "somebody else has changed our rules"),
            (None, "it is gone", "cannot be read back: it is gone"),
        ],
    )
    def test_what_is_in_the_kernel_is_not_what_was_applied(self, state, kernel, live, reason, what):
        kernel(live, reason)
        (fault,) = found(state)
        assert fault.level is Level.FAULT
        assert what in fault.what
        assert "pfw up" in fault.advice

    def test_off(self, state, kernel, monkeypatch):
        monkeypatch.setattr(checkup, "in_force", lambda _: None)
        monkeypatch.setattr(checkup, "any_active", lambda: None)
        (note,) = found(state)
        assert (note.level, note.what) == (Level.NOTE, "off: nothing of ours filters")
        monkeypatch.setattr(checkup, "any_active", lambda: Backend(Live(None, "")))
        (note,) = found(state)
        assert "something of ours is in iptables-nft" in note.what

    def test_a_file_that_has_changed_since(self, state, kernel, applied, tmp_path):
        (tmp_path / "rules.json").write_bytes(TEXT + b" ")
        (warning,) = found(state)
        assert warning.level is Level.WARNING
        assert "has changed since" in warning.what
        (tmp_path / "rules.json").unlink()
        (warning,) = found(state)
        assert "cannot be read any more: No such file" in warning.what

    def test_what_waits_and_what_was_taken_back(self, state, kernel):
        state.set_pending(Pending(7, None, NOW + 60))
        state.files.write("guard.report", b"1 taken back\n")
        waits, taken = found(state)
        assert "unless it is confirmed" in waits.what
        assert "was taken back" in taken.what

    def test_panic(self, state, kernel, monkeypatch):
        monkeypatch.setattr(checkup.panic, "is_on", lambda _: True)
        (warning,) = found(state)
        assert warning.what.startswith("panic")

    @pytest.mark.parametrize(
        ("record", "what"),
        [
            (None, "never came"),
            ({"last_error": "no route"}, "never came: no route"),
            ({"fetched_at": NOW - 60, "last_error": "no route"}, "could not be fetched: no route"),
            ({"fetched_at": NOW - 73 * 3600}, "is 73 hours old"),
            ({"fetched_at": NOW - 71 * 3600}, None),
        ],
    )
    def test_block_lists(self, state, kernel, record, what):
        if record is not None:
            state.files.write("lists/spam.json", msgspec.json.encode(listing.Record(**record)))
        findings = found(state, policy(Blocklist(name="spam", source="https://example.net/")))
        if what is None:
            assert findings == []
        else:
            (warning,) = findings
            assert warning.level is Level.WARNING
            assert what in warning.what
            assert warning.advice.startswith("sudo pfw lists update spam")

    @pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b'{"fetched_at": "x"}', b"\xff"])
    def test_a_record_that_is_damaged(self, state, kernel, content):
        state.files.write("lists/spam.json", content)
        (warning,) = found(state, policy(Blocklist(name="spam", source="https://example.net/")))
        assert "never came" in warning.what

    def test_lists_that_are_off(self, state, kernel):
        assert found(state, policy(Blocklist(name="spam", source="https://example.net/", enabled=False))) == []


class TestBoot:
    NAME = "pfw-boot-iptables-nft.service"

    @pytest.fixture(autouse=True)
    def systemd(self, kernel, monkeypatch, tmp_path):
        monkeypatch.setattr(checkup, "_SYSTEMD", tmp_path)
        monkeypatch.setattr(checkup.foreign, "in_namespace", lambda: False)

    @pytest.fixture(autouse=True)
    def files(self, state):
        for family in (4, 6):
            state.files.write(f"boot.iptables-nft.v{family}", b'-j NFLOG --nflog-prefix "pfw 7 3" --nflog-group 7846\n')
        state.files.write("boot.iptables-nft.ipset", b"")
        state.files.write("boot-bans.ipset", b"")

    @pytest.fixture
    def units(self, tmp_path, state):
        folder = tmp_path / "units"
        (folder / "sysinit.target.wants").mkdir(parents=True)
        (folder / self.NAME).write_text(f"[Unit]\nConditionPathExists={state.files.path}/boot.iptables-nft.v4\n")
        (folder / "sysinit.target.wants" / self.NAME).symlink_to(f"../{self.NAME}")
        return folder

    def found(self, state, units):
        return [each.what for each in checkup.boot_findings(state, units) if each.level is not Level.OK]

    def test_all_well(self, state, units):
        assert self.found(state, units) == []

    @pytest.mark.parametrize("gone", ["", "sysinit.target.wants/"])
    def test_no_unit_or_not_switched_on(self, state, units, gone):
        (units / f"{gone}{self.NAME}").unlink()
        assert self.found(state, units) == ["the policy does not come back with the next boot"]

    def test_the_unit_of_another_state(self, state, units):
        (units / self.NAME).write_text("[Unit]\nConditionPathExists=/elsewhere/boot.iptables-nft.v4\n")
        assert self.found(state, units) == ["the policy does not come back with the next boot"]

    def test_no_systemd(self, state, units, monkeypatch, tmp_path):
        monkeypatch.setattr(checkup, "_SYSTEMD", tmp_path / "none")
        (what,) = self.found(state, units)
        assert "systemd does not run here" in what

    def test_files_that_are_gone_or_of_another_generation(self, state, units):
        state.files.write("boot.iptables-nft.v6", b'--nflog-prefix "pfw 70 3"\n')
        (what,) = self.found(state, units)
        assert "boot.iptables-nft.v6 of another generation" in what
        state.files.remove("boot-bans.ipset")
        (what,) = self.found(state, units)
        assert "boot-bans.ipset not there" in what

    def test_files_are_not_asked_for_while_a_policy_waits(self, state, units):
        state.files.remove("boot-bans.ipset")
        state.set_pending(Pending(7, 6, NOW + 60))
        assert self.found(state, units) == []

    def test_nothing_in_force(self, state, units, monkeypatch):
        monkeypatch.setattr(checkup, "in_force", lambda _: None)
        assert list(checkup.boot_findings(state, units)) == []


class TestExamine:
    @pytest.fixture(autouse=True)
    def nothing_at_all(self, monkeypatch):
        """A machine on which no question is answered."""

        def refuse(*words, **options):
            raise RefusedError("it says nothing")

        def fail(*words):
            raise OSError(1, "not allowed")

        monkeypatch.setattr(doctor.foreign, "output", refuse)
        for name in ("log_groups", "packet_sockets", "number"):
            monkeypatch.setattr(doctor.foreign, name, fail)
        monkeypatch.setattr(doctor, "in_force", fail)
        monkeypatch.setattr(doctor.checkup, "in_force", fail)
        monkeypatch.setattr(doctor, "named", lambda name: SimpleNamespace(unusable=lambda: "not here"))
        monkeypatch.setattr(doctor, "choose", refuse)

    def test_what_fails_is_told_and_the_rest_goes_on(self, state):
        findings = doctor.examine(state, lambda content, path: policy())
        told = [each.what for each in findings if "cannot be told (not allowed)" in each.what]
        assert len(told) == 6
        assert any("the rules of nftables cannot be read (it says nothing)" in each.what for each in findings)
        assert all(each.advice for each in findings if each.level is not Level.OK)
        assert [each.area for each in findings] == sorted((each.area for each in findings), key=list(Area).index)

    def test_a_file_of_the_state_that_is_damaged(self, state):
        state.trouble.append("bans.json: is damaged")
        assert "bans.json: is damaged" in [each.what for each in doctor.examine(state, lambda *_: policy())]

    @pytest.mark.parametrize("said", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"null", b'{"nftables": {}}', b'"nft"'])
    def test_answers_of_any_shape(self, state, monkeypatch, said):
        monkeypatch.setattr(doctor.foreign, "output", lambda *words, **options: said)
        doctor.examine(state, lambda *_: policy())

    def test_the_worst(self):
        levels = [Level.NOTE, Level.FAULT, Level.OK]
        assert doctor.worst(Finding(Area.KERNEL, level, "") for level in levels) is Level.FAULT
        assert doctor.worst([]) is Level.OK
