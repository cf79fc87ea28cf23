"""Who may do what: processes of real users and groups, and what the kernel says of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from collections.abc import Callable

import pytest

from pfw.api import interface as api
from pfw.api import server
from pfw.api.client import Client
from pfw.api.definition import Nothing, Right
from pfw.api.messages import ApiError
from pfw.api.peer import Peer, may, peer_of
from pfw.api.service import GetInfoResult

from .conftest import GROUP, Service

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become others")

NOBODY = 65534
DENIED = "org.varlink.service.PermissionDenied"
ANSWER = api.AnswerParameters(id=1, action="allow", lasting="once", scope="exact")
CALLS = {
    "GetInfo": ("org.varlink.service.GetInfo", Nothing(), GetInfoResult),
    "Status": ("Status", Nothing(), api.StatusResult),
    "Why": ("Why", api.WhyParameters(pid=1), api.WhyResult),
    "Answer": ("Answer", ANSWER, api.AnswerResult),
    "Reload": ("Reload", Nothing(), api.ReloadResult),
}


def become(uid: int, gid: int, groups: list[int]) -> None:
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def as_other(service: Service, uid: int, gid: int, groups: list[int], work: Callable[[], object]) -> object:
    """What `work` gives in a process of its own, while the server turns here."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # whatever fails here or there, it does not stay
        try:
            os.close(read)
            become(uid, gid, groups)
            os.write(write, json.dumps(work()).encode())
        except BaseException:
            os.write(write, json.dumps(traceback.format_exc()).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.set_blocking(read, False)
    data = b""

    def ended() -> bool:
        nonlocal data
        try:
            more = os.read(read, 1 << 16)
        except BlockingIOError:
            return False
        data += more
        return not more

    service.until(ended)
    os.close(read)
    os.waitpid(child, 0)
    return json.loads(data)


def what_is_permitted(service: Service) -> dict[str, str]:
    found = {}
    for name, (method, parameters, result) in CALLS.items():
        with Client(service.path) as client:
            try:
                client.call(method, parameters, result)
                found[name] = "done"
            except ApiError as error:
                found[name] = error.name
    with Client(service.path) as client:
        try:
            next(client.stream("Prompts", Nothing(), api.PromptsResult))
            found["stream"] = "done"
        except ApiError as error:
            found["stream"] = error.name
    return found


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "denied"),
    [
        (0, 0, [], []),
        (0, NOBODY, [NOBODY], []),
        (NOBODY, GROUP, [], ["Reload"]),
        (NOBODY, NOBODY, [GROUP], ["Reload"]),
        (NOBODY, NOBODY, [*range(5000, 5200), GROUP], ["Reload"]),
        (NOBODY, NOBODY, [], ["Status", "Why", "Answer", "Reload", "stream"]),
        (NOBODY, 0, [0, 1], ["Status", "Why", "Answer", "Reload", "stream"]),
        (GROUP, NOBODY, [], ["Status", "Why", "Answer", "Reload", "stream"]),
        # Of so many groups the server cannot be told; it errs on the safe side.
        (NOBODY, NOBODY, [*range(5000, 5300), GROUP], ["Status", "Why", "Answer", "Reload", "stream"]),
    ],
)
def test_what_each_may_do(service, uid, gid, groups, denied):
    found = as_other(service, uid, gid, groups, lambda: what_is_permitted(service))
    assert found == {name: DENIED if name in denied else "done" for name in [*CALLS, "stream"]}
    assert service.server.counts["denied"] == len(denied)


def test_without_a_group_only_root(folder):
    service = Service(folder / "api", group=None)
    found = as_other(service, NOBODY, GROUP, [GROUP], lambda: what_is_permitted(service))
    assert isinstance(found, dict)
    assert [name for name, what in found.items() if what == "done"] == ["GetInfo"]
    service.close()


