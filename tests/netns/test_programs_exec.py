"""A process that begins another script of the same interpreter is that script from then on."""

from __future__ import annotations

import os
import sys
from typing import Any

from tests.netns.programs_lab import WEB, Lab, lab  # noqa: F401

PYTHON = os.path.realpath(sys.executable)
_CONNECT = """
import socket
try:
    socket.create_connection(({address!r}, {port}), timeout=2).close()
    print("through", flush=True)
except OSError:
    print("not through", flush=True)
"""


def test_a_script_that_begins_another_lends_it_nothing(lab: Lab, net: Any) -> None:  # noqa: F811
    connect = _CONNECT.format(address=net.there, port=WEB)
    other = lab.folder / "other.py"
    other.write_text(connect)
    allowed = lab.folder / "allowed.py"
    allowed.write_text(f"{connect}\nimport os\nos.execv({PYTHON!r}, [{PYTHON!r}, {str(other)!r}])\n")
    rule = {"name": "script", "action": "allow", "direction": "out", "app": PYTHON, "script": str(allowed)}
    lab.up({"version": 2, "default": {"in": "block", "out": "block"}, "rules": [rule]})
    assert lab.run(PYTHON, allowed).stdout.split("\n") == ["through", "not through", ""]
