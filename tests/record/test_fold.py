from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.record.fold import COARSE_CAPACITY, Folded, Folder


def see(folder: Folder, key: str, now: float) -> bool:
    """Whether it passes; what ended is thrown away."""
    if folder.repeats(key, key[0], now):
        return False
    folder.begin(key, f"{key}!", key[0], f"others {key[0]}!", now)
    return True


def test_the_first_passes_and_the_rest_become_one_line() -> None:
    folder = Folder(window_s=60)
    assert see(folder, "a", 100.0)
    assert not any(see(folder, "a", 100.0 + step / 10) for step in range(412))
    assert folder.ended(159.9) == []
    assert folder.ended(160.0) == [Folded("a!", 412, 60, 160.0)]
    assert folder.ended(300.0) == []
    assert see(folder, "a", 160.1)
    assert folder.folded == 412


def test_what_did_not_repeat_gives_no_line() -> None:
    folder = Folder(window_s=60)
    assert see(folder, "a", 1.0)
    assert folder.ended(100.0) == []
    assert len(folder) == 0


def test_flush_says_how_long_it_really_was() -> None:
    folder = Folder(window_s=60)
    see(folder, "a", 1.0)
    see(folder, "a", 4.5)
    see(folder, "b", 5.0)
    see(folder, "b", 5.0)
    assert folder.flush() == [Folded("a!", 1, 4, 4.5), Folded("b!", 1, 1, 5.0)]
    assert len(folder) == 0


def test_a_full_table_folds_by_the_coarse_kind() -> None:
    folder = Folder(window_s=60, capacity=2)
    assert see(folder, "a1", 0.0)
    assert see(folder, "a2", 0.0)
    assert see(folder, "a3", 0.0)
    assert not see(folder, "a4", 1.0)
    assert not see(folder, "a5", 2.0)
    assert not see(folder, "a1", 3.0)
    assert folder.unfolded == 0
    assert folder.ended(60.0) == [Folded("a1!", 1, 60, 60.0), Folded("others a!", 2, 60, 60.0)]
    assert see(folder, "a5", 61.0)


def test_two_full_tables_let_pass_and_count() -> None:
    folder = Folder(capacity=1)
    kinds = [chr(0x4E00 + number) for number in range(COARSE_CAPACITY + 4)]
    assert all(see(folder, kind, 0.0) for kind in kinds)
    assert len(folder) == 1 + COARSE_CAPACITY
    assert folder.unfolded == 3


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1e10) | st.floats()), max_size=200), st.integers(1, 4)
)
def test_nothing_is_lost_whatever_the_clock_does(steps: list[tuple[str, float]], capacity: int) -> None:
    folder = Folder(window_s=60, capacity=capacity)
    passed = reported = 0
    for key, now in steps:
        reported += sum(folded.count for folded in folder.ended(now))
        passed += see(folder, key, now)
        assert len(folder) <= capacity + COARSE_CAPACITY
    reported += sum(folded.count for folded in folder.flush())
    assert passed + reported == len(steps)
    assert folder.folded == reported
