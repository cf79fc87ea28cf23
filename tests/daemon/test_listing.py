"""Block lists on the disk: fetched when due, replaced by better ones alone, read back whole or not at all."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from pfw.daemon import listing
from pfw.daemon.listing import Refreshed, is_due, load, prune, refresh, why
from pfw.daemon.state import State
from pfw.drivers.download import fetch, version_of
from pfw.drivers.store import Store
from pfw.model.address import AddressSet, format_range, parse_address, parse_range
from pfw.model.policy import Blocklist, Policy

NOON = 1_795_392_000.0
DAY_S = 86400
NOBODY = AddressSet()


def addresses(text: str) -> AddressSet:
    return AddressSet([parse_range(word) for word in text.split()])


def hosts(count: int, net: str = "203.0.113") -> str:
    """Every second address, so that none touch."""
    return "".join(f"{net}.{2 * number}\n" for number in range(count))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source.txt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "lists"


@pytest.fixture
def go(folder: Path) -> Callable[..., Refreshed]:
    """Refresh one list, at noon unless told otherwise; `told` are the lines on the way."""

    def go(each: Blocklist, **options: object) -> Refreshed:
        given = {"own": NOBODY, "now": NOON, "due_only": False, "accept_shrunken": False, "progress": told.append}
        given |= options
        [result] = refresh(folder, [each], given.pop("own"), given.pop("now"), **given)
        assert result.line.isprintable()
        assert result.line.startswith(f"{each.name}: ")
        return result

    told: list[str] = []
    go.told = told
    return go


@pytest.fixture
def web(monkeypatch) -> Iterator[SimpleNamespace]:
    """A list on a web server: `body` and `status` may be set, `asked` are the headers of the requests."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    it = SimpleNamespace(body=b"", status=200, asked=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            it.asked.append(self.headers)
            same = self.headers["If-None-Match"] == f'"{hash(it.body)}"'
            self.send_response(304 if same and it.status == 200 else it.status)
            self.send_header("ETag", f'"{hash(it.body)}"')
            self.end_headers()
            self.wfile.write(b"" if same else it.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    it.url = f"http://reader:geheim@127.0.0.1:{server.server_port}/list?key=geheim"
    it.public = f"http://127.0.0.1:{server.server_port}/list?…"
    yield it
    server.shutdown()
    thread.join()
    server.server_close()


def of(path: object, name: str = "drop", **fields: object) -> Blocklist:
    return Blocklist(name=name, source=str(path), **fields)


def text_of(folder: Path, name: str = "drop") -> list[str]:
    return (folder / f"{name}.txt").read_text().splitlines()


def record_of(folder: Path, name: str = "drop") -> dict[str, object]:
    return json.loads((folder / f"{name}.json").read_text())


class TestTaking:
    def test_what_is_on_the_disk_afterwards(self, folder, source, go):
        source.write_text("2001:db8::/32 ; x\n8.8.8.8\n10.0.0.0/8\nodd\n198.51.100.9-198.51.100.8\n"
                          "198.51.100.0/25\n198.51.100.128/25\n1.2.3.4-1.2.3.9\n")  # fmt: skip
        result = go(of(source), own=addresses("8.8.8.8"))
        assert result == Refreshed(
            name="drop",
            outcome="updated",
            line="drop: 6 entries; 2 ranges taken out, private or this machine's own; 2 lines left out that are no "
            'entry, such as "odd"',
            entries=6,
            addresses=2**96 + 256 + 6,
            skipped=2,
            removed=2**24 + 1,
        )
        assert text_of(folder) == ["1.2.3.4-1.2.3.9", "198.51.100.0/24", "2001:db8::/32"]
        assert record_of(folder) == {
            "source": str(source),
            "fetched_at": NOON,
            "changed_at": NOON,
            "entries": 6,
            "addresses": 2**96 + 256 + 6,
            "skipped": 2,
            "removed": 2**24 + 1,
            "has_own": True,
            "size_bytes": len("1.2.3.4-1.2.3.9\n198.51.100.0/24\n2001:db8::/32\n"),
            "etag": None,
            "modified": version_of(str(source)),
            "last_error": None,
            "last_error_at": None,
        }
        assert stat.S_IMODE((folder / "drop.txt").stat().st_mode) == 0o644
        assert stat.S_IMODE((folder / "drop.json").stat().st_mode) == 0o600
        assert sorted(path.name for path in folder.iterdir()) == ["drop.json", "drop.txt"]

    def test_what_is_read_back(self, folder, source, go):
        source.write_text("2001:db8::/32\n8.8.8.8\n1.2.3.4-1.2.3.9\n")
        go(of(source))
        stored = load(folder, [of(source), of(source, "other")])
        assert list(stored) == ["drop"]
        assert stored["drop"].addresses == addresses("2001:db8::/32 8.8.8.8 1.2.3.4-1.2.3.9")
        assert (stored["drop"].record.source, stored["drop"].record.entries) == (str(source), 3)

    def test_the_same_again(self, folder, source, go):
        source.write_text("8.8.8.8\n")
        go(of(source))
        before = (folder / "drop.txt").stat()
        source.write_text("# another remark\n8.8.8.8/32\n")
        result = go(of(source), now=NOON + 9)
        assert (result.outcome, result.line) == ("unchanged", "drop: unchanged, 1 entry")
        assert (folder / "drop.txt").stat() == before
        assert (record_of(folder)["changed_at"], record_of(folder)["fetched_at"]) == (NOON, NOON + 9)

    def test_another_one(self, folder, source, go):
        source.write_text("8.8.8.8\n")
        go(of(source))
        source.write_text("8.8.4.4\n")
        assert go(of(source), now=NOON + 9).outcome == "updated"
        assert (text_of(folder), record_of(folder)["changed_at"]) == (["8.8.4.4"], NOON + 9)

    def test_several_lists_of_which_one_is_off_and_one_is_nowhere(self, folder, source, tmp_path):
        source.write_text("8.8.8.8\n")
        lists = [of(source, "a"), of(tmp_path / "none", "b"), of(source, "c", enabled=False), of(source, "d")]
        told: list[str] = []
        results = refresh(folder, lists, NOBODY, NOON, due_only=False, accept_shrunken=False, progress=told.append)
        assert [(each.name, each.outcome) for each in results] == [("a", "updated"), ("b", "failed"), ("d", "updated")]
        assert told == [f"a: fetching {source}", f"b: fetching {tmp_path / 'none'}", f"d: fetching {source}"]
        assert sorted(load(folder, lists)) == ["a", "d"]


class TestKeeping:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "has no entry"),
            ("# nothing today\n", "has no entry"),
            ("<p>\n", 'has no entry, but lines such as "<p>"'),
            ("<!doctype html>\n8.8.8.8\n", "is a web page, not a list"),
            ("192.168.0.0/16\n", "has nothing but private addresses and this machine's own"),
            (hosts(19), "has shrunk from 40 entries to 19, which looks like a mistake"),
        ],
    )
    def test_what_is_no_good_leaves_the_old_one(self, folder, source, go, content, reason):
        source.write_text(hosts(40))
        go(of(source))
        before = text_of(folder)
        source.write_text(content)
        result = go(of(source), now=NOON + 7200)
        assert result.outcome == "kept"
        assert result.line == f"drop: {source}: {reason}; the list of 2 hours ago stays (40 entries)"
        assert (result.entries, result.addresses) == (40, 40)
        assert text_of(folder) == before
        record = record_of(folder)
        assert (record["last_error"], record["last_error_at"]) == (f"{source}: {reason}", NOON + 7200)
        assert record["fetched_at"] == NOON
        source.write_text(hosts(40))
        assert go(of(source), now=NOON + 7201).outcome == "unchanged"
        assert record_of(folder)["last_error"] is None

    def test_half_is_enough_and_short_lists_come_and_go(self, folder, source, go):
        for before, after in ((40, 20), (19, 1)):
            source.write_text(hosts(before))
            go(of(source), accept_shrunken=True)
            source.write_text(hosts(after))
            assert go(of(source)).outcome == "updated"

    def test_whoever_accepts_it_gets_it(self, folder, source, go):
        source.write_text(hosts(40))
        go(of(source))
        source.write_text(hosts(2))
        assert go(of(source), accept_shrunken=True).outcome == "updated"
        source.write_text("# nothing today\n")
        assert go(of(source), accept_shrunken=True).outcome == "updated"
        assert load(folder, [of(source)])["drop"].addresses == NOBODY
        source.write_text("<p>")
        assert go(of(source), accept_shrunken=True).outcome == "kept"

    def test_too_many(self, folder, source, go, monkeypatch):
        source.write_text(hosts(3))
        go(of(source))
        monkeypatch.setattr("pfw.wire.blocklist.ENTRIES_MAX", 4)
        source.write_text(hosts(5))
        result = go(of(source), accept_shrunken=True)
        assert result.line == f"drop: {source}: has more than 4 entries; the list of 0 seconds ago stays (3 entries)"

    def test_nothing_to_keep(self, folder, source, go):
        result = go(of(source))
        assert (result.outcome, result.line) == (
            "failed",
            f"drop: {source}: No such file or directory; it blocks nothing yet",
        )
        assert listing.record_of(folder, of(source)).last_error == f"{source}: No such file or directory"
        assert listing.record_of(folder, of(source, "other")) == listing.Record()
        assert load(folder, [of(source)]) == {}

    def test_another_source_is_not_compared_and_its_failure_keeps_the_old_list(self, folder, source, go, tmp_path):
        source.write_text(hosts(40))
        go(of(source))
        other = tmp_path / "other.txt"
        assert go(of(other)).outcome == "kept"
        assert record_of(folder)["source"] == str(source)
        other.write_text("8.8.8.8\n")
        assert go(of(other)).outcome == "updated"
        assert (text_of(folder), record_of(folder)["source"]) == (["8.8.8.8"], str(other))

    def test_a_disk_that_takes_nothing(self, folder, source, go, monkeypatch):
        source.write_text(hosts(3))
        go(of(source))
        source.write_text(hosts(4))

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device", "x")

        monkeypatch.setattr("pfw.drivers.store.Store.write", full)
        result = go(of(source), now=NOON + 60)
        assert result.line == "drop: No space left on device; the list of 1 minute ago stays (3 entries)"
        assert len(text_of(folder)) == 3


