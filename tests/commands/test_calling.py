"""What goes wrong with a call, as a line and an exit status."""

from __future__ import annotations

import errno

import pytest

from pfw.api.interface import NoSuchProgram, NoSuchPrompt, Refused, failure
from pfw.api.messages import ApiError, ProtocolError
from pfw.commands.calling import WHO_MAY, fault


@pytest.mark.parametrize(
    ("error", "words", "status"),
    [
        (failure(NoSuchPrompt(id=7)), "no prompt 7", 1),
        (failure(NoSuchProgram()), "no such process", 1),
        (failure(Refused(says="no")), "refused: no", 3),
        (ApiError("org.varlink.service.PermissionDenied"), WHO_MAY, 3),
        (ApiError("org.varlink.service.InvalidParameter", {"parameter": "pid"}), "does not take this pid", 2),
        (ApiError("org.varlink.service.MethodNotFound", {"method": "X"}), "MethodNotFound", 3),
        (PermissionError(errno.EACCES, "Permission denied", "/run/pfw/pfw.sock"), WHO_MAY, 3),
        (PermissionError("user 5 listens there"), "user 5 listens there", 3),
        (TimeoutError("no answer in time"), "does not answer", 3),
        (ProtocolError("no call"), "no call", 3),
        (ConnectionResetError("the firewall's daemon has closed the connection"), "has closed the connection", 3),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "pfw daemon: Connection reset", 3),
        (OSError(errno.EMFILE, "Too many open files", "/run/x"), "/run/x: Too many open files", 3),
        (OSError("AF_UNIX path too long"), "path too long", 3),
    ],
)
def test_fault(error, words, status):
    line, found = fault(error)
    assert words in line
    assert (found, line.count("\n")) == (status, 0)
