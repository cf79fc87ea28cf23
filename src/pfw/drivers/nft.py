"""The program nft: one transaction a call, all of it or nothing."""

from __future__ import annotations

from pfw.drivers.programs import Job, run


def job(text: str) -> Job:
    """What loads a ruleset."""
    return Job(("nft", "-f", "-"), text)


def load(text: str) -> None:
    """Load a ruleset in one transaction. Raises RefusedError; then nothing has changed."""
    run(job(text))


def check(text: str) -> None:
    """Whether the kernel would take a ruleset; nothing is loaded. Raises RefusedError."""
    run(Job(("nft", "--check", "-f", "-"), text))