class TestDue:
    def test_only_lists_that_are_due(self, folder, web, go):
        web.body = b"8.8.8.8\n"
        each = of(web.url, refresh_s=3600)
        assert is_due(folder, each, NOON)
        assert go(each, due_only=True).outcome == "updated"
        assert not is_due(folder, each, NOON + 3599)
        result = go(each, now=NOON + 3599, due_only=True)
        assert (result.outcome, result.line, result.entries) == ("fresh", "drop: not due yet, 1 entry", 1)
        assert len(web.asked) == 1
        assert go(each, now=NOON + 3599).outcome == "unchanged"
        assert go(each, now=NOON + 7199, due_only=True).outcome == "unchanged"
        assert len(web.asked) == 3

    def test_a_failure_is_due_again(self, folder, web, go):
        web.body, web.status = b"8.8.8.8\n", 500
        assert go(of(web.url), due_only=True).outcome == "failed"
        assert go(of(web.url), due_only=True, now=NOON + 1).outcome == "failed"
        web.status = 200
        assert go(of(web.url), due_only=True, now=NOON + 2).outcome == "updated"
        web.status = 500
        assert go(of(web.url), due_only=True, now=NOON + 2 + DAY_S).outcome == "kept"
        assert is_due(folder, of(web.url), NOON + 3 + DAY_S)

    def test_files_another_source_a_clock_set_back_and_lost_files_are_due(self, folder, source, web, go):
        source.write_text("8.8.8.8\n")
        go(of(source))
        assert is_due(folder, of(source), NOON)
        assert is_due(folder, of(web.url), NOON)
        web.body = b"8.8.8.8\n"
        go(of(web.url))
        assert not is_due(folder, of(web.url), NOON + 1)
        assert is_due(folder, of(web.url), NOON - 1)
        (folder / "drop.txt").write_text("8.8.8.8")
        assert is_due(folder, of(web.url), NOON + 1)
        (folder / "drop.txt").unlink()
        assert is_due(folder, of(web.url), NOON + 1)
        assert go(of(web.url), now=NOON + 1).outcome == "updated"
        assert web.asked[-1]["If-None-Match"] is None


