"""What a prompt is about, what an answer covers, and which answers a prompt cannot have."""

import re

import msgspec
import pytest

from pfw.model.address import parse_address
from pfw.model.flow import Direction, Flow
from pfw.model.packet import ICMP, TCP, UDP
from pfw.model.program import Certainty, File, Program
from pfw.model.prompt import (
    SECONDS_MAX,
    Answer,
    Gone,
    Lasting,
    Prompt,
    PromptCommand,
    Publish,
    Release,
    Remember,
    Scope,
    State,
    Subject,
    check_answer,
    covers,
    program_key,
    subject_of,
    wants_facts,
)
from pfw.model.rule import App, Rule
from pfw.model.verdict import Action

HERE, THERE, OTHER = parse_address("192.0.2.1"), parse_address("198.51.100.2"), parse_address("2001:db8::2")
CURL = Program(pid=7, started=70, path="/usr/bin/curl", shown="/usr/bin/curl")
NAMELESS = Program(pid=8, started=80, shown="/memfd:x (deleted)", file=File(1, 22, 333))


def prompt(program: Program | None = CURL, certainty: Certainty = Certainty.LABEL, protocol: int = TCP) -> Prompt:
    port = None if protocol == ICMP else 443
    flow = Flow(direction=Direction.OUT, protocol=protocol, source=HERE, destination=THERE, port=port)
    return Prompt(
        id=1,
        subject=subject_of(flow, program),
        program=program,
        certainty=certainty,
        flow=flow,
        rule="default out",
        asked=0.0,
        until=60.0,
        state=State.WAITING,
    )


@pytest.mark.parametrize(
    ("direction", "remote"), [(Direction.OUT, THERE), (Direction.IN, HERE), (Direction.FORWARD, THERE)]
)
def test_the_subject_is_the_other_end_and_the_port_of_the_service(direction, remote):
    flow = Flow(direction=direction, protocol=UDP, source=HERE, destination=THERE, source_port=4000, port=53)
    assert subject_of(flow, CURL) == Subject("/usr/bin/curl", direction, UDP, remote, 53)


def test_a_program_without_a_path_is_never_one_with_the_path_that_it_shows():
    real = Program(pid=1, path="/usr/bin/curl", shown="/usr/bin/curl", file=File(1, 2))
    posing = Program(pid=2, path=None, shown="/usr/bin/curl", file=File(9, 2))
    other = Program(pid=3, path=None, shown="/usr/bin/curl", file=File(9, 3))
    assert program_key(real) == "/usr/bin/curl"
    assert len({program_key(program) for program in (real, posing, other)}) == 3


def test_nothing_is_known_of_a_program_with_neither_path_nor_file():
    assert program_key(Program(pid=1, shown="curl")) == program_key(None) == ""


BASE = Subject("/a", Direction.OUT, TCP, THERE, 443)


@pytest.mark.parametrize(
    ("other", "scopes"),
    [
        (BASE, "exact address port anywhere"),
        (Subject("/a", Direction.OUT, TCP, THERE, 80), "address anywhere"),
        (Subject("/a", Direction.OUT, UDP, THERE, 443), "address anywhere"),
        (Subject("/a", Direction.OUT, ICMP, THERE), "address anywhere"),
        (Subject("/a", Direction.OUT, TCP, OTHER, 443), "port anywhere"),
        (Subject("/a", Direction.OUT, UDP, OTHER, 53), "anywhere"),
        (Subject("/b", Direction.OUT, TCP, THERE, 443), ""),
        (Subject("/a", Direction.IN, TCP, THERE, 443), ""),
    ],
)
def test_what_an_answer_covers(other, scopes):
    assert " ".join(scope for scope in Scope if covers(BASE, scope, other)) == scopes


def test_an_answer_about_an_unknown_program_covers_nothing():
    unknown = Subject("", Direction.OUT, TCP, THERE, 443)
    assert not any(covers(unknown, scope, unknown) for scope in Scope)


FLOW = Flow(
    direction=Direction.OUT, protocol=TCP, source=HERE, destination=THERE, port=443, interface="eth0", app="/a",
    app_sha256="0" * 64, script="/a.py", users=frozenset({"1000", "alice"}), unit="a.service",
)  # fmt: skip


