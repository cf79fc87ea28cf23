"""Classes of programs, and the labels that tell them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.enforce.conditions import CannotError, OfGroup, OfUser
from pfw.enforce.programs import MASK, Labelling, gather, make_classes, names_programs, of_rule, spread
from pfw.model.flow import Direction
from pfw.model.policy import Policy
from pfw.model.rule import App, Rule
from pfw.model.verdict import Action
from pfw.policy.match import Answer, app_fits

BOTH = frozenset({Direction.IN, Direction.OUT})
SHA, OTHER_SHA = "a" * 64, "b" * 64
PATHS = ("/usr/bin/curl", "/usr/bin/nc", "/opt/ide/bin/ide", "/opt/ide/tool", "/opt/x", "/opt/ide2/y", "/usr/bin/curlx")
APPS = [App("/usr/bin/curl"), App("/usr/bin/curl", SHA), App("/usr/bin/curl", OTHER_SHA), App("/usr/bin/nc"),
        App("/opt/*"), App("/opt/ide/*"), App("/opt/ide/bin/ide"), App("/usr/bin/cur*"), App("/*")]  # fmt: skip


def rule(*apps: App, action: Action = Action.ALLOW) -> Rule:
    return Rule(name=repr(apps), action=action, directions=BOTH, apps=apps or None)


def policy(*rules: Rule, out: Action = Action.BLOCK) -> Policy:
    defaults = {Direction.IN: Action.BLOCK, Direction.OUT: out, Direction.FORWARD: Action.BLOCK}
    return Policy(rules=rules, defaults=defaults)


def labelling() -> Labelling:
    numbers = itertools.count(1)
    book: dict[str, int] = {}
    return Labelling(MASK, lambda key: book.setdefault(key, next(numbers) if key not in book else 0))


apps = st.lists(st.sampled_from(APPS), min_size=1, max_size=4, unique=True)


@given(st.lists(apps, min_size=1, max_size=5), st.sampled_from(PATHS), st.sampled_from([SHA, OTHER_SHA, "c" * 64]))
def test_a_class_fulfils_the_rules_that_its_programs_do(wanted, path, sha256):
    rules = [rule(*each) for each in wanted]
    classes = make_classes(policy(*rules), labelling(), ())
    number = classes.all.index(classes.of(path, sha256, 0, 0))
    for each in rules:
        fits = any(app_fits(app, path, sha256) is Answer.YES for app in each.apps or ())
        assert (number in of_rule(each, classes, None).classes) is fits


@given(st.lists(apps, min_size=1, max_size=5))
def test_labels_are_distinct_and_ours(wanted):
    classes = make_classes(policy(*[rule(*each) for each in wanted]), labelling(), ())
    marks = [each.mark for each in classes.all]
    assert len(set(marks)) == len(marks)
    assert all(mark and mark & ~MASK == 0 for mark in marks)
    assert classes.all[-1].path is None


def test_a_label_means_the_same_under_every_policy_or_is_another():
    """A socket keeps its label when the policy changes: what the label says must stay true."""
    numbers = labelling()
    first = make_classes(policy(rule(App("/usr/bin/curl")), rule(App("/opt/*"))), numbers, ())
    second = make_classes(policy(rule(App("/usr/bin/curl")), rule(App("/opt/*")), rule(App("/opt/x"))), numbers, ())
    third = make_classes(policy(rule(App("/usr/bin/curl", SHA))), numbers, ())

    def marks(classes, path, sha256=None):
        return classes.of(path, sha256, 0, 0).mark

    assert marks(first, "/usr/bin/curl") == marks(second, "/usr/bin/curl"), "curl is curl"
    assert marks(first, "/opt/x") != marks(second, "/opt/x"), "named alone now"
    assert marks(first, "/opt/y") != marks(second, "/opt/y"), "the rest of the folder is another rest"
    assert marks(first, "/bin/sh") != marks(second, "/bin/sh"), "all others are others"
    for sha256 in (SHA, OTHER_SHA):
        assert marks(third, "/usr/bin/curl", sha256) != marks(first, "/usr/bin/curl"), "what it holds is told, too"


def test_users_of_listeners_are_part_of_the_label():
    users = ((OfUser((1000,)),), (OfUser((7,)), OfGroup((50,))))
    classes = make_classes(policy(rule(App("/usr/bin/nc"))), labelling(), users)
    assert len(classes.all) == 2 * 4
    assert classes.bits(1000, 50) == 3
    assert classes.bits(7, 1) == 2
    assert classes.bits(8, 8) == 0
    mine = of_rule(rule(App("/usr/bin/nc")), classes, users[0]).classes
    assert {(classes.all[number].path, classes.all[number].bits) for number in mine} == {
        ("/usr/bin/nc", 1), ("/usr/bin/nc", 3)
    }  # fmt: skip
    too_many = [(OfUser((number,)),) for number in range(5)]
    with pytest.raises(CannotError):
        make_classes(policy(), labelling(), too_many)


@given(st.integers(0, (1 << 14) - 1))
def test_a_number_survives_the_mask(number):
    mark = spread(number, MASK)
    assert mark & ~MASK == 0
    assert gather(mark, MASK) == number
    assert gather(mark | ~MASK & 0xFFFFFFFF, MASK) == number


@pytest.mark.parametrize(
    ("found", "needs"),
    [
        (policy(), False),
        (policy(out=Action.ASK), True),
        (policy(rule(App("/x"))), True),
        (policy(rule(action=Action.ASK)), True),
        (policy(Rule(name="u", action=Action.ALLOW, directions=BOTH, users=("root",))), True),
        (policy(Rule(name="u", action=Action.ALLOW, directions=frozenset({Direction.OUT}), users=("root",))), False),
        (policy(Rule(name="o", action=Action.ASK, directions=BOTH, enabled=False)), False),
    ],
)
def test_which_policies_need_somebody_who_knows_programs(found, needs):
    assert names_programs(found) is needs
