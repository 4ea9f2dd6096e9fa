"""Write a model as a Modelfile, so that Ollama's own parser reads the same values back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

from ostore.formats.errors import FormatError
from ostore.formats.json_reading import write_canonical_json

# Source of all these: parser/parser.go at fb30760. A carriage return ends a line there as well.
_CLOSES_EARLY = re.compile(r'"""\s*[\r\n]')
_NEWLINE = re.compile("[\r\n]")
_KEY = re.compile("[A-Za-z0-9_]+")
_MAX_INT64 = 2**63 - 1
ROLES = ("system", "user", "assistant")


def render_modelfile(
    name: str,
    sources: Iterable[tuple[str, str]],
    texts: Iterable[tuple[str, str]],
    parameters: Iterable[tuple[str, object]],
    messages: Iterable[tuple[str, str]],
    *,
    remarks: Iterable[str] = (),
) -> str:
    """
    Return a Modelfile for `ollama create -f`.

    `name` is a model where the Modelfile is read, or empty. `sources` are pairs of instruction and path or name,
    `texts` are pairs of instruction and text. Empty texts are left out. `remarks` say what the Modelfile lacks.
    Unprintable characters stay in, although Ollama drops them from every value.

    Raises FormatError for a value that Ollama's lexer cannot read back.
    """
    lines = [
        f"# Made by ostore.{' To build on this model, put this in place of the FROM line below:' if name else ''}",
        *([f"# FROM {name}"] if name else []),
        *(f"# Lost: {_NEWLINE.sub(' ', remark)}" for remark in remarks),
        "",
    ]
    lines += (f"{instruction} {_quoted(source)}" for instruction, source in sources)
    lines += (f"{instruction} {_quoted(text)}" for instruction, text in texts if text)
    lines += (f"PARAMETER {_key(key)} {_quoted(parameter_text(value))}" for key, value in parameters)
    lines += (f"MESSAGE {_role(role)} {_quoted(content)}" for role, content in messages)
    return "\n".join(lines) + "\n"


def parameter_text(value: object) -> str:
    """Return a parameter's value as a Modelfile spells it. Numbers never have an exponent."""
    if isinstance(value, float):
        return parameter_text(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
    if isinstance(value, int) and value > _MAX_INT64 and float(value) == float(_MAX_INT64):
        # The largest integer is stored rounded up, and could not be read back as that.
        return str(_MAX_INT64)
    return value if isinstance(value, str) else write_canonical_json(value).decode().strip()


def _key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise FormatError(f"a parameter called {key!r:.40} cannot be written in a Modelfile")
    return key


def _role(role: str) -> str:
    # Ollama's lexer refuses other roles, and a role of several lines would add instructions of its own.
    if role not in ROLES:
        raise FormatError(f"a message by {role!r:.40} cannot be written in a Modelfile")
    return role


def _quoted(text: str) -> str:
    """Quote a text that spans lines, has white space at an end, or begins with a quote, as Ollama's lexer requires."""
    # The lexer drops the other characters before it looks for quotes.
    seen = "".join(character for character in text if character.isprintable() or character in "\t\r\n")
    if _CLOSES_EARLY.search(seen):
        raise FormatError("a text with three quotes at the end of a line cannot be written in a Modelfile")
    if _NEWLINE.search(seen) or seen != seen.strip() or seen.startswith('"'):
        return f'"""{text}"""'
    return text
