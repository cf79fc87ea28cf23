"""Dialogues with the machine of prompts: on the left what happens and when, on the right what is to be done.

    0  packet 1 curl 192.0.2.1:443     => publish #1
    2  answer #1 allow always          => release 1 allow, remember #1, gone #1

A packet is of a connection of its own unless it says `flow`. A prompt is shown with how many packets it holds (`#1
held 2`), and `unanswered` when it does not wait.
"""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.engine.prompts import CONNECTION_S, CONNECTIONS_MAX, HELD_MAX, Prompts
from pfw.model.address import parse_address
from pfw.model.flow import Direction, Flow
from pfw.model.packet import ICMP, TCP, UDP
from pfw.model.program import Certainty, Program
from pfw.model.prompt import (
    Answer,
    Changed,
    Gone,
    Lasting,
    NoSuchPromptError,
    Prompt,
    PromptCommand,
    Publish,
    Release,
    Remember,
    Scope,
    State,
    Subject,
    covers,
    subject_of,
)
from pfw.model.verdict import Action

ALLOW, BLOCK = Action.ALLOW, Action.BLOCK
HERE = parse_address("192.0.2.100")
PIDS = {"curl": 10, "wget": 20, "ssh": 30}
TIMEOUT_S = 60.0


class Talk:
    """A machine, and lines that tell it something and say what it must answer."""

    def __init__(self, unattended: Action = BLOCK, attended: bool = True, **limits: int) -> None:
        self.prompts = Prompts(TIMEOUT_S, unattended, attended, **limits)

    def __call__(self, script: str) -> None:
        for line in filter(str.strip, script.splitlines()):
            told, _, expected = (part.strip() for part in line.partition("=>"))
            now, *words = told.split()
            assert ", ".join(map(show, self.tell(words, float(now)))) == expected, line.strip()

    def tell(self, words: list[str], now: float) -> list[PromptCommand]:
        match words:
            case ["packet", number, name, remote, *rest]:
                return packet(self.prompts, int(number), name, remote, rest, now)
            case ["answer", prompt, word, *rest]:
                return self.prompts.answer(int(prompt[1:]), read_answer([word, *rest]), now)
            case ["attend", who]:
                return self.prompts.attend(who == "somebody", now)
            case ["lost", *numbers]:
                return self.prompts.lost(map(int, numbers))
            case ["reopened"]:
                return self.prompts.reopened()
            case ["withdraw", *numbers]:
                return self.prompts.withdraw(map(int, numbers), now)
            case ["tick"]:
                return self.prompts.tick(now)
        raise AssertionError(words)

    def counts(self) -> dict[str, int]:
        return {name: count for name, count in self.prompts.counts.items() if count}


def packet(prompts: Prompts, number: int, name: str, remote: str, words: list[str], now: float) -> list[PromptCommand]:
    (flow, program, certainty), named = facts(name, remote, words), dict(pairwise(words))
    key, uid = named.get("flow", f"of {number}").encode(), int(named.get("user", "0"))
    return prompts.packet(number, key, flow, subject_of(flow, program), program, certainty, "default out", now, uid=uid)


def facts(name: str, remote: str, words: list[str]) -> tuple[Flow, Program | None, Certainty]:
    host, _, port = remote.partition(":")
    other = parse_address(host)
    flow = Flow(
        direction=Direction.IN if "in" in words else Direction.OUT,
        protocol=next((number for word, number in (("icmp", ICMP), ("udp", UDP)) if word in words), TCP),
        source=other if "in" in words else HERE,
        destination=HERE if "in" in words else other,
        port=int(port) if port else None,
    )
    program = None if name == "nobody" else Program(pid=PIDS[name], started=1, path=f"/usr/bin/{name}")
    return flow, program, Certainty.GUESS if "guess" in words or program is None else Certainty.LABEL


