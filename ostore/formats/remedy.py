"""
What a person can do about something, as a value: commands as arguments, or a sentence.

Tests carry the commands out on the store that they were printed for. A person sees them quoted for their shell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ostore.formats.shell import WINDOWS, in_order, in_pipe, native

Kind = Literal["ostore", "ollama", "system", "person"]
Command = tuple[str, ...]
ROOT = "root"
# So many names still make a command that a person can type.
_MAX_NAMES = 8
_MODELS = "--models"
# What helps where a volume is missing. Whoever knows the command that was typed adds it.
OTHER_MEDIA = "name the folders of the other media too"
# A command with one of these names its store, or is about none.
_COMPLETE = frozenset({_MODELS, "--help"})
# `where` looks for a store, and the others have no such option.
WITHOUT_STORE = frozenset({"completion", "help", "inspect", "sync", "version", "where"})


@dataclass(frozen=True, slots=True)
class Remedy:
    """
    One way out, and the others.

    `commands` are carried out in order, each as a list of arguments, or with `is_pipe` together, each reading what the
    one before writes; without any, `before` is a sentence for a person.
    `before` says what to look at first, or when; `after` says what the commands do. `user` is who runs them: empty for
    whoever reads this, or the name of another user. `others` are remedies that do instead, with none of their own.
    With `is_elsewhere`, it is typed on another machine, so its commands never name the store of this one.
    """

    commands: tuple[Command, ...] = ()
    before: str = ""
    after: str = ""
    user: str = ""
    others: tuple[Remedy, ...] = ()
    is_pipe: bool = False
    is_elsewhere: bool = False

    @property
    def kind(self) -> Kind:
        """What carries it out: ostore alone, a program `ollama` too, other programs too, or a person."""
        programs = {command[0] for command in self.commands}
        if not programs:
            return "person"
        if "ollama" in programs:
            return "ollama"
        return "ostore" if programs == {"ostore"} else "system"

    def arguments(self, platform: str, *, is_root: bool = False) -> tuple[Command, ...]:
        """Return the commands for a platform (a `sys.platform`) as they are typed by root or by somebody else."""
        if self.is_pipe:
            return (in_pipe(self.commands, platform),)
        commands = tuple(native(command, platform) for command in self.commands)
        if not self.user or platform == WINDOWS or (is_root and self.user == ROOT):
            return commands
        sudo = ("sudo",) if self.user == ROOT else ("sudo", "-u", self.user)
        return tuple((*sudo, *command) for command in commands)

    def text(self, platform: str, *, is_root: bool = False) -> str:
        """Return the remedy and the others as one line. Every command in it can be typed as it stands."""
        before = self.before
        if self.user and platform == WINDOWS and self.commands:
            before = f"as {'an administrator' if self.user == ROOT else self.user}{', ' if before else ''}{before}"
        line = in_order(self.arguments(platform, is_root=is_root), platform) if self.commands else ""
        if self.is_pipe and platform != WINDOWS:
            # A person's shell is one that takes the pipe as it is.
            line = in_pipe(self.commands, platform)[-1]
        told = f"{': '.join(filter(None, (before, line)))}{' ' if self.after else ''}{self.after}"
        return ", or ".join([told, *(other.text(platform, is_root=is_root) for other in self.others)])

    def each(self) -> tuple[Remedy, ...]:
        """Return this way out alone, then each of the others."""
        return (replace(self, others=()), *self.others)

    def then(self, following: Remedy) -> Remedy:
        """Return one remedy that carries out these commands and then those of another."""
        return replace(self, commands=self.commands + following.commands)

    def otherwise(self, *others: Remedy) -> Remedy:
        """Return this remedy with others that do instead."""
        return replace(self, others=self.others + tuple(way for other in others for way in other.each()))

    def about(self, store: str) -> Remedy:
        """Return this remedy with `--models STORE` in each ostore command that names no store."""
        return replace(
            self,
            commands=self.commands if self.is_elsewhere else tuple(_about(one, store) for one in self.commands),
            others=tuple(other.about(store) for other in self.others),
        )

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self.commands or self.before)

    def __str__(self) -> str:
        """Return the text for a POSIX shell of a user who is not root."""
        return self.text("posix")


NOTHING = Remedy()


def ostore(*words: object, models: object = None, before: str = "", after: str = "", user: str = "") -> Remedy:
    """Return an ostore command, about the store `models` if it is given."""
    option = () if models is None else (_MODELS, models)
    return command("ostore", *words, *option, before=before, after=after, user=user)


_NO_MORE = "; with --have and an inventory of this store it writes no more than that"


def exported_again(names: Sequence[object], *, more: str = _NO_MORE) -> Remedy:
    """Return what to type on the side that made a delta, to get these models of it whole. `more` is said after it."""
    again = ostore(
        "export",
        *(names if len(names) <= _MAX_NAMES else ("--all",)),
        "missing.tar.zst",
        before="on the side that made the bundle",
        after=f"writes what it lacks{more}",
    )
    return replace(again, is_elsewhere=True)


def command(*words: object, before: str = "", after: str = "", user: str = "") -> Remedy:
    """Return a remedy of one command."""
    return Remedy((tuple(map(str, words)),), before, after, user)


def pipe(*commands: Command, before: str = "") -> Remedy:
    """Return a remedy of commands in a pipe, each reading what the one before writes."""
    return Remedy(commands, before, is_pipe=True)


def person(sentence: str) -> Remedy:
    """Return what only a person can do, or decide."""
    return Remedy(before=sentence)


def _about(arguments: Command, store: str) -> Command:
    is_complete = arguments[0] != "ostore" or arguments[1] in WITHOUT_STORE or not _COMPLETE.isdisjoint(arguments)
    return arguments if is_complete else (*arguments, _MODELS, store)
