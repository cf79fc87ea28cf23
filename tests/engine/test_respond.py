"""What is decided about an alert, step by step; times of bans against a slow twin."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pfw.engine import respond
from pfw.engine.respond import Ban, Limit, Offence, Responder, Tell, TooMany
from pfw.model.address import AddressSet, format_range, parse_address, parse_range
from pfw.model.observation import Alert, Kind
from pfw.model.policy import Doing, Reaction, Respond

DAY = 86_400.0
BAN_ALL = Respond(reactions=(Reaction(do=Doing.BAN),))


def alert(*ban: str, kind: Kind = Kind.PORT_SCAN, score: int = 80, source: str | None = None) -> Alert:
    text = source or (ban[0] if ban else None)
    packed = None if text is None else parse_address(text) if {":", "."} & set(text) else bytes.fromhex(text)
    return Alert(
        kind=kind, source=packed, target=None, first=1.0, last=2.0, score=score, evidence="asked 12 ports",
        ban=tuple(parse_address(text) for text in ban),
    )  # fmt: skip


def responder(policy: Respond = BAN_ALL, chance: float = 0.0, **more: Any) -> Responder:
    return Responder(policy, lambda: chance, **more)


def banned(answers: list[Any]) -> list[tuple[str, float]]:
    return [(format_range(*each.range), each.seconds) for each in answers if isinstance(each, Ban)]


def spared(*texts: str) -> AddressSet:
    return AddressSet([parse_range(text) for text in texts])


def test_without_a_word_in_the_policy_alerts_are_told_and_no_more() -> None:
    seen = alert("203.0.113.7")
    assert responder(Respond()).decide(seen, 0.0) == [Tell(seen)]


def test_the_first_that_fits_decides() -> None:
    policy = Respond(
        reactions=(
            Reaction(kinds=frozenset({Kind.ARP_SCAN}), do=Doing.NOTHING),
            Reaction(kinds=frozenset({Kind.PORT_SCAN}), do=Doing.BAN, score=80),
            Reaction(do=Doing.ALERT, score=50),
            Reaction(do=Doing.LIMIT),
        )
    )
    one = responder(policy)
    assert one.decide(alert(kind=Kind.ARP_SCAN, source="02aabbccddee"), 0.0) == []
    assert banned(one.decide(alert("203.0.113.7", score=80), 0.0)) == [("203.0.113.7", 600.0)]
    assert one.decide(alert("203.0.113.8", score=79), 0.0) == [Tell(alert("203.0.113.8", score=79))]
    assert isinstance(one.decide(alert("203.0.113.8", score=10), 0.0)[0], Limit)


def test_a_ban_says_what_for() -> None:
    (ban, tell) = responder().decide(alert("203.0.113.7"), 10.0)
    assert ban == Ban(parse_range("203.0.113.7"), 600.0, Kind.PORT_SCAN, "port-scan, score 80", "asked 12 ports", 1)
    assert tell == Tell(alert("203.0.113.7"))


def test_nobody_is_banned_who_did_not_prove_himself() -> None:
    seen = alert(source="203.0.113.7")
    assert responder().decide(seen, 0.0) == [Tell(seen, "left alone: its address may be forged")]


def test_banning_twice_does_nothing() -> None:
    one = responder()
    assert banned(one.decide(alert("203.0.113.7"), 0.0))
    assert one.decide(alert("203.0.113.7", kind=Kind.SWEEP), 599.0) == [Tell(alert("203.0.113.7", kind=Kind.SWEEP))]
    assert banned(one.decide(alert("203.0.113.7"), 600.0)) == [("203.0.113.7", 1200.0)]


def test_each_ban_is_twice_as_long_up_to_a_week() -> None:
    one, now, found = responder(), 0.0, []
    for _ in range(14):
        ((_, seconds),) = banned(one.decide(alert("203.0.113.7"), now))
        found.append(seconds)
        now += seconds
    assert found == [min(600.0 * 2**power, 604_800.0) for power in range(14)]
    assert found[-1] == 604_800.0


def test_who_proved_himself_by_resets_alone_is_banned_shortly_however_often() -> None:
    one = responder(Respond(reactions=(Reaction(do=Doing.BAN, for_s=3600.0),)))
    weak = replace(alert("2001:db8::7"), by_reset=True)
    for turn in range(5):
        found, _told = one.decide(weak, turn * 700.0)
        assert isinstance(found, Ban)
        assert found.seconds == respond.RESET_S
        assert found.range[0] == found.range[1]
        assert "resets alone" in found.why
    assert banned(one.decide(alert("2001:db8::7"), 5 * 700.0)) == [("2001:db8::7", 3600.0)]
    assert banned(one.decide(weak, 50_000.0)) == [("2001:db8::7", respond.RESET_S)]


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 600.0), (0.5, 630.0), (1.0, 660.0)])
def test_chance_makes_it_longer_by_a_tenth_at_most(chance, seconds) -> None:
    assert banned(responder(chance=chance).decide(alert("203.0.113.7"), 0.0)) == [("203.0.113.7", seconds)]


def test_chance_never_goes_beyond_a_week() -> None:
    one = responder(chance=1.0, remembered=[Offence(parse_range("203.0.113.7"), 30, 0.0)])
    assert banned(one.decide(alert("203.0.113.7"), 1.0)) == [("203.0.113.7", 604_800.0)]


def slowly(gaps: list[float]) -> list[float]:
    """How long each ban lasts: one less counts for each whole quiet day."""
    count, found = 0, []
    for gap in gaps:
        for _ in range(int(gap // DAY)):
            count = max(0, count - 1)
        found.append(min(604_800.0, 600.0 * 2**count))
        count += 1
    return found


@settings(max_examples=200)
@given(st.lists(st.sampled_from([0.0, 1.0, DAY - 1, DAY, 2.5 * DAY, 9 * DAY]), min_size=1, max_size=20))
def test_quiet_days_are_forgiven_one_by_one(gaps) -> None:
    one, now, found = responder(), 0.0, []
    for gap in gaps:
        now += gap
        ((_, seconds),) = banned(one.decide(alert("203.0.113.7"), now))
        found.append(seconds)
        now += seconds
    assert found == slowly(gaps)


def test_what_is_remembered_is_bounded_and_the_oldest_goes(monkeypatch) -> None:
    monkeypatch.setattr(respond, "SOURCES_MAX", 3)
    monkeypatch.setattr(respond, "BANS_A_MINUTE", 100)
    one = responder()
    for number in range(4):
        one.decide(alert(f"203.0.113.{number}"), 0.0)
    assert [format_range(*each.source) for each in one.offences()] == [f"203.0.113.{number}" for number in (1, 2, 3)]
    assert len(responder(remembered=[Offence((number, number), 1, 0.0) for number in range(9)]).offences()) == 3


def test_what_is_remembered_outlasts_the_responder() -> None:
    one = responder()
    one.decide(alert("203.0.113.7"), 0.0)
    again = responder(remembered=one.offences())
    assert banned(again.decide(alert("203.0.113.7"), 5.0)) == []
    assert banned(again.decide(alert("203.0.113.7"), 700.0)) == [("203.0.113.7", 1200.0)]


def test_who_is_pardoned_begins_anew() -> None:
    one = responder()
    one.decide(alert("203.0.113.7", "203.0.114.7"), 0.0)
    one.pardon(parse_range("203.0.113.0/24"))
    assert banned(one.decide(alert("203.0.113.7", "203.0.114.7"), 1.0)) == [("203.0.113.7", 600.0)]


def test_who_is_protected_is_not_banned_and_that_is_said() -> None:
    policy = Respond(reactions=BAN_ALL.reactions, never=spared("203.0.113.0/24"))
    one = responder(policy)
    answers = one.decide(alert("203.0.113.7", "198.51.100.1", "192.0.2.1"), 0.0, spared("192.0.2.1"))
    assert banned(answers) == [("198.51.100.1", 600.0)]
    assert answers[-1].held_back == "left alone: protected"
    # It counts at the time of the ban alone.
    assert banned(one.decide(alert("192.0.2.1"), 1.0)) == [("192.0.2.1", 600.0)]


def test_ipv6_widens_by_what_was_seen() -> None:
    one, found = responder(), []
    for address in ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1", "2001:db8:0:2::2", "2001:db8:0:100::1"):
        found += banned(one.decide(alert(address), 10.0))
    assert [name for name, _ in found] == [
        "2001:db8:0:1::1", "2001:db8:0:1::/64", "2001:db8:0:2::1", "2001:db8::/56", "2001:db8:0:100::1",
    ]  # fmt: skip
    # A wider ban counts those that it holds.
    assert [seconds for _, seconds in found] == [600.0, 1200.0, 600.0, 2400.0, 600.0]
    assert banned(one.decide(alert("2001:db8:0:3::9"), 11.0)) == [], "the /56 holds it"


def test_the_same_ipv6_address_again_is_no_second_one() -> None:
    one = responder()
    one.decide(alert("2001:db8::1"), 0.0)
    assert banned(one.decide(alert("2001:db8::1"), 700.0)) == [("2001:db8::1", 1200.0)]


def test_two_addresses_of_a_network_on_different_days_are_a_coincidence() -> None:
    one = responder()
    one.decide(alert("2001:db8::1"), 0.0)
    assert banned(one.decide(alert("2001:db8::2"), DAY)) == [("2001:db8::2", 600.0)]
    assert banned(one.decide(alert("2001:db8::3"), DAY + 1)) == [("2001:db8::/64", 1200.0)]


@pytest.mark.parametrize(
    ("kept", "widest"),
    [("2001:db8:0:1::ffff", "2001:db8:0:1::2"), ("2001:db8:0:9::/64", "2001:db8:0:1::/64"), ("::1", "2001:db8::/56")],
)
def test_a_wider_ban_never_holds_who_is_protected(kept, widest) -> None:
    one, found = responder(), []
    for address in ("2001:db8:0:2::1", "2001:db8:0:2::2", "2001:db8:0:1::1", "2001:db8:0:1::2"):
        found += banned(one.decide(alert(address), 10.0, spared(kept)))
    assert found[-1][0] == widest


def test_ipv4_never_widens() -> None:
    one = responder()
    names = [banned(one.decide(alert(f"203.0.113.{number}"), 0.0))[0][0] for number in range(20)]
    assert names == [f"203.0.113.{number}" for number in range(20)]


def test_a_storm_of_bans_is_cut_off_counted_and_told_once_a_minute() -> None:
    one = responder()
    sources = [f"198.18.{number >> 8}.{number & 255}" for number in range(500)]
    answers = [each for source in sources for each in one.decide(alert(source), 5.0)]
    assert len(banned(answers)) == respond.BANS_A_MINUTE
    assert one.too_many == 500 - respond.BANS_A_MINUTE
    assert [each for each in answers if isinstance(each, TooMany)] == [TooMany(1)]
    assert answers[-1].held_back == "left alone: more than 60 bans a minute"
    later = one.decide(alert("198.18.9.9"), 65.0)
    assert banned(later) == [("198.18.9.9", 600.0)]
    answers = [each for source in sources[-80:] for each in one.decide(alert(source), 66.0)]
    assert [each for each in answers if isinstance(each, TooMany)] == [TooMany(500 - respond.BANS_A_MINUTE)]


LIMIT_ALL = Respond(reactions=(Reaction(do=Doing.LIMIT, for_s=3600.0),))


def test_limits() -> None:
    one = responder(LIMIT_ALL)
    assert one.decide(alert("203.0.113.7"), 0.0)[0] == Limit(parse_range("203.0.113.7"), 3600.0, "port-scan, score 80")
    # Whose address may be forged is limited for a minute at most.
    (limit, _) = one.decide(alert(source="203.0.113.7"), 0.0)
    assert limit == Limit(parse_range("203.0.113.7"), 60.0, "port-scan, score 80")
    (tell,) = one.decide(alert(), 0.0)
    assert tell.held_back == "left alone: no single source"
    (tell,) = one.decide(alert(source="02aabbccddee"), 0.0)
    assert tell.held_back == "left alone: no single source"
    (tell,) = one.decide(alert(source="192.0.2.1"), 0.0, spared("192.0.2.0/24"))
    assert tell.held_back == "left alone: protected"


def test_another_policy_from_now_on() -> None:
    one = responder()
    one.decide(alert("203.0.113.7"), 0.0)
    one.use(Respond())
    assert one.decide(alert("203.0.113.8"), 0.0) == [Tell(alert("203.0.113.8"))]
    one.use(BAN_ALL)
    assert banned(one.decide(alert("203.0.113.7"), 1.0)) == []


def test_a_clock_that_is_set_back_makes_nobody_safe() -> None:
    one, year = responder(), 365 * DAY
    assert banned(one.decide(alert("203.0.113.7"), year))
    assert banned(one.decide(alert("203.0.113.7"), 0.0))
    assert not banned(one.decide(alert("203.0.113.7"), 1.0))
    for number in range(respond.BANS_A_MINUTE):
        assert banned(one.decide(alert(f"198.51.100.{number}"), year))
    assert not banned(one.decide(alert("203.0.113.8"), year))
    for number in range(respond.BANS_A_MINUTE):
        assert banned(one.decide(alert(f"192.0.2.{number}"), 120.0))
    assert TooMany in {type(each) for each in one.decide(alert("203.0.113.9"), 121.0)}
