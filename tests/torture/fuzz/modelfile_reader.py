"""Read Modelfiles as Ollama's lexer does (parser/parser.go at fb30760), to check our renderer."""

from __future__ import annotations

from collections.abc import Iterator

INSTRUCTIONS = frozenset(
    {
        "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message",
        "requires",
    }
)  # fmt: skip
_BLANKS, _NEWLINES = " \t", "\r\n"


class UnreadableError(Exception):
    """Ollama would refuse this Modelfile."""


def read_modelfile(text: str) -> list[tuple[str, str, str]]:
    """
    Every instruction in lower case, its key or role (or nothing), and its value.

    Raises UnreadableError.
    """
    rest = iter(text)
    found = []
    for character in rest:
        if character == "#":
            # The end of the file ends it as well.
            next((end for end in rest if end in _NEWLINES), None)
        elif character not in _BLANKS + _NEWLINES:
            found.append(_instruction(character, rest))
    return found


def _instruction(first: str, rest: Iterator[str]) -> tuple[str, str, str]:
    word = ((first if first.isprintable() else "") + _until(rest, _BLANKS)).lower()
    if word not in INSTRUCTIONS:
        raise UnreadableError(f"no instruction: {word!r}")
    key = _until(rest, _BLANKS) if word in {"parameter", "message"} else ""
    if word == "message" and key not in {"system", "user", "assistant"}:
        raise UnreadableError(f"no role: {key!r}")
    if not all(character.isascii() and (character.isalnum() or character == "_") for character in key):
        raise UnreadableError(f"no key: {key!r}")
    return word, key, _value(rest)


def _value(rest: Iterator[str]) -> str:
    taken = ""
    for character in rest:
        if character in _NEWLINES and (value := _unquoted(taken)) is not None:
            return value
        # What is not printable is left out of a value without a word.
        if character.isprintable() or character in _BLANKS + _NEWLINES:
            taken += character
    if (value := _unquoted(taken)) is not None:
        return value
    raise UnreadableError("ends inside quotes")


def _unquoted(taken: str) -> str | None:
    """The value, or None if it goes on in the next line."""
    text = taken.strip()
    quotes = '"""' if text.startswith('"""') else '"' if text.startswith('"') else ""
    if len(text) < 2 * len(quotes) or not text.endswith(quotes):
        return None
    return text[len(quotes) : len(text) - len(quotes)]


def _until(rest: Iterator[str], ends: str) -> str:
    taken = ""
    for character in rest:
        if character in ends:
            return taken
        taken += character
    raise UnreadableError("ends inside an instruction")
