"""What is done about a kernel that answers otherwise than one would like."""

import errno
import struct

import pytest

from pfw.drivers import netlink
from pfw.drivers.netlink import ask, ask_one, steadily
from pfw.wire.netlink import NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, request

FINE = struct.pack("=i", 0)


def refused(number):
    return struct.pack("=i", -number) + bytes(16)


class FakeSocket:
    """Answers as told: what it sends, and the port of who sends it (0 is the kernel)."""

    def __init__(self, *answers):
        self._answers = list(answers)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def send(self, data):
        return len(data)

    def recvfrom(self, _):
        if not self._answers:
            raise TimeoutError("timed out")
        data, port = self._answers.pop(0)
        return data, (port, 0)


@pytest.fixture
def answers(monkeypatch):
    def set_up(*data):
        pairs = [each if isinstance(each, tuple) else (each, 0) for each in data]
        monkeypatch.setattr(netlink, "open_socket", lambda _: FakeSocket(*pairs))

    return set_up


class TestAsking:
    def test_a_list_in_several_reads(self, answers):
        answers(request(20, b"ab") + b"\0\0" + request(20, b"cd"), request(20, b"ef"), request(NLMSG_DONE, FINE))
        assert [bytes(body) for _, body in ask(0, b"")] == [b"ab", b"cd", b"ef"]

    def test_an_acknowledgement_is_no_answer(self, answers):
        answers(request(NLMSG_ERROR, FINE) + request(20, b"ab"), request(NLMSG_DONE, FINE))
        assert [bytes(body) for _, body in ask(0, b"")] == [b"ab"]
        answers(request(NLMSG_ERROR, FINE) + request(20, b"ab"))
        assert bytes(ask_one(0, b"")[1]) == b"ab"

    def test_what_another_process_sends_is_no_answer(self, answers):
        answers((request(20, b"no"), 4711), request(20, b"ab"), (request(NLMSG_DONE, FINE), 1), request(20, b"cd"),
                request(NLMSG_DONE, FINE))  # fmt: skip
        assert [bytes(body) for _, body in ask(0, b"")] == [b"ab", b"cd"]

    @pytest.mark.parametrize("kind", [NLMSG_ERROR, NLMSG_DONE])
    def test_a_refusal_also_at_the_end(self, answers, kind):
        answers(request(20, b"ab"), request(kind, refused(errno.EPERM)))
        with pytest.raises(PermissionError):
            list(ask(0, b""))

    def test_silence(self, answers):
        for question in (lambda: list(ask(0, b"")), lambda: ask_one(0, b"")):
            answers()
            with pytest.raises(TimeoutError, match="did not answer within 5 s") as error:
                question()
            assert error.value.errno == errno.ETIMEDOUT

    def test_a_list_that_changed_meanwhile(self, answers):
        answers(request(20, b"ab", NLM_F_DUMP_INTR), request(20, b"cd"), request(NLMSG_DONE, FINE))
        with pytest.raises(InterruptedError, match="changed"):
            list(ask(0, b""))


class TestSteadily:
    @pytest.mark.parametrize("failures", [0, 1, 9])
    def test_reads_until_nothing_changes(self, failures):
        left = [InterruptedError(errno.EINTR, "changed")] * failures

        def read():
            if left:
                raise left.pop()
            return "read"

        assert steadily(read) == "read"

    def test_not_for_ever(self):
        calls = []

        def read():
            calls.append(1)
            raise InterruptedError(errno.EINTR, "changed")

        with pytest.raises(InterruptedError, match="changed"):
            steadily(read)
        assert len(calls) == 10

    def test_another_error_is_no_change(self):
        def read():
            raise FileNotFoundError

        with pytest.raises(FileNotFoundError):
            steadily(read)
