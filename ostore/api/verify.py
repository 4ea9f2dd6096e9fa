"""Hash a store, models or bundles. The report is that of the operation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ostore.api.addresses import is_bundle, opened_bundle, opened_source
from ostore.api.chosen_store import chosen_store
from ostore.api.locked import Lock, digests_of
from ostore.api.typed import OCI, means_model, refuse_empty_word, typed_models, words_of
from ostore.api.volumes import VolumesAt, Word, gathered, volume_in, volumes_of
from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError, UsageError, VolumesError
from ostore.formats.remedy import ostore
from ostore.operations.verify import Problem, Promises, VerifyReport, verified_volumes, verify_store
from ostore.operations.verify_bundle import verify_bundle, verify_layout
from ostore.places.oci_layout.layout import OciLayout
from ostore.places.store.store import LocalStore
from ostore.settings import threads
from ostore.streams.open_blobs import OpenBlobs
from ostore.streams.progress import SILENT, Progress


def verify(
    subjects: Sequence[str | Path] = (),
    *,
    lock: str | Path | None = None,
    jobs: int | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> tuple[VerifyReport, ...]:
    """
    Hash the whole store, or only the models, bundles and folders in `subjects`. Return one report for the store, if it
    was hashed, then one for each bundle and folder.

    A subject is the name of a model, a glob or an ID; else a folder with a store, `oci:DIR` for an OCI image layout, or
    a bundle: `-`, a file, or a word that ends in `.tar.zst` or `.tar`. A volume is hashed alone; of a bundle in volumes
    all are. A folder without a store is where the others are looked for, and with it a volume means its bundle. `lock`
    is a lock file: each subject must have exactly its manifests, and of a store only its models are hashed.

    Damaged blobs, manifests and names are problems in a report, not errors. Raises TypeError, NotFoundError,
    UsageError, IntegrityError, FormatError, UnsafeError or LimitError for a bundle that cannot be read to its end,
    OSError. If there are several subjects, the others are hashed before it is raised.
    """
    reports = []
    errors = []
    for verified in verify_each(subjects, lock=lock, jobs=jobs, progress=progress, models=models):
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
    lock: str | Path | None = None,
    jobs: int | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> Iterator[VerifyReport | OstoreError | OSError]:
    """
    Hash the same as `verify`, and yield a report or the error that stopped it, one after another. Errors name their
    subject. Raises TypeError, and UsageError or NotFoundError for names, before anything is hashed.
    """
    for subject in subjects:
        refuse_empty_word(str(subject), "a model, bundle or folder")
    store = chosen_store(models)
    locked = None if lock is None else Lock.read(lock)
    hashing = _Hashing(store, threads(jobs), progress)
    typed = words_of(subjects)
    models_first = [word for word in typed if _is_folder(word) and means_model(word, store)]
    words: list[Word] = gathered([word for word in typed if word not in models_first], joins=False)
    folders = [word for word in words if _is_folder(word)]
    bundles = [word for word in words if is_bundle(word) and word not in folders]
    if locked and (volume := next((word for word in bundles if volume_in(word)), None)):
        bundle = str(volume).rpartition(".")[0]
        hint = ostore("verify", "--lock", str(lock), bundle, after="verifies all of them")
        raise UsageError(f"{volume}: one volume has no models that a lock could be about", hint=hint)
    names = [*models_first, *(str(word) for word in words if word not in folders and word not in bundles)]
    if names or not typed:
        names = typed_models(names, store.require_whole())
        if locked and names:
            locked = locked.restricted(model.name for model in store.scan(names).models)
        yield hashing.store(store, names, str(store.root), locked)
    for word in words:
        if word in folders or word in bundles:
            try:
                yield hashing.place(word, locked, is_folder=word in folders)
            except (OstoreError, OSError) as error:
                yield _naming(str(word), error)


@dataclass(frozen=True, slots=True)
class _Hashing:
    """How everything is hashed."""

    near: LocalStore
    jobs: int
    progress: Progress

    def place(self, word: Word, lock: Lock | None, *, is_folder: bool) -> VerifyReport:
        """Hash a folder with a store, a bundle, or a single volume of one."""
        if is_folder:
            with opened_source(word, jobs=self.jobs) as source:
                if isinstance(source, LocalStore):
                    return self.store(source, (), str(word), lock)
        if str(word).startswith(OCI):
            with opened_source(word, jobs=self.jobs) as source:
                if isinstance(source, OciLayout):
                    return self.layout(str(word), source, lock)
        if one := volume_in(word):
            return _verify_volume(*one, progress=self.progress)
        volumes = volumes_of(word)
        volumes = volumes and volumes.looked_for()
        # A recipe may build on a blob of the store.
        with (
            opened_bundle(volumes or word, jobs=self.jobs) as reader,
            contextlib.closing(OpenBlobs(self.near.opened_blob)) as blobs,
        ):
            found = verify_bundle(str(word), reader, self.progress, blobs.held)
            report = _held_against(lock, found, digests_of(reader.select(()).models))
        if volumes is None:
            return report
        report = replace(report, warnings=(*volumes.find().warnings, *report.warnings))
        # A lock that asks for something else says nothing about the volumes.
        return _naming_volumes(report, volumes, self.progress) if found.verdict == "integrity" else report

    def layout(self, subject: str, layout: OciLayout, lock: Lock | None) -> VerifyReport:
        """Hash all models of an OCI image layout."""
        selection = layout.announced()
        report = verify_layout(subject, layout, selection, self.progress)
        return _held_against(lock, report, digests_of(selection.models))

    def store(self, store: LocalStore, names: Sequence[str], subject: str, lock: Lock | None) -> VerifyReport:
        """Hash a store, or some models of it. With a lock and no names, these are the models of the lock."""
        if lock is None:
            return self._models(store, names, subject)
        found = lock.find_in(store)
        names = names or [model.name.full for model in lock.file.models if model.name.folded in found]
        report = self._models(store, names, subject) if names else VerifyReport.of(subject, 0, (), ())
        return _held_against(lock, report, found)

    def _models(self, store: LocalStore, names: Sequence[str], subject: str) -> VerifyReport:
        scan = store.passing_scan(names)
        promised = Promises(scan)
        return verify_store(
            subject,
            store,
            promised,
            beside=store.entries_of(promised.digests) if names else store.unreferenced(promised.needs),
            notes=() if names else store.told(scan, "judged"),
            jobs=self.jobs,
            progress=self.progress,
        )


def _held_against(lock: Lock | None, report: VerifyReport, found: Mapping[str, Digest]) -> VerifyReport:
    """Return the report with a problem for each line of a lock that is not as it says."""
    if lock is None:
        return report
    problems = [
        Problem("lock-different", str(model.name), f"expected {model.digest} ({lock.label}), got {digest}")
        for model, digest in lock.different(found)
    ]
    problems += (
        Problem("lock-missing", str(model.name), f"expected {model.digest} ({lock.label}), and there is no such model")
        for model in lock.missing(found)
    )
    return report.adding(problems)


def _is_folder(word: Word) -> bool:
    try:
        return Path(str(word)).is_dir()
    except (OSError, ValueError):
        # It is too long for a path, or has a NUL.
        return False


def _verify_volume(volumes: VolumesAt, number: int, *, progress: Progress) -> VerifyReport:
    """Hash one volume alone."""
    from ostore.places.bundle.volume_reader import check_volume

    found = volumes.find()
    progress.phase("verifying sha256 digest", 0)
    size, problem = check_volume(found, number)
    subject = str(found.copies[number][0])
    whole = replace(VerifyReport.of(subject, 0, (), ()), size=size)
    return verified_volumes(whole, {subject: problem} if problem else {}, 1)


def _naming_volumes(report: VerifyReport, volumes: VolumesAt, progress: Progress) -> VerifyReport:
    """Add the volumes that the damaged blobs of a bundle are in, if their list of digests tells."""
    from ostore.places.bundle.volume_reader import problems_of

    found = volumes.find()
    progress.phase("looking for the damaged volume", 0)
    problems = problems_of(found)
    named = {str(found.copies[number][0]): told for number, told in problems.items() if number in found.copies}
    return verified_volumes(report, named, len(found.sums))


def _naming(subject: str, error: OstoreError | OSError) -> OstoreError | OSError:
    # Of volumes, each that is wrong is named.
    is_named = isinstance(error, VolumesError) or str(Path(subject)) in str(error)
    if isinstance(error, OstoreError) and subject != "-" and not is_named:
        error.args = (f"{subject}: {error}",)
    return error
