"""An OCI image layout as a source of models: a folder that ostore, skopeo, oras or another program has written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, FormatError, NotFoundError, OstoreError, UnsafeError, UsageError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.media_types import foreign_kind
from ostore.formats.name import ModelName, alike, choose, is_all, is_glob
from ostore.formats.oci_layout import IndexEntry
from ostore.formats.remedy import ostore
from ostore.formats.selection import LeftOut, SelectedModel, Selection, Wanted
from ostore.formats.wording import few_notes
from ostore.places.oci_layout.folder import LayoutFolder
from ostore.streams.bytes_at import Held
from ostore.streams.chunks import Chunk, read_chunks
from ostore.streams.links import on_any_length


class OciLayout:
    """
    A layout, opened. Its index is read once; manifests and blobs are looked at when they are asked for.

    An entry that is no model, such as an image, is a note in a selection. One that was meant for a model and cannot be
    taken is left out.
    """

    can_resume = True

    def __init__(self, path: Path, label: str) -> None:
        """Raises NotFoundError, UsageError, FormatError if it is no layout, LimitError, UnsafeError, OSError."""
        self.label = label
        path = on_any_length(path)
        if not path.is_dir():
            raise UsageError(f"{label}: expected a folder") if path.exists() else _no_folder(path, label)
        self._folder = LayoutFolder(path, label)
        self._index = self._folder.read_index()
        self._names = _by_name(self._index.entries)

    @property
    def names(self) -> frozenset[str]:
        """All names in the index, in lower case: of models in full, of anything else as they stand there."""
        return frozenset(entry.name.folded if entry.name else entry.text.lower() for entry in self._index.entries)

    @property
    def path(self) -> Path:
        """The folder of the layout."""
        return self._folder.path

    def select(self, patterns: Sequence[str]) -> Selection:
        """
        Return the models that match names and globs, or all. Blobs are judged by name and size.

        Raises NotFoundError for a pattern that matches no model, and the error of a model that was named and cannot be
        taken: UnsafeError, FormatError, LimitError, IntegrityError, DamagedStoreError.
        """
        return self._selected(patterns, looks=True)

    def announced(self) -> Selection:
        """Return all models whose manifests can be read, whether or not their blobs are there."""
        return self._selected((), looks=False)

    def find_models(self, folded: Collection[str]) -> tuple[Selection, ...]:
        """Return one selection for each model that can be taken and whose folded name is in `folded`."""
        found = []
        for name, entries in self._names.items():
            if name.folded in folded:
                with contextlib.suppress(OstoreError):
                    manifest = self._manifest_of(name, entries, looks=True)
                    found += [] if foreign_kind(manifest.layer_types) else [_selection([(name, manifest)])]
        return tuple(found)

    def find_blobs(self, lacking: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        """Return the lacking blobs that have a file of the right size. A size of None matches any. Raises OSError."""
        sizes = {digest: self._folder.size_of(digest) for digest in lacking}
        return tuple(
            Descriptor(digest, size)
            for digest, size in sizes.items()
            if size is not None and lacking[digest] in {None, size}
        )

    def file_of(self, blob: Descriptor) -> Path | None:
        """Return the file of a blob if it is a regular file of the right size, else None."""
        return self._folder.file_of(blob)

    def read_blobs(self, wanted: Sequence[Wanted], _held: Held, /) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        """Yield each wanted blob in the order given, unverified. Reading a stream raises what `opened_blob` raises."""
        for one in wanted:
            yield one, self._chunks(one)

    def read_manifests(self, models: Sequence[SelectedModel]) -> Iterator[tuple[ModelName, bytes]]:
        """Yield the raw manifests of selected models. Raises BlobError for other bytes, DamagedStoreError, OSError."""
        for model in models:
            yield model.name, self._folder.read_manifest(Descriptor(model.manifest_digest, model.manifest_size))

    def opened_blob(self, digest: Digest) -> AbstractContextManager[int]:
        """Open a blob for reading. Raises BlobMissingError, DamagedStoreError if it is no regular file, OSError."""
        return self._folder.opened(digest)

    def _selected(self, patterns: Sequence[str], *, looks: bool) -> Selection:
        named = _chosen(list(self._names), patterns, self.label)
        takes_all = is_all(patterns)
        left: list[LeftOut] = []
        notes: list[str] = []
        models: list[tuple[ModelName, Manifest]] = []
        for name, entries in self._names.items():
            if not takes_all and name not in named:
                continue
            try:
                manifest = self._manifest_of(name, entries, looks=looks)
                if kind := foreign_kind(manifest.layer_types):
                    if named.get(name):
                        raise FormatError(f"{name}: {kind}")
                    notes.append(f"{name}: not taken: {kind}")
                else:
                    models.append((name, manifest))
            except (OstoreError, OSError) as error:
                if named.get(name):
                    raise
                left.append(LeftOut(str(name), error))
        if takes_all:
            odd = [entry for entry in self._index.entries if entry.problem]
            left += (LeftOut(entry.text, entry.problem) for entry in odd if isinstance(entry.problem, OstoreError))
            notes += (f"{entry.text}: not taken: {entry.problem}" for entry in odd if isinstance(entry.problem, str))
        return _selection(models).noting(left, few_notes(notes))

    def _manifest_of(self, name: ModelName, entries: Sequence[IndexEntry], *, looks: bool) -> Manifest:
        """Return the manifest of a name, which may be listed several times if it is the same each time."""
        if any(entry.name != name for entry in entries):
            raise UnsafeError(f"{name}: a name that differs from it only by case is listed too")
        listed = {entry.manifest for entry in entries}
        if len(listed) > 1:
            raise UnsafeError(f"{name}: listed {len(entries)} times, with different manifests")
        (descriptor,) = filter(None, listed)
        try:
            manifest = Manifest.parse(self._folder.read_manifest(descriptor))
            if not foreign_kind(manifest.layer_types):
                manifest.refuse_unclear()
        except BlobError:
            raise
        except OstoreError as error:
            error.args = (f"{name}: {error}",)
            raise
        if looks and not foreign_kind(manifest.layer_types):
            for blob in manifest.blobs:
                self._folder.refuse(blob)
        return manifest

    def _chunks(self, wanted: Wanted) -> Iterator[Chunk]:
        with self.opened_blob(wanted.blob.digest) as fd:
            os.lseek(fd, wanted.start, os.SEEK_SET)
            yield from read_chunks(fd, wanted.size)


def _by_name(entries: Iterable[IndexEntry]) -> dict[ModelName, list[IndexEntry]]:
    """Return the entries of each name, with those of the names that differ from it only by case."""
    twins: dict[str, list[IndexEntry]] = {}
    names: dict[ModelName, list[IndexEntry]] = {}
    for entry in entries:
        if entry.name:
            names[entry.name] = twins.setdefault(entry.name.folded, [])
            names[entry.name].append(entry)
    return names


def _selection(models: Iterable[tuple[ModelName, Manifest]]) -> Selection:
    selection = Selection.of(models)
    # The bytes of thousands of manifests need not stay in memory: they are read again, and compared.
    return replace(selection, models=tuple(replace(model, raw=None) for model in selection.models))


def _chosen(names: Sequence[ModelName], patterns: Sequence[str], label: str) -> dict[ModelName, bool]:
    """Return the names that patterns mean, and whether each was named, not matched by a glob. Raises NotFoundError."""
    chosen, unmatched = choose(names, patterns)
    if unmatched:
        close = alike(unmatched[0], names)
        hint = f"did you mean {' or '.join(close)}?" if close else ostore("inspect", label, after="shows what it holds")
        raise NotFoundError(f"no model {unmatched[0]!r} in {label}", hint=hint)
    words = set(choose(names, [pattern for pattern in patterns if not is_glob(pattern)])[0])
    return {name: name in words for name in chosen}


def _no_folder(path: Path, label: str) -> NotFoundError:
    folder, colon, name = str(path).rpartition(":")
    if colon and Path(folder).is_dir():
        return NotFoundError(
            f"{label}: no such folder", hint=f"oci: names a folder, here oci:{folder}; --model {name} chooses a model"
        )
    return NotFoundError(f"{label}: no such folder", hint="is the disk mounted?")
