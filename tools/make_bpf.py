"""Build the eBPF program that labels sockets, or check that what is shipped is what the source gives.

    tools/make_bpf.py            compile bpf/label.bpf.c to src/pfw/drivers/label.bpf.o, with its build record
    tools/make_bpf.py --check    compile it again and compare; status 1 where they differ

The bytes are the same for the same compiler only. Where the compiler that made it is not at hand, the check compares
the source with the build record, and says so.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "bpf" / "label.bpf.c"
OBJECT = ROOT / "src" / "pfw" / "drivers" / "label.bpf.o"
RECORD = OBJECT.with_suffix(".json")
_FLAGS = ["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", "-fdebug-compilation-dir=.", "-idirafter"]
_HEADERS = ["/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu"]


def compiler() -> str | None:
    """The first line in which the compiler says what it is; None where there is none."""
    if shutil.which("clang") is None or shutil.which("llvm-strip") is None:
        return None
    return subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def build() -> bytes:
    """The object as the compiler at hand makes it. Raises CalledProcessError."""
    headers = next(path for path in _HEADERS if Path(path).is_dir())
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / OBJECT.name
        # In the folder of the source: the names of files are in the object.
        subprocess.run(["clang", *_FLAGS, headers, "-c", SOURCE.name, "-o", str(made)], cwd=SOURCE.parent, check=True)
        subprocess.run(["llvm-strip", "-g", str(made)], check=True)
        return made.read_bytes()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def record(made: bytes, by: str) -> dict[str, str]:
    return {"source_sha256": sha256(SOURCE.read_bytes()), "object_sha256": sha256(made), "compiler": by}


def check() -> str | None:
    """What is wrong; None where all is well."""
    said = json.loads(RECORD.read_text())
    shipped = OBJECT.read_bytes()
    if said["source_sha256"] != sha256(SOURCE.read_bytes()):
        return f"{SOURCE.name} has changed since the object was built: run tools/make_bpf.py"
    if said["object_sha256"] != sha256(shipped):
        return f"{OBJECT.name} is not what its build record says: run tools/make_bpf.py"
    by = compiler()
    if by != said["compiler"]:
        print(f"the object was built by {said['compiler']}, here is {by}: only source and record were compared")
    elif build() != shipped:
        return f"{OBJECT.name} is not what {SOURCE.name} gives: run tools/make_bpf.py"
    return None


def main() -> int:
    if "--check" in sys.argv[1:]:
        wrong = check()
        if wrong is not None:
            print(wrong, file=sys.stderr)
        return wrong is not None
    by = compiler()
    if by is None:
        print("clang and llvm-strip are needed: apt-get install clang llvm libbpf-dev", file=sys.stderr)
        return 3
    made = build()
    OBJECT.write_bytes(made)
    RECORD.write_text(json.dumps(record(made, by), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
