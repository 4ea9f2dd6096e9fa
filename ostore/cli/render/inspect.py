"""The output of `ostore inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostore.cli.text import human_bytes, plural, table

if TYPE_CHECKING:
    from ostore.api.inspect_bundle import InspectReport


def text(report: InspectReport) -> str:
    rows = [
        (model.name, model.manifest_digest.removeprefix("sha256:")[:12], human_bytes(model.size), f"{model.blobs}")
        for model in report.models
    ]
    total = f"{plural(len(report.models), 'model')}, {plural(report.blobs, 'blob')}, {human_bytes(report.size)}"
    size = "" if report.bundle_size is None else f" in a bundle of {human_bytes(report.bundle_size)}"
    requires = f"; requires {plural(report.requires, 'blob')} on the target" if report.requires else ""
    recipes = f"; makes {plural(report.recipes, 'blob')} of parts of others" if report.recipes else ""
    made_by = f", made by {report.creator}" if report.creator else ""
    return f"{table(('NAME', 'MANIFEST', 'SIZE', 'BLOBS'), rows)}\n{total}{size}{recipes}{requires}{made_by}"
