"""docs/detection.md is true: its kinds are all that there are, and its numbers are those of the detectors."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pfw.engine import detect
from pfw.engine.detect.all import detectors
from pfw.model.observation import Kind

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "detection.md").read_text(encoding="utf-8")
SECTIONS = dict(zip(*[iter(re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)[1:])] * 2, strict=True))
NUMBER = re.compile(r"(?<![\w/.])(\d[\d,]*(?:\.\d+)?) ?(%|h\b|min\b|MB\b)?")
UNITS = {"%": 0.01, "h": 3600.0, "min": 60.0, "MB": 1e6, "": 1.0}
HOMES = {
    Kind.UDP_FLOOD: "datagram_flood",
    Kind.ICMP_FLOOD: "datagram_flood",
}
MEMORY = re.compile(
    r"_MAX$|^(HOSTS|PRESENT|ADDRESSES|CLAIMANTS|KEEP|SOURCES|DESTINATIONS|FRIENDS|PAIRS|SWEEPS|SEARCHES|PLACES|LEFT|"
    r"ROUTERS|SERVERS|PROGRAMS|OVER|TRIED|COMPLETE)_S$|^KNOWN_BITS$|^PORTS_MAX$"
)
"""How much and how long something is remembered: ARCHITECTURE.md tells of that."""
SHARED = {"contacts": {"SERVICE_BELOW", "SCANNER_ABOVE", "HONEST_BELOW"}}
"""Reckoned from others, or no threshold."""
NOT_HERE = {
    "all", "connection", "detection", "detector", "domain", "live", "neighbours", "numbers", "program_names",
    "specials", "watch",
}  # fmt: skip
"""How observations come about, not what is made of them."""


def module(name: str):
    return importlib.import_module(f"pfw.engine.detect.{name}")


def home(section: str) -> str:
    kind = section.strip("`")
    return HOMES.get(kind, kind.replace("-", "_"))


def rows() -> Iterator[tuple[str, str, list[str]]]:
    """Section, threshold in words, and names of constants, with their module."""
    for section, text in SECTIONS.items():
        for line in text.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if line.startswith("| ") and len(cells) == 3 and "`" in cells[1]:
                names = re.findall(r"`([\w.]+)`", cells[1])
                yield section, cells[0], [each if "." in each else f"{home(section)}.{each}" for each in names]


def values(name: str) -> list[float]:
    home_of, _, constant = name.partition(".")
    value = getattr(module(home_of), constant)
    return [float(each) for pair in value for each in pair] if isinstance(value, tuple) else [float(value)]


def constants(name: str) -> set[str]:
    """The numbers at the top of a module that are its own."""
    source = Path(module(name).__file__).read_text(encoding="utf-8")
    assigned = re.findall(r"^([A-Z][A-Z_0-9, ]*?)(?:: [^=]+)? = ", source, re.MULTILINE)
    own = {each.strip() for names in assigned for each in names.split(",")}
    return {each for each in own if isinstance(getattr(module(name), each, None), int | float)}


@pytest.mark.parametrize(("section", "words", "names"), list(rows()))
def test_the_numbers_are_those_of_the_detectors(section, words, names):
    said = [float(number.replace(",", "")) * UNITS[unit] for number, unit in NUMBER.findall(words)]
    assert said == pytest.approx([value for name in names for value in values(name)]), section


def test_every_kind_has_a_section_and_a_line():
    lines = re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE)
    assert lines == [str(kind) for kind in Kind] == [name.strip("`") for name in SECTIONS if name.startswith("`")]
    for name, text in SECTIONS.items():
        if name.startswith("`"):
            assert "- **Against false alarms:** " in text, name
            assert "- **Cannot see:** " in text, name


def test_no_threshold_is_left_out():
    told = {name for _, _, names in rows() for name in names}
    for found in pkgutil.iter_modules(detect.__path__):
        if found.name in NOT_HERE:
            continue
        wanted = {each for each in constants(found.name) if not MEMORY.search(each)} - SHARED.get(found.name, set())
        missing = {f"{found.name}.{each}" for each in wanted} - told
        assert not missing, f"docs/detection.md says nothing of {sorted(missing)}"


def test_every_file_that_judges_is_one_that_is_looked_at():
    homes = {type(each).__module__.rpartition(".")[2] for each in detectors()}
    assert homes == {home(f"`{kind}`") for kind in Kind}
    assert not homes & NOT_HERE


def test_who_could_be_banned_for_what():
    """Those that the page says are banned for nothing do not set `ban`; the tests of the others show when they do."""
    banned = {
        kind for kind, who in re.findall(r"^\| `([\w-]+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE) if who != "nobody"
    }
    assert banned == {"port-scan", "sweep", "brute-force", "known-bad"}
    for kind in Kind:
        source = Path(module(home(f"`{kind}`")).__file__).read_text(encoding="utf-8")
        assert ("ban=" in source) == (kind in banned), kind


README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_readme_has_every_kind_with_the_numbers_of_the_page() -> None:
    section = README.partition("## What it notices")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `([\w-]+)` \| (.*?) \|", section, flags=re.MULTILINE)
    assert [kind for kind, _ in found] == list(Kind)
    for kind, text in found:
        wanted = set(re.findall(r"\d[\d.,]*\d|\d", text))
        there = set(re.findall(r"\d[\d.,]*\d|\d", SECTIONS[f"`{kind}`"]))
        assert wanted <= there, kind