@pytest.mark.parametrize(
    ("conditions", "facts"),
    [
        ({"ports": ((443, 443),), "protocols": frozenset({TCP}), "apps": (App("/a"),)}, ()),
        ({"apps": (App("/a"),), "scripts": ("/a.py", "/b.py")}, ("script /a.py",)),
        ({"users": ("alice", "bob")}, ("user 1000",)),
        ({"units": ("a.service",), "interfaces": ("eth*",)}, ("unit a.service", "interface eth0")),
        ({"apps": (App("/b"), App("/a", "0" * 64))}, (f"sha256 {'0' * 64}",)),
    ],
)
def test_an_answer_is_no_wider_than_the_rule_that_asks(conditions, facts):
    rule = Rule(name="who", action=Action.ASK, directions=frozenset({Direction.OUT}), **conditions)
    asked = subject_of(FLOW, CURL, rule, 1000)
    assert (asked.facts, wants_facts(rule)) == (facts, facts != ())
    everybody = subject_of(FLOW, CURL)
    assert all(covers(asked, scope, asked) for scope in Scope)
    for one, other in ((asked, everybody), (everybody, asked)):
        assert any(covers(one, scope, other) for scope in Scope) is (facts == ())


def test_what_can_be_answered():
    for lasting in Lasting:
        seconds = 60 if lasting is Lasting.TIME else None
        for scope in Scope:
            for allow in (True, False):
                check_answer(prompt(), Answer(allow, lasting, scope, seconds))


ONCE, PROGRAM, TIME, ALWAYS = Lasting


@pytest.mark.parametrize(
    ("asked", "answer", "what"),
    [
        (prompt(), Answer(True, TIME), '"time" needs a number of seconds, 1-2147483'),
        (prompt(), Answer(True, TIME, seconds=0), '"time" needs a number of seconds, 1-2147483'),
        (prompt(), Answer(True, TIME, seconds=SECONDS_MAX + 1), '"time" needs a number of seconds, 1-2147483'),
        (prompt(), Answer(True, ALWAYS, seconds=5), 'seconds go with "time", not with "always"'),
        (
            prompt(protocol=ICMP),
            Answer(True, ALWAYS, Scope.PORT),
            'ICMP has no ports: the scope is "exact", "address" or "anywhere"',
        ),
        (
            prompt(None),
            Answer(False, ALWAYS),
            'it is not known which program this is: it can only be answered "once"',
        ),
        (
            prompt(Program(pid=1, shown="x")),
            Answer(True, PROGRAM),
            'it is not known which program this is: it can only be answered "once"',
        ),
        (
            prompt(certainty=Certainty.GUESS),
            Answer(True, PROGRAM),
            'it is not certain which program this is: it can only be allowed "once"',
        ),
        (
            prompt(NAMELESS),
            Answer(True, ALWAYS),
            'this program has no path that a rule could name: answer "once", "program" or "time"',
        ),
    ],
)
def test_what_cannot(asked, answer, what):
    with pytest.raises(ValueError, match=f"^{re.escape(what)}$"):
        check_answer(asked, answer)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (prompt(protocol=ICMP), Answer(True, ALWAYS, Scope.EXACT)),
        (prompt(None), Answer(True, ONCE)),
        (prompt(None, Certainty.GUESS), Answer(True, ONCE)),
        (prompt(certainty=Certainty.GUESS), Answer(True, ONCE)),
        (prompt(certainty=Certainty.GUESS), Answer(False, ALWAYS)),
        (prompt(certainty=Certainty.PROC), Answer(True, ALWAYS)),
        (prompt(NAMELESS), Answer(True, TIME, seconds=60)),
    ],
)
def test_what_just_can(asked, answer):
    check_answer(asked, answer)


@pytest.mark.parametrize(
    "command", [Release(1, True), Publish(prompt(NAMELESS)), Gone(3), Remember(prompt(), Answer(True, ALWAYS))]
)
def test_commands_can_be_sent_to_another_process(command):
    assert msgspec.json.decode(msgspec.json.encode(command), type=PromptCommand) == command
