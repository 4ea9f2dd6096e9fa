"""
The second half of taking models in: make them visible, in the one order in which a crash does no harm.

1. give every staged blob its name in `blobs/`, and sync that folder: a crash leaves at most correct, unused blobs
2. create missing manifest folders and sync them: a crash leaves at most empty folders, which Ollama removes
3. rename each manifest to its tag, and sync its folder: from here on the model is there, and complete
4. check that every blob is still there, because a server without locks may have removed some meanwhile

An error undoes these steps in reverse order. A crash leaves one of the states above.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ostore.formats.digest import Digest, blob_filenames
from ostore.formats.errors import DamagedStoreError, OstoreError, UnsafeError, UsageError
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Manifest, mentioned_by
from ostore.formats.name import ModelName
from ostore.formats.store_layout import MANIFESTS, PIN, QUARANTINE
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.places.store.survey.reading import read_manifest_in, read_small_file
from ostore.places.store.workspace import Workspace
from ostore.streams.durable import Directory
from ostore.streams.links import mode_of
from ostore.streams.writing import write_file

# The pauses before each look for vanished blobs, in seconds.
_SETTLE_SECONDS = (0.0, 0.1, 0.2)
# A server removes empty manifest folders when it starts, also one just made for a rename. On a slow disk each try may
# lose against a server that restarts over and over. More tries cost nothing.
_FOLDER_RETRIES = 200
_FORMER = ".former"
_AGAIN = ".again"


@dataclass(frozen=True, slots=True)
class StagedManifest:
    """
    A manifest to publish: its name and the name of its staged file.

    `is_new` says that the store has no manifest of that name, `is_broken` that it has a broken one.
    """

    name: ModelName
    filename: str
    is_new: bool
    is_broken: bool


class Publication:
    """One publishing, under the lock of the store."""

    def __init__(
        self,
        root: Directory,
        workspace: Workspace,
        transaction: Directory,
        staging: Directory,
        *,
        keeps_replaced: bool = False,
    ) -> None:
        """
        With `keeps_replaced`, a file that a staged blob replaces is kept in quarantine.

        `set_aside` lists names in quarantine: of replaced blobs, if these are kept, and always of broken manifests.
        """
        self.set_aside: list[str] = []
        self._keeps_replaced = keeps_replaced
        self._root = root
        self._workspace = workspace
        self._transaction = transaction
        self._staging = staging
        self._undo = contextlib.ExitStack()
        self._placed: list[Digest] = []

    def publish(
        self,
        *,
        staged: Sequence[Digest],
        relied_upon: Sequence[Digest],
        manifests: Sequence[StagedManifest],
        unchanged: Sequence[ModelName],
    ) -> None:
        """
        Place staged blobs, then manifests. Sync what they rely on, and `unchanged` manifests, as well.

        Raises DamagedStoreError if a blob vanished for good, UsageError if another model of the name has come
        meanwhile, UnsafeError, OSError. After an error nothing is published.
        """
        # `_undo` is left first, because undoing needs the folders open.
        with contextlib.ExitStack() as opened, self._undo:
            blobs, tree = (opened.enter_context(self._folder(name)) for name in ("blobs", MANIFESTS))
            self._on_failure(lambda: self._take_back_blobs(blobs))
            self._place_blobs(blobs, staged, relied_upon)
            for manifest in manifests:
                self._place_manifest(tree, manifest)
            for name in unchanged:
                self._sync_manifest(name)
            if staged or manifests:
                self._settle(blobs, (*staged, *relied_upon))
            self._undo.pop_all()

    def _folder(self, name: str) -> Directory:
        """Open `blobs` or `manifests`, links followed. It is created if absent, and removed again after an error."""
        status = self._root.lstat(name)
        if status is not None and stat.S_ISLNK(mode_of(status)):
            return Directory.open(self._root.path / name)
        if status is None:
            self._on_failure(lambda: self._root.rmdir(name))
        return self._root.make_child(name, self._workspace.ownership)

    def _on_failure(self, take_back: Callable[[], object]) -> None:
        def quietly() -> None:
            # An error while taking back must not hide the error that led to it.
            with contextlib.suppress(OSError, OstoreError):
                take_back()

        self._undo.callback(quietly)

    def _place_blobs(self, blobs: Directory, staged: Sequence[Digest], relied_upon: Sequence[Digest]) -> None:
        for digest in staged:
            if self._keeps_replaced:
                self._replace_blob(blobs, digest)
            else:
                self._place_blob(blobs, digest.filename, digest)
        for digest in self._vanished(blobs, relied_upon):
            self._place_blob(blobs, digest.filename + PIN, digest)
        # Sync for the blobs relied upon too: the program that named them, Ollama say, may not have synced the folder.
        blobs.sync()

    def _vanished(self, blobs: Directory, digests: Sequence[Digest]) -> list[Digest]:
        """Return the blobs that are gone, or whose name belongs to another file than the hashed one by now."""
        return [digest for digest in digests if not self._is_ours(blobs.lstat(digest.filename), digest)]

    def _is_ours(self, standing: os.stat_result | None, digest: Digest) -> bool:
        held = next((held for name in _held_names(digest) if (held := self._transaction.lstat(name))), None)
        # Without hard links the transaction holds no second name, so the name in `blobs/` has to suffice.
        return standing is not None and (held is None or os.path.samestat(standing, held))

    def _place_blob(self, blobs: Directory, source: str, digest: Digest) -> None:
        """Give a staged blob (or a pin) its name in `blobs/`. Keep the staged name until the end, if links allow it."""
        if self._transaction.lstat(source) is None:
            raise DamagedStoreError(f"blob {digest}: removed by another program meanwhile")
        # A server's prune goes by the times, and a long import wrote the file long ago.
        self._transaction.touch(source)
        try:
            is_linked = self._transaction.link(source, blobs, digest.filename)
            is_new = is_linked or blobs.lstat(digest.filename) is None
        except FileExistsError:
            # The file is a damaged blob, or another program was faster. Replace it, because ours is known to be right.
            is_new = False
            is_linked = self._transaction.link(source, self._transaction, source + _AGAIN)
            if is_linked:
                self._transaction.rename(source + _AGAIN, blobs, digest.filename)
        if not is_linked:
            self._transaction.rename(source, blobs, digest.filename)
        if is_new:
            self._placed.append(digest)

    def _replace_blob(self, blobs: Directory, digest: Digest) -> None:
        """Place a staged blob, and keep the file that it replaces, whichever form of the name that file has."""
        standing = next((name for name in blob_filenames(digest) if blobs.lstat(name)), None)
        kept = self._keep_aside(blobs, standing, digest) if standing else None
        self._place_blob(blobs, digest.filename, digest)
        if standing:
            # Never take it back: these bytes are right, and those that they replace are not.
            self._placed = [placed for placed in self._placed if placed != digest]
            if standing != digest.filename:
                # A server that starts renames the old form over ours (ollama server/fixblobs.go at fb30760).
                blobs.unlink(standing)
        if kept:
            self.set_aside.append(kept)
            self._give_kept(kept)

    def _keep_aside(self, blobs: Directory, standing: str, digest: Digest) -> str | None:
        """
        Give a file a second name in quarantine, and return that name. The first name is taken at every moment.

        Without hard links the file is renamed instead, and the blob is missing until the new one is placed. None for a
        link: it has no bytes to keep, and its target is left alone.
        """
        status = blobs.lstat(standing)
        if status is None or not stat.S_ISREG(status.st_mode):
            return None
        with self._quarantine() as quarantine:
            # A command that was killed between two steps may have kept it already.
            kept = next(
                (name for name in quarantine.names() if _is_same(quarantine.lstat(name), status)),
                f"{digest.filename}-{os.urandom(4).hex()}",
            )
            self._on_failure(lambda: self._put_back(blobs, standing, kept))
            try:
                if quarantine.lstat(kept) is None and not blobs.link(standing, quarantine, kept):
                    blobs.rename(standing, quarantine, kept)
            except FileNotFoundError:
                # Another program has just removed it.
                return None
            quarantine.sync()
        return kept

    def _put_back(self, blobs: Directory, standing: str, kept: str) -> None:
        with self._quarantine() as quarantine:
            status, now = quarantine.lstat(kept), blobs.lstat(standing)
            if status is not None and now is None:
                quarantine.rename(kept, blobs, standing)
            elif _is_same(now, status):
                quarantine.unlink(kept)

    def _give_kept(self, kept: str) -> None:
        """Give a kept file the owner and mode of the store's files, unless it has another name."""
        with contextlib.suppress(OSError, OstoreError), self._quarantine() as quarantine:
            fd = quarantine.open_file(kept)
            try:
                # A file with a name elsewhere is not ours to give away.
                if os.fstat(fd).st_nlink == 1:
                    self._workspace.ownership.give_file(fd)
            finally:
                os.close(fd)

    def _quarantine(self) -> Directory:
        return self._workspace.directory.make_child(QUARANTINE, self._workspace.ownership)

    def _place_manifest(self, tree: Directory, manifest: StagedManifest) -> None:
        name, filename = manifest.name, manifest.filename
        for attempt in range(_FOLDER_RETRIES):  # pragma: no branch - the last one raises
            try:
                with self._tag_folder(tree, name) as folder:
                    if manifest.is_broken:
                        self._set_aside(folder, name)
                    self._keep_former(tree, folder, manifest)
                    self._staging.rename(filename, folder, name.tag)
                    folder.sync()
            except FileNotFoundError:
                if attempt == _FOLDER_RETRIES - 1:
                    raise
            else:
                return

    @contextlib.contextmanager
    def _tag_folder(self, tree: Directory, name: ModelName) -> Iterator[Directory]:
        """Open the folder of the model's tags. Missing folders are created, top down, each synced into its parent."""
        with contextlib.ExitStack() as opened:
            folder = tree
            for depth, part in enumerate(name.parts[:-1]):
                parent, is_new = folder, folder.lstat(part) is None
                try:
                    folder = opened.enter_context(parent.make_child(part, self._workspace.ownership))
                except NotADirectoryError:
                    raise UnsafeError(f"{name}: a file or link is in the way: {parent.path / part}") from None
                if is_new:
                    self._on_failure(functools.partial(_remove_empty, tree, name.parts[:depth], part))
            yield folder

    def _keep_former(self, tree: Directory, folder: Directory, manifest: StagedManifest) -> None:
        name, former = manifest.name, manifest.filename + _FORMER
        ours = Digest.of(read_manifest_in(self._staging, manifest.filename))
        self._staging.unlink(former)
        if folder.lstat(name.tag) is None:
            self._on_failure(lambda: self._take_back_manifest(tree, name, ours, former=None))
            return
        if manifest.is_new:
            raise _came_meanwhile(name)
        if not folder.link(name.tag, self._staging, former):
            write_file(self._staging, former, (read_manifest_in(folder, name.tag),), self._workspace.ownership)
        self._on_failure(lambda: self._take_back_manifest(tree, name, ours, former=former))

    def _take_back_manifest(self, tree: Directory, name: ModelName, ours: Digest, *, former: str | None) -> None:
        with _reopened(tree, name.parts[:-1]) as folder:
            if Digest.of(read_manifest_in(folder, name.tag)) != ours:
                # Our manifest is not placed yet, or another program has replaced it.
                return
            if former:
                self._staging.rename(former, folder, name.tag)
            else:
                folder.unlink(name.tag)
            folder.sync()

    def _set_aside(self, folder: Directory, name: ModelName) -> None:
        """
        Keep the bytes of a broken manifest in quarantine before it is replaced. An empty one has none to keep.

        The target of a link is not copied, because it may be a file that only we may read. Raises UsageError if the
        manifest can be read by now.
        """
        with contextlib.suppress(FileNotFoundError, DamagedStoreError):
            raw = read_manifest_in(folder, name.tag)
            if _is_manifest(raw):
                # The manifest was being written when it was first read.
                raise _came_meanwhile(name)
            if raw:
                self._keep_manifest(raw)

    def _keep_manifest(self, raw: bytes) -> None:
        # Named by its digest, so there is one copy, however often a command is killed before the rename.
        kept = f"manifest-{Digest.of(raw).hex}"
        self._transaction.unlink(kept)
        write_file(self._transaction, kept, (raw,), self._workspace.ownership)
        with self._quarantine() as quarantine:
            self._transaction.rename(kept, quarantine, kept)
            quarantine.sync()
        self.set_aside.append(kept)

    def _sync_manifest(self, name: ModelName) -> None:
        path = self._root.path.joinpath(MANIFESTS, *name.parts).resolve()
        with Directory.open(path.parent) as folder:
            folder.sync_entry(path.name)
            folder.sync()

    def _settle(self, blobs: Directory, digests: Sequence[Digest]) -> None:
        for seconds in _SETTLE_SECONDS:
            time.sleep(seconds)
            vanished = self._vanished(blobs, digests)
            for digest in vanished:
                source = next((name for name in _held_names(digest) if self._transaction.lstat(name)), digest.filename)
                self._place_blob(blobs, source, digest)
            if vanished:
                blobs.sync()

    def _take_back_blobs(self, blobs: Directory) -> None:
        """
        Remove the blobs that we placed, unless a model needs them by now. Called last, when manifests are back.

        Raises the OSError of a folder that cannot be read: a manifest in it may need any blob.
        """
        stored = find_manifests(self._root.path)
        stored.refuse_closed()
        needed: set[Digest] = set()
        for entry in stored.entries:
            with contextlib.suppress(FileNotFoundError):
                raw, _ = read_small_file(entry.path, MAX_MANIFEST_BYTES)
                needed |= mentioned_by(raw)
        for digest in self._placed:
            if digest not in needed:
                blobs.unlink(digest.filename)


def _held_names(digest: Digest) -> tuple[str, str]:
    """Return the names that a blob may have in the transaction."""
    return digest.filename, digest.filename + PIN


def _is_same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    return one is not None and other is not None and os.path.samestat(one, other)


def _came_meanwhile(name: ModelName) -> UsageError:
    return UsageError(
        f"{name}: another program has just stored a model of that name", hint="run this again, or with replace=True"
    )


def _is_manifest(raw: bytes) -> bool:
    try:
        Manifest.parse(raw)
    except OstoreError:
        return False
    return True


@contextlib.contextmanager
def _reopened(tree: Directory, parts: Sequence[str]) -> Iterator[Directory]:
    """Open a folder below `tree`. No link on the way is followed, because one may have been put there meanwhile."""
    with contextlib.ExitStack() as opened:
        folder = tree
        for part in parts:
            folder = opened.enter_context(folder.child(part))
        yield folder


def _remove_empty(tree: Directory, parts: Sequence[str], name: str) -> None:
    with _reopened(tree, parts) as parent:
        parent.rmdir(name)
