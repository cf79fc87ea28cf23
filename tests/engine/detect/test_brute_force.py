"""Brute force in dialogues of made observations. The sizes are those of real sessions, as they were measured."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.engine.detect import dialogue
from tests.engine.detect.flooding import ATTACKER, OTHER, SEEN, TARGET, forged, in_time, is_sound, wanted

from pfw.engine.detect.brute_force import BURST, LONG_TAKES, NAMES_MAX, SURE, BruteForce, Bucket
from pfw.engine.detect.live import LiveWatch
from pfw.engine.detect.login_sessions import OPEN_MAX
from pfw.model.address import parse_address
from pfw.model.history import Traffic
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
DROPBEAR_TRUE = (2_489, 18, 1_512, 17)
OPENSSH_TRUE_FEW_ALGORITHMS = (3_807, 21, 2_979, 19)
FTP_LONG = (500, 8, 1_100, 9)
SSH_LONG = (7_000, 14, 1_000, 12)
WRONG = {
    # Sizes with TCP's timestamps; a login that succeeds carries more.
    22: HYDRA_SSH, 21: (78, 10, 138, 10), 23: (118, 32, 138, 32), 5900: (83, 10, 112, 10), 445: (900, 9, 800, 8),
    # It carries as little at these.
    25: (168, 14, 356, 14), 465: (700, 10, 3_000, 10), 587: (168, 14, 356, 14), 110: (90, 10, 137, 10),
    995: (700, 10, 3_000, 10), 143: (86, 8, 248, 8), 993: (700, 10, 3_000, 10), 3389: (900, 9, 1_200, 8),
    3306: (152, 6, 212, 6), 5432: (317, 9, 254, 9),
}  # fmt: skip
ALIKE = {25, 465, 587, 110, 995, 143, 993, 3389, 3306, 5432}
ATTACKER_6, TARGET_6 = (parse_address(each) for each in ("2001:db8:bad::9", "2001:db8::10"))


def session(time, sizes, port=22, source=ATTACKER, target=TARGET, lasting_s=0.2, *, is_open=False, header_bytes=60):
    sent, sent_packets, received, received_packets = sizes
    began = Began(time, TCP, source, target, 10_000 + int(time * 100) % 50_000, port, None, header_bytes + 6)
    return Ended(time + lasting_s, began, sent + header_bytes * sent_packets, sent_packets,
                 received + header_bytes * received_packets, received_packets, is_open=is_open)  # fmt: skip


def sessions(many, sizes, every_s=0.5, port=22, **others):
    return [session(100.0 + number * every_s, sizes, port, **others) for number in range(many)]


def handshake(ended):
    return Confirmed(ended.began.time + 0.01, ended.began)


def alerts(seen, detector=None):
    """What is said of sessions that were all opened by a whole handshake, and of what else is seen."""
    seen = list(seen)
    handshakes = [handshake(each) for each in seen if isinstance(each, Ended)]
    return dialogue.alerts(detector or BruteForce(), in_time(handshakes, seen))


@pytest.mark.parametrize(
    ("sizes", "port", "every_s"),
    [(HYDRA_SSH, 22, 0.5), (OPENSSH_WRONG, 22, 3.0), (FTP_WRONG, 21, 0.06), (WRONG[23], 23, 20.0)],
)
def test_one_password_after_the_other(sizes, port, every_s):
    found = alerts(sessions(60, sizes, every_s, port))
    assert {(each.kind, each.source, each.target) for each in found} == {(Kind.BRUTE_FORCE, ATTACKER, TARGET)}
    assert "60 short sessions" in found[-1].evidence
    assert found[-1].score >= 80
    assert found[-1].ban == (ATTACKER,)
    assert (found[-1].first, found[-1].last) == (100.2, pytest.approx(100.2 + 59 * every_s))


@pytest.mark.parametrize(("sizes", "port"), [(sizes, port) for port, sizes in WRONG.items()] + [((280, 5, 282, 5), 21)])
def test_without_a_handshake_anybody_may_have_sent_it(sizes, port):
    """A source that somebody forges never learns what to acknowledge. A reset needs no number that is told to it."""
    forged_ones = sessions(200, sizes, 0.2, port)
    by_reset = [replace(handshake(each), by_reset=True) for each in forged_ones]
    assert dialogue.alerts(BruteForce(), in_time(by_reset, forged_ones)) == []
    assert dialogue.alerts(BruteForce(), forged_ones) == []
    elsewhere = [replace(handshake(each), began=replace(each.began, source_port=9)) for each in forged_ones]
    assert dialogue.alerts(BruteForce(), in_time(elsewhere, forged_ones)) == []


@pytest.mark.parametrize("answers", [1, 3, 6])
def test_a_number_that_was_guessed_is_no_handshake(answers):
    """Answered so often, then reset by the machine itself: one of very many acknowledgements was near enough."""
    guessed = [
        Ended(each.time, each.began, 60 * 8 + 200, 8, 74 * answers + 60, answers + 1, by_reset=True)
        for each in sessions(200, FTP_WRONG, 0.2, 21)
    ]
    assert alerts(guessed) == []
    said = [
        replace(each, received_bytes=each.received_bytes + 6 * 66 + 200, received_packets=answers + 7)
        for each in guessed
    ]
    assert alerts(said) != []


def test_a_handshake_opens_one_session():
    first, *others = (replace(each, began=sessions(1, HYDRA_SSH)[0].began) for each in sessions(60, HYDRA_SSH))
    assert dialogue.alerts(BruteForce(), [handshake(first), first, *others]) == []


def test_of_what_is_seen_live_each_session_has_its_handshake():
    """Of so many a second a part is looked at; some of them end late."""
    live, seen = LiveWatch(), []
    sent, sent_packets, received, received_packets = HYDRA_SSH
    traffic = Traffic(
        sent_bytes=sent + 46 * sent_packets, sent_packets=sent_packets,
        received_bytes=received + 46 * received_packets, received_packets=received_packets,
    )  # fmt: skip
    for number in range(400):
        key, time = b"%d" % number, 100.0 + number / 100
        seen += live.began(key, Began(time, TCP, ATTACKER, TARGET, 10_000 + number, 22))
        seen += [*live.answered(key, time), *live.established(key, time)]
        seen += live.closed(key, time, None if number % 2 else traffic)
        seen += live.gone(key, time, traffic)
    assert live.sampled_out > 100
    found = dialogue.alerts(BruteForce(), wanted(BruteForce(), seen))
    assert found[-1].ban == (ATTACKER,)
    ended = [each.began for each in seen if isinstance(each, Ended)]
    assert ended == [each.began for each in seen if isinstance(each, Confirmed)]


def test_it_follows_a_bounded_number_of_sessions():
    detector = BruteForce()
    for number in range(2 * OPEN_MAX):
        for port, source_port in ((21, 40_000), (50_000, 40_001)):
            began = Began(1.0, TCP, forged(number), TARGET, source_port, port)
            list(detector.observe(Confirmed(1.0, began)))
    assert len(detector._opened) == 2 * OPEN_MAX
    assert len(detector._opened._ftp) == OPEN_MAX


@pytest.mark.parametrize("port", WRONG)
@pytest.mark.parametrize("is_ipv6", [False, True])
def test_it_is_seen_at_every_service_over_both_families(port, is_ipv6):
    ends = {"source": ATTACKER_6, "target": TARGET_6, "header_bytes": 80} if is_ipv6 else {}
    found = alerts(sessions(60, WRONG[port], 1.0, port, **ends))[-1]
    source = ATTACKER_6 if is_ipv6 else ATTACKER
    assert found.evidence.startswith("60 short sessions")
    assert (found.score, found.ban) == ((65, ()) if port in ALIKE else (80, (source,)))
    assert ("may carry as little" in found.evidence) == (port in ALIKE)


@pytest.mark.parametrize("sizes", [DROPBEAR_TRUE, OPENSSH_TRUE_FEW_ALGORITHMS])
def test_who_logs_in_often_is_not_banned(sizes):
    """Jobs over ssh, where a login that succeeds carries as little as one that fails, and monitors of FTP."""
    at_once, for_long = sessions(SURE, sizes, 0.3), sessions(600, sizes, 5.0)
    for seen in (at_once, for_long, sessions(600, FTP_WRONG, 5.0, 21)):
        found = alerts(seen)
        assert {(each.score, each.ban) for each in found} == {(65, ())}


def test_how_many_are_needed():
    assert alerts(sessions(BURST, HYDRA_SSH)) == []
    assert len(alerts(sessions(BURST + 1, HYDRA_SSH))) == 1


@pytest.mark.parametrize("sizes", [OPENSSH_TRUE, OPENSSH_LS, SCP, PORT_CHECK])
@pytest.mark.parametrize("every_s", [0.2, 5.0])
def test_sessions_that_succeed_and_probes_are_none(sizes, every_s):
    assert alerts(sessions(200, sizes, every_s)) == []


def test_greetings_that_are_read_are_none_unless_they_are_many():
    assert alerts(sessions(1_000, GREETING_READ, 5.0)) == []
    assert alerts(sessions(20, GREETING_READ, 0.1)) == []
    assert {each.score for each in alerts(sessions(60, GREETING_READ, 0.2))} == {55}


def test_who_mistypes_three_times_and_gets_in_is_none():
    day = [each for start in range(0, 5000, 100) for each in (
        *(session(start + 5.0 * number, OPENSSH_WRONG) for number in range(3)), session(start + 20.0, OPENSSH_LS)
    )]  # fmt: skip
    assert alerts(day) == []


@pytest.mark.parametrize(("wrong", "long", "port"), [(HYDRA_SSH, SSH_LONG, 22), (FTP_WRONG, FTP_LONG, 21)])
def test_long_sessions_need_no_account_and_hide_little(wrong, long, port):
    """Junk before any login; as often as there are tries, or after each fourth."""
    for every in (1, 4):
        mixed = [
            each for number, one in enumerate(sessions(120, wrong, 0.5, port))
            for each in (one, *((session(one.time + 0.05, long, port),) if number % every == 0 else ()))
        ]  # fmt: skip
        assert alerts(mixed)[-1].ban == (ATTACKER,)
    patient = [session(100.0 + 4 * number, long if number % 5 == 4 else wrong, port) for number in range(150)]
    assert alerts(patient) != []
    assert alerts(sessions(120, long, 0.5, port)) == []


def test_a_wrong_password_in_a_job_of_every_minute_is_none():
    assert alerts(sessions(600, HYDRA_SSH, 61.0)) == []


def test_sessions_of_all_sizes_are_none():
    mixed = [session(100.0 + n, (700 + n * 2_113 % 5_200, 16, 1_000 + n * 877 % 2_500, 16)) for n in range(60)]
    assert alerts(mixed) == []


def test_sessions_that_last_are_open_or_of_many_sources_are_none():
    assert alerts(sessions(60, HYDRA_SSH, lasting_s=400.0)) == []
    assert alerts(sessions(60, HYDRA_SSH, is_open=True)) == []
    each_another = [session(100.0 + n, HYDRA_SSH, source=forged(n)) for n in range(60)]
    assert alerts(each_another) == []
    assert alerts(sessions(60, HYDRA_SSH, source=TARGET)) == []


@pytest.mark.parametrize("port", [80, 443, 8080])
def test_web_servers_are_not_asked(port):
    assert alerts(sessions(60, HYDRA_SSH, port=port)) == []


@pytest.mark.parametrize("is_active", [True, False])
def test_files_sent_over_ftp_mean_that_the_login_succeeded(is_active):
    logins = sessions(60, FTP_WRONG, 1.0, 21)
    assert alerts([each for login in logins for each in (*data(login, is_active=is_active), login)]) == []
    assert alerts([each for login in logins for each in (*data(login, sent=0, is_active=is_active), login)]) != []
    assert alerts([each for login in logins for each in (*data(login, OTHER, is_active=is_active), login)]) != []


def test_a_connection_without_an_ftp_session_is_no_file():
    logins = sessions(60, FTP_WRONG, 1.0, 21)
    between = [replace(login, began=replace(login.began, time=login.time + 0.3)) for login in logins]
    assert alerts(in_time(logins, *(data(each) for each in between)))[-1].ban == (ATTACKER,)


def test_what_somebody_sends_in_one_session_says_nothing_of_the_others():
    logins = sessions(60, FTP_WRONG, 1.0, 21)
    some = [each for number, login in enumerate(logins) for each in (*(data(login) if number % 4 == 3 else ()), login)]
    assert alerts(some)[-1].ban == (ATTACKER,)


def data(login, target=TARGET, sent=1_000, *, is_active=False):
    """A connection for a file, or a listing, while a session of FTP is open."""
    time = login.began.time + 0.05
    ends = (target, ATTACKER, 20, 40_001) if is_active else (ATTACKER, target, 40_001, 50_000)
    began = Began(time, TCP, *ends, None, 74)
    return Confirmed(time, began), Ended(time + 0.05, began, 74 + 3 * 66, 4, 74 + 3 * 66 + sent, 4)


def test_one_after_the_other_at_many_hosts():
    found = alerts([session(100.0 + n, HYDRA_SSH, target=forged(n)) for n in range(60)])
    assert found[-1].target is None
    assert f"{NAMES_MAX} hosts" in found[-1].evidence


def test_what_a_service_says():
    failed = [LoginFailed(100.0 + number, "ssh", ATTACKER, f"user{number}") for number in range(30)]
    found = alerts(failed)
    assert found[0].score >= 80
    assert found[-1].ban == (ATTACKER,)
    assert "30 failed logins at ssh" in found[-1].evidence
    assert alerts(failed[:BURST]) == []
    slowly = [LoginFailed(20.0 * number, "ssh", ATTACKER, "root") for number in range(30)]
    assert alerts(slowly) != []


def failures(many, every_s=1.0, start=100.0, user=lambda number: "root", service="ssh"):
    return [LoginFailed(start + number * every_s, service, ATTACKER, user(number)) for number in range(many)]


@pytest.mark.parametrize("every_s", [1.0, 20.0])
def test_names_that_are_tried_out_are_told_of(every_s):
    """CrowdSec's user enumeration has the capacities of its brute force: each name is a failed login."""
    found = alerts(failures(30, every_s, user=lambda number: f"user{number}"))
    assert found[-1].evidence.endswith(f", as {NAMES_MAX} users")
    assert [each.ban for each in found] == [(ATTACKER,)] * len(found)
    nameless = alerts(failures(30, every_s, user=lambda number: None))
    assert " as " not in nameless[-1].evidence


