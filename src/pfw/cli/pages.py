"""Owns what is made from the command line's parser: the man page and the completions of bash, zsh and fish.

Rule 1: the parser is the only source; `read_commands` turns it into plain values, the rest of this file writes those.
Rule 2: pure and the same everywhere: no date, no terminal width, nothing that argparse itself has laid out (that
differs between Python versions), because tools/make_man.py compares the result with the files in the repository.

What an argument's value is (`Kind`) is told by its choices, its name (interface, user) or its metavar (FILE, PATH).
"""

import argparse
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

Kind = Literal["nothing", "words", "file", "interface", "user", "text"]

SHELLS = ("bash", "zsh", "fish")


class Argument(NamedTuple):
    """An option (it has flags) or an operand (it has none)."""

    flags: tuple[str, ...]
    metavar: str
    kind: Kind
    words: tuple[str, ...]
    help: str
    is_optional: bool
    is_repeated: bool


class Command(NamedTuple):
    """A subcommand; the program itself is the one without a name."""

    name: str
    summary: str
    description: str
    epilog: str
    options: tuple[Argument, ...]
    operands: tuple[Argument, ...]


def read_commands(parser: argparse.ArgumentParser) -> tuple[Command, ...]:
    """The program itself, then its commands in their order; what has its help suppressed is left out."""
    commands = [_read_command("", "", parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers: dict[str, argparse.ArgumentParser] = dict(action.choices)
            for choice in action._choices_actions:
                commands.append(_read_command(choice.dest, choice.help or "", parsers[choice.dest]))
    return tuple(commands)


def _read_command(name: str, summary: str, parser: argparse.ArgumentParser) -> Command:
    shown = [
        _read_argument(action, parser)
        for action in parser._actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)
    ]
    return Command(
        name,
        summary,
        parser.description or "",
        parser.epilog or "",
        tuple(argument for argument in shown if argument.flags),
        tuple(argument for argument in shown if not argument.flags),
    )


def _read_argument(action: argparse.Action, parser: argparse.ArgumentParser) -> Argument:
    words = tuple(str(choice) for choice in action.choices or ())
    metavar = action.metavar or ("|".join(words) if words else action.dest.upper().replace("_", "-"))
    if isinstance(metavar, tuple):
        metavar = " ".join(metavar)
    return Argument(
        tuple(action.option_strings),
        "" if action.nargs == 0 else metavar,
        "words" if words else _kind_of(action, metavar),
        words,
        parser._get_formatter()._expand_help(action) if action.help else "",
        action.nargs in ("?", "*"),
        action.nargs in ("*", "+", argparse.REMAINDER)
        or isinstance(action, argparse._AppendAction | argparse._CountAction),
    )


def _kind_of(action: argparse.Action, metavar: str) -> Kind:
    if action.nargs == 0:
        return "nothing"
    if metavar in ("FILE", "PATH"):
        return "file"
    named: dict[str, Kind] = {"interface": "interface", "user": "user"}
    return named.get(action.dest, "text")


# --- the man page ---------------------------------------------------------------------------------------------------


def man_page(parser: argparse.ArgumentParser) -> str:
    """The manual page, section 1, for man(7) macros."""
    from pfw import __version__

    program, *commands = read_commands(parser)
    name = parser.prog
    tagline = program.description.strip().split("\n")[0].removeprefix(f"{name}:").strip().rstrip(".")
    lines = [
        '.\\" Made by tools/make_man.py from the parser of the command line; do not edit.',
        f'.TH {name.upper()} 1 "" "{name} {__version__}" "User Commands"',
        ".SH NAME",
        f"{name} \\- {_roff(tagline)}",
        ".SH SYNOPSIS",
        *_synopsis(name, program, has_commands=bool(commands)),
        ".SH DESCRIPTION",
        *_prose("\n".join(program.description.strip().split("\n")[1:])),
        *_list_of_commands(name, commands),
        ".SH OPTIONS",
        *_entries(program.options),
    ]
    if commands:
        lines.append(".SH COMMANDS")
    for command in commands:
        lines += [".SS " + _quoted(_usage(name, command)), *_prose(command.description or command.summary)]
        own_options = [option for option in command.options if "--help" not in option.flags]
        lines += [*_entries((*command.operands, *own_options)), *_prose(command.epilog)]
    lines += [*_sections(program.epilog), ".SH SEE ALSO", ".BR nft (8),", ".BR tcpdump (8),", ".BR pcap\\-filter (7)"]
    return "\n".join(lines) + "\n"


def _synopsis(name: str, program: Command, *, has_commands: bool) -> Iterator[str]:
    yield f".B {_roff(name)}"
    rest = ["[OPTION ...]"] if program.options else []
    rest += ["COMMAND [ARGUMENT ...]"] if has_commands else [_operand(operand) for operand in program.operands]
    yield f".I {_roff(' '.join(rest))}"


def _list_of_commands(name: str, commands: Iterable[Command]) -> Iterator[str]:
    for command in commands:
        yield from (".TP", f".B {_roff(f'{name} {command.name}')}", _line(command.summary))


def _usage(name: str, command: Command) -> str:
    return " ".join([name, command.name, "[OPTION ...]", *(_operand(operand) for operand in command.operands)])


def _operand(operand: Argument) -> str:
    text = operand.metavar + (" ..." if operand.is_repeated else "")
    return f"[{text}]" if operand.is_optional else text


def _entries(arguments: Iterable[Argument]) -> Iterator[str]:
    for argument in arguments:
        flags = ", ".join(f"\\fB{_roff(flag)}\\fR" for flag in argument.flags)
        value = f"\\fI{_roff(argument.metavar)}\\fR" if argument.metavar else ""
        if argument.flags and argument.is_optional:
            value = f"[{value}]"
        yield from (".TP", f"{flags} {value}".strip(), _line(argument.help))


def _prose(text: str) -> Iterator[str]:
    """Paragraphs; lines that are indented are examples and keep their shape."""
    for paragraph in _paragraphs(text):
        is_example = None
        for line in paragraph.split("\n"):
            if is_example != line.startswith(" "):
                yield from ((".EE",) if is_example else ())
                is_example = line.startswith(" ")
                yield from ((".PP", ".EX") if is_example else (".PP",))
            yield _line(line.rstrip())
        yield from ((".EE",) if is_example else ())


def _paragraphs(text: str) -> list[str]:
    return [paragraph for paragraph in re.split(r"\n\s*\n", text.strip("\n")) if paragraph.strip()]


def _sections(text: str) -> Iterator[str]:
    """Prose in which a paragraph that begins with `heading:` begins a section."""
    for paragraph in _paragraphs(text):
        heading, colon, rest = paragraph.partition(":")
        if colon and heading.replace(" ", "").isalpha():
            yield f".SH {heading.upper()}"
            paragraph = rest.lstrip(" ").strip("\n")
        yield from _prose(paragraph)


def _line(text: str) -> str:
    """A line of text: a dot or a quote at its beginning would be a request."""
    escaped = _roff(text)
    return "\\&" + escaped if escaped.startswith((".", "'")) or not escaped else escaped


def _quoted(text: str) -> str:
    return '"' + _roff(text).replace('"', "\\(dq") + '"'


def _roff(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("^", "\\(ha").replace("~", "\\(ti")


# --- completions ----------------------------------------------------------------------------------------------------


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion script for one of SHELLS. Raises ValueError for another shell."""
    program, *commands = read_commands(parser)
    made_by = "made by tools/make_man.py from the parser of the command line; do not edit"
    if shell == "bash":
        return _bash(parser.prog, made_by, program, commands)
    if shell == "zsh":
        return _zsh(parser.prog, made_by, program, commands)
    if shell == "fish":
        return _fish(parser.prog, made_by, program, commands)
    raise ValueError(f"no completion for {shell}, only for {', '.join(SHELLS)}")


# COMP_WORDS has `--option=value` as three words. The first loop finds the command and counts the operands before the
# cursor; a word after an option that takes a value is neither.
BASH = """\
# bash completion for @NAME@: @MADE_BY@

_@NAME@_values() {
    case $1 in
    file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$2") ;;
    user) mapfile -t COMPREPLY < <(compgen -u -- "$2") ;;
    interface)
        local interfaces=(/sys/class/net/*)
        mapfile -t COMPREPLY < <(compgen -W "${interfaces[*]##*/}" -- "$2")
        ;;
    words*) mapfile -t COMPREPLY < <(compgen -W "${1#words }" -- "$2") ;;
    esac
}

