"""Answers against a twin that walks through all of them, and their ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.engine.answers import Answers
from pfw.model.flow import Direction
from pfw.model.packet import ICMP, TCP, UDP
from pfw.model.prompt import Answer, Lasting, Scope, Subject

A, B = bytes((192, 0, 2, 1)), bytes(16)
CURL = Subject("/usr/bin/curl", Direction.OUT, TCP, A, 443)
IDS = {"pid": 1, "started": 10}


def timed(seconds: int, allow: bool = True, scope: Scope = Scope.EXACT) -> Answer:
    return Answer(allow, Lasting.TIME, scope, seconds)


def running(allow: bool = True, scope: Scope = Scope.EXACT) -> Answer:
    return Answer(allow, Lasting.PROGRAM, scope)


def is_about(old: Subject, scope: Scope, new: Subject) -> bool:
    """Spelled out: whether an answer of this scope about the old subject is one about the new."""
    if (old.program, old.direction) != (new.program, new.direction):
        return False
    if scope in ("exact", "address") and old.remote != new.remote:
        return False
    return scope not in ("exact", "port") or (old.protocol, old.port) == (new.protocol, new.port)


class SlowAnswers:
    """A list of what was answered. A new answer about the very same strikes out the old one."""

    def __init__(self) -> None:
        self.lines: list[tuple[Subject, Answer, float, int]] = []

    def add(self, subject: Subject, answer: Answer, now: int, pid: int) -> None:
        scope = answer.scope
        self.lines = [line for line in self.lines if line[1].scope != scope or not is_about(line[0], scope, subject)]
        self.lines.append((subject, answer, float("inf") if answer.seconds is None else now + answer.seconds, pid))

    def find(self, subject: Subject, now: int) -> bool | None:
        for scope in ("exact", "address", "port", "anywhere"):
            for old, answer, until, _ in reversed(self.lines):
                if answer.scope == scope and now < until and is_about(old, answer.scope, subject):
                    return answer.allow
        return None

    def ended(self, pid: int) -> None:
        self.lines = [line for line in self.lines if line[1].lasting is not Lasting.PROGRAM or line[3] != pid]


SUBJECTS = st.one_of(
    st.builds(
        Subject,
        st.sampled_from(["/a", "/b"]),
        st.sampled_from([Direction.IN, Direction.OUT]),
        st.sampled_from([TCP, UDP]),
        st.sampled_from([A, B]),
        st.sampled_from([53, 443]),
    ),
    st.builds(Subject, st.just("/a"), st.just(Direction.OUT), st.just(ICMP), st.sampled_from([A, B])),
)
ANSWERS = st.one_of(
    st.builds(running, st.booleans(), st.sampled_from(Scope)),
    st.builds(timed, st.integers(1, 20), st.booleans(), st.sampled_from(Scope)),
)
STEPS = st.one_of(
    st.tuples(st.just("add"), SUBJECTS, ANSWERS, st.integers(1, 3)),
    st.tuples(st.just("find"), SUBJECTS),
    st.tuples(st.just("wait"), st.integers(1, 8)),
    st.tuples(st.just("tick")),
    st.tuples(st.just("ended"), st.integers(1, 3)),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(STEPS, max_size=60))
def test_like_the_slow_twin(steps):
    fast, slow, now = Answers(), SlowAnswers(), 0
    for step in steps:
        match step:
            case ("add", subject, answer, pid) if not (answer.scope is Scope.PORT and subject.port is None):
                fast.add(subject, answer, float(now), pid=pid, started=pid)
                slow.add(subject, answer, now, pid)
            case ("find", subject):
                assert fast.find(subject, float(now)) is slow.find(subject, now)
            case ("wait", seconds):
                now += seconds
            case ("tick",):
                fast.tick(float(now))
                due = fast.deadline()
                assert due is None or due > now
                assert len(fast) == sum(until > now for _, _, until, _ in slow.lines)
            case ("ended", pid):
                fast.ended(pid, pid)
                slow.ended(pid)


def test_the_most_exact_one_decides_and_of_the_same_the_newest():
    answers = Answers()
    for allow, scope in ((True, Scope.ANYWHERE), (False, Scope.PORT), (True, Scope.ADDRESS), (False, Scope.EXACT)):
        answers.add(CURL, running(allow, scope), 0.0, **IDS)
        assert answers.find(CURL, 0.0) is allow
    answers.add(CURL, running(True), 0.0, **IDS)
    assert answers.find(CURL, 0.0) is True
    assert len(answers) == 4


def test_an_answer_ends_with_its_time_to_the_second():
    answers = Answers()
    answers.add(CURL, timed(60), 100.0, **IDS)
    assert answers.deadline() == 160.0
    assert answers.find(CURL, 159.9) is True
    assert answers.find(CURL, 160.0) is None
    assert answers.tick(159.9) == []
    assert [over.subject for over in answers.tick(160.0)] == [CURL]
    assert (len(answers), answers.deadline()) == (0, None)


def test_an_answer_ends_with_its_process_and_with_no_other_of_the_same_number():
    answers = Answers()
    answers.add(CURL, running(), 0.0, pid=7, started=70)
    answers.add(CURL, running(False, Scope.ANYWHERE), 0.0, pid=8, started=80)
    answers.add(CURL, timed(60, False, Scope.PORT), 0.0, pid=7, started=70)
    assert answers.ended(7, 71) == []
    assert answers.find(CURL, 1.0) is True
    assert [over.answer for over in answers.ended(7, 70)] == [running()]
    assert [left.answer.scope for left in answers.all] == [Scope.ANYWHERE, Scope.PORT]
    assert answers.ended(7, 70) == []


def test_the_answer_that_took_the_place_of_another_does_not_end_with_its_process():
    answers = Answers()
    answers.add(CURL, running(), 0.0, pid=7, started=70)
    answers.add(CURL, running(False), 0.0, pid=8, started=80)
    assert answers.ended(7, 70) == []
    assert answers.find(CURL, 0.0) is False


def test_in_a_full_table_the_one_that_ends_soonest_goes():
    answers = Answers(capacity=3)
    subjects = [Subject(f"/{number}", Direction.OUT, TCP, A, 443) for number in range(5)]
    for subject, answer in zip(subjects, (running(), timed(60), timed(30), timed(90), running()), strict=True):
        answers.add(subject, answer, 0.0, **IDS)
    assert [left.subject.program for left in answers.all] == ["/0", "/3", "/4"]
    assert answers.counts == {"forgotten": 2}
    # Of those without an end the oldest.
    for number in (5, 6):
        answers.add(Subject(f"/{number}", Direction.OUT, TCP, A, 443), running(), 0.0, **IDS)
    assert [left.subject.program for left in answers.all] == ["/4", "/5", "/6"]


def test_what_is_over_makes_room_before_anything_else():
    answers = Answers(capacity=1)
    answers.add(CURL, timed(60), 0.0, **IDS)
    answers.add(Subject("/b", Direction.OUT, TCP, A, 443), timed(60), 60.0, **IDS)
    assert answers.counts == {"forgotten": 0}


@pytest.mark.parametrize("look", ["find", "tick"])
def test_a_clock_that_is_set_back_lengthens_nothing_beyond_what_was_given(look):
    answers = Answers()
    answers.add(CURL, timed(60), 10_000.0, **IDS)
    if look == "find":
        answers.find(CURL, 500.0)
    else:
        answers.tick(500.0)
    assert answers.deadline() == 560.0
    assert answers.find(CURL, 559.0) is True
    assert answers.find(CURL, 560.0) is None


def test_a_clock_that_is_set_back_a_little_lengthens_nothing():
    answers = Answers()
    answers.add(CURL, timed(60), 100.0, **IDS)
    answers.tick(150.0)
    answers.tick(140.0)
    assert answers.find(CURL, 159.0) is True
    assert answers.find(CURL, 160.0) is None


@pytest.mark.parametrize(
    ("subject", "answer"),
    [
        (CURL, Answer(True, Lasting.ONCE)),
        (CURL, Answer(True, Lasting.ALWAYS)),
        (CURL, Answer(True, Lasting.TIME)),
        (Subject("", Direction.OUT, TCP, A, 443), running()),
        (Subject("/a", Direction.OUT, ICMP, A), running(scope=Scope.PORT)),
    ],
)
def test_what_is_not_remembered(subject, answer):
    answers = Answers()
    with pytest.raises(ValueError, match=r"needs|not one|unknown|no ports"):
        answers.add(subject, answer, 0.0, **IDS)
    assert len(answers) == 0


def test_nothing_is_known_of_an_unknown_program():
    answers = Answers()
    answers.add(CURL, running(True, Scope.ANYWHERE), 0.0, **IDS)
    assert answers.find(Subject("", Direction.OUT, TCP, A, 443), 0.0) is None
