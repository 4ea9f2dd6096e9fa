"""The output of `ostore diff`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes, one_line, plural, table

if TYPE_CHECKING:
    from ostore.api.diff import DifferingModel, DiffReport

_SHOWN_DIGITS = 12


def names(report: DiffReport) -> Iterator[str]:
    """The models to carry."""
    return (model.name for model in report.models if model.difference != "extra")


def text(report: DiffReport) -> str:
    rows = [
        (model.name, _words(model), _id(model.digest_a), _id(model.digest_b), _size(model)) for model in report.models
    ]
    lines = [table(("NAME", "IN B", "A", "B", "TO CARRY"), rows)] if rows else []
    same = f"{plural(report.same, 'model')} the same"
    carry = f"{plural(len(report.lacking), 'blob')}, {human_bytes(report.size)} to carry"
    verdict = f"{plural(len(rows), 'model')} differ{'s' if len(rows) == 1 else ''}, {same}; {carry}"
    return "\n".join([*lines, one_line(f"{verdict if rows else f'no difference: {same}'} ({report.a} -> {report.b})")])


def _words(model: DifferingModel) -> str:
    return {"extra": "not in A"}.get(model.difference, model.difference)


def _id(digest: str | None) -> str:
    return "-" if digest is None else digest.removeprefix("sha256:")[:_SHOWN_DIGITS]


def _size(model: DifferingModel) -> str:
    if model.difference == "extra":
        return "-"
    if model.size is None:
        return "?"
    return human_bytes(model.size) + (f" and {plural(model.unknown, 'blob')} that A lacks" if model.unknown else "")