_@NAME@() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' operands=0 skip=0 options='' kind='' word
    COMPREPLY=()
    if [[ $current == '=' ]]; then
        current=''
    elif [[ $previous == '=' ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do
        if [[ $word == '=' ]]; then skip=1; continue; fi
        if ((skip)); then skip=0; continue; fi
        case "$command $word" in
        @VALUED@) skip=1 ;;
        *' -'*) ;;
        ' '*) command=$word ;;
        *) ((operands += 1)) ;;
        esac
    done
    case "$command $previous" in
@VALUES@
    esac
    case $command in
@COMMANDS@
    esac
    if [[ $current == -* ]]; then kind="words $options"; fi
    _@NAME@_values "$kind" "$current"
}

complete -F _@NAME@ @NAME@
"""


def _bash(name: str, made_by: str, program: Command, commands: list[Command]) -> str:
    values, cases, valued = [], [], []
    for command in (program, *commands):
        for option in command.options:
            if option.kind != "nothing" and not option.is_optional:
                patterns = " | ".join(_sh(f"{command.name} {flag}") for flag in option.flags)
                valued.append(patterns)
                values.append(f'    {patterns}) _{name}_values {_sh(_bash_kind(option))} "$current"; return ;;')
        options = _sh(" ".join(flag for option in command.options for flag in option.flags))
        kinds = [_bash_kind(operand) for operand in command.operands]
        if command is program and commands:
            kinds = ["words " + " ".join(each.name for each in commands)]
        cases.append(f"    {_sh(command.name)})")
        cases.append(f"        options={options}")
        cases += [f"        {_bash_operand(at, kind, command)}" for at, kind in enumerate(kinds)]
        cases.append("        ;;")
    script = BASH.replace("@VALUED@", " | ".join(valued) or "''")
    script = script.replace("@VALUES@", "\n".join(values)).replace("@COMMANDS@", "\n".join(cases))
    return script.replace("@NAME@", name).replace("@MADE_BY@", made_by)


def _bash_operand(at: int, kind: str, command: Command) -> str:
    is_repeated = at < len(command.operands) and command.operands[at].is_repeated
    return f"if ((operands {'>=' if is_repeated else '=='} {at})); then kind={_sh(kind)}; fi"


def _bash_kind(argument: Argument) -> str:
    return f"words {' '.join(argument.words)}" if argument.kind == "words" else argument.kind


def _zsh(name: str, made_by: str, program: Command, commands: list[Command]) -> str:
    lines = [f"#compdef {name}", f"# {made_by}", "", f"_{name}() {{"]
    lines += ["    local curcontext=$curcontext state line", "    typeset -A opt_args", "    local -a commands"]
    lines += ["    commands=(", *(f"        {_sh(_zsh_described(each))}" for each in commands), "    )"]
    rest = ["'1: :->command'", "'*:: :->argument'"]
    lines += _zsh_arguments("    ", "-C ", [*_zsh_options(program), *rest])
    lines += ["    case $state in", f"    command) _describe -t commands {_sh(name + ' command')} commands ;;"]
    lines += ["    argument)", "        case $line[1] in"]
    for command in commands:
        lines.append(f"        {command.name})")
        operands = [_sh(_zsh_operand(at, operand)) for at, operand in enumerate(command.operands, 1)]
        lines += [*_zsh_arguments("            ", "", [*_zsh_options(command), *operands]), "            ;;"]
    lines += ["        esac", "        ;;", "    esac", "}", ""]
    # As a file in $fpath this is the body of the function; as the output of a command it is read by `source`.
    lines.append(f'if [[ $funcstack[1] == _{name} ]]; then _{name} "$@"; else compdef _{name} {name}; fi')
    return "\n".join(lines) + "\n"


def _zsh_arguments(indent: str, before: str, specs: Iterable[str]) -> list[str]:
    return f" \\\n{indent}    ".join([f"{indent}_arguments {before}-s -S".rstrip(), *specs]).split("\n")


def _zsh_options(command: Command) -> Iterator[str]:
    for option in command.options:
        exclusive = " ".join(option.flags)
        described = f"[{_zsh_text(option.help)}]" + (_zsh_value(option) if option.kind != "nothing" else "")
        for flag in option.flags:
            joins = "=" if option.kind != "nothing" and flag.startswith("--") else ""
            joins += "-" if option.is_optional else ""  # the value must be joined to the flag
            yield _sh(f"{'*' if option.is_repeated else f'({exclusive})'}{flag}{joins}{described}")


def _zsh_operand(at: int, operand: Argument) -> str:
    if operand.is_repeated:
        return "*" + _zsh_value(operand)
    return f"{at}:{_zsh_value(operand)}" if operand.is_optional else f"{at}{_zsh_value(operand)}"


def _zsh_value(argument: Argument) -> str:
    actions: dict[Kind, str] = {
        "file": "_files",
        "interface": "_net_interfaces",
        "user": "_users",
    }
    action = f"({' '.join(argument.words)})" if argument.words else actions.get(argument.kind, "")
    colons = "::" if argument.flags and argument.is_optional else ":"
    return f"{colons}{_zsh_text(argument.metavar)}:{action}"


def _zsh_described(command: Command) -> str:
    return f"{command.name}:{_zsh_text(command.summary)}"


def _zsh_text(text: str) -> str:
    """Text inside a specification, where brackets and colons have a meaning."""
    for special in "\\[]:":
        text = text.replace(special, "\\" + special)
    return text


def _fish(name: str, made_by: str, program: Command, commands: list[Command]) -> str:
    lines = [f"# fish completion for {name}: {made_by}", f"complete -c {name} -f"]
    for command in (program, *commands):
        condition = f"__fish_seen_subcommand_from {command.name}" if command.name else "__fish_use_subcommand"
        start = f"complete -c {name} -n {_fish_quoted(condition)}"
        if command is program:
            lines += [f"{start} -a {each.name} -d {_fish_quoted(each.summary)}" for each in commands]
        for option in command.options:
            flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
            lines.append(f"{start} {flags}{_fish_value(option)} -d {_fish_quoted(option.help)}")
        values = [_fish_value(operand).removeprefix(" -r").removeprefix(" -x") for operand in command.operands]
        lines += [start + value for value in values if value]
    return "\n".join(lines) + "\n"


def _fish_value(argument: Argument) -> str:
    if argument.flags and argument.is_optional:
        return ""
    values: dict[Kind, str] = {
        "nothing": "",
        "file": " -r -F",
        "interface": " -x -a '(__fish_print_interfaces)'",
        "user": " -x -a '(__fish_complete_users)'",
        "words": f" -x -a {_fish_quoted(' '.join(argument.words))}",
    }
    return values.get(argument.kind, " -x")


def _sh(text: str) -> str:
    """One word for bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
