"""The server: answers in order, streams to many, and lets nobody take more than his share."""

from __future__ import annotations

import json
import os
import resource
import socket
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pfw.api import connection, server
from pfw.api import interface as api
from pfw.api.messages import MESSAGE_BYTES_MAX
from pfw.api.server import Info, Server

from .conftest import Service, prompt

STANDARD = "org.varlink.service"
OWN = "org.pfw.Firewall"
ANSWER = {"id": 1, "action": "allow", "lasting": "once", "scope": "exact"}


def call(method: str, parameters: object = None, **flags: bool) -> bytes:
    name = method if "." in method else f"{OWN}.{method}"
    return json.dumps({"method": name, "parameters": parameters, **flags}).encode() + b"\0"


def asked(service: Service, *calls: bytes) -> list[dict]:
    with service.connect() as sock:
        sock.sendall(b"".join(calls))
        return [json.loads(message) for message in service.received(sock, len(calls))]


def error(name: str, **parameters: object) -> dict:
    return {"error": name, "parameters": parameters}


class TestCalls:
    def test_info(self, service):
        (reply,) = asked(service, call(f"{STANDARD}.GetInfo"))
        assert reply["parameters"] == {
            "vendor": "Personal Firewall", "product": "pfw", "version": "1", "url": "https://example.net",
            "interfaces": [STANDARD, OWN],
        }  # fmt: skip

    @pytest.mark.parametrize("name", [STANDARD, OWN])
    def test_description(self, service, name):
        (reply,) = asked(service, call(f"{STANDARD}.GetInterfaceDescription", {"interface": name}))
        assert f"\ninterface {name}\n" in reply["parameters"]["description"]

    def test_an_answer(self, service):
        (reply,) = asked(service, call("Answer", {**ANSWER, "lasting": "time", "seconds": 60}))
        assert reply == {"parameters": {"done": "allow time exact 60"}}

    @pytest.mark.parametrize(
        ("method", "parameters", "flags", "expected"),
        [
            ("Nothing", None, {}, error(f"{STANDARD}.MethodNotFound", method=f"{OWN}.Nothing")),
            ("org.example.Do", None, {}, error(f"{STANDARD}.InterfaceNotFound", interface="org.example")),
            (".", None, {}, error(f"{STANDARD}.InterfaceNotFound", interface="")),
            (
                f"{STANDARD}.GetInterfaceDescription", {"interface": "org.x"}, {},
                error(f"{STANDARD}.InterfaceNotFound", interface="org.x"),
            ),
            ("Connections", None, {}, error(f"{STANDARD}.MethodNotImplemented", method=f"{OWN}.Connections")),
            ("Status", None, {"upgrade": True}, error(f"{STANDARD}.MethodNotImplemented", method=f"{OWN}.Status")),
            ("Alerts", None, {}, error(f"{STANDARD}.ExpectedMore")),
            ("Status", {"x": 1}, {}, error(f"{STANDARD}.InvalidParameter", parameter="x")),
            ("Status", [], {}, error(f"{STANDARD}.InvalidParameter", parameter="")),
            ("Answer", None, {}, error(f"{STANDARD}.InvalidParameter", parameter="id")),
            ("Answer", {**ANSWER, "action": "ask"}, {}, error(f"{STANDARD}.InvalidParameter", parameter="action")),
            ("Answer", {**ANSWER, "seconds": 0}, {}, error(f"{STANDARD}.InvalidParameter", parameter="seconds")),
            ("Why", {"pid": 1 << 64}, {}, error(f"{STANDARD}.InvalidParameter", parameter="pid")),
            ("Answer", {**ANSWER, "id": 2}, {}, error(f"{OWN}.NoSuchPrompt", id=2)),
        ],
    )  # fmt: skip
    def test_errors(self, service, method, parameters, flags, expected):
        assert asked(service, call(method, parameters, **flags), call("Reload")) == [
            expected, {"parameters": {"generation": 4}}
        ]  # fmt: skip

    def test_a_handlers_mistake(self, service):
        first, second = asked(service, call("Answer", {**ANSWER, "id": 13}), call("Reload"))
        assert first == error(f"{OWN}.Refused", says="the firewall failed at this call; its log says more")
        assert second == {"parameters": {"generation": 4}}
        assert [(name, str(what)) for name, what in service.failures] == [(f"{OWN}.Answer", "a mistake")]
        assert service.server.counts["failed"] == 1

    def test_a_program_whose_name_is_no_text(self, service):
        service.apps = (api.App(path="/tmp/\udcff", seen=1.0, processes=1, connections=0, rules=(), verdicts={}),)
        (reply,) = asked(service, call("Apps"))
        assert reply["parameters"]["apps"][0]["path"] == "/tmp/\\udcff"

    def test_what_is_null_is_sent(self, service):
        (reply,) = asked(service, call("Prompts"))
        (one,) = reply["parameters"]["prompts"]
        assert tuple(one) == api.Prompt.__struct_fields__
        assert one["until"] is None

    def test_an_answer_that_fits_into_no_message(self, service):
        app = api.App(path="/bin/" + "x" * 1000, seen=1.0, processes=1, connections=0, rules=(), verdicts={})
        service.apps = (app,) * 1100
        first, second = asked(service, call("Apps"), call("Reload"))
        assert first["error"] == f"{OWN}.Refused"
        assert "too many for a message" in first["parameters"]["says"]
        assert second == {"parameters": {"generation": 4}}

    def test_a_long_answer_arrives_whole(self, service):
        app = api.App(path="/bin/" + "x" * 1000, seen=1.0, processes=1, connections=0, rules=(), verdicts={})
        service.apps = (app,) * 900
        first, second = asked(service, call("Apps"), call("Reload"))
        assert len(first["parameters"]["apps"]) == 900
        assert second == {"parameters": {"generation": 4}}

    def test_no_answer_where_none_is_wanted(self, service):
        replies = asked(
            service, call("Status", oneway=True) + call("Nothing", oneway=True) + call("Alerts", oneway=True, more=True)
            + call("Reload")
        )  # fmt: skip
        assert replies == [{"parameters": {"generation": 4}}]

    def test_handlers_of_no_method(self, folder, service):
        for handlers, streams in (({"Nothing": None}, {}), ({"Alerts": None}, {}), ({}, {"Status": None})):
            with pytest.raises(ValueError, match="has no method"):
                Server(folder / "b", handlers, streams, loop=service.loop, group=None, info=Info("1"))
        assert not (folder / "b").exists()


