"""The owner's program and webhook: what they get, and what happens when they misbehave."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pfw.daemon import alerting
from pfw.daemon.alerting import Alerting, alert_facts, checked
from pfw.model.observation import Alert, Kind

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only what is root's is run")
DEADLINE_S = 10.0


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a program of some lines of Python."""

    def make(code: str) -> Path:
        path = tmp_path / "on-alert"
        path.write_text(f"#!{sys.executable} -IS\nimport os, sys, time\n{code}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def told() -> list[str]:
    return []


def alert(target: bytes | None = None) -> Alert:
    return Alert(
        kind=Kind.PORT_SCAN, source=b"\xcb\0\x71\x07", target=target, first=1.0, last=2.5, score=88,
        evidence="asked \x1b[1m12 ports",
    )  # fmt: skip


def test_facts_of_an_alert() -> None:
    facts = alert_facts(alert(target=b"\x02\xaa\xbb\xcc\xdd\xee"), "banned 203.0.113.7 for 10 min")
    assert facts.pop("host") == os.uname().nodename
    assert facts == {
        "kind": "port-scan", "score": 88, "source": "203.0.113.7", "target": "02:aa:bb:cc:dd:ee",
        "first": "1970-01-01T00:00:01.000Z", "last": "1970-01-01T00:00:02.500Z",
        "evidence": r"asked \x1b[1m12 ports", "response": "banned 203.0.113.7 for 10 min",
    }  # fmt: skip


def test_a_program_gets_the_alert_and_nothing_else_of_ours(program, told, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    out = tmp_path / "out"
    code = (
        "import json\n"
        "made = {'words': sys.argv[1:], 'alert': json.loads(sys.stdin.read()), 'folder': os.getcwd(),\n"
        "        'environment': dict(os.environ), 'files': sorted(os.listdir('/proc/self/fd'))[:4]}\n"
        f"open({str(out) + '.new'!r}, 'w').write(json.dumps(made)); os.rename({str(out) + '.new'!r}, {str(out)!r})"
    )
    with open(os.devnull) as ours:
        os.set_inheritable(ours.fileno(), True)
        one = Alerting((str(program(code)), "$HOME; `id`", ""), "", told.append)
        one.alert({"kind": "port-scan"})
        wait_until(out.exists, "it has run")
    made = json.loads(out.read_text())
    assert made["words"] == ["$HOME; `id`", ""]
    assert made["alert"] == {"kind": "port-scan"}
    assert made["folder"] == "/"
    assert set(made["environment"]) - {"LC_CTYPE"} == {"PATH", "LC_ALL"}
    # What it opened to list the folder itself is the fourth.
    assert made["files"] == ["0", "1", "2", "3"]
    assert out.stat().st_mode & 0o777 == 0o600
    assert told == []


def test_one_that_fails_is_told(program, told) -> None:
    path = program("sys.exit(3)")
    Alerting((str(path),), "", told.append).alert({})
    wait_until(lambda: told, "it is told")
    assert told == [f"{path} ended with status 3"]


def test_one_that_does_not_end_is_killed_with_what_it_started(program, told, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(alerting, "COMMAND_S", 0.5)
    child = tmp_path / "child"
    path = program(f"pid = os.fork()\nopen({str(child)!r}, 'a').write(f'{{os.getpid()}} ')\ntime.sleep(60)")
    Alerting((str(path),), "", told.append).alert({})
    wait_until(lambda: told, "it is told")
    assert told == [f"{path} did not end within 0 s, and was killed"]
    pids = [int(each) for each in child.read_text().split()]
    assert len(pids) == 2

    def is_gone(pid: int) -> bool:
        try:
            return " Z " in Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError:
            return True

    wait_until(lambda: all(map(is_gone, pids)), "both are gone")


def test_few_run_at_once_some_wait_and_the_rest_is_counted(program, told, tmp_path) -> None:
    (gate := tmp_path / "gate").touch()
    code = (
        f"open({str(tmp_path)!r} + f'/ran-{{os.getpid()}}', 'w')\nwhile os.path.exists({str(gate)!r}): time.sleep(0.01)"
    )
    one = Alerting((str(program(code)),), "", told.append)

    def ran() -> int:
        return len(list(tmp_path.glob("ran-*")))

    for number in range(alerting.COMMANDS_AT_ONCE):
        one.alert({})
        wait_until(lambda number=number: ran() == number + 1, "it runs")
    for _ in range(alerting.WAITING_MAX + 7):
        one.alert({})
    assert one.lost == 7
    assert ran() == alerting.COMMANDS_AT_ONCE
    gate.unlink()
    wait_until(lambda: ran() == alerting.COMMANDS_AT_ONCE + alerting.WAITING_MAX, "those that waited have run")
    assert told == []


def test_what_others_could_have_written_is_not_run(program, told) -> None:
    path = program("")
    assert checked(str(path)) == str(path)
    path.chmod(0o775)
    with pytest.raises(OSError, match="can be written by others than root; it is not run: chmod go-w"):
        checked(str(path))
    path.chmod(0o755)
    os.chown(path, 1000, 0)
    with pytest.raises(OSError, match="belongs to user 1000; only what is root's is run"):
        checked(str(path))
    os.chown(path, 0, 0)
    path.parent.chmod(0o777)
    with pytest.raises(OSError, match=f"{path.parent} can be written by others"):
        checked(str(path))
    Alerting((str(path),), "", told.append).alert({})
    wait_until(lambda: told, "it is told")
    path.parent.chmod(0o1777)
    assert checked(str(path)) == str(path), "nobody can take another's file away there"


def test_a_link_is_as_good_as_what_it_leads_to(program, tmp_path) -> None:
    path = program("")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert checked(str(link)) == str(path)
    os.chown(path, 1000, 0)
    with pytest.raises(OSError, match="belongs to user 1000"):
        checked(str(link))


def test_what_is_not_there_is_told_each_time(told) -> None:
    one = Alerting(("/nowhere/on-alert",), "", told.append)
    one.alert({})
    wait_until(lambda: told, "it is told")
    assert told == ["/nowhere/on-alert: No such file or directory"]
    with pytest.raises(OSError, match="is not a file"):
        checked("/etc")


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.got.append((self.path, self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.answer(self)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.got = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ends(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


def test_a_webhook_gets_the_alert(web, told) -> None:
    web.answer = ends(204)
    Alerting((), f"http://u:p@127.0.0.1:{web.server_port}/hook?key=1", told.append).alert({"kind": "sweep"})
    wait_until(lambda: web.got, "it is sent")
    path, headers, content = web.got[0]
    assert (path, json.loads(content)) == ("/hook?key=1", {"kind": "sweep"})
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Basic dTpw"
    assert told == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ends(500), "the server answered 500 (Internal Server Error)"),
        (ends(302, Location="http://127.0.0.1:1/s3cret"), "wants to be asked elsewhere, which is not followed"),
        (lambda handler: handler.connection.close(), None),
    ],
)
def test_what_goes_wrong_is_told_without_the_key(web, told, answer, reason) -> None:
    web.answer = answer
    Alerting((), f"http://u:s3cret@127.0.0.1:{web.server_port}/s3cret?s3cret", told.append).alert({})
    wait_until(lambda: told, "it is told")
    assert len(web.got) == 1
    assert told[0].startswith(f"http://127.0.0.1:{web.server_port}/…: ")
    assert "s3cret" not in told[0]
    assert reason is None or told[0].endswith(reason)


def test_one_that_does_not_answer(web, told, monkeypatch) -> None:
    monkeypatch.setattr(alerting, "WEBHOOK_S", 0.3)
    release = threading.Event()
    web.answer = lambda handler: release.wait(DEADLINE_S)
    Alerting((), f"http://127.0.0.1:{web.server_port}/", told.append).alert({})
    wait_until(lambda: told, "it is told")
    release.set()
    assert told[0].split(": ")[1] in ("took longer than 0.3 seconds", "the server does not answer")


def test_when_it_is_closed_nothing_more_is_told(program, told, tmp_path) -> None:
    one = Alerting((str(program(f"open({str(tmp_path / 'ran')!r}, 'w')")),), "", told.append)
    one.close()
    one.alert({})
    assert one.lost == 1
    assert not (tmp_path / "ran").exists()
