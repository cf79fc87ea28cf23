"""Tables and sets of a real kernel, against what `nft` says of them."""

import contextlib
import errno
import itertools
import json
import socket
import threading
import time

import pytest

from pfw.drivers import netfilter, netlink
from pfw.drivers.netfilter import BaseHook, SetChange, SetElement
from pfw.model.address import parse_address
from pfw.wire.netlink import NLM_F_REQUEST, request

RULES = """
table inet pfw {
    set hosts { type ipv4_addr; flags timeout; }
    set hosts6 { type ipv6_addr; flags timeout; }
    set nets { type ipv4_addr; flags interval,timeout; }
    set nets6 { type ipv6_addr; flags interval,timeout; }
    set plain { type ipv4_addr; flags interval; }
    counter seen { }
    counter leaked { }
    quota much { over 1 mbytes }
    chain in {
        type filter hook input priority filter - 5; policy accept;
        counter name seen
        counter comment "unnamed"
        limit rate 5/second burst 3 packets
        quota over 10 mbytes drop
        tcp dport { 4444, 4445 } drop
        meta l4proto vmap { 132 : drop }
        tcp dport 4446 jump { counter accept; }
        ip saddr @hosts drop
        ip saddr @nets drop
        goto rest
    }
    chain rest { counter name leaked; }
    chain out { type filter hook output priority 10; policy accept; }
    chain empty { }
}
table inet other { chain in { type filter hook input priority 7; }; set s { type ipv4_addr; }; counter seen { }; }
table ip pfw { chain v4 { }; }
"""


def packed(text):
    return parse_address(text)


def rules(space, text):
    space.run("nft", "-f", "-", input=text)


def listed(space, *words):
    return json.loads(space.run("nft", "-j", *words).stdout)["nftables"]


def elements(space, name):
    """What nft makes of a set: text of each element -> seconds left."""
    found = {}
    for item in listed(space, "list", "set", "inet", "pfw", name):
        for element in item.get("set", {}).get("elem", []):
            value, left = (element["elem"]["val"], element["elem"]["expires"]) if "elem" in element else (element, None)
            if isinstance(value, dict) and "prefix" in value:
                value = f"{value['prefix']['addr']}/{value['prefix']['len']}"
            elif isinstance(value, dict):
                value = "-".join(value["range"])
            found[value] = left
    return found


@pytest.fixture
def here(pair):
    rules(pair.here, RULES)
    return pair.here