class TestOrder:
    def test_pipelined(self, service):
        calls = [call("Why", {"pid": number}) for number in range(1, 301)]
        replies = asked(service, *calls)
        assert [reply["parameters"]["says"] for reply in replies] == [f"{number} None" for number in range(1, 301)]

    def test_byte_by_byte(self, service):
        with service.connect() as sock:
            for byte in call("Why", {"pid": 5}) + call("Reload"):
                sock.sendall(bytes([byte]))
                service.turn()
            first, second = service.received(sock, 2)
        assert b'"5 None"' in first
        assert b'"generation":4' in second

    def test_nobody_is_kept_from_his_turn(self, service):
        with service.connect() as busy, service.connect() as other:
            busy.sendall(call("Status") * 500)
            service.turn()
            service.turn()
            other.sendall(call("Reload"))
            service.turn()
            service.turn()
            assert other.recv(1000) == b'{"parameters":{"generation":4}}\0'
            assert busy.recv(1 << 20, socket.MSG_PEEK).count(b"\0") <= 4 * connection._CALLS_PER_TURN

    def test_answered_after_the_caller_has_said_all(self, service):
        with service.connect() as sock:
            sock.sendall(call("Reload") * 40)
            sock.shutdown(socket.SHUT_WR)
            assert len(service.received(sock, 41)) == 40
        service.settle()
        assert service.server.connections == 0

    def test_who_does_not_read_is_not_read(self, service):
        pipe = call("Status") * 100
        with service.connect() as sock:
            sock.setblocking(False)
            sent = 0
            for _ in range(2000):
                with suppress(BlockingIOError):
                    sent += sock.send(pipe[sent % len(pipe) :])
                service.turn()
                assert service.server.waiting_bytes < 100_000
            assert sent > 100_000
            # Nothing is lost by that.
            whole = sent // len(call("Status"))
            assert len(service.received(sock, whole)) == whole

    def test_long_answers_to_many_calls(self, service):
        app = api.App(path="/bin/" + "x" * 1000, seen=1.0, processes=1, connections=0, rules=(), verdicts={})
        service.apps = (app,) * 200
        with service.connect() as sock:
            sock.sendall(call("Apps") * 50)
            service.settle()
            assert service.server.waiting_bytes < 300_000
            assert [message.count(b"/bin/") for message in service.received(sock, 50)] == [200] * 50


