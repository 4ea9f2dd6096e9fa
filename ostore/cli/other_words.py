"""What to type instead of a word that is no command of ostore."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_REMOVE = "ostore rm MODEL removes a model"
_EXPORT = "ostore export MODEL... FILE.tar.zst writes models to a file"
_IMPORT = "ostore import FILE.tar.zst adds the models of a file"
_RENAME = "ostore cp OLD NEW and ostore rm OLD rename a model; ostore move moves the whole store"
# What other programs, and people, call what a command of ostore does.
_MEANT = {
    "backup": _EXPORT,
    "check": "ostore verify hashes everything; ostore doctor looks for other problems",
    "clean": "ostore gc removes what no model needs",
    "copy": "ostore cp MODEL NEW gives a model a second name",
    "delete": _REMOVE,
    "fix": "ostore doctor --fix, or ostore repair --from SOURCE if bytes are missing or wrong",
    "info": "ostore show MODEL shows a model, ostore inspect FILE a bundle",
    "load": _IMPORT,
    "mv": _RENAME,
    "remove": _REMOVE,
    "rename": _RENAME,
    "restore": f"{_IMPORT}; ostore gc --restore brings back what gc --keep kept",
    "save": _EXPORT,
    "uninstall": _REMOVE,
}
_OLLAMAS = frozenset({"create", "launch", "ps", "pull", "push", "run", "serve", "signin", "signout", "stop"})
_BESIDE = {
    "create": "ostore import adds models of a file or folder",
    "pull": "where there is no network, ostore import adds models of a file",
    "push": "ostore export writes models to a file",
}


def hint_for(word: str, commands: Iterable[str]) -> str:
    """Return what somebody may have meant by `word`, or where the commands are listed."""
    known = [*commands, *_MEANT, *_OLLAMAS]
    if word not in known:
        close = difflib.get_close_matches(word.lower(), known, n=1)
        if not close:
            return "ostore --help lists the commands"
        word = close[0]
    if word in _OLLAMAS:
        beside = f"; {_BESIDE[word]}" if word in _BESIDE else ""
        return f"ollama {word} is a command of Ollama, and this version of ostore has none of that name{beside}"
    return _MEANT.get(word, f"did you mean ostore {word}?")
