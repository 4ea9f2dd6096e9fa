"""Remedies as this person types them: in their shell, by root or not, about the store of the command."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace

from ostore.cli.text import as_options
from ostore.formats.errors import OstoreError, is_lack_of_memory
from ostore.formats.remedy import OTHER_MEDIA, Remedy, command, person

# The arguments of the command that runs. It is one in a process, and whatever it prints is about its store.
_typed: list[str] = []


def begin(arguments: Sequence[str]) -> None:
    """Remember the arguments of the command whose remedies are to be shown."""
    _typed[:] = arguments


def again(*options: str) -> Remedy:
    """Return the command that runs, with further options."""
    return Remedy((("ostore", *_typed, *options),))


def line(remedy: Remedy) -> str:
    """Return a remedy as one line."""
    return _complete(remedy).text(sys.platform, is_root=is_root())


def arguments(remedy: Remedy) -> list[list[str]] | None:
    """Return the commands of a remedy, each a list of arguments, or None if only a person can do it."""
    commands = _complete(remedy).arguments(sys.platform, is_root=is_root())
    return [list(words) for words in commands] or None


def hint_of(error: Exception) -> Remedy | None:
    """Return what to do about an error, or None. `denial.way_out` knows more about what the system denies."""
    if context := getattr(error, "ctx", None):
        usage = command(*context.command_path.split(), "--help", after="shows how it is typed")
        # typer's own class for a missing argument has no public name.
        is_missing = type(error).__name__ == "MissingParameter"
        return _example(context.command).otherwise(usage) if is_missing else usage
    if is_lack_of_memory(error):
        return person("ulimit -a shows the limits; fewer threads need less: --jobs 1")
    hint = error.hint if isinstance(error, OstoreError) else None
    return person(_with_folders(hint)) if isinstance(hint, str) else hint


def _with_folders(hint: str) -> str:
    """Return a hint to name further folders with the command that runs, if it takes them."""
    takes_them = next((word for word in _typed if not word.startswith("-")), "") in {"import", "inspect", "verify"}
    return hint.replace(OTHER_MEDIA, f"{OTHER_MEDIA}: {line(again())} DIR…") if takes_them else hint


def _example(program: object) -> Remedy:
    """Return the first example of a command's help. Every command has one."""
    lines = str(getattr(program, "epilog", "")).splitlines()
    return command(*shlex.split(next(line for line in lines if line.startswith("  ostore "))), before="for example")


def typed() -> tuple[str, ...]:
    """Return the arguments of the command that runs."""
    return tuple(_typed)


def models_of(typed: Sequence[str]) -> str | None:
    """Return the value of `--models` among the arguments of a command, or None."""
    found = None
    for number, word in enumerate(typed):
        if word.startswith("--models="):
            found = word.removeprefix("--models=")
        elif word == "--models" and number + 1 < len(typed):
            found = typed[number + 1]
    return found


def is_root() -> bool:
    """Return whether this process may do what `sudo` allows."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _complete(remedy: Remedy) -> Remedy:
    """Name options instead of parameters, and the store in commands that name none, if this command was told it."""
    remedy = replace(remedy, before=as_options(remedy.before), after=as_options(remedy.after))
    models = models_of(_typed)
    return remedy if models is None else remedy.about(models)
