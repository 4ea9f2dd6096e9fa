"""
Check that a prompt template can be one: its actions are closed, and so are its blocks.

Go's parser checks more: the names of functions, and what stands in an action. ostore does not know these rules.
"""

from __future__ import annotations

import re

from ostore.formats.errors import FormatError

# text/template/parse/lex.go of Go. An action may hold strings, and a comment may hold anything but its own end.
_ACTION = re.compile(
    r"\{\{(?:-[ \t\r\n])?"
    r"(?:/\*.*?\*/(?:[ \t\r\n]-)?\}\}"
    r'|(?P<body>(?:"(?:\\.|[^"\\\n])*"|`[^`]*`|\'(?:\\.|[^\'\\\n])*\'|(?!\}\})[^"`\'/])*)\}\})',
    re.DOTALL,
)
_BLOCKS = frozenset({"if", "range", "with", "block", "define"})
_KEYWORD = re.compile(r"[a-z]+(?![A-Za-z0-9_.])")


def check_template(text: str) -> None:
    """Raises FormatError, which names the line, for an action or block that is not closed or was not opened."""
    opened: list[tuple[str, int]] = []
    at = 0
    while (start := text.find("{{", at)) >= 0:
        line = 1 + text.count("\n", 0, start)
        found = _ACTION.match(text, start)
        if found is None:
            raise FormatError(f"template, line {line}: {{{{ is not closed")
        at = found.end()
        word = _KEYWORD.match((found["body"] or "").strip())
        keyword = word.group() if word else ""
        if keyword in _BLOCKS:
            opened.append((keyword, line))
        elif keyword == "else" and not opened:
            raise FormatError(f"template, line {line}: {{{{ else }}}} outside of a block")
        elif keyword == "end":
            if not opened:
                raise FormatError(f"template, line {line}: {{{{ end }}}} without a block")
            opened.pop()
    if opened:
        keyword, line = opened[-1]
        raise FormatError(f"template, line {line}: {{{{ {keyword} }}}} has no {{{{ end }}}}")
