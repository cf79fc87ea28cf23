"""A remote login of the plainest kind: `login.py ADDRESS PORT`. Each line that comes is a command in JSON; it is run,
and its exit status and all that it says go back as a line."""

from __future__ import annotations

import json
import socket
import subprocess
import sys


def serve(address: str, port: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, int(port)), family=family) as server:
        print("ready", flush=True)
        session, _ = server.accept()
        talk(session)


def talk(session: socket.socket) -> None:
    with session, session.makefile("r") as lines:
        for line in lines:
            done = subprocess.run(
                json.loads(line), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            session.sendall(json.dumps([done.returncode, done.stdout]).encode() + b"\n")


if __name__ == "__main__":
    serve(*sys.argv[1:])
