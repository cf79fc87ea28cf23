"""Rules for programs, in: whose socket would receive it, for real listeners of every kind.

With labels it is the program that bound the socket: an inherited, passed, activated or accepted socket stays what it
was at `bind`, whatever policy comes. Without labels it is the programs that hold it when the packet comes; where those
are different ones it is nobody's. So a rule for a service whose sockets another program opens names that other one.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.netns.programs_lab import Lab, lab  # noqa: F401
from tests.netns.talkers import Conversation, Workshop, allow, ask, put_in_force, rules, serve, workshop  # noqa: F401

BOTH = pytest.mark.parametrize("options", [(), ("--no-labels",)], ids=["labels", "no-labels"])
GOOD, BAD, NONE = 7001, 7002, 7003
KINDS = ("tcp", "udp")


def heard(lab: Lab, net: Any, port: int) -> dict[tuple[str, str], str]:  # noqa: F811
    """What is heard of a port, by protocol and address."""
    return {(kind, to): ask(lab.there, kind, to, port) for kind in KINDS for to in (net.here, net.here6)}


def queued(lab: Lab) -> int:  # noqa: F811
    status = lab.status_or_none()
    assert status is not None
    return status.counts["queued"]


@BOTH
def test_listeners_and_a_port_where_nobody_listens(
    lab: Lab, net: Any, workshop: Workshop, options: tuple[str, ...]  # noqa: F811
) -> None:  # fmt: skip
    good, bad = workshop.copy("good"), workshop.copy("bad")
    serve(lab, good, "serve", GOOD)
    lab.up(rules(allow("in", str(good))), *options)
    serve(lab, bad, "serve", BAD)
    serve(lab, good, "serve", GOOD + 10)
    for port, wanted in ((GOOD, "yes"), (BAD, "refused"), (GOOD + 10, "yes")):
        assert set(heard(lab, net, port).values()) == {wanted}, port
    before = queued(lab)
    assert set(heard(lab, net, NONE).values()) == {"refused"}
    assert queued(lab) == before


WAYS = ("forked", "passed", "activate", "inetd")


@pytest.mark.parametrize(
    ("options", "binders", "users"),
    [((), WAYS, ()), (("--no-labels",), ("forked", "inetd"), ("passed", "activate"))],
    ids=["labels-who-bound-it", "no-labels-who-holds-it"],
)
def test_who_counts_for_a_socket_that_changes_hands(
    lab: Lab, net: Any, workshop: Workshop, options: tuple[str, ...], binders: tuple[str, ...], users: tuple[str, ...]  # noqa: F811
) -> None:  # fmt: skip
    """`forked` is served by a child of the same program, `passed` by another one that got it by SCM_RIGHTS, `activate`
    by another one that was started in the same process (sd_listen_fds(3)); `inetd` accepts, and starts another one
    for each connection. Whoever bound it is `binder`, the other one `user`."""
    binder, user = workshop.copy("binder"), workshop.copy("user")
    policy = (allow("in", str(binder), port="7101-7104"), allow("in", str(user), port="7201-7204", name="user"))
    lab.up(rules(*policy), *options)
    for front in (7101, 7201):
        for port, way in enumerate(WAYS, front):
            begin(lab, binder, user, way, port)
    wanted = {(7101, way): way in binders for way in WAYS} | {(7201, way): way in users for way in WAYS}
    assert reached(lab, net) == wanted
    put_in_force(lab, rules(*policy, allow("in", str(lab.copy(binder, "another")), port=7300, name="another")))
    assert reached(lab, net) == wanted


def reached(lab: Lab, net: Any) -> dict[tuple[int, str], bool]:  # noqa: F811
    """Which listeners answer, by the port of the first and the way in which they began."""
    found = {}
    for front in (7101, 7201):
        for port, way in enumerate(WAYS, front):
            said = {ask(lab.there, "tcp", to, port) for to in (net.here, net.here6)}
            assert len(said) == 1, (way, port)
            found[front, way] = said == {"yes"}
    return found


def begin(lab: Lab, binder: Path, user: Path, way: str, port: int) -> None:  # noqa: F811
    """Start a listener that goes through two hands, and wait until somebody listens."""
    if way != "passed":
        serve(lab, binder, way, port, *([user] if way in ("activate", "inetd") else []))
        return
    giving, taking = socket.socketpair()
    with giving, taking:
        lab.start(binder, "passed", str(port), stdin=giving).wait(10)
        serve(lab, user, "taken", stdin=taking)


@BOTH
def test_the_user_of_a_listener(lab: Lab, net: Any, workshop: Workshop, options: tuple[str, ...]) -> None:  # noqa: F811
    """A rule names a user, another one a program and a user: both must be right."""
    good, bad = workshop.copy("good"), workshop.copy("bad")
    policy = rules(
        allow("in", user="games", port=GOOD), allow("in", str(good), user="games", port=BAD, name="program and user")
    )
    lab.up(policy, *options)
    for program, user, port, wanted in (
        (bad, "games", GOOD, "yes"),
        (bad, "nobody", GOOD, "refused"),
        (good, "games", BAD, "yes"),
        (good, "nobody", BAD, "refused"),
        (bad, "games", BAD, "refused"),
    ):
        before = ("setpriv", f"--reuid={user}", "--clear-groups", "--")
        listener = serve(lab, program, "serve", port, before=before)
        assert set(heard(lab, net, port).values()) == {wanted}, (program, user, port)
        listener.kill()
        listener.wait()


@contextmanager
def unit(lab: Lab, name: str) -> Iterator[Path]:  # noqa: F811
    """A control group below the laboratory's, as a unit has one."""
    place = lab.cgroup / name
    place.mkdir()
    try:
        yield place
    finally:
        _empty(lab, place)


def _empty(lab: Lab, place: Path) -> None:  # noqa: F811
    (place / "cgroup.kill").write_text("1")

    def left() -> bool:
        try:
            place.rmdir()
        except OSError:
            return False
        return True

    lab.until(left, "the unit is empty")


def test_the_unit_out_and_in(lab: Lab, net: Any, workshop: Workshop) -> None:  # noqa: F811
    """A rule names a unit, another one a program in it. What runs beside it is of another unit."""
    good, bad = workshop.copy("good"), workshop.copy("bad")
    with unit(lab, "web.service") as place:
        name = f"{lab.cgroup.name}/web.service"
        policy = rules(
            allow("out", str(good), unit=name, protocol="tcp"), allow("out", unit=name, protocol="udp", name="any"),
            allow("in", str(good), unit=name, protocol="tcp", name="to it"),
            allow("in", unit=name, protocol="udp", name="to any"),
        )  # fmt: skip
        lab.up(policy)
        inside = ("sh", "-c", f'echo $$ > {place}/cgroup.procs; exec "$@"', "sh")
        for program, before in ((good, inside), (bad, inside), (good, ()), (bad, ())):
            wanted = {"tcp": program is good and before == inside, "udp": before == inside}
            client = Conversation(lab, program, net.there, before=before)
            assert {kind: client.ask(kind) == "yes" for kind in KINDS} == wanted
            listener = serve(lab, program, "serve", GOOD, before=before)
            assert {each: said == "yes" for each, said in heard(lab, net, GOOD).items()} == {
                (kind, to): wanted[kind] for kind in KINDS for to in (net.here, net.here6)
            }
            listener.kill()
            listener.wait()
