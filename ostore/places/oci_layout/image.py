"""
Write models as a container image, to one file that gets its name when it is complete.

The name of a layer is its digest, and stands before its bytes. So the header of each layer is left empty, and is filled
in once the layer is written: every blob is read once, and hashed as itself and as a part of its layer on the way.
Reading it twice would take longer, and the tar could not be of blobs that were verified in the same pass.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import IntegrityError, NoSpaceError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.oci_image import ImagePlan, archive_head, blob_path
from ostore.formats.outcome import Forecast, Outcome, Received
from ostore.formats.selection import Selection, Wanted
from ostore.formats.store_layout import PART
from ostore.formats.tar_header import BLOCK, END_OF_ARCHIVE, member_header, padding
from ostore.streams.chunks import Chunk
from ostore.streams.durable import Directory, naming
from ostore.streams.links import on_any_length
from ostore.streams.space import refuse_full, refuse_too_large
from ostore.streams.verified import hashed_beside, verified
from ostore.streams.writing import GrowingFile, give_name, opened_part, refuse_to_overwrite

# For smaller blobs, a thread costs more time than it saves.
_INLINE_BYTES = 1024 * 1024


class ImageFile:
    """An image to be written to `path`. Until it is complete it is called `NAME.part`, and is locked."""

    def __init__(self, path: Path, *, at: str, replace: bool) -> None:
        """`at` is the folder in the image that becomes the store."""
        self._path = on_any_length(path)
        self._at = at
        self._replace = replace

    def compare(self, selection: Selection) -> Forecast:
        """
        Forecast that everything is written. Raises UsageError if the file exists and is not to be replaced,
        NotFoundError if its folder does not, NoSpaceError.
        """
        refuse_to_overwrite(self._path, replace=self._replace)
        try:
            # What a dead export has left is taken over, so its room is free.
            left = self._path.with_name(self._path.name + PART).lstat().st_size
        except OSError:
            left = 0
        try:
            refuse_full(self._path.parent, ImagePlan(selection, self._at).size - left)
        except NoSpaceError as error:
            error.hint = "export fewer models, or to another disk"
            raise
        return Forecast(dict.fromkeys((model.name for model in selection.models), Outcome.ADDED), selection.blobs)

    def without_clashes(self, selection: Selection) -> Selection:
        """Return the selection: an image begins empty."""
        return selection

    @contextlib.contextmanager
    def receive(self, selection: Selection) -> Iterator[ImageInbox]:
        """
        Yield an inbox. Leaving the block completes the image, syncs it and gives it its name. An exception removes it.

        Raises the errors of `compare`, BusyError if another export writes it, OSError.
        """
        self.compare(selection)
        plan = ImagePlan(selection, self._at)
        part = self._path.name + PART
        with Directory.open(self._path.parent) as directory, opened_part(directory, part, self._path) as fd:
            try:
                with naming(self._path):
                    refuse_too_large(fd, self._path, plan.size)
                    file = GrowingFile(fd)
                    inbox = ImageInbox(file, plan)
                    yield inbox
                    inbox.seal()
                    file.sync()
                    give_name(directory, part, self._path, replace=self._replace)
                inbox.end()
            except BaseException:
                # An error here must not hide the first one.
                with contextlib.suppress(OSError):
                    directory.unlink(part)
                raise


class ImageInbox:
    """Takes blobs in the order of `missing`, then every manifest."""

    def __init__(self, file: GrowingFile, plan: ImagePlan) -> None:
        self._plan = plan
        self._archive = _Archive(file)
        self._archive.write([archive_head()])
        self._expected = [(number, member) for number, layer in enumerate(plan.layers) for member in layer]
        self._done = 0
        self._layers: list[Descriptor] = []
        self._begun: int | None = None
        self._manifests: dict[ModelName, bytes] = {}
        self._has_ended = False

    @property
    def missing(self) -> tuple[Wanted, ...]:
        """The blobs that are not written, in the order of the layers."""
        return tuple(Wanted(member.blob) for _, member in self._expected[self._done :])

    @property
    def received(self) -> Received:
        """The whole selection. Raises RuntimeError before the image has its name."""
        if not self._has_ended:
            raise RuntimeError("an image has no result before it is complete")
        outcomes = dict.fromkeys((model.name for model in self._plan.selection.models), Outcome.ADDED)
        return Received(outcomes, written=self._plan.selection.blobs)

    def held(self, _digest: Digest, /) -> None:
        """Return None: what is written here is not read back."""

    def take_files(self, file_of: Callable[[Descriptor], Path | None]) -> None:
        """Take no file, because a blob becomes a part of the image's file."""

    def write_blob(self, wanted: Wanted, chunks: Iterable[Chunk]) -> None:
        """Write the next blob into its layer. Raises BlobError if the bytes are not the blob, OSError."""
        number, member = self._expected[self._done]
        if wanted.blob.digest != member.blob.digest:
            raise RuntimeError(f"expected {member.blob.digest} next, got {wanted.blob.digest}")
        self._begin(number)
        self._archive.add(member.path, verified(chunks, member.blob), member.blob.size)
        self._done += 1

    def write_manifest(self, name: ModelName, raw: bytes) -> None:
        """Take one manifest. Raises IntegrityError unless the selection promises these bytes, FormatError."""
        promised = {model.name: model.manifest_digest for model in self._plan.selection.models}
        if promised.get(name) != Digest.of(raw):
            raise IntegrityError(f"manifest of {name}: not the one that was announced")
        Manifest.parse(raw).refuse_unclear()
        self._manifests[name] = raw

    def seal(self) -> None:
        """Write the manifests, and all that describes the image. Raises RuntimeError if something is missing."""
        models = self._plan.selection.models
        if self.missing or len(self._manifests) != len(models):
            raise RuntimeError("a blob or a manifest of the selection was not delivered")
        self._begin(len(self._plan.layers) - 1)
        for model, member in zip(models, self._plan.manifests, strict=True):
            self._archive.add(member.path, [self._manifests[model.name]], member.blob.size)
        self._layers.append(self._archive.end_layer())
        for path, content in self._plan.documents(self._layers):
            self._archive.write([member_header(path, len(content)), content, bytes(padding(len(content)))])
        self._archive.write([END_OF_ARCHIVE])

    def end(self) -> None:
        """The image has its name."""
        self._has_ended = True

    def _begin(self, number: int) -> None:
        """Begin a layer, unless it is begun, and end the one before it."""
        if self._begun == number:
            return
        if self._begun is not None:
            self._layers.append(self._archive.end_layer())
        self._begun = number
        self._archive.begin_layer(self._plan.head(number), self._plan.size_of(number))


