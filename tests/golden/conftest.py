"""Namespaces for the rulesets that are kept here."""

from __future__ import annotations

from tests.netns.conftest import namespace, namespaces_work  # noqa: F401
