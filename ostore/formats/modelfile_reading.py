"""
Read a Modelfile as Ollama's own lexer does, oddities included: parser/parser.go at fb30760.

Instructions may be in any case and indented. A value ends at the first line end where it is complete: if it begins with
a quote, only after the closing one. There are no escape sequences. Characters that cannot be printed are dropped.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ostore.formats.errors import FormatError, LimitError
from ostore.formats.modelfile import ROLES
from ostore.formats.parameters import DEPRECATED, Scalar, is_known, parse_parameter

# Licences of 100 kB and templates of 30 kB exist. A model with hundreds of messages has less than 1 MB.
MAX_MODELFILE_BYTES = 32 * 1024 * 1024
INSTRUCTIONS = (
    "FROM",
    "PARAMETER",
    "TEMPLATE",
    "SYSTEM",
    "ADAPTER",
    "DRAFT",
    "LICENSE",
    "MESSAGE",
    "RENDERER",
    "PARSER",
    "REQUIRES",
)
_LIST = "stop"
_WORD = re.compile("[A-Za-z]*")
_KEY = re.compile("[A-Za-z0-9_]*")
_LINE_END = re.compile("[\r\n]")
_BETWEEN = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# semver.org, as golang.org/x/mod/semver reads it: minor and patch may be absent.
_NUMBER = "(?:0|[1-9][0-9]*)"
_LABEL = "(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"{_NUMBER}(?:\.{_NUMBER}(?:\.{_NUMBER}(?:-{_LABEL}(?:\.{_LABEL})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)?)?"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """What FROM, ADAPTER or DRAFT names, and the number of its line, from 1."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Modelfile:
    """
    What a Modelfile says. An absent text is empty. Of an instruction that stands for one thing, the last one counts.

    The values of `parameters` are those that a params layer has: a list of texts for `stop`. `ignored` are parameters
    that Ollama knows no more, `dropped` whether a value had characters that cannot be printed.
    """

    sources: tuple[Reference, ...]
    adapter: Reference | None = None
    draft: Reference | None = None
    template: str = ""
    system: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    licenses: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    parameters: Mapping[str, Scalar | list[str]] = field(default_factory=lambda: MappingProxyType({}))
    ignored: tuple[str, ...] = ()
    dropped: bool = False


def read_modelfile(raw: bytes) -> Modelfile:
    """
    Read a Modelfile. A mark at its start chooses UTF-8 or UTF-16; bytes that are not valid become U+FFFD.

    Raises FormatError, with the line and column where a mistake begins; LimitError if it has more than 32 MiB.
    """
    if len(raw) > MAX_MODELFILE_BYTES:
        raise LimitError(f"Modelfile: expected at most {MAX_MODELFILE_BYTES} bytes, got more")
    mark, encoding = next(((mark, encoding) for mark, encoding in _BOMS if raw.startswith(mark)), (b"", "utf-8"))
    return _Reader(raw[len(mark) :].decode(encoding, "replace")).read()


