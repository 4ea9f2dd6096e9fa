"""The output of `ostore rm`. A plan and a result have the same form."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from ostore.cli.remedies import line
from ostore.cli.render.gc import blob_text, cut, names_text
from ostore.cli.text import human_bytes, one_line, plural
from ostore.formats.remedy import ostore
from ostore.formats.wording import listed

if TYPE_CHECKING:
    from ostore.api.rm import RemovedBlob, RmReport

# Most models share licences and templates of a few KB. Nobody decides by a blob of less than a hundredth of the whole.
_SMALL_PART = 100
_REASONS = {
    "doubt": "a manifest that cannot be read may need it",
    "held": "a running command uses it",
    "meanwhile": "it was used, replaced or needed again while rm ran",
}


def warnings(report: RmReport, models: str | None = None) -> Iterator[str]:
    """
    Why every blob stays, if a manifest cannot be read, and which links break.

    `models` is the store for what is to be typed, if the command was not called with it.
    """
    if report.doubt:
        yield f"every blob stays, because a manifest that cannot be read may need it: {report.doubt}"
        yield line(ostore("doctor", models=models, after="says what to do about that manifest"))
        yield line(ostore("gc", models=models, before="then", after="removes the blobs"))
    for folder, paths in groupby(report.dangling, key=os.path.dirname):
        led = "would lead" if report.dry_run else "leads"
        yield f"{listed(list(paths))}: {led} nowhere {'then' if report.dry_run else 'now'}"
        yield line(ostore("link", "--refresh", folder, after="removes such links"))


def text(report: RmReport, *, verbose: bool) -> str:
    verb = "would remove" if report.dry_run else "removed"
    lines = [f"  {verb} {name}" for name in report.models]
    lines += [f"  {verb} {blob_text(blob)}" for blob in report.removed] if verbose else []
    least = sum(blob.allocated for blob in (*report.removed, *report.stayed)) // _SMALL_PART
    told = [blob for blob in report.stayed if verbose or blob.allocated >= least or blob.reason != "shared"]
    lines += cut([_stay_line(blob) for blob in told], verbose=verbose)
    if hidden := [blob for blob in report.stayed if blob not in told]:
        size = human_bytes(sum(blob.allocated for blob in hidden))
        lines.append(f"  {_stay(len(hidden), 'small blob')}, {size}: shared with other models (-v shows them)")
    if report.linked:
        verb = "would stay" if report.dry_run else "stays"
        lines.append(f"  {human_bytes(report.linked)} {verb} on the disk: under another name there (a hard link)")
    return "\n".join([*map(one_line, lines), summary(report)])


def plan(report: RmReport, *, verbose: bool) -> str:
    """The text and the warnings, for the question."""
    return "\n".join([text(report, verbose=verbose), *(f"  {warning}" for warning in warnings(report))])


def _stay_line(blob: RemovedBlob) -> str:
    return f"  stays {blob_text(blob)}: {_REASONS.get(blob.reason) or f'shared with {names_text(blob.models)}'}"


def _stay(count: int, noun: str) -> str:
    return f"{plural(count, noun)} {'stays' if count == 1 else 'stay'}"


def summary(report: RmReport) -> str:
    freed = f"{'would free' if report.dry_run else 'freed'} {human_bytes(report.freed)}"
    what = f"{plural(len(report.models), 'model')}, {plural(len(report.removed), 'blob')}"
    return f"{freed}: {what}"
