"""Write commands as a person's shell reads them: sh on POSIX, PowerShell on Windows. Nothing else quotes for one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

WINDOWS = "win32"
# PowerShell gives these to a program as they are.
_PLAIN = re.compile(r"[A-Za-z0-9_.:/\\+=-]+")
# It takes the typographic quotes for the plain one.
_QUOTES = re.compile("(['\u2018\u2019\u201a\u201b])")
# What remedies use of POSIX, in PowerShell. `mv -n` and Move-Item put nothing over an existing file.
_CMDLETS = {
    ("mv", "-n"): ("Move-Item", "-LiteralPath", "-Destination"),
    ("ln", "-s"): ("New-Item", "-ItemType", "SymbolicLink", "-Target", "-Path"),
    ("mkdir", "-p"): ("New-Item", "-ItemType", "Directory", "-Force", "-Path"),
    ("rm", "-r"): ("Remove-Item", "-Recurse", "-LiteralPath"),
    ("rm",): ("Remove-Item", "-LiteralPath"),
}


def quoted(arguments: Sequence[str], platform: str) -> str:
    """
    Return a command as one printable line for the shell of a platform (a `sys.platform`).

    On POSIX, a word with unprintable characters or bytes that are no text is written as `$'…'`, which bash, zsh, ksh
    and POSIX 2024 read.
    """
    words = [quoted_word(argument, platform) for argument in arguments]
    # PowerShell takes a quoted word at the start for a text.
    is_text = platform == WINDOWS and words[:1] != list(arguments[:1])
    return " ".join(["&", *words] if is_text else words)


def quoted_word(word: str, platform: str) -> str:
    """Return one word as the shell of a platform reads it, where it is not the first of a command."""
    if platform != WINDOWS:
        return _for_sh(word)
    return word if _PLAIN.fullmatch(word) else "'" + _QUOTES.sub(r"\1\1", word) + "'"


def in_order(commands: Iterable[Sequence[str]], platform: str) -> str:
    """Return commands as one line that runs each only if the one before has succeeded."""
    first, *others = (quoted(arguments, platform) for arguments in commands)
    if platform != WINDOWS:
        return " && ".join([first, *others])
    # Windows PowerShell 5 has no &&.
    return "".join([first, *(f"; if ($?) {{ {other}" for other in others), " }" * len(others)])


def in_pipe(commands: Sequence[Sequence[str]], platform: str) -> tuple[str, ...]:
    """
    Return the one command, with its arguments, that runs commands in a pipe.

    Windows PowerShell changes the bytes in a pipe of its own, so cmd runs it there. No path has a quotation mark.
    """
    if platform == WINDOWS:
        words = ([word if _PLAIN.fullmatch(word) else f'"{word}"' for word in command] for command in commands)
        return ("cmd", "/c", " | ".join(map(" ".join, words)))
    return ("sh", "-c", " | ".join(quoted(arguments, platform) for arguments in commands))


def native(arguments: tuple[str, ...], platform: str) -> tuple[str, ...]:
    """Return a POSIX command on files (`mv -n`, `ln -s`, `mkdir -p`, `rm`) in the words of a platform."""
    if platform == WINDOWS:
        for begin, (cmdlet, *words) in _CMDLETS.items():
            if arguments[: len(begin)] == begin:
                first, *others = arguments[len(begin) :]
                at = words[:-1] if begin[0] in {"ln", "mv"} else words
                return (cmdlet, *at, first, *(words[-1:] if others else ()), *others)
    return arguments


def _for_sh(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(_escaped(character) for character in word)
    return f"$'{escaped}'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    # Three octal digits end by themselves; \x would swallow a digit that follows.
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