def read_answer(words: list[str]) -> Answer:
    allow, lasting, *rest = words
    seconds = int(rest.pop(0)) if lasting == "time" else None
    return Answer(allow == "allow", Lasting(lasting), Scope(rest[0]) if rest else Scope.EXACT, seconds)


def show(command: PromptCommand) -> str:
    match command:
        case Release(packet_id, allow):
            return f"release {packet_id} {'allow' if allow else 'block'}"
        case Publish(prompt):
            return f"publish {show_prompt(prompt)}"
        case Changed(prompt):
            return f"changed {show_prompt(prompt)}"
        case Remember(prompt, _):
            return f"remember #{prompt.id}"
        case Gone(prompt_id):
            return f"gone #{prompt_id}"


def show_prompt(prompt: Prompt) -> str:
    if prompt.state is State.UNANSWERED:
        assert (prompt.held, prompt.until) == (0, None)
        return f"#{prompt.id} unanswered"
    return f"#{prompt.id} held {prompt.held}"


def test_a_question_and_an_answer():
    talk = Talk()
    talk("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        1   packet 2 curl 192.0.2.1:443             => changed #1 held 2
        2   packet 3 wget 192.0.2.1:443             => publish #2 held 1
        3   answer #1 allow always                  => release 1 allow, release 2 allow, remember #1, gone #1
        4   answer #2 block time 3600               => release 3 block, remember #2, gone #2
        99  tick                                    =>
    """)
    assert (talk.prompts.prompts, talk.prompts.deadline(), talk.counts()) == ([], None, {})


def test_a_prompt_says_all_that_is_known_of_its_first_packet():
    prompts = Prompts(TIMEOUT_S, BLOCK, True)
    packet(prompts, 1, "curl", "192.0.2.1:443", [], 5.0)
    packet(prompts, 2, "curl", "192.0.2.1:443", [], 6.0)
    flow = Flow(direction=Direction.OUT, protocol=TCP, source=HERE, destination=parse_address("192.0.2.1"), port=443)
    program = Program(pid=10, started=1, path="/usr/bin/curl")
    assert prompts.prompts == [
        Prompt(
            id=1,
            subject=subject_of(flow, program),
            program=program,
            certainty=Certainty.LABEL,
            flow=flow,
            rule="default out",
            asked=5.0,
            until=65.0,
            state=State.WAITING,
            held=2,
            packets=2,
        )
    ]


def test_remember_hands_over_prompt_and_answer():
    talk = Talk()
    talk("0 packet 1 curl 192.0.2.1:443 => publish #1 held 1")
    asked = talk.prompts.prompts[0]
    answer = Answer(True, Lasting.TIME, Scope.ADDRESS, 60)
    assert Remember(asked, answer) in talk.prompts.answer(1, answer, 1.0)


def test_once_is_for_the_connections_that_wait_and_their_packets_that_come_again():
    talk = Talk()
    talk("""
        0    packet 1 curl 192.0.2.1:443 flow a      => publish #1 held 1
        1    answer #1 block once                    => release 1 block, gone #1
        2    packet 2 curl 192.0.2.1:443 flow a      => release 2 block
        3    packet 3 curl 192.0.2.1:443 flow b      => publish #2 held 1
        4    answer #2 allow once                    => release 3 allow, gone #2
        5    packet 4 curl 192.0.2.1:443 flow b      => release 4 allow
        6    packet 5 wget 192.0.2.1:443 flow b      => publish #3 held 1
    """)
    talk(f"""
        70   tick            => release 5 block, changed #3 unanswered
        {CONNECTION_S}    packet 7 curl 192.0.2.1:443 flow a      => release 7 block
        {CONNECTION_S + 1}    packet 8 curl 192.0.2.1:443 flow a      => publish #4 held 1
    """)


def test_what_comes_late_of_a_connection_that_was_answered_is_no_question():
    """Its packet was sent again while the answer was awaited, and is looked up when the socket is gone."""
    talk = Talk()
    talk(f"""
        0    packet 1 curl 192.0.2.1:443 flow a         => publish #1 held 1
        0    packet 2 curl 192.0.2.2:443 flow b         => publish #2 held 1
        0    packet 3 curl 192.0.2.2:80 flow c          => publish #3 held 1
        1    answer #1 allow once    => release 1 allow, gone #1
        1    answer #2 allow program address => release 2 allow, remember #2, gone #2, release 3 allow, gone #3
        2    packet 4 nobody 192.0.2.1:443 flow a       => release 4 block
        2    packet 5 curl 192.0.2.1:443 flow a guess   => release 5 block
        2    packet 6 nobody 192.0.2.2:443 flow b       => release 6 block
        2    packet 7 nobody 192.0.2.2:80 flow c        => release 7 block
        2    packet 8 curl 192.0.2.2:443 flow b         => publish #4 held 1
        2    packet 9 nobody 192.0.2.1:443 flow d       => publish #5 held 1
        3    answer #4 block once                       => release 8 block, gone #4
        4    answer #5 block once                       => release 9 block, gone #5
        {CONNECTION_S + 1}    packet 10 nobody 192.0.2.1:443 flow a => publish #6 held 1
    """)
    assert talk.counts() == {"late": 4}


def test_a_packet_that_comes_again_is_blocked_while_the_first_one_waits():
    talk = Talk()
    talk("""
        0   packet 1 curl 192.0.2.1:443 flow a      => publish #1 held 1
        1   packet 2 curl 192.0.2.1:443 flow a      => release 2 block
        3   packet 3 curl 192.0.2.1:443 flow a      => release 3 block
        4   answer #1 allow once                    => release 1 allow, gone #1
    """)
    assert talk.counts() == {"repeated": 2}


def test_so_many_packets_wait_for_a_prompt_and_no_more():
    talk = Talk()
    talk("0 packet 1 curl 192.0.2.1:443 => publish #1 held 1")
    for number in range(2, HELD_MAX + 1):
        talk(f"0 packet {number} curl 192.0.2.1:443 => changed #1 held {number}")
    talk("0 packet 77 curl 192.0.2.1:443 => release 77 block")
    assert talk.counts() == {"crowded": 1}
    assert talk.prompts.prompts[0].packets == HELD_MAX + 1


def test_nobody_answers_in_time_and_somebody_answers_later():
    talk = Talk()
    talk("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        10  packet 2 wget 192.0.2.1:443             => publish #2 held 1
        59  tick                                    =>
        60  tick                                    => release 1 block, changed #1 unanswered
        61  packet 3 curl 192.0.2.1:443             => release 3 block
        62  answer #1 allow always                  => remember #1, gone #1
        63  packet 4 curl 192.0.2.1:443             => publish #3 held 1
        70  tick                                    => release 2 block, changed #2 unanswered
        71  answer #2 allow once                    => gone #2
    """)
    assert talk.counts() == {"timed_out": 2, "unanswered": 1}


