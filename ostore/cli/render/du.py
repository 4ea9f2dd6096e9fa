"""The output of `ostore du`: a row per model, then the parts of the store."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from ostore.cli.remedies import line
from ostore.cli.text import human_bytes, plural, table
from ostore.formats.remedy import ostore

if TYPE_CHECKING:
    from ostore.api.du import UsageReport
    from ostore.operations.usage import ModelUsage, UsageKind, UsagePart

_HEADER = ("NAME", "SIZE", "SHARED", "UNIQUE", "FREES")
# The name of the row, the noun for its files, and a remark.
_PARTS: dict[UsageKind, tuple[str, str, str]] = {
    "shared": ("shared", "blob", "that several models need, counted once"),
    "unique": ("unique", "blob", "that one model needs"),
    "mentioned": ("mentioned", "blob", "that only a manifest without a model's name mentions"),
    "manifests": ("manifests", "file", ""),
    "folders": ("folders", "", ""),
    "foreign": ("foreign", "file", "that Ollama does not know; not reclaimable"),
    "orphans": ("orphans", "blob", "that no model needs"),
    "downloads": ("partial downloads", "file", ""),
    "temporary": ("temporary", "file", "that Ollama did not finish"),
    "working-folders": ("working folders", "file", "of unfinished conversions"),
    "workspace": (".ostore", "file", "of interrupted commands, trash and quarantine"),
}
# The remark while `gc` leaves some of them.
_RESTING: dict[UsageKind, str] = {
    "orphans": "that no model needs; gc leaves some of them for now",
    "downloads": "that a pull can go on with; reclaimable after a week of rest",
}
_ALWAYS = frozenset({"shared", "unique"})


def text(report: UsageReport, *, is_chosen: bool) -> str:
    """The models, then what removing the chosen ones frees, or the parts of the store."""
    rows = table(_HEADER, [_row(model) for model in report.models])
    return f"{rows}\n\n{_removal(report) if is_chosen else _store(report)}"


def warnings(report: UsageReport) -> Iterator[str]:
    """What is missing from the sums."""
    for model in report.models:
        for digest in model.missing:
            yield f"{model.name}: blob {digest}: missing"
    for entry in report.doubts:
        yield f"{entry.path}: {entry.reason}"
    for entry in report.not_counted:
        yield f"{entry.path}: not counted: {entry.reason}"
    yield from report.warnings


def _row(model: ModelUsage) -> tuple[str, ...]:
    sizes = (model.size, model.shared, model.unique, model.frees)
    return (model.name, *(human_bytes(size.allocated) for size in sizes))


def _store(report: UsageReport) -> str:
    rows = [_part(part) for part in report.parts if part.files or part.size.allocated or part.kind in _ALWAYS]
    rows.append(("TOTAL", human_bytes(report.total.allocated), report.store))
    rows.append(("RECLAIMABLE", human_bytes(report.reclaimable.allocated), _how_to_reclaim(report)))
    return table(("", "", ""), rows).lstrip("\n")


def _part(part: UsagePart) -> tuple[str, str, str]:
    word, noun, meaning = _PARTS[part.kind]
    if part.kind in _RESTING and part.reclaimable.allocated < part.size.allocated:
        meaning = _RESTING[part.kind]
    count = f"{plural(part.files, noun)} {meaning}".rstrip() if noun else ""
    return word, human_bytes(part.size.allocated), count


def _how_to_reclaim(report: UsageReport) -> str:
    if report.doubts:
        return f"gc takes nothing yet: {line(ostore('doctor', after='says what to do about unreadable manifests'))}"
    if not report.reclaimable.allocated:
        return ""
    return "; ".join(_ways_to_reclaim({part.kind for part in report.parts if part.reclaimable.allocated}))


def _ways_to_reclaim(kinds: AbstractSet[UsageKind]) -> Iterator[str]:
    if not kinds <= {"temporary", "working-folders"}:
        yield line(ostore("gc", *(["--partials"] if "downloads" in kinds else [])))
    if "temporary" in kinds:
        yield "Ollama removes temporary files when it starts"
    if "working-folders" in kinds:
        yield line(ostore("doctor", after="says how to remove working folders"))


def _removal(report: UsageReport) -> str:
    freed = human_bytes(report.frees.allocated)
    if len(report.models) > 1:
        return f"removing these {len(report.models):,} models together frees {freed}"
    (model,) = report.models
    return f"removing {model.name} frees {freed}{''.join(f'; {reason}' for reason in _what_stays(model))}"


def _what_stays(model: ModelUsage) -> Iterator[str]:
    if model.shared.allocated:
        yield f"other models need {human_bytes(model.shared.allocated)} of it"
    if linked := model.unique.allocated - model.frees.allocated:
        yield f"{human_bytes(linked)} of it has another name on this disk (a hard link)"