class TestTables:
    def test_what_is_in_one(self, here):
        state = here.call(lambda: netfilter.read_table("pfw"))
        hooks = {name: base for name, base in state.chains.items() if not name.startswith("__")}
        assert hooks == {
            "in": BaseHook("filter", 1, -5, 1),
            "rest": None,
            "out": BaseHook("filter", 3, 10, 1),
            "empty": None,
        }
        counts = {name: count for name, count in state.rules.items() if not name.startswith("__")}
        assert counts == {"in": 10, "rest": 1, "out": 0, "empty": 0}
        assert sum(state.rules.values()) == 12
        assert b"seen" in state.base_rules["in"]
        assert b"rest\0" in state.base_rules["in"]
        assert state.base_rules.keys() == {"in", "out"}

    def test_names(self, here):
        names = here.call(lambda: netfilter.read_names("pfw"))
        assert names.chains == {"in", "rest", "out", "empty"}
        assert names.sets == {"hosts", "hosts6", "nets", "nets6", "plain"}
        assert names.counters == {"seen", "leaked"}

    def test_one_that_is_not_there(self, here):
        assert here.call(lambda: netfilter.read_table("v4")) is None
        assert here.call(lambda: netfilter.read_names("v4")) is None
        assert here.call(lambda: netfilter.read_counters("v4")) == {}
        assert not here.call(lambda: netfilter.table_exists("v4"))
        assert here.call(lambda: netfilter.table_exists("pfw"))
        with pytest.raises(FileNotFoundError):
            here.call(lambda: netfilter.read_elements("pfw", "nothing"))

    def test_counters(self, here, pair, net):
        for _ in range(7):
            net.send(pair.there, net.here, 5000, bytes(100))
        expected = {
            item["counter"]["name"]: (item["counter"]["packets"], item["counter"]["bytes"])
            for item in listed(here, "list", "counters", "table", "inet", "pfw")
            if "counter" in item
        }
        assert expected["seen"] >= (7, 7 * 128)
        assert here.call(lambda: netfilter.read_counters("pfw")) == expected

    def test_twenty_thousand_counters(self, here):
        rules(here, "table inet pfw {" + "".join(f"counter c{number} {{ }}\n" for number in range(20_000)) + "}")
        found, spent_s = here.call(lambda: timed(lambda: netfilter.read_counters("pfw")))
        assert len(found) == 20_002
        assert spent_s < 1

    def test_reading_while_the_ruleset_changes(self, here):
        before = here.call(lambda: netfilter.read_table("pfw"))
        with changing(here, 20):
            for _ in range(20):
                assert here.call(lambda: patiently(netfilter.read_table, "pfw")) == before
                assert len(here.call(lambda: patiently(netfilter.read_elements, "pfw", "hosts"))) == 20

    def test_reading_a_set_that_grows_and_shrinks(self, here):
        """The kernel flags none of this: a list came apart in one of some dozen reads of 700 hosts."""
        wanted = {size: {each.key for each in hosts(size)} for size in (100, 700)}
        with changing(here, 100, 700):
            for _ in range(500):
                keys = [each.key for each in here.call(lambda: patiently(netfilter.read_elements, "pfw", "hosts"))]
                assert len(keys) in wanted
                assert set(keys) == wanted[len(keys)]

    def test_reading_a_set_whose_elements_run_out(self, here):
        """That changes no generation, and the kernel left out others in one of some dozen reads."""
        lasting = {each.key for each in hosts(4000)}
        here.call(lambda: netfilter.change_set("pfw", [SetChange("hosts", "add", hosts(4000))]))
        for turn in range(4):
            gone = [SetElement(bytes((172, 16 + turn, *divmod(at, 256))), 200 + at % 1500) for at in range(4000)]
            here.call(lambda gone=gone: netfilter.change_set("pfw", [SetChange("hosts", "add", gone)]))
            end = time.monotonic() + 2
            while time.monotonic() < end:
                found = here.call(lambda: patiently(netfilter.read_elements, "pfw", "hosts"))
                assert lasting <= {each.key for each in found}


def patiently(read, *where):
    """It is refused, rather than wrong, where each attempt to read was interrupted."""
    for _ in range(100):
        with contextlib.suppress(InterruptedError):
            return read(*where)
    return read(*where)


@contextlib.contextmanager
def changing(here, *sizes):
    """The set of hosts changes all the time, and is of each size in turn."""
    stop, has_begun = threading.Event(), threading.Event()

    def change():
        for size in itertools.cycle(sizes):
            netfilter.change_set("pfw", [SetChange("hosts", "flush"), SetChange("hosts", "add", hosts(size))])
            has_begun.set()
            if stop.wait(0.005):
                return

    thread = threading.Thread(target=lambda: here.call(change))
    thread.start()
    try:
        assert has_begun.wait(10)
        yield
    finally:
        stop.set()
        thread.join()