def test_who_was_asked_in_vain_is_blocked_also_when_nobody_is_there_and_the_policy_would_allow():
    Talk(unattended=ALLOW)("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        60  tick                                    => release 1 block, changed #1 unanswered
        61  attend nobody                           =>
        62  packet 2 curl 192.0.2.1:443             => release 2 block
    """)


def test_a_late_packet_finds_the_time_over_and_a_late_answer_still_counts():
    Talk()("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        0   packet 2 wget 192.0.2.1:443             => publish #2 held 1
        60  answer #2 allow once                    => release 2 allow, gone #2
        60  packet 3 curl 192.0.2.1:443             => release 1 block, changed #1 unanswered, release 3 block
    """)


@pytest.mark.parametrize(("unattended", "word"), [(ALLOW, "allow"), (BLOCK, "block")])
def test_nobody_is_there(unattended, word):
    talk = Talk(unattended, attended=False)
    talk(f"""
        0   packet 1 curl 192.0.2.1:443             => release 1 {word}, publish #1 unanswered
        1   packet 2 curl 192.0.2.1:443             => release 2 {word}
        2   packet 3 wget 192.0.2.1:443             => release 3 {word}, publish #2 unanswered
        3   answer #1 block always                  => remember #1, gone #1
        4   attend somebody                         =>
        5   packet 4 wget 192.0.2.1:443             => publish #2 held 1
        6   attend nobody                           =>
        7   packet 5 wget 192.0.2.1:443             => changed #2 held 2
        65  tick                                    => release 4 block, release 5 block, changed #2 unanswered
    """)
    assert talk.counts() == {"unattended": 3, "timed_out": 2}
    assert [prompt.packets for prompt in talk.prompts.prompts] == [3]


