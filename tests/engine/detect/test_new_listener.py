"""Listeners: which are news, which are a client's port, the same again, or one of many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.detect.dialogue import address, alerts

from pfw.engine.detect.new_listener import (
    ALL_SCORE,
    CHOSEN_FROM,
    LISTENERS_MAX,
    ODD_SCORE,
    ONE_SCORE,
    PROGRAMS_MAX,
    NewListener,
    listener_name,
)
from pfw.model.observation import Kind, Listening
from pfw.model.packet import SCTP, TCP, UDP

NGINX, SSHD, DOCKER = "/usr/sbin/nginx", "/usr/sbin/sshd", "/usr/bin/docker-proxy"
KNOWN = {"tcp 0.0.0.0:22": SSHD, "tcp [::]:22": None, "udp 0.0.0.0:5353": "/usr/sbin/avahi-daemon"}


def listening(port, program=NGINX, at="0.0.0.0", protocol=TCP, time=100.0, *, first=False) -> Listening:
    return Listening(time, protocol, address(at), port, program, first)


@pytest.mark.parametrize(
    ("seen", "score", "evidence"),
    [
        (listening(8080), ALL_SCORE, "nginx (/usr/sbin/nginx) listens on tcp 0.0.0.0:8080"),
        (listening(8080, at="::"), ALL_SCORE, "nginx (/usr/sbin/nginx) listens on tcp [::]:8080"),
        (listening(8080, at="192.0.2.1"), ONE_SCORE, "nginx (/usr/sbin/nginx) listens on tcp 192.0.2.1:8080"),
        (listening(69, None, protocol=UDP), ALL_SCORE, "a program that is not known listens on udp 0.0.0.0:69"),
        (listening(8080, "/tmp/x"), ODD_SCORE, "x (/tmp/x) listens on tcp 0.0.0.0:8080"),
        (listening(8080, "/memfd:a (deleted)"), ODD_SCORE, "memfd:a (/memfd:a) listens on tcp 0.0.0.0:8080"),
    ],
)  # fmt: skip
def test_what_was_not_there_before(seen, score, evidence):
    detector = NewListener(KNOWN)
    (found,) = alerts(detector, [seen, *[seen] * 20])
    assert (found.kind, found.source, found.target, found.ban) == (Kind.NEW_LISTENER, None, seen.address, ())
    assert (found.score, found.evidence, found.program) == (score, f"{evidence}, first seen now", seen.program)
    assert found.about == listener_name(seen.protocol, seen.address, seen.port)
    assert 40 <= found.score <= 60


@pytest.mark.parametrize(
    "seen",
    [
        listening(22, SSHD), listening(22, SSHD, "::"), listening(8080, at="127.0.0.1"), listening(8080, at="::1"),
        listening(8080, at="127.8.9.10"), listening(53_211, "/usr/bin/firefox", protocol=UDP),
        listening(8080, first=True), listening(22, None), listening(5353, "/usr/bin/chrome", protocol=UDP),
    ],
)  # fmt: skip
def test_what_is_known_for_loopback_a_clients_or_there_at_first(seen):
    assert alerts(NewListener(KNOWN), [seen] * 3) == []


def test_the_first_look_is_the_measure():
    detector = NewListener()
    assert alerts(detector, [listening(80, first=True), listening(80)]) == []
    assert len(alerts(detector, [listening(443)])) == 1


def test_both_families_and_several_addresses_are_one():
    seen = [listening(8080, at=at) for at in ("0.0.0.0", "::", "192.0.2.1", "2001:db8::1")]
    assert len(alerts(NewListener(), seen)) == 1
    assert len(alerts(NewListener(), [*seen, listening(8081), listening(8080, "/usr/bin/other")])) == 3


def test_another_program_where_one_listened_before():
    (found,) = alerts(NewListener(KNOWN), [listening(22, "/usr/bin/ncat")] * 5)
    assert found.score == ODD_SCORE
    assert found.evidence == (
        "ncat (/usr/bin/ncat) listens on tcp 0.0.0.0:22, where sshd (/usr/sbin/sshd) listened before"
    )


def test_what_takes_turns_is_told_of_once():
    turns = [listening(80, program, first=number == 0) for number, program in enumerate([NGINX, SSHD] * 10)]
    assert len(alerts(NewListener(), turns)) == 1


def test_who_hands_its_sockets_over_is_no_other():
    systemd = "/usr/lib/systemd/systemd"
    assert alerts(NewListener({"tcp 0.0.0.0:631": systemd}), [listening(631, "/usr/sbin/cupsd")]) == []
    assert alerts(NewListener({"tcp 0.0.0.0:631": "/usr/sbin/cupsd"}), [listening(631, systemd)]) == []


def test_a_program_with_many_ports_chosen_at_random_is_told_of_once_per_doubling():
    found = alerts(NewListener(), [listening(CHOSEN_FROM + n * 7, DOCKER, time=n) for n in range(1_000)])
    assert len(found) == 10
    assert {each.about for each in found} == {"tcp ports"}
    assert found[-1].evidence.endswith("first seen now; it has opened 512 such ports")
    assert len(alerts(NewListener(), [listening(40_000, DOCKER), listening(40_000, NGINX)])) == 2


def test_memory_is_bounded():
    detector = NewListener(listeners_max=50)
    for number in range(500):
        detector.observe(listening(1 + number))
        detector.observe(listening(CHOSEN_FROM + number, f"/opt/{number}"))
    assert len(detector._known) == len(detector._told) == 50
    detector = NewListener()
    for number in range(2 * PROGRAMS_MAX):
        detector.observe(listening(CHOSEN_FROM + number, f"/opt/{number}"))
    assert (len(detector._programs), detector.refused) == (PROGRAMS_MAX, 0)
    assert LISTENERS_MAX > 10_000


SEEN = st.builds(
    Listening,
    st.floats(0, 1e10),
    st.sampled_from([TCP, UDP, SCTP]),
    st.sampled_from([address(each) for each in ("0.0.0.0", "::", "127.0.0.1", "192.0.2.1", "224.0.0.251")]),
    st.sampled_from([0, 22, 80, CHOSEN_FROM, 65_535]),
    st.none() | st.sampled_from([NGINX, SSHD, "/tmp/x", "", "/", "[kworker]"]) | st.text(max_size=5),
    st.booleans(),
)


@given(st.lists(SEEN, max_size=60))
def test_never_raises_and_never_bans(seen):
    for each in alerts(NewListener(KNOWN, 4), seen):
        assert 40 <= each.score <= 60
        assert each.ban == ()
        assert each.evidence
