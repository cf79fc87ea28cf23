"""Standard output in a process of its own: nothing waits for it, and the last lines still come."""

import os
import subprocess
import sys
import time

import pytest

START = "import sys, time; from pfw.drivers.output import LINES_MAX, Output; "


def run(code, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", START + code], env=environment, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("wait", [True, False])
def test_lines_come_in_order_and_the_last_ones_last(wait):
    code = f"o = Output(wait={wait}); [o.write([str(n), str(n) + 'b']) for n in range(500)]; o.close(['the end'])"
    out, errors = run(code, stdout=subprocess.PIPE, text=True).communicate(timeout=20)
    assert out.splitlines() == [f"{number}{more}" for number in range(500) for more in ("", "b")] + ["the end"]
    assert errors == ""


@pytest.mark.parametrize("wait", [True, False])
def test_a_reader_that_has_gone_is_told_to_the_writer(wait):
    read, write = os.pipe()
    os.close(read)
    code = (
        f"o = Output(wait={wait})\n"
        "try:\n"
        "    for n in range(500): o.write(['line']); time.sleep(0.01)\n"
        "except BrokenPipeError: sys.stdout = None; sys.exit(7)\n"
    )
    process = run("\n" + code, stdout=write)
    os.close(write)
    assert process.communicate(timeout=20)[1] == b""
    assert process.returncode == 7


def test_nobody_waits_for_a_reader_that_never_reads():
    read, write = os.pipe()
    code = (
        "o = Output(wait=False); began = time.monotonic(); "
        "[o.write(['x' * 200] * 100) for n in range(1000)]; "
        "took = time.monotonic() - began; o.close(['the end'], 0.2); "
        "print(took, o.left_out >= 100_000 - 2 * LINES_MAX - 1000, file=sys.stderr)"
    )
    process = run(code, stdout=write)
    os.close(write)
    told, result = process.communicate(timeout=20)[1].splitlines()
    took, counted = result.split()
    os.close(read)
    assert process.returncode == 0
    assert float(took) < 5
    assert counted == b"True"
    assert told.startswith(b"pfw: nobody reads the output: ")


def test_a_full_disk_is_counted():
    code = "o = Output(wait=True); o.write(['a', 'b']); n = o.left_out; sys.stdout = None; sys.exit(n)"
    with open("/dev/full", "w") as full:
        process = run(code, stdout=full)
    process.communicate(timeout=20)
    assert process.returncode == 2


def test_writing_from_a_slow_start_is_not_lost():
    code = "o = Output(wait=False); o.write([]); o.write(['one']); time.sleep(0.2); o.write(['two']); o.close([])"
    began = time.monotonic()
    out, _ = run(code, stdout=subprocess.PIPE, text=True).communicate(timeout=20)
    assert out == "one\ntwo\n"
    assert time.monotonic() - began < 10
