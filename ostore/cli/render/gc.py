"""The output of `ostore gc`. A plan and a result have the same form."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ostore.cli.remedies import line
from ostore.cli.text import human_age, human_bytes, human_time, one_line, plural
from ostore.formats.remedy import ostore

if TYPE_CHECKING:
    from ostore.api.gc import GcReport, JudgedBlob, KeptDownload, RestoreReport
    from ostore.api.rm import RemovedBlob

# Ollama itself spares younger blobs when it starts, since 0.21.
_RISKY_GRACE_SECONDS = 3600
# Lines without -v: a store may have thousands of orphans.
_MAX_LINES = 20
_MAX_NAMES = 3
_REASONS = {
    "young": "no model needs it, but it is too young",
    "download": "no model needs it, but a download that seems to be running may",
    "held": "no model needs it yet, but a running command holds it",
    "maybe-held": "no model needs it, but a command of another user may hold it",
    "misnamed": "no model needs it, but Ollama gives no blob such a name; it may be somebody's file",
    "meanwhile": "it was used, replaced or needed again while gc ran",
}


def text(report: GcReport, *, verbose: bool) -> str:
    verb = "would remove" if report.dry_run else "removed"
    lines = [f"  {verb} {blob_text(blob)}: no model needs it; {_age(blob)}" for blob in report.removed]
    lines += [
        f"  {verb} {download.digest[7:19]}  {human_bytes(download.allocated)}: an abandoned partial download"
        for download in report.downloads
    ]
    lines = cut(lines, verbose=verbose)
    if verbose:
        lines += [f"  stays {blob_text(blob)}: {_why(blob)}" for blob in report.kept]
    return "\n".join([*map(one_line, lines), *_notes(report), *_what_waits(report), summary(report)])


def restored_text(report: RestoreReport) -> str:
    lines = [f"  {blob.digest[7:19]}  {human_bytes(blob.size)}: {blob.outcome}" for blob in report.blobs]
    return "\n".join([*lines, restored_summary(report)])


def restored_summary(report: RestoreReport) -> str:
    count = sum(blob.outcome == "restored" for blob in report.blobs)
    verb = "would restore" if report.dry_run else "restored"
    return f"{verb} {human_bytes(report.size)}: {plural(count, 'blob')}" if report.blobs else "the trash is empty"


def blob_text(blob: JudgedBlob | RemovedBlob) -> str:
    # The usual file name is the digest; an unusual one is shown.
    name = blob.digest[7:19] if blob.filename == blob.digest.replace(":", "-") else blob.filename
    return f"{name}  {human_bytes(blob.allocated)}"


def names_text(models: Sequence[str]) -> str:
    more = len(models) - _MAX_NAMES
    return ", ".join(models[:_MAX_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def cut(lines: list[str], *, verbose: bool) -> list[str]:
    if verbose or len(lines) <= _MAX_LINES:
        return lines
    return [*lines[:_MAX_LINES], f"  and {len(lines) - _MAX_LINES:,} more (-v shows all)"]


def _removed_counts(report: GcReport) -> str:
    counts = [
        f"{plural(len(report.removed), 'orphan blob')}{' to the trash' if report.trashed else ''}"
        if report.removed
        else "",
        plural(len(report.downloads), "partial download") if report.downloads else "",
        f"{plural(report.leftovers, 'file')} of interrupted commands" if report.leftovers else "",
        f"{plural(report.expired, 'expired file')} in the trash" if report.expired else "",
    ]
    return ", ".join(count for count in counts if count)


def summary(report: GcReport) -> str:
    told = _removed_counts(report)
    stays = f"{plural(report.needed, 'blob')} in use"
    stays += f", {plural(_unneeded(report.kept), 'orphan')} kept" if _unneeded(report.kept) else ""
    if not told:
        return f"nothing to reclaim: {stays}"
    said = f"{'would reclaim' if report.dry_run else 'reclaimed'} {human_bytes(report.freed)}: {told}"
    if report.kept_until is not None and report.removed:
        said += f"; {human_bytes(report.trashed)} kept until {human_time(report.kept_until)}"
        said += f"; {line(ostore('gc', '--restore', after='brings them back'))}"
    return f"{said}; {stays}"


def _notes(report: GcReport) -> list[str]:
    notes = []
    if report.download_since is not None:
        began = human_age(max(0.0, time.time() - report.download_since)).lower()
        since = f"in the {_duration(report.grace)} before that, or since," if report.grace else "since then"
        notes.append(f"  note: a download seems to be running (it began {began}); blobs finished {since} stay")
    if report.sees_ollama:
        notes.append("  note: Ollama is running and takes no lock; only their age protects the blobs it works on")
    if report.grace < _RISKY_GRACE_SECONDS:
        notes.append(
            f"  note: with a grace of {_duration(report.grace)}, gc may remove a blob that a pull or create has just"
            " finished; ollama pull loads it again"
        )
    return notes


def _what_waits(report: GcReport) -> Iterator[str]:
    """What stays although nothing needs it, and until when."""
    young = [blob for blob in report.kept if blob.reason == "young" and blob.age >= 0]
    if young:
        size = human_bytes(sum(blob.allocated for blob in young))
        due = human_time(time.time() + report.grace - max(blob.age for blob in young))
        first = "it goes" if len(young) == 1 else "the first goes"
        yield f"  stays: {plural(len(young), 'young orphan')}, {size}; {first} after {due} (--grace)"
    yield from _resting(report, [download for download in report.kept_downloads if download.goes_after is not None])
    if linked := sum(download.goes_after is None for download in report.kept_downloads):
        yield f"  stays: {plural(linked, 'partial download')} with a file that is no plain file"


def _resting(report: GcReport, downloads: Sequence[KeptDownload]) -> Iterator[str]:
    if not downloads:
        return
    what = f"{plural(len(downloads), 'partial download')}, {human_bytes(sum(d.allocated for d in downloads))}"
    due = min(download.goes_after or 0.0 for download in downloads)
    first = "it" if len(downloads) == 1 else "the first"
    if due <= time.time():
        yield one_line(f"  stays: {what}; {line(ostore('gc', '--partials', after=f'takes {first} now'))}")
    elif report.partials:
        yield f"  stays: {what}; {first} goes after {human_time(due)} (--partials-grace)"
    else:
        yield f"  stays: {what}; ollama pull goes on with {first}; --partials takes {first} after {human_time(due)}"


def _why(blob: JudgedBlob) -> str:
    if blob.reason == "needed":
        return f"needed by {names_text(blob.models)}" if blob.models else "a manifest mentions it"
    return f"{_REASONS[blob.reason]}; {_age(blob)}"


def _age(blob: JudgedBlob) -> str:
    return f"last changed {human_age(blob.age).lower()}" if blob.age >= 0 else "its times are in the future"


def _unneeded(blobs: Iterable[JudgedBlob]) -> int:
    return sum(blob.reason != "needed" for blob in blobs)


def _duration(seconds: float) -> str:
    # A grace is usually given in hours; from two days on, days are easier to read.
    for least, size, unit in ((172_800, 86_400, "d"), (3600, 3600, "h"), (60, 60, "min")):
        if seconds >= least and seconds % size == 0:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
