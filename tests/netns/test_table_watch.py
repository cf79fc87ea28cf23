"""What the kernel tells of changes of a table, against those that `nft` makes."""

from __future__ import annotations

import subprocess
import threading
from typing import Any

import pytest

from pfw.drivers import netfilter
from pfw.drivers.table_watch import Change, TableWatch


@pytest.fixture
def nft(namespace: Any) -> Any:
    at = namespace()

    def run(text: str) -> int:
        process = subprocess.Popen(at.command("nft", text))
        assert process.wait(20) == 0
        return process.pid

    run.at = at  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize(
    ("text", "deleted"),
    [
        ("delete table inet pfw", True),
        ("flush ruleset", True),
        ("flush table inet pfw", True),
        ("delete chain inet pfw empty", True),
        ("add rule inet pfw in drop", False),
        ("table inet pfw { flags dormant; }", False),
    ],
)
def test_who_changed_what(nft: Any, text: str, deleted: bool) -> None:
    nft("table inet pfw { set s { type ipv4_addr; }; chain empty { }; chain in { counter; }; }")
    watch = nft.at.call(lambda: TableWatch("pfw"))
    try:
        assert watch.read() == []
        process = nft(text)
        assert watch.read() == [Change(process, "nft", deleted)]
        assert watch.read() == []
    finally:
        watch.close()


def test_what_is_no_affair_of_ours(nft: Any) -> None:
    nft("table inet pfw { set s { type ipv4_addr; }; }; table ip pfw { chain c { }; }; table inet other { }")
    watch = nft.at.call(lambda: TableWatch("pfw"))
    try:
        nft("add element inet pfw s { 192.0.2.1 }")
        nft("delete table inet other; delete table ip pfw")
        assert watch.read() == []
    finally:
        watch.close()


def test_what_we_do_ourselves_is_told_too(nft: Any) -> None:
    nft("table inet pfw { chain ask { }; }")
    watch = nft.at.call(lambda: TableWatch("pfw"))
    try:
        thread = nft.at.call(lambda: (netfilter.close_chain("pfw", "ask"), threading.get_native_id())[1])
        (change,) = watch.read()
        assert change.process == thread
    finally:
        watch.close()


def test_more_than_there_is_room_for(nft: Any) -> None:
    """Then it is told that something was."""
    watch = nft.at.call(lambda: TableWatch("pfw"))
    try:
        rules = "".join(f"add rule inet pfw c ip saddr 10.0.{n // 250}.{n % 250} counter drop\n" for n in range(20_000))
        words = nft.at.command("nft", "-f", "-")
        subprocess.run(words, input=f"table inet pfw {{ chain c {{ }}; }}\n{rules}", text=True, check=True)
        found = []
        while more := watch.read():
            found += more
        assert Change() in found
        process = nft("delete table inet pfw")
        told = []
        while more := watch.read():
            told += more
        assert told
        assert told[-1] in (Change(process, "nft", deleted=True), Change())
    finally:
        watch.close()