class TestWeb:
    def test_nothing_new_is_not_sent_again(self, folder, web, go):
        web.body = hosts(3).encode()
        go(of(web.url))
        result = go(of(web.url), now=NOON + 9)
        assert (result.outcome, result.entries) == ("unchanged", 3)
        assert web.asked[1]["If-None-Match"] == record_of(folder)["etag"]
        assert record_of(folder)["fetched_at"] == NOON + 9

    def test_nothing_new_but_we_are_somebody_else(self, folder, web, go):
        web.body = hosts(3).encode()
        go(of(web.url))
        result = go(of(web.url), own=addresses("203.0.113.2"))
        assert (result.outcome, result.removed) == ("updated", 1)
        assert text_of(folder) == ["203.0.113.0", "203.0.113.4"]
        # And back: what was taken out comes with the whole list alone.
        assert go(of(web.url)).outcome == "updated"
        assert web.asked[2]["If-None-Match"] is None
        assert text_of(folder) == ["203.0.113.0", "203.0.113.2", "203.0.113.4"]

    def test_what_is_told_holds_no_password(self, folder, web, go):
        web.status = 403
        result = go(of(web.url))
        assert result.line == f"drop: {web.public}: the server answered 403 (Forbidden); it blocks nothing yet"
        assert go.told == [f"drop: fetching {web.public}"]
        assert "geheim" not in str(record_of(folder)["last_error"])
        assert web.asked[0]["Authorization"] is not None


