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
from ostore.formats.export_state import CutBlob
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.outcome import Outcome, Received
from ostore.formats.selection import Selection, Wanted
from ostore.formats.tar_header import BLOCK, END_OF_ARCHIVE, member_header, member_length, padding
from ostore.formats.version import VERSION
from ostore.places.bundle.journal import Archive, Begun, ExportJournal
from ostore.streams.chunks import Chunk
from ostore.streams.verified import verified

SUMS_PATH = "ostore/SHA256SUMS"


class TarOutput(Archive, Protocol):
    """The tar stream of a bundle, in frames or plain: `frames.FrameWriter`, `plain.PlainWriter`."""

    def write(self, data: Chunk) -> None: ...
    def cut(self) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class BundleInbox:
    """Takes blobs in the order of the selection, then every manifest, and writes them as members."""

    def __init__(
        self, writer: TarOutput, selection: Selection, head: bytes, journal: ExportJournal | None = None
    ) -> None:
        """
        `head` is `bundle_head` of the selection. Without a journal, the command cannot go on if it is stopped.
        """
        self._writer = writer
        self._selection = selection
        self._journal = journal
        begun = journal.begun if journal else Begun(0, None)
        members = stored_members(selection)
        self._resumed, self._lacking = members[: begun.members], members[begun.members :]
        self._cut = begun.cut
        self._awaited = iter(self._lacking)
        self._promised = {model.name: model.manifest_digest for model in selection.models}
        self._manifests: dict[ModelName, bytes] = {}
        self._is_sealed = False
        self._position = len(head) + sum(member_length(path, member.size) for member, path in self._resumed)
        if not writer.offset:
            writer.write(head)

    @property
    def missing(self) -> tuple[Wanted, ...]:
        """
        Every blob of the selection, but for those that an interrupted export has finished.

        Each is wanted from its start, also one that was cut: its digest has to be proved. Of a blob that a recipe
        makes, it is the recipe as it is stored.
        """
        return tuple(Wanted(member) for member, _ in self._lacking)

    @property
    def received(self) -> Received:
        """The whole selection. Raises RuntimeError before the bundle is sealed."""
        if not self._is_sealed:
            raise RuntimeError("a bundle has no result before it is sealed")
        outcomes = dict.fromkeys((model.name for model in self._selection.models), Outcome.ADDED)
        written, resumed = (tuple(member for member, _ in members) for members in (self._lacking, self._resumed))
        return Received(outcomes, written=written, resumed=resumed)

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
        cut, self._cut = self._cut, None
        if cut is None:
            self._writer.cut()
            self._writer.write(member_header(path, descriptor.size))
        try:
            self._write_chunks(chunks, descriptor, cut)
        except IntegrityError:
            if self._journal:
                self._journal.go_back(self._writer, self._position)
            raise
        self._writer.write(bytes(padding(descriptor.size)))
        self._position += member_length(path, descriptor.size)
        if self._journal:
            self._journal.verified(self._position)

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

    def _write_chunks(self, chunks: Iterable[Chunk], blob: Descriptor, cut: CutBlob | None) -> None:
        """Verify the bytes of a blob and write them, but for those that are there."""
        steps = self._journal.steps(blob, self._position + BLOCK, cut) if self._journal else None
        is_there = cut.size if cut else 0
        for chunk in verified(chunks, blob, steps):
            if is_there:
                self._writer.write(memoryview(chunk)[is_there:])
                is_there -= min(is_there, len(chunk))
            else:
                self._writer.write(chunk)
            if self._journal:
                self._journal.note(self._writer)

    def _write_member(self, path: str, data: bytes) -> None:
        self._writer.write(_member(path, data))


def bundle_head(selection: Selection) -> bytes:
    """
    Return what the archive has before the first blob: the index, and the files for people and stock tools.

    Raises LimitError if the selection is too large for one bundle.
    """
    files = bundle_files(selection)
    indexed = tuple(IndexedFile(path, Digest.of(data), len(data)) for path, data in files)
    index = BundleIndex(f"ostore/{VERSION}", selection, indexed).write()
    members = len(files) + len(selection.blobs) + len(selection.models)
    if len(index) > MAX_INDEX_BYTES or members > MAX_MEMBERS:
        raise LimitError(
            f"{members} members and an index of {len(index)} bytes: expected at most {MAX_MEMBERS} and "
            f"{MAX_INDEX_BYTES}",
            hint="choose fewer models for each bundle",
        )
    return b"".join(_member(path, data) for path, data in ((INDEX_PATH, index), *files))


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


def _member(path: str, data: bytes) -> bytes:
    return member_header(path, len(data)) + data + bytes(padding(len(data)))


def stored_members(selection: Selection) -> tuple[tuple[Descriptor, str], ...]:
    """Return what is stored of the blobs, in the order of the archive: blobs that travel whole, then recipes."""
    whole = [(blob, blob_path(blob.digest)) for blob in selection.whole]
    return (*whole, *((made.stored, recipe_path(made)) for made in selection.recipes))


def _checksums(selection: Selection) -> bytes:
    """
    Return one line for each blob, recipe and manifest, as `sha256sum -c` reads them in the root of a store.

    Blobs that a delta leaves out are among them, if a model needs them whole: the store must have them.
    """
    members = manifest_members(selection)
    lines = [(stored.digest, path) for stored, path in stored_members(selection)]
    lines += [(blob.digest, blob_path(blob.digest)) for blob in selection.requires if blob.digest in selection.needed]
    lines += [(model.manifest_digest, members[model.name]) for model in selection.models]
    return "".join(f"{digest.hex}  {path}\n" for digest, path in lines).encode("ascii")