def test_who_gets_in_in_between_is_none():
    """A person whose keys are tried before the password is asked for, all day."""
    day = [each for start in range(0, 5_000, 20) for each in (
        *failures(4, 0.5, start), LoginSucceeded(start + 3.0, "ssh", ATTACKER, "me")
    )]  # fmt: skip
    assert alerts(day) == []
    assert alerts([each for each in day if isinstance(each, LoginFailed)]) != []


@pytest.mark.parametrize(
    "success",
    [LoginSucceeded(1e6, "ftp", ATTACKER), LoginSucceeded(1e6, "ssh", OTHER), LoginSucceeded(0.0, "ssh", OTHER)],
)
def test_a_success_elsewhere_or_of_another_is_none_of_ours(success):
    seen = [each for first in failures(20) for each in (first, replace(success, time=first.time))]
    assert alerts(seen) != []


def test_a_success_empties_what_sessions_have_filled():
    shorts = sessions(60, HYDRA_SSH)
    seen = [each for short in shorts for each in (short, LoginSucceeded(short.time, "ssh", ATTACKER))]
    assert alerts(seen) == []


@pytest.mark.parametrize(("every_s", "overflows"), [(1.0, True), (9.0, True), (10.1, False), (60.0, False)])
def test_the_bucket_leaks(every_s, overflows):
    bucket = Bucket(5, 10.0)
    assert (True in [bucket.add(number * every_s) for number in range(500)]) == overflows


