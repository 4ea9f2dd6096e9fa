"""The report of `repair`: what was repaired, what is still wrong, and what was set aside."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ostore.api.repair.damage import Damage
from ostore.formats.digest import Digest
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.remedy import NOTHING, Remedy
from ostore.formats.store_layout import MANIFESTS
from ostore.operations.repair import RepairPlan
from ostore.operations.verify import Problem, Verdict, VerifyReport


@dataclass(frozen=True, slots=True)
class Repaired:
    """
    A blob or manifest that was repaired.

    `kind` is blob or manifest, `subject` its digest or the model's name, `source` where it came from, and `size` its
    bytes. A `kind` of name is a blob that was renamed, and one of spelling a model whose digests were written right:
    its ID has changed, and `source` is where the old manifest is now. `models` had suffered from the damage.
    """

    kind: str
    subject: str
    source: str
    size: int
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RepairReport:
    """
    What was repaired, or with `dry_run` would be (judged by names and sizes), and every problem that is left.

    `models` and `blobs` are the counts of what was hashed, `size` is its bytes. `quarantine` are the paths of the
    damaged files now. `notes` say what sources failed to deliver, `warnings` are about entries that do no harm.
    `verdict` is about the problems that are left, and `remedy` is what can be done about them with the same sources.
    """

    store: str
    dry_run: bool
    models: int
    blobs: int
    size: int
    repaired: tuple[Repaired, ...]
    left: tuple[Problem, ...]
    quarantine: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    verdict: Verdict
    remedy: Remedy = NOTHING


def foreseen(damage: Damage, plan: RepairPlan, notes: Iterable[str], *, dry_run: bool) -> RepairReport:
    """Report what would be repaired, judged by names and sizes. Nothing is written."""
    origins = plan.origins
    blobs = {
        blob: origins[blob.digest]
        for blob in plan.selection.blobs
        if blob.digest in plan.damaged or not damage.store.holds(blob)
    }
    names = [model.name for model in plan.selection.models]
    return report_of(damage, plan, blobs, names, notes=(*notes, *plan.notes), dry_run=dry_run)


def report_of(
    damage: Damage,
    plan: RepairPlan,
    origins: Mapping[Descriptor, str],
    names: Sequence[ModelName],
    *,
    notes: Iterable[str],
    kept: tuple[str, ...] = (),
    dry_run: bool = False,
) -> RepairReport:
    """
    Make the report. `origins` maps the blobs that came to their sources. `names` are the models whose manifests came.

    `kept` are the paths of the files in quarantine.
    """
    verified, misfits = damage.verified, tuple(_misfits(damage, origins))
    left = (*_still_wrong(damage, origins, names), *misfits)
    return RepairReport(
        store=str(damage.store.root),
        dry_run=dry_run,
        models=verified.models,
        blobs=verified.blobs,
        size=verified.size,
        repaired=(*_repaired_blobs(damage, origins, misfits), *_repaired_manifests(plan, names)),
        left=left,
        quarantine=kept,
        notes=tuple(dict.fromkeys(notes)),
        warnings=verified.warnings,
        verdict=VerifyReport.of(verified.subject, 0, (), left).verdict,
    )


def _repaired_blobs(
    damage: Damage, origins: Mapping[Descriptor, str], misfits: Iterable[Problem]
) -> Iterator[Repaired]:
    liars = {(problem.subject, name) for problem in misfits for name in problem.models}
    for blob, origin in sorted(origins.items(), key=lambda pair: pair[0].digest):
        subject = str(blob.digest)
        users = (name for problem in damage.verified.problems if problem.subject == subject for name in problem.models)
        helped = tuple(name for name in dict.fromkeys(users) if (subject, name) not in liars)
        yield Repaired("blob", subject, origin, blob.size, helped)


def _repaired_manifests(plan: RepairPlan, names: Iterable[ModelName]) -> Iterator[Repaired]:
    sizes = {model.name: model.manifest_size for model in plan.selection.models}
    for name in sorted(names):
        origin = plan.offers[plan.manifests_from[name]].source.label
        yield Repaired("manifest", str(name), origin, sizes[name], (str(name),))


def _misfits(damage: Damage, came: Iterable[Descriptor]) -> Iterator[Problem]:
    """Yield a problem for each blob that came with another size than some models of the store promise."""
    sizes, wrong = {blob.digest: blob.size for blob in came}, dict[tuple[Digest, int], dict[str, None]]()
    for model in damage.scan.models:
        for blob in model.manifest.descriptors:
            if sizes.get(blob.digest, blob.size) != blob.size:
                wrong.setdefault((blob.digest, blob.size), {})[str(model.name)] = None
    for (digest, size), names in wrong.items():
        detail = f"blob {digest}: expected {size} bytes, got {sizes[digest]}"
        yield Problem("blob-size", str(digest), detail, tuple(names))


def _still_wrong(damage: Damage, came: Iterable[Descriptor], names: Iterable[ModelName]) -> Iterator[Problem]:
    """Yield every problem that is left. A problem that no copy repairs says what a person can do."""
    back = {name.folded for name in names}
    repaired = {*(str(blob.digest) for blob in came), *_manifests_again(damage, back)}
    explained = {(problem.kind, problem.subject, problem.models): problem for problem in damage.lack.left}
    for problem in damage.verified.problems:
        # A repaired blob may have taken the place of a file with an odd name.
        is_gone = problem.kind == "blob-misnamed" and not os.path.lexists(damage.store.root / problem.subject)
        if problem.subject not in repaired and not is_gone:
            yield explained.get((problem.kind, problem.subject, problem.models), problem)
    for name in damage.absent:
        if name.folded not in back:
            detail = "missing, and no source has it with all of its blobs"
            yield Problem("manifest-damaged", str(name), detail, (str(name),))


def _manifests_again(damage: Damage, back: Collection[str]) -> Iterator[str]:
    """Yield the paths of broken manifests that were restored, by the folded names of the models that are `back`."""
    for entry in damage.scan.unreadable:
        # Only here: a manifest is restored where released Ollamas look for it.
        if entry.name and entry.name.folded in back and entry.path.startswith(f"{MANIFESTS}/"):
            yield entry.path
