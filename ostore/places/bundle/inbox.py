"""Write the members of a bundle in their order: the head first, every blob once, the manifests last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Protocol

from ostore.formats.bundle_index import (
    INDEX_PATH,
    MAX_INDEX_BYTES,
    MAX_MEMBERS,
    BundleIndex,
    IndexedFile,
    blob_path,
    manifest_members,
    recipe_path,
)
from ostore.formats.digest import Digest
from ostore.formats.errors import IntegrityError, LimitError
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.outcome import Outcome, Received
from ostore.formats.selection import Selection, Wanted
from ostore.formats.tar_header import END_OF_ARCHIVE, member_header, padding
from ostore.formats.version import VERSION
from ostore.streams.chunks import Chunk
from ostore.streams.verified import verified

SUMS_PATH = "ostore/SHA256SUMS"


class TarOutput(Protocol):
    """The tar stream of a bundle, in frames or plain: `frames.FrameWriter`, `plain.PlainWriter`."""

    def write(self, data: Chunk) -> None: ...
    def cut(self) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class BundleInbox:
    """Takes blobs in the order of the selection, then every manifest, and writes them as members."""

    def __init__(self, writer: TarOutput, selection: Selection) -> None:
        self._writer = writer
        self._selection = selection
        self._members = _members(selection)
        self._awaited = iter(self._members)
        self._promised = {model.name: model.manifest_digest for model in selection.models}
        self._manifests: dict[ModelName, bytes] = {}
        self._is_sealed = False
        self._write_head()

    @property
    def missing(self) -> tuple[Wanted, ...]:
        """
        Every blob of the selection, from its start: a bundle holds all its blobs itself.

        Of a blob that a recipe makes, it is the recipe as it is stored.
        """
        return tuple(Wanted(member) for member, _ in self._members)

    @property
    def received(self) -> Received:
        """The whole selection. Raises RuntimeError before the bundle is sealed."""
        if not self._is_sealed:
            raise RuntimeError("a bundle has no result before it is sealed")
        outcomes = dict.fromkeys((model.name for model in self._selection.models), Outcome.ADDED)
        return Received(outcomes, written=self._selection.blobs)

    def held(self, _digest: Digest, /) -> None:
        """Return None: what is written here cannot be read back."""

    def take_files(self, file_of: Callable[[Descriptor], Path | None]) -> None:
        """Take no file, because a blob becomes a part of the bundle's file."""

    def write_blob(self, wanted: Wanted, chunks: Iterable[Chunk]) -> None:
        """
        Write one blob as a member.

        Raises BlobError if the bytes are not the blob, RuntimeError if it is not the next one or not from its start.
        """
        descriptor = wanted.blob
        awaited, path = next(self._awaited, (None, ""))
        if wanted.start or descriptor != awaited:
            raise RuntimeError(f"not the next blob of the selection: {descriptor.digest}")
        self._writer.cut()
        self._writer.write(member_header(path, descriptor.size))
        for chunk in verified(chunks, descriptor):
            self._writer.write(chunk)
        self._writer.write(bytes(padding(descriptor.size)))

    def write_manifest(self, name: ModelName, raw: bytes) -> None:
        """Keep a manifest until the end. Raises IntegrityError unless its digest is the one in the index."""
        if self._promised.get(name) != Digest.of(raw):
            raise IntegrityError(f"manifest of {name}: changed while it was exported")
        self._manifests[name] = raw

    def seal(self) -> None:
        """Write the manifests and the end. Raises RuntimeError if a blob or manifest was not delivered."""
        if next(self._awaited, None) or len(self._manifests) != len(self._selection.models):
            raise RuntimeError("a blob or a manifest of the selection was not delivered")
        self._writer.cut()
        for name, path in manifest_members(self._selection).items():
            self._write_member(path, self._manifests[name])
        self._writer.write(END_OF_ARCHIVE)
        self._writer.finish()
        self._is_sealed = True

    def _write_head(self) -> None:
        files = bundle_files(self._selection)
        indexed = tuple(IndexedFile(path, Digest.of(data), len(data)) for path, data in files)
        index = BundleIndex(f"ostore/{VERSION}", self._selection, indexed).write()
        members = len(files) + len(self._selection.blobs) + len(self._selection.models)
        if len(index) > MAX_INDEX_BYTES or members > MAX_MEMBERS:
            raise LimitError(
                f"{members} members and an index of {len(index)} bytes: expected at most {MAX_MEMBERS} and "
                f"{MAX_INDEX_BYTES}",
                hint="export fewer models into each bundle",
            )
        self._write_member(INDEX_PATH, index)
        for path, data in files:
            self._write_member(path, data)

    def _write_member(self, path: str, data: bytes) -> None:
        self._writer.write(member_header(path, len(data)) + data + bytes(padding(len(data))))


def bundle_files(selection: Selection) -> Sequence[tuple[str, bytes]]:
    """Return the members for people and stock tools, by path: checksums, instructions, an importer for bare Python."""
    data = resources.files("ostore.places.bundle")
    instructions = "RESTORE-DELTA.txt" if selection.requires else "RESTORE.txt"
    if selection.recipes:
        instructions = "RESTORE-RECIPES.txt"
    return (
        (SUMS_PATH, _checksums(selection)),
        ("ostore/RESTORE.txt", data.joinpath(instructions).read_bytes()),
        ("ostore/restore.py", data.joinpath("restore.py").read_bytes()),
    )


def _members(selection: Selection) -> tuple[tuple[Descriptor, str], ...]:
    """Return what is stored of the blobs, in the order of the archive: blobs that travel whole, then recipes."""
    whole = [(blob, blob_path(blob.digest)) for blob in selection.whole]
    return (*whole, *((made.stored, recipe_path(made)) for made in selection.recipes))


def _checksums(selection: Selection) -> bytes:
    """
    Return one line for each blob, recipe and manifest, as `sha256sum -c` reads them in the root of a store.

    Blobs that a delta leaves out are among them, if a model needs them whole: the store must have them.
    """
    members = manifest_members(selection)
    lines = [(stored.digest, path) for stored, path in _members(selection)]
    lines += [(blob.digest, blob_path(blob.digest)) for blob in selection.requires if blob.digest in selection.needed]
    lines += [(model.manifest_digest, members[model.name]) for model in selection.models]
    return "".join(f"{digest.hex}  {path}\n" for digest, path in lines).encode("ascii")