def test_an_answer_is_one_to_all_prompts_that_it_covers():
    Talk()("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        0   packet 2 curl 192.0.2.1:80              => publish #2 held 1
        0   packet 3 curl 192.0.2.2:443             => publish #3 held 1
        0   packet 4 curl 192.0.2.1 icmp            => publish #4 held 1
        0   packet 5 wget 192.0.2.1:80              => publish #5 held 1
        0   packet 6 curl 192.0.2.1:80 in           => publish #6 held 1
        0   packet 7 curl 192.0.2.3:443 udp         => publish #7 held 1
        1   answer #1 allow always address          => release 1 allow, remember #1, gone #1, release 2 allow, gone #2, release 4 allow, gone #4
        2   answer #3 block program port            => release 3 block, remember #3, gone #3
        60  tick                                    => release 5 block, changed #5 unanswered, release 6 block, changed #6 unanswered, release 7 block, changed #7 unanswered
        61  packet 8 curl 192.0.2.9:22              => publish #8 held 1
        62  answer #8 allow time 5 anywhere         => release 8 allow, remember #8, gone #8, gone #7
    """)  # noqa: E501


def test_once_covers_no_other_prompt():
    Talk()("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        0   packet 2 curl 192.0.2.1:80              => publish #2 held 1
        1   answer #1 allow once anywhere           => release 1 allow, gone #1
    """)


def test_a_guess_is_a_prompt_of_its_own_that_no_lasting_answer_allows():
    talk = Talk()
    talk("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        0   packet 2 curl 192.0.2.1:443 guess       => publish #2 held 1
        0   packet 3 curl 192.0.2.1:80 guess        => publish #3 held 1
        1   answer #1 allow always anywhere         => release 1 allow, remember #1, gone #1
    """)
    with pytest.raises(ValueError, match="it is not certain which program this is"):
        talk.prompts.answer(2, Answer(True, Lasting.PROGRAM), 2.0)
    talk("""
        2   answer #2 allow once                    => release 2 allow, gone #2
        3   packet 4 curl 192.0.2.1:443             => publish #4 held 1
        4   answer #3 block always anywhere         => release 3 block, remember #3, gone #3, release 4 block, gone #4
    """)


def test_who_is_unknown_can_only_be_answered_once():
    talk = Talk()
    talk("0 packet 1 nobody 192.0.2.1:443 => publish #1 held 1")
    for allow in (True, False):
        with pytest.raises(ValueError, match="it is not known which program this is"):
            talk.prompts.answer(1, Answer(allow, Lasting.PROGRAM), 2.0)
    talk("2 answer #1 allow once => release 1 allow, gone #1")


def test_a_prompt_is_answered_once_only():
    talk = Talk()
    talk("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        1   answer #1 block once                    => release 1 block, gone #1
    """)
    for prompt_id in (0, 1, 2):
        with pytest.raises(NoSuchPromptError, match=f"there is no prompt {prompt_id}: "):
            talk.prompts.answer(prompt_id, Answer(True, Lasting.ONCE), 2.0)


