"""Prompts: what is shown, what keys and words mean, and which is next."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pfw.api.interface import Program, Prompt, PromptsResult
from pfw.cli import prompts
from pfw.cli.prompts import Choice, Queue
from pfw.cli.table import columns

NOW = 1_800_000_000.0
PROGRAM = Program(
    pid=7, path="/usr/bin/python3", shown="python3", command=("python3", "it's", ""), script="/x.py", user="", uid=5,
    parents=(),
)  # fmt: skip
ANY = st.text(max_size=40)
WORDS = ("7", "allow", "block", "once", "port", "1h", "ever", "\x1b")


def prompt(number: int = 1, **more: object) -> Prompt:
    settings: dict = {
        "id": number, "asked": NOW, "until": NOW + 30, "direction": "out", "protocol": "tcp", "remote": "192.0.2.1",
        "port": 443, "program": PROGRAM, "certainty": "socket", "rule": "r", "held": 0, "state": "waiting",
    }  # fmt: skip
    return Prompt(**settings | more)


def result(*found: Prompt, gone: tuple[int, ...] = ()) -> PromptsResult:
    return PromptsResult(prompts=found, gone=gone)


class TestWhatIsShown:
    def test_a_script_and_its_command(self):
        assert prompts.prompt_lines(prompt(), None) == [
            "#1  /usr/bin/python3 /x.py wants to reach",
            "  192.0.2.1 on tcp port 443",
            "  process 7, as - (5)",
            r"  command: python3 'it'\''s' ''",
            '  asked by rule "r"',
        ]

    @pytest.mark.parametrize(
        ("more", "first"),
        [
            ({"program": None}, ["#1  an unknown program wants to reach", "  192.0.2.1 on tcp port 443"]),
            (
                {"direction": "in", "port": 22, "service": "ssh"},
                ["#1  /usr/bin/python3 /x.py is called from", "  192.0.2.1 on tcp port 22 (ssh)"],
            ),
            ({"port": None, "protocol": "icmp"}, ["#1  /usr/bin/python3 /x.py wants to reach", "  192.0.2.1 on icmp"]),
            (
                {"host": "a\x1bb"},
                ["#1  /usr/bin/python3 /x.py wants to reach", "  192.0.2.1 on tcp port 443", r"  known as a\x1bb"],
            ),
            (
                {"program": Program(pid=1, shown="[deleted]", command=(), user="u", uid=1, parents=())},
                ["#1  ([deleted]) wants to reach", "  192.0.2.1 on tcp port 443"],
            ),
        ],
    )
    def test_who_and_where(self, more, first):
        assert prompts.prompt_lines(prompt(**more), None)[: len(first)] == first

    @pytest.mark.parametrize("width", [20, 39, 40, 60, 79, 80])
    @pytest.mark.parametrize("remote", ["203.0.113.200", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"])
    @pytest.mark.parametrize("direction", ["in", "out"])
    @pytest.mark.parametrize("letter", ["x", "例", "e\u0301"])
    def test_address_and_port_whatever_the_names(self, letter, direction, remote, width):
        """The program chooses its path, and can plant the host's name."""
        own = replace(PROGRAM, path=f"/home/u/{letter * 240}/fox", script=None)
        host = f"deb.debian.org.{letter * 200}.evil.test"
        lines = prompts.prompt_lines(
            prompt(program=own, host=host, remote=remote, port=65535, service="s", direction=direction), width
        )
        assert max(map(columns, lines)) <= width
        assert "".join("".join(lines[1:5]).split()).startswith(f"{remote}ontcpport65535(s)")
        if width >= 39:
            assert lines[1].split()[0] == remote
            assert lines[0].startswith("#1  /home/u/")
            assert lines[0].endswith("/fox is called from" if direction == "in" else "/fox wants to reach")
            (known,) = [line for line in lines if line.startswith("  known as deb.debian.")]
            assert known.endswith(".evil.test")

    @pytest.mark.parametrize(
        ("path", "width", "first"),
        [
            ("/x", 10, "#1  /x wa…"),
            ("/usr/bin/curl", 10, "#1  /usr……"),
            ("/usr/bin/curl", 31, "#1  /usr/b…/curl wants to reach"),
            ("/usr/bin/curl", 32, "#1  /usr/bin/curl wants to reach"),
            ("例例例例例例例", 31, "#1  例例例…例例 wants to reach"),
        ],
    )
    def test_a_name_where_there_is_little_room(self, path, width, first):
        own = replace(PROGRAM, path=path, script=None)
        assert prompts.prompt_lines(prompt(program=own), width)[0] == first

    @pytest.mark.parametrize("remote", ["203.0.113.200", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"])
    def test_address_and_port_in_the_list(self, remote):
        own = replace(PROGRAM, path=f"/home/u/{'x' * 240}")
        one = prompt(54321, program=own, host="h" * 250, remote=remote, port=65535)
        (line,) = prompts.list_lines([one], NOW, 80)[1:]
        assert f" {remote} " in line
        assert " tcp/65535 " in line

    @pytest.mark.parametrize(
        ("certainty", "words"),
        [("label", None), ("socket", None), ("proc", "several processes"), ("guess", "only be allowed once"),
         ("new\x1b", r"found: new\x1b")],
    )  # fmt: skip
    def test_doubt_is_said(self, certainty, words):
        last = prompts.prompt_lines(prompt(certainty=certainty), None)[-1]
        assert words in last if words else "rule" in last

    @given(ANY, ANY, ANY, st.integers(1, 120))
    def test_whatever_it_is_called(self, path, word, host, width):
        evil = Program(pid=1, path=path, shown=word, command=(word, path), script=host, user=word, uid=0,
                       unit=path, parents=(host, word))  # fmt: skip
        one = prompt(program=evil, host=host, rule=word, protocol=path, service=word, certainty=host, state=path)
        question = prompts.question(one, Choice(), NOW, 3, width)
        lines = [*prompts.prompt_lines(one, width), question, *prompts.list_lines([one], NOW, width)]
        assert max(map(columns, lines)) <= width
        for line in [*lines, prompts.line(one)]:
            assert not any(ord(each) < 32 or 0x7F <= ord(each) < 0xA0 or each in "\u2028\u202e" for each in line)

    @pytest.mark.parametrize(
        ("more", "choice", "others", "begins"),
        [
            ({}, Choice(), 0, "[30 s left] (a)llow (b)lock this once, exactly this?"),
            ({"until": NOW - 5}, Choice("always", "port"), 1200, "[0 s left, 1,200 more] (a)llow (b)lock always, "),
            ({"until": None}, Choice("time", "address", 3600), 0, "[waits] (a)llow (b)lock for an hour, this address?"),
            ({"state": "unanswered"}, Choice("time", "anywhere", 90), 1,
             "[time is up: for the next time, 1 more] (a)llow (b)lock for 90 s, anywhere?"),
        ],
    )  # fmt: skip
    def test_the_question(self, more, choice, others, begins):
        assert prompts.question(prompt(**more), choice, NOW, others, None).startswith(begins)

    def test_the_help_tells_of_every_key_and_fits(self):
        assert max(map(len, prompts.HELP.splitlines())) < 80
        for key in (*prompts.ACTION_KEYS, *prompts.LASTING_KEYS, *prompts.SCOPE_KEYS, *"srlq?"):
            assert any(f" {key} " in f" {line} " for line in prompts.HELP.splitlines()), key


class TestWords:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("7 allow", Choice()),
            ("7 allow  always port ", Choice("always", "port")),
            ("7 allow anywhere 30m", Choice("time", "anywhere", 1800)),
            ("7 allow ever", Choice("always")),
            ("7 allow program", Choice("program")),
            ("7 allow 24d", Choice("time", "exact", 24 * 86400)),
        ],
    )
    def test_a_line(self, line, expected):
        assert prompts.parse_line(line) == prompts.answer(7, "allow", expected)

    @given(st.text(max_size=80) | st.lists(st.sampled_from(WORDS)).map(" ".join))
    def test_any_line_is_an_answer_or_a_fault(self, text):
        with suppress(ValueError):
            found = prompts.parse_line(text)
            number, action, *more = text.split()
            assert (int(number), action) == (found.id, found.action)
            assert len(more) <= 2

    def test_a_key_that_chooses_nothing(self):
        assert prompts.pressed(Choice("always"), "x") is None


