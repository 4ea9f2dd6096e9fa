"""The output of `ostore dedup`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ostore.cli.remedies import again, line
from ostore.cli.text import human_bytes, one_line, plural

if TYPE_CHECKING:
    from ostore.api.dedup import DedupReport, DuplicateBlob, DuplicateCopy

# The largest blobs come first, so the first rows matter most.
_ROWS = 20
_STATES = {
    "shareable": "can be shared",
    "shared": "shared already",
    "same-file": "the same file (a hard link)",
    "linked": "shared now",
    "different": "NOT the same bytes",
    "other-disk": "",
    "unsupported": "",
    "failed": "failed",
}


def plan(report: DedupReport, *, verbose: bool) -> str:
    """What --link would share."""
    count = sum(copy.state == "shareable" for blob in report.duplicates for copy in blob.copies)
    return "\n".join(
        (*_blob_lines(report, verbose=verbose), f"would share {human_bytes(report.gain)} of {_files(count)}")
    )


def text(report: DedupReport, *, verbose: bool) -> str:
    """The duplicates, what was searched, and the summary."""
    found = (*_blob_lines(report, verbose=verbose), *_foreign_lines(report, verbose=verbose))
    return "\n".join((*found, _looked_line(report), summary(report)))


def _blob_lines(report: DedupReport, *, verbose: bool) -> Iterator[str]:
    shown = report.duplicates if verbose else report.duplicates[:_ROWS]
    for blob in shown:
        yield one_line(_blob_line(blob))
        yield from (one_line(_copy_line(copy)) for copy in blob.copies)
    if hidden := len(report.duplicates) - len(shown):
        yield f"and {plural(hidden, 'smaller blob')} (-v shows all)"


def _foreign_lines(report: DedupReport, *, verbose: bool) -> Iterator[str]:
    """The models that only other programs have, each with the command that makes it one of Ollama's too."""
    shown = report.foreign if verbose else report.foreign[:_ROWS]
    if shown:
        yield "only other programs have these models; each command takes one into the store:"
    for model in shown:
        yield one_line(f"  {human_bytes(model.size)}  {line(model.create)}")
    if hidden := len(report.foreign) - len(shown):
        yield f"and {plural(hidden, 'more model')} (-v shows all)"


def _blob_line(blob: DuplicateBlob) -> str:
    # A blob that is not in the store has no model; its path names it.
    who = ", ".join(blob.models) or blob.path
    return f"{blob.digest.removeprefix('sha256:')[:12]}  {human_bytes(blob.size)}  {who}"


def _copy_line(copy: DuplicateCopy) -> str:
    state = ": ".join(filter(None, (_STATES[copy.state], copy.detail)))
    return f"    {copy.kind}: {copy.path} ({state})"


def _looked_line(report: DedupReport) -> str:
    hashed = f", hashed {report.hashed:,} ({human_bytes(report.hashed_size)})" if report.hashed else ""
    return f"looked at {_files(report.files)} in {plural(len(report.folders), 'folder')}{hashed}"


def summary(report: DedupReport) -> str:
    if not report.duplicates:
        return f"nothing is kept twice ({report.store})"
    kept = f"{plural(len(report.duplicates), 'blob')} kept more than once"
    parts = [f"{human_bytes(report.linked_size)} shared now"] if report.linked_size else []
    parts += [f"{human_bytes(report.gain)} can be shared ({line(again('--link'))})"] if report.gain else []
    parts += [f"{human_bytes(report.shared_size)} shared already"] if report.shared_size else []
    parts += _unshared(report)
    return f"{kept}: {', '.join(parts)}" if parts else kept


def _unshared(report: DedupReport) -> list[str]:
    states = Counter(copy.state for blob in report.duplicates for copy in blob.copies)
    counts = (
        (states["other-disk"] + states["unsupported"], "cannot be shared"),
        (states["different"], "with other bytes"),
        (states["failed"], "failed"),
    )
    return [f"{_files(count)} {what}" for count, what in counts if count]


def _files(count: int) -> str:
    return plural(count, "file")