class TestFingerprint:
    @pytest.fixture
    def fingerprint(self, here):
        return lambda: here.call(lambda: netfilter.read_table("pfw")).fingerprint

    def test_traffic_and_elements_do_not_change_it(self, fingerprint, here, pair, net):
        before = fingerprint()
        for port in (5000, 4446):
            for _ in range(20):
                net.send(pair.there, net.here, port)
        with contextlib.suppress(OSError), pair.there.call(lambda: socket.socket()) as sock:
            sock.settimeout(0.3)
            sock.connect((net.here, 4446))
        here.call(lambda: netfilter.change_set("pfw", [SetChange("hosts", "add", hosts(3))]))
        assert here.call(lambda: netfilter.read_counters("pfw"))["seen"][0] >= 41
        assert fingerprint() == before

    def test_the_same_ruleset_loaded_anew_has_the_same(self, fingerprint, here):
        before = fingerprint()
        rules(here, "table inet other { chain in { tcp dport { 1, 2, 3 } drop; tcp dport 5 jump { accept; }; }; }")
        rules(here, f"flush ruleset\n{RULES}")
        assert fingerprint() == before

    @pytest.mark.parametrize(
        "change",
        [
            "add rule inet pfw rest accept",
            "insert rule inet pfw in accept",
            "flush chain inet pfw in",
            'add rule inet pfw empty counter comment "x"',
            "add chain inet pfw more",
            "delete chain inet pfw empty",
            "add chain inet pfw out { policy drop; }",
            "add table inet pfw { flags dormant; }",
        ],
    )
    def test_a_change_changes_it(self, fingerprint, here, change):
        before = fingerprint()
        rules(here, change)
        assert fingerprint() != before

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("4444, 4445", "4444, 4447"),
            ("132 : drop", "132 : accept"),
            ("jump { counter accept; }", "jump { counter drop; }"),
            ("5/second", "6/second"),
            ("10 mbytes drop", "11 mbytes drop"),
            ("unnamed", "renamed"),
            ("saddr @hosts", "saddr @plain"),
        ],
    )
    def test_another_rule_changes_it(self, fingerprint, here, old, new):
        before = fingerprint()
        assert old in RULES
        rules(here, f"flush ruleset\n{RULES.replace(old, new)}")
        assert fingerprint() != before


def hosts(count, timeout_ms=None):
    return [SetElement(bytes((10, 1, number >> 8, number & 255)), timeout_ms) for number in range(count)]


def timed(function):
    start = time.thread_time()
    return function(), time.thread_time() - start