def test_packets_that_the_kernel_lost_are_released_no_more():
    talk = Talk()
    talk("""
        0   packet 1 curl 192.0.2.1:443 flow a      => publish #1 held 1
        0   packet 2 curl 192.0.2.1:443             => changed #1 held 2
        0   packet 3 wget 192.0.2.1:443             => publish #2 held 1
        1   lost 1 1 99                             => changed #1 held 1
        2   packet 4 curl 192.0.2.1:443 flow a      => changed #1 held 2
        3   reopened                                => changed #1 held 0, changed #2 held 0
        4   packet 1 curl 192.0.2.1:443 flow a      => changed #1 held 1
        5   answer #1 allow once                    => release 1 allow, gone #1
        60  tick                                    => changed #2 unanswered
    """)
    assert talk.counts() == {"lost": 4}


def test_an_id_that_comes_again_is_another_packet():
    Talk()("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        1   packet 1 wget 192.0.2.1:443             => changed #1 held 0, publish #2 held 1
        2   answer #1 allow once                    => gone #1
        3   answer #2 block once                    => release 1 block, gone #2
    """)


def test_an_id_that_comes_again_when_the_time_of_the_first_packet_is_over_is_not_released_for_it():
    Talk()("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        61  packet 1 wget 192.0.2.1:443             => changed #1 held 0, changed #1 unanswered, publish #2 held 1
    """)


def test_too_many_prompts_wait():
    talk = Talk(capacity=2)
    talk("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        10  packet 2 wget 192.0.2.1:443             => publish #2 held 1
        11  packet 3 ssh 192.0.2.1:22               => release 3 block, publish #3 unanswered
        12  packet 4 ssh 192.0.2.1:22               => release 4 block
        13  packet 5 ssh 192.0.2.2:22               => release 5 block, publish #4 unanswered
        14  packet 6 ssh 192.0.2.3:22               => release 6 block, gone #3, publish #5 unanswered
        60  tick                                    => release 1 block, gone #4, changed #1 unanswered
        61  packet 7 ssh 192.0.2.3:22               => publish #5 held 1
        62  packet 8 ssh 192.0.2.1:22               => release 8 block, publish #6 unanswered
    """)
    assert talk.counts() == {"full": 5, "forgotten": 2, "timed_out": 1}
    assert [prompt.id for prompt in talk.prompts.prompts] == [2, 5, 1, 6]


def test_one_program_leaves_room_for_others():
    talk = Talk(capacity=4)
    talk("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        1   packet 2 curl 192.0.2.2:443             => publish #2 held 1
        2   packet 3 curl 192.0.2.3:443             => publish #3 held 1
        3   packet 4 curl 192.0.2.4:443             => release 4 block, publish #4 unanswered
        4   packet 5 wget 192.0.2.1:443             => publish #5 held 1
        5   packet 6 ssh 192.0.2.1:22               => release 6 block, publish #6 unanswered
        6   answer #1 block once                    => release 1 block, gone #1
        7   packet 7 curl 192.0.2.4:443             => publish #4 held 1
    """)
    assert talk.counts() == {"full": 2}


def test_connections_decided_once_are_bounded():
    talk = Talk()
    for number in range(CONNECTIONS_MAX + 3):
        packet(talk.prompts, number, "curl", "192.0.2.1:443", [], 0.0)
        talk.prompts.answer(number + 1, Answer(True, Lasting.ONCE), 0.0)
    assert talk.counts() == {"connections": 3}
    talk(f"""
        1   packet {CONNECTIONS_MAX + 9} curl 192.0.2.1:443 flow x  => publish #{CONNECTIONS_MAX + 4} held 1
        1   packet 2 curl 192.0.2.1:443             => changed #{CONNECTIONS_MAX + 4} held 2
        1   packet 3 curl 192.0.2.1:443             => release 3 allow
    """)


