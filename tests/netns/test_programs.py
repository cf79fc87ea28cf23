"""Rules for programs, with real programs and real packets, out and in."""

from __future__ import annotations

from typing import Any

import pytest
from tests.netns.programs_lab import Lab, lab  # noqa: F401

CURL = "/usr/bin/curl"


def rules(*found: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"version": 2, "default": {"in": "block", "out": "block"}, "rules": list(found), **fields}


ALLOW_CURL = {"name": "curl", "action": "allow", "direction": "out", "app": CURL}


@pytest.mark.parametrize("options", [(), ("--no-labels",)], ids=["labels", "no-labels"])
def test_a_program_is_let_out_and_its_copy_is_not(lab: Lab, net: Any, options: tuple[str, ...]) -> None:  # noqa: F811
    lab.up(rules(ALLOW_CURL), *options)
    copy = lab.copy(CURL, "copy")
    for address in (net.there, net.there6):
        assert lab.fetches(CURL, address)
        assert not lab.fetches(copy, address)


def test_somebody_is_asked_and_the_answer_is_kept_in_the_kernel(lab: Lab, net: Any) -> None:  # noqa: F811
    lab.up(rules(default={"in": "block", "out": "ask"}))
    with lab.watching() as watcher:
        waiting = lab.start(CURL, "-sS", "-m", "15", f"http://{net.there}:8080/")
        prompt = watcher.next()
        assert (prompt.program and prompt.program.path, prompt.remote, prompt.port) == (CURL, net.there, 8080)
        lab.answer(prompt.id, "allow", "time", "exact", 600)
        assert waiting.communicate(timeout=10)[0] == "yes"
        before = lab.status_or_none()
        assert lab.fetches(CURL, net.there)
        after = lab.status_or_none()
    assert before is not None
    assert after is not None
    assert after.counts["asked"] == before.counts["asked"]
