"""Programs whose file has changed under them, and what of that is grave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.detect.dialogue import address, alerts

from pfw.engine.detect.changed_program import GONE_SCORE, REPLACED_SCORE, ChangedProgram
from pfw.model.observation import Kind, ProgramTalks

CURL, THERE = "/usr/bin/curl", "203.0.113.9"


def talks(program=CURL, *, replaced=False, missing=False, changed=None, pid=77, time=10_000.0, to=THERE, port=443):
    return ProgramTalks(time, program, pid, time - 3_600, replaced, address(to), port, missing, changed)


WHO = "curl (/usr/bin/curl), process 77, started 60 minutes ago, talks to 203.0.113.9:443: "


@pytest.mark.parametrize(
    ("seen", "score", "evidence"),
    [
        (talks(replaced=True), REPLACED_SCORE, WHO + "its file was replaced, as an upgrade does"),
        (talks(replaced=True, changed=9_970.0), REPLACED_SCORE,
         WHO + "its file was replaced 30.0 s ago, as an upgrade does"),
        (talks(missing=True), GONE_SCORE, WHO + "its file was deleted and nothing stands in its place"),
        (talks(replaced=True, missing=True, changed=2_800.0), GONE_SCORE,
         WHO + "its file was deleted 2.0 h ago and nothing stands in its place"),
        (talks("/tmp/x", replaced=True), GONE_SCORE,
         "x (/tmp/x), process 77, started 60 minutes ago, talks to 203.0.113.9:443: its file was replaced, as an "
         "upgrade does"),
        (talks("/dev/shm/.a", missing=True), GONE_SCORE,
         ".a (/dev/shm/.a), process 77, started 60 minutes ago, talks to 203.0.113.9:443: its file was deleted and "
         "nothing stands in its place"),
        (talks("memfd:kworker"), GONE_SCORE,
         "memfd:kworker, process 77, started 60 minutes ago, talks to 203.0.113.9:443: it was started from memory and "
         "never was a file"),
        (talks("/memfd:a (deleted)", to="2001:db8::1", missing=True), GONE_SCORE,
         "memfd:a (/memfd:a), process 77, started 60 minutes ago, talks to [2001:db8::1]:443: it was started from "
         "memory and never was a file"),
    ],
)  # fmt: skip
def test_what_is_told(seen, score, evidence):
    (found,) = alerts(ChangedProgram(), [seen])
    assert (found.kind, found.source, found.target, found.ban) == (Kind.CHANGED_PROGRAM, None, seen.remote, ())
    assert (found.score, found.evidence, found.program) == (score, evidence, seen.program)


@pytest.mark.parametrize("program", [CURL, "/tmp/x", "/var/tmp/y", "/home/me/bin/z"])
def test_a_program_whose_file_is_the_same_is_none(program):
    assert alerts(ChangedProgram(), [talks(program)]) == []


def test_once_a_program_and_change():
    """All processes of an upgraded server talk on, and then it is upgraded again."""
    detector = ChangedProgram()
    workers = [talks(replaced=True, changed=9_000.0, pid=pid, to=f"203.0.113.{pid}") for pid in range(50)]
    assert len(alerts(detector, workers)) == 1
    assert len(alerts(detector, [talks(replaced=True, changed=9_500.0, pid=pid) for pid in range(50)])) == 1
    assert len(alerts(detector, [talks("/usr/bin/wget", replaced=True, changed=9_500.0)])) == 1
    assert [each.score for each in alerts(detector, [talks(missing=True, changed=9_500.0)] * 2)] == [GONE_SCORE]


def test_memory_is_bounded():
    detector = ChangedProgram(changes_max=10)
    for number in range(500):
        detector.observe(talks(f"/opt/{number}", replaced=True))
    assert (len(detector._told), detector.refused) == (10, 0)


SEEN = st.builds(
    ProgramTalks,
    st.floats(0, 1e10),
    st.sampled_from([CURL, "/tmp/x", "memfd:", "", "/"]) | st.text(max_size=6),
    st.integers(0, 1 << 22),
    st.floats(0, 1e10),
    st.booleans(),
    st.sampled_from([address(THERE), address("2001:db8::1")]),
    st.none() | st.integers(0, 65_535),
    st.booleans(),
    st.none() | st.floats(0, 1e10),
)


@given(st.lists(SEEN, max_size=40))
def test_never_raises_and_never_bans(seen):
    for each in alerts(ChangedProgram(3), seen):
        assert each.score in (REPLACED_SCORE, GONE_SCORE)
        assert each.ban == ()
        assert each.first <= each.last
