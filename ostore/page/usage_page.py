"""
The page of `ostore du --html`: a treemap and tables in one file, for any browser, screen reader or printer.

The page has no script. Its content security policy allows only its own style, so no name on the page can run as a
script. All text is escaped twice: unprintable characters (`clean`), and characters that HTML could read as markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ostore.api.du import UsageReport
from ostore.formats.version import VERSION
from ostore.formats.wording import clean, human_bytes, one_line, plural
from ostore.operations.usage import ModelUsage, SharedBlobs, UsageKind, UsagePart
from ostore.page.treemap import Item, Region, lay_out

# One for wide screens and paper, one for telephones. The page shows the one that fits.
_WIDE, _NARROW = (1120, 560), (360, 560)
# A table shows at most this many. The JSON has all.
_MAX_GROUPS, _MAX_NAMES = 200, 24

_COLOURS: dict[UsageKind, str] = {
    "shared": "shared",
    "unique": "unique",
    "mentioned": "other",
    "manifests": "other",
    "folders": "other",
    "foreign": "other",
    "orphans": "reclaimable",
    "downloads": "reclaimable",
    "temporary": "reclaimable",
    "working-folders": "reclaimable",
    "workspace": "reclaimable",
}
_WORDS: dict[UsageKind, tuple[str, str]] = {
    "shared": ("shared blobs", "needed by several models, on the disk once"),
    "unique": ("unique blobs", "needed by one model only"),
    "mentioned": ("mentioned blobs", "kept because something without a model name mentions them"),
    "manifests": ("manifests", "say which blobs a model needs"),
    "folders": ("folders", "of the store itself"),
    "foreign": ("foreign files", "nothing that Ollama knows; left alone"),
    "orphans": ("orphans", "blobs that no model needs"),
    "downloads": ("partial downloads", "Ollama may go on with them; reclaimable after a week of rest"),
    "temporary": ("temporary files", "Ollama did not finish them"),
    "working-folders": ("working folders", "of conversions that did not end"),
    "workspace": (".ostore", "of interrupted commands, trash and quarantine"),
}


@dataclass(frozen=True, slots=True)
class _PartRow:
    part: UsagePart
    word: str
    meaning: str
    colour: str


@dataclass(frozen=True, slots=True)
class _ModelRow:
    """A model. Its bar is in percent of the largest model."""

    model: ModelUsage
    unique_percent: float
    shared_percent: float


@dataclass(frozen=True, slots=True)
class _GroupRow:
    group: SharedBlobs
    names: tuple[str, ...]
    more: int


def usage_page(report: UsageReport, *, now: float) -> str:
    """Return the page as text. `now` is when the store was measured, in seconds since 1970."""
    style = _file("usage.css")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_printable
    )
    environment.filters |= {"bytes": human_bytes, "plural": plural, "px": _pixels}
    regions = _regions(report)
    return environment.from_string(
        _file("usage.html")
    ).render(
        report=report,
        # The style is our own file, not text from outside.
        style=Markup(style),  # noqa: S704
        style_digest=_digest(style),
        version=VERSION,
        measured=datetime.fromtimestamp(now, UTC),
        maps=[("wide", lay_out(regions, *_WIDE)), ("narrow", lay_out(regions, *_NARROW))],
        colours=_colours_of(regions),
        models=_model_rows(report.models),
        parts=[_part_row(part) for part in report.parts if part.files or part.size.allocated],
        groups=[_group_row(group) for group in report.shared_blobs[:_MAX_GROUPS]],
        groups_left_out=report.shared_blobs[_MAX_GROUPS:],
        missing=[(model.name, digest) for model in report.models for digest in model.missing],
    )


def _file(name: str) -> str:
    return resources.files("ostore.page").joinpath(name).read_text("utf-8")


def _digest(style: str) -> str:
    """Return the digest by which a content security policy allows a style (CSP level 3, section 2.3.1)."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


def _printable(value: object) -> object:
    return clean(one_line(value)) if type(value) is str else value


def _pixels(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _regions(report: UsageReport) -> list[Region]:
    return [
        Region("unique", [*_models(report)], "model", "models"),
        Region("shared", [*_groups(report)], "group", "shared"),
        *(Region(kind, [*_parts(report, kind)], "", "parts") for kind in ("reclaimable", "other")),
    ]


def _models(report: UsageReport) -> Iterable[Item]:
    for number, model in enumerate(report.models):
        yield Item(model.name, model.unique.allocated, f"model-{number}")
    others = report.unique.allocated - sum(model.unique.allocated for model in report.models)
    yield Item("models not asked for", others, "parts")


def _groups(report: UsageReport) -> Iterable[Item]:
    for number, group in enumerate(report.shared_blobs):
        target = f"shared-{number}" if number < _MAX_GROUPS else "shared"
        yield Item(_group_label(group), group.size.allocated, target, f"{len(group.models):,} models")


def _group_label(group: SharedBlobs) -> str:
    """Return `model:*` if all names are tags of one model, or else the first name and how many more."""
    first, *others = group.models
    models = {name.rpartition(":")[0] for name in group.models}
    if len(models) == 1:
        return f"{models.pop()}:*"
    return f"{first} and {others[0]}" if len(others) == 1 else f"{first} and {len(others):,} more"


def _parts(report: UsageReport, colour: str) -> Iterable[Item]:
    for part in report.parts:
        if _colour(part) == colour:
            yield Item(_WORDS[part.kind][0], part.size.allocated, f"part-{part.kind}")


def _colours_of(regions: Sequence[Region]) -> list[tuple[str, int]]:
    return [(region.kind, sum(item.size for item in region.items)) for region in regions]


def _model_rows(models: Sequence[ModelUsage]) -> list[_ModelRow]:
    largest = max((model.size.allocated for model in models), default=0) or 1
    return [
        _ModelRow(model, 100 * model.unique.allocated / largest, 100 * model.shared.allocated / largest)
        for model in models
    ]


def _part_row(part: UsagePart) -> _PartRow:
    return _PartRow(part, *_WORDS[part.kind], _colour(part))


def _colour(part: UsagePart) -> str:
    # Only a part that can mostly be freed now has that colour.
    is_resting = _COLOURS[part.kind] == "reclaimable" and 2 * part.reclaimable.allocated < part.size.allocated
    return "other" if is_resting else _COLOURS[part.kind]


def _group_row(group: SharedBlobs) -> _GroupRow:
    return _GroupRow(group, group.models[:_MAX_NAMES], max(0, len(group.models) - _MAX_NAMES))