class TestReading:
    @pytest.fixture
    def stored(self, folder, source, go):
        source.write_text("8.8.8.8\n2001:db8::/32\n")
        go(of(source))

    @pytest.mark.parametrize("content", [b"8.8.8.8\n8.8.", b"\xff\xfe\0", b"8.8.8.8\n# x\n", b"8.8.8.8/99\n", b"9-8\n"])
    def test_a_damaged_text_counts_as_not_there(self, folder, source, go, stored, content):
        (folder / "drop.txt").write_bytes(content)
        warnings: list[str] = []
        assert load(folder, [of(source)], warnings=warnings) == {}
        assert warnings == [f"{folder / 'drop.txt'} is damaged and counts as not there"]
        assert load(folder, [of(source)]) == {}
        assert go(of(source)).outcome == "updated"
        assert text_of(folder) == ["8.8.8.8", "2001:db8::/32"]

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"entries": "x"}', b"[" * 100000, b'{"source": "\xff"}'])
    def test_a_damaged_record_leaves_the_addresses(self, folder, source, go, stored, content):
        (folder / "drop.json").write_bytes(content)
        warnings: list[str] = []
        read = load(folder, [of(source)], warnings=warnings)["drop"]
        assert warnings == [f"{folder / 'drop.json'} is damaged and counts as not there"]
        assert read.addresses == addresses("8.8.8.8 2001:db8::/32")
        assert (read.record.source, read.record.entries) == ("", 2)
        assert is_due(folder, of(source), NOON)
        assert go(of(source)).outcome == "unchanged"
        assert record_of(folder)["size_bytes"] == (folder / "drop.txt").stat().st_size

    def test_a_record_from_a_later_version(self, folder, source, stored):
        record = record_of(folder) | {"later": [1]}
        (folder / "drop.json").write_text(json.dumps(record))
        warnings: list[str] = []
        assert load(folder, [of(source)], warnings=warnings)["drop"].record.source == str(source)
        assert not warnings

    def test_something_else_in_its_place(self, folder, source, go, stored, tmp_path):
        (folder / "drop.txt").unlink()
        (folder / "drop.txt").symlink_to(tmp_path / "secret")
        (tmp_path / "secret").write_text("1.1.1.1\n")
        warnings: list[str] = []
        assert load(folder, [of(source)], warnings=warnings) == {}
        assert "cannot be read" in warnings[0]
        assert go(of(source)).outcome == "updated"
        assert (tmp_path / "secret").read_text() == "1.1.1.1\n"
        assert not (folder / "drop.txt").is_symlink()

    def test_no_folder_at_all(self, folder, source):
        warnings: list[str] = []
        assert load(folder, [of(source)], warnings=warnings) == {}
        assert not warnings
        assert prune(folder, []) == []

    def test_what_is_ours_by_now_is_left_out(self, folder, source, stored):
        read = load(folder, [of(source)], own=addresses("8.8.8.8"))["drop"]
        assert read.addresses == addresses("2001:db8::/32")

    @pytest.mark.parametrize("name", ["../x", "/etc/x", "", ".x", "a/b", "x" * 49, "a\0", "a\n"])
    def test_no_name_leaves_the_folder(self, folder, source, name):
        source.write_text("8.8.8.8\n")
        for act in (lambda: load(folder, [of(source, name)]), lambda: is_due(folder, of(source, name), NOON)):
            with pytest.raises(ValueError, match="is no name of a list"):
                act()
        with pytest.raises(ValueError, match="is no name of a list"):
            refresh(folder, [of(source, name)], NOBODY, NOON, due_only=False, accept_shrunken=True, progress=print)

    def test_many_entries_come_back_as_they_went(self, folder, source, go):
        lines = [f"{a}.{b}.{c}.{a ^ b}\n2001:db8:{a:x}:{b:x}{c:x}::/64\n"
                 for a in range(1, 10) for b in range(0, 250, 2) for c in range(40)]  # fmt: skip
        source.write_text("".join(lines))
        assert go(of(source)).outcome == "updated"
        read = load(folder, [of(source)])["drop"].addresses
        assert [format_range(*pair) for pair in read.ranges] == text_of(folder)
        assert go(of(source)).outcome == "unchanged"


