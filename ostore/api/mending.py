"""What `repair` consists of: opening the sources, finding the damage, planning, and carrying it out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from ostore.api.opening import is_bundle, opened_bundle
from ostore.formats.digest import Digest
from ostore.formats.errors import NotFoundError, OstoreError, UnsafeError, UsageError
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName, choose, is_glob
from ostore.formats.outcome import Received
from ostore.formats.selection import Selection
from ostore.formats.store_layout import MANIFESTS, QUARANTINE
from ostore.operations.repair import (
    Copies,
    Lack,
    Offer,
    Repaired,
    RepairPlan,
    RepairReport,
    find_lack,
    gather,
    plan_repair,
)
from ostore.operations.verify import Problem, VerifyReport, verify_store
from ostore.places.foreign_caches.copies import CopiesFolder, NamedCopies, SizedCopies
from ostore.places.foreign_caches.walk import recognise
from ostore.places.store.copies import StoreCopies
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.manifest_tree import ManifestTree, find_manifests
from ostore.places.store.survey.obstacles import find_obstacles
from ostore.places.store.survey.scan import ManifestScan
from ostore.places.store.workspace import workspace_path
from ostore.streams.progress import SILENT, Progress

# Where a blob came from that a command before this one had fetched and could not publish.
_RESUMED = "an interrupted command"


@dataclass(frozen=True, slots=True)
class Found:
    """A store with its damage; `absent` are models that were named and are not there."""

    store: LocalStore
    scan: ManifestScan
    verified: VerifyReport
    lack: Lack
    obstacles: Mapping[Digest, str]
    absent: tuple[ModelName, ...]


def open_sources(
    sources: Sequence[str | Path], store: LocalStore, opened: ExitStack, *, jobs: int, progress: Progress
) -> tuple[list[Copies], list[str]]:
    """
    What the words of `sources` stand for, and notes on those that cannot be used.

    Raises UsageError or NotFoundError for a source that was mistyped, and if none can be used what is wrong with the
    first: that is to be known before hours of hashing.
    """
    if not sources:
        raise UsageError("expected a source of good copies", hint="--from BUNDLE or --from FOLDER")
    if [str(source) for source in sources].count("-") > 1:
        raise UsageError("standard input can be read only once")
    opened_sources: list[Copies] = []
    notes: list[str] = []
    unusable: list[Exception] = []
    for source in sources:
        try:
            opened_sources += _sources(source, store, opened, jobs, progress)
        except (UsageError, NotFoundError):
            raise
        except (OstoreError, OSError) as error:
            unusable.append(error)
            text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            notes.append(text if str(source) in text else f"{source}: {text}")
    if not opened_sources:
        raise unusable[0]
    return opened_sources, notes


def look(store: LocalStore, names: Sequence[str], sources: Sequence[Copies], *, jobs: int, progress: Progress) -> Found:
    """
    Hash the store, or some models of it, as `verify` does.

    Raises NotFoundError for a model that is neither there nor in any source, InvalidNameError, OSError.
    """
    present, absent = _split(names, store)
    for name in absent:
        if not any(source.find_models({name.folded}) for source in sources):
            raise NotFoundError(f"no model {str(name)!r} in {store.root}, nor in any source")
    scan = store.scan(present) if present or not names else ManifestScan((), (), ManifestTree())
    orphans, strays = store.unreferenced(scan) if not names else ((), ())
    verified = verify_store(str(store.root), store, scan, orphans=orphans, strays=strays, jobs=jobs, progress=progress)
    suspects = [Digest.parse(problem.subject) for problem in verified.problems if problem.kind.startswith("blob-")]
    obstacles = find_obstacles(store.root, suspects)
    lack = find_lack(verified.problems, scan.models, scan.unreadable, obstacles)
    return Found(store, scan, verified, lack, obstacles, absent)


def plan(found: Found, sources: Sequence[Copies]) -> RepairPlan:
    """Ask every source what it may have, and decide."""
    names = (*found.lack.manifests, *found.absent)
    folded = {name.folded for name in names}
    models = [source.find_models(folded) for source in sources]
    needed = {blob.digest: blob for group in models for selection in group for blob in _all_blobs(selection)}
    wanted = _without_false_promises(found, needed)
    lacking: dict[Digest, int | None] = {**wanted, **{blob.digest: blob.size for blob in needed.values()}}
    lacking |= {digest: size for digest, size in wanted.items() if size is not None}
    notes: list[str] = []
    offers = [
        Offer(source, _placeable(found.store, source.label, group, notes), source.find_blobs(lacking))
        for source, group in zip(sources, models, strict=True)
    ]
    standing = {digest for digest, blob in needed.items() if found.store.size_of(digest) == blob.size}
    planned = plan_repair(
        Lack(wanted, names, found.lack.left),
        offers,
        standing=standing - wanted.keys(),
        obstacles={*found.obstacles, *find_obstacles(found.store.root, needed)},
    )
    return replace(planned, notes=(*notes, *planned.notes))


def foreseen(found: Found, plan: RepairPlan, notes: Iterable[str], *, dry_run: bool) -> RepairReport:
    """What would be repaired, going by names and sizes; nothing is written."""
    origins = plan.origins
    blobs = {
        blob: origins[blob.digest]
        for blob in plan.selection.blobs
        if blob.digest in plan.damaged or found.store.size_of(blob.digest) != blob.size
    }
    names = [model.name for model in plan.selection.models]
    return _report(found, plan, blobs, names, notes=(*notes, *plan.notes), dry_run=dry_run)


def carry_out(
    found: Found, plan: RepairPlan, notes: Iterable[str], opened: ExitStack, *, jobs: int, progress: Progress
) -> RepairReport:
    """
    Do what is planned: stage good copies, then publish them.

    `opened` are the sources, closed before anything is published: what is wrong with one of them by then is no news.
    Raises BusyError, NoSpaceError, DamagedStoreError, OSError.
    """
    sink = _sink(found.store, jobs, progress)
    with sink.receive(plan.selection, plan.damaged) as inbox:
        gathered = gather(plan, inbox, progress)
        more = _closed(opened)
        inbox.forgo()
    received = sink.received
    if received is None:
        raise RuntimeError("the repair ended without a result")
    fetched = (*received.written, *received.resumed)
    blobs = {blob: gathered.origins.get(blob.digest, _RESUMED) for blob in fetched}
    return _report(
        found,
        plan,
        blobs,
        [name for name, _ in received.outcomes],
        notes=(*notes, *plan.notes, *gathered.notes, *more),
        kept=_kept(found.store, received),
    )


def _sources(
    source: str | Path, store: LocalStore, opened: ExitStack, jobs: int, progress: Progress
) -> tuple[Copies, ...]:
    path, label = Path(source), str(source)
    if label == "-" and os.isatty(0):
        raise UsageError("standard input is a terminal", hint="ostore repair --from - < FILE.tar.zst")
    if label == "-" or not path.is_dir():
        if not is_bundle(source) and not path.exists():
            raise NotFoundError(f"{label}: no such bundle or folder")
        # What reads a bundle takes time to import, and a folder needs none of it.
        from ostore.places.bundle.copies import BundleCopies

        return (BundleCopies(opened.enter_context(opened_bundle(source, jobs=jobs)), label),)
    if path.resolve() == store.root.resolve():
        raise UsageError(f"{label}: the store itself; expected another source")
    if (path / MANIFESTS).is_dir():
        return (StoreCopies(LocalStore(path), label),)
    folder = CopiesFolder(recognise(path.absolute()))
    return NamedCopies(folder, label), SizedCopies(folder, label, progress)


def _split(names: Sequence[str], store: LocalStore) -> tuple[list[str], tuple[ModelName, ...]]:
    """Words that stand for models of the store, and names that do not: a source may have those."""
    entries = find_manifests(store.root).entries if names else []
    _, unmatched = choose([entry.name for entry in entries if entry.name], names)
    absent = [name for name in unmatched if not is_glob(name)]
    # A glob that stands for nothing is left among the others, for the scan to refuse.
    present = [name for name in names if name not in absent]
    return present, tuple(ModelName.parse(name) for name in dict.fromkeys(absent))


def _without_false_promises(found: Found, needed: Mapping[Digest, Descriptor]) -> dict[Digest, int | None]:
    """
    The blobs wanted, but for those that have the size which a source says: it is the store's own model that is wrong.

    Such a one counts as standing, and is hashed before a model that is put back relies on it.
    """
    misfits = {problem.subject for problem in found.verified.problems if problem.kind == "blob-size"}
    return {
        digest: size
        for digest, size in found.lack.blobs.items()
        if str(digest) not in misfits or digest not in needed or found.store.size_of(digest) != needed[digest].size
    }


def _placeable(store: LocalStore, label: str, models: tuple[Selection, ...], notes: list[str]) -> tuple[Selection, ...]:
    """Those models whose names the store can take."""
    sink = _sink(store, 1, SILENT)
    try:
        # All at once first: each question walks over every name in the store.
        sink.compare(Selection(tuple(selection.models[0] for selection in models), ()))
    except (UsageError, UnsafeError) as error:
        if len(models) > 1:
            return tuple(model for group in models for model in _placeable(store, label, (group,), notes))
        notes.append(f"{label}: {error}")
        return ()
    return models


def _closed(opened: ExitStack) -> tuple[str, ...]:
    try:
        opened.close()
    except (OstoreError, OSError) as error:
        return (str(error),)
    return ()


def _report(
    found: Found,
    plan: RepairPlan,
    origins: Mapping[Descriptor, str],
    names: Sequence[ModelName],
    *,
    notes: Iterable[str],
    kept: tuple[str, ...] = (),
    dry_run: bool = False,
) -> RepairReport:
    """`origins` are the blobs that came and from where, `names` the models whose manifests did."""
    verified, misfits = found.verified, tuple(_misfits(found, origins))
    left = (*_still_wrong(found, origins, names), *misfits)
    return RepairReport(
        store=str(found.store.root),
        dry_run=dry_run,
        models=verified.models,
        blobs=verified.blobs,
        size=verified.size,
        repaired=(*_repaired_blobs(found, origins, misfits), *_repaired_manifests(plan, names)),
        left=left,
        quarantine=kept,
        notes=tuple(dict.fromkeys(notes)),
        verdict=VerifyReport.of(verified.subject, 0, (), left).verdict,
    )


def _repaired_blobs(found: Found, origins: Mapping[Descriptor, str], misfits: Iterable[Problem]) -> Iterator[Repaired]:
    liars = {(problem.subject, name) for problem in misfits for name in problem.models}
    for blob, origin in sorted(origins.items(), key=lambda pair: pair[0].digest):
        subject = str(blob.digest)
        users = (name for problem in found.verified.problems if problem.subject == subject for name in problem.models)
        helped = tuple(name for name in dict.fromkeys(users) if (subject, name) not in liars)
        yield Repaired("blob", subject, origin, blob.size, helped)


def _repaired_manifests(plan: RepairPlan, names: Iterable[ModelName]) -> Iterator[Repaired]:
    sizes = {model.name: model.manifest_size for model in plan.selection.models}
    for name in sorted(names):
        origin = plan.offers[plan.manifests_from[name]].source.label
        yield Repaired("manifest", str(name), origin, sizes[name], (str(name),))


def _misfits(found: Found, came: Iterable[Descriptor]) -> Iterator[Problem]:
    """What models of the store promise wrongly of a blob that came: another size than its bytes have."""
    sizes, wrong = {blob.digest: blob.size for blob in came}, dict[tuple[Digest, int], dict[str, None]]()
    for model in found.scan.models:
        for blob in model.manifest.descriptors:
            if sizes.get(blob.digest, blob.size) != blob.size:
                wrong.setdefault((blob.digest, blob.size), {})[str(model.name)] = None
    for (digest, size), names in wrong.items():
        detail = f"blob {digest}: expected {size} bytes, got {sizes[digest]}"
        yield Problem("blob-size", str(digest), detail, tuple(names))


def _still_wrong(found: Found, came: Iterable[Descriptor], names: Iterable[ModelName]) -> Iterator[Problem]:
    """Every problem of a thing that did not come; those that no copy repairs say what a person can do."""
    back = {name.folded for name in names}
    repaired = {str(blob.digest) for blob in came}
    repaired |= {
        entry.path
        for entry in found.scan.unreadable
        # A manifest is put where released Ollamas look for it.
        if entry.name and entry.name.folded in back and entry.path.startswith(f"{MANIFESTS}/")
    }
    explained = {(problem.kind, problem.subject, problem.models): problem for problem in found.lack.left}
    for problem in found.verified.problems:
        # A blob takes the place of one that is oddly named.
        is_gone = problem.kind == "stray-name" and not os.path.lexists(found.store.root / problem.subject)
        if problem.subject not in repaired and not is_gone:
            yield explained.get((problem.kind, problem.subject, problem.models), problem)
    for name in found.absent:
        if name.folded not in back:
            detail = "not there, and not to be had with all of its blobs"
            yield Problem("manifest-damaged", str(name), detail, (str(name),))


def _kept(store: LocalStore, received: Received) -> tuple[str, ...]:
    folder = workspace_path(store.root) / QUARANTINE
    return tuple(str(folder / name) for name in received.set_aside)


def _all_blobs(selection: Selection) -> tuple[Descriptor, ...]:
    return (*selection.blobs, *selection.requires)


def _sink(store: LocalStore, jobs: int, progress: Progress) -> StoreSink:
    return StoreSink(store, replace=False, trust_existing=False, make_parents=False, jobs=jobs, progress=progress)
