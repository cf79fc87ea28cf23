"""Rules for programs, followed: upgrades, other names of the same file, other policies, another daemon. Nothing that
runs has to be started anew for any of it."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.netns.programs_lab import Lab, lab  # noqa: F401
from tests.netns.talkers import Conversation, Workshop, allow, ask, generation, rules, serve, talks, workshop  # noqa: F401

BOTH = pytest.mark.parametrize("options", [(), ("--no-labels",)], ids=["labels", "no-labels"])
HOWS = ("tcp", "udp", "udp-connected", "udp-kept")


class Running:
    """A program that was started once: processes that talk out, in each way, and one that listens at a port."""

    def __init__(self, lab: Lab, net: Any, program: Path, port: int) -> None:  # noqa: F811
        ends = ((4, net.here, net.there), (6, net.here6, net.there6))
        self._there, self._port = lab.there, port
        self._in = {f"in {kind} {family}": (kind, here) for kind in ("tcp", "udp") for family, here, _ in ends}
        self._out = {
            f"out {how} {family}": (how, Conversation(lab, program, there)) for how in HOWS for family, _, there in ends
        }
        serve(lab, program, "serve", port)

    def works(self) -> set[str]:
        """Of all that it does at once, what is answered."""
        for how, each in self._out.values():
            each.begin(how)
        with ThreadPoolExecutor() as pool:
            heard = pool.map(lambda each: ask(self._there, each[0], each[1], self._port), self._in.values())
            said = {name for name, each in zip(self._in, heard, strict=True) if each == "yes"}
        return said | {name for name, (_, each) in self._out.items() if each.said() == "yes"}


ALL = {f"out {how} {family}" for how in HOWS for family in (4, 6)} | {
    f"in {kind} {family}" for kind in ("tcp", "udp") for family in (4, 6)
}
NOTHING: set[str] = set()


def named(program: Path | str) -> list[dict[str, Any]]:
    return [allow(way, str(program), name=f"{way} {program}") for way in ("out", "in")]


@BOTH
def test_an_upgrade(lab: Lab, net: Any, workshop: Workshop, options: tuple[str, ...]) -> None:  # noqa: F811
    """A new file is put over the old one, which runs on; then another daemon starts, which has never seen the old one
    under its name; then it is upgraded once more."""
    app, bad = workshop.copy("app"), workshop.copy("bad")
    lab.up(rules(*named(app)), *options)
    running = [Running(lab, net, app, 7001)]
    assert running[0].works() == ALL
    workshop.copy("app")
    running.append(Running(lab, net, app, 7002))
    assert [each.works() for each in running] == [ALL, ALL]
    lab.end()
    lab.begin(*options)
    assert [each.works() for each in running] == [ALL, ALL]
    workshop.copy("app")
    running.append(Running(lab, net, app, 7003))
    assert [each.works() for each in running] == [ALL, ALL, ALL]
    assert Running(lab, net, bad, 7004).works() == NOTHING


def test_while_no_daemon_runs_known_programs_go_on(lab: Lab, net: Any, workshop: Workshop) -> None:  # noqa: F811
    """The kernel alone decides by labels; what it would have to ask about passes with the next daemon."""
    app, bad, old = workshop.copy("app"), workshop.copy("bad"), workshop.copy("old")
    lab.up(rules(*named(app), *named(old)))
    running = Running(lab, net, app, 7001)
    assert running.works() == ALL
    lab.end()
    assert running.works() == ALL
    assert Running(lab, net, app, 7002).works() == ALL
    assert Running(lab, net, bad, 7003).works() == NOTHING
    workshop.copy("old")
    upgraded = Running(lab, net, old, 7004)
    assert upgraded.works() == NOTHING
    lab.begin()
    assert upgraded.works() == ALL


def test_a_link_in_the_policy(lab: Lab, net: Any, workshop: Workshop) -> None:  # noqa: F811
    """What it leads to counts, under whatever name it is started; and once it leads elsewhere, the other file."""
    first, second, link = workshop.copy("first"), workshop.copy("second"), workshop.folder / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(first)
    lab.up(rules(*named(link)))
    running = [Running(lab, net, link, 7001), Running(lab, net, first, 7002), Running(lab, net, second, 7003)]
    assert [each.works() for each in running] == [ALL, ALL, NOTHING]
    other = workshop.folder / "other-link"
    other.symlink_to(second)
    other.replace(link)
    lab.until(lambda: talks(lab, second, "tcp", net.there).said == "yes", "the link leads elsewhere")
    lab.until(lambda: running[0].works() == NOTHING, "connections of the other one are cut")
    assert [each.works() for each in running] == [NOTHING, NOTHING, ALL]


@BOTH
def test_other_names_of_the_same_file(
    lab: Lab, net: Any, workshop: Workshop, options: tuple[str, ...]  # noqa: F811
) -> None:  # fmt: skip
    """With labels the file counts, which is the same under each of its names: a hard link, a bind mount, in a mount
    name space of its own too. Without them it is the name under which it was started, and that is another one."""
    app, mounted = workshop.copy("app"), workshop.copy("mounted")
    hard = workshop.folder / "hard"
    hard.unlink(missing_ok=True)
    os.link(app, hard)
    lab.up(rules(*named(app)), *options)
    wanted = "refused" if options else "yes"
    inside = ("unshare", "--mount", "sh", "-c", f'mount --bind {app} {mounted}; exec "$@"', "sh")
    for address in (net.there, net.there6):
        assert talks(lab, app, "tcp", address).said == "yes"
        assert talks(lab, hard, "tcp", address).said == wanted
        assert talks(lab, mounted, "tcp", address).said == "refused"
        assert talks(lab, mounted, "tcp", address, before=inside).said == wanted
    subprocess.run(["mount", "--bind", app, mounted], check=True)
    try:
        assert talks(lab, mounted, "tcp", net.there).said == wanted
    finally:
        subprocess.run(["umount", mounted], check=True)


@BOTH
def test_other_policies(lab: Lab, net: Any, workshop: Workshop, options: tuple[str, ...]) -> None:  # noqa: F811
    """A program that runs is named, named no longer, is one of a folder, and named again: each holds at once, and when
    the daemon has taken it up, for sockets from before any of it too."""
    app, other = workshop.copy("folder/app"), workshop.copy("other")
    running, beside = Running(lab, net, app, 7001), Running(lab, net, other, 7002)
    lab.up(rules(*named(other)), *options)
    assert (running.works(), beside.works()) == (NOTHING, ALL)
    for policy, wanted in (
        (named(app), (ALL, NOTHING)),
        (named(other), (NOTHING, ALL)),
        (named(f"{app.parent}/*"), (ALL, NOTHING)),
        ([], (NOTHING, NOTHING)),
        ([*named(app), *named(other)], (ALL, ALL)),
    ):
        before = generation(lab)
        lab.firewall.write(rules(*policy))
        lab.pfw("up", "--rules", str(lab.firewall.path))
        assert (running.works(), beside.works()) == wanted, policy
        lab.until(lambda before=before: generation(lab) > before, "the daemon knows the policy")
        assert (running.works(), beside.works()) == wanted, policy
