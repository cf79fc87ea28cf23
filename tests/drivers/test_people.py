from __future__ import annotations

import grp
import pwd

import pytest

from pfw.drivers.people import names_of


@pytest.mark.parametrize("name", ["root", "0"])
def test_a_user_is_known_by_all_names(name):
    group = grp.getgrgid(pwd.getpwnam("root").pw_gid).gr_name
    assert {"root", "0", "group:0", f"group:{group}"} <= names_of(name)


@pytest.mark.parametrize("name", ["nobody-of-that-name", "4294967295", "99999999999999999999", "group:root"])
def test_a_stranger_is_known_by_his_name(name):
    assert names_of(name) == {name}


def test_groups_in_which_one_is_a_member(monkeypatch):
    extra = grp.struct_group(("wheel", "x", 10, ["root"]))
    monkeypatch.setattr(grp, "getgrall", lambda: [extra])
    assert {"group:wheel", "group:10"} <= names_of("root")
