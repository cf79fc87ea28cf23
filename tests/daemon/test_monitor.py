"""The monitor over capture files: what it does at which time, without a system to capture from."""

import os
import signal
import time

import pytest

from pfw.daemon.monitor import Monitor, Stop, statistics
from pfw.daemon.sources import Batch, CaptureFile
from pfw.drivers.files import Watch
from pfw.engine.engine import Engine
from pfw.engine.flows import FlowTable
from pfw.model.command import Ended, Judged
from pfw.model.event import Source
from pfw.model.policy import Fault, Policy, PolicyError


@pytest.fixture
def watch(policy):
    """A monitor whose commands and lines are kept."""

    class Watch:
        def __init__(self, **options):
            self.engine = Engine(policy, **options)
            self.commands = []
            self.told = []
            self.monitor = Monitor(self.engine, self.commands.extend, self.told.append)

        def of(self, kind):
            return [command for command in self.commands if isinstance(command, kind)]

    return Watch


class TestStop:
    def test_after_so_many_packets(self, watch, capture_file):
        each = watch()
        each.monitor.run(CaptureFile(capture_file()).batches(), Stop(3, None))
        assert each.engine.totals().packets == 3
        assert len(each.of(Judged)) == 3

    def test_at_the_end_every_connection_ends(self, watch, capture_file):
        each = watch()
        each.monitor.run(CaptureFile(capture_file()).batches(), Stop(None, None))
        assert [command.reason for command in each.of(Ended)] == ["shutdown"] * 5

    def test_after_some_time(self, watch):
        def quiet():
            while True:
                time.sleep(0.01)
                yield None

        began = time.monotonic()
        watch().monitor.run(quiet(), Stop(None, 0.1))
        assert 0.1 <= time.monotonic() - began < 2

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_asks_for_it_and_others_get_theirs_back(self, number):
        before = signal.getsignal(number)
        stop = Stop(None, None)
        with stop.on_signals():
            os.kill(os.getpid(), number)
            assert stop.due()
        assert signal.getsignal(number) is before


class TestTime:
    def test_a_quiet_live_capture_lets_connections_end(self, watch, made):
        each = watch()
        frame = made.frames[0]
        batch = Batch(Source(made.raw_ip, "eth0"), frame, [(1.0, 0, len(frame), len(frame))], live=True)
        each.monitor.run(iter([batch, None]), Stop(None, None))
        assert [command.reason for command in each.of(Ended)] == ["timeout"]

    def test_a_capture_of_long_ago_has_its_own_time(self, watch, capture_file):
        each = watch()
        each.monitor.run(CaptureFile(capture_file()).batches(), Stop(None, None))
        assert [command.reason for command in each.of(Ended)] == ["shutdown"] * 5

    def test_addresses_are_asked_for_again(self, watch, policy):
        each = watch()
        asked = []

        def refresh():
            asked.append(time.monotonic())
            return []

        each.monitor.refresh_with(refresh)

        def quiet():
            for _ in range(65):
                time.sleep(0.01)
                yield None

        each.monitor.run(quiet(), Stop(None, None))
        assert len(asked) == 2


class TestPolicyFile:
    @pytest.fixture
    def changing(self, watch, tmp_path):
        """Runs a monitor while its file is written, and gives what it told."""

        def run(load):
            path = tmp_path / "rules.json"
            path.write_text("1")
            each = watch()
            each.monitor.watch_policy(path, Watch(path), load)
            path.write_text("22")
            each.monitor.run(iter([None]), Stop(None, None))
            return each.told

        return run

    def test_a_change_is_loaded_and_told(self, changing, policy):
        (line,) = changing(lambda path: policy)
        assert line.endswith("rules.json has changed and is in force: 0 rules")

    def test_faults_are_told_in_one_line(self, changing):
        def load(path) -> Policy:
            raise PolicyError(
                [Fault(3, 4, "rules[0]", "is wrong", "rules.json"), Fault(5, 6, "", "is too", "rules.json")]
            )

        line = "rules.json:3:4: rules[0]: is wrong (and 1 more); the policy before stays in force"
        assert changing(load) == [line]

    def test_a_file_that_cannot_be_read(self, changing):
        def load(path) -> Policy:
            raise PermissionError(13, "Permission denied")

        (line,) = changing(load)
        assert line.endswith("rules.json: Permission denied; the policy before stays in force")


def test_notices_are_told(watch, capture_file):
    each = watch(table=FlowTable(2))
    each.monitor.run(CaptureFile(capture_file()).batches(), Stop(None, None))
    assert each.told == ["the table of connections is full (2): the oldest unanswered ones are forgotten"]


def test_statistics_are_the_totals(watch, capture_file):
    each = watch()
    each.monitor.run(CaptureFile(capture_file()).batches(), Stop(None, None))
    counted = statistics(each.engine.totals())
    assert (counted["packets"], counted["connections"]) == (5, 5)
    assert counted["allowed"] + counted["blocked"] == 5
