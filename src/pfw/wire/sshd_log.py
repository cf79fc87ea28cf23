"""What sshd and dropbear log of logins: message -> who failed, who got in.

Names of users are what somebody sends who is not logged in, and hold anything: ` from 10.0.0.1 port 22 ssh2`, too. So
a message is read as a whole, from its fixed beginning to its fixed end, and the address is the last one that fits. What
ends in a text of the other side's is left alone. The texts are those of OpenSSH 7 to 10 (auth.c, auth2.c, auth-pam.c,
packet.c) and dropbear 2012 to 2025 (svr-auth*.c, svr-session.c).

One try is often told of in several lines: that the user is not known, that the password was wrong, that the connection
is closed. `LoginLog` counts it once, by the process that serves the session.
"""

from __future__ import annotations

import re
from enum import StrEnum

from msgspec import Struct

from pfw.model.address import parse_address
from pfw.model.observation import LoginFailed, LoginSucceeded

SERVICE = "ssh"
MESSAGE_MAX = 499
"""Characters. sshd cuts what it tells syslog at 500, and other messages at 1,023 (log.c: do_log). Of a strange
character in a name it makes four. So whoever chose the name of a cut message may have chosen its end, too."""
USER_MAX = 64
SESSIONS_MAX = 1_024
SESSION_S = 600.0
"""A session that nobody logged in to ends after 120 s (LoginGraceTime); a later one may have its number."""


class Said(StrEnum):
    """What a message says."""

    FAILED = "failed"
    """A password, or the answers to questions, were wrong."""
    PAM_FAILED = "pam-failed"
    """The same as PAM says it; that sshd says it too depends on how often it was."""
    UNKNOWN = "unknown"
    """There is no such user, or none who may log in."""
    LEFT = "left"
    """The end of a session in which a user was named, and nobody got in."""
    SUCCEEDED = "succeeded"


class Message(Struct, frozen=True):
    said: Said
    source: bytes
    user: str | None = None


_WAITS = r"(?:authenticating|invalid) user (?P<user>.*) (?P<source>\S+) port \d{1,5}"
_BEFORE = r"(?: \[preauth\])?"
_MESSAGES: tuple[tuple[Said, re.Pattern[str]], ...] = tuple(
    (said, re.compile(pattern, re.DOTALL))
    for said, pattern in (
        (
            Said.FAILED,
            r"Failed (?:password|keyboard-interactive\S*) for (?:(?:invalid|illegal) user )?(?P<user>.*)"
            rf" from (?P<source>\S+) port \d{{1,5}}(?: ssh2)?{_BEFORE}",
        ),
        (
            Said.PAM_FAILED,
            r"(?:error: )?PAM: [A-Z][A-Za-z ]{1,80} for (?:illegal user )?(?P<user>.*)"
            rf" from (?P<source>\S+){_BEFORE}",
        ),
        (
            Said.UNKNOWN,
            rf"(?:Invalid|Illegal) user (?P<user>.*) from (?P<source>\S+)(?: port \d{{1,5}})?{_BEFORE}",
        ),
        (Said.LEFT, rf"(?:Connection (?:closed|reset) by|Disconnected from) {_WAITS}{_BEFORE}"),
        (Said.LEFT, rf"Disconnecting {_WAITS}: Too many authentication failures{_BEFORE}"),
        (
            Said.LEFT,
            r"(?:error: )?maximum authentication attempts exceeded for (?:invalid user )?(?P<user>.*)"
            rf" from (?P<source>\S+) port \d{{1,5}} ssh2{_BEFORE}",
        ),
        (Said.LEFT, rf"ROOT LOGIN REFUSED FROM (?P<source>\S+)(?: port \d{{1,5}})?{_BEFORE}"),
        # The user is one of this machine's, and what follows the address is a key's name, which whoever made it chose.
        (
            Said.SUCCEEDED,
            r"Accepted \S+ for (?P<user>\S+) from (?P<source>\S+) port \d{1,5}(?: ssh2)?(?:: .*)?",
        ),
        (Said.FAILED, r"[Bb]ad (?:PAM )?password attempt for '(?P<user>.*)' from (?P<source>\S+):\d{1,5}"),
        (Said.UNKNOWN, r"[Ll]ogin attempt for nonexistent user(?: '(?P<user>.*)')? from (?P<source>\S+):\d{1,5}"),
        (
            Said.LEFT,
            r"[Ee]xit before auth from <(?P<source>[^\s<>]+):\d{1,5}>: \(user '(?P<user>.*)', [1-9]\d* fails\).*",
        ),
        (
            Said.SUCCEEDED,
            r"(?:PAM )?[Pp](?:assword|ubkey) auth succeeded for '(?P<user>[^']*)'"
            r"(?: with [^']*)? from (?P<source>\S+):\d{1,5}",
        ),
    )
)


def read_message(message: str) -> Message | None:
    """What a message of the service says; None for anything else, and where no address is in it."""
    if len(message) > MESSAGE_MAX:
        return None
    for said, pattern in _MESSAGES:
        found = pattern.fullmatch(message)
        if found is None:
            continue
        fields = found.groupdict()
        source = _address(fields["source"])
        user = fields.get("user")
        return None if source is None else Message(said, source, user[:USER_MAX] if user else None)
    return None


class LoginLog:
    """Reads the messages of many sessions, each try once; it remembers at most SESSIONS_MAX sessions. `is_sure` says
    that nobody else than the service can have written them."""

    def __init__(self, *, is_sure: bool = True) -> None:
        self._is_sure = is_sure
        self._sessions: dict[int, tuple[Said, float]] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def read(self, message: str, time: float, session: int | None = None) -> LoginFailed | LoginSucceeded | None:
        """`session` is the process that said it; where it is not known only what is sure to be a try of its own is
        told."""
        found = read_message(message)
        if found is None:
            return None
        if found.said is Said.SUCCEEDED:
            self._sessions.pop(session or 0, None)
            return LoginSucceeded(time, SERVICE, found.source, found.user, self._is_sure)
        is_new = found.said is Said.FAILED if session is None else self._is_new(found.said, session, time)
        return LoginFailed(time, SERVICE, found.source, found.user, self._is_sure) if is_new else None

    def _is_new(self, said: Said, session: int, time: float) -> bool:
        """Whether this is another try than the one that the last message of the session was about."""
        before, when = self._sessions.pop(session, (None, 0.0))
        if abs(time - when) > SESSION_S:
            before = None
        # That a user is unknown is said again by the failure of the password, in dropbear by the same words.
        is_same = before is Said.UNKNOWN or (before is Said.PAM_FAILED and said is Said.FAILED)
        self._sessions[session] = (Said.FAILED if is_same and said is Said.UNKNOWN else said, time)
        if len(self._sessions) > SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        return before is None if said is Said.LEFT else not is_same


def _address(text: str) -> bytes | None:
    """The address of a client; None for a name, whatever it stands for."""
    try:
        packed = parse_address(text.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return None
    return packed[12:] if packed.startswith(bytes(10) + b"\xff\xff") and len(packed) == 16 else packed
