"""The program that chooses events: how it is put together. What it chooses is asked of the kernel in
tests/drivers/test_conntrack.py."""

import pytest

from pfw.wire.conntrack_filter import assemble, event_filter

RETURN = 0x06


def test_parts_and_labels():
    program = assemble(
        {
            "": [("load half at", 4), ("a == ?", 7, "yes", ""), ("a & ?", 1, "yes", "no")],
            "no": [("return", 0)],
            "yes": [("return", 9)],
        }
    )
    assert program == [(0x28, 0, 0, 4), (0x15, 2, 0, 7), (0x45, 1, 0, 1), (RETURN, 0, 0, 0), (RETURN, 0, 0, 9)]


@pytest.mark.parametrize("between", [0, 300])
def test_labels_that_cannot_be_reached(between):
    """Nothing jumps back, or more than 255 lines ahead."""
    parts = {"a": [("a =", 0)] * (between + 1), "b": [("a == ?", 1, "a", "")], "c": [("return", 0)]}
    ahead = {"b": [("a == ?", 1, "c", "")], "a": [("a =", 0)] * 300, "c": [("return", 0)]}
    for each in (parts, ahead):
        with pytest.raises(ValueError, match="label"):
            assemble(each)


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize("states", [(), (3,), range(1, 15)])
def test_every_way_ends(states, loopback):
    program = event_filter(states, loopback=loopback)
    ends = {at for at, (code, _, _, _) in enumerate(program) if code == RETURN}
    seen, waiting = set(), [0]
    while waiting:
        at = waiting.pop()
        if at in seen or at in ends:
            continue
        seen.add(at)
        waiting += [at + 1 + program[at][1], at + 1 + program[at][2]]
    assert max(seen) < len(program)
    assert seen | ends == set(range(len(program)))


def test_states_are_taken_in_any_form():
    assert event_filter([8, 3, 7], loopback=False) == event_filter(frozenset({3, 7, 8}), loopback=False)
