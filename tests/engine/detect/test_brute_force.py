"""Brute force in dialogues of made observations. The sizes are those of real sessions, as they were measured."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.engine.detect.dialogue import alerts
from tests.engine.detect.flooding import ATTACKER, OTHER, SEEN, TARGET, forged, in_time, is_sound, wanted

from pfw.engine.detect.brute_force import BURST, NAMES_MAX, BruteForce, Bucket
from pfw.model.observation import Began, Confirmed, Ended, Kind, LoginFailed, LoginSucceeded
from pfw.model.packet import TCP

# Of who began and of the server: bytes behind the headers, packets.
HYDRA_SSH = (1_655, 16, 2_333, 16)
OPENSSH_WRONG = (3_375, 17, 3_215, 15)
OPENSSH_TRUE = (3_867, 21, 3_689, 20)
OPENSSH_LS = (3_887, 23, 13_501, 22)
SCP = (24_349, 30, 4_481, 26)
GREETING_READ = (24, 6, 1_100, 5)
PORT_CHECK = (0, 4, 21, 3)
FTP_WRONG = (15, 5, 57, 8)


def session(time, sizes, port=22, source=ATTACKER, target=TARGET, lasting_s=0.2, *, is_open=False):
    sent, sent_packets, received, received_packets = sizes
    began = Began(time, TCP, source, target, 40_000, port, None, 66)
    return Ended(time + lasting_s, began, sent + 60 * sent_packets, sent_packets, received + 60 * received_packets,
                 received_packets, is_open=is_open)  # fmt: skip


def sessions(many, sizes, every_s=0.5, port=22, **others):
    return [session(100.0 + number * every_s, sizes, port, **others) for number in range(many)]


@pytest.mark.parametrize(
    ("sizes", "port", "every_s"),
    [(HYDRA_SSH, 22, 0.5), (HYDRA_SSH, 22, 20.0), (OPENSSH_WRONG, 22, 3.0), (FTP_WRONG, 21, 0.06)],
)
def test_one_password_after_the_other(sizes, port, every_s):
    found = alerts(BruteForce(), sessions(60, sizes, every_s, port))
    assert {(each.kind, each.source, each.target, each.ban) for each in found} == {
        (Kind.BRUTE_FORCE, ATTACKER, TARGET, (ATTACKER,))
    }
    assert "60 short sessions" in found[-1].evidence
    assert found[-1].score >= 80
    assert (found[-1].first, found[-1].last) == (100.2, pytest.approx(100.2 + 59 * every_s))


def test_how_many_are_needed():
    assert alerts(BruteForce(), sessions(BURST, HYDRA_SSH)) == []
    assert len(alerts(BruteForce(), sessions(BURST + 1, HYDRA_SSH))) == 1


@pytest.mark.parametrize("sizes", [OPENSSH_TRUE, OPENSSH_LS, SCP, PORT_CHECK])
@pytest.mark.parametrize("every_s", [0.2, 5.0])
def test_sessions_that_succeed_and_probes_are_none(sizes, every_s):
    assert alerts(BruteForce(), sessions(200, sizes, every_s)) == []


def test_greetings_that_are_read_are_none_unless_they_are_many():
    assert alerts(BruteForce(), sessions(1_000, GREETING_READ, 5.0)) == []
    assert alerts(BruteForce(), sessions(20, GREETING_READ, 0.1)) == []
    assert {each.score for each in alerts(BruteForce(), sessions(60, GREETING_READ, 0.2))} == {55}


def test_who_mistypes_three_times_and_gets_in_is_none():
    day = [each for start in range(0, 5000, 100) for each in (
        *(session(start + 5.0 * number, OPENSSH_WRONG) for number in range(3)), session(start + 20.0, OPENSSH_LS)
    )]  # fmt: skip
    assert alerts(BruteForce(), day) == []


def test_a_wrong_password_in_a_job_of_every_minute_is_none():
    assert alerts(BruteForce(), sessions(600, HYDRA_SSH, 61.0)) == []


def test_sessions_of_all_sizes_are_none():
    mixed = [session(100.0 + n, (700 + n * 2_113 % 5_200, 16, 1_000 + n * 877 % 2_500, 16)) for n in range(60)]
    assert alerts(BruteForce(), mixed) == []


def test_sessions_that_last_are_open_or_of_many_sources_are_none():
    assert alerts(BruteForce(), sessions(60, HYDRA_SSH, lasting_s=400.0)) == []
    assert alerts(BruteForce(), sessions(60, HYDRA_SSH, is_open=True)) == []
    each_another = [session(100.0 + n, HYDRA_SSH, source=forged(n)) for n in range(60)]
    assert alerts(BruteForce(), each_another) == []
    assert alerts(BruteForce(), sessions(60, HYDRA_SSH, source=TARGET)) == []


@pytest.mark.parametrize("port", [80, 443, 8080])
def test_web_servers_are_not_asked(port):
    assert alerts(BruteForce(), sessions(60, HYDRA_SSH, port=port)) == []


def test_files_sent_over_ftp_mean_that_the_login_succeeded():
    logins = sessions(60, FTP_WRONG, 1.0, 21)
    passive = [
        Confirmed(each.time + 0.1, Began(each.time, TCP, ATTACKER, TARGET, 40_001, 50_000)) for each in logins
    ]  # fmt: skip
    active = [Confirmed(each.time + 0.1, Began(each.time, TCP, TARGET, ATTACKER, 20, 40_001)) for each in logins]
    assert alerts(BruteForce(), in_time(logins, passive)) == []
    assert alerts(BruteForce(), in_time(logins, active)) == []
    elsewhere = [
        Confirmed(each.time + 0.1, Began(each.time, TCP, ATTACKER, OTHER, 40_001, 50_000)) for each in logins
    ]  # fmt: skip
    assert alerts(BruteForce(), in_time(logins, elsewhere)) != []


def test_one_after_the_other_at_many_hosts():
    found = alerts(BruteForce(), [session(100.0 + n, HYDRA_SSH, target=forged(n)) for n in range(60)])
    assert found[-1].target is None
    assert f"{NAMES_MAX} hosts" in found[-1].evidence


def test_what_a_service_says():
    failed = [LoginFailed(100.0 + number, "ssh", ATTACKER, f"user{number}") for number in range(30)]
    found = alerts(BruteForce(), failed)
    assert found[0].score >= 80
    assert found[-1].ban == (ATTACKER,)
    assert "30 failed logins at ssh" in found[-1].evidence
    assert alerts(BruteForce(), failed[:BURST]) == []
    slowly = [LoginFailed(20.0 * number, "ssh", ATTACKER, "root") for number in range(30)]
    assert alerts(BruteForce(), slowly) != []


def failures(many, every_s=1.0, start=100.0, user=lambda number: "root", service="ssh"):
    return [LoginFailed(start + number * every_s, service, ATTACKER, user(number)) for number in range(many)]


@pytest.mark.parametrize("every_s", [1.0, 20.0])
def test_names_that_are_tried_out_are_told_of(every_s):
    """CrowdSec's user enumeration has the capacities of its brute force: each name is a failed login."""
    found = alerts(BruteForce(), failures(30, every_s, user=lambda number: f"user{number}"))
    assert found[-1].evidence.endswith(f", as {NAMES_MAX} users")
    assert [each.ban for each in found] == [(ATTACKER,)] * len(found)
    nameless = alerts(BruteForce(), failures(30, every_s, user=lambda number: None))
    assert " as " not in nameless[-1].evidence


