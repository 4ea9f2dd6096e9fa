"""The output of `ostore export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes, human_seconds, one_line, plural
from ostore.streams.disks import room_together

if TYPE_CHECKING:
    from ostore.api.export import ExportedParity, ExportReport
    from ostore.api.export_gguf import GgufExportReport
    from ostore.api.export_image import ImageExportReport

    AnyExportReport = ExportReport | GgufExportReport | ImageExportReport


# Of more lines, the first are shown.
_MOST_LINES, _FIRST_LINES = 20, 5


def outlook(report: AnyExportReport, folders: Sequence[str] = ()) -> str:
    """What is about to be written, and the room for it: in the folders of the volumes, if there are any."""
    what = f"{plural(len(report.models), 'model')}, {human_bytes(report.size)}"
    return one_line(f"to export: {what} -> {report.destination}{room_text(*(folders or [report.destination]))}")


def room_text(*places: str) -> str:
    """How much is free where something is to be written."""
    room = None if "-" in places else room_together(Path(place.removeprefix("oci:")) for place in places)
    return "" if room is None else f" ({human_bytes(room)} free)"


def text(report: AnyExportReport, seconds: float) -> str:
    verb = "would export" if report.dry_run else "exported"
    took = "" if report.dry_run else f" in {human_seconds(seconds)}"
    lines = [f"  {name}" for name in report.models] if report.dry_run else _volume_lines(report)
    return "\n".join([*lines, one_line(f"{verb} {_what(report)}{took} -> {report.destination}{_bundle_size(report)}")])


def _volume_lines(report: AnyExportReport) -> list[str]:
    volumes, parities = getattr(report, "volumes", ()), getattr(report, "parity", ())
    lines = _some([one_line(f"  {volume.path}  {human_bytes(volume.size)}") for volume in volumes])
    return [*lines, *_some([one_line(_parity_line(parity, parities)) for parity in parities])]


def _parity_line(parity: ExportedParity, parities: Sequence[ExportedParity]) -> str:
    which = f" {parity.files[0]}" if len(parities) > 1 else ""
    return (
        f"  parity{which}: any {parity.recovery_blocks} of {parity.blocks} blocks can be repaired "
        f"(of {human_bytes(parity.block_size)} each)"
    )


def _some(lines: list[str]) -> list[str]:
    if len(lines) <= _MOST_LINES:
        return lines
    return [*lines[:_FIRST_LINES], f"  and {len(lines) - _FIRST_LINES:,} more (--json shows all)"]


def _what(report: AnyExportReport) -> str:
    from ostore.api.export_gguf import GgufExportReport
    from ostore.api.export_image import ImageExportReport

    models = plural(len(report.models), "model")
    if isinstance(report, GgufExportReport):
        return f"{models}, {plural(len(report.files), 'file')}, {human_bytes(report.size)}"
    shared = f" ({human_bytes(report.shared_size)} shared once)" if report.shared_size else ""
    if isinstance(report, ImageExportReport):
        layers = plural(report.layers, "layer")
        return f"{models}, {layers}, {human_bytes(report.size)}{shared} as image {report.image}"
    parts = [f"{models}, {plural(report.blobs, 'blob')}, {human_bytes(report.size)}{shared}"]
    if report.recipes:
        parts.append(f"{plural(report.recipes, 'blob')} as recipes ({human_bytes(report.recipe_size)})")
    if report.required:
        parts.append(f"{plural(report.required, 'blob')} required there ({human_bytes(report.required_size)})")
    return "; ".join(parts)


def _bundle_size(report: AnyExportReport) -> str:
    size = getattr(report, "bundle_size", None) or getattr(report, "image_size", None)
    return "" if size is None else f" ({human_bytes(size)})"
