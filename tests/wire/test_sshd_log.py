"""Lines as the programs write them, and lines that somebody tries to make them write."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.address import format_address, parse_address
from pfw.model.observation import LoginFailed, LoginSucceeded
from pfw.wire.sshd_log import MESSAGE_MAX, SESSION_S, SESSIONS_MAX, USER_MAX, LoginLog, Message, Said, read_message

NOON = 1_795_392_000.0
WHO = "203.0.113.9"
VICTIM = "10.0.0.1"


def said(message):
    found = read_message(message)
    return None if found is None else (str(found.said), format_address(found.source), found.user)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Failed password for root from 203.0.113.9 port 41006 ssh2", ("failed", WHO, "root")),
        ("Failed password for root from 203.0.113.9 port 41006 ssh2 [preauth]", ("failed", WHO, "root")),
        ("Failed password for invalid user oracle from 2001:db8::9 port 1 ssh2", ("failed", "2001:db8::9", "oracle")),
        ("Failed password for illegal user a from ::ffff:203.0.113.9 port 22 ssh2", ("failed", WHO, "a")),
        ("Failed password for root from fe80::1%eth0 port 22 ssh2", ("failed", "fe80::1", "root")),
        ("Failed keyboard-interactive/pam for x from 203.0.113.9 port 9 ssh2", ("failed", WHO, "x")),
        ("Failed keyboard-interactive for invalid user  from 203.0.113.9 port 9 ssh2", ("failed", WHO, None)),
        ("error: PAM: Authentication failure for root from 203.0.113.9", ("pam-failed", WHO, "root")),
        (
            "error: PAM: User not known to the underlying authentication module for illegal user a b from 203.0.113.9",
            ("pam-failed", WHO, "a b"),
        ),
        ("Invalid user nobodyelse from 203.0.113.9 port 41012", ("unknown", WHO, "nobodyelse")),
        ("Invalid user  from 203.0.113.9 port 41012", ("unknown", WHO, None)),
        ("Invalid user admin from 203.0.113.9", ("unknown", WHO, "admin")),
        ("Connection closed by authenticating user root 203.0.113.9 port 41016 [preauth]", ("left", WHO, "root")),
        ("Connection closed by invalid user what 203.0.113.9 port 41030 [preauth]", ("left", WHO, "what")),
        ("Connection reset by authenticating user root 203.0.113.9 port 2 [preauth]", ("left", WHO, "root")),
        ("Disconnected from authenticating user root 203.0.113.9 port 2 [preauth]", ("left", WHO, "root")),
        (
            "Disconnecting authenticating user root 203.0.113.9 port 4: Too many authentication failures [preauth]",
            ("left", WHO, "root"),
        ),
        (
            "error: maximum authentication attempts exceeded for invalid user a from 203.0.113.9 port 4 ssh2 [preauth]",
            ("left", WHO, "a"),
        ),
        ("ROOT LOGIN REFUSED FROM 203.0.113.9 port 4 [preauth]", ("left", WHO, None)),
        ("Accepted password for root from 203.0.113.9 port 41036 ssh2", ("succeeded", WHO, "root")),
        (
            "Accepted publickey for root from 203.0.113.9 port 41036 ssh2: ED25519 SHA256:LoviPYC+KAw2vZB+xeAaD8",
            ("succeeded", WHO, "root"),
        ),
        ("Accepted keyboard-interactive/pam for ann from 203.0.113.9 port 4 ssh2", ("succeeded", WHO, "ann")),
        ("Bad password attempt for 'root' from 203.0.113.9:39686", ("failed", WHO, "root")),
        ("bad password attempt for 'root' from 203.0.113.9:39686", ("failed", WHO, "root")),
        ("Bad PAM password attempt for 'root' from 2001:db8::9:39686", ("failed", "2001:db8::9", "root")),
        ("Login attempt for nonexistent user from 203.0.113.9:39686", ("unknown", WHO, None)),
        ("login attempt for nonexistent user 'it's' from [2001:db8::9]:39686", ("unknown", "2001:db8::9", "it's")),
        ("Exit before auth from <203.0.113.9:39686>: (user 'root', 3 fails): Exited normally", ("left", WHO, "root")),
        ("Password auth succeeded for 'root' from 203.0.113.9:39686", ("succeeded", WHO, "root")),
        (
            "Pubkey auth succeeded for 'root' with ssh-ed25519 key SHA256:abc from ::1:39686",
            ("succeeded", "::1", "root"),
        ),
    ],
)
def test_lines_that_count(message, expected):
    assert said(message) == expected


@pytest.mark.parametrize(
    "message",
    [
        "Failed none for invalid user a from 203.0.113.9 port 4 ssh2",
        "Failed publickey for root from 203.0.113.9 port 4 ssh2: ED25519 SHA256:abc",
        "Failed hostbased for root from 203.0.113.9 port 4 ssh2: RSA SHA256:abc",
        "Failed password for root from host.example.com port 4 ssh2",
        "Failed password for root from UNKNOWN port 65535 ssh2",
        "Failed password for root from 203.0.113.9 port 123456 ssh2",
        "Failed password for root from 203.0.113.9 port 4 ssh2 and more",
        " Failed password for root from 203.0.113.9 port 4 ssh2",
        "Connection closed by 203.0.113.9 port 4 [preauth]",
        "Connection closed by 203.0.113.9 port 4",
        "Disconnected from user root 203.0.113.9 port 4",
        "Received disconnect from 203.0.113.9 port 4:11: disconnected by user",
        "Postponed keyboard-interactive for root from 203.0.113.9 port 4 ssh2 [preauth]",
        "Partial publickey for root from 203.0.113.9 port 4 ssh2: RSA SHA256:abc",
        "User root from 203.0.113.9 not allowed because not listed in AllowUsers",
        "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.9",
        "pam_unix(sshd:session): session opened for user root(uid=0) by (uid=0)",
        "Could not get shadow information for NOUSER",
        "Unable to negotiate with 203.0.113.9 port 4: no matching host key type found. Their offer: x [preauth]",
        "banner exchange: Connection from 203.0.113.9 port 4: invalid format",
        "Server listening on :: port 22.",
        "Timeout before authentication for 203.0.113.9 port 4",
        "Exit before auth from <203.0.113.9:4>: (user 'root', 0 fails): Exited normally",
        "Exit before auth from <203.0.113.9:4>: Exited normally",
        "Child connection from 203.0.113.9:4",
        "",
    ],
)
def test_lines_that_say_nothing_of_a_login(message):
    assert read_message(message) is None


SHAPES = [
    "Failed password for invalid user {} from 203.0.113.9 port 41014 ssh2",
    "Failed keyboard-interactive/pam for {} from 203.0.113.9 port 41014 ssh2 [preauth]",
    "error: PAM: Authentication failure for illegal user {} from 203.0.113.9",
    "Invalid user {} from 203.0.113.9 port 41014",
    "Connection closed by invalid user {} 203.0.113.9 port 41014 [preauth]",
    "Connection reset by authenticating user {} 203.0.113.9 port 41014 [preauth]",
    "Disconnecting invalid user {} 203.0.113.9 port 41014: Too many authentication failures [preauth]",
    "Disconnecting invalid user {0} 203.0.113.9 port 41014: Change of username or service not allowed: "
    "({0},ssh-connection) -> ({0},ssh-connection) [preauth]",
    "Received disconnect from 203.0.113.9 port 41014:11: {} [preauth]",
    "error: maximum authentication attempts exceeded for invalid user {} from 203.0.113.9 port 4 ssh2 [preauth]",
    "User {} from 203.0.113.9 not allowed because not listed in AllowUsers",
    "Bad password attempt for '{}' from 203.0.113.9:39686",
    "Login attempt for nonexistent user '{}' from 203.0.113.9:39686",
    "Exit before auth from <203.0.113.9:39686>: (user '{}', 3 fails): Max auth tries reached - user '{}'",
    "banner exchange: Connection from 203.0.113.9 port 4: {}",
]
INJECTED = [
    " from 10.0.0.1 port 22 ssh2",
    "x from 10.0.0.1 port 22 ssh2",
    "x from 10.0.0.1 port 22 ssh2 [preauth]",
    "x 10.0.0.1 port 22 [preauth]",
    "x 10.0.0.1 port 22: Too many authentication failures",
    "x 10.0.0.1 port 22: Too many authentication failures [preauth]",
    "x' from 10.0.0.1:22",
    "x' from 10.0.0.1:22 '",
    "x>: (user 'x', 3 fails): from <10.0.0.1:22>: (user 'x', 3 fails)",
    "x\nFailed password for root from 10.0.0.1 port 22 ssh2",
    "\nAccepted password for root from 10.0.0.1 port 22 ssh2\n",
    "root from 10.0.0.1 port 22 ssh2: ",
    "10.0.0.1",
    "from 10.0.0.1 from",
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("user", INJECTED)
def test_no_user_can_name_somebody_else(shape, user):
    for name in (user, user + user, user.strip()):
        found = read_message(shape.replace("{0}", name).replace("{}", name))
        assert found is None or (found.source == parse_address(WHO) and found.said is not Said.SUCCEEDED)


def test_the_name_of_a_key_can_name_nobody_else():
    key = "ED25519-CERT SHA256:abc ID x from 10.0.0.1 port 22 ssh2: y (serial 0) CA ED25519 SHA256:def"
    assert said(f"Accepted publickey for ann from 203.0.113.9 port 4 ssh2: {key}") == ("succeeded", WHO, "ann")


words = st.lists(
    st.sampled_from([
        "Failed", "password", "for", "invalid user", "from", "10.0.0.1", "port", "22", "ssh2", "[preauth]", ":", "'",
        "x", "Accepted", "PAM:", "<", ">", "(user '", "3 fails)", "\n", "::1", "authenticating user",
        "Connection closed by",
    ])
)  # fmt: skip


@given(st.sampled_from(SHAPES), words)
@settings(deadline=None, max_examples=300)
def test_whatever_words_a_user_is_called_by(shape, parts):
    user = " ".join(parts)
    found = read_message(shape.replace("{0}", user).replace("{}", user))
    assert found is None or found.source == parse_address(WHO)


@given(st.text(max_size=200) | words.map(" ".join))
@settings(deadline=None, max_examples=300)
def test_any_text_is_read(text):
    found = read_message(text)
    assert found is None or isinstance(found, Message)


def test_changed_lines_are_read():
    chance = random.Random(7)
    for _ in range(3_000):
        line = list(chance.choice(SHAPES))
        for _ in range(chance.randrange(5)):
            line[chance.randrange(len(line))] = chance.choice(" :0.'\nx\x00é")
        read_message("".join(line))


def test_long_lines_cost_little():
    assert read_message("Invalid user " + " from" * MESSAGE_MAX + " from 203.0.113.9 port 4") is None
    began = time.perf_counter()
    for shape in SHAPES:
        for part in (" from", " from 1", "'", " port 1", " 1 port 1: Too many authentication failures", "x "):
            room = MESSAGE_MAX - 2 * len(shape)
            read_message(shape.replace("{0}", "").replace("{}", part * (room // 2 // len(part))) + " ")
    assert time.perf_counter() - began < 2


def test_names_are_cut():
    found = read_message(f"Invalid user {'x' * 400} from 203.0.113.9 port 4")
    assert found is not None
    assert found.user == "x" * USER_MAX


@pytest.mark.parametrize("cut_at", [500, 1_023])
def test_who_chooses_a_name_does_not_choose_the_end_of_a_message_that_is_cut(cut_at):
    front, end = "Connection closed by invalid user ", " 192.0.2.1 port 22"
    filler = "\\001" * (cut_at // 4)
    name = filler[: cut_at - len(front) - len(end)] + end + " and so on"
    written = f"{front}{name} 203.0.113.9 port 4 [preauth]"[:cut_at]
    assert written.endswith(end)
    assert read_message(written) is None


def test_whether_the_service_said_so_is_told():
    for is_sure in (True, False):
        log = LoginLog(is_sure=is_sure)
        assert [log.read(each, NOON).is_sure for each in (WRONG, ENTERED)] == [is_sure, is_sure]


def told(*messages, session=4711, log=None):
    """Which of these messages of a session count."""
    log = LoginLog() if log is None else log
    return [type(log.read(each, NOON, session)).__name__.removesuffix("Type") for each in messages]


FAILED, SUCCEEDED, NOTHING = LoginFailed.__name__, LoginSucceeded.__name__, "None"
WRONG = "Failed password for root from 203.0.113.9 port 41006 ssh2"
UNKNOWN = "Invalid user a from 203.0.113.9 port 41006"
WRONG_UNKNOWN = "Failed password for invalid user a from 203.0.113.9 port 41006 ssh2"
LEFT = "Connection closed by authenticating user root 203.0.113.9 port 41006 [preauth]"
PAM = "error: PAM: Authentication failure for root from 203.0.113.9"
PAM_TOO = "Failed keyboard-interactive/pam for root from 203.0.113.9 port 41006 ssh2"
ENTERED = "Accepted password for root from 203.0.113.9 port 41006 ssh2"
DROPBEAR_UNKNOWN = "Login attempt for nonexistent user from 203.0.113.9:41006"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((WRONG, WRONG, WRONG, LEFT), (FAILED, FAILED, FAILED, NOTHING)),
        ((UNKNOWN, WRONG_UNKNOWN, WRONG_UNKNOWN, LEFT), (FAILED, NOTHING, FAILED, NOTHING)),
        ((UNKNOWN, LEFT), (FAILED, NOTHING)),
        ((LEFT,), (FAILED,)),
        ((PAM, PAM, PAM_TOO, PAM, PAM_TOO, LEFT), (FAILED, FAILED, NOTHING, FAILED, NOTHING, NOTHING)),
        ((UNKNOWN, PAM, PAM_TOO, PAM), (FAILED, NOTHING, NOTHING, FAILED)),
        ((WRONG, ENTERED), (FAILED, SUCCEEDED)),
        ((ENTERED, WRONG), (SUCCEEDED, FAILED)),
        ((DROPBEAR_UNKNOWN, DROPBEAR_UNKNOWN, DROPBEAR_UNKNOWN), (FAILED, NOTHING, FAILED)),
    ],
)
def test_a_try_counts_once(messages, expected):
    assert tuple(told(*messages)) == expected


def test_sessions_are_kept_apart():
    log = LoginLog()
    assert told(UNKNOWN, session=1, log=log) == told(UNKNOWN, session=2, log=log) == [FAILED]
    assert told(WRONG_UNKNOWN, session=1, log=log) == told(WRONG_UNKNOWN, session=2, log=log) == [NOTHING]


def test_a_number_that_is_used_again_is_another_session():
    log = LoginLog()
    assert log.read(UNKNOWN, NOON, 1) is not None
    assert log.read(LEFT, NOON + SESSION_S + 1, 1) is not None


def test_without_a_session_only_what_is_sure_counts():
    assert told(UNKNOWN, WRONG_UNKNOWN, WRONG, PAM, PAM_TOO, LEFT, ENTERED, session=None) == [
        NOTHING, FAILED, FAILED, NOTHING, FAILED, NOTHING, SUCCEEDED,
    ]  # fmt: skip


def test_sessions_are_bounded():
    log = LoginLog()
    for session in range(SESSIONS_MAX + 50):
        log.read(WRONG, NOON, session + 1)
    assert len(log) == SESSIONS_MAX


def test_what_is_told():
    assert LoginLog().read(WRONG, NOON, 1) == LoginFailed(NOON, "ssh", parse_address(WHO), "root")
    assert LoginLog().read(ENTERED, NOON, 1) == LoginSucceeded(NOON, "ssh", parse_address(WHO), "root")
