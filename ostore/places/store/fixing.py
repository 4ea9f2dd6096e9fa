"""
Fix a store without losing anything: set odd entries aside, change old names to new ones, correct owners.

Every step looks again before it acts, under the lock of the store and through open folders, because a server without
locks may have written a manifest meanwhile, or a link may have been put in the way.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ostore.formats.digest import blob_digest
from ostore.formats.errors import DamagedStoreError, OstoreError
from ostore.formats.manifest import MAX_MANIFEST_BYTES, Manifest
from ostore.formats.name import ModelName
from ostore.formats.store_layout import COMING_MANIFESTS, MANIFESTS, QUARANTINE, STAGED_MANIFESTS
from ostore.places.store.survey.blob_files import BlobFiles
from ostore.places.store.survey.examination import leads_nowhere
from ostore.places.store.survey.reading import read_manifest_in, read_small_file
from ostore.places.store.workspace import Workspace
from ostore.streams.durable import Directory
from ostore.streams.links import mode_of
from ostore.streams.progress import SILENT, Progress, watching
from ostore.streams.verified import hash_file
from ostore.streams.writing import write_file

_TREES = frozenset({"blobs", MANIFESTS, COMING_MANIFESTS})
Action = Literal["set-aside", "rename", "give", "respell", "place"]


@dataclass(frozen=True, slots=True)
class Fix:
    """
    One step. `path` is relative to the store.

    `set-aside` moves an entry into the quarantine and keeps its path there. `rename` gives a blob today's form of its
    name. `give` gives an entry the owner and mode of new files in the store. `respell` writes the digests of a manifest
    in the form that Ollama looks for, once every blob is hashed; the old bytes go to quarantine, and the ID of the
    model changes. `place` moves a misplaced manifest to `target`, where Ollama looks. `target` is the new path, if any.
    `outcome` is empty in a plan; afterwards it is `fixed` or the reason why not.
    """

    action: Action
    path: str
    target: str = ""
    outcome: str = ""


def fix_store(root: Path, steps: Sequence[Fix], progress: Progress = SILENT) -> tuple[Fix, ...]:
    """
    Take these steps and return each with its outcome. A step that fails does not stop the others.

    Raises BusyError, UnsafeError, and OSError if the store cannot be written to at all.
    """
    # Hashing takes long, so no lock is held. A manifest that changes afterwards is not written.
    respelled = {step.path: respell(root, step.path, progress) for step in steps if step.action == "respell"}
    with (
        Directory.open(root) as directory,
        contextlib.closing(Workspace.open(directory)) as workspace,
        workspace.locked(),
    ):
        fixer = _Fixer(root, workspace, respelled)
        return tuple(fixer.take(step) for step in steps)


class _Fixer:
    def __init__(self, root: Path, workspace: Workspace, respelled: Mapping[str, Respelled | str]) -> None:
        self._root = root
        self._workspace = workspace
        self._respelled = respelled
        self._folder = f"doctor-{os.urandom(4).hex()}"

    def take(self, step: Fix) -> Fix:
        actions = {
            "set-aside": self._set_aside,
            "rename": self._rename,
            "give": self._give,
            "respell": self._respell,
            "place": self._place,
        }
        try:
            return actions[step.action](step)
        except OSError as error:
            return replace(step, outcome=error.strerror or str(error))
        except OstoreError as error:
            return replace(step, outcome=str(error))

    def _set_aside(self, step: Fix) -> Fix:
        *parts, name = step.path.split("/")
        with self._opened(parts) as folder:
            _refuse_unless_odd(self._root, folder, step.path)
            with self._quarantine(parts) as quarantine:
                folder.rename(name, quarantine, name)
                quarantine.sync()
            folder.sync()
        return replace(step, target=f".ostore/{QUARANTINE}/{self._folder}/{step.path}", outcome="fixed")

    def _rename(self, step: Fix) -> Fix:
        """Rename as server/fixblobs.go of ollama at fb30760 does, but never over an existing file."""
        filename = step.path.rpartition("/")[2]
        digest = blob_digest(filename)
        with self._opened(["blobs"]) as blobs:
            if digest is None or blobs.lstat(digest.filename) is not None:
                raise DamagedStoreError("a blob of the new name is there by now")
            blobs.rename(filename, blobs, digest.filename)
            blobs.sync()
        return replace(step, outcome="fixed")

    def _respell(self, step: Fix) -> Fix:
        found = self._respelled[step.path]
        if isinstance(found, str):
            raise DamagedStoreError(found)
        *parts, name = step.path.split("/")
        with self._opened(parts) as folder, self._quarantine(parts) as quarantine:
            if read_manifest_in(folder, name) != found.old:
                raise DamagedStoreError("changed meanwhile")
            # The old bytes are on the disk before the new ones take their place, and these are whole by then.
            write_file(quarantine, name, (found.old,), self._workspace.ownership)
            quarantine.sync()
            with self._staging() as staging:
                write_file(staging, name, (found.new,), self._workspace.ownership)
                staging.rename(name, folder, name)
            folder.sync()
        kept = f".ostore/{QUARANTINE}/{self._folder}/{step.path}"
        return replace(step, target=kept, outcome="fixed")

    def _place(self, step: Fix) -> Fix:
        *parts, name = step.path.split("/")
        *target_parts, tag = step.target.split("/")
        with self._opened(parts) as folder, self._made(target_parts) as target:
            if target.lstat(tag) is not None:
                raise DamagedStoreError("a manifest of that name is there by now")
            Manifest.parse(read_manifest_in(folder, name))
            folder.rename(name, target, tag)
            target.sync()
            folder.sync()
        return replace(step, outcome="fixed")

    def _give(self, step: Fix) -> Fix:
        *parts, name = step.path.split("/")
        with self._opened(parts) as folder:
            status = folder.lstat(name)
            if status is not None and stat.S_ISDIR(mode_of(status)):
                with folder.child(name) as child:
                    child.give(self._workspace.ownership)
            else:
                self._give_file(folder, name)
            changed = folder.lstat(name)
        is_same = status is not None and changed is not None and _rights(status) == _rights(changed)
        return replace(step, outcome="only root or its owner may do that" if is_same else "fixed")

    def _give_file(self, folder: Directory, name: str) -> None:
        fd = folder.open_file(name)
        try:
            # A person may have linked another user's file here to make root change its owner.
            if os.fstat(fd).st_nlink > 1:
                raise DamagedStoreError("the file has a second name elsewhere")
            self._workspace.ownership.give_file(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _opened(self, parts: Sequence[str]) -> Iterator[Directory]:
        """Open a folder of the store. The first part may be a link, because people make such links; no other may."""
        first, *below = parts
        if first not in _TREES:
            raise DamagedStoreError("not a place that ostore fixes")
        with contextlib.ExitStack() as opened:
            folder = opened.enter_context(Directory.open(self._root / first))
            for part in below:
                folder = opened.enter_context(folder.child(part))
            yield folder

    @contextlib.contextmanager
    def _made(self, parts: Sequence[str]) -> Iterator[Directory]:
        """Open a folder of the store, as `_opened` does. Missing ones are created."""
        first, *below = parts
        with contextlib.ExitStack() as opened:
            folder = opened.enter_context(Directory.open(self._root / first))
            for part in below:
                folder = opened.enter_context(folder.make_child(part, self._workspace.ownership))
            yield folder

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Directory]:
        """Open a folder on the disk of `manifests/`, where Ollama looks for no manifest. It is removed at the end."""
        with Directory.open(self._root / MANIFESTS) as manifests:
            with manifests.make_child(STAGED_MANIFESTS, self._workspace.ownership) as staged:
                with staged.make_child(self._folder, self._workspace.ownership) as folder:
                    yield folder
                staged.rmdir(self._folder)
            manifests.rmdir(STAGED_MANIFESTS)

    @contextlib.contextmanager
    def _quarantine(self, parts: Sequence[str]) -> Iterator[Directory]:
        """Open the quarantine folder for entries of the folder `parts`; its path there shows where they come from."""
        with contextlib.ExitStack() as opened:
            folder = self._workspace.directory
            for part in (QUARANTINE, self._folder, *parts):
                folder = opened.enter_context(folder.make_child(part, self._workspace.ownership))
            yield folder


@dataclass(frozen=True, slots=True)
class Respelled:
    """The bytes of a manifest, and what is to take their place."""

    old: bytes
    new: bytes


def respell(root: Path, path: str, progress: Progress) -> Respelled | str:
    """
    Return what a manifest is to become, or why it stays. Every blob that it names is hashed first.

    A blob that is not whole is a reason: nobody knows which of the two is wrong.
    """
    try:
        raw, _ = read_small_file(root / path, MAX_MANIFEST_BYTES)
        manifest = Manifest.parse(raw)
        new = manifest.respelled()
        if new is None or new == raw:
            return "more is wrong with it than the spelling of digests"
        files = BlobFiles(root)
        progress.phase("verifying sha256 digest", sum(blob.size for blob in manifest.blobs))
        for blob in manifest.blobs:
            with files.opened(blob.digest) as fd, watching(blob.digest.short, blob.size, progress) as advance:
                hash_file(fd, blob, advance)
    except OSError as error:
        return error.strerror or str(error)
    except OstoreError as error:
        return str(error)
    return Respelled(raw, new)


def _refuse_unless_odd(root: Path, folder: Directory, path: str) -> None:
    """
    Refuse an entry that is not odd any more. Raises DamagedStoreError.

    An odd entry is a link that leads nowhere, an empty file, or a file or link whose path is not that of a model.
    """
    *_, name = path.split("/")
    status = folder.lstat(name)
    if status is None:
        raise DamagedStoreError("gone meanwhile")
    if stat.S_ISLNK(mode_of(status)):
        if _is_name(path) and not leads_nowhere(root / path):
            raise DamagedStoreError("the link has a target, or cannot be followed")
    elif not stat.S_ISREG(status.st_mode) or (status.st_size and _is_name(path)):
        raise DamagedStoreError("changed meanwhile")


def _is_name(path: str) -> bool:
    try:
        ModelName(*path.split("/")[1:])
    except (OstoreError, TypeError):
        return False
    return True


def _rights(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)
