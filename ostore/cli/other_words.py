"""What to type instead of a word or an option that ostore does not have."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from itertools import pairwise

from ostore.formats.errors import UsageError
from ostore.formats.gguf_facts import is_quantization
from ostore.formats.remedy import Remedy, command, ostore, person


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
    "download": _help("pull", "says how to fetch models from registries"),
    "upload": _help("push", "says how to send models to registries"),
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
_OLLAMAS = frozenset({"launch", "ps", "run", "signin", "signout", "stop"})


def remedy_for(word: str, following: Sequence[str], commands: Iterable[str]) -> Remedy:
    """Return what somebody who typed `word` and the words `following` may have meant, or where the commands are."""
    known = [*commands, *_SAME, *_ALIKE, *_OLLAMAS]
    if word not in known:
        close = difflib.get_close_matches(word.lower(), known, n=1)
        if not close:
            return ostore("--help", after="lists the commands")
        word = close[0]
    if word in _OLLAMAS:
        return command("ollama", word, *following, before="a command of Ollama, not of this version of ostore")
    if word in _ALIKE:
        return _ALIKE[word]
    return ostore(_SAME.get(word, word), *following, before="did you mean")


_INSECURE = (
    "--insecure means plain http in Ollama",
    person("--plain-http allows that here; --ca-file FILE trusts a private authority"),
)
# Of each command, options that ostore answers and does not have, most of them Ollama's: why, and what does the work.
_OPTIONS = {
    ("create", "--quantize"): (
        "ostore keeps weights as they are, and quantizes none",
        person("llama-quantize of llama.cpp makes another file of them: create the model from that one"),
    ),
    ("inventory", "--json"): ("an inventory is JSON already", _help("inventory", "says more")),
    ("pull", "--insecure"): _INSECURE,
    ("push", "--insecure"): _INSECURE,
    ("lock", "--json"): ("a lock is data for other programs already", _help("lock", "says more")),
    ("create", "--experimental"): (
        "ostore makes models of GGUF files only, not of safetensors",
        person("convert_hf_to_gguf.py of llama.cpp makes a GGUF of them: create the model from that one"),
    ),
}


def refuse_quantizing(arguments: Sequence[str]) -> None:
    """
    Refuse `-q q4_K_M`, which quantizes in Ollama. Here, -q is --quiet, and the word would become a name or a file.

    Raises UsageError.
    """
    if any(option == "-q" and is_quantization(word) for option, word in pairwise(arguments)):
        reason, remedy = _OPTIONS["create", "--quantize"]
        raise UsageError(f"-q: {reason}; -q is --quiet", hint=remedy)


def option_of_ollama(program: str, option: str) -> UsageError | None:
    """Return what is to be said of an option that Ollama's command of that name has, None if there is nothing."""
    if known := _OPTIONS.get((program, option)):
        reason, remedy = known
        return UsageError(f"{option}: {reason}", hint=remedy)
    return None
