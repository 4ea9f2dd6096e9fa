"""Completion on TAB, for every shell: the scripts in shells/ only pass the words on and show the answer.

A shell runs `ostore _complete =WORD [WORD BEFORE]...`. The first line of the answer says which paths the shell should
offer as well (`files`, `folders` or `none`). Each other line is a candidate, with its meaning after a tab. The
candidates come from typer's own description of a command, so a new command needs nothing here. No model is opened, and
an error gives no candidates.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

from ostore.cli.program import COMMANDS
from ostore.cli.program import app as program
from ostore.cli.text import one_line
from ostore.formats.errors import OstoreError

Paths = Literal["files", "folders", "none"]
# The text that a shell inserts, and its meaning; the name of a model has none.
Candidate = tuple[str, str]
Answer = tuple[Paths, Iterable[Candidate]]

# The words of metavars such as `[MODEL|BUNDLE]...`. Any other word offers nothing.
_MODELS = frozenset({"MODEL", "PATTERN"})
_COMMAND = "COMMAND"
_PATHS: dict[str, Paths] = {
    "A": "files",
    "B": "files",
    "BUNDLE": "files",
    "DEST": "files",
    "DIR": "folders",
    "FILE": "files",
    "PATH": "files",
    "DST": "folders",
    "SOURCE": "files",
    "SRC": "files",
}
# In a metavar such as `SIZE|fat32|dvd`, what is typed as it stands.
_LITERAL = re.compile(r"(?:^|\|)([a-z0-9]*[a-z][a-z0-9]*)(?=\||$)")
# typer adds this option to every command.
_HELP = (("--help", "Show this message and exit."), ("-h", "Show this message and exit."))
_NOTHING: Answer = ("none", ())


def answer(arguments: Sequence[str]) -> NoReturn:
    """Print the candidates and exit. `arguments` are `=WORD`, the word at the cursor, and the words before it."""
    # The `=` is there because PowerShell before 7.3 drops an empty argument.
    word = arguments[0].removeprefix("=") if arguments else ""
    paths, candidates = complete(arguments[1:], word)
    lines = (f"{text}\t{one_line(meaning)}" if meaning else text for text, meaning in candidates)
    sys.stdout.write("\n".join((paths, *lines)) + "\n")
    sys.stdout.flush()
    # A person waits, and the shutdown of the interpreter takes a tenth of the time.
    os._exit(0)


def complete(before: Sequence[str], word: str) -> Answer:
    """The candidates that begin with `word`, after the words `before`."""
    commands = typer.main.get_group(program)
    if before:
        command = commands.commands.get(before[0])
        paths, candidates = _of_command(command, before[1:], word) if isinstance(command, TyperCommand) else _NOTHING
    elif word.startswith("-"):
        paths, candidates = "none", _spellings(option for option in commands.params if isinstance(option, TyperOption))
    else:
        paths, candidates = "none", COMMANDS.items()
    return paths, [candidate for candidate in candidates if candidate[0].startswith(word)]


@dataclass(slots=True)
class _Typed:
    """The words before the cursor, read. `awaiting` is an option whose value comes next."""

    awaiting: TyperOption | None = None
    models: str | None = None
    arguments: int = 0
    options_ended: bool = False


def _of_command(command: TyperCommand, before: Sequence[str], word: str) -> Answer:
    options = _options_of(command)
    typed = _read(before, options)
    if typed.awaiting:
        return _values(typed.awaiting, word, typed.models)
    if word.startswith("-") and not typed.options_ended:
        name, assigned, value = word.partition("=")
        if not assigned:
            return "none", _spellings(options.values())
        option = _with_value(options, name)
        paths, values = _values(option, value, typed.models) if option else _NOTHING
        return paths, ((f"{name}={text}", meaning) for text, meaning in values)
    argument = _argument(command, typed.arguments)
    return _values(argument, word, typed.models) if argument else _NOTHING


def _options_of(command: TyperCommand) -> dict[str, TyperOption]:
    """Return the visible options of a command by each of their spellings."""
    return {
        spelling: option
        for option in command.params
        if isinstance(option, TyperOption) and not option.hidden
        for spelling in (*option.opts, *option.secondary_opts)
    }


def _read(before: Iterable[str], options: dict[str, TyperOption]) -> _Typed:
    typed, words = _Typed(), iter(before)
    for word in words:
        name, assigned, value = word.partition("=")
        if word == "--":
            typed.options_ended = True
            typed.arguments += len(list(words))
        elif word == "-" or not word.startswith("-"):
            typed.arguments += 1
        elif option := _with_value(options, name):
            said = value if assigned else next(words, None)
            typed.awaiting = option if said is None else None
            typed.models = said if name == "--models" else typed.models
    return typed


def _with_value(options: dict[str, TyperOption], name: str) -> TyperOption | None:
    option = options.get(name)
    return option if option and not option.is_flag and not option.count else None


def _argument(command: TyperCommand, place: int) -> TyperArgument | None:
    """The argument that the word after `place` words belongs to."""
    for argument in command.params:
        if isinstance(argument, TyperArgument):
            if argument.nargs < 0 or place < argument.nargs:
                return argument
            place -= argument.nargs
    return None


def _values(parameter: TyperArgument | TyperOption, word: str, models: str | None) -> Answer:
    choices = getattr(parameter.type, "choices", None)
    if choices:
        return "none", [(str(choice), "") for choice in choices]
    metavar = parameter.metavar or (parameter.name or "").upper()
    if literals := _LITERAL.findall(metavar):
        return "none", [(literal, "") for literal in literals]
    words = re.findall("[A-Z]+", metavar)
    if _COMMAND in words:
        return "none", COMMANDS.items()
    paths: Paths = next((_PATHS[word] for word in words if word in _PATHS), "none")
    return paths, _models(word, models) if _MODELS.intersection(words) else ()


def _models(word: str, models: str | None) -> Iterator[Candidate]:
    """Every valid name in the store: short, or in full if only the full name begins with the typed word."""
    from ostore.places.store.survey.manifest_tree import find_manifests
    from ostore.settings import choose_store

    try:
        # The shell passes words as typed, with `~` and `$VARIABLE` not yet expanded.
        flag = None if models is None else Path(os.path.expandvars(models)).expanduser()
        entries = find_manifests(choose_store(flag).path).entries
    except (OstoreError, OSError, RuntimeError):  # RuntimeError: `~` of an unknown user
        return
    names = dict.fromkeys(entry.name for entry in entries if entry.name)
    for name in names:
        yield str(name) if str(name).startswith(word) else name.full, ""


def _spellings(options: Iterable[TyperOption]) -> Iterator[Candidate]:
    """Every spelling of the options once, in the order of the help, then --help."""
    known = {spelling: option.help or "" for option in options for spelling in (*option.opts, *option.secondary_opts)}
    yield from {**known, **dict(_HELP)}.items()