@dataclass(frozen=True, slots=True)
class _Instruction:
    """`name` in capitals; `key` is a parameter's name, or a message's role. `start` is where it begins."""

    name: str
    key: str
    value: str
    start: int


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._dropped = False

    def read(self) -> Modelfile:
        found: dict[str, list[_Instruction]] = {name: [] for name in INSTRUCTIONS}
        while (instruction := self._next()) is not None:
            found[instruction.name].append(instruction)
        if not found["FROM"]:
            raise FormatError("Modelfile: no FROM line")
        last = {name: entries[-1] if entries else None for name, entries in found.items()}
        texts = {name: entry.value if entry else "" for name, entry in last.items()}
        parameters, ignored = self._parameters(found["PARAMETER"])
        return Modelfile(
            sources=tuple(map(self._reference, found["FROM"])),
            adapter=self._reference(last["ADAPTER"]) if last["ADAPTER"] else None,
            draft=self._reference(last["DRAFT"]) if last["DRAFT"] else None,
            template=texts["TEMPLATE"],
            system=texts["SYSTEM"],
            renderer=texts["RENDERER"],
            parser=texts["PARSER"],
            requires=self._version(last["REQUIRES"]),
            licenses=tuple(entry.value for entry in found["LICENSE"]),
            messages=tuple((entry.key, entry.value) for entry in found["MESSAGE"]),
            parameters=MappingProxyType(parameters),
            ignored=ignored,
            dropped=self._dropped,
        )

    def _reference(self, entry: _Instruction) -> Reference:
        return Reference(entry.value, self._line(entry.start))

    def _parameters(self, entries: list[_Instruction]) -> tuple[dict[str, Scalar | list[str]], tuple[str, ...]]:
        parameters: dict[str, Scalar | list[str]] = {}
        ignored = dict[str, None]()
        stops: list[str] = []
        for entry in entries:
            if entry.key in DEPRECATED:
                ignored[entry.key] = None
            elif entry.key == _LIST:
                stops.append(entry.value)
                parameters[_LIST] = stops
            elif not entry.key:
                raise self._error(entry.start, "PARAMETER: expected one space before the name, got more")
            elif not is_known(entry.key):
                raise self._error(entry.start, f"unknown parameter {entry.key!r:.40}")
            else:
                try:
                    parameters[entry.key] = parse_parameter(entry.key, entry.value)
                except FormatError as error:
                    raise self._error(entry.start, str(error)) from None
        return parameters, tuple(ignored)

    def _version(self, entry: _Instruction | None) -> str:
        if entry is None:
            return ""
        version = entry.value.removeprefix("v")
        if not _VERSION.fullmatch(version):
            raise self._error(entry.start, f"REQUIRES: expected a version such as 0.14.0, got {entry.value!r:.40}")
        return version

    def _next(self) -> _Instruction | None:
        self._taken(_BETWEEN)
        start = self._at
        if start == len(self._text):
            return None
        # The lexer looks at the first character of a word as little as at one that cannot be printed: it drops this.
        first = self._text[start] if self._text[start].isprintable() else ""
        self._at += 1
        word = (first + self._taken(_WORD)).upper()
        if not self._takes_a_space() or word not in INSTRUCTIONS:
            raise self._error(start, f"expected one of {', '.join(INSTRUCTIONS)} and a value, got {self._rest(start)}")
        key = ""
        if word == "PARAMETER":
            key = self._taken(_KEY)
            if not self._takes_a_space():
                raise self._error(start, f"PARAMETER: expected a name and a value, got {self._rest(start)}")
        elif word == "MESSAGE":
            key = self._taken(_WORD)
            if not self._takes_a_space() or key not in ROLES:
                raise self._error(start, f"MESSAGE: expected {' or '.join(ROLES)}, and a text, got {self._rest(start)}")
        return _Instruction(word, key, self._value(word, start), start)

    def _value(self, word: str, start: int) -> str:
        """
        Read on to the first line end where the value is complete.

        Only the last line that is not blank can end a value, so each line is looked at once, however many there are.
        """
        lines: list[str] = []
        opening, length, is_closed = "", 0, False
        while True:
            end = _LINE_END.search(self._text, self._at)
            stop = end.start() if end else len(self._text)
            line = self._printable(self._text[self._at : stop])
            self._at = end.end() if end else stop
            lines.append(line)
            content = line.rstrip()
            if not opening and content:
                opening, length = _opening(content.lstrip()), -(len(content) - len(content.lstrip()))
            if opening:
                # The length of what is there without the white space around it.
                whole = length + len(content)
                if content:
                    is_closed = content.endswith(opening) and whole >= 2 * len(opening)
                length += len(line) + 1
            if not opening or opening == "no quote" or is_closed:
                break
            if end is None:
                raise self._error(start, f"{word}: the quote at its start is not closed")
            lines.append(end.group())
        return _unquoted("".join(lines).strip())

    def _printable(self, text: str) -> str:
        if text.isprintable():
            return text
        kept = "".join(character for character in text if character == "\t" or character.isprintable())
        self._dropped = self._dropped or len(kept) != len(text)
        return kept

    def _taken(self, pattern: re.Pattern[str]) -> str:
        """Take what a pattern matches, which may be nothing."""
        found = pattern.match(self._text, self._at)
        taken = found.group() if found else ""
        self._at += len(taken)
        return taken

    def _takes_a_space(self) -> bool:
        is_there = self._text[self._at : self._at + 1] in {" ", "\t"}
        self._at += is_there
        return is_there

    def _rest(self, start: int) -> str:
        """The line from a place on, cut, for a message."""
        return repr(self._text[start : start + 40].splitlines()[0])

    def _line(self, position: int) -> int:
        before = self._text[:position]
        return 1 + before.count("\n") + before.count("\r") - before.count("\r\n")

    def _error(self, position: int, what: str) -> FormatError:
        line_start = max(self._text.rfind(end, 0, position) for end in "\r\n") + 1
        return FormatError(f"Modelfile, line {self._line(position)}, column {position - line_start + 1}: {what}")


def _opening(value: str) -> str:
    return next((quote for quote in ('"""', '"') if value.startswith(quote)), "no quote")


def _unquoted(value: str) -> str:
    opening = _opening(value)
    return value if opening == "no quote" else value[len(opening) : len(value) - len(opening)]
