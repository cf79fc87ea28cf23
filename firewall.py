#!/usr/bin/env python3
"""The one command: sets up what is missing, then becomes `pfw`.

    sudo python3 firewall.py [OPTIONS]        is  pfw monitor [OPTIONS]
    python3 firewall.py COMMAND [OPTIONS]     is  pfw COMMAND [OPTIONS]

Rule 1: the standard library alone, in words that every Python since 2.7 can read (so no function and no f-string
here): an old Python must get as far as saying that it is too old.
Rule 2: every start pays for this file, so it imports nothing that Python has not loaded already and only looks whether
the set-up was finished; to do it is the work of tools/set_up.py, and `write_stamp` there writes what is compared here.
"""

import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
VENV = os.path.join(HERE, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "pfw-set-up", "requirements.txt")
UNFINISHED = os.path.join(VENV, "pfw-unfinished")
ARGUMENTS = sys.argv[1:]
# What ./test and .ci/run ask for: no start, and the requirement files that follow are installed too.
SET_UP_ONLY = ARGUMENTS[:1] == ["--set-up-only"]

try:
    try:
        with open(STAMP, "rb") as stamp, open(os.path.join(HERE, "requirements.txt"), "rb") as wanted:
            interpreter = os.fsencode(os.path.realpath(PYTHON))
            is_finished = stamp.read() == interpreter + b"\n" + wanted.read()
        is_ready = is_finished and os.access(PYTHON, os.X_OK) and not os.path.exists(UNFINISHED)
    except (EnvironmentError, AttributeError):
        is_ready = False

    needs_libpcap = any(argument.startswith(("--filter", "-f")) for argument in ARGUMENTS)
    if needs_libpcap or SET_UP_ONLY or not is_ready:
        if sys.version_info < (3, 11):
            import subprocess

            for minor in range(19, 10, -1):
                for folder in os.environ.get("PATH", "").split(os.pathsep):
                    newer = os.path.join(folder, "python3.%d" % minor)
                    if os.access(newer, os.X_OK):
                        # pyenv and its like put programs on the PATH that only say that they are not there
                        with open(os.devnull, "wb") as nowhere:
                            status = subprocess.call([newer, "-c", ""], stdout=nowhere, stderr=nowhere)
                        if status == 0:
                            os.execv(newer, [newer, os.path.abspath(__file__)] + ARGUMENTS)
            sys.stderr.write(
                "pfw: needs Python 3.11 or newer, this is %d.%d; type: sudo apt-get install python3\n"
                % sys.version_info[:2]
            )
            sys.exit(3)

        sys.path.insert(0, os.path.join(HERE, "tools"))
        import set_up

        status = set_up.main(HERE, ARGUMENTS[1:] if SET_UP_ONLY else [], needs_libpcap=needs_libpcap)
        if status or SET_UP_ONLY:
            sys.exit(status)

    if ARGUMENTS[:1] != ["--version"] and (not ARGUMENTS or ARGUMENTS[0].startswith("-")):
        ARGUMENTS.insert(0, "monitor")
    # -I: neither PYTHON* variables nor the folder that one happens to be in decide what is imported.
    os.execv(PYTHON, [PYTHON, "-I", "-m", "pfw"] + ARGUMENTS)
except KeyboardInterrupt:
    sys.stderr.write("\npfw: interrupted; the next start goes on with the set-up\n")
    sys.exit(130)
