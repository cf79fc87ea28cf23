"""The words for the daemon and what it is asked: numbers that are none, and what stands there without options."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from pfw.cli.parser import build_parser
from pfw.cli.parser_programs import mask, pid, port


@pytest.mark.parametrize(("text", "value"), [("0xff000000", 0xFF000000), ("0x1", 1), ("4294967295", 0xFFFFFFFF)])
def test_mask(text, value):
    assert mask(text) == value


@pytest.mark.parametrize("text", ["", "0", "0x100000000", "-1", "ff", "0xg", "٣", "0x" + "f" * 99])
def test_no_mask(text):
    with pytest.raises(ArgumentTypeError, match="is not a mask"):
        mask(text)


@pytest.mark.parametrize(
    ("take", "texts"), [(pid, ["", "0", "-1", "2147483648", "x", "٣"]), (port, ["", "-1", "65536"])]
)
def test_no_number(take, texts):
    for text in texts:
        with pytest.raises(ArgumentTypeError):
            take(text)


def test_what_they_give():
    assert (pid("2147483647"), port("0"), port("65535")) == (2147483647, 0, 65535)


def test_the_daemon_without_options():
    options = build_parser().parse_args(["daemon"])
    assert (options.rules, options.cgroup, options.mask, options.labels) == (None, None, None, True)
    assert build_parser().parse_args(["daemon", "--no-labels"]).labels is False


@pytest.mark.parametrize("name", ["ask", "apps", "connections", "why"])
def test_all_that_answer_take_json(name):
    words = [name, *(["1"] if name == "why" else []), "--json"]
    assert build_parser().parse_args(words).json is True
