"""How every report reaches a person or a program, so that no command decides it for itself.

Text may change between versions; JSON only grows (docs/json.md).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

from ostore.cli.text import one_line, say

# Fields that are seconds since 1970, and times in JSON.
_TIMES = frozenset({"modified", "kept_until", "download_since"})


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
) -> None:
    """
    Print a report: as one JSON document; or, if quiet, as `lines`; or as text, and then its `warnings`.

    `stream` is standard output unless told.
    """
    if as_json:
        say(document(schema, report), stream)
    elif quiet:
        for line in lines:
            say(line)
    else:
        say(text(), stream)
        say_warnings(warnings)


def say_warnings(warnings: Iterable[str]) -> None:
    """Print warnings on standard error."""
    for warning in warnings:
        say(f"ostore: warning: {one_line(warning)}", sys.stderr)


def document(schema: str, report: Any) -> str:  # noqa: ANN401 - any report dataclass
    """One JSON document: the schema's name, then the report's fields."""
    return json.dumps({"schema": f"ostore.{schema}/1", **_plain(report)}, ensure_ascii=True, indent=2)


def _plain(value: Any, key: str = "") -> Any:  # noqa: ANN401 - whatever a report holds
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _plain(entry, name) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if key in _TIMES and isinstance(value, float):
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
