"""The programs of a rule: paths of executables, with what the file must hold where the rule says that, and scripts.

Nothing is opened here: whether a path exists, and what is behind it, is known where the connection is.
"""

from __future__ import annotations

import re

from pfw.model.rule import App
from pfw.policy.locate import Path
from pfw.policy.report import MAX_FAULTS, MisfitError, Report, describe, shown, wrong_type
from pfw.policy.values import read_app

APP_KEYS: tuple[str, ...] = App.__struct_fields__
SHA256_SHAPE = "[0-9A-Fa-f]{64}"


def read_apps(report: Report, path: Path, value: object) -> tuple[App, ...] | None:
    """A program or a list of them, each once; None and faults if any does not fit."""
    if value == []:
        report.read_each(path, value, _read_plain)  # which says that nothing can match it
        return None
    if not isinstance(value, list):
        alone = _read_app(report, path, value)
        return None if alone is None else (alone,)
    found: list[App] = []
    for index, item in enumerate(value):
        app = _read_app(report, (*path, index), item)
        if app is not None:
            found.append(app)
        elif report.count >= MAX_FAULTS:
            return None
    return tuple(dict.fromkeys(found)) if len(found) == len(value) else None


def _read_app(report: Report, path: Path, value: object) -> App | None:
    if not isinstance(value, dict):
        plain = report.read(path, value, _read_plain)
        return None if plain is None else App(plain)
    faults = report.count
    for key in value:
        if key not in APP_KEYS:
            report.unknown_key((*path, key), "a field of a program", APP_KEYS)
    if "path" not in value:
        report.fault(path, 'has no "path"')
    program = report.read((*path, "path"), value["path"], read_app) if "path" in value else None
    sha256 = report.read((*path, "sha256"), value["sha256"], read_sha256) if "sha256" in value else None
    if program is not None and program.endswith("*") and "sha256" in value:
        what = f"does not go with {shown(program)}: the programs there are many, and a hash is that of one file"
        report.fault((*path, "sha256"), what)
    return None if report.count > faults or program is None else App(program, sha256)


def _read_plain(value: object) -> str:
    if not isinstance(value, str):
        raise MisfitError(f'must be a path or an object with "path" and "sha256", not {describe(value)}')
    return read_app(value)


def read_sha256(value: object) -> str:
    """The digits in small letters, as `Flow.app_sha256` has them."""
    if not isinstance(value, str):
        raise wrong_type("a text of 64 hex digits", value)
    if not re.fullmatch(SHA256_SHAPE, value):
        raise MisfitError(f"{shown(value)} is not a SHA-256 hash (64 hex digits, as sha256sum prints them)")
    return value.lower()