class TestStreams:
    def test_first_all_then_changes(self, service):
        with service.connect() as sock:
            sock.sendall(call("Prompts", more=True) + call("Reload"))
            (first,) = service.received(sock, 1)
            service.server.publish("Prompts", api.PromptsResult(prompts=(), gone=(1,)))
            (second,) = service.received(sock, 1)
            # The call behind it is answered when the stream has ended.
            service.subscriptions[0].end(api.PromptsResult(prompts=(), gone=(2,)))
            third, fourth = service.received(sock, 2)
        assert [one["id"] for one in json.loads(first)["parameters"]["prompts"]] == [1, 2]
        assert json.loads(second) == {"parameters": {"prompts": [], "gone": [1]}, "continues": True}
        assert json.loads(third) == {"parameters": {"prompts": [], "gone": [2]}}
        assert json.loads(fourth) == {"parameters": {"generation": 4}}
        assert service.subscriptions[0].closed

    def test_many_listen_and_some_go(self, service):
        socks = [service.connect() for _ in range(10)]
        for sock in socks:
            sock.sendall(call("Alerts", more=True))
        service.until(lambda: len(service.subscriptions) == 10)
        for number in range(100):
            if number == 50:
                for sock in socks[:5]:
                    sock.close()
                service.until(lambda: service.server.connections == 5)
            heard = service.server.publish("Alerts", api.AlertsResult(time=1.0, kind="ban", says=str(number)))
            assert heard == (10 if number < 50 else 5)
        for sock in socks[5:]:
            said = [json.loads(message)["parameters"]["says"] for message in service.received(sock, 100)]
            assert said == [str(number) for number in range(100)]
            sock.close()
        assert [one.closed for one in service.subscriptions].count(True) == 5

    def test_nobody_listens(self, service):
        assert service.server.publish("Alerts", api.AlertsResult(time=1.0, kind="ban", says="x")) == 0

    def test_other_streams_hear_nothing(self, service):
        with service.connect() as sock:
            sock.sendall(call("Prompts", more=True))
            service.received(sock, 1)
            assert service.server.publish("Alerts", api.AlertsResult(time=1.0, kind="ban", says="x")) == 0

    def test_a_slow_reader_is_dropped(self, service):
        with service.connect() as slow, service.connect() as good:
            for sock in (slow, good):
                sock.sendall(call("Alerts", more=True))
            service.until(lambda: len(service.subscriptions) == 2)
            alert = api.AlertsResult(time=1.0, kind="ban", says="x" * 1000)
            sent = 0
            while service.server.publish("Alerts", alert) == 2:
                assert service.server.waiting_bytes <= connection.BEHIND_BYTES_MAX + 2000
                sent += 1
                assert sent < 2000
                assert len(service.received(good, 1)) == 1
            assert sent >= connection.BEHIND_BYTES_MAX // 1100
            assert service.server.counts["slow"] == 1
            assert service.server.connections == 1
            assert service.server.waiting_bytes == 0
            assert len(service.received(good, 1)) == 1

    def test_a_list_longer_than_any_buffer(self, service):
        made = 0

        def pieces():
            nonlocal made
            for number in range(200):
                made += 1
                yield api.PromptsResult(prompts=(prompt(number),) * 200, gone=())

        def stream(_: object, __: object, subscription) -> None:
            subscription.send_all(pieces())
            subscription.send(api.PromptsResult(prompts=(), gone=(1,)))

        service.server._streams["Prompts"] = stream
        with service.connect() as sock:
            sock.sendall(call("Prompts", more=True))
            service.settle()
            assert made < 20
            assert service.server.waiting_bytes < 200_000
            messages = service.received(sock, 201)
        assert sum(map(len, messages)) > 5 << 20
        numbers = [json.loads(message)["parameters"]["prompts"][0]["id"] for message in messages[:-1]]
        assert numbers == list(range(200))
        assert json.loads(messages[-1])["parameters"]["gone"] == [1]

    def test_a_list_that_fails_ends_the_stream(self, service):
        def pieces():
            yield api.PromptsResult(prompts=(), gone=(1,))
            raise RuntimeError("a mistake")

        service.server._streams["Prompts"] = lambda _, __, one: one.send_all(pieces())
        with service.connect() as sock:
            sock.sendall(call("Prompts", more=True) + call("Reload"))
            first, second, third = map(json.loads, service.received(sock, 3))
        assert first["parameters"]["gone"] == [1]
        assert second["error"] == f"{OWN}.Refused"
        assert third == {"parameters": {"generation": 4}}
        assert [str(what) for _, what in service.failures] == ["a mistake"]

    def test_a_stream_that_is_refused(self, service):
        def stream(_: object, __: object, subscription) -> None:
            raise api.failure(api.Refused(says="not now"))

        service.server._streams["Alerts"] = stream
        first, second = asked(service, call("Alerts", more=True), call("Reload"))
        assert first == error(f"{OWN}.Refused", says="not now")
        assert second == {"parameters": {"generation": 4}}
        assert service.server.publish("Alerts", api.AlertsResult(time=1.0, kind="x", says="x")) == 0

    def test_more_of_a_method_that_has_no_more(self, service):
        assert asked(service, call("Reload", more=True)) == [{"parameters": {"generation": 4}}]

    def test_a_result_of_another_method(self, service):
        with service.connect() as sock:
            sock.sendall(call("Alerts", more=True))
            service.until(lambda: service.subscriptions)
            with pytest.raises(TypeError, match="Alerts gives AlertsResult"):
                service.server.publish("Alerts", api.ReloadResult(generation=1))

    def test_chatter_during_a_stream_is_bounded(self, service):
        with service.connect() as sock:
            sock.sendall(call("Alerts", more=True))
            service.until(lambda: service.subscriptions)
            sock.setblocking(False)
            for _ in range(1000):
                with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                    sock.send(call("Reload") * 100)
                service.turn()
                assert service.server.waiting_bytes < MESSAGE_BYTES_MAX + (1 << 17)
        assert service.server.counts["malformed"] == 1