def test_of_the_connections_decided_once_the_oldest_goes_and_is_counted_only_while_its_answer_holds():
    talk = Talk()

    def decide(flow: str, now: float) -> None:
        talk.tell(["packet", "1", "curl", "192.0.2.1:443", "flow", flow], now)
        (prompt,) = talk.prompts.prompts
        talk.prompts.answer(prompt.id, Answer(True, Lasting.ONCE), now)

    for number in range(CONNECTIONS_MAX):
        decide(str(number), 0.0)
    # One of the oldest is decided anew, and is the newest then.
    for flow in ("1", "new", "newer"):
        decide(flow, CONNECTION_S)
    assert talk.counts() == {}
    talk(f"{CONNECTION_S} packet 1 curl 192.0.2.1:443 flow 1 => release 1 allow")


def test_a_clock_that_is_set_back_makes_nobody_wait_longer():
    talk = Talk()
    talk("""
        1000 packet 1 curl 192.0.2.1:443            => publish #1 held 1
        1000 answer #1 allow once                   => release 1 allow, gone #1
        1000 packet 2 curl 192.0.2.1:443            => publish #2 held 1
        1020 packet 3 wget 192.0.2.1:443            => publish #3 held 1
        100  packet 1 curl 192.0.2.1:443            => changed #2 held 1, changed #3 held 1, changed #2 held 2
    """)
    assert talk.prompts.deadline() == 160.0
    talk("160 tick => release 2 block, release 1 block, changed #2 unanswered, release 3 block, changed #3 unanswered")


@pytest.mark.parametrize(
    ("timeout_s", "unattended"),
    [(0.0, BLOCK), (-1.0, BLOCK), (float("inf"), BLOCK), (float("nan"), BLOCK), (60.0, Action.REJECT)],
)
def test_arguments_that_make_no_sense_are_refused(timeout_s, unattended):
    with pytest.raises(ValueError, match=r"cannot be done|not a time"):
        Prompts(timeout_s, unattended, True)


def test_five_hundred_prompts_answered_in_any_order():
    prompts = Prompts(TIMEOUT_S, BLOCK, True)
    for number in range(1, 501):
        (asked,) = packet(prompts, number, "curl", f"192.0.2.{number % 250}:{number}", [], number / 100)
        assert isinstance(asked, Publish)
        assert asked.prompt.id == number
    order = list(range(1, 501))
    random.Random(4).shuffle(order)
    for at, number in enumerate(order):
        allow = number % 3 == 0
        assert prompts.answer(number, Answer(allow, Lasting.ONCE), 10.0) == [Release(number, allow), Gone(number)]
        left = order[at + 1 :]
        assert prompts.deadline() == (min(left) / 100 + TIMEOUT_S if left else None)
    assert prompts.prompts == []


CAPACITY = 3
REMOTES = ["192.0.2.1:443", "192.0.2.1:80", "192.0.2.2:443", "192.0.2.3"]
ANSWERS = ["allow once", "block once", "allow always", "allow program port", "block always address",
           "allow time 9 anywhere", "block program anywhere"]  # fmt: skip
STEPS = st.one_of(
    st.tuples(
        st.just("packet"),
        st.integers(1, 30),
        st.sampled_from(["curl", "wget", "nobody"]),
        st.sampled_from(REMOTES),
        st.lists(st.sampled_from(["guess", "in"]), max_size=2),
        st.sampled_from("abcdefghijkl"),
    ),
    st.tuples(st.just("answer"), st.integers(0, 7), st.sampled_from(ANSWERS)),
    st.tuples(st.just("attend"), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([1, 10, 40, 61, 200, -30])),
    st.tuples(st.just("sleep"), st.sampled_from([30, 61])),
    st.tuples(st.just("lost"), st.lists(st.integers(1, 30), max_size=3)),
)
Fact = tuple[Subject, bool, str]
"""Subject, whether it is a guess, and the connection."""


