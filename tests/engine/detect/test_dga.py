"""Generated domains, and other names that do not exist."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.engine.detect.dga import DOMAINS_MAX, WINDOW_S, Dga, looks_random
from pfw.model.observation import Alert, DnsSeen, Kind

CLIENT, SERVER = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 53])
NXDOMAIN = 3
NAMES_OF_ADVERTISERS = (
    "doubleclick googlesyndication adnxs rubiconproject rlcdn mathtag crwdcntrl bidswitch casalemedia pubmatic openx "
    "criteo taboola outbrain scorecardresearch quantserve adsrvr demdex everesttech bluekai krxd agkn tapad adform "
    "smartadserver yieldmo sharethrough triplelift gumgum sovrn lijit indexww moatads serving-sys flashtalking "
    "adsafeprotected amazon-adsystem advertising contextweb spotxchange teads tremorhub stickyadstv hotjar mixpanel "
    "segment amplitude fullstory newrelic nr-data optimizely branch appsflyer kochava adjust unity3d applovin vungle "
    "inmobi mopub chartboost propellerads exoclick popads mgid zedo skimresources viglink bizographics"
)
ADVERTISERS = NAMES_OF_ADVERTISERS.split()


def generated(count: int, letters: str = "abcdefghijklmnopqrstuvwxyz") -> list[str]:
    drawn = random.Random(7)
    return ["".join(drawn.choices(letters, k=drawn.randint(9, 16))) for _ in range(count)]


class Dialogue:
    def __init__(self, detector: Dga | None = None) -> None:
        self.detector = detector or Dga()
        self.found: list[Alert] = []

    def answer(self, time: float, name: str, code: int = NXDOMAIN, **more) -> None:
        facts = {"client": CLIENT, "server": SERVER, "name": name, "kind": 1, "code": code} | more
        self.found += self.detector.observe(DnsSeen(time, is_answer=False, **facts | {"code": 0}))
        self.found += self.detector.observe(DnsSeen(time, is_answer=True, **facts))


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


@pytest.mark.parametrize(
    "letters", ["abcdefghijklmnopqrstuvwxyz", "0123456789abcdef", "bcdfghjklmnpqrstvwxz0123456789"]
)
def test_domains_drawn_by_lot(dialogue, letters):
    for at, name in enumerate(generated(60, letters)):
        dialogue.answer(1000 + at, f"{name}.{('com', 'net', 'co.uk')[at % 3]}")
    scores = [each.score for each in dialogue.found]
    assert scores == [75, 80]
    first = dialogue.found[0]
    assert (first.kind, first.source, first.target, first.ban) == (Kind.DGA, CLIENT, None, ())
    assert first.evidence.startswith("asked for 20 different domains that do not exist in 19 s, ")


def test_words_joined_need_many_and_few_that_exist(dialogue):
    words = ("table", "river", "market", "silver", "garden", "window", "letter", "number", "branch", "honest", "simple")
    names = [a + b for a in words for b in words]
    for at, name in enumerate(names):
        dialogue.answer(1000 + at, f"{name}.net")
        dialogue.answer(1000 + at, f"www.{name}.org", code=0 if at % 3 == 0 else NXDOMAIN)
    assert [each.score for each in dialogue.found] == [50, 50]


def retry_with_suffixes(dialogue: Dialogue) -> None:
    for at, name in enumerate(generated(200)):
        for suffix in ("corp.example.com", "example.com", "office.example.co.uk", "lan"):
            dialogue.answer(1000 + at, f"{name}.{suffix}")
            dialogue.answer(1000 + at, f"www.{name}.org.{suffix}")


def probe_for_portals(dialogue: Dialogue) -> None:
    for at, name in enumerate(generated(300)):
        dialogue.answer(1000 + at, name)


def look_for_neighbours(dialogue: Dialogue) -> None:
    for at, name in enumerate(generated(300)):
        dialogue.answer(1000 + at, f"{name}.{('local', 'lan', 'home', 'corp')[at % 4]}")


def block_advertisers(dialogue: Dialogue) -> None:
    for at, name in enumerate(ADVERTISERS):
        dialogue.answer(1000 + at, f"px.{name}.{('com', 'net', 'io')[at % 3]}")


def deliver_mail(dialogue: Dialogue) -> None:
    for at, name in enumerate(generated(400)):
        dialogue.answer(1000 + at, f"{name}.dbl.spamhaus.org")
        dialogue.answer(1000 + at, f"{at}.2.0.192.in-addr.arpa")


def have_few_that_look_so(dialogue: Dialogue) -> None:
    for at, name in enumerate(ADVERTISERS[:40] + generated(20)):
        dialogue.answer(1000 + at, f"{name}.com")


def follow_old_links(dialogue: Dialogue) -> None:
    for at, name in enumerate(f"{a}{b}" for a in ADVERTISERS for b in ADVERTISERS):
        dialogue.answer(1000 + at / 10, f"{name}.com", code=0 if at % 2 else NXDOMAIN)


def mistype(dialogue: Dialogue) -> None:
    for at, name in enumerate(generated(19)):
        dialogue.answer(1000 + at, f"{name}.com")


def repeat(dialogue: Dialogue) -> None:
    for at, name in enumerate(generated(10) * 50):
        dialogue.answer(1000 + at, f"h{at}.{name}.com")


def find_them(dialogue: Dialogue) -> None:
    for at, name in enumerate(generated(300)):
        dialogue.answer(1000 + at, f"{name}.com", code=0)
        dialogue.answer(1000 + at, f"nothing.{name}.com")


@pytest.mark.parametrize(
    "habit",
    [retry_with_suffixes, probe_for_portals, look_for_neighbours, block_advertisers, deliver_mail,
     have_few_that_look_so, follow_old_links, mistype, repeat, find_them],
)  # fmt: skip
def test_names_that_do_not_exist_for_another_reason(dialogue, habit):
    habit(dialogue)
    assert dialogue.found == []


def test_a_slow_one_is_below_the_bound(dialogue):
    for at, name in enumerate(generated(100)):
        dialogue.answer(1000 + at * WINDOW_S / 10, f"{name}.com")
    assert dialogue.found == []


def test_questions_do_not_count(dialogue):
    for name in generated(100):
        seen = DnsSeen(1000.0, CLIENT, SERVER, is_answer=False, name=f"{name}.com", kind=1)
        assert list(dialogue.detector.observe(seen)) == []


def test_labels():
    assert [name for name in ADVERTISERS if looks_random(name)] == ["crwdcntrl", "yieldmo", "appsflyer"]
    assert sum(map(looks_random, generated(200))) > 170
    assert not looks_random("xkcdq")
    assert not looks_random("xn--fiqs8sqzzq")
    assert not looks_random("-" * 20)


def test_tables_are_bounded():
    dialogue = Dialogue(Dga(capacity=4))
    for at in range(50):
        dialogue.answer(1000, "example.com", client=bytes([10, 0, 0, at]))
    assert dialogue.detector.refused == 46
    for at in range(3000):
        dialogue.answer(1001, f"a{at}b.com", client=bytes(4), code=at % 2 * NXDOMAIN)
        dialogue.answer(1001, f"a{at}b.com", client=bytes([10, 0, 0, 1]), code=at % 2 * NXDOMAIN)
    for _, client in dialogue.detector._clients.items():
        assert len(client.missing) + len(client.existing) <= DOMAINS_MAX


@given(st.lists(st.tuples(st.floats(0, 1e10), st.text(max_size=300), st.integers(0, 15)), max_size=60))
def test_nothing_makes_it_raise(seen):
    dialogue = Dialogue()
    for time, name, code in seen:
        dialogue.answer(time, name, code)
        dialogue.answer(time, f"{name}.com", code)
        looks_random(name)
