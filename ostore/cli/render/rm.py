"""The output of `ostore rm`. A plan and a result have the same form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ostore.cli.remedies import line
from ostore.cli.render.gc import blob_text, cut, names_text
from ostore.cli.text import human_bytes, one_line, plural
from ostore.formats.remedy import ostore

if TYPE_CHECKING:
    from ostore.api.rm import RmReport

_REASONS = {
    "doubt": "a manifest that cannot be read may need it",
    "held": "a running command uses it",
    "meanwhile": "it was used, replaced or needed again while rm ran",
}


def warnings(report: RmReport) -> Iterator[str]:
    """Why every blob stays, if a manifest cannot be read."""
    if report.doubt:
        yield f"every blob stays, because a manifest that cannot be read may need it: {report.doubt}"
        yield line(ostore("doctor", after="says what to do about that manifest"))
        yield line(ostore("gc", before="then", after="removes the blobs"))


def text(report: RmReport, *, verbose: bool) -> str:
    verb = "would remove" if report.dry_run else "removed"
    lines = [f"  {verb} {name}" for name in report.models]
    lines += [f"  {verb} {blob_text(blob)}" for blob in report.removed] if verbose else []
    stays = [
        f"  stays {blob_text(blob)}: {_REASONS.get(blob.reason) or f'shared with {names_text(blob.models)}'}"
        for blob in report.stayed
    ]
    lines += cut(stays, verbose=verbose)
    freed = f"{'would free' if report.dry_run else 'freed'} {human_bytes(report.freed)}"
    what = f"{plural(len(report.models), 'model')}, {plural(len(report.removed), 'blob')}"
    return "\n".join([*map(one_line, lines), f"{freed}: {what}"])