def test_what_is_taken_out_of_a_bucket():
    bucket = Bucket(5, 10.0)
    assert not any(bucket.add(0.0) for _ in range(5))
    bucket.take(LONG_TAKES)
    assert [bucket.add(0.0) for _ in range(LONG_TAKES + 1)] == [False] * LONG_TAKES + [True]
    bucket.take(100)
    assert [bucket.add(0.0) for _ in range(6)] == [False] * 5 + [True]


def test_it_repeats_itself_once_per_doubling():
    assert len(alerts(sessions(10_000, HYDRA_SSH, 0.1))) <= 14


@settings(deadline=None, max_examples=60)
@given(st.lists(SEEN, max_size=60))
def test_never_raises_and_bans_only_sources(seen):
    detector = BruteForce(3)
    for each in alerts(wanted(detector, seen), detector):
        assert is_sound(each)
        assert each.ban in ((), (each.source,))


def test_its_tables_are_bounded():
    detector = BruteForce(20)
    for number in range(500):
        tried = session(100.0, HYDRA_SSH, source=forged(number))
        list(detector.observe(handshake(tried)))
        list(detector.observe(tried))
        list(detector.observe(LoginFailed(100.0, "ssh", forged(number), "root")))
    assert (len(detector._sessions), len(detector._logins)) == (20, 20)
    assert detector.refused == 960


def test_nobody_is_banned_on_the_word_of_a_log_that_anybody_may_write():
    """And no other sign is taken back for it."""
    forged_lines = [replace(each, is_sure=False) for each in failures(30, 0.5)]
    found = alerts(forged_lines)
    assert found
    assert {each.ban for each in found} == {()}
    assert "others can write" in found[-1].evidence
    entered = LoginSucceeded(0.0, "ssh", ATTACKER, "me", is_sure=False)
    tried = [each for one in sessions(60, HYDRA_SSH) for each in (one, replace(entered, time=one.time))]
    assert alerts(tried)[-1].ban == (ATTACKER,)
    both = [each for one in failures(12, 0.5) for each in (replace(one, is_sure=False), one)]
    assert (ATTACKER,) in {each.ban for each in alerts(both)}
    assert not any(each.ban for each in alerts(both[:10]))
