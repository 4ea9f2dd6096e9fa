"""Hash a store, models or bundles. The report is that of the operation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ostore.api.addresses import is_bundle, opened_bundle
from ostore.api.chosen_store import chosen_store
from ostore.operations.verify import Promises, VerifyReport, verify_bundle, verify_store
from ostore.places.store.store import LocalStore
from ostore.settings import threads
from ostore.streams.progress import SILENT, Progress


def verify(
    subjects: Sequence[str | Path] = (),
    *,
    jobs: int | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> tuple[VerifyReport, ...]:
    """
    Hash the whole store, or only the models and bundles in `subjects`. Return one report for the store, if it was
    hashed, then one for each bundle.

    A subject is a bundle if it is `-`, a file, or a word that ends in `.tar.zst` or `.tar`; else it is a name or glob.
    Damaged blobs, manifests and names are problems in a report, not errors. Raises NotFoundError, UsageError,
    InvalidNameError, IntegrityError, FormatError, UnsafeError or LimitError for a bundle that cannot be read to its
    end, OSError.
    """
    bundles = [subject for subject in subjects if is_bundle(subject)]
    names = [str(subject) for subject in subjects if not is_bundle(subject)]
    reports = [_verify_bundle(bundle, jobs=threads(jobs), progress=progress) for bundle in bundles]
    if names or not bundles:
        store = chosen_store(models).require_whole()
        reports.insert(0, _verify_store(store, names, jobs=threads(jobs), progress=progress))
    return tuple(reports)


def _verify_store(store: LocalStore, names: Sequence[str], *, jobs: int, progress: Progress) -> VerifyReport:
    scan = store.passing_scan(names)
    promised = Promises(scan)
    return verify_store(
        str(store.root),
        store,
        promised,
        beside=store.entries_of(promised.digests) if names else store.unreferenced(promised.needs),
        notes=() if names else store.told(scan, "judged"),
        jobs=jobs,
        progress=progress,
    )


def _verify_bundle(bundle: str | Path, *, jobs: int, progress: Progress) -> VerifyReport:
    with opened_bundle(bundle, jobs=jobs) as reader:
        return verify_bundle(str(bundle), reader, progress)
