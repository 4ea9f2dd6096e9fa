"""Check manifests and names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from ostore.formats.manifest import Manifest
from ostore.formats.name import ModelName
from ostore.formats.remedy import NOTHING, Remedy, command, ostore, person
from ostore.formats.store_layout import BLOBS, COMING_MANIFESTS, MANIFESTS
from ostore.formats.wording import listed, plural
from ostore.operations.doctor.finding import Facts, Finding, Severity, finding
from ostore.operations.doctor.permissions import looked_at_by_root
from ostore.operations.loading import ModelInParts
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
    if facts.store.is_half:
        remedy = person("copy the store again, with manifests/")
        yield finding("manifests-missing", "problem", MANIFESTS, remedy=remedy)
    if near := facts.store.store_instead:
        detail = "there are no models here; was this one meant?"
        yield finding("other-store", "warning", str(near), detail=detail, remedy=ostore("doctor", models=near))
    for lost in facts.store.lost:
        yield finding(
            "folder-lost", "problem", lost.path, detail=lost.reason, remedy=person("mount the disk it leads to")
        )


def check_entries(facts: Facts) -> Iterator[Finding]:
    """Report entries among the manifests that are no readable manifests."""
    for doubt in facts.store.references.doubts:
        if doubt.name is not None and doubt.path.startswith("blobs/"):
            remedy = _pulled_anew(facts, doubt.name)
            yield finding("manifest-list", "problem", doubt.path, detail=doubt.reason, remedy=remedy)
    for odd in facts.store.odd:
        yield _odd(odd, facts)
    told = {entry.path for entry in (*facts.store.lost, *facts.store.closed)}
    for path in facts.store.scan.side_files:
        yield _side_file(path, facts)
    for stray in facts.store.scan.strays:
        if stray.path not in told:
            kind = "side-file" if stray.is_side_file else "manifest" if stray.is_misplaced else "foreign"
            yield _stray(stray.path, kind, stray.name, facts)


def check_manifests(facts: Facts) -> Iterator[Finding]:
    """Report manifests that programs may read differently, that are not in order, or that lie in the coming tree."""
    for model in facts.store.scan.models:
        manifest, name = model.manifest, str(model.name)
        told = partial(_of_manifest, "problem", name, manifest)
        if manifest.is_misspelled and model.tree == MANIFESTS:
            before = "do not `ollama create`, `rm` or `pull` this name first: that deletes blobs of other models too"
            yield replace(told("digest-spelling", facts.ostore("doctor", "--fix", before=before)), is_fixable=True)
        elif manifest.ambiguity:
            yield told("manifest-ambiguous", _pulled_anew(facts, model.name))
        elif manifest.unfit:
            yield told("manifest-unfit", _pulled_anew(facts, model.name))
    coming = tuple(str(model.name) for model in facts.store.scan.models if model.tree == COMING_MANIFESTS)
    if coming:
        yield finding("coming-tree", "warning", COMING_MANIFESTS, detail=listed(coming), models=coming)
    for name in facts.unlisted:
        # No copy is better: these are the bytes that the manifest promises.
        remedy = person("have the model created anew, where it comes from")
        yield finding("config-unreadable", "warning", name, remedy=remedy, models=(name,))


def check_weights(facts: Facts) -> Iterator[Finding]:
    """Report models whose weights nothing loads as they are, and those that run in Ollama only."""
    for model in facts.unloadable.in_parts:
        detail = f"{model.found:,} of {plural(model.count, 'part')}"
        name = str(model.name)
        yield finding("weights-in-parts", "warning", name, detail=detail, remedy=_merged(facts, model), models=(name,))
    names = tuple(map(str, facts.unloadable.in_ollama_only))
    if names:
        yield finding("ollama-only", "note", plural(len(names), "model"), detail=listed(names), models=names)


def check_names(facts: Facts) -> Iterator[Finding]:
    """Report names that Ollama or the disk takes for others, and models that run on another host."""
    models = facts.store.scan.models
    twins = list(_name_twins(facts, models))
    yield from twins
    yield from _part_twins(facts, [model.name for model in models], {name for twin in twins for name in twin.models})
    for model in models:
        name = model.name
        if name.is_selector and str(name) not in facts.stubs:
            remedy = facts.ostore("cp", name, f"{name}-copy").then(facts.ostore("rm", name))
            yield finding("selector-tag", "warning", str(name), remedy=remedy)
        if facts.disk.filesystem in _FUSSY and (problem := name.windows_problem()):
            remedy = facts.ostore("move", "DEST", after="with DEST on another disk")
            yield finding("name-unholdable", "warning", str(name), detail=problem, remedy=remedy)
    severity: Severity = "warning" if facts.host.is_offline else "note"
    for stub in facts.stubs:
        yield finding("cloud-stub", severity, stub, remedy=facts.ostore("rm", stub))


def _merged(facts: Facts, model: ModelInParts) -> Remedy:
    """
    Return the way to make one file of the parts: `create` merges the files of a folder whose names are those of a set.

    The manifest is set aside, as it has texts that the new model lacks.
    """
    name = str(model.name)
    if not model.parts:
        return person(f"find the other parts: ostore create {name} FOLDER --replace merges those of a folder")
    folder = facts.beside / "parts" / model.parts[0].short
    kept = "keep what `ostore show --modelfile` prints of it, because the new model has only the weights; then"
    remedy = replace(command("mkdir", "-p", folder), before=kept if model.has_texts else "")
    for number, part in enumerate(model.parts, 1):
        named = folder / f"model-{number:05}-of-{model.count:05}.gguf"
        remedy = remedy.then(command("ln", "-s", facts.root / BLOBS / part.filename, named))
    remedy = remedy.then(facts.set_aside(facts.store.scan.path_of(name)))
    return replace(remedy.then(facts.ostore("create", name, folder)), after="makes one file of them")


def _side_file(path: str, facts: Facts) -> Finding:
    return finding("side-file", "warning", path, remedy=command("rm", facts.root / path))


def _stray(path: str, kind: str, name: ModelName | None, facts: Facts) -> Finding:
    """Report a file where no manifest can be. `name` is the model that a misplaced manifest means, if it is known."""
    if kind == "side-file":
        return _side_file(path, facts)
    if kind == "foreign":
        return finding("manifest-foreign", "warning", path, remedy=facts.set_aside(path))
    is_free = name is not None and name not in {model.name for model in facts.store.scan.models}
    detail = f"it means {name}" if name else "its path spells no model"
    remedy = facts.ostore("doctor", "--fix") if is_free else facts.set_aside(path)
    return finding("manifest-misplaced", "problem", path, detail=detail, remedy=remedy, is_fixable=is_free)


def _odd(odd: OddEntry, facts: Facts) -> Finding:
    name = str(odd.name) if odd.name else ""
    told = partial(finding, severity="problem", subject=odd.path, models=(name,) if name else ())
    if odd.is_closed:
        remedy = looked_at_by_root(odd.reason, facts)
        return finding("not-checked", "problem", odd.path, detail=odd.reason, remedy=remedy)
    if odd.is_dangling:
        remedy = _restored(odd, facts, "mount the disk it leads to; if it is gone")
        return told("manifest-link-dangling", detail=f"leads to {odd.target}", remedy=remedy, is_fixable=True)
    if odd.kind not in {EntryKind.FILE, EntryKind.LINK}:
        kind = "a folder" if odd.kind is EntryKind.FOLDER else "a device, pipe or socket"
        return told("manifest-not-file", detail=kind, remedy=facts.set_aside(odd.path))
    if odd.name is not None and odd.size:
        remedy = facts.repair().otherwise(_pulled_anew(facts, odd.name))
        return told("manifest-broken", detail=odd.reason.removeprefix("manifest: "), remedy=remedy)
    is_young = 0 <= facts.now - odd.mtime < YOUNG_SECONDS
    return told(
        "manifest-stray" if odd.name is None else "manifest-empty",
        detail="changed less than a minute ago: it may be being written" if is_young else "",
        remedy=facts.ostore("doctor", before="too young to be fixed; in a minute")
        if is_young
        else _restored(odd, facts),
        is_fixable=not is_young,
    )


def _restored(odd: OddEntry, facts: Facts, before: str = "") -> Remedy:
    """
    Return how to get the model of an odd entry back, or else how to set the entry aside.

    The model comes first: while the entry lies there, it keeps the blobs, and `repair` knows which model it was.
    """
    if odd.name is None:
        return facts.ostore("doctor", "--fix", before=before)
    count = len(facts.store.references.orphans(facts.store.census.blobs)) if facts.store.census else 0
    after = f"gives it up, and {plural(count, 'blob')} with it" if count else "gives it up"
    return replace(facts.repair(), before=before).otherwise(facts.ostore("doctor", "--fix", after=after))


def _pulled_anew(facts: Facts, name: ModelName) -> Remedy:
    return facts.pulled_anew(str(name), "/".join((MANIFESTS, *name.parts)))


def _of_manifest(severity: Severity, name: str, manifest: Manifest, code: str, remedy: Remedy) -> Finding:
    why = manifest.ambiguity or manifest.unfit or ""
    return finding(code, severity, name, detail=why, remedy=remedy, models=(name,))


def _name_twins(facts: Facts, models: Iterable[StoredModel]) -> Iterator[Finding]:
    raws = {model.name: model.manifest.raw for model in models}
    for names in _groups(raws, lambda name: name.folded):
        if len({raws[name] for name in names}) == 1:
            yield from _aliases(facts, names)
            continue
        first, *others = sorted(names, key=str)
        # Not `ollama cp`, which would take one of them at random too.
        remedy = NOTHING
        for number, name in enumerate(others, 2):
            remedy = remedy.then(command("mv", "-n", path := _path(facts, name), f"{path}-{number}"))
        texts = tuple(str(name) for name in (first, *others))
        detail = f"also {', '.join(texts[1:])}"
        yield finding("name-twins", "problem", texts[0], detail=detail, remedy=remedy, models=texts)


def _aliases(facts: Facts, names: list[ModelName]) -> Iterator[Finding]:
    """Report names that differ only by case and have one manifest. A link goes first, then what has capitals."""
    tree = facts.store.scan.tree
    links = {entry.name for entry in tree.entries if entry.is_link}
    behind = {
        entry.name: link for link in tree.links for entry in tree.entries if entry.relative.startswith(f"{link}/")
    }
    kept = max(names, key=lambda name: (name not in links and name not in behind, str(name)))
    texts = tuple(str(name) for name in names)
    for name in names:
        if name == kept:
            continue
        if name in links or name in behind:
            remedy = command("rm", facts.root / behind[name] if name in behind else _path(facts, name))
        else:
            before = f"look at which name your programs ask for; to keep {kept}"
            remedy = facts.ostore("rm", name.full, "--yes", before=before)
        yield finding("name-alias", "warning", str(name), detail=f"also {kept}", remedy=remedy, models=texts)


def _part_twins(facts: Facts, names: list[ModelName], twins: set[str]) -> Iterator[Finding]:
    """
    Report parts of names that differ only by case anywhere in the store.

    Ollama may swap the spelling of each part by itself (server/routes.go at fb30760). Whole names that differ only by
    case, `twins`, are reported already.
    """
    for index, role in enumerate(("host", "namespace", "model", "tag")):
        for parts in _groups((name.parts[index] for name in names), str.lower):
            users = {part: [name for name in names if name.parts[index] == part] for part in sorted(parts)}
            models = tuple(str(name) for group in users.values() for name in group)
            # Change the rarer spelling to the common one.
            common, *others = sorted(users, key=lambda part: (-len(users[part]), part))
            rare = [name for part in others for name in users[part] if str(name) not in twins]
            remedy = NOTHING
            for name in rare:
                old, new = _path(facts, name), _path(facts, _with_part(name, index, common))
                remedy = remedy.then(command("mkdir", "-p", new.parent)).then(command("mv", "-n", old, new))
            detail = f"also spelled {', '.join(others)}"
            if rare:
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
