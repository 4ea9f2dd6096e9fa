"""Every report as text and as JSON. Text may change between versions; JSON only grows (docs/json.md)."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ostore.cli.text import human_age, human_bytes, human_seconds, one_line, plural, say, table

if TYPE_CHECKING:
    from ostore.api.export import ExportReport
    from ostore.api.import_bundle import ImportReport
    from ostore.api.inspect_bundle import InspectReport
    from ostore.api.list_models import ListReport
    from ostore.api.where import WhereReport
    from ostore.operations.listing import ShownModel
    from ostore.operations.verify import VerifyReport

# Rows of a terminal; a licence is shown whole by --license.
_EXCERPT_LINES = 4
# Fields that are seconds since 1970, and times in JSON.
_TIMES = frozenset({"modified", "kept_until", "download_since"})
_REASONS = {
    "flag": "named by --models",
    "environment": "named by the environment",
    "service": "used by the Ollama service",
    "desktop-app": "set in the Ollama app",
    "default": "the default place",
}


def document(schema: str, report: Any) -> str:  # noqa: ANN401 - any report dataclass
    """One JSON document: the schema's name, then the report's fields."""
    return json.dumps({"schema": f"ostore.{schema}/1", **_plain(report)}, ensure_ascii=True, indent=2)


def list_text(report: ListReport) -> str:
    now = time.time()
    rows = [
        (
            row.name,
            row.id,
            "-" if row.size is None else human_bytes(row.size),
            human_age(now - row.modified),
            human_bytes(row.unique_size),
        )
        for row in report.models
    ]
    return table(("NAME", "ID", "SIZE", "MODIFIED", "UNIQUE"), rows)


def show_text(shown: ShownModel) -> str:
    config = shown.config
    facts = (
        ("name", shown.name),
        ("id", shown.digest.removeprefix("sha256:")[:12]),
        ("size", human_bytes(shown.size)),
        ("format", config.model_format),
        ("family", config.model_family),
        ("parameters", config.parameter_size),
        ("quantization", config.quantization),
        ("context length", str(config.context_length or "")),
        ("embedding length", str(config.embedding_length or "")),
        ("requires", f"Ollama {config.requires}" if config.requires else ""),
        ("runs on", f"{config.remote_host} as {config.remote_model}" if config.is_cloud_stub else ""),
    )
    sections = [("Model", [f"{key:<18}{value}" for key, value in facts if value])]
    sections.append(("Capabilities", list(config.capabilities)))
    sections.append(("Parameters", [f"{entry.key:<18}{_quoted(entry.value)}" for entry in shown.parameters]))
    sections.append(("System", shown.system.splitlines()))
    sections.append(("License", [line for text in shown.licenses for line in text.splitlines()[:_EXCERPT_LINES]]))
    sections.append(("Layers", _layer_lines(shown)))
    return "\n".join(_section(title, lines) for title, lines in sections if lines).rstrip("\n")


def where_text(report: WhereReport) -> str:
    facts = [("store", report.store), ("because", f"{_REASONS[report.reason]} ({report.detail})")]
    if report.exists:
        facts += [("owner", report.owner or ""), ("free", human_bytes(report.free or 0))]
    else:
        facts.append(("", "not there yet; the first import creates it"))
    facts += [("also found", f"{store.path} ({store.why})") for store in report.others]
    return "\n".join(f"{key:<12}{value}" for key, value in facts)


def export_text(report: ExportReport, seconds: float) -> str:
    verb = "would export" if report.dry_run else "exported"
    shared = f" ({human_bytes(report.shared_size)} shared once)" if report.shared_size else ""
    lines = [f"  {name}" for name in report.models] if report.dry_run else []
    what = f"{plural(len(report.models), 'model')}, {plural(report.blobs, 'blob')}, {human_bytes(report.size)}{shared}"
    took = "" if report.dry_run else f" in {human_seconds(seconds)}"
    size = "" if report.bundle_size is None else f" ({human_bytes(report.bundle_size)})"
    return "\n".join([*lines, f"{verb} {what}{took} -> {report.destination}{size}"])


def import_text(report: ImportReport, seconds: float) -> str:
    lines = [f"  {model.name}: {model.outcome}" for model in report.models]
    counts = [f"{plural(report.blobs_written, 'blob')} written ({human_bytes(report.size_written)})"]
    counts += [f"{count:,} {what}" for count, what in _import_counts(report) if count]
    if report.dry_run:
        return "\n".join([*lines, f"would import {plural(len(report.models), 'model')}: {', '.join(counts)}"])
    done = f"imported {plural(len(report.models), 'model')}: {', '.join(counts)}"
    return "\n".join([*lines, f"{done} in {human_seconds(seconds)} -> {report.store}"])


def inspect_text(report: InspectReport) -> str:
    rows = [
        (model.name, model.manifest_digest.removeprefix("sha256:")[:12], human_bytes(model.size), f"{model.blobs}")
        for model in report.models
    ]
    total = f"{plural(len(report.models), 'model')}, {plural(report.blobs, 'blob')}, {human_bytes(report.size)}"
    size = "" if report.bundle_size is None else f" in a bundle of {human_bytes(report.bundle_size)}"
    requires = f"; requires {plural(report.requires, 'blob')} on the target" if report.requires else ""
    made_by = f", made by {report.creator}" if report.creator else ""
    return f"{table(('NAME', 'MANIFEST', 'SIZE', 'BLOBS'), rows)}\n{total}{size}{requires}{made_by}"


def verify_text(report: VerifyReport, seconds: float) -> str:
    lines = []
    for problem in report.problems:
        where = f"; used by {', '.join(problem.models)}" if problem.models else ""
        detail = problem.detail if problem.subject in problem.detail else f"{problem.subject}: {problem.detail}"
        lines.append(one_line(f"  {problem.kind}: {detail}{where}"))
    checked = f"{plural(report.models, 'model')}, {plural(report.blobs, 'blob')}, {human_bytes(report.size)}"
    verdict = plural(len(report.problems), "problem") if report.problems else "whole"
    return "\n".join([*lines, f"verified {checked} in {human_seconds(seconds)}: {verdict} ({report.subject})"])


def show_part(shown: ShownModel, part: str) -> str:
    """One part of a model, as it is."""
    parts: dict[str, Callable[[], str]] = {
        "template": lambda: shown.template,
        "system": lambda: shown.system,
        "parameters": lambda: "\n".join(f"{entry.key:<30} {_quoted(entry.value)}" for entry in shown.parameters),
        "license": lambda: "\n".join(shown.licenses),
        "manifest": lambda: shown.manifest.decode("utf-8", "replace"),
        "config": lambda: shown.raw_config.decode("utf-8", "replace"),
    }
    return parts[part]()


def say_warnings(warnings: tuple[str, ...]) -> None:
    import sys

    for warning in warnings:
        say(f"ostore: warning: {one_line(warning)}", sys.stderr)


def _import_counts(report: ImportReport) -> tuple[tuple[int, str], ...]:
    return (
        (report.blobs_resumed, "resumed"),
        (report.blobs_present, "already there"),
        (report.blobs_repaired, "repaired"),
    )


def _layer_lines(shown: ShownModel) -> list[str]:
    lines = [
        f"{layer.digest.removeprefix('sha256:')[:12]}  {human_bytes(layer.size):<10}{layer.media_type}"
        for layer in shown.layers
    ]
    hidden = len(lines) - 12
    return lines if hidden <= 0 else [*lines[:12], f"and {hidden} more (--manifest shows all)"]


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([f"  {title}", *(f"    {line}" for line in lines), ""])


def _quoted(value: object) -> str:
    from ostore.formats.modelfile import parameter_text

    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else parameter_text(value)


def _plain(value: Any, key: str = "") -> Any:  # noqa: ANN401 - whatever a report holds
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _plain(entry, name) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if key in _TIMES and isinstance(value, float):
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
