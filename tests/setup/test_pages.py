"""The man page and the completions, read by the programs that they are for."""

import argparse
import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pfw.cli.pages import SHELLS, completion, man_page
from pfw.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[2]


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@pytest.fixture(scope="module")
def awkward() -> argparse.ArgumentParser:
    """A parser whose texts hold what roff and shells take for their own."""
    parser = argparse.ArgumentParser(prog="pfw", description="It's a firewall: [really]\n\n.not a request")
    parser.add_argument(
        "--config", metavar="FILE", help="100%% 'quoted' \\ back: [x] $HOME `id` (default: %(default)s)"
    )
    commands = parser.add_subparsers(dest="command")
    watch = commands.add_parser("watch", help='it\'s: a "watch"', epilog="examples:\n  pfw watch\n  .dot 'x'")
    watch.add_argument("--interface", "-i", action="append", help="one")
    watch.add_argument("--colour", choices=("auto", "never"), help="when")
    watch.add_argument("--to", nargs="?", metavar="FILE", help="maybe")
    watch.add_argument("--quiet", action="store_true", help="less")
    watch.add_argument("--hidden", help=argparse.SUPPRESS)
    ask = commands.add_parser("ask", help="two words")
    ask.add_argument("direction", choices=("in", "out"), help="which way")
    ask.add_argument("files", metavar="FILE", nargs="*", help="what")
    return parser


class TestManPage:
    @needs("man")
    @pytest.mark.parametrize("parser", [build_parser(), None], ids=["real", "awkward"])
    def test_is_without_warnings(self, parser, awkward, tmp_path):
        page = tmp_path / "pfw.1"
        page.write_text(man_page(parser or awkward))
        done = subprocess.run(
            ["man", "-l", "--warnings=w", page], capture_output=True, text=True, env=os.environ | {"LC_ALL": "C.UTF-8"}
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "COMMANDS" in done.stdout

    @needs("man")
    def test_keeps_every_character(self, awkward, tmp_path):
        page = tmp_path / "pfw.1"
        page.write_text(man_page(awkward))
        environment = os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "200"}
        shown = subprocess.run(["man", "-l", page], capture_output=True, text=True, env=environment).stdout
        for text in (".not a request", "100% 'quoted' \\ back: [x] $HOME `id` (default: None)", "  .dot 'x'\n"):
            assert text in shown
        assert "--hidden" not in shown

    def test_has_every_command_and_option(self):
        page = man_page(build_parser()).replace("\\-", "-")
        for words in ("monitor", "check", "explain", "--every-packet", "--rules", "EXAMPLES"):
            assert words in page


@needs("bash")
class TestBash:
    ASK = """
compopt() { :; }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_pfw; printf '%s\\n' "${COMPREPLY[@]}"
"""

    def ask(self, parser: argparse.ArgumentParser, *words: str, cwd: Path | None = None) -> set[str]:
        script = completion(parser, "bash") + self.ASK
        done = subprocess.run(["bash", "-uc", script, "bash", *words], capture_output=True, text=True, cwd=cwd)
        assert done.stderr == ""
        return set(done.stdout.split("\n")) - {""}

    @pytest.mark.parametrize(
        ("words", "answers"),
        [
            (["pfw", ""], {"watch", "ask"}),
            (["pfw", "w"], {"watch"}),
            (["pfw", "--c"], {"--config"}),
            (["pfw", "--config", "x", "a"], {"ask"}),
            (["pfw", "--config", "=", "x", "a"], {"ask"}),
            (["pfw", "watch", "-"], {"--interface", "-i", "--colour", "--to", "--quiet", "-h", "--help"}),
            (["pfw", "watch", "--colour", ""], {"auto", "never"}),
            (["pfw", "watch", "--colour", "="], {"auto", "never"}),
            (["pfw", "watch", "--colour", "=", "ne"], {"never"}),
            (["pfw", "watch", "--interface", "l"], {"lo"}),
            (["pfw", "watch", "--to", "--qu"], {"--quiet"}),
            (["pfw", "ask", ""], {"in", "out"}),
            (["pfw", "watch", "more"], set()),
            (["pfw", "unknown", "x"], set()),
        ],
    )
    def test_answers(self, awkward, words, answers):
        assert self.ask(awkward, *words) == answers

    def test_files(self, awkward, tmp_path):
        (tmp_path / "my rules.json").touch()
        for words in (["--config", "m"], ["--config", "=", "m"], ["ask", "in", "m"], ["ask", "in", "x", "y", "m"]):
            assert self.ask(awkward, "pfw", *words, cwd=tmp_path) == {"my rules.json"}

    def test_the_real_parser(self):
        parser = build_parser()
        assert {"monitor", "check", "explain", "replay", "schema", "convert"} <= self.ask(parser, "pfw", "")
        assert self.ask(parser, "pfw", "monitor", "--every") == {"--every-packet"}
        assert self.ask(parser, "pfw", "completion", "f") == {"fish"}

    def test_a_real_tab(self, tmp_path):
        (tmp_path / "rc").write_text(
            completion(build_parser(), "bash")
            + "pfw() { echo \"<$*>\"; }\nPS1=ready; bind 'set enable-bracketed-paste off'\n"
        )
        shown = on_a_terminal(["bash", "--rcfile", "rc"], b"pfw che\t--js\t\npfw completion fi\t\nexit\n", tmp_path)
        assert b"<check --json>" in shown
        assert b"<completion fish>" in shown


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_can_read_it(shell, awkward, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    for number, parser in enumerate((awkward, build_parser())):
        script = tmp_path / f"{number}.{shell}"
        script.write_text(completion(parser, shell))
        done = subprocess.run([shell, "-n", script], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@needs("fish")
def test_fish_answers(awkward, tmp_path):
    script = tmp_path / "pfw.fish"
    script.write_text(completion(awkward, "fish"))
    (tmp_path / "some.json").touch()

    def ask(line: str) -> list[str]:
        command = f'source {script}; complete -C "{line}"'
        environment = os.environ | {"HOME": str(tmp_path)}
        done = subprocess.run(["fish", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment)
        return done.stdout.splitlines()

    assert ask("pfw ") == ["ask\ttwo words", 'watch\tit\'s: a "watch"']
    assert ask("pfw watch --colour ") == ["auto\twhen", "never\twhen"]
    assert "some.json" in ask("pfw --config s")


def test_another_shell_is_refused(awkward):
    with pytest.raises(ValueError, match="no completion for tcsh"):
        completion(awkward, "tcsh")


def on_a_terminal(command: list[str], typed: bytes, folder: Path) -> bytes:
    """What a program shows on a terminal where this is typed once it says that it is ready, until it ends."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, os.environ | {"TERM": "dumb", "INPUTRC": "/dev/null"})
    shown = b""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:  # the other side has ended
                break
        if typed and b"ready" in shown:
            os.write(terminal, typed)
            typed = b""
    os.close(terminal)
    os.waitpid(process, 0)
    return shown
