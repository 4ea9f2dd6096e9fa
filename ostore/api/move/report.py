"""The report of a move: what it would do, or what it has done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ostore.api.move.cargo import Cargo
from ostore.api.move.check import StoreSetting, settings_for, warnings_of
from ostore.api.move.left_behind import will_stay
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.outcome import Forecast, Outcome
from ostore.formats.remedy import ostore
from ostore.formats.store_layout import BLOBS, WORKSPACE
from ostore.formats.wording import listed
from ostore.operations.move import LeftEntry, needed_without
from ostore.places.plain_files.link_folder import links_that_break
from ostore.places.store.survey.references import find_references


@dataclass(frozen=True, slots=True)
class MovedModel:
    """
    One model of a move.

    `outcome` in the new store is added, repaired (a broken manifest was there) or already there. `removed` says that
    the old store no longer has it.
    """

    name: str
    outcome: str
    removed: bool


@dataclass(frozen=True, slots=True)
class MoveReport:
    """
    What was moved, or with `dry_run` would be. Sizes are bytes.

    Blobs were written now, linked (on the same disk), resumed (an interrupted move had finished them) or present
    already. `removed` says whether the old store was cleared, and `left` is what is still in it. `in_use` are the paths
    in the old store of what was to go and stays because, on Windows, another program has it open.
    """

    source: str
    destination: str
    dry_run: bool
    removed: bool
    models: tuple[MovedModel, ...]
    blobs_written: int
    size_written: int
    blobs_linked: int
    size_linked: int
    blobs_resumed: int
    blobs_present: int
    blobs_removed: int
    size_removed: int
    left: tuple[LeftEntry, ...]
    settings: tuple[StoreSetting, ...]
    warnings: tuple[str, ...]
    in_use: tuple[str, ...]


def foreseen(cargo: Cargo, forecast: Forecast) -> MoveReport:
    """Report what a move would do, judged by sizes. Nothing is hashed or written."""
    missing = forecast.missing
    linked = missing if _disk_of(cargo.source.root / BLOBS) == _disk_of(cargo.target.root / BLOBS) else ()
    written = () if linked else missing
    return replace(
        report_of(cargo, forecast.outcomes),
        dry_run=True,
        blobs_written=len(written),
        size_written=sum_of(written),
        blobs_linked=len(linked),
        size_linked=sum_of(linked),
        blobs_present=len(cargo.selection.blobs) - len(missing),
    )


def report_of(cargo: Cargo, outcomes: Mapping[ModelName, Outcome]) -> MoveReport:
    """Make a report without any counts of blobs."""
    return MoveReport(
        source=str(cargo.source.root),
        destination=str(cargo.target.root),
        dry_run=False,
        removed=False,
        models=tuple(MovedModel(str(name), outcome.value, removed=False) for name, outcome in outcomes.items()),
        blobs_written=0,
        size_written=0,
        blobs_linked=0,
        size_linked=0,
        blobs_resumed=0,
        blobs_present=0,
        blobs_removed=0,
        size_removed=0,
        left=(left := will_stay(cargo)),
        settings=settings_for(cargo.target) if cargo.is_whole else (),
        warnings=(
            *cargo.selection.notes,
            *(warnings_of(cargo.source, cargo.target) if cargo.is_whole else ()),
            *_told_left(cargo, left),
            *_told_links(cargo),
        ),
        in_use=(),
    )


def _told_left(cargo: Cargo, left: Sequence[LeftEntry]) -> Iterator[str]:
    if odd := [entry.path for entry in left if not entry.path.startswith(f"{WORKSPACE}/")]:
        yield f"{listed(odd)}: stays in {cargo.source.root}"


def _told_links(cargo: Cargo) -> Iterator[str]:
    """Yield a warning for each folder with links of `link` that the move breaks."""
    folders = cargo.source.linked_folders()
    staying = needed_without(find_references(cargo.source.root), set(cargo.modified)) if folders else frozenset()
    going = cargo.selection.sizes.keys() - staying
    for folder in folders:
        if broken := links_that_break(Path(folder), cargo.source.absolute, going):
            mend = ostore("link", "--refresh", folder, after="removes such links")
            if cargo.is_whole:
                mend = ostore("link", "--refresh", folder, models=cargo.target.root, after="leads them to the new one")
            yield f"{listed(broken)}: leads nowhere once the old store is cleared; then {mend}"


def sum_of(blobs: Iterable[Descriptor]) -> int:
    """Return the size of these blobs in bytes."""
    return sum(blob.size for blob in blobs)


def _disk_of(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return path.stat().st_dev
