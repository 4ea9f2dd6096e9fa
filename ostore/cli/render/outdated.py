"""The output of `ostore outdated`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes, one_line, plural, table

if TYPE_CHECKING:
    from ostore.api.outdated import OutdatedReport

_SHOWN_DIGITS = 12


def text(report: OutdatedReport) -> str:
    is_asked = report.against is None
    rows = [
        (model.name, _id(model.here), _id(model.there), *([human_bytes(model.size or 0)] if is_asked else []))
        for model in report.models
    ]
    outdated = len(rows)
    rows += [(model.name, _id(model.here), "unknown", "-") for model in report.unanswered]
    columns = ("NAME", "HERE", "THERE", *(["TO FETCH"] if is_asked else []))
    lines = [table(columns, rows)] if rows else []
    unknown = f", {plural(len(report.unknown), 'model')} not there" if report.unknown else ""
    if report.unanswered:
        unknown += f", {plural(len(report.unanswered), 'model')} unknown"
    verdict = f"{plural(outdated, 'model')} outdated, {plural(report.current, 'model')} the same{unknown}"
    return "\n".join([*lines, one_line(f"{verdict} ({report.against or 'at the registries of their names'})")])


def _id(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_SHOWN_DIGITS]
