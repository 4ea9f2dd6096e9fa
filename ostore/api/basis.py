"""
Open whatever says what the other side has: an inventory, a bundle, a layout, a store's folder or a lock.

A lock lists manifests without their blobs, so it says as much as the near store, which may have those manifests.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from ostore.api.addresses import opened_bundle, opened_source
from ostore.api.inventory import take_inventory
from ostore.api.typed import OCI, refuse_address
from ostore.api.volumes import volumes_of
from ostore.formats.digest import Digest
from ostore.formats.errors import FormatError, NotFoundError, OstoreError, UsageError
from ostore.formats.inventory import MAX_INVENTORY_BYTES, HeldBlob, HeldModel, Inventory
from ostore.formats.lock_file import MAX_LOCK_BYTES, LockedModel, LockFile
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.remedy import ostore
from ostore.formats.wording import listed
from ostore.places.oci_layout.layout import OciLayout
from ostore.places.store.store import LocalStore
from ostore.streams.bytes_at import BytesAt, Held, nothing_held
from ostore.streams.chunks import read_until_full
from ostore.streams.document import PEEK_BYTES, is_document, read_document
from ostore.streams.durable import naming
from ostore.streams.links import on_any_length, open_to_read
from ostore.streams.open_blobs import OpenBlobs
from ostore.streams.terminal import is_terminal

Kind = Literal["inventory", "bundle", "layout", "store", "lock"]


@dataclass(frozen=True, slots=True)
class Basis:
    """
    What a place has, as `label` says it, valid until the block that opened it ends.

    `unresolved` are the lines of a lock whose manifests the near store does not have: which blobs they name is not
    known. `bytes_of` gives the bytes of a blob that is at hand, in the near store before any other place.
    """

    label: str
    kind: Kind
    inventory: Inventory
    unresolved: tuple[LockedModel, ...] = ()
    bytes_of: Held = nothing_held

    def require_resolved(self) -> Basis:
        """Return the basis itself. Raises NotFoundError, which names each model, if a lock is not resolved."""
        if self.unresolved:
            names = listed([f"{model.name} ({model.digest})" for model in self.unresolved])
            raise NotFoundError(
                f"{self.label}: not in the store, so nothing says which blobs they have: {names}",
                hint=ostore("inventory", before="on the other side", after="says what it has, without this store"),
            )
        return self


@contextlib.contextmanager
def opened_basis(word: str | Path, *, near: LocalStore, jobs: int) -> Iterator[Basis]:
    """
    Open what a word stands for: a folder is a store, `oci:DIR` a layout, `-` an inventory or a lock on standard input,
    the rest are files.

    `near` is the store of this side, which need not exist. Raises NotFoundError, UsageError, OSError, and FormatError,
    IntegrityError, UnsafeError or LimitError for a hostile file.
    """
    text = str(word)
    refuse_address(text)
    with contextlib.ExitStack() as opened:
        basis = _opened(text, near, jobs, opened)
        yield replace(basis, bytes_of=partial(_first, (_bytes_in(near, opened), basis.bytes_of)))


@contextlib.contextmanager
def opened_bases(words: Sequence[str | Path], *, near: LocalStore, jobs: int) -> Iterator[tuple[Basis, ...]]:
    """Open several as `opened_basis` does. Each lock must be resolved."""
    with contextlib.ExitStack() as opened:
        yield tuple(opened.enter_context(opened_basis(word, near=near, jobs=jobs)).require_resolved() for word in words)


def read_lock(word: str | Path) -> LockFile:
    """Read a lock file; `-` is standard input. Raises NotFoundError, UsageError, FormatError, UnsafeError, OSError."""
    text = str(word)
    refuse_address(text)
    with _reading(text) as read, _naming(text):
        return LockFile.parse(read_document(read, MAX_LOCK_BYTES))


def refuse_empty(label: str, lock: LockFile) -> LockFile:
    """Return the lock itself. Raises FormatError if it has no model: it was cut off, or was never written."""
    if not lock.models:
        hint = ostore("lock", before="on the side that keeps it", after="prints one")
        raise FormatError(
            f"{label}: lock: expected a line 'sha256:<digest>  <full name>', got none",
            hint=replace(hint, is_elsewhere=True),
        )
    return lock


def _opened(text: str, near: LocalStore, jobs: int, opened: contextlib.ExitStack) -> Basis:
    if text != "-" and os.path.isdir(text):  # noqa: PTH112 - a word, too long for a path perhaps
        store = LocalStore(Path(text), label=text).require_whole()
        return Basis(text, "store", take_inventory(store)[0], bytes_of=_bytes_in(store, opened))
    if text.startswith(OCI):
        source = opened.enter_context(opened_source(text, jobs=jobs))
        if isinstance(source, OciLayout):
            blobs = opened.enter_context(contextlib.closing(OpenBlobs(source.opened_blob)))
            return Basis(text, "layout", Inventory.of_selection(source.select(())), bytes_of=blobs.held)
    # A file of a set of volumes is no document, and the name of the set is that of no file.
    if text == "-" or volumes_of(text) is None:
        with _reading(text) as read:
            start = read_until_full(read, PEEK_BYTES)
            if text == "-" or is_document(start):
                with _naming(text):
                    raw = read_document(read, MAX_INVENTORY_BYTES, start)
                    found = Inventory.parse(raw) if raw.lstrip().startswith(b"{") else LockFile.parse(raw)
                if isinstance(found, Inventory):
                    return Basis(text, "inventory", found)
                return _of_lock(text, refuse_empty(text, found), near)
    bundle = opened.enter_context(opened_bundle(text, jobs=jobs))
    near_bytes = _bytes_in(near, opened)
    return Basis(
        text,
        "bundle",
        Inventory.of_selection(bundle.index.selection),
        bytes_of=lambda digest: bundle.bytes_of(digest, near_bytes),
    )


def _of_lock(label: str, lock: LockFile, near: LocalStore) -> Basis:
    stored = _stored(near)
    return Basis(
        label,
        "lock",
        Inventory.of(
            (_held(model, stored.get(model.digest)) for model in lock.models),
            _blobs(stored[model.digest] for model in lock.models if model.digest in stored),
        ),
        tuple(model for model in lock.models if model.digest not in stored),
    )


def _stored(near: LocalStore) -> Mapping[Digest, Manifest]:
    """Return the manifests of the near store by digest."""
    return {model.manifest.digest: model.manifest for model in near.scan().models} if near.exists else {}


def _held(model: LockedModel, manifest: Manifest | None) -> HeldModel:
    if manifest is None:
        return HeldModel(model.name, Descriptor(model.digest, 0), ())
    blobs = tuple(blob.digest for blob in manifest.blobs)
    return HeldModel(model.name, Descriptor(model.digest, len(manifest.raw)), blobs)


def _blobs(manifests: Iterable[Manifest]) -> Iterable[HeldBlob]:
    return {blob.digest: HeldBlob(blob.digest, blob.size) for one in manifests for blob in one.blobs}.values()


@contextlib.contextmanager
def _reading(text: str) -> Iterator[Callable[[int], bytes]]:
    """Open a file that a person names, or standard input, and yield what reads it."""
    if text == "-":
        if is_terminal(0):
            raise UsageError("standard input is a terminal", hint="append < FILE to the command to read a file")
        yield partial(os.read, 0)
        return
    try:
        fd = open_to_read(on_any_length(Path(text)))
    except (FileNotFoundError, NotADirectoryError):
        what = "expected an inventory, a bundle, a lock or the folder of a store"
        raise NotFoundError(f"{text}: no such file; {what}", hint="is the disk mounted?") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(f"{text}: not a regular file", hint="to read a pipe, name '-'")
        with naming(Path(text)):
            yield partial(os.read, fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _naming(label: str) -> Iterator[None]:
    """Put the name of a file in front of its errors."""
    try:
        yield
    except OstoreError as error:
        error.args = (f"{label}: {error}",)
        raise


def _bytes_in(store: LocalStore, opened: contextlib.ExitStack) -> Held:
    """Return what opens a blob of a store until `opened` is closed, or finds none."""
    return opened.enter_context(contextlib.closing(OpenBlobs(store.opened_blob))).held


def _first(places: Iterable[Held], digest: Digest, /) -> BytesAt | None:
    return next((found for held in places if (found := held(digest)) is not None), None)