class TestAsking:
    def test_which_list_names_an_address(self, folder, source, tmp_path):
        (tmp_path / "other").write_text("203.0.113.7\n203.0.113.8\n2001:db8::/32\n")
        source.write_text("203.0.113.0/24\n")
        lists = [of(source, "a"), of(tmp_path / "other", "b")]
        refresh(folder, lists, NOBODY, NOON, due_only=False, accept_shrunken=False, progress=lambda _: None)
        stored = load(folder, lists)

        def names(text: str) -> list[tuple[str, str]]:
            return why(stored, parse_address(text))

        assert names("203.0.113.7") == [("a", "203.0.113.0/24"), ("b", "203.0.113.7-203.0.113.8")]
        assert names("203.0.113.9") == [("a", "203.0.113.0/24")]
        assert names("2001:db8::5") == [("b", "2001:db8::/32")]
        assert names("203.0.114.0") == names("1.1.1.1") == names("::1") == []

    def test_leftovers_go_and_nothing_else(self, folder, source, go):
        source.write_text("8.8.8.8\n")
        for name in ("drop", "gone", "gone.txt"):
            go(of(source, name))
        for name in ("readme", ".hidden.txt", "drop.old", ".drop.txt.4711", ".gone.json.1"):
            (folder / name).touch()
        (folder / "folder").mkdir()
        assert prune(folder, [of(source, enabled=False)]) == ["gone", "gone.txt"]
        left = sorted(path.name for path in folder.iterdir())
        assert left == [".hidden.txt", "drop.json", "drop.old", "drop.txt", "folder", "readme"]
        assert prune(folder, [of(source)]) == []


def test_a_crash_between_the_two_files_is_noticed(folder, source, go, monkeypatch):
    source.write_text(hosts(30))
    go(of(source))
    source.write_text(hosts(31))

    def die(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(listing, "_write_record", die)
    with pytest.raises(SystemExit):
        go(of(source))
    monkeypatch.undo()
    assert len(load(folder, [of(source)])["drop"].addresses) == 31
    assert go(of(source)).outcome == "unchanged"
    assert record_of(folder)["entries"] == 31


def test_what_a_policy_has_is_read_again_only_where_it_may_have_changed(tmp_path, source, monkeypatch):
    state = State(Store(tmp_path / "state"))
    policy = Policy(defaults={}, blocklists=(of(source),))
    asked = []
    monkeypatch.setattr(listing, "fetch", lambda name, **known: asked.append(name) or fetch(name, **known))
    for text, reads in (("8.8.8.8\n", 1), ("8.8.8.8\n", 1), ("8.8.4.4\n", 2), (None, 3), (None, 4)):
        if text is None:
            source.unlink(missing_ok=True)
        elif not source.exists() or source.read_text() != text:
            source.write_text(text)
        told = []
        known = listing.of_policy(state, policy, told.append)
        assert (len(known["drop"]), len(asked)) == (1, reads)
        assert bool(told) is (text is None)
