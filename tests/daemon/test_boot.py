"""What the daemon may do as a service, as its unit says."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pfw.daemon.boot import units
from pfw.drivers import contents

NOBODY = 65534
ASKS = """
import os, sys
from pfw.drivers.contents import Contents
print(Contents(patience_s=20).sha256(os.open(sys.argv[1], os.O_PATH)))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="capabilities are dropped by root")
def test_it_may_prove_what_a_file_of_somebody_else_holds(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"words")
    with open(path, "rb") as file:
        if contents._file_system(file.fileno()) in contents._UNTOLD:
            pytest.skip("only root's files count on this file system")
    os.chown(path, NOBODY, NOBODY)
    unit = units(tmp_path)["pfw-daemon.service"]
    capabilities = " ".join(re.findall("^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)).split()
    bounds = ",".join(["-all", *(f"+{each.removeprefix('CAP_').lower()}" for each in capabilities)])
    words = ["setpriv", f"--bounding-set={bounds}", "--no-new-privs", sys.executable, "-P", "-c", ASKS, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert (done.stdout, done.stderr) == (f"{hashlib.sha256(b'words').hexdigest()}\n", "")
