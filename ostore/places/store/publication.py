"""
Taking models into a store, second half: what makes them visible, in the one order that a crash cannot harm.

1. every staged blob gets its name in `blobs/`, and that folder is synced: at most correct blobs nobody refers to
2. missing manifest folders are made and synced: at most empty folders, which Ollama removes
3. each manifest is renamed to its tag, and its folder synced: from here on the model is there, and complete
4. a look whether every blob still stands, because a server without locks may have removed some meanwhile

An error takes back what was done, in reverse; a crash leaves one of the states above.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, UnsafeError
from ostore.formats.manifest import MAX_MANIFEST_BYTES, digest_shaped
from ostore.formats.name import ModelName
from ostore.places.store.scan import LEGACY_TREE, find_manifests, read_small_file
from ostore.places.store.workspace import PIN, Workspace
from ostore.streams.durable import Directory, write_file

# When to look again, in seconds after the look before.
_SETTLE_SECONDS = (0.0, 0.1, 0.2)
# A server removes empty manifest folders, also those just made for a rename.
_FOLDER_RETRIES = 20
_QUARANTINE = "quarantine"
_FORMER = ".former"
_AGAIN = ".again"


class Publication:
    """One publishing, under the lock of the store."""

    def __init__(self, root: Directory, place: Workspace, transaction: Directory, staging: Directory) -> None:
        self._root = root
        self._place = place
        self._transaction = transaction
        self._staging = staging
        self._undo = contextlib.ExitStack()
        self._placed: list[Digest] = []

    def publish(
        self,
        *,
        staged: Sequence[Digest],
        relied_upon: Sequence[Digest],
        manifests: Sequence[tuple[ModelName, str, bool]],
    ) -> None:
        """
        Place staged blobs, then manifests: name, staged file name, and whether a broken one is to be set aside.

        Raises DamagedStoreError if a blob vanished for good, UnsafeError, OSError; then nothing was published.
        """
        with self._folder("blobs") as blobs, self._folder(LEGACY_TREE) as tree, self._undo:
            self._on_failure(lambda: self._take_back_blobs(blobs))
            self._place_blobs(blobs, staged, relied_upon)
            for name, filename, is_broken in manifests:
                if is_broken:
                    self._set_aside(name)
                self._place_manifest(tree, name, filename)
            if staged or manifests:
                self._settle(blobs, (*staged, *relied_upon))
            self._undo.pop_all()

    @contextlib.contextmanager
    def _folder(self, name: str) -> Iterator[Directory]:
        """`blobs` or `manifests`, links followed; made if it is absent, and gone again if nothing came of it."""
        try:
            folder = Directory.open(self._root.path / name)
        except FileNotFoundError:
            folder = self._root.make_child(name, self._place.ownership)
            self._on_failure(lambda: self._root.rmdir(name))
        with folder:
            yield folder

    def _on_failure(self, take_back: Callable[[], object]) -> None:
        def quietly() -> None:
            # What goes wrong while taking back must not hide why it was taken back.
            with contextlib.suppress(OSError):
                take_back()

        self._undo.callback(quietly)

    def _place_blobs(self, blobs: Directory, staged: Sequence[Digest], relied_upon: Sequence[Digest]) -> None:
        for digest in staged:
            self._place_blob(blobs, digest.filename, digest)
        vanished = [digest for digest in relied_upon if blobs.lstat(digest.filename) is None]
        for digest in vanished:
            self._place_blob(blobs, digest.filename + PIN, digest)
        if staged or vanished:
            blobs.sync()

    def _place_blob(self, blobs: Directory, source: str, digest: Digest) -> None:
        """Give a staged blob (or a pin) its name in `blobs/`, keeping the staged name until the end if possible."""
        if self._transaction.lstat(source) is None:
            raise DamagedStoreError(f"blob {digest}: removed by another program meanwhile")
        # Fresh times: a server's prune goes by them, and a long import began long ago.
        self._transaction.touch(source)
        try:
            is_linked = self._transaction.link(source, blobs, digest.filename)
            self._placed.append(digest)
        except FileExistsError:
            # A damaged blob being healed, or somebody was faster: replace it, because ours is known to be right.
            is_linked = self._transaction.link(source, self._transaction, source + _AGAIN)
            if is_linked:
                self._transaction.rename(source + _AGAIN, blobs, digest.filename)
        if not is_linked:
            self._transaction.rename(source, blobs, digest.filename)

    def _place_manifest(self, tree: Directory, name: ModelName, filename: str) -> None:
        for attempt in range(_FOLDER_RETRIES):
            try:
                with self._tag_folder(tree, name) as folder:
                    self._keep_former(folder, name, filename)
                    self._staging.rename(filename, folder, name.tag)
                    folder.sync()
            except FileNotFoundError:
                if attempt == _FOLDER_RETRIES - 1:
                    raise
            else:
                return

    @contextlib.contextmanager
    def _tag_folder(self, tree: Directory, name: ModelName) -> Iterator[Directory]:
        """The folder of the model's tags; missing ones are made, top down, each synced into its parent."""
        with contextlib.ExitStack() as opened:
            folder = tree
            for part in name.parts[:-1]:
                parent, is_new = folder, folder.lstat(part) is None
                try:
                    folder = opened.enter_context(parent.make_child(part, self._place.ownership))
                except NotADirectoryError:
                    raise UnsafeError(f"{name}: a file or link is in the way: {parent.path / part}") from None
                if is_new:
                    self._on_failure(functools.partial(_remove_empty, parent.path, part))
            yield folder

    def _keep_former(self, folder: Directory, name: ModelName, filename: str) -> None:
        former = filename + _FORMER
        self._staging.unlink(former)
        if folder.lstat(name.tag) is None:
            self._on_failure(lambda: _remove(folder.path, name.tag))
            return
        if not folder.link(name.tag, self._staging, former):
            raw, _ = read_small_file(folder.path / name.tag, MAX_MANIFEST_BYTES)
            write_file(self._staging, former, (raw,), self._place.ownership)
        self._on_failure(lambda: self._put_back(former, folder, name.tag))

    def _put_back(self, former: str, folder: Directory, tag: str) -> None:
        with Directory.open(folder.path) as reopened:
            self._staging.rename(former, reopened, tag)
            reopened.sync()

    def _set_aside(self, name: ModelName) -> None:
        """Keep the bytes of a manifest that nobody can read before it is replaced; an empty one has none."""
        path = self._root.path.joinpath(LEGACY_TREE, *name.parts)
        with contextlib.suppress(FileNotFoundError):
            raw, _ = read_small_file(path, MAX_MANIFEST_BYTES)
            if raw:
                with self._place.directory.make_child(_QUARANTINE, self._place.ownership) as quarantine:
                    kept = f"manifest-{Digest.of(raw).short}-{secrets.token_hex(4)}"
                    write_file(quarantine, kept, (raw,), self._place.ownership)
                    quarantine.sync()

    def _settle(self, blobs: Directory, digests: Sequence[Digest]) -> None:
        for seconds in _SETTLE_SECONDS:
            time.sleep(seconds)
            vanished = [digest for digest in digests if blobs.lstat(digest.filename) is None]
            for digest in vanished:
                names = (digest.filename, digest.filename + PIN)
                source = next((name for name in names if self._transaction.lstat(name)), digest.filename)
                self._place_blob(blobs, source, digest)
            if vanished:
                blobs.sync()

    def _take_back_blobs(self, blobs: Directory) -> None:
        """Remove the blobs that we placed, unless a model needs them by now; called last, manifests are back."""
        entries, _ = find_manifests(self._root.path)
        needed: set[Digest] = set()
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                raw, _ = read_small_file(entry.path, MAX_MANIFEST_BYTES)
                needed |= digest_shaped(raw)
        for digest in self._placed:
            if digest not in needed:
                blobs.unlink(digest.filename)


def _remove(folder: Path, tag: str) -> None:
    with Directory.open(folder) as reopened:
        reopened.unlink(tag)
        reopened.sync()


def _remove_empty(parent: Path, name: str) -> None:
    with Directory.open(parent) as reopened:
        reopened.rmdir(name)
