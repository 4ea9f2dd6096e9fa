"""What to type instead of a word that is no command of ostore."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from ostore.formats.remedy import Remedy, command, ostore


def _help(name: str, says: str) -> Remedy:
    return ostore(name, "--help", after=says)


# Other words for a command that takes the same arguments.
_SAME = {
    "check": "verify",
    "clean": "gc",
    "copy": "cp",
    "delete": "rm",
    "info": "show",
    "remove": "rm",
    "uninstall": "rm",
}
_EXPORT = _help("export", "says how to write models to a file")
_IMPORT = _help("import", "says how to add the models of a file")
_RENAME = _help("cp", "says how to give a second name").otherwise(_help("move", "says how to move the whole store"))
# Other words for what a command does with other arguments, and what its help says.
_ALIKE = {
    "backup": _EXPORT,
    "fix": _help("doctor", "says how to fix what is safe").otherwise(
        _help("repair", "says how to bring bytes that are missing or wrong")
    ),
    "load": _IMPORT,
    "mv": _RENAME,
    "rename": _RENAME,
    "restore": _IMPORT,
    "save": _EXPORT,
}
_OLLAMAS = frozenset({"launch", "ps", "pull", "push", "run", "serve", "signin", "signout", "stop"})
_BESIDE = {
    "pull": ostore("import", "--help", before="where there is no network"),
    "push": ostore("export", "--help", before="where there is no network"),
}


def remedy_for(word: str, following: Sequence[str], commands: Iterable[str]) -> Remedy:
    """Return what somebody who typed `word` and the words `following` may have meant, or where the commands are."""
    known = [*commands, *_SAME, *_ALIKE, *_OLLAMAS]
    if word not in known:
        close = difflib.get_close_matches(word.lower(), known, n=1)
        if not close:
            return ostore("--help", after="lists the commands")
        word = close[0]
    if word in _OLLAMAS:
        theirs = command("ollama", word, *following, before="a command of Ollama, not of this version of ostore")
        return theirs.otherwise(_BESIDE[word]) if word in _BESIDE else theirs
    if word in _ALIKE:
        return _ALIKE[word]
    return ostore(_SAME.get(word, word), *following, before="did you mean")
