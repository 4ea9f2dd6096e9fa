"""Return blobs from the trash to the store. Each blob is hashed first, and nothing is overwritten."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ostore.formats.digest import Digest, blob_digest
from ostore.formats.errors import DamagedStoreError, IntegrityError
from ostore.formats.manifest import Descriptor
from ostore.formats.store_layout import BLOBS, TRASH
from ostore.places.store.removing.trash import Batch, opened_trash
from ostore.places.store.survey.batches import find_batches
from ostore.places.store.workspace import Workspace, workspace_path
from ostore.streams.durable import Directory
from ostore.streams.progress import Progress, watching
from ostore.streams.verified import hash_file


class UntrashOutcome(StrEnum):
    """What became, or would become, of one blob in the trash."""

    RESTORED = "restored"
    ALREADY_THERE = "already there"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class KeptBlob:
    """A blob in the trash: its folder there, its file name, and the device and inode of the file."""

    batch: str
    filename: str
    digest: Digest
    size: int
    identity: tuple[int, int]
    is_link: bool = False


def untrash(root: Path, progress: Progress, *, dry_run: bool) -> dict[KeptBlob, UntrashOutcome]:
    """
    Hash every blob in the trash, give it its name in `blobs/` again, and return the outcome of each.

    With `dry_run`, nothing is hashed or changed, and every blob is expected back. Raises BusyError, UnsafeError,
    OSError.
    """
    kept = _find_kept(root)
    sound, back = kept, list(kept)
    if kept and not dry_run:
        sound = tuple(_find_sound(root, kept, progress))
        with (
            Directory.open(root) as directory,
            contextlib.closing(Workspace.open(directory)) as workspace,
            workspace.locked(),
        ):
            back = _bring_back(directory, workspace, sound)
    outcomes = dict.fromkeys(kept, UntrashOutcome.DAMAGED)
    outcomes |= dict.fromkeys(sound, UntrashOutcome.ALREADY_THERE)
    return outcomes | dict.fromkeys(back, UntrashOutcome.RESTORED)


def _find_kept(root: Path) -> tuple[KeptBlob, ...]:
    """Return every blob in the trash of a store, also of interrupted removals. No blob is opened."""
    kept = []
    workspace = workspace_path(root)
    for found in find_batches(workspace):
        with Directory.open(workspace / TRASH / found.name) as folder:
            for name in folder.names():
                digest, status = blob_digest(name), folder.lstat(name)
                if digest and status:
                    identity = (status.st_dev, status.st_ino)
                    kept.append(
                        KeptBlob(found.name, name, digest, status.st_size, identity, stat.S_ISLNK(status.st_mode))
                    )
    return tuple(kept)


def _find_sound(root: Path, kept: Sequence[KeptBlob], progress: Progress) -> list[KeptBlob]:
    """Return the blobs with the right bytes. Hashing takes long, so no lock is held. Raises OSError if a read fails."""
    progress.phase("verifying sha256 digest", sum(blob.size for blob in kept))
    return [blob for blob in kept if _is_sound(root, blob, progress)]


def _bring_back(root: Directory, workspace: Workspace, sound: Iterable[KeptBlob]) -> list[KeptBlob]:
    """
    Give sound blobs their names in `blobs/`, unless these are taken. Return the blobs that are back, on the disk.

    The caller holds the lock. A blob whose file is not the one that was hashed stays.
    """
    chosen: dict[str, list[KeptBlob]] = {}
    for blob in sound:
        chosen.setdefault(blob.batch, []).append(blob)
    back: list[KeptBlob] = []
    with opened_trash(workspace) as trash, _blobs(root, workspace) as blobs:
        for name, kept in chosen.items():
            with contextlib.suppress(FileNotFoundError), contextlib.closing(Batch.reopen(trash, name)) as batch:
                same = {blob.filename: blob for blob in kept if _is_there(batch.directory, blob)}
                back += (same[filename] for filename in batch.return_blobs(blobs, same))
                if not batch.blobs():
                    batch.remove()
        # Sync also for blobs that have their names already: another program may not have synced the folder.
        blobs.sync()
    return back


def _is_there(folder: Directory, blob: KeptBlob) -> bool:
    status = folder.lstat(blob.filename)
    return status is not None and (status.st_dev, status.st_ino) == blob.identity


def _blobs(root: Directory, workspace: Workspace) -> Directory:
    """Open `blobs`, links followed. It is created if absent."""
    if (root.path / BLOBS).exists():
        return Directory.open(root.path / BLOBS)
    return root.make_child("blobs", workspace.ownership)


def _is_sound(root: Path, blob: KeptBlob, progress: Progress) -> bool:
    with Directory.open(workspace_path(root) / TRASH / blob.batch) as folder:
        if blob.is_link:
            # A link has no bytes to hash, and leads to its file only from `blobs/`. It goes back as it was.
            return True
        try:
            fd = folder.open_file(blob.filename)
        except DamagedStoreError:
            return False
    try:
        if (os.fstat(fd).st_dev, os.fstat(fd).st_ino) != blob.identity:
            return False
        with watching(blob.digest.short, blob.size, progress) as advance:
            hash_file(fd, Descriptor(blob.digest, blob.size), advance)
    except IntegrityError:
        return False
    finally:
        os.close(fd)
    return True
