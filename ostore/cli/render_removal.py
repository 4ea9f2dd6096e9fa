"""What gc, rm and cp say to people; a plan and what became of it look alike."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ostore.cli.text import human_age, human_bytes, one_line, plural

if TYPE_CHECKING:
    from ostore.api.cp import CpReport
    from ostore.api.gc import GcReport, JudgedBlob, RestoreReport
    from ostore.api.rm import RemovedBlob, RmReport

# What Ollama itself spares when it starts, since 0.21.
_RISKY_GRACE_SECONDS = 3600
# Lines without -v; a store may have thousands of orphans.
_MAX_LINES = 20
_MAX_NAMES = 3
_GC_REASONS = {
    "young": "no model needs it, but it is too young",
    "download": "no model needs it, but a download that seems to be under way may",
    "held": "no model needs it yet, but a running command holds it",
    "maybe-held": "no model needs it, but a command of another user may hold it",
    "link": "no model needs it, but it is a link, which gc leaves alone",
    "meanwhile": "was used, replaced or needed again meanwhile",
}
_RM_REASONS = {
    "doubt": "a manifest that cannot be read may need it",
    "held": "a running command holds it",
    "link": "a link, which rm leaves alone",
    "meanwhile": "was used, replaced or needed again meanwhile",
}


def gc_text(report: GcReport, *, verbose: bool) -> str:
    verb = "would remove" if report.dry_run else "removed"
    lines = [f"  {verb} {_blob(blob)}: no model needs it; {_age(blob)}" for blob in report.removed]
    lines += [
        f"  {verb} {download.digest[7:19]}  {human_bytes(download.allocated)}: a partial download that was given up"
        for download in report.downloads
    ]
    lines = _cut(lines, verbose=verbose)
    if verbose:
        lines += [f"  stays {_blob(blob)}: {_why(blob)}" for blob in report.kept]
    return "\n".join([*map(one_line, lines), *_notes(report), _gc_summary(report)])


def rm_text(report: RmReport, *, verbose: bool) -> str:
    verb = "would remove" if report.dry_run else "removed"
    lines = [f"  {verb} {name}" for name in report.models]
    lines += [f"  {verb} {_blob(blob)}" for blob in report.removed] if verbose else []
    stays = [
        f"  stays {_blob(blob)}: {_RM_REASONS.get(blob.reason) or f'shared with {_names(blob.models)}'}"
        for blob in report.stayed
    ]
    lines += _cut(stays, verbose=verbose)
    if report.doubt:
        lines.append(f"  no blob goes, because a manifest cannot be read and may need it: {report.doubt}")
        lines.append("  ostore gc removes what is left over, once that is repaired")
    freed = f"{'would free' if report.dry_run else 'freed'} {human_bytes(report.freed)}"
    what = f"{plural(len(report.models), 'model')}, {plural(len(report.removed), 'blob')}"
    return "\n".join([*map(one_line, lines), f"{freed}: {what}"])


def cp_text(report: CpReport) -> str:
    if report.outcome == "already there":
        return one_line(f"{report.destination} is already there, and the same as {report.source}")
    verb = "would copy" if report.dry_run else "copied"
    how = "" if report.outcome == "added" else f" ({report.outcome})"
    return one_line(f"{verb} {report.source} to {report.destination}{how}")


def restore_text(report: RestoreReport) -> str:
    lines = [f"  {blob.digest[7:19]}  {human_bytes(blob.size)}: {blob.outcome}" for blob in report.blobs]
    count = sum(blob.outcome == "restored" for blob in report.blobs)
    verb = "would restore" if report.dry_run else "restored"
    if not report.blobs:
        return "the trash is empty"
    return "\n".join([*lines, f"{verb} {human_bytes(report.size)}: {plural(count, 'blob')}"])


def _gc_summary(report: GcReport) -> str:
    counts = [
        f"{plural(len(report.removed), 'orphan blob')}{' to the trash' if report.trashed else ''}"
        if report.removed
        else "",
        plural(len(report.downloads), "partial download") if report.downloads else "",
        f"{plural(report.leftovers, 'file')} of interrupted commands" if report.leftovers else "",
        f"{plural(report.expired, 'file')} of the trash" if report.expired else "",
    ]
    told = ", ".join(count for count in counts if count)
    stays = f"{plural(report.needed, 'blob')} in use"
    stays += f", {plural(_unneeded(report.kept), 'orphan')} kept" if _unneeded(report.kept) else ""
    if not told:
        return f"nothing to reclaim: {stays}"
    text = f"{'would reclaim' if report.dry_run else 'reclaimed'} {human_bytes(report.freed)}: {told}"
    if report.kept_until is not None and report.removed:
        until = datetime.fromtimestamp(report.kept_until, UTC)
        text += f"; {human_bytes(report.trashed)} kept for ostore gc --restore until {until:%Y-%m-%d %H:%M} UTC"
    return f"{text}; {stays}"


def _notes(report: GcReport) -> list[str]:
    notes = []
    if report.download_since is not None:
        began = human_age(max(0.0, time.time() - report.download_since)).lower()
        since = f"less than {_duration(report.grace)} before it" if report.grace else "since then"
        notes.append(f"  note: a download seems to be under way (it began {began}); what was finished {since} stays")
    if report.sees_ollama:
        notes.append("  note: an ollama process is running; what it works on has no lock, only its age protects it")
    if report.grace < _RISKY_GRACE_SECONDS:
        notes.append(
            f"  note: with a grace of {_duration(report.grace)}, what a pull or create has just finished may go"
            " before its model is written; ollama pull would load it again"
        )
    return notes


def _blob(blob: JudgedBlob | RemovedBlob) -> str:
    # A name that is not the usual one matters; the usual one is the digest.
    name = blob.digest[7:19] if blob.filename == blob.digest.replace(":", "-") else blob.filename
    return f"{name}  {human_bytes(blob.allocated)}"


def _why(blob: JudgedBlob) -> str:
    if blob.reason == "needed":
        return f"needed by {_names(blob.models)}" if blob.models else "a manifest mentions it"
    return f"{_GC_REASONS[blob.reason]}; {_age(blob)}"


def _age(blob: JudgedBlob) -> str:
    return f"last used {human_age(blob.age).lower()}" if blob.age >= 0 else "its times are in the future"


def _names(models: Sequence[str]) -> str:
    more = len(models) - _MAX_NAMES
    return ", ".join(models[:_MAX_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _cut(lines: list[str], *, verbose: bool) -> list[str]:
    if verbose or len(lines) <= _MAX_LINES:
        return lines
    return [*lines[:_MAX_LINES], f"  and {len(lines) - _MAX_LINES:,} more (-v shows all)"]


def _unneeded(blobs: Iterable[JudgedBlob]) -> int:
    return sum(blob.reason != "needed" for blob in blobs)


def _duration(seconds: float) -> str:
    # From two days on in days: a grace is usually said in hours.
    for least, size, unit in ((172_800, 86_400, "d"), (3600, 3600, "h"), (60, 60, "min")):
        if seconds >= least and seconds % size == 0:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