def test_what_the_kernel_says(service):
    def work() -> None:
        with service.connect() as sock:
            sock.sendall(b'{"method":"org.varlink.service.GetInfo"}\0')
            sock.recv(1)

    seen: list[Peer] = []
    get_info = service.server._get_info
    service.server._get_info = lambda given, peer: seen.append(peer) or get_info(given, peer)
    as_other(service, 1234, 2345, [8, 9], work)
    assert [(peer.uid, peer.gid, peer.groups) for peer in seen] == [(1234, 2345, (8, 9))]
    assert seen[0].pid > 0


def test_who_it_was_at_the_start(service):
    """A process that connects as root and then changes its user is root to the server, and the other way round."""

    def work() -> dict[str, str]:
        with Client(service.path) as client:
            client.call(*CALLS["Status"])
            become(NOBODY, NOBODY, [])
            client.call(*CALLS["Reload"])
            return {"as root": "done"}

    assert as_other(service, 0, 0, [], work) == {"as root": "done"}


def test_the_connections_of_a_user(service):
    def work() -> list[int]:
        socks = [service.connect() for _ in range(30)]
        alive = 0
        for sock in socks:
            try:
                sock.sendall(b'{"method":"org.varlink.service.GetInfo"}\0')
                alive += bool(sock.recv(100))
            except OSError:
                pass
        return [alive]

    assert as_other(service, NOBODY, NOBODY, [], work) == [server.CONNECTIONS_A_USER_MAX]
    assert service.server.counts["refused"] == 30 - server.CONNECTIONS_A_USER_MAX


def test_many_users_do_not_keep_root_out(service):
    room = []
    for uid in range(1000, 1100):
        peer = Peer(1, uid, uid)
        if service.server._has_room(peer):
            room.append(uid)
            service.server._connections[type("Of", (), {"peer": peer})()] = None
    assert len(room) == server.CONNECTIONS_BESIDES_ROOT_MAX
    assert service.server._has_room(Peer(1, 0, 0))
    service.server._connections.clear()


def test_a_strangers_long_message(service):
    def work() -> list[object]:
        with service.connect() as sock:
            try:
                sock.sendall(b"x" * (server.STRANGER_CALL_BYTES_MAX + 1))
                return [sock.recv(1).decode()]
            except (BrokenPipeError, ConnectionResetError):
                return [""]

    assert as_other(service, NOBODY, NOBODY, [], work) == [""]
    assert service.server.counts["malformed"] == 1


def test_a_server_of_somebody_else_is_not_believed(folder):
    """A user listens where the daemon would: root asks him nothing, and neither does another user."""
    folder.chmod(0o777)
    service = Service(folder / "unused")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        become(1234, 1234, [])
        false = socket.socket(socket.AF_UNIX)
        false.bind(str(folder / "api"))
        os.chmod(folder / "api", 0o666)
        false.listen()
        os.write(write, b"x")
        sock, _ = false.accept()
        os.write(write, b"%d" % len(sock.recv(100)))
        sock, _ = false.accept()
        os.write(write, b"%d" % len(sock.recv(100)))
        os._exit(0)
    assert os.read(read, 1) == b"x"
    with pytest.raises(PermissionError, match="user 1234 listens there, who is neither root nor you"):
        Client(folder / "api")
    assert os.read(read, 1) == b"0"

    def work() -> str:
        try:
            Client(folder / "api")
        except PermissionError as error:
            return str(error)
        return "believed"

    assert "neither root nor you" in str(as_other(service, NOBODY, NOBODY, [], work))
    assert os.read(read, 1) == b"0"
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    service.close()


@pytest.mark.parametrize("right", Right)
def test_rights_of_the_group_and_of_others(right):
    assert may(Peer(1, 0, 0), right, None)
    assert may(Peer(1, 5, 5, (7,)), right, 7) == (right is not Right.WRITE)
    assert may(Peer(1, 5, 7), right, 7) == (right is not Right.WRITE)
    assert may(Peer(1, 5, 5, (6,)), right, 7) == (right is Right.ANYONE)
    assert may(Peer(1, 5, 5, (6,)), right, None) == (right is Right.ANYONE)


def test_a_socket_that_has_no_peer():
    with socket.socket(socket.AF_UNIX) as sock:
        assert peer_of(sock).pid == 0