class TestHostile:
    @pytest.mark.parametrize(
        "data",
        [
            b"\0", b"{}\0", b"GET / HTTP/1.1\r\n\r\n\0", b'{"method":1}\0', b'{"method":"\xff"}\0',
            b"[" * 900_000 + b"\0", b'{"method":"a.B","parameters":' + b'{"a":' * 100_000 + b"\0",
            b"x" * (MESSAGE_BYTES_MAX + 1), b"x" * (MESSAGE_BYTES_MAX + 1) + b"\0",
        ],
        ids=lambda data: repr(data[:12]) + str(len(data)),
    )  # fmt: skip
    def test_what_is_no_call_ends_the_connection(self, service, data):
        with service.connect() as sock:
            sock.setblocking(False)
            view = memoryview(data)
            while view:
                try:
                    view = view[sock.send(view) :]
                except BlockingIOError:
                    pass
                except OSError:
                    break
                service.turn()
            assert service.received(sock, 1) == []
        assert service.server.counts["malformed"] == 1
        assert service.server.connections == 0
        assert asked(service, call("Reload")) == [{"parameters": {"generation": 4}}]

    def test_half_a_message_and_away(self, service):
        for data in (b"", b'{"meth', call("Status")[:-1], call("Status"), call("Prompts", more=True)):
            with service.connect() as sock:
                sock.sendall(data)
            service.settle()
            assert service.server.connections == 0
        assert service.server.counts["accepted"] == 5

    def test_away_with_an_answer_unread(self, service):
        app = api.App(path="/bin/" + "x" * 1000, seen=1.0, processes=1, connections=0, rules=(), verdicts={})
        service.apps = (app,) * 900
        with service.connect() as sock:
            sock.sendall(call("Apps"))
            service.until(lambda: service.server.waiting_bytes > 100_000)
        service.until(lambda: service.server.connections == 0)
        assert service.server.waiting_bytes == 0

    def test_hundreds_of_connections(self, service):
        socks = []
        for _ in range(300):
            socks.append(service.connect())
            service.settle()
        assert service.server.connections == server.CONNECTIONS_MAX
        assert service.server.counts["refused"] == 300 - server.CONNECTIONS_MAX
        socks[0].sendall(call("Reload"))
        assert len(service.received(socks[0], 1)) == 1
        for sock in socks:
            sock.close()
        for _ in range(100):  # the kernel tells of them one after the other
            service.settle()
            if not service.server.connections:
                break
        assert service.server.connections == 0
        assert asked(service, call("Reload")) == [{"parameters": {"generation": 4}}]

    def test_no_descriptor_left(self, service):
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with service.connect() as sock, service.connect() as late:
            late.sendall(call("Reload"))
            highest = max(map(int, os.listdir("/proc/self/fd"))) + 1
            filler = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, before[1]))
            try:
                with suppress(OSError):
                    while True:
                        filler.append(os.dup(0))
                turns = 0
                while service.turn():
                    turns += 1
                    assert turns < 10
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
                for descriptor in filler:
                    os.close(descriptor)
            assert service.server.counts["refused"] >= 1
            sock.close()
        assert asked(service, call("Reload")) == [{"parameters": {"generation": 4}}]

    def test_a_loop_that_has_no_room(self, service, monkeypatch):
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(service.loop, "register", full)
        with service.connect() as sock:
            service.settle()
            monkeypatch.undo()
            assert service.received(sock, 1) == []
        assert service.server.connections == 0

    def test_descriptors_that_are_sent_along_are_closed(self, service):
        read, write = os.pipe()
        with service.connect() as sock:
            socket.send_fds(sock, [call("Reload")], [write])
            os.close(write)
            assert len(service.received(sock, 1)) == 1
        assert os.read(read, 1) == b""
        os.close(read)