class _Archive:
    """The tar of the image, and in it the tar of the layer that is being written."""

    def __init__(self, file: GrowingFile) -> None:
        self._file = file
        self._offset = 0
        self._start = 0
        self._size = 0
        self._hasher = hashlib.sha256()

    def write(self, buffers: list[Chunk]) -> None:
        self._offset += self._file.write(buffers)

    def begin_layer(self, head: bytes, size: int) -> None:
        """Begin a layer of `size` bytes, and write its first ones."""
        self._start, self._size, self._hasher = self._offset, size, hashlib.sha256()
        self.write([bytes(BLOCK)])
        self._write_hashed(head)

    def add(self, path: str, chunks: Iterable[Chunk], size: int) -> None:
        """Write a file into the layer. Raises what the chunks raise."""
        self._write_hashed(member_header(path, size))
        if size > _INLINE_BYTES:
            for chunk in hashed_beside(chunks, self._hasher):
                self.write([chunk])
        else:
            for chunk in chunks:
                self._write_hashed(chunk)
        self._write_hashed(bytes(padding(size)))

    def end_layer(self) -> Descriptor:
        """Write the last bytes of the layer, and its name into its header. Returns its digest and size."""
        self._write_hashed(END_OF_ARCHIVE)
        layer = Descriptor(Digest(self._hasher.hexdigest()), self._size)
        if self._offset - self._start - BLOCK != layer.size:
            raise RuntimeError(f"a layer of {self._size} bytes has become another size")
        self.write([bytes(padding(layer.size))])
        self._file.rewrite(member_header(blob_path(layer.digest), layer.size), self._start)
        return layer

    def _write_hashed(self, data: Chunk) -> None:
        self._hasher.update(data)
        self.write([data])
