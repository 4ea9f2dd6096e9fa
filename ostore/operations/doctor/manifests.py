"""Check manifests and names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from ostore.formats.manifest import Manifest
from ostore.formats.name import ModelName
from ostore.formats.store_layout import COMING_MANIFESTS, MANIFESTS
from ostore.operations.doctor.finding import Facts, Finding, Severity, command, finding
from ostore.places.store.survey.census import EntryKind
from ostore.places.store.survey.examination import OddEntry
from ostore.places.store.survey.scan import StoredModel

# A server writes manifests in place, so a file this young may become a manifest in a moment.
YOUNG_SECONDS = 60.0
_Kind = TypeVar("_Kind", str, ModelName)
# File systems that keep names as Windows does: linux/magic.h and mount(8).
_FUSSY = frozenset({"exfat", "vfat", "msdos", "ntfs", "ntfs3", "cifs", "smb3", "smbfs", "9p"})


def check_folders(facts: Facts) -> Iterator[Finding]:
    """Report folders that are missing. They come first, because other findings may follow from them."""
    if facts.store.is_empty:
        inner = facts.root / "models"
        remedy = (
            command("ostore", "doctor", "--models", inner) if facts.store.has_inner else "ostore where --models DIR"
        )
        yield finding("store-empty", "warning", str(facts.root), remedy=remedy)
    for lost in facts.store.lost:
        yield finding("folder-lost", "problem", lost.path, detail=lost.reason, remedy="mount the disk it leads to")


def check_entries(facts: Facts) -> Iterator[Finding]:
    """Report entries among the manifests that are no readable manifests."""
    for doubt in facts.store.references.doubts:
        if doubt.name is not None and doubt.path.startswith("blobs/"):
            remedy = command("ollama", "pull", doubt.name)
            yield finding("manifest-list", "problem", doubt.path, detail=doubt.reason, remedy=remedy)
    for odd in facts.store.odd:
        yield _odd(odd, facts)
    told = {entry.path for entry in (*facts.store.lost, *facts.store.closed)}
    for stray in facts.store.scan.strays:
        if stray not in told:
            remedy = command("mv", facts.root / stray, "/elsewhere")
            yield finding("manifest-misplaced", "warning", stray, remedy=remedy)


def check_manifests(facts: Facts) -> Iterator[Finding]:
    """Report manifests that programs may read differently, that are not in order, or that lie in the coming tree."""
    for model in facts.store.scan.models:
        manifest, name = model.manifest, str(model.name)
        told = partial(_of_manifest, "problem", name, manifest)
        if manifest.ambiguity and _is_misspelled(manifest):
            yield told("digest-spelling", f"before Ollama starts again: {_created_anew(facts, name)}")
        elif manifest.ambiguity:
            yield told("manifest-ambiguous", command("ollama", "pull", name))
        elif manifest.unfit:
            yield told("manifest-unfit", command("ollama", "pull", name))
    coming = [model for model in facts.store.scan.models if model.tree == COMING_MANIFESTS]
    if coming:
        yield finding("coming-tree", "note", COMING_MANIFESTS, detail=f"{len(coming)} of them")


def check_names(facts: Facts) -> Iterator[Finding]:
    """Report names that Ollama or the disk takes for others, and models that run on another host."""
    models = facts.store.scan.models
    twins = list(_name_twins(facts, models))
    yield from twins
    yield from _part_twins(facts, [model.name for model in models], {name for twin in twins for name in twin.models})
    for model in models:
        name = model.name
        if name.is_selector and str(name) not in facts.stubs:
            remedy = f"{facts.ostore('cp', name, f'{name}-copy')} && {facts.ostore('rm', name)}"
            yield finding("selector-tag", "warning", str(name), remedy=remedy)
        if facts.disk.filesystem in _FUSSY and (problem := name.windows_problem()):
            yield finding("name-unholdable", "warning", str(name), detail=problem, remedy="ostore move to another disk")
    severity: Severity = "warning" if facts.host.is_offline else "note"
    for stub in facts.stubs:
        yield finding("cloud-stub", severity, stub, remedy=facts.ostore("rm", stub))


def _odd(odd: OddEntry, facts: Facts) -> Finding:
    name = str(odd.name) if odd.name else ""
    told = partial(finding, severity="problem", subject=odd.path, models=(name,) if name else ())
    fix = facts.ostore("doctor", "--fix")
    again = f", then {command('ollama', 'pull', name)} or import it" if name else ""
    if odd.is_closed:
        return finding("not-checked", "problem", odd.path, detail=odd.reason, remedy=facts.privileged("doctor"))
    if odd.is_dangling:
        remedy = f"mount the disk it leads to; or {fix}{again}"
        return told("manifest-link-dangling", detail=f"leads to {odd.target}", remedy=remedy, is_fixable=True)
    if odd.kind not in {EntryKind.FILE, EntryKind.LINK}:
        kind = "a folder" if odd.kind is EntryKind.FOLDER else "a device, pipe or socket"
        return told("manifest-not-file", detail=kind, remedy=command("mv", facts.root / odd.path, "/elsewhere"))
    if odd.name is not None and odd.size:
        remedy = f"{facts.ostore('repair', '--from', 'BUNDLE')}, or {command('ollama', 'pull', name)}"
        return told("manifest-broken", detail=odd.reason.removeprefix("manifest: "), remedy=remedy)
    is_young = 0 <= facts.now - odd.mtime < YOUNG_SECONDS
    return told(
        "manifest-stray" if odd.name is None else "manifest-empty",
        detail="changed less than a minute ago: it may be being written" if is_young else "",
        remedy=f"too young to be fixed; in a minute: {facts.ostore('doctor')}" if is_young else f"{fix}{again}",
        is_fixable=not is_young,
    )


def _of_manifest(severity: Severity, name: str, manifest: Manifest, code: str, remedy: str) -> Finding:
    why = manifest.ambiguity or manifest.unfit or ""
    return finding(code, severity, name, detail=why, remedy=remedy, models=(name,))


def _created_anew(facts: Facts, name: str) -> str:
    """Return the commands that create a model anew. A manifest keeps its bytes, so only a new one is spelled right."""
    return (
        f"{facts.ostore('show', '--modelfile', name)} > Modelfile && {command('ollama', 'create', name)} -f Modelfile"
    )


def _is_misspelled(manifest: Manifest) -> bool:
    """Return whether some digest is never spelled in the form that a starting Ollama looks for."""
    return any(str(blob.digest).encode() not in manifest.raw for blob in manifest.blobs)


def _name_twins(facts: Facts, models: Iterable[StoredModel]) -> Iterator[Finding]:
    for names in _groups((model.name for model in models), lambda name: name.folded):
        first, *others = sorted(names, key=str)
        # Not `ollama cp`, which would take one of them at random too.
        remedy = command("mv", "-n", path := _path(facts, others[0]), f"{path}-2")
        texts = tuple(str(name) for name in (first, *others))
        detail = f"also {', '.join(texts[1:])}"
        yield finding("name-twins", "problem", texts[0], detail=detail, remedy=remedy, models=texts)


def _part_twins(facts: Facts, names: list[ModelName], twins: set[str]) -> Iterator[Finding]:
    """
    Report parts of names that differ only by case anywhere in the store.

    Ollama may swap the spelling of each part by itself (server/routes.go at fb30760). Parts that occur only in `twins`,
    which are whole names that differ only by case, are reported already.
    """
    for index, role in enumerate(("host", "namespace", "model", "tag")):
        for parts in _groups((name.parts[index] for name in names), str.lower):
            users = {part: [name for name in names if name.parts[index] == part] for part in sorted(parts)}
            models = tuple(str(name) for group in users.values() for name in group)
            if twins.issuperset(models):
                continue
            # Change the rarer spelling to the common one.
            common, *others = sorted(users, key=lambda part: (-len(users[part]), part))
            rare = next((name for name in users[others[0]] if str(name) not in twins), users[others[0]][0])
            old, new = _path(facts, rare), _path(facts, _with_part(rare, index, common))
            remedy = f"{command('mkdir', '-p', new.parent)} && {command('mv', '-n', old, new)}"
            detail = f"also spelled {', '.join(others)}"
            yield finding("part-twins", "warning", f"{role} {common}", detail=detail, remedy=remedy, models=models)


def _with_part(name: ModelName, index: int, part: str) -> ModelName:
    parts = list(name.parts)
    parts[index] = part
    return ModelName(*parts)


def _path(facts: Facts, name: ModelName) -> Path:
    return facts.root.joinpath(MANIFESTS, *name.parts)


def _groups(things: Iterable[_Kind], key: Callable[[_Kind], str]) -> Iterator[list[_Kind]]:
    """Return the groups of two or more distinct things that have the same key."""
    found: dict[str, list[_Kind]] = {}
    for thing in dict.fromkeys(things):
        found.setdefault(key(thing), []).append(thing)
    return (group for group in found.values() if len(group) > 1)
