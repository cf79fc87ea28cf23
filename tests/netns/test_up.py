"""The commands that change something, as they are typed, against a real kernel: what they do and what they say."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
BACKENDS = ("nftables", "iptables-nft", "iptables-legacy")
SSH = {"name": "ssh from the lan", "action": "allow", "direction": "in", "from": "192.168.0.0/16", "protocol": "tcp",
       "port": 22, "limit": "6/minute", "log": True}  # fmt: skip
WEB = {"name": "web", "action": "allow", "direction": "in", "protocol": "tcp", "port": 8080}


class Machine:
    """A firewalled machine: its namespace, its policy file, and the command."""

    def __init__(self, pair, folder: Path, source: Path) -> None:
        self.here, self.there = pair.here, pair.there
        self.folder = folder
        self.path = folder / "rules.json"
        self._environment = {**os.environ, "PYTHONPATH": str(source), "PFW_STATE_DIR": str(folder / "state"),
                             "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}  # fmt: skip
        self.write(WEB)

    def write(self, *rules, **fields) -> None:
        self.path.write_text(json.dumps({"version": 2, "rules": list(rules), **fields}, indent=2))

    def pfw(self, *words, status: int = 0, reads: str = ""):
        done = self.here.run(sys.executable, "-P", "-m", "pfw", *words, check=False, cwd=self.folder,
                             env=self._environment, input=reads)  # fmt: skip
        assert "Traceback" not in done.stderr
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done

    def facts(self, *words, status: int = 0):
        return json.loads(self.pfw(*words, "--json", status=status).stdout)

    def rule(self, name: str):
        return next(each for each in self.facts("status")["rules"] if each["name"] == name)

    def reaches(self, port: int, net) -> bool:
        try:
            net.talk(self.here, self.there, net.here, port)
        except OSError:
            return False
        return True

    def kernel(self) -> str:
        parts = [self.here.run("nft", "list", "ruleset").stdout]
        for program in ("iptables-legacy-save", "ip6tables-legacy-save"):
            parts.append("\n".join(line for line in self.here.run(program).stdout.splitlines() if "PFW" in line))
        return "".join(parts) + self.here.run("ipset", "list", "-name").stdout


@pytest.fixture
def machine(pair, net, tmp_path):
    return Machine(pair, tmp_path, net.source)


@pytest.fixture
def quick_talk(monkeypatch):
    """A connection that is not answered has failed after a moment."""
    import socket

    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout=5: connect(address, timeout=0.6))


@pytest.mark.parametrize("backend", BACKENDS)
class TestUp:
    def test_puts_in_force_says_what_and_is_gone_again(self, machine, net, quick_talk, backend):
        before = machine.kernel()
        said = machine.pfw("up", "--backend", backend).stdout.splitlines()
        assert '+ rule "web": allow in tcp 8080' in said
        assert said[-1] == f"in force: {machine.path}, 1 rule ({backend})"
        assert machine.reaches(8080, net)
        assert not machine.reaches(9090, net)
        status = machine.facts("status")
        assert (status["active"], status["backend"], status["policy"]) == (True, backend, str(machine.path))
        assert (status["intact"], status["changed_since"]) == (True, False)
        web, blocked = machine.rule("web"), machine.rule("default in")
        assert (web["packets"], web["bytes"]) == (1, 60)
        assert blocked["packets"] >= 1
        if backend == "nftables":
            assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", web["last_hit"])
        again = machine.pfw("up", "--backend", backend)
        assert again.stdout == f"nothing to do: {machine.path} is in force already ({backend})\n"
        assert machine.rule("web")["packets"] == 1
        machine.pfw("down")
        assert machine.kernel() == before
        assert machine.reaches(9090, net)
        assert machine.facts("status", status=1)["active"] is False

    def test_says_what_changed_in_terms_of_rules_and_keeps_counts(self, machine, net, quick_talk, backend):
        machine.pfw("up", "--backend", backend)
        assert machine.reaches(8080, net)
        machine.write({**WEB}, {**SSH, "port": 2222}, default={"in": "reject"})
        said = machine.pfw("up").stdout.splitlines()
        assert "~ default in: block -> reject" in said
        assert any(line.startswith('+ rule "ssh from the lan"') for line in said)
        assert machine.rule("web")["packets"] == 1
        machine.write({**WEB, "port": [8080, 8081]})
        said = machine.pfw("up").stdout.splitlines()
        assert '~ rule "web": port 8080 -> 8080-8081' in said
        assert '- rule "ssh from the lan"' in said
        assert machine.rule("web")["packets"] == 0
        assert machine.reaches(8081, net)

    def test_dry_run_changes_nothing(self, machine, backend):
        before = machine.kernel()
        said = machine.pfw("up", "--backend", backend, "--dry-run").stdout
        assert '+ rule "web"' in said
        assert machine.kernel() == before
        assert machine.facts("status", status=1)["active"] is False

    def test_a_faulty_file_changes_nothing(self, machine, net, quick_talk, backend):
        machine.pfw("up", "--backend", backend)
        machine.path.write_text(machine.path.read_text().replace("8080", "80800"))
        refused = machine.pfw("up", status=2)
        assert re.match(rf"{machine.path}:\d+:\d+: rules\[0\]\.port: 80800 is not a port", refused.stderr)
        assert machine.reaches(8080, net)
        status = machine.facts("status")
        assert status["changed_since"] is True
        assert status["rules"][-4]["name"] == "web"

    @pytest.mark.parametrize(
        ("rule", "where"),
        [
            ({"app": "/usr/bin/curl", "direction": "out"}, r"rules\[0\]\.app"),
            ({"action": "ask"}, r"rules\[0\]\.action"),
            ({"user": "root", "direction": "in"}, r"rules\[0\]\.user"),
            ({"user": "nobody-has-this-name", "direction": "out"}, r"rules\[0\]\.user"),
            ({"unit": "no-such.service", "direction": "out"}, r"rules\[0\]\.unit"),
        ],
    )
    def test_what_no_kernel_can_do_is_refused_with_its_place(self, machine, backend, rule, where):
        machine.write({"name": "x", "action": "allow", **rule})
        refused = machine.pfw("up", "--backend", backend, status=2)
        assert re.match(rf"{machine.path}:\d+:\d+: {where}: ", refused.stderr), refused.stderr
        assert machine.facts("status", status=1)["active"] is False


class TestWords:
    def test_those_of_the_readme_for_up(self, machine):
        path = "/etc/pfw/rules.json"
        block = next(
            text for text in re.findall(r"```console\n(.*?)```", README, re.DOTALL) if "$ sudo pfw up\n" in text
        )
        machine.write(SSH)
        said = machine.pfw("up").stdout
        assert block == f"$ sudo pfw up\n{said.replace(str(machine.path), path)}"

    def test_those_of_the_readme_for_allow(self, machine):
        block = next(text for text in re.findall(r"```console\n(.*?)```", README, re.DOTALL) if "pfw allow" in text)
        rules = [{"name": str(number), "action": "allow", "port": number} for number in range(1, 7)]
        lines = ",\n".join(f"    {json.dumps(rule)}" for rule in rules)
        machine.path.write_text(
            f'{{\n  "version": 2,\n  "aliases": {{"lan": ["192.168.0.0/16"]}},\n  "rules": [\n{lines}\n  ]\n}}\n'
        )
        machine.pfw("up")
        said = machine.pfw("allow", "in", "tcp", "22", "--from", "lan", "--limit", "6/minute").stdout
        assert block.splitlines()[1:] == said.replace(str(machine.path), "/etc/pfw/rules.json").splitlines()


class TestEdits:
    def test_each_is_written_shown_and_in_force(self, machine, net, quick_talk):
        machine.pfw("up")
        assert not machine.reaches(2222, net)
        machine.pfw("allow", "in", "tcp", "2222", "--name", "mine")
        assert machine.reaches(2222, net)
        machine.pfw("block", net.there, "--for", "1h")
        assert not machine.reaches(2222, net)
        assert json.loads(machine.path.read_text())["rules"][0]["remote"] == net.there
        machine.pfw("undo")
        assert machine.reaches(2222, net)
        machine.pfw("delete", "mine")
        assert not machine.reaches(2222, net)
        assert [rule["name"] for rule in json.loads(machine.path.read_text())["rules"]] == ["web"]

    def test_what_does_not_fit_changes_neither_file_nor_kernel(self, machine):
        machine.pfw("up")
        before = machine.path.read_bytes()
        for words in (("allow", "in", "tcp", "70000"), ("allow", "in", "tcp", "22", "--from", "lann"), ("block",),
                      ("allow", "in", "app", "/usr/bin/curl"), ("block", "1.2.3.4", "--for", "never")):  # fmt: skip
            machine.pfw(*words, status=2)
        machine.pfw("delete", "nobody", status=1)
        assert machine.path.read_bytes() == before
        assert machine.facts("status")["changed_since"] is False

    def test_undo_goes_back_step_by_step(self, machine):
        texts = [machine.path.read_bytes()]
        machine.pfw("up")
        for port in ("1", "2", "3"):
            machine.pfw("allow", port)
            texts.append(machine.path.read_bytes())
        for text in reversed(texts[:-1]):
            machine.pfw("undo")
            assert machine.path.read_bytes() == text
        machine.pfw("undo", status=1)
        assert machine.path.read_bytes() == texts[0]

    def test_undo_of_an_edit_by_hand(self, machine):
        machine.pfw("up")
        before = machine.path.read_bytes()
        machine.write(WEB, SSH)
        machine.pfw("undo")
        assert machine.path.read_bytes() == before

    def test_the_last_twenty_policies_are_kept(self, machine):
        machine.pfw("up")
        for port in range(1, 24):
            machine.write({**WEB, "port": port})
            machine.pfw("up")
        entries = machine.facts("history")
        assert len(entries) == 20
        assert [each["number"] for each in entries] == list(range(5, 25))

    def test_off_the_file_is_written_and_said_to_be_not_in_force(self, machine):
        said = machine.pfw("allow", "22").stdout
        assert "the firewall is off" in said
        assert json.loads(machine.path.read_text())["rules"][-1]["port"] == 22
        assert machine.facts("status", status=1)["active"] is False

    def test_a_policy_of_lists_becomes_rules_that_mean_the_same(self, machine, net, quick_talk):
        machine.path.write_text('{"block": {"port": [9090]}}')
        machine.pfw("up")
        told = machine.pfw("block", "in", "tcp", "9191").stderr
        assert "was of the lists form" in told
        assert not machine.reaches(9090, net)
        assert not machine.reaches(9191, net)
        assert machine.reaches(9292, net)

    def test_owner_and_mode_of_the_file_stay_and_a_link_stays_one(self, machine):
        real = machine.folder / "real.json"
        machine.path.rename(real)
        os.chown(real, 1234, 1235)
        real.chmod(0o640)
        machine.path.symlink_to("real.json")
        refused = machine.pfw("allow", "22", status=3)
        assert "belongs to somebody else (user 1234)" in refused.stderr
        machine.pfw("allow", "22", "--rules", machine.path)
        status = real.stat()
        assert machine.path.is_symlink()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 1235, 0o640)


class TestMonitor:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_shows_and_logs_what_the_kernel_did(self, monitor, rules, pair, net, tmp_path, monkeypatch, backend):
        monkeypatch.setenv("PFW_STATE_DIR", str(tmp_path / "state"))
        watch = monitor("--enforce", "--backend", backend, "--log", tmp_path / "firewall.log", ready=False)
        watch.line(r"pfw: in force: .*", errors=True)
        log = tmp_path / "firewall.log"
        net.wait_until(
            lambda: "7847" in (pair.here.run("cat", "/proc/net/netfilter/nfnetlink_log").stdout), "it listens"
        )
        net.talk(pair.here, pair.there, net.here, 8080)
        watch.line(r'\[ALLOWED\] 10\.77\.0\.2:\d+ \(TCP\) -> 10\.77\.0\.1:8080  rule "web"')
        net.send(pair.there, net.here6, 9)
        watch.line(r"\[BLOCKED\] \[fd77::2\]:\d+ \(UDP\) -> \[fd77::1\]:9  default in")
        with pytest.raises(OSError, match="refused"):
            net.talk(pair.there, pair.here, net.there, 2525)
        watch.line(r'\[REJECTED\] 10\.77\.0\.1:\d+ \(TCP\) -> 10\.77\.0\.2:2525  rule "no mail"')
        rules.write({"name": "new", "action": "allow", "direction": "in", "protocol": "udp", "port": 9})
        watch.line(r'pfw: \+ rule "new".*', errors=True)
        watch.line(r"pfw: in force: .*4 rules.*", errors=True)
        net.send(pair.there, net.here, 9)
        watch.line(r'\[ALLOWED\] 10\.77\.0\.2:\d+ \(UDP\) -> 10\.77\.0\.1:9  rule "new"')
        summary = watch.summary()
        assert re.search(r"^web +allowed +1 ", summary, re.MULTILINE)
        assert 'Rejected by rule "no mail"' in log.read_text()
        assert "Blocked by default in" in log.read_text()

    def test_a_flood_is_told_of_in_part_and_counted_in_whole(self, monitor, rules, pair, net, tmp_path, monkeypatch):
        monkeypatch.setenv("PFW_STATE_DIR", str(tmp_path / "state"))
        watch = monitor("--enforce", "--json", "--no-log", ready=False)
        net.wait_until(
            lambda: "7847" in (pair.here.run("cat", "/proc/net/netfilter/nfnetlink_log").stdout), "it listens"
        )
        for _ in range(300):
            net.send(pair.there, net.here, 9)
        net.wait_until(lambda: sum("BLOCK" in line.upper() for line in watch.out) >= 50, "the first are told of")
        assert watch.end() == 0
        summary = json.loads(watch.out[-1])
        told = sum(json.loads(line).get("verdict") == "block" for line in watch.out)
        assert 50 <= told < 200
        assert summary["blocked"] == 300
        assert summary["lost"]["packets too many to tell of"] == 300 - told
