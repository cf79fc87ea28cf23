"""Another Varlink client: the one of the package `varlink` (PyPI), which reads our description and calls by it.

systemd's `varlinkctl`, where there is one, is asked too.
"""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from pfw.api import interface as api
from pfw.api.interface import FIREWALL
from pfw.api.service import SERVICE

varlink = pytest.importorskip("varlink", reason="the package varlink (31.0.0) is not installed")


@pytest.fixture
def other(service):
    with service.turning(), varlink.Client(f"unix:{service.path}") as made:
        yield made


@pytest.mark.parametrize("one", [FIREWALL, SERVICE], ids=lambda one: one.name)
def test_its_parser_takes_our_text(one):
    from varlink.scanner import Interface, _Alias, _Error, _Method

    parsed = Interface(one.description())
    assert parsed.name == one.name
    kinds = [type(member) for member in parsed.members.values()]
    assert kinds.count(_Method) == len(one.methods)
    assert kinds.count(_Error) == len(one.faults)
    for name, method in one.methods.items():
        assert tuple(parsed.get_method(name).in_type.fields) == method.parameters.__struct_fields__
        assert tuple(parsed.get_method(name).out_type.fields) == method.result.__struct_fields__
        assert parsed.get_method(name).doc
    for member in parsed.members.values():
        if isinstance(member, _Alias):
            assert tuple(member.type.fields) == getattr(api, member.name).__struct_fields__


def test_get_info(other):
    with other.open("org.varlink.service") as standard:
        info = standard.GetInfo()
    assert info["product"] == "pfw"
    assert info["interfaces"] == ["org.varlink.service", "org.pfw.Firewall"]


def test_description(other):
    assert other.get_interface("org.pfw.Firewall").get_description() == FIREWALL.description()


def test_calls(other):
    with other.open("org.pfw.Firewall") as firewall:
        assert firewall.Status()["counts"] == {"asked": 2}
        assert firewall.Answer(1, "allow", "always", "port")["done"] == "allow always port None"
        why = firewall.Why(pid=5)
        assert (why["says"], why["program"]["path"]) == ("5 None", "/usr/bin/curl")
        (prompt,) = firewall.Prompts()["prompts"]
        assert prompt["program"]["command"] == ["curl", "x"]
        assert prompt.get("until") is None


def test_errors(other):
    with other.open("org.pfw.Firewall") as firewall:
        with pytest.raises(varlink.VarlinkError) as caught:
            firewall.Answer(2, "allow", "always", "port")
        assert caught.value.error() == "org.pfw.Firewall.NoSuchPrompt"
        assert caught.value.parameters() == {"id": 2}
        with pytest.raises(varlink.VarlinkError) as caught:
            firewall.Alerts()
        assert caught.value.error() == "org.varlink.service.ExpectedMore"
        with pytest.raises(varlink.InvalidParameter) as invalid:
            firewall.Answer(1, "permit", "always", "port")
        assert invalid.value.parameters()["parameter"] == "action"


def test_a_stream(service, other):
    with other.open("org.pfw.Firewall") as firewall:
        stream = firewall.Prompts(_more=True)
        assert [one["id"] for one in next(stream)["prompts"]] == [1, 2]
        service.subscriptions[0].send(api.PromptsResult(prompts=(), gone=(1,)))
        assert next(stream)["gone"] == [1]
        service.subscriptions[0].end(api.PromptsResult(prompts=(), gone=(2,)))
        assert next(stream)["gone"] == [2]
        assert list(stream) == []
        assert firewall.Reload()["generation"] == 4


@pytest.mark.skipif(shutil.which("varlinkctl") is None, reason="systemd before 253 has no varlinkctl")
def test_varlinkctl(service):
    def run(*words: str) -> str:
        return subprocess.run(["varlinkctl", *words], capture_output=True, text=True, check=True, timeout=20).stdout

    address = f"unix:{service.path}"
    with service.turning():
        assert "org.pfw.Firewall" in run("info", address)
        assert "method Prompts" in run("introspect", address, "org.pfw.Firewall")
        assert json.loads(run("-j", "call", address, "org.pfw.Firewall.Status", "{}"))["generation"] == 3
