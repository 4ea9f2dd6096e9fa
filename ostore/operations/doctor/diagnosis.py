"""Run all checks of one store, and plan the fixes that lose nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ostore.formats.digest import blob_digest
from ostore.formats.name import ModelName, meant_by
from ostore.formats.store_layout import BLOBS, MANIFESTS
from ostore.operations.doctor import blobs, manifests, permissions, surroundings
from ostore.operations.doctor.finding import BYTES, UNSEEN, Facts, Finding
from ostore.operations.verify import Verdict
from ostore.places.store.fixing import Fix

# Findings of one severity are in this order.
_CHECKS: Sequence[Callable[[Facts], Iterator[Finding]]] = (
    manifests.check_folders,
    blobs.check_needed,
    manifests.check_entries,
    manifests.check_manifests,
    manifests.check_names,
    manifests.check_weights,
    permissions.check_access,
    blobs.check_entries,
    surroundings.check_disk,
    surroundings.check_host,
    surroundings.check_times,
    permissions.check_ours,
    blobs.check_leftovers,
)
_SEVERITIES = ("problem", "warning", "note")
_SET_ASIDE = frozenset({"manifest-empty", "manifest-link-dangling", "manifest-stray"})
_RENAMED = frozenset({"blob-legacy-name", "blob-misnamed"})
_GIVEN = frozenset({"server-cannot-read", "server-cannot-write", "blob-owner", "open-to-all", "odd-mode"})


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Every finding, the most severe first, and the class of error that they amount to."""

    findings: tuple[Finding, ...]
    verdict: Verdict


def diagnose(facts: Facts) -> Diagnosis:
    """Run every check. No I/O, no clock."""
    found = [finding for check in _CHECKS for finding in check(facts)]
    found.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    return Diagnosis(tuple(found), _verdict(found))


def plan_fixes(findings: Iterable[Finding]) -> tuple[Fix, ...]:
    """Return the steps that `--fix` would take, one for each path."""
    steps: dict[str, Fix] = {}
    for finding in findings:
        if finding.is_fixable and (step := _step(finding)):
            steps.setdefault(finding.subject, step)
    return tuple(steps.values())


def _step(finding: Finding) -> Fix | None:
    if finding.code in _SET_ASIDE:
        return Fix("set-aside", finding.subject)
    if finding.code in _GIVEN:
        return Fix("give", finding.subject)
    digest = blob_digest(finding.subject.rpartition("/")[2])
    if finding.code in _RENAMED and digest:
        return Fix("rename", finding.subject, f"{BLOBS}/{digest.filename}")
    if finding.code == "digest-spelling":
        return Fix("respell", "/".join((MANIFESTS, *ModelName.parse(finding.subject).parts)))
    name = meant_by(finding.subject.split("/")[1:])
    if finding.code == "manifest-misplaced" and name:
        return Fix("place", finding.subject, "/".join((MANIFESTS, *name.parts)))
    return None


def _verdict(findings: Iterable[Finding]) -> Verdict:
    codes = {finding.code for finding in findings if finding.severity == "problem"}
    if codes & BYTES:
        return "integrity"
    if codes & UNSEEN:
        return "io"
    return "damaged" if codes else "whole"
