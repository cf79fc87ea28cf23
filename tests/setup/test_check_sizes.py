"""The budget and its exceptions, on made-up sizes."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def check_sizes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_sizes", ROOT / "tools" / "check_sizes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("lines", "excepted", "fault"),
    [
        (40, None, None),
        (41, None, "a.py:f: 41 lines, 40 are allowed"),
        (50, 50, None),
        (51, 50, "a.py:f: 51 lines, grew beyond the 50 of its exception"),
        (49, 50, "a.py:f: 49 lines, lower its exception from 50"),
        (40, 50, "a.py:f: fits into 40 lines now, take it off the list of exceptions"),
    ],
)
def test_a_size_and_its_exception(check_sizes, lines, excepted, fault):
    exceptions = {} if excepted is None else {"a.py:f": excepted}
    assert list(check_sizes.faults({"a.py:f": (lines, 40)}, exceptions)) == ([] if fault is None else [fault])


def test_an_exception_for_nothing(check_sizes):
    assert list(check_sizes.faults({}, {"gone.py": 500})) == [
        "gone.py: does not exist, take it off the list of exceptions"
    ]


def test_functions_are_found_wherever_they_are(check_sizes):
    source = """
class Outer:
    @property
    def method(self):
        return 1

    class Inner:
        async def deep(self):
            def inside():
                pass

if True:
    def conditional():

        pass
"""
    assert dict(check_sizes.functions_in(ast.parse(source))) == {
        "Outer.method": 2,
        "Outer.Inner.deep": 3,
        "Outer.Inner.deep.inside": 2,
        "conditional": 3,
    }


def test_the_tree_is_measured(check_sizes, tmp_path):
    (tmp_path / "src" / "pfw").mkdir(parents=True)
    (tmp_path / "src" / "pfw" / "long.py").write_text("def f():\n" + "    pass\n" * 400)
    (tmp_path / "firewall.py").write_text("pass\n")
    assert sorted(check_sizes.measure(tmp_path)) == [
        ("firewall.py", 1, 400),
        ("src/pfw/long.py", 401, 400),
        ("src/pfw/long.py:f", 401, 40),
    ]


def test_exceptions_are_read_with_comments(check_sizes, tmp_path):
    listed = tmp_path / "exceptions.txt"
    listed.write_text("# why\n\nsrc/a b.py:f 41\n")
    assert check_sizes.read_exceptions(listed) == {"src/a b.py:f": 41}
    assert check_sizes.read_exceptions(tmp_path / "none.txt") == {}
