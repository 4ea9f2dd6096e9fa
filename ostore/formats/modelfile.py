"""A model as a Modelfile, rendered so that Ollama's own reader gives the same values back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

from ostore.formats.errors import FormatError
from ostore.formats.json_reading import write_canonical_json

_CLOSES_EARLY = re.compile(r'"""\s*\n')


def render_modelfile(
    name: str,
    sources: Iterable[tuple[str, str]],
    texts: Iterable[tuple[str, str]],
    parameters: Iterable[tuple[str, object]],
    messages: Iterable[tuple[str, str]],
) -> str:
    """
    The text that `ollama create -f` would take.

    `sources` are (instruction, path or name), `texts` are (instruction, text); empty texts are left out. Raises
    FormatError for a text that the lexer cannot carry.
    """
    lines = [
        "# Made by ostore. To build on this model, put this in place of the FROM line below:",
        f"# FROM {name}",
        "",
    ]
    lines += (f"{instruction} {source}" for instruction, source in sources)
    lines += (f"{instruction} {_quoted(text)}" for instruction, text in texts if text)
    lines += (f"PARAMETER {key} {_quoted(parameter_text(value))}" for key, value in parameters)
    lines += (f"MESSAGE {role} {_quoted(content)}" for role, content in messages)
    return "\n".join(lines) + "\n"


def parameter_text(value: object) -> str:
    """A parameter's value as a Modelfile spells it: numbers plain, never with an exponent."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
    return value if isinstance(value, str) else write_canonical_json(value).decode().strip()


def _quoted(text: str) -> str:
    """Ollama's lexer (parser/parser.go at fb30760) needs quotes around what spans lines, begins or ends oddly."""
    if _CLOSES_EARLY.search(text):
        raise FormatError("a text with three quotes at the end of a line cannot be written in a Modelfile")
    if "\n" in text or text != text.strip() or text.startswith('"'):
        return f'"""{text}"""'
    return text
