"""
An OCI image layout as a sink: a new folder, or a layout that is there, whoever wrote it.

Blobs come first, each under its name once it is verified and on the disk. `index.json` is replaced last, so it never
names what is not whole. Until then it is `index.json.part`, and locked.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError, FormatError, LimitError, NoSpaceError, UnsafeError, UsageError
from ostore.formats.manifest import Descriptor
from ostore.formats.name import ModelName
from ostore.formats.oci_layout import BLOBS, INDEX, LAYOUT, ImageIndex, layout_document
from ostore.formats.outcome import Forecast, Outcome
from ostore.formats.selection import LeftOut, Selection
from ostore.formats.store_layout import PART
from ostore.places.oci_layout.folder import LayoutFolder, read_index, refuse_other_versions
from ostore.places.oci_layout.inbox import LayoutInbox
from ostore.streams.durable import Directory, naming, sync_file
from ostore.streams.links import on_any_length
from ostore.streams.owners import Ownership
from ostore.streams.progress import SILENT, Progress
from ostore.streams.source_failure import SourceFailureError
from ostore.streams.writing import opened_part, refuse_missing_folder, write_all, write_file

_FOLDER_MODE = 0o755
# What may lie in a folder before it is a layout: what a command that was killed had begun, and what mke2fs creates.
_NOT_FOREIGN = frozenset({f"{LAYOUT}{PART}", f"{INDEX}{PART}", "lost+found"})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class OciLayoutSink:
    """A layout to write to. It is made if the folder above it is there."""

    def __init__(self, path: Path, *, replace: bool = False, progress: Progress = SILENT) -> None:
        self._path = on_any_length(path)
        self._replace = replace
        self._progress = progress
        # Blobs that were verified before the copying began again without a damaged model.
        self._sound: set[Digest] = set()

    def compare(self, selection: Selection) -> Forecast:
        """
        Return what would become of each model, and the blobs that are missing, judged by size. Nothing is written.

        Raises UsageError if another model has the name and `replace` is not set, or if the folder has files and is no
        layout; NotFoundError without the folder above it; UnsafeError if a name differs from another one only by case;
        DamagedStoreError if something that is no file is in the place of a blob; LimitError if no reader would take
        the index with these models; FormatError, OSError.
        """
        outcomes, _ = self._plan(self._index(), selection)
        folder = LayoutFolder(self._path, str(self._path))
        return Forecast(outcomes, tuple(blob for blob in selection.blobs if not _is_there(folder, blob)))

    def without_clashes(self, selection: Selection) -> Selection:
        """Return the selection without the models whose names differ only by case from one there. They are left."""
        found = dict(_clashes(self._index(), selection))
        return selection.without((LeftOut(str(name), error) for name, error in found.items()), found)

    @contextlib.contextmanager
    def receive(self, selection: Selection) -> Iterator[LayoutInbox]:
        """
        Yield an inbox. Leaving the block puts every model into the index; an exception puts none.

        After an interruption, a failed disk or a damaged blob, finished blobs wait for the next export. After a
        refusal, or on a full disk, nothing new is left; but after a refusal because another program changed the index
        meanwhile, finished blobs stay. Raises what `compare` raises, NoSpaceError, BusyError.
        """
        self.compare(selection)
        with contextlib.ExitStack() as made:
            directory = made.enter_context(self._opened(made))
            index_path = self._path / INDEX
            fd = made.enter_context(opened_part(directory, INDEX + PART, index_path))
            unless_published = made.enter_context(contextlib.ExitStack())
            unless_published.callback(_quietly_unlink, directory, INDEX + PART)
            outcomes, _ = self._plan(self._begin(directory, unless_published), selection)
            blobs = directory
            for name in BLOBS:
                parent, is_new = blobs, blobs.lstat(name) is None
                if is_new:
                    made.callback(_quietly_rmdir, parent, name)
                blobs = made.enter_context(parent.make_child(name, directory.ownership))
            inbox = LayoutInbox(directory, blobs, selection, outcomes, sound=self._sound, progress=self._progress)
            with contextlib.closing(inbox):
                try:
                    inbox.find_present()
                    yield inbox
                    inbox.write_manifests()
                except BaseException as error:
                    inbox.clear(keeps_blobs=not _leaves_nothing(error))
                    raise
            # Other programs hold no lock, and copying may have taken hours. What one of them has put into the index may
            # need blobs that are new here, so they stay even if that index takes no more.
            _, raw = self._plan(self._index_in(directory), selection)
            with naming(index_path):
                directory.ownership.give_file(fd)
                write_all(fd, [raw])
                sync_file(fd)
                directory.rename(INDEX + PART, directory, INDEX)
                # From here on, a file of that name is another command's.
                unless_published.pop_all()
                directory.sync()
            inbox.end()

    def _index(self) -> ImageIndex:
        """Return the index of the layout, or an empty one of a folder that is to become a layout."""
        if not self._path.is_dir():
            if self._path.exists() or self._path.is_symlink():
                raise UsageError(f"{self._path}: expected a folder")
            refuse_missing_folder(self._path.parent)
            return ImageIndex.empty()
        with Directory.open(self._path) as directory:
            return self._index_in(directory)

    def _index_in(self, directory: Directory) -> ImageIndex:
        # Each is looked up by its name. A disk that fails while it lists a folder may leave names out, and entries of
        # others would be lost with an index that seemed not to be there.
        if directory.lstat(LAYOUT) is None:
            if others := sorted({*directory.names()} - _NOT_FOREIGN):
                raise UsageError(
                    f"{self._path}: a folder with other files ({others[0]}), and no OCI image layout",
                    hint="name a folder that is not there yet",
                )
            return ImageIndex.empty()
        if directory.lstat(INDEX) is None:
            # A command that was killed may have left a layout without an index.
            refuse_other_versions(directory, str(self._path))
            return ImageIndex.empty()
        return read_index(directory, str(self._path))

    def _plan(self, index: ImageIndex, selection: Selection) -> tuple[Mapping[ModelName, Outcome], bytes]:
        """Return what becomes of each model, and the bytes of the index with all of them."""
        if selection.requires:
            raise UsageError(f"{self._path}: a layout has to hold every blob")
        for _, error in _clashes(index, selection):
            raise error
        stored: dict[str, set[Descriptor | None]] = {}
        for entry in index.entries:
            if entry.name:
                stored.setdefault(entry.name.folded, set()).add(entry.manifest)
        outcomes = {}
        for model in selection.models:
            there = stored.get(model.name.folded)
            is_same = there == {Descriptor(model.manifest_digest, model.manifest_size)}
            if there and not is_same and not self._replace:
                raise UsageError(
                    f"{model.name}: another model of that name is there", hint="replace=True overwrites it"
                )
            outcomes[model.name] = Outcome.ALREADY_THERE if is_same else Outcome.REPLACED if there else Outcome.ADDED
        manifests = ((model.name, Descriptor(model.manifest_digest, model.manifest_size)) for model in selection.models)
        try:
            return outcomes, index.with_models(manifests).write()
        except LimitError as error:
            raise LimitError(f"{self._path}: {error}", hint="other models fit into another folder") from None

    @contextlib.contextmanager
    def _opened(self, made: contextlib.ExitStack) -> Iterator[Directory]:
        """Open the folder, which is made if it is not there. `made` removes it again if nothing stays in it."""
        if not self._path.is_dir():
            with Directory.open(self._path.parent) as parent:
                owner = parent.ownership
                parent.make_child(self._path.name, Ownership(owner.uid, owner.gid, _FOLDER_MODE)).close()
            made.callback(self._remove_if_empty)
        with Directory.open(self._path) as directory:
            yield directory

    def _remove_if_empty(self) -> None:
        with contextlib.suppress(OSError), Directory.open(self._path.parent) as parent:
            parent.rmdir(self._path.name)

    def _begin(self, directory: Directory, unless_published: contextlib.ExitStack) -> ImageIndex:
        """Return the index, now that the folder is ours alone. A new folder becomes a layout."""
        index = self._index_in(directory)
        if directory.lstat(LAYOUT) is None:
            unless_published.callback(_forget_layout, directory)
            directory.unlink(LAYOUT + PART)
            write_file(directory, LAYOUT + PART, [layout_document()], directory.ownership)
            directory.rename(LAYOUT + PART, directory, LAYOUT)
            directory.sync()
        return index


def _is_there(folder: LayoutFolder, blob: Descriptor) -> bool:
    try:
        folder.refuse(blob)
    except BlobError:
        return False
    return True


def _clashes(index: ImageIndex, selection: Selection) -> Iterator[tuple[ModelName, UnsafeError]]:
    """Yield each name that differs only by case from one in the index."""
    spellings = {entry.name.folded: entry.name for entry in index.entries if entry.name}
    for model in selection.models:
        other = spellings.get(model.name.folded, model.name)
        if other != model.name:
            yield model.name, UnsafeError(f"{model.name}: {other}, which is there, differs from it only by case")


def _forget_layout(directory: Directory) -> None:
    """Remove the file that makes a folder a layout, if no blob has stayed and nothing was published."""
    with contextlib.suppress(OSError):
        if directory.lstat(BLOBS[0]) is None and directory.lstat(INDEX) is None:
            directory.unlink(LAYOUT + PART)
            directory.unlink(LAYOUT)


def _quietly_unlink(directory: Directory, name: str) -> None:
    with contextlib.suppress(OSError):
        directory.unlink(name)


def _quietly_rmdir(directory: Directory, name: str) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir(name)


def _leaves_nothing(error: BaseException) -> bool:
    """Return whether finished blobs are of no use, because the models were refused or the disk is full."""
    if isinstance(error, SourceFailureError):
        error = error.error
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, (UnsafeError, FormatError, LimitError, NoSpaceError, UsageError))
