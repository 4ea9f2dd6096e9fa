"""Check blobs, and what else lies beside them, by name and size only. `verify` hashes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ostore.formats import media_types
from ostore.formats.digest import Digest
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.store_layout import BLOBS
from ostore.operations.doctor.finding import Facts, Finding, command, finding
from ostore.places.store.survey.census import (
    Census,
    EntryKind,
    FoundEntry,
    FoundTree,
    StoredBlob,
    UnfinishedDownload,
    allocated_bytes,
    by_filename,
)
from ostore.places.store.survey.examination import LinkedBlob

_DAY_SECONDS = 86_400.0
# The age from which `gc --partials` removes a download.
_STALE_SECONDS = 7 * _DAY_SECONDS
# A younger file may belong to an import that is running.
_RUNNING_SECONDS = 3_600.0
_LOST_AND_FOUND = "lost+found"


def check_needed(facts: Facts) -> Iterator[Finding]:
    """Report blobs that models need and that are missing, have the wrong size or are not files."""
    census = facts.store.census
    if census is None:
        return
    sizes = _sizes(census, facts.store.linked)
    foreign = {digest: entry for entry in census.foreign if (digest := Digest.of_filename(entry.path))}
    targets = {Digest.tolerate(link.filename): link.target for link in facts.store.linked}
    hidden = {Digest.tolerate(link.filename) for link in facts.store.linked if link.is_closed}
    for blob, names in _wrong(facts, sizes):
        digest = blob.digest
        if digest not in foreign and digest not in hidden:
            yield _missing(facts, blob, sizes.get(digest.hex), targets.get(digest), tuple(names))
    for digest, entry in foreign.items():
        yield _no_file(entry, facts, facts.store.scan.users.get(digest, ()))


def check_entries(facts: Facts) -> Iterator[Finding]:
    """Report entries of `blobs/` that Ollama would not create: other files, links, old names."""
    census = facts.store.census
    if census is None:
        return
    for entry in census.foreign:
        if Digest.of_filename(entry.path) is None:
            yield from _foreign(entry, facts)
    for link in facts.store.linked:
        yield from _linked(link, facts)
    odd = sorted((blob for blob in census.blobs if not blob.is_canonical), key=by_filename)
    names = {blob.filename for blob in census.blobs} if odd else set()
    for blob in odd:
        is_free = blob.digest.filename not in names and not facts.store.settled.has(blob.digest.filename)
        yield _oddly_named(blob, facts, facts.store.scan.users.get(blob.digest, ()), is_free=is_free)


def check_leftovers(facts: Facts) -> Iterator[Finding]:
    """Report what takes up space and belongs to no model, and what removes it."""
    census = facts.store.census
    if census is None:
        return
    yield from _orphans(facts)
    for download in census.downloads:
        yield _unfinished(download, facts)
    for entry in census.temporary:
        remedy = f"{facts.ostore('gc', '--partials')}, or start Ollama anew"
        yield finding("temporary", "note", f"blobs/{entry.path}", remedy=remedy, size=entry.facts.allocated)
    yield from (_working_folder(tree, facts) for tree in census.working_folders if _is_old(tree, facts))
    yield from _workspace(facts, census.workspace)


def _wrong(facts: Facts, sizes: Mapping[str, int | None]) -> Iterable[tuple[Descriptor, dict[str, None]]]:
    """Return the needed blobs that do not have the size that a manifest promises, with the models that need them."""
    wrong: dict[tuple[Digest, int], tuple[Descriptor, dict[str, None]]] = {}
    settled = facts.store.settled
    for model in () if settled.is_all else facts.store.scan.models:
        for blob in model.manifest.descriptors:
            if not settled.has(blob.digest.filename) and sizes.get(blob.digest.hex) != blob.size:
                _, names = wrong.setdefault((blob.digest, blob.size), (blob, {}))
                names[str(model.name)] = None
    return wrong.values()


def _sizes(census: Census, linked: Iterable[LinkedBlob]) -> dict[str, int | None]:
    """
    Return, by digest, the size in bytes of the file that Ollama would open. Settled blobs are left out.

    If a blob has several names, the name that Ollama writes counts. A link that leads nowhere has None.
    """
    targets = {link.filename: link.size for link in linked}
    sizes: dict[str, int | None] = {
        blob.digest.hex: targets.get(blob.filename, blob.facts.size) for blob in census.blobs
    }
    if len(sizes) < len(census.blobs):
        for blob in sorted(census.blobs, key=lambda blob: (blob.is_canonical, blob.filename)):
            sizes[blob.digest.hex] = targets.get(blob.filename, blob.facts.size)
    return sizes


def _missing(facts: Facts, blob: Descriptor, size: int | None, target: str | None, models: tuple[str, ...]) -> Finding:
    repair = facts.ostore("repair", "--from", "BUNDLE")
    remedy = f"{repair}, or {command('ollama', 'pull', models[0])}"
    if size is None:
        detail = f"{_role(blob)}, {blob.size:,} bytes"
        if target is not None:
            detail += f"; a link to {target}, where nothing is"
        return finding("blob-missing", "problem", str(blob.digest), detail=detail, remedy=remedy, models=models)
    # `ollama pull` alone does not help: it takes any existing blob for whole (server/download.go at fb30760).
    detail = f"expected {blob.size:,} bytes, got {size:,}"
    remedy = f"{repair}, or delete it and {command('ollama', 'pull', models[0])}"
    return finding("blob-size", "problem", str(blob.digest), detail=detail, remedy=remedy, models=models)


def _role(blob: Descriptor) -> str:
    """Return what a blob is to its model. If Ollama cannot read the config, it does not even list the model."""
    if blob.media_type == media_types.CONFIG:
        return "the config, so Ollama does not list the model"
    if blob.media_type in {media_types.MODEL, media_types.TENSOR}:
        return "weights"
    return blob.media_type.rpartition(".")[2] or "a layer"


def _no_file(entry: FoundEntry, facts: Facts, users: tuple[ModelName, ...]) -> Finding:
    kind = "a folder" if entry.facts.kind is EntryKind.FOLDER else "a device, pipe or socket"
    return finding(
        "blob-not-file",
        "problem",
        f"blobs/{entry.path}",
        detail=kind,
        remedy=command("mv", facts.root / BLOBS / entry.path, "/elsewhere")
        + f" && {facts.ostore('repair', '--from', 'BUNDLE')}",
        models=_texts(users),
    )


def _foreign(entry: FoundEntry, facts: Facts) -> Iterator[Finding]:
    remedy = command("mv", facts.root / BLOBS / entry.path, "/elsewhere")
    if entry.facts.kind is not EntryKind.FOLDER:
        size = entry.facts.size
        yield finding("blob-foreign", "warning", f"blobs/{entry.path}", remedy=remedy, size=size)
    elif entry.path != _LOST_AND_FOUND:
        yield finding("blob-foreign-folder", "note", f"blobs/{entry.path}", remedy=remedy)


def _linked(link: LinkedBlob, facts: Facts) -> Iterator[Finding]:
    models = _texts(facts.store.scan.users.get(Digest.tolerate(link.filename), ()))
    subject, detail = f"blobs/{link.filename}", f"leads to {link.target}"
    if link.is_closed:
        remedy = facts.privileged("doctor")
        yield finding("not-checked", "problem", subject, detail=detail, remedy=remedy, models=models)
    elif link.size is not None:
        yield finding("blob-linked", "note", subject, detail=detail, models=models)
    elif not models:
        remedy = "mount the disk it leads to, or delete it"
        yield finding("blob-link-dangling", "warning", subject, detail=detail, remedy=remedy)


def _oddly_named(blob: StoredBlob, facts: Facts, users: tuple[ModelName, ...], *, is_free: bool) -> Finding:
    """Report a blob with an odd name. `is_free` says that its proper name is not taken."""
    subject = f"blobs/{blob.filename}"
    if blob.filename == str(blob.digest):
        second = "ostore verify, then delete it: the blob of today's name is there as well"
        remedy = facts.ostore("doctor", "--fix") if is_free else second
        return finding("blob-legacy-name", "warning", subject, remedy=remedy, is_fixable=is_free, models=_texts(users))
    paths = (facts.root / subject, facts.root / BLOBS / blob.digest.filename)
    return finding(
        "blob-capitals",
        "problem" if users and is_free else "warning",
        subject,
        remedy=command("mv", "-n", *paths),
        models=_texts(users),
    )


def _orphans(facts: Facts) -> Iterator[Finding]:
    orphans = facts.store.orphans
    if orphans:
        size = allocated_bytes(blob.facts for blob in orphans)
        yield finding("orphans", "note", f"{len(orphans):,} in blobs/", remedy=facts.ostore("gc"), size=size)


def _unfinished(download: UnfinishedDownload, facts: Facts) -> Finding:
    size = allocated_bytes(file.facts for file in download.files)
    is_stale = facts.now - download.newest > _STALE_SECONDS
    remedy = facts.ostore("gc", "--partials") if is_stale else "ollama pull goes on with it"
    return finding("download-unfinished", "note", f"blobs/{download.digest.filename}", remedy=remedy, size=size)


def _is_old(tree: FoundTree, facts: Facts) -> bool:
    return facts.now - tree.newest > _DAY_SECONDS


def _working_folder(tree: FoundTree, facts: Facts) -> Finding:
    subject = tree.path.relative_to(facts.root).as_posix()
    return finding("working-folder", "note", subject, remedy=command("rm", "-r", tree.path), size=_room(tree))


def _workspace(facts: Facts, tree: FoundTree) -> Iterator[Finding]:
    for part, code, remedy in (
        ("tx", "import-unfinished", "import the same again, or ostore gc"),
        ("quarantine", "quarantine", f"look, then {command('rm', '-r', tree.path / 'quarantine')}"),
        ("trash", "trash", "ostore gc --restore brings it back, ostore gc deletes it"),
    ):
        files = tree.below(part)
        is_running = part == "tx" and any(facts.now - file.facts.newest < _RUNNING_SECONDS for file in files)
        if files and not is_running:
            size = allocated_bytes(file.facts for file in files)
            count = f"{len(files):,} file{'s' if len(files) > 1 else ''}"
            yield finding(code, "note", f".ostore/{part}", detail=count, remedy=remedy, size=size)


def _room(tree: FoundTree) -> int:
    return allocated_bytes(file.facts for file in tree.files)


def _texts(names: Iterable[ModelName]) -> tuple[str, ...]:
    return tuple(str(name) for name in names)