def test_who_gets_in_in_between_is_none():
    """A person whose keys are tried before the password is asked for, all day."""
    day = [each for start in range(0, 5_000, 20) for each in (
        *failures(4, 0.5, start), LoginSucceeded(start + 3.0, "ssh", ATTACKER, "me")
    )]  # fmt: skip
    assert alerts(BruteForce(), day) == []
    assert alerts(BruteForce(), [each for each in day if isinstance(each, LoginFailed)]) != []


@pytest.mark.parametrize(
    "success",
    [LoginSucceeded(1e6, "ftp", ATTACKER), LoginSucceeded(1e6, "ssh", OTHER), LoginSucceeded(0.0, "ssh", OTHER)],
)
def test_a_success_elsewhere_or_of_another_is_none_of_ours(success):
    seen = [each for first in failures(20) for each in (first, replace(success, time=first.time))]
    assert alerts(BruteForce(), seen) != []


def test_a_success_empties_what_sessions_have_filled():
    shorts = sessions(60, HYDRA_SSH)
    seen = [each for short in shorts for each in (short, LoginSucceeded(short.time, "ssh", ATTACKER))]
    assert alerts(BruteForce(), seen) == []


@pytest.mark.parametrize(("every_s", "overflows"), [(1.0, True), (9.0, True), (10.1, False), (60.0, False)])
def test_the_bucket_leaks(every_s, overflows):
    bucket = Bucket(5, 10.0)
    assert (True in [bucket.add(number * every_s) for number in range(500)]) == overflows


def test_it_repeats_itself_once_per_doubling():
    assert len(alerts(BruteForce(), sessions(10_000, HYDRA_SSH, 0.1))) <= 13


@settings(deadline=None, max_examples=60)
@given(st.lists(SEEN, max_size=60))
def test_never_raises_and_bans_only_sources(seen):
    detector = BruteForce(3)
    for each in alerts(detector, wanted(detector, seen)):
        assert is_sound(each)
        assert each.ban == (each.source,)


def test_its_tables_are_bounded():
    detector = BruteForce(20)
    for number in range(500):
        list(detector.observe(session(100.0, HYDRA_SSH, source=forged(number))))
        list(detector.observe(LoginFailed(100.0, "ssh", forged(number), "root")))
    assert (len(detector._sessions), len(detector._logins)) == (20, 20)
    assert detector.refused == 960


def test_nobody_is_banned_on_the_word_of_a_log_that_anybody_may_write():
    """And no other sign is taken back for it."""
    forged_lines = [replace(each, is_sure=False) for each in failures(30, 0.5)]
    found = alerts(BruteForce(), forged_lines)
    assert found
    assert {each.ban for each in found} == {()}
    assert "others can write" in found[-1].evidence
    entered = LoginSucceeded(0.0, "ssh", ATTACKER, "me", is_sure=False)
    tried = [each for one in sessions(12, HYDRA_SSH) for each in (one, replace(entered, time=one.time))]
    assert {each.ban for each in alerts(BruteForce(), tried)} == {(ATTACKER,)}
    both = [each for one in failures(12, 0.5) for each in (replace(one, is_sure=False), one)]
    assert (ATTACKER,) in {each.ban for each in alerts(BruteForce(), both)}
    assert not any(each.ban for each in alerts(BruteForce(), both[:10]))
