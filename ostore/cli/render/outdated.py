"""The output of `ostore outdated`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.text import one_line, plural, table

if TYPE_CHECKING:
    from ostore.api.outdated import OutdatedReport

_SHOWN_DIGITS = 12


def text(report: OutdatedReport) -> str:
    rows = [(model.name, _id(model.here), _id(model.there)) for model in report.models]
    lines = [table(("NAME", "HERE", "THERE"), rows)] if rows else []
    unknown = f", {plural(len(report.unknown), 'model')} not there" if report.unknown else ""
    verdict = f"{plural(len(rows), 'model')} outdated, {plural(report.current, 'model')} the same{unknown}"
    return "\n".join([*lines, one_line(f"{verdict} ({report.against})")])


def _id(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_SHOWN_DIGITS]
