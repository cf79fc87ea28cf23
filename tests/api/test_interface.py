"""The Structs are what the text says, field by field, and the other way round."""

from __future__ import annotations

import re
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import pytest

from pfw.api import definition, interface
from pfw.api.definition import Interface, Right, Streams
from pfw.api.interface import FIREWALL
from pfw.api.service import SERVICE
from pfw.model.program import Program

BASIC = {int: "int", float: "float", str: "string", bool: "bool"}
INTERFACES = pytest.mark.parametrize("one", [FIREWALL, SERVICE], ids=lambda one: one.name)


def written(kind: object) -> str:
    """A type of ours in Varlink's words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        assert inner[1:] == (NoneType,)
        return f"?{written(inner[0])}"
    if origin is tuple:
        assert inner[1] is ...
        return f"[]{written(inner[0])}"
    if origin is dict:
        assert inner[0] is str
        return f"[string]{written(inner[1])}"
    if origin is Literal:
        return "string"
    return BASIC.get(kind, kind.__name__)  # type: ignore[call-overload,attr-defined,no-any-return]


def fields(kind: type) -> str:
    hints = get_type_hints(kind)
    return "(" + ", ".join(f"{name}: {written(hints[name])}" for name in kind.__struct_fields__) + ")"


def types_in(kind: type) -> set[type]:
    found: set[type] = set()
    todo: list[object] = list(get_type_hints(kind).values())
    while todo:
        one = todo.pop()
        todo += get_args(one)
        if isinstance(one, type) and issubclass(one, definition.Result) and one not in found:
            found.add(one)
            todo += get_type_hints(one).values()
    return found


def of_structs(one: Interface) -> set[str]:
    used: set[type] = set().union(*(types_in(method.result) for method in one.methods.values()))
    methods = one.methods.values()
    return {
        *(f"type {kind.__name__} {fields(kind)}" for kind in used),
        *(f"method {method.name}{fields(method.parameters)} -> {fields(method.result)}" for method in methods),
        *(f"error {kind.__name__} {fields(kind)}" for kind in one.faults),
    }


def of_text(one: Interface) -> list[str]:
    text = re.sub(r"#.*", "", one.description())
    flat = re.sub(r"\s+", " ", text).replace("( ", "(").replace(" )", ")").strip()
    first, *rest = re.split(r" (?=(?:type|method|error) [A-Z])", flat)
    assert first == f"interface {one.name}"
    return rest


@INTERFACES
def test_text_and_structs_say_the_same(one):
    declared = of_text(one)
    assert set(declared) == of_structs(one)
    assert len(set(declared)) == len(declared)


@INTERFACES
def test_what_may_be_null_need_not_be_given(one):
    kinds = {kind for method in one.methods.values() for kind in (method.parameters, method.result)}
    kinds |= {inner for kind in kinds for inner in types_in(kind)}
    for kind in kinds:
        hints = get_type_hints(kind)
        defaults = dict(zip(reversed(kind.__struct_fields__), reversed(kind.__struct_defaults__), strict=False))
        for name in kind.__struct_fields__:
            null = written(hints[name]).startswith("?")
            assert (defaults.get(name, ...) is None) == null, f"{kind.__name__}.{name}"


@INTERFACES
def test_names_are_varlinks(one):
    for line in of_text(one):
        assert re.fullmatch(r"(type|method|error) [A-Z][A-Za-z0-9]*", re.split(r" ?\(", line)[0])
        for name in re.findall(r"(\w+):", line):
            assert re.fullmatch(r"[a-z](_?[a-z0-9])*", name)


@pytest.mark.parametrize("kind", [interface.Action, interface.Lasting, interface.Scope, interface.State])
def test_the_text_names_every_word(kind):
    text = FIREWALL.description()
    for word in get_args(kind):
        assert re.search(rf"# .*\b{word}\b", text)


def test_rights():
    rights = {name: method.right for name, method in FIREWALL.methods.items()}
    assert {name for name, right in rights.items() if right is Right.WRITE} == {"Reload"}
    assert {name for name, right in rights.items() if right is Right.ANSWER} == {"Answer"}
    assert Right.ANYONE not in rights.values()
    assert {method.right for method in SERVICE.methods.values()} == {Right.ANYONE}


def test_streams():
    streams = {name: method.streams for name, method in FIREWALL.methods.items()}
    assert {name for name, kind in streams.items() if kind is Streams.MAY} == {"Prompts", "Connections"}
    assert {name for name, kind in streams.items() if kind is Streams.ALWAYS} == {"Alerts"}


def test_a_program_of_the_model():
    program = Program(pid=3, path="/bin/a", shown="a", command=("a", "b"), user="me", uid=5, parents=("c",), unit="/u")
    shown = interface.Program.of(program)
    for name in shown.__struct_fields__:
        assert getattr(shown, name) == getattr(program, name)


def test_an_error_of_another_interface():
    assert interface.failure(interface.Refused(says="why")).name == "org.pfw.Firewall.Refused"
    with pytest.raises(TypeError, match="no error of"):
        SERVICE.failure(interface.Refused(says="why"))
