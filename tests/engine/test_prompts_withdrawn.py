"""Dialogues with the machine of prompts: of different users, about what is asked no more, and how they are numbered."""

from __future__ import annotations

from tests.engine.test_prompts import BLOCK, TIMEOUT_S, Talk, packet

from pfw.engine.prompts import Prompts
from pfw.model.prompt import Publish


def test_each_user_is_asked_about_for_himself():
    """Nobody joins another's prompt, is allowed with it, or is blocked because nobody answered that."""
    Talk()("""
        0   packet 1 curl 192.0.2.1:443 user 1234               => publish #1 held 1
        0   packet 2 curl 192.0.2.1:443 user 4321 flow a        => publish #2 held 1
        1   answer #1 allow once                                => release 1 allow, gone #1
        2   packet 3 curl 192.0.2.1:443 user 1234 flow a        => publish #3 held 1
        60  tick                       => release 2 block, changed #2 unanswered
        61  packet 4 curl 192.0.2.1:443 user 4321               => release 4 block
        61  packet 5 curl 192.0.2.1:443 user 0                  => publish #4 held 1
        62  tick                       => release 3 block, changed #3 unanswered
    """)


def test_an_answer_that_lasts_is_about_the_program_whoever_runs_it():
    Talk()("""
        0   packet 1 curl 192.0.2.1:443 user 1234               => publish #1 held 1
        0   packet 2 curl 192.0.2.1:443 user 4321               => publish #2 held 1
        1   answer #1 allow time 60  => release 1 allow, remember #1, gone #1, release 2 allow, gone #2
    """)


def test_what_is_asked_no_more_is_blocked_and_forgotten():
    talk = Talk()
    talk("""
        0   packet 1 curl 192.0.2.1:443             => publish #1 held 1
        0   packet 2 wget 192.0.2.1:443 flow b      => publish #2 held 1
        60  tick                    => release 1 block, changed #1 unanswered, release 2 block, changed #2 unanswered
        60  packet 3 ssh 192.0.2.1:22               => publish #3 held 1
        61  withdraw 1 3 9                          => gone #1, release 3 block, gone #3
        62  packet 4 curl 192.0.2.1:443             => publish #4 held 1
        63  packet 5 ssh 192.0.2.1:22               => publish #5 held 1
        64  withdraw 4 5 2                          => release 4 block, gone #4, release 5 block, gone #5, gone #2
    """)
    assert (talk.prompts.prompts, talk.prompts.get(4), talk.prompts.deadline()) == ([], None, None)


def test_numbers_go_on_from_the_first():
    prompts = Prompts(TIMEOUT_S, BLOCK, True, first_id=123451)
    (asked,) = packet(prompts, 1, "curl", "192.0.2.1:443", [], 0.0)
    (other,) = packet(prompts, 2, "wget", "192.0.2.1:443", [], 0.0)
    assert (asked, other) == (Publish(prompts.get(123451)), Publish(prompts.get(123452)))