CALLS = st.sampled_from(
    [call(name, more=more) for name in ("Status", "Prompts", "Alerts", "Apps", "No") for more in (False, True)]
    + [call("Answer", ANSWER), call("Answer", {**ANSWER, "id": 13}), call(f"{STANDARD}.GetInfo"), b"\0", b"{", b"}\0"]
)
STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.one_of(CALLS, st.binary(max_size=8), st.sampled_from(["publish", "close", "read"])))
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_whatever_clients_do(service, steps):
    socks: dict[int, socket.socket] = {}
    for number, step in steps:
        sock = socks.get(number) or socks.setdefault(number, service.connect())
        try:
            if step == "publish":
                service.server.publish("Prompts", api.PromptsResult(prompts=(prompt(1),), gone=()))
            elif step == "close":
                socks.pop(number).close()
            elif step == "read":
                sock.setblocking(False)
                sock.recv(10)
            else:
                sock.send(step)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass
        service.turn()
        assert service.server.connections <= 5
        assert service.server.waiting_bytes < 1 << 20
    for sock in socks.values():
        sock.close()
    service.settle()
    assert service.server.connections == 0
    assert len(service.loop.get_map()) == 1
    assert asked(service, call("Reload")) == [{"parameters": {"generation": 4}}]


def test_no_turn_is_long(service):
    """Whatever many clients have sent at once, a turn does not answer it all."""
    socks = [service.connect() for _ in range(30)]
    for sock in socks:
        sock.setblocking(False)
        sock.send(call("Status") * 300)
    answered = []
    status = service.server._handlers["Status"]
    service.server._handlers["Status"] = lambda *given: answered.append(1) or status(*given)
    turns = 0
    while service.turn():
        turns += 1
        assert len(answered) <= turns * len(socks) * connection._CALLS_PER_TURN
    for sock in socks:
        assert len(service.received(sock, 300)) == 300
        sock.close()
    assert len(answered) == 30 * 300
