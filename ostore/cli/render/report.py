"""How every command prints its report, as text or as JSON.

Text may change between versions; JSON only grows (docs/json.md).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from ostore.cli import remedies
from ostore.cli.colours import WARNING, Mark
from ostore.cli.text import UnprintedError, flush, one_line, say, tell
from ostore.formats.remedy import Remedy
from ostore.formats.selection import OmittedModel

# These fields are seconds since 1970 in a report, and RFC 3339 times in JSON.
_TIMES = frozenset({"modified", "kept_until", "download_since", "goes_after"})
_ENCODER = json.JSONEncoder(ensure_ascii=True, indent=2)
# Entries of a list that are made at once: few enough to need no room, many enough to take no time.
_AT_ONCE = 100


def say_report(
    schema: str,
    report: Any,  # noqa: ANN401 - any report dataclass
    text: Callable[[], str],
    *,
    as_json: bool,
    quiet: bool = False,
    lines: Iterable[str] = (),
    warnings: Iterable[str] = (),
    stream: TextIO | None = None,
    marks: Sequence[Mark] = (),
    done: Callable[[], str] | None = None,
) -> None:
    """
    Print a report: as one JSON document, or if quiet as `lines`, or as text, coloured by `marks`.

    The document has the `warnings` itself; otherwise they follow on standard error. `stream` defaults to standard
    output. Quiet lines always go there. `done` says what was changed, if anything was: UnprintedError carries it.
    """
    with saying_what_is_done(done):
        _say_report(schema, report, text, as_json, quiet, lines, stream, marks)
    # A document has them too.
    if not as_json:
        say_warnings(warnings)


@contextlib.contextmanager
def saying_what_is_done(done: Callable[[], str] | None) -> Iterator[None]:
    """Print in this block. `done` says what an UnprintedError is to carry."""
    try:
        yield
        if done:
            flush()
    except UnprintedError as error:
        raise UnprintedError(error.cause, one_line(done()) if done else "") from error


def _say_report(
    schema: str,
    report: Any,  # noqa: ANN401
    text: Callable[[], str],
    as_json: bool,
    quiet: bool,
    lines: Iterable[str],
    stream: TextIO | None,
    marks: Sequence[Mark],
) -> None:
    if as_json:
        say_document(schema, report, stream)
        return
    if quiet:
        for line in lines:
            say(line)
    else:
        say(text(), stream, marks=marks)


def in_use(paths: Sequence[str]) -> Iterator[str]:
    """Yield a warning for each file that stays because another program has it open, and then what to do."""
    for path in paths:
        yield f"{path}: stays, because another program has it open"
    if paths:
        yield "stop Ollama or the other program, then run the same command again"


def say_left_out(left: Iterable[OmittedModel]) -> None:
    """Print a warning for each model that was left out, and exit with the code of the worst reason, if there is one."""
    from ostore.cli.exit_codes import end_with

    models = list(left)
    say_warnings(f"{model.name}: left out: {model.reason}" for model in models)
    end_with(*(model.error_class for model in models))


def say_warnings(warnings: Iterable[str]) -> None:
    """Print warnings on standard error."""
    for warning in warnings:
        tell(f"ostore: warning: {one_line(warning)}", marks=WARNING)


def say_document(schema: str, report: Any, stream: TextIO | None = None) -> None:  # noqa: ANN401
    """Print one JSON document (on standard output unless told)."""
    for piece in _document(schema, report):
        say(piece, stream, end="")
    say("", stream)


def _document(schema: str, report: Any) -> Iterator[str]:  # noqa: ANN401 - any report dataclass
    """One JSON document, in pieces: the schema's name, then the report's fields."""
    begin = "{"
    for name, value in {"schema": f"ostore.{schema}/1", **_fields(report)}.items():
        yield f'{begin}\n  "{name}": '
        yield from _pieces(name, value)
        begin = ","
    yield "\n}"


def _pieces(name: str, value: Any) -> Iterator[str]:  # noqa: ANN401
    """The value of a field, one level in. A long list is made a part at a time: all of it may not fit in memory."""
    if not isinstance(value, (list, tuple)) or len(value) <= _AT_ONCE:
        yield _indented(_plain(value, name))
        return
    begin = "["
    for start in range(0, len(value), _AT_ONCE):
        yield begin + _indented(_plain(value[start : start + _AT_ONCE]))[1 : -len("\n  ]")]
        begin = ","
    yield "\n  ]"


def _indented(value: object) -> str:
    # No text in JSON has a line break.
    return _ENCODER.encode(value).replace("\n", "\n  ")


def _fields(value: Any) -> Any:  # noqa: ANN401 - whatever a report holds
    """The members of a dataclass or a named tuple; everything else as it is. A remedy is a line and its commands."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields: dict[str, Any] = {}
        for name in (field.name for field in dataclasses.fields(value)):
            fields[name] = member = getattr(value, name)
            if isinstance(member, Remedy):
                fields |= {name: remedies.line(member), f"{name}_arguments": remedies.arguments(member)}
        return fields
    return value._asdict() if hasattr(value, "_asdict") else value


def _plain(value: Any, key: str = "") -> Any:  # noqa: ANN401 - whatever a report holds
    value = _fields(value)
    if isinstance(value, dict):
        return {name: _plain(entry, name) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if key in _TIMES and isinstance(value, float):
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
