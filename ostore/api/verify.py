"""The command that hashes everything. Its report is the operation's own."""

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
    Hash everything: the whole store, or the models and bundles named; one report for the store, one a bundle.

    A subject is a bundle if it is `-`, is a file, or ends like a bundle. Damaged blobs, manifests and names are
    findings of the report, not errors. Raises NotFoundError, and for a bundle that cannot be read to its end
    IntegrityError, FormatError, UnsafeError or LimitError.
    """
    bundles = [subject for subject in subjects if is_bundle(subject)]
    names = [str(subject) for subject in subjects if not is_bundle(subject)]
    reports = [_verify_bundle(bundle, jobs=threads(jobs), progress=progress) for bundle in bundles]
    if names or not bundles:
        reports.insert(0, _verify_store(chosen_store(models).require(), names, jobs=threads(jobs), progress=progress))
    return tuple(reports)


def _verify_store(store: LocalStore, names: Sequence[str], *, jobs: int, progress: Progress) -> VerifyReport:
    promised = Promises(store.passing_scan(names))
    orphans, strays = store.unreferenced(promised.needs) if not names else ((), ())
    return verify_store(str(store.root), store, promised, orphans=orphans, strays=strays, jobs=jobs, progress=progress)


def _verify_bundle(bundle: str | Path, *, jobs: int, progress: Progress) -> VerifyReport:
    with opened_bundle(bundle, jobs=jobs) as reader:
        return verify_bundle(str(bundle), reader, progress)
