"""The monitor on real traffic: the lines that were promised, what it watches, its end, and changes of the policy."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PORT = r"(?P<port>\d+)"


class TestLines:
    def test_tcp_that_is_allowed_and_blocked(self, monitor, pair, net):
        watch = monitor()
        net.talk(pair.here, pair.there, net.here, 8080)
        watch.line(rf'\[ALLOWED\] 10\.77\.0\.2:{PORT} \(TCP\) -> 10\.77\.0\.1:8080  rule "web"')
        net.talk(pair.here, pair.there, net.here, 9090)
        watch.line(rf"\[BLOCKED\] 10\.77\.0\.2:{PORT} \(TCP\) -> 10\.77\.0\.1:9090  default in")

    def test_ipv6_in_brackets(self, monitor, pair, net):
        watch = monitor()
        net.talk(pair.here, pair.there, net.here6, 8080)
        watch.line(rf'\[ALLOWED\] \[fd77::2\]:{PORT} \(TCP\) -> \[fd77::1\]:8080  rule "web"')
        net.talk(pair.here, pair.there, net.here6, 9090)
        watch.line(rf"\[BLOCKED\] \[fd77::2\]:{PORT} \(TCP\) -> \[fd77::1\]:9090  default in")

    def test_what_goes_out(self, monitor, pair, net):
        watch = monitor()
        net.talk(pair.there, pair.here, net.there, 443)
        watch.line(rf"\[ALLOWED\] 10\.77\.0\.1:{PORT} \(TCP\) -> 10\.77\.0\.2:443  default out")
        net.talk(pair.there, pair.here, net.there6, 2525)
        watch.line(rf'\[REJECTED\] \[fd77::1\]:{PORT} \(TCP\) -> \[fd77::2\]:2525  rule "no mail"')

    def test_udp_both_ways_and_families(self, monitor, pair, net):
        watch = monitor()
        for sender, address, label, ends in (
            (pair.here, net.there, "ALLOWED", r"10\.77\.0\.1:\d+ \(UDP\) -> 10\.77\.0\.2:53  default out"),
            (pair.there, net.here, "BLOCKED", r"10\.77\.0\.2:\d+ \(UDP\) -> 10\.77\.0\.1:53  default in"),
            (pair.here, net.there6, "ALLOWED", r"\[fd77::1\]:\d+ \(UDP\) -> \[fd77::2\]:53  default out"),
            (pair.there, net.here6, "BLOCKED", r"\[fd77::2\]:\d+ \(UDP\) -> \[fd77::1\]:53  default in"),
        ):
            net.send(sender, address, 53)
            watch.line(rf"\[{label}\] {ends}")

    @pytest.mark.skipif(shutil.which("ping") is None, reason="needs ping")
    def test_ping_both_families(self, monitor, pair, net):
        watch = monitor()
        for family, address, ends in (
            ("-4", net.here, r"10\.77\.0\.2 \(ICMP\) -> 10\.77\.0\.1"),
            ("-6", net.here6, r"fd77::2 \(ICMPv6\) -> fd77::1"),
        ):
            pair.there.run("ping", family, "-c1", "-W2", address)
            watch.line(rf'\[ALLOWED\] {ends}  rule "ping"')
        assert not any(line.startswith(f"[ALLOWED] {net.here} ") for line in watch.out)

    def test_loopback(self, monitor, pair, net):
        watch = monitor()
        net.talk(pair.here, pair.here, "127.0.0.1", 5432)
        watch.line(rf"\[ALLOWED\] 127\.0\.0\.1:{PORT} \(TCP\) -> 127\.0\.0\.1:5432  base loopback")

    @pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
    def test_a_web_page(self, monitor, pair, net, tmp_path):
        page = tmp_path / "site"
        page.mkdir()
        (page / "hello").write_text("hello")
        command = (sys.executable, "-u", "-m", "http.server", "8080", "--bind", net.here, "--directory", page)
        with subprocess.Popen(pair.here.command(*command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
            assert server.stdout.readline()
            watch = monitor()
            assert pair.there.run("curl", "-s", f"http://{net.here}:8080/hello").stdout == "hello"
            watch.line(rf'\[ALLOWED\] 10\.77\.0\.2:{PORT} \(TCP\) -> 10\.77\.0\.1:8080  rule "web"')
            server.terminate()

    def test_verbose_lines_tell_time_direction_and_interface(self, monitor, pair, net):
        watch = monitor("-v")
        net.send(pair.there, net.here, 53)
        watch.line(
            r"\d\d:\d\d:\d\d\.\d{3} in      eth0 \[BLOCKED\] 10\.77\.0\.2:\d+ \(UDP\) -> 10\.77\.0\.1:53  default in"
        )
        net.send(pair.here, net.there, 53)
        watch.line(
            r"\d\d:\d\d:\d\d\.\d{3} out     eth0 \[ALLOWED\] 10\.77\.0\.1:\d+ \(UDP\) -> 10\.77\.0\.2:53  default out"
        )

    def test_every_packet(self, monitor, pair, net):
        watch = monitor("--every-packet")
        net.talk(pair.here, pair.there, net.here, 8080)
        there, here = rf"10\.77\.0\.2:{PORT}", r"10\.77\.0\.1:8080"
        port = watch.line(rf'\[ALLOWED\] {there} \(TCP\) -> {here}  rule "web"  74 bytes')["port"]
        watch.line(rf'\[ALLOWED\] {here} \(TCP\) -> 10\.77\.0\.2:{port}  rule "web"  74 bytes')
        watch.line(rf'\[ALLOWED\] 10\.77\.0\.2:{port} \(TCP\) -> {here}  rule "web"  84 bytes')

    def test_json(self, monitor, pair, net):
        watch = monitor("--json")
        net.talk(pair.here, pair.there, net.here, 8080)
        judged = watch.object(event="connection", destination_port=8080)
        assert judged | {"time": "", "source_port": 0, "connection": 0} == {
            "event": "connection", "time": "", "connection": 0, "verdict": "allow", "rule": "web",
            "reason": 'rule "web"', "direction": "in", "interface": "eth0", "protocol": "TCP", "source": "10.77.0.2",
            "source_port": 0, "destination": "10.77.0.1", "destination_port": 8080, "icmp_type": None, "again": False,
        }  # fmt: skip
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", judged["time"])
        assert watch.end() == 0
        summary = json.loads(watch.out[-1])
        assert summary["event"] == "summary"
        counted = sum(rule["packets"] for rule in summary["rules"]) + summary["undecodable"]
        assert summary["packets"] == counted + summary["not_ip"]
        assert summary["lost"]["packets by the kernel"] == 0

    @pytest.mark.skipif(shutil.which("nmap") is None, reason="needs nmap")
    @pytest.mark.parametrize(
        ("scan", "text"),
        [("-sN", "null scan"), ("-sF", "FIN scan"), ("-sX", "Xmas scan")],
    )
    def test_scans_are_suspicious(self, monitor, pair, net, scan, text):
        watch = monitor()
        pair.there.run("nmap", "-n", "-Pn", "--max-retries", "0", "--disable-arp-ping", scan, "-p", "7777", net.here)
        watch.line(rf"\[SUSPICIOUS\] 10\.77\.0\.2:\d+ \(TCP\) -> 10\.77\.0\.1:7777  .*\({text}\)")

    @pytest.mark.skipif(shutil.which("hping3") is None, reason="needs hping3")
    def test_a_land_attack_is_suspicious(self, monitor, pair, net):
        watch = monitor()
        pair.there.run(
            "hping3", "-q", "-c", "1", "-S", "-a", net.here, "-s", "139", "-k", "-p", "139", net.here, check=False
        )
        watch.line(r"\[SUSPICIOUS\] 10\.77\.0\.1:139 \(TCP\) -> 10\.77\.0\.1:139  .*land attack.*")


class TestExistingConnections:
    def test_one_that_was_there_before_has_its_direction(self, monitor, pair, net):
        server = pair.here.call(lambda: socket.create_server((net.here, 8080)))
        client = pair.there.call(lambda: socket.create_connection((net.here, 8080)))
        served, _ = server.accept()
        outward = pair.there.call(lambda: socket.create_server((net.there, 443)))
        to_there = pair.here.call(lambda: socket.create_connection((net.there, 443)))
        from_here, _ = outward.accept()
        with server, client, served, outward, to_there, from_here:
            watch = monitor()
            served.sendall(b"from the server first")
            watch.line(rf'\[ALLOWED\] 10\.77\.0\.2:{PORT} \(TCP\) -> 10\.77\.0\.1:8080  rule "web"')
            from_here.sendall(b"from the server first")
            watch.line(rf"\[ALLOWED\] 10\.77\.0\.1:{PORT} \(TCP\) -> 10\.77\.0\.2:443  default out")


class TestWhatIsWatched:
    def test_one_interface(self, monitor, pair, net):
        watch = monitor("--interface", "lo")
        net.send(pair.there, net.here, 53)
        net.send(pair.here, "127.0.0.1", 54)
        watch.line(r"\[ALLOWED\] 127\.0\.0\.1:\d+ \(UDP\) -> 127\.0\.0\.1:54  base loopback")
        assert not any("10.77" in line for line in watch.out)

    def test_a_filter(self, monitor, pair, net):
        watch = monitor("--filter", "udp port 54")
        net.send(pair.there, net.here, 53)
        net.send(pair.there, net.here, 54)
        watch.line(r"\[BLOCKED\] 10\.77\.0\.2:\d+ \(UDP\) -> 10\.77\.0\.1:54  default in")
        assert not any(":53 " in line for line in watch.out)

    def test_addresses_that_come_later_are_local_too(self, monitor, pair, net):
        watch = monitor()
        net.ip("-n", pair.here.name, "addr", "add", "10.77.0.9/24", "dev", net.cable)

        def seen() -> bool:
            net.send(pair.there, "10.77.0.9", 53)
            return any("-> 10.77.0.9:53  default in" in line for line in watch.out)

        net.wait_until(seen, "it is local")

    def test_an_interface_that_is_not_there(self, monitor):
        watch = monitor("-i", "nope0", ready=False)
        assert watch.end(None) == 3
        assert watch.err == ["pfw: nope0: no interface with this name"]

    def test_a_filter_that_is_wrong(self, monitor):
        watch = monitor("--filter", "udp prt 54", ready=False)
        assert watch.end(None) == 2
        assert len(watch.err) == 1
        assert watch.err[0].startswith("pfw: the filter 'udp prt 54' is not understood: ")

    def test_an_interface_that_goes_away(self, monitor, pair, net):
        watch = monitor("-i", net.cable)
        net.send(pair.there, net.here, 53)
        watch.line(r"\[BLOCKED\] .*")
        net.ip("-n", pair.here.name, "link", "del", net.cable)
        assert watch.end(None) == 3
        assert watch.err == ["pfw: eth0: the interface is gone"]
        assert any(line.startswith("lost: ") for line in watch.out)

    def test_an_interface_that_is_down_for_a_while(self, monitor, pair, net):
        watch = monitor("-i", net.cable)
        net.ip("-n", pair.here.name, "link", "set", net.cable, "down")
        before = cpu_s(watch)
        time.sleep(0.5)
        assert cpu_s(watch) - before < 0.25
        net.ip("-n", pair.here.name, "link", "set", net.cable, "up")

        def seen() -> bool:
            net.send(pair.there, net.here, 53)
            return any("[BLOCKED] 10.77.0.2" in line for line in watch.out)

        net.wait_until(seen, "it sees packets again")


def cpu_s(watch) -> float:
    fields = Path(f"/proc/{watch.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class TestTheEnd:
    def test_ctrl_c_ends_with_a_summary(self, monitor, pair, net):
        watch = monitor("--filter", "tcp")
        net.talk(pair.here, pair.there, net.here, 8080)
        net.talk(pair.here, pair.there, net.here, 9090)
        watch.line(r"\[BLOCKED\] .*:9090  default in")
        summary = watch.summary()
        assert re.search(
            r"^[\d,]+ packets \([\d.]+ k?B\), \d+ connections: \d+ allowed, 1 blocked, 0 rejected", summary
        )
        assert "0 packets undecodable" in summary
        lost = "lost: 0 packets by the kernel, 0 records on their way to the logs, 0 log lines by the disk, "
        assert lost in summary
        assert re.search(r"^web +allowed +1 ", summary, re.M)
        assert re.search(r"^default in +blocked +1 ", summary, re.M)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_other_signals_do_too(self, monitor, number):
        assert "packets undecodable" in monitor().summary(number)

    def test_two_signals_at_once_are_one_wish(self, monitor):
        watch = monitor()
        watch.process.send_signal(signal.SIGTERM)
        assert "packets undecodable" in watch.summary(signal.SIGINT)

    def test_after_so_many_packets(self, monitor, pair, net):
        watch = monitor("--count", "3", "-i", net.cable, "--filter", "udp")
        for port in (1, 2, 3, 4, 5):
            net.send(pair.there, net.here, port)
        assert watch.summary(None).startswith("3 packets ")
        assert sum(line.startswith("[BLOCKED]") for line in watch.out) == 3

    def test_after_so_many_seconds(self, monitor):
        began = time.monotonic()
        watch = monitor("--seconds", "1", ready=False)
        assert "packets undecodable" in watch.summary(None)
        assert 1 <= time.monotonic() - began < 4

    def test_quiet_shows_the_summary_alone(self, monitor, pair, net):
        watch = monitor("--quiet", "--count", "1", "--filter", "udp")
        net.send(pair.there, net.here, 53)
        assert watch.summary(None).startswith("1 packet ")
        assert watch.out[0] == ""

    def test_it_ends_when_its_reader_has_seen_enough(self, pair, monitor, net):
        read, write = os.pipe()
        with os.fdopen(write, "w") as end:
            watch = monitor(stdout=end)
        net.send(pair.there, net.here, 53)
        assert os.read(read, 1000).startswith(b"[")
        os.close(read)

        def over() -> bool:
            net.send(pair.there, net.here, 54)
            return watch.process.poll() is not None

        net.wait_until(over, "it ends")
        assert watch.end(None) == 0
        assert watch.err == []

    def test_standard_output_on_a_full_disk_is_counted(self, pair, monitor, net):
        with open("/dev/full", "w") as full:
            watch = monitor("--eve", "eve.json", stdout=full)
        net.send(pair.there, net.here, 53)
        assert watch.end() == 0
        assert watch.err == []

    def test_a_reader_that_never_reads_holds_nothing_up(self, pair, monitor, net):
        read, write = os.pipe()
        with os.fdopen(write, "w") as end:
            watch = monitor("--every-packet", "--no-log", stdout=end)
        with pair.there.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            for _ in range(3000):
                sock.sendto(b"x", (net.here, 53))
        time.sleep(0.5)
        assert watch.end() == 0
        assert [line.partition(":")[0] for line in watch.err] == ["pfw"]
        assert "nobody reads the output" in watch.err[0]
        os.close(read)


class TestEditingThePolicy:
    def test_a_change_is_taken_up_within_a_second(self, monitor, pair, net, rules):
        watch = monitor()
        net.send(pair.there, net.here, 53)
        watch.line(r"\[BLOCKED\] .*:53  default in")
        rules.write({"name": "names", "action": "allow", "direction": "in", "protocol": "udp", "port": 53})
        began = time.monotonic()
        watch.line(r"pfw: .*rules\.json has changed and is in force: 4 rules", errors=True)
        assert time.monotonic() - began < 1
        watch.line(r'\[ALLOWED\] .*:53  rule "names"  \(the policy changed\)')
        net.send(pair.there, net.here, 53)
        watch.line(r'\[ALLOWED\] .*:53  rule "names"')

    def test_a_bad_file_is_told_in_a_line_and_the_old_policy_stays(self, monitor, pair, net, rules):
        watch = monitor()
        rules.path.write_text('{"version": 2, "rules": [{"name": "x", "action": "alow"}]}')
        line = watch.line(r"pfw: .*; the policy before stays in force", errors=True)[0]
        assert "rules.json:1:" in line
        assert "allow" in line
        net.talk(pair.here, pair.there, net.here, 8080)
        watch.line(r'\[ALLOWED\] .*:8080  rule "web"')
        rules.path.unlink()
        watch.line(r"pfw: .*rules\.json: No such file or directory; the policy before stays in force", errors=True)
        rules.write()
        watch.line(r"pfw: .*rules\.json has changed and is in force: 3 rules", errors=True)
