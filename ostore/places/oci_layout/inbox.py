"""One transaction of a layout: blobs are verified, put on the disk and given their names, one by one."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, DamagedStoreError, IntegrityError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.outcome import Outcome, Received
from ostore.formats.selection import Selection, Wanted
from ostore.formats.store_layout import PART
from ostore.streams.chunks import Chunk
from ostore.streams.durable import Directory, naming
from ostore.streams.extents import clone_file
from ostore.streams.links import mode_of, open_to_read
from ostore.streams.progress import Progress, watching
from ostore.streams.space import refuse_lack_of_space
from ostore.streams.verified import hash_file, verified
from ostore.streams.writing import finish_file, write_file


class LayoutInbox:
    """Takes blobs in any order, then every manifest. Close it."""

    def __init__(
        self,
        layout: Directory,
        blobs: Directory,
        selection: Selection,
        outcomes: Mapping[ModelName, Outcome],
        *,
        sound: set[Digest],
        progress: Progress,
    ) -> None:
        """
        `layout` is the open folder of the layout, in which files are unfinished, and `blobs` that of its blobs. `sound`
        are the blobs that were verified before, and it grows.
        """
        self._layout = layout
        self._blobs = blobs
        self._selection = selection
        self._outcomes = outcomes
        self._sound = sound
        self._progress = progress
        self._held: dict[Digest, int] = {}
        self._present: list[Descriptor] = []
        self._repaired: list[Descriptor] = []
        self._written: list[Descriptor] = []
        self._new: list[str] = []
        self._manifests: dict[ModelName, bytes] = {}
        self._has_ended = False

    @property
    def missing(self) -> tuple[Wanted, ...]:
        """The blobs that are neither in the layout nor written, in the order of the selection."""
        return tuple(Wanted(blob) for blob in self._selection.blobs if blob.digest not in self._held)

    @property
    def received(self) -> Received:
        """What was taken in. Raises RuntimeError before the index is replaced."""
        if not self._has_ended:
            raise RuntimeError("a layout has no result before its index is replaced")
        return Received(
            self._outcomes,
            written=tuple(self._written),
            present=tuple(self._present),
            repaired=tuple(self._repaired),
        )

    def held(self, _digest: Digest, /) -> None:
        """Return None: nothing builds on a blob of a layout."""

    def close(self) -> None:
        """Remove what is unfinished."""
        with contextlib.suppress(OSError):
            self._clear_parts()

    def find_present(self) -> None:
        """
        Hash the blobs that are there. Those that are damaged, or of another size, are written anew.

        Raises DamagedStoreError if something that is no regular file has the name of a blob, OSError.
        """
        self._clear_parts()
        found = []
        for blob in self._selection.blobs:
            status = self._status(blob.digest.hex)
            if status is None:
                continue
            if status.st_size == blob.size:
                found.append(blob)
            else:
                self._repaired.append(blob)
        unknown = sum(blob.size for blob in found if blob.digest not in self._sound)
        if unknown:
            self._progress.phase("verifying sha256 digest", unknown)
        for blob in found:
            if blob.digest in self._sound or self._is_sound(self._blobs, blob.digest.hex, blob):
                # Other programs do not sync what they write.
                self._blobs.sync_entry(blob.digest.hex)
                self._keep(blob)
                self._present.append(blob)
            else:
                self._repaired.append(blob)

    def take_files(self, file_of: Callable[[Descriptor], Path | None]) -> None:
        """
        Clone the files of missing blobs, if the disk can share their bytes, and hash the clones.

        A blob whose file has other bytes stays missing. Raises NoSpaceError unless the rest fits, OSError.
        """
        missing = self.missing
        for wanted in missing:
            path = file_of(wanted.blob)
            if path is not None and not self._cloned(path, wanted.blob, is_first=wanted is missing[0]):
                break
        refuse_lack_of_space(self._blobs, [wanted.size for wanted in self.missing])

    def write_blob(self, wanted: Wanted, chunks: Iterable[Chunk]) -> None:
        """Write one blob. Raises BlobError if the bytes are not the blob, OSError, and what the chunks raise."""
        blob = wanted.blob
        part = blob.digest.hex + PART
        self._layout.unlink(part)
        write_file(self._layout, part, verified(chunks, blob), self._blobs.ownership)
        self._name(blob)

    def write_manifest(self, name: ModelName, raw: bytes) -> None:
        """
        Take one manifest. It is written when all are there.

        Raises IntegrityError unless the selection promises these bytes and all blobs of the manifest are there;
        AmbiguousManifestError, FormatError or LimitError if it must not travel.
        """
        promised = {model.name: model.manifest_digest for model in self._selection.models}
        if promised.get(name) != Digest.of(raw):
            raise IntegrityError(f"manifest of {name}: not the one that was announced")
        manifest = Manifest.parse(raw)
        manifest.refuse_unclear()
        for blob in manifest.blobs:
            if self._held.get(blob.digest) != blob.size:
                raise IntegrityError(f"manifest of {name}: {blob.digest}, {blob.size} bytes: not among the blobs")
        self._manifests[name] = raw

    def write_manifests(self) -> None:
        """Put all manifests and the names of all blobs on the disk. Raises RuntimeError if something is missing."""
        if self.missing or len(self._manifests) != len(self._selection.models):
            raise RuntimeError("a blob or a manifest of the selection was not delivered")
        self._progress.phase("publishing", 0)
        for raw in self._manifests.values():
            manifest = Descriptor(Digest.of(raw), len(raw))
            name = manifest.digest.hex
            status = self._status(name)
            if status and status.st_size == manifest.size and self._is_sound(self._blobs, name, manifest):
                self._blobs.sync_entry(name)
                continue
            self._layout.unlink(name + PART)
            write_file(self._layout, name + PART, [raw], self._blobs.ownership)
            self._name(manifest, is_blob=False)
        self._blobs.sync()

    def end(self) -> None:
        """The index is replaced."""
        self._has_ended = True

    def clear(self, *, keeps_blobs: bool) -> None:
        """Remove what is unfinished, and unless `keeps_blobs` all that was written."""
        with contextlib.suppress(OSError):
            self._clear_parts()
            for name in self._new if not keeps_blobs else ():
                self._blobs.unlink(name)
                self._sound.discard(Digest(name))

    def _clear_parts(self) -> None:
        # Nobody else writes here, so a command that was killed has left them.
        for name in self._layout.names():
            if name.endswith(PART) and Digest.of_text(f"sha256:{name.removesuffix(PART)}"):
                self._layout.unlink(name)

    def _name(self, blob: Descriptor, *, is_blob: bool = True) -> None:
        name = blob.digest.hex
        is_new = self._blobs.lstat(name) is None
        self._layout.rename(name + PART, self._blobs, name)
        self._new += [name] if is_new else []
        if is_blob:
            self._keep(blob)
            self._written.append(blob)

    def _keep(self, blob: Descriptor) -> None:
        self._held[blob.digest] = blob.size
        self._sound.add(blob.digest)

    def _status(self, name: str) -> os.stat_result | None:
        status = self._blobs.lstat(name)
        if status and not stat.S_ISREG(mode_of(status)):
            raise DamagedStoreError(f"{self._blobs.path / name}: expected a regular file")
        return status

    def _is_sound(self, folder: Directory, name: str, blob: Descriptor) -> bool:
        fd = folder.open_file(name)
        try:
            with naming(folder.path / name), watching(blob.digest.short, blob.size, self._progress) as advance:
                hash_file(fd, blob, advance)
        except BlobError:
            return False
        finally:
            os.close(fd)
        return True

    def _cloned(self, path: Path, blob: Descriptor, *, is_first: bool) -> bool:
        """Make a blob by cloning a file. Returns False if the disk cannot do that."""
        part = blob.digest.hex + PART
        self._layout.unlink(part)
        try:
            source = open_to_read(path)
        except FileNotFoundError:
            # Copying says what is missing.
            return True
        try:
            fd = self._layout.create(part)
            try:
                is_clone = clone_file(source, fd)
            except BaseException:
                os.close(fd)
                raise
            finish_file(fd, self._layout.path / part, self._blobs.ownership)
        finally:
            os.close(source)
        if is_clone and is_first:
            self._progress.phase("verifying sha256 digest", sum(wanted.size for wanted in self.missing))
        if is_clone and self._is_sound(self._layout, part, blob):
            self._name(blob)
        else:
            self._layout.unlink(part)
        return is_clone
