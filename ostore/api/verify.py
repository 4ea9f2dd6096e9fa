"""Hash a store, models or bundles. The report is that of the operation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from ostore.api.addresses import is_bundle, opened_bundle, opened_source
from ostore.api.chosen_store import chosen_store
from ostore.api.typed import means_model, typed_models, words_of
from ostore.formats.errors import OstoreError, UsageError
from ostore.operations.verify import Promises, VerifyReport, verify_bundle, verify_store
from ostore.places.store.store import LocalStore
from ostore.settings import threads
from ostore.streams.open_blobs import OpenBlobs
from ostore.streams.progress import SILENT, Progress


def verify(
    subjects: Sequence[str | Path] = (),
    *,
    jobs: int | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> tuple[VerifyReport, ...]:
    """
    Hash the whole store, or only the models, bundles and folders in `subjects`. Return one report for the store, if it
    was hashed, then one for each bundle and folder.

    A subject is the name of a model, a glob or an ID; else a folder with a store; else a bundle: `-`, a file, or a word
    that ends in `.tar.zst` or `.tar`. Damaged blobs, manifests and names are problems in a report, not errors. Raises
    TypeError, NotFoundError, UsageError, IntegrityError, FormatError, UnsafeError or LimitError for a bundle that
    cannot be read to its end, OSError. If there are several subjects, the others are hashed before it is raised.
    """
    reports = []
    errors = []
    for verified in verify_each(subjects, jobs=jobs, progress=progress, models=models):
        if isinstance(verified, VerifyReport):
            reports.append(verified)
        else:
            errors.append(verified)
    for error in errors:
        raise error
    return tuple(reports)


def verify_each(
    subjects: Sequence[str | Path] = (),
    *,
    jobs: int | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> Iterator[VerifyReport | OstoreError | OSError]:
    """
    Hash the same as `verify`, and yield a report or the error that stopped it, one after another. Errors name their
    subject. Raises TypeError, and UsageError or NotFoundError for names, before anything is hashed.
    """
    if "" in map(str, subjects):
        raise UsageError("expected a model, bundle or folder, got an empty word")
    store = chosen_store(models)
    words = words_of(subjects)
    folders = [word for word in words if _is_folder(word) and not means_model(word, store)]
    bundles = [word for word in words if is_bundle(word) and word not in folders]
    names = [word for word in words if word not in folders and word not in bundles]
    if names or not words:
        names = typed_models(names, store.require_whole())
        yield _verify_store(store, names, str(store.root), jobs=threads(jobs), progress=progress)
    for word in words:
        if word in folders or word in bundles:
            try:
                yield _verify_place(word, store, is_folder=word in folders, jobs=threads(jobs), progress=progress)
            except (OstoreError, OSError) as error:
                yield _naming(word, error)


def _is_folder(word: str) -> bool:
    try:
        return Path(word).is_dir()
    except (OSError, ValueError):
        # It is too long for a path, or has a NUL.
        return False


def _verify_place(word: str, store: LocalStore, *, is_folder: bool, jobs: int, progress: Progress) -> VerifyReport:
    if is_folder:
        with opened_source(word, jobs=jobs) as source:
            if isinstance(source, LocalStore):
                return _verify_store(source, (), word, jobs=jobs, progress=progress)
    # A recipe may build on a blob of the store.
    with opened_bundle(word, jobs=jobs) as reader, closing(OpenBlobs(store.opened_blob)) as blobs:
        return verify_bundle(word, reader, progress, blobs.held)


def _verify_store(
    store: LocalStore, names: Sequence[str], subject: str, *, jobs: int, progress: Progress
) -> VerifyReport:
    scan = store.passing_scan(names)
    promised = Promises(scan)
    return verify_store(
        subject,
        store,
        promised,
        beside=store.entries_of(promised.digests) if names else store.unreferenced(promised.needs),
        notes=() if names else store.told(scan, "judged"),
        jobs=jobs,
        progress=progress,
    )


def _naming(subject: str, error: OstoreError | OSError) -> OstoreError | OSError:
    if isinstance(error, OstoreError) and subject != "-" and str(Path(subject)) not in str(error):
        error.args = (f"{subject}: {error}",)
    return error