class TestSets:
    @pytest.fixture
    def change(self, here):
        return lambda *changes: here.call(lambda: netfilter.change_set("pfw", changes))

    @pytest.fixture
    def read(self, here):
        return lambda name: here.call(lambda: netfilter.read_elements("pfw", name))

    def test_hosts(self, change, read, here):
        v4, v6 = packed("192.0.2.1"), packed("2001:db8::1")
        change(SetChange("hosts", "add", [SetElement(v4, 90_000), SetElement(packed("192.0.2.2"))]))
        change(SetChange("hosts6", "add", [SetElement(v6, 3_600_000)]))
        left = elements(here, "hosts")
        assert left.keys() == {"192.0.2.1", "192.0.2.2"}
        assert left["192.0.2.1"] in (88, 89, 90)
        assert elements(here, "hosts6").keys() == {"2001:db8::1"}
        (only,) = read("hosts6")
        assert (only.key, only.is_end, only.timeout_ms) == (v6, False, 3_600_000)
        assert 3_590_000 < only.left_ms <= 3_600_000
        assert {each.key: each.left_ms is None for each in read("hosts")} == {v4: False, packed("192.0.2.2"): True}
        change(SetChange("hosts", "delete", [SetElement(v4)]))
        assert elements(here, "hosts").keys() == {"192.0.2.2"}
        change(SetChange("hosts", "flush"))
        assert read("hosts") == []

    @pytest.mark.parametrize(
        ("name", "intervals"),
        [
            ("nets", {"10.0.0.0/8": ("10.0.0.0", "10.255.255.255")}),
            ("nets", {"192.0.2.7": ("192.0.2.7", "192.0.2.7")}),
            ("nets", {"0.0.0.0/8": ("0.0.0.0", "0.255.255.255"), "255.0.0.0/8": ("255.0.0.0", "255.255.255.255")}),
            ("nets", {"255.255.255.255": ("255.255.255.255", "255.255.255.255")}),
            ("nets", {"0.0.0.0/0": ("0.0.0.0", "255.255.255.255")}),
            ("nets", {"10.0.0.0/24": ("10.0.0.0", "10.0.0.255"), "10.0.1.0/24": ("10.0.1.0", "10.0.1.255")}),
            ("nets", {"10.0.0.3-10.0.0.9": ("10.0.0.3", "10.0.0.9")}),
            ("plain", {"10.0.0.0/8": ("10.0.0.0", "10.255.255.255"), "224.0.0.0/3": ("224.0.0.0", "255.255.255.255")}),
            ("nets6", {"fd00::/8": ("fd00::", "fdff:" + "ffff:" * 6 + "ffff"), "::1": ("::1", "::1")}),
            ("nets6", {"ff00::/8": ("ff00::", "ffff:" * 7 + "ffff")}),
        ],
    )
    @pytest.mark.parametrize("timeout_ms", [None, 600_000])
    def test_intervals(self, change, read, here, name, intervals, timeout_ms):
        if name == "plain":
            timeout_ms = None
        pairs = [(packed(first), packed(last)) for first, last in intervals.values()]
        made = [SetElement(first, timeout_ms, last) for first, last in pairs]
        change(SetChange(name, "add", made))
        found = elements(here, name)
        assert found.keys() == intervals.keys()
        assert all((left is None) == (timeout_ms is None) for left in found.values())
        for first, last in intervals.values():
            for text in (first, last):
                here.run("nft", "get", "element", "inet", "pfw", name, f"{{ {text} }}")
        starts = {each.key for each in read(name) if not each.is_end}
        assert starts == {first for first, _ in pairs}
        # What nft adds, goes with what was there; and it can take out what we have put in.
        here.run("nft", "add", "element", "inet", "pfw", "nets", "{ 100.64.0.0/10 }", check=name == "nets6")
        here.run("nft", "delete", "element", "inet", "pfw", name, f"{{ {next(iter(intervals))} }}")
        change(SetChange(name, "delete", made[1:]))
        assert not elements(here, name).keys() & intervals.keys()

    def test_what_traffic_meets(self, change, here, pair, net):
        def passed():
            before = here.call(lambda: netfilter.read_counters("pfw"))["leaked"][0]
            net.send(pair.there, net.here, 5000)
            return here.call(lambda: netfilter.read_counters("pfw"))["leaked"][0] - before

        rules(here, "delete rule inet pfw in handle " + handle(here, "limit"))
        assert passed() == 1
        change(SetChange("nets", "add", [SetElement(packed("10.77.0.2"), 60_000, packed("10.77.0.2"))]))
        assert passed() == 0
        change(SetChange("nets", "flush"), SetChange("nets", "add", [SetElement(packed("10.77.0.0"), None,
                                                                                packed("10.77.0.1"))]))  # fmt: skip
        assert passed() == 1
        change(SetChange("hosts", "add", [SetElement(packed("10.77.0.2"), 300)]))
        assert passed() == 0
        net.wait_until(lambda: passed() == 1, "the ban has run out")

    @pytest.mark.parametrize(
        ("changes", "number"),
        [
            ([SetChange("hosts", "add", [SetElement(b"\1\1\1\1"), SetElement(b"\2\2\2\2")])], errno.EEXIST),
            ([SetChange("hosts", "delete", [SetElement(b"\1\1\1\1"), SetElement(b"\3\3\3\3")])], errno.ENOENT),
            ([SetChange("hosts", "flush"), SetChange("nothing", "add", [SetElement(b"\1\1\1\1")])], errno.ENOENT),
            ([SetChange("hosts", "flush"), SetChange("nets", "delete", [SetElement(bytes(4), None, bytes(4))])],
             errno.ENOENT),
            ([SetChange("hosts", "flush"), SetChange("hosts", "add", [SetElement(b"\1\1")])], errno.EINVAL),
            ([SetChange("hosts", "flush"), SetChange("nets", "add", [SetElement(b"\7\0\0\0", None, b"\7\7\0\0"),
                                                                     SetElement(b"\7\1\0\0", None, b"\7\xff\0\0")])],
             errno.EEXIST),
        ],
    )  # fmt: skip
    def test_refused_whole(self, change, here, changes, number):
        change(SetChange("hosts", "add", [SetElement(b"\2\2\2\2"), SetElement(b"\1\1\1\1")]))
        if changes[0].kind == "add":
            change(SetChange("hosts", "delete", [SetElement(b"\1\1\1\1")]))
        before = elements(here, "hosts")
        with pytest.raises(OSError, match="table pfw") as error:
            change(*changes)
        assert error.value.errno == number
        assert elements(here, "hosts") == before
        assert elements(here, "nets") == {}

    def test_a_table_that_is_not_there(self, here):
        with pytest.raises(FileNotFoundError):
            here.call(lambda: netfilter.change_set("nothing", [SetChange("hosts", "flush")]))

    def test_nothing_to_do(self, here):
        here.call(lambda: netfilter.change_set("nothing", []))
        here.call(lambda: netfilter.change_set("nothing", [SetChange("hosts", "add", [])]))

    @pytest.mark.parametrize("name", ["hosts", "nets", "nets6"])
    def test_ten_thousand(self, here, read, name):
        keys = [(number * 16).to_bytes(4, "big") for number in range(10_000)]
        if name == "nets6":
            keys = [each + bytes(12) for each in keys]
        made = [SetElement(key, 600_000, None if name == "hosts" else key) for key in reversed(keys)]
        for changes in (
            [SetChange(name, "add", made)],
            [SetChange(name, "flush"), SetChange(name, "add", made)],
            [SetChange(name, "delete", made), SetChange(name, "add", made)],
        ):
            _, spent_s = here.call(lambda changes=changes: timed(lambda: netfilter.change_set("pfw", changes)))
            assert spent_s < 0.2 * len(changes)
            assert {each.key for each in read(name) if not each.is_end} == set(keys)

    def test_a_flush_with_new_elements_lets_nothing_through(self, here, pair, net):
        rules(here, "delete rule inet pfw in handle " + handle(here, "limit"))
        bans = [*hosts(3000), SetElement(packed("10.77.0.2"))]
        both = [SetChange("hosts", "flush"), SetChange("hosts", "add", bans)]
        here.call(lambda: netfilter.change_set("pfw", both))
        stop = threading.Event()

        def flood():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                while not stop.is_set():
                    sock.sendto(b"x", (net.here, 5000))

        thread = threading.Thread(target=lambda: pair.there.call(flood))
        thread.start()
        try:
            for _ in range(40):
                here.call(lambda: netfilter.change_set("pfw", both))
        finally:
            stop.set()
            thread.join()
        found = here.call(lambda: netfilter.read_counters("pfw"))
        assert found["seen"][0] > 1000
        assert found["leaked"][0] == 0


def handle(space, word):
    """The handle of the first rule that nft shows with this word."""
    text = space.run("nft", "-a", "list", "chain", "inet", "pfw", "in").stdout
    return next(line.rsplit("handle ")[1] for line in text.splitlines() if word in line and "handle" in line)


class TestKernelThatDoesNotAnswer:
    """A message of no meaning (NLMSG_NOOP) is one that the kernel passes over in silence."""

    NOOP = request(1, b"", NLM_F_REQUEST)

    @pytest.mark.parametrize("question", [netlink.ask_one, lambda *words: list(netlink.ask(*words))])
    def test_ends_in_an_error(self, here, monkeypatch, question):
        monkeypatch.setattr(netlink, "TIMEOUT_S", 0.1)
        with pytest.raises(TimeoutError, match="did not answer"):
            here.call(lambda: question(netlink.NETLINK_NETFILTER, self.NOOP))

    def test_to_a_change(self, here, monkeypatch):
        monkeypatch.setattr(netlink, "TIMEOUT_S", 0.1)
        monkeypatch.setattr(netfilter.nftables, "change_request", lambda *_: (self.NOOP, 1))
        with pytest.raises(TimeoutError, match="did not answer"):
            here.call(lambda: netfilter.change_set("pfw", []))
