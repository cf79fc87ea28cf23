"""Tunnels through DNS, and what has many names without being one."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.engine.detect.dns_tunnel import NAMES_MAX, WINDOW_S, DnsTunnel
from pfw.model.observation import Alert, DnsSeen, Kind, Odd

CLIENT, SERVER = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 53])
A, NULL, CNAME, MX, TXT, PTR, AAAA, SRV, PRIVATE = 1, 10, 5, 15, 16, 12, 28, 33, 65399


def digits(number: int, count: int) -> str:
    return hashlib.sha512(str(number).encode()).hexdigest()[:count]


class Dialogue:
    def __init__(self, detector: DnsTunnel | None = None) -> None:
        self.detector = detector or DnsTunnel()
        self.found: list[Alert] = []

    def ask(self, time: float, name: str, kind: int, answer_bytes: int | None = 16, code: int = 0, **more) -> None:
        facts = {"client": CLIENT, "server": SERVER, "name": name, "kind": kind} | more
        self.found += self.detector.observe(DnsSeen(time, is_answer=False, **facts))
        if answer_bytes is not None:
            answer = DnsSeen(time + 0.01, is_answer=True, code=code, answer_bytes=answer_bytes, **facts)
            self.found += self.detector.observe(answer)

    def best(self) -> int:
        assert all(each.kind is Kind.DNS_TUNNEL and each.ban == () for each in self.found)
        return max((each.score for each in self.found), default=0)


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


@pytest.mark.parametrize("kind", [NULL, PRIVATE, 25])
def test_short_names_of_a_type_that_nobody_asks_for(dialogue, kind):
    for at in range(40):
        dialogue.ask(1000 + 4 * at, f"paa{digits(at, 4)}.t.example.com", kind, 40)
    assert dialogue.best() == 90
    alert = dialogue.found[0]
    assert (alert.source, alert.target) == (CLIENT, SERVER)
    assert alert.evidence == (
        "asked for 20 different names under example.com in 76 s (16 a minute), 100 % of type TXT, MX, CNAME, SRV or "
        "rarer, each with 9 bytes that could be data, and 40 bytes an answer"
    )


@pytest.mark.parametrize("kinds", [(TXT,), (CNAME,), (MX,), (SRV,), (TXT, CNAME, MX)])
def test_an_idle_dnscat2(dialogue, kinds):
    for at in range(120):
        dialogue.ask(1000 + at, f"{digits(at, 18)}.example.com", kinds[at % len(kinds)])
    assert 60 <= dialogue.best() < 80


def test_long_names_weigh_more(dialogue):
    for at in range(60):
        dialogue.ask(1000 + at, f"{digits(at, 60)}.{digits(-at, 60)}.example.com", TXT)
    assert dialogue.best() >= 80


@pytest.mark.parametrize("answered", [True, False])
def test_data_that_goes_out_in_names_of_addresses(dialogue, answered):
    for at in range(60):
        dialogue.ask(1000 + at, f"{digits(at, 60)}.{digits(-at, 60)}.example.com", A, 16 if answered else None)
    assert dialogue.best() >= 75


def test_data_that_goes_out_to_a_server_that_says_that_there_is_no_such_name(dialogue):
    for at in range(60):
        dialogue.ask(1000 + at, f"{digits(at, 60)}.example.com", A, 75, code=3)
    assert dialogue.best() >= 75


@pytest.mark.parametrize("kind", [TXT, NULL])
def test_what_looks_like_a_list_and_carries_data(dialogue, kind):
    for at in range(60):
        dialogue.ask(1000 + at, f"{'.'.join(digits(at, 32))}.t.example.com", kind, 75, code=3)
    assert dialogue.best() >= 75


def test_data_that_comes_in_by_answers_to_short_names(dialogue):
    for at in range(120):
        dialogue.ask(1000 + at, f"paa{digits(at, 5)}.t.example.com", A, 240)
    assert dialogue.best() == 60


def test_without_a_domain_it_is_counted_by_server(dialogue):
    for at in range(60):
        dialogue.ask(1000 + at, f"dnscat.{digits(at, 18)}", (TXT, CNAME, MX)[at % 3])
    assert dialogue.best() == 75
    assert "that no zone can hold" in dialogue.found[0].evidence


def test_what_does_not_exist_anywhere_is_no_tunnel_without_a_domain(dialogue):
    for at in range(200):
        dialogue.ask(1000 + at, f"host{digits(at, 60)}.lan{at}", A, 75, code=3)
    assert dialogue.best() == 0


@pytest.mark.parametrize("top", ["lan", "test", "local", "internal"])
def test_a_tunnel_under_a_private_domain(dialogue, top):
    for at in range(60):
        dialogue.ask(1000 + at, f"{digits(at, 8)}.tunnel.{top}", NULL)
    assert dialogue.best() >= 90


def test_a_tunnel_under_a_reverse_zone(dialogue):
    for at in range(60):
        dialogue.ask(1000 + at, f"{digits(at, 60)}.8.b.d.0.1.0.0.2.ip6.arpa", TXT)
    assert dialogue.best() >= 75


def browse(dialogue: Dialogue) -> None:
    for at in range(300):
        for host in ("www", "static", f"img{at % 7}"):
            for kind in (A, AAAA, 65):
                dialogue.ask(1000 + at, f"{host}.site{at}.com", kind, 60)
        for kind in (A, AAAA):
            dialogue.ask(1000 + at, f"{digits(at, 12)}.users.example.net", kind, 250)


def ask_lists(dialogue: Dialogue) -> None:
    for at in range(300):
        for zone in ("zen.spamhaus.org", "multi.surbl.org", "bl.spamcop.net", "avqs.mcafee.com"):
            dialogue.ask(1000 + at, f"{digits(at, 60)}.{zone}", TXT, 75)


def ask_lists_of_mail_servers(dialogue: Dialogue) -> None:
    for at in range(300):
        address = f"{at % 256}.{at // 256}.113.203"
        dialogue.ask(1000 + at, f"{address}.{digits(0, 26)}.zen.dq.spamhaus.net", A, 75, code=3)
        dialogue.ask(1000 + at, f"{address}.{digits(0, 32)}.combined.mail.abusix.zone", A, 75, code=3)
        dialogue.ask(1000 + at, f"{address}._ip.mail{at}.example.org._ehlo.example{at}.com._spf.vali.email", TXT)
        dialogue.ask(1000 + at, f"s1.domainkey.u{1000000 + at}.wl{at % 200}.mcsv.net", TXT, 260)


def ask_other_lists(dialogue: Dialogue) -> None:
    """Some answer that the address is listed, most that there is no such name."""
    for at in range(300):
        listed = {"code": 0, "answer_bytes": 16} if at % 3 == 0 else {"code": 3, "answer_bytes": 75}
        dialogue.ask(1000 + at, f"{'.'.join(digits(at, 32))}.dnsbl.example.net", A, **listed)
        dialogue.ask(1000 + at / 2, f"{at % 256}.{at // 256}.113.203.a-list-of-senders.example.org", A, **listed)


def ask_with_search_suffixes(dialogue: Dialogue) -> None:
    for at in range(300):
        for suffix in ("crawler.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example.com"):
            dialogue.ask(1000 + at / 2, f"www.example-site-{at}.org.{suffix}", A, 75, code=3)


def look_up_backwards(dialogue: Dialogue) -> None:
    for at in range(300):
        name = ".".join(digits(at, 32))
        # A: so ask resolvers that send no more of a name than needed (RFC 9156).
        for kind in (PTR, A):
            dialogue.ask(1000 + at, f"{name}.ip6.arpa", kind, 75)
            dialogue.ask(1000 + at, f"{at % 256}.{at // 256}.0.10.in-addr.arpa", kind, 75)


def deliver_mail(dialogue: Dialogue) -> None:
    for at in range(500):
        for prefix, kind in (("", MX), ("", TXT), ("_dmarc.", TXT), ("selector1._domainkey.", TXT), ("mail.", A)):
            dialogue.ask(1000 + at, f"{prefix}customer{at}.com", kind, 300)


def use_content_networks(dialogue: Dialogue) -> None:
    for at in range(300):
        dialogue.ask(1000 + at, f"e{at}.dsc{digits(at, 40)}.akamaiedge.net", A, 200)
        dialogue.ask(1000 + at, f"{digits(at, 50)}.eu-west-1.elb.amazonaws.com", A, 200)


def join_a_directory(dialogue: Dialogue) -> None:
    for at in range(400):
        site = f"site{at % 20}"
        dialogue.ask(1000 + at, f"_ldap._tcp.{site}._sites.dc._msdcs.corp.example.com", SRV, 300)


def ask_again(dialogue: Dialogue) -> None:
    for at in range(1000):
        dialogue.ask(1000 + at, f"{digits(at % 10, 60)}.example.com", TXT, 300)


def ask_for_addresses(dialogue: Dialogue) -> None:
    for at in range(300):
        dialogue.ask(1000 + at / 10, f"110.10{at % 2}.{at % 256}.{at // 256}", A)


def ask_on_the_link(dialogue: Dialogue) -> None:
    for at in range(300):
        dialogue.ask(1000 + at, f"{digits(at, 60)}._tcp.local", TXT, 75, port=5353)


@pytest.mark.parametrize(
    "habit",
    [browse, ask_lists, ask_lists_of_mail_servers, ask_other_lists, ask_with_search_suffixes, look_up_backwards,
     deliver_mail, use_content_networks, join_a_directory, ask_again, ask_for_addresses, ask_on_the_link],
)  # fmt: skip
def test_many_names_that_are_no_tunnel(dialogue, habit):
    habit(dialogue)
    assert dialogue.found + dialogue.detector.end(5000) == []


def foreign(detector: DnsTunnel, there: int, back: int, names: tuple[str, ...] = ("dns.malformed",)) -> list[Alert]:
    found: list[Alert] = []
    for at in range(max(there, back)):
        if at < there:
            found += detector.observe(Odd(1000.0 + at, CLIENT, SERVER, 17, names))
        if at < back:
            found += detector.observe(Odd(1000.5 + at, SERVER, CLIENT, 17, names))
    return found


def test_what_is_no_dns_there_and_back():
    found = foreign(DnsTunnel(), 40, 40)
    assert [each.score for each in found] == [60, 60, 75, 75]
    assert (found[0].source, found[0].target, found[0].ban) == (CLIENT, SERVER, ())
    assert found[0].evidence == ("exchanged 10 messages that are no DNS on the port of DNS in 4 s, 5 there and 5 back")


@pytest.mark.parametrize(("there", "back"), [(100, 0), (0, 100), (100, 4)])
def test_broken_messages_that_nobody_answers_so_are_no_tunnel(there, back):
    assert foreign(DnsTunnel(), there, back) == []


def test_other_oddities_are_not_counted():
    assert foreign(DnsTunnel(), 40, 40, ("decoder.udp.len_invalid",)) == []
    assert list(DnsTunnel().observe(Odd(1000.0, None, None, None, ("dns.malformed",)))) == []


def test_names_far_apart_do_not_add_up(dialogue):
    for at in range(200):
        dialogue.ask(1000 + at * WINDOW_S / 15, f"{digits(at, 60)}.example.com", TXT)
    assert dialogue.best() == 0


def test_a_long_tunnel_is_told_of_seldom(dialogue):
    for at in range(5 * NAMES_MAX):
        dialogue.ask(1000 + at / 10, f"{digits(at, 60)}.example.com", TXT)
    assert 5 <= len(dialogue.found) <= 5 * 5


def test_the_minute_brings_what_was_not_told():
    dialogue = Dialogue()
    for at in range(49):
        dialogue.ask(1000 + at / 2, f"{digits(at, 18)}.example.com", TXT)
    for at in range(49, 99):
        dialogue.ask(1030, f"{digits(at, 18)}.example.com", TXT)
    assert "for 50 different" in dialogue.found[-1].evidence
    assert "for 99 different" in dialogue.detector.end(1060)[0].evidence
    assert dialogue.detector.end(1120) == []


def test_tables_are_bounded_and_what_finds_no_room_is_counted():
    detector = DnsTunnel(capacity=4, names_max=10)
    dialogue = Dialogue(detector)
    for at in range(100):
        dialogue.ask(1000, f"a.domain{at}.com", A, None)
    assert detector.refused == 90
    for at in range(20):
        dialogue.ask(1001, f"x{at}.domain0.com", A, None)
    assert detector.refused == 90 + 20
    detector.end(1001 + WINDOW_S)
    dialogue.ask(1001 + WINDOW_S, "y.domain0.com", A, None)
    assert detector.refused == 90 + 20


@pytest.mark.parametrize("each", [1, 3])
def test_many_domains_that_are_asked_for_a_little_do_not_hide_a_tunnel(each):
    dialogue = Dialogue(DnsTunnel(capacity=20))
    for at in range(100):
        for name in range(each):
            dialogue.ask(1000 + at / 10, f"www{name}.company{at}.com", A, None)
    assert dialogue.found == []
    for at in range(400):
        dialogue.ask(1020 + at / 5, f"{digits(at, 40)}.t.evil-tunnel.com", TXT)
    assert dialogue.found[-1].score >= 75
    # Of what was told of nothing is forgotten, whatever is asked for besides.
    for at in range(100):
        dialogue.ask(1100 + at / 10, f"www.other{at}.com", A, None)
    dialogue.ask(1111, "last.t.evil-tunnel.com", TXT)
    assert "401 different names" in dialogue.detector.end(1120)[0].evidence


NAMES = st.one_of(st.text(max_size=300), st.from_regex(r"[a-z0-9.\\]{0,80}(\.com|\.co\.uk|\.)?", fullmatch=True))


@given(
    st.lists(
        st.builds(
            DnsSeen,
            time=st.floats(0, 1e10),
            client=st.sampled_from([CLIENT, SERVER, b""]),
            server=st.binary(max_size=16),
            is_answer=st.booleans(),
            name=NAMES,
            kind=st.integers(0, 65535),
            code=st.integers(0, 15),
            answer_bytes=st.integers(0, 65535),
        ),
        max_size=60,
    )
)
def test_nothing_makes_it_raise(seen):
    detector = DnsTunnel(capacity=8, names_max=16)
    for each in seen:
        for alert in detector.observe(each):
            assert 0 <= alert.score <= 100
    detector.end(0)
    assert len(detector._talks) <= 8
    assert sum(len(talk.names) for _, talk in detector._talks.items()) <= 16
