"""Programs of a rule by themselves; which fault is told of which field is in `test_load.py`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.model.rule import App
from pfw.policy.programs import read_apps, read_sha256
from pfw.policy.report import MAX_FAULTS, MisfitError, Report

HASH = "0123456789abcdef" * 4


def test_a_value_alone_is_a_list_of_one() -> None:
    for value in ("/bin/a", {"path": "/bin/a", "sha256": HASH}):
        report = Report()
        assert read_apps(report, (), value) == read_apps(report, (), [value]) is not None
        assert report.count == 0


def test_one_path_with_and_without_its_hash_are_two() -> None:
    written = ["/bin/a", {"path": "/bin/a", "sha256": HASH}, {"path": "/bin/a", "sha256": HASH.upper()}]
    assert read_apps(Report(), (), written) == (App("/bin/a"), App("/bin/a", HASH))


NO_HASHES = [HASH[:-1], HASH + "0", HASH[:-1] + "g", f"{HASH}\n", f" {HASH[1:]}", "\u0660" * 64, ""]


@pytest.mark.parametrize("text", NO_HASHES)
def test_what_is_no_hash(text) -> None:
    with pytest.raises(MisfitError, match="is not a SHA-256 hash"):
        read_sha256(text)


def test_a_long_list_of_faults_is_given_up() -> None:
    report = Report()
    assert read_apps(report, (), [{"paht": 1}] * 100_000) is None
    assert MAX_FAULTS <= report.count < MAX_FAULTS + 3


PLAIN = st.one_of(
    st.sampled_from(["/bin/a", "/opt/*", "/", "/*", "*", "//", "/a/../b", "x", "", HASH, HASH.upper()]),
    st.text(max_size=4),
    st.integers(),
    st.none(),
)
APPS = st.one_of(PLAIN, st.dictionaries(st.sampled_from(["path", "sha256", "pth", ""]), PLAIN, max_size=3))


@given(st.one_of(APPS, st.lists(APPS, max_size=4)))
def test_whatever_is_written_there_are_programs_or_faults(value) -> None:
    report = Report()
    found = read_apps(report, ("app",), value)
    assert (found is None) is (report.count > 0)
    for app in found or ():
        assert app.path.startswith("/")
        assert "//" not in app.path
        assert "*" not in app.path[:-1]
        assert app.sha256 is None or (len(app.sha256) == 64 and not app.path.endswith("*"))
