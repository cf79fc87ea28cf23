"""Sessions at services that ask for a password: which ones a whole handshake opened, and what they carried.

Nobody makes a handshake with a forged address, so only those count (`brute_force.py`).
"""

from __future__ import annotations

from collections.abc import Container

from pfw.model.observation import Began, Ended

OPEN_MAX = 8_192
"""Sessions that are followed, and connections for files. Of too many the oldest is let go."""
HEADERS_BYTES = {4: 60, 16: 80}
"""Of a packet, by the size of an address: Ethernet 14, IPv4 20 or IPv6 40, TCP 20 to 32. Estimates of what was carried
are that rough."""
_SYN_ONLY_BYTES = 8
"""Segment size and window scale, or permission of SACK: what the options of a SYN have and those of others do not."""
_FTP, _FTP_DATA = 21, 20
_FTP_PASSIVE = 1_024

_Ends = tuple[bytes, bytes, int | None, int | None]


class Opened:
    """Sessions at these ports that a whole handshake opened and that are not over.

    FTP sends files and listings through connections of their own while the session is open: whoever has one that
    carried something is logged in.
    """

    def __init__(self, ports: Container[int | None]) -> None:
        self._ports = ports
        self._sessions: dict[_Ends, None] = {}
        self._data: dict[_Ends, None] = {}
        # By client and server: how many FTP sessions are open, and how many files were sent that belong to none yet.
        self._ftp: dict[tuple[bytes, bytes], tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._sessions) + len(self._data)

    def opened(self, began: Began) -> None:
        ends = _ends(began)
        if began.port in self._ports:
            if began.port == _FTP and ends not in self._sessions:
                sessions, files = self._ftp.get(ends[:2], (0, 0))
                self._ftp[ends[:2]] = sessions + 1, files
            self._sessions[ends] = None
            if len(self._sessions) > OPEN_MAX:
                self._close(next(iter(self._sessions)))
        elif _client_and_server(began) in self._ftp:
            self._data[ends] = None
            if len(self._data) > OPEN_MAX:
                del self._data[next(iter(self._data))]

    def ended(self, seen: Ended) -> bool | None:
        """Whether a file was sent in a session; None where it is no session that a whole handshake opened."""
        ends = _ends(seen.began)
        if ends in self._sessions:
            return self._close(ends)
        if ends in self._data:
            del self._data[ends]
            pair = _client_and_server(seen.began)
            if pair in self._ftp and max(said(seen)) > 0:
                sessions, files = self._ftp[pair]
                self._ftp[pair] = sessions, min(files + 1, sessions)
        return None

    def _close(self, ends: _Ends) -> bool:
        del self._sessions[ends]
        if ends[3] != _FTP:
            return False
        pair = ends[:2]
        sessions, files = self._ftp[pair]
        if sessions == 1:
            del self._ftp[pair]
        else:
            self._ftp[pair] = sessions - 1, max(0, files - 1)
        return files > 0


def said(seen: Ended) -> tuple[int, int]:
    """What both ends carried at least. No header is longer than that of the SYN without what only a SYN has."""
    header_bytes = max(HEADERS_BYTES[len(seen.began.source)], seen.began.size_bytes - _SYN_ONLY_BYTES)
    return (
        seen.sent_bytes - seen.sent_packets * header_bytes - _SYN_ONLY_BYTES,
        seen.received_bytes - seen.received_packets * header_bytes - _SYN_ONLY_BYTES,
    )


def _ends(began: Began) -> _Ends:
    return began.source, began.destination, began.source_port, began.port


def _client_and_server(data: Began) -> tuple[bytes, bytes] | None:
    """Whose FTP session a connection may belong to."""
    if data.source_port == _FTP_DATA:
        return data.destination, data.source
    return (data.source, data.destination) if (data.port or 0) >= _FTP_PASSIVE else None