class TestQueue:
    def test_the_most_urgent_is_next(self):
        queue = Queue()
        queue.update(result(prompt(1, state="unanswered"), prompt(2, until=None), prompt(3, until=NOW + 9), prompt(4)))
        order = []
        while (each := queue.next()) is not None:
            order.append(each.id)
            queue.remove(each.id)
        assert order == [3, 4, 2, 1]

    def test_what_is_new_and_what_has_changed(self):
        queue = Queue()
        assert [each.id for each in queue.update(result(prompt(1), prompt(2)))] == [1, 2]
        assert queue.update(result(prompt(2, held=5), gone=(1, 99))) == []
        assert [(each.id, each.held) for each in queue] == [(2, 5)]

    def test_news_that_was_on_the_way_while_it_was_answered(self):
        queue = Queue()
        queue.update(result(prompt(1)))
        queue.answered(1)
        assert queue.update(result(prompt(1, held=2))) == []
        assert queue.next() is None
        queue.update(result(gone=(1,)))
        assert queue.update(result(prompt(1))) == [prompt(1)]

    def test_put_off(self):
        queue = Queue()
        queue.update(result(prompt(1), prompt(2), prompt(3)))
        queue.defer(1)
        queue.defer(2)
        queue.defer(77)
        assert (queue.next(), queue.put_off, queue.others(3)) == (prompt(3), 2, 0)
        queue.update(result(gone=(1,)))
        assert queue.put_off == 1
        queue.bring_back()
        assert (queue.next(), queue.put_off, queue.others(2)) == (prompt(2), 0, 1)