class Witness:
    """Sees every step and every command, and keeps a book of its own: what waits in the kernel, what may pass."""

    def __init__(self, unattended: Action) -> None:
        self.prompts = Prompts(TIMEOUT_S, unattended, True, capacity=CAPACITY)
        self.nobody_allows, self.attended = unattended is ALLOW, True
        self.now = 1000.0
        self.in_kernel: dict[int, Fact] = {}
        self.allowed_once: set[Fact] = set()
        self.listed: set[int] = set()

    def step(self, step: tuple) -> None:
        match step:
            case ("packet", number, name, remote, words, key):
                words = [*words, "flow", key, *([] if ":" in remote else ["icmp"])]
                flow, program, certainty = facts(name, remote, words)
                fact = (subject_of(flow, program), certainty is Certainty.GUESS, key)
                self.in_kernel[number] = fact
                may = (self.nobody_allows and not self.attended) or fact in self.allowed_once
                commands = packet(self.prompts, number, name, remote, words, self.now)
                self.check(commands, {number} if may else set())
            case ("answer", at, text):
                waiting = self.prompts.prompts
                if waiting:
                    self.answer(waiting[at % len(waiting)], read_answer(text.split()))
            case ("attend", attended):
                self.attended = attended
                self.check(self.prompts.attend(attended, self.now), set())
            case ("lost", numbers):
                for number in numbers:
                    self.in_kernel.pop(number, None)
                self.check(self.prompts.lost(numbers), set())
            case ("sleep", seconds):
                # Time passes, and the next to happen is something else than a tick.
                self.now += seconds
            case ("wait", seconds):
                self.now += seconds
                self.check(self.prompts.tick(self.now), set())
                due = self.prompts.deadline()
                assert due is None or self.now < due <= self.now + TIMEOUT_S

    def answer(self, prompt: Prompt, answer: Answer) -> None:
        may = set()
        for number, (subject, is_guess, _) in self.in_kernel.items():
            own = (subject, is_guess) == (prompt.subject, prompt.certainty is Certainty.GUESS)
            lasts = answer.lasting is not Lasting.ONCE
            if answer.allow and (own or (lasts and not is_guess and covers(prompt.subject, answer.scope, subject))):
                may.add(number)
        before = (self.prompts.prompts, dict(self.prompts.counts))
        facts_before = dict(self.in_kernel)
        try:
            commands = self.prompts.answer(prompt.id, answer, self.now)
        except ValueError:
            assert (self.prompts.prompts, self.prompts.counts) == before
            assert answer.lasting is not Lasting.ONCE
            return
        self.check(commands, may)
        # Whoever could be allowed now was.
        assert {command.packet_id for command in commands if isinstance(command, Release) and command.allow} == may
        assert (Remember(prompt, answer) in commands) is (answer.lasting is not Lasting.ONCE)
        if answer.lasting is Lasting.ONCE:
            for command in commands:
                if isinstance(command, Release):
                    (self.allowed_once.add if answer.allow else self.allowed_once.discard)(
                        facts_before[command.packet_id]
                    )

    def check(self, commands: list[PromptCommand], may_pass: set[int]) -> None:
        for command in commands:
            match command:
                case Release(number, allow):
                    # A second release of the same packet finds it no more.
                    del self.in_kernel[number]
                    assert not allow or number in may_pass
                case Publish(prompt):
                    self.listed.add(prompt.id)
                case Changed(prompt):
                    assert prompt.id in self.listed
                case Gone(prompt_id):
                    self.listed.remove(prompt_id)
        prompts = self.prompts.prompts
        assert sum(prompt.held for prompt in prompts) == len(self.in_kernel)
        assert {prompt.id for prompt in prompts} == self.listed
        for state in State:
            assert sum(prompt.state is state for prompt in prompts) <= CAPACITY
        assert all(prompt.held <= (HELD_MAX if prompt.state is State.WAITING else 0) for prompt in prompts)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from([ALLOW, BLOCK]), st.lists(STEPS, max_size=80))
def test_each_packet_gets_one_verdict_and_none_passes_without_a_word_for_it(unattended, steps):
    witness = Witness(unattended)
    for step in steps:
        witness.step(step)
    witness.step(("wait", 61))
    assert witness.in_kernel == {}
    assert witness.prompts.deadline() is None
