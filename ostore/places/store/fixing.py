"""
Fixing a store without losing anything: odd entries are set aside, old names become new ones, owners are put right.

Every step looks again before it acts, under the lock of the store and through open folders: a server without locks may
have written a manifest meanwhile, and somebody may have put a link in the way.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, OstoreError
from ostore.formats.name import ModelName
from ostore.formats.store_layout import COMING_MANIFESTS, MANIFESTS, QUARANTINE
from ostore.places.store.survey.examination import leads_nowhere
from ostore.places.store.workspace import Workspace
from ostore.streams.durable import Directory

_TREES = frozenset({"blobs", MANIFESTS, COMING_MANIFESTS})
Action = Literal["set-aside", "rename", "give"]


@dataclass(frozen=True, slots=True)
class Fix:
    """
    One step; `path` is relative to the store.

    `set-aside` moves an entry into the quarantine, below the path that it had; `rename` gives a blob its name of today;
    `give` gives an entry the owner and the mode that the store's new files have. `target` is the path that it has
    afterwards, if that is another one. `outcome` is empty for a plan, else `fixed` or why not.
    """

    action: Action
    path: str
    target: str = ""
    outcome: str = ""


def fix_store(root: Path, steps: Sequence[Fix]) -> tuple[Fix, ...]:
    """
    Take these steps, each with its outcome. One that cannot be taken does not keep the others from it.

    Raises BusyError, UnsafeError, and OSError if the store cannot be written to at all.
    """
    with (
        Directory.open(root) as directory,
        contextlib.closing(Workspace.open(directory)) as workspace,
        workspace.locked(),
    ):
        fixer = _Fixer(root, workspace)
        return tuple(fixer.take(step) for step in steps)


class _Fixer:
    def __init__(self, root: Path, workspace: Workspace) -> None:
        self._root = root
        self._workspace = workspace
        self._folder = f"doctor-{os.urandom(4).hex()}"

    def take(self, step: Fix) -> Fix:
        actions = {"set-aside": self._set_aside, "rename": self._rename, "give": self._give}
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
        """As server/fixblobs.go of ollama at fb30760, but never over a file that is there."""
        digest = Digest.tolerate(step.path.rpartition("/")[2])
        with self._opened(["blobs"]) as blobs:
            if blobs.lstat(digest.filename) is not None:
                raise DamagedStoreError("a blob of the new name is there by now")
            blobs.rename(str(digest), blobs, digest.filename)
            blobs.sync()
        return replace(step, outcome="fixed")

    def _give(self, step: Fix) -> Fix:
        *parts, name = step.path.split("/")
        with self._opened(parts) as folder:
            status = folder.lstat(name)
            if status is not None and stat.S_ISDIR(status.st_mode):
                with folder.child(name) as child:
                    if child.fd is not None:
                        self._workspace.ownership.give_directory(child.fd)
            else:
                self._give_file(folder, name)
            changed = folder.lstat(name)
        is_same = status is not None and changed is not None and _rights(status) == _rights(changed)
        return replace(step, outcome="only root or its owner may do that" if is_same else "fixed")

    def _give_file(self, folder: Directory, name: str) -> None:
        fd = folder.open_file(name)
        try:
            # A second name may be a file of somebody else, linked here so that root gives it away.
            if os.fstat(fd).st_nlink > 1:
                raise DamagedStoreError("the file has a second name elsewhere")
            self._workspace.ownership.give_file(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _opened(self, parts: Sequence[str]) -> Iterator[Directory]:
        """A folder of the store. The first part may be a link, as people make them; none below it may."""
        first, *below = parts
        if first not in _TREES:
            raise DamagedStoreError("not a place that ostore fixes")
        with contextlib.ExitStack() as opened:
            folder = opened.enter_context(Directory.open(self._root / first))
            for part in below:
                folder = opened.enter_context(folder.child(part))
            yield folder

    @contextlib.contextmanager
    def _quarantine(self, parts: Sequence[str]) -> Iterator[Directory]:
        """The folder for what lay under `parts`; the same path below it says whence things came."""
        with contextlib.ExitStack() as opened:
            folder = self._workspace.directory
            for part in (QUARANTINE, self._folder, *parts):
                folder = opened.enter_context(folder.make_child(part, self._workspace.ownership))
            yield folder


def _refuse_unless_odd(root: Path, folder: Directory, path: str) -> None:
    """Raises DamagedStoreError unless it still is a link that leads nowhere, an empty file, or under no name."""
    *_, name = path.split("/")
    status = folder.lstat(name)
    if status is None:
        raise DamagedStoreError("gone meanwhile")
    if stat.S_ISLNK(status.st_mode):
        if _is_name(path) and not leads_nowhere(root / path):
            raise DamagedStoreError("the link leads somewhere, or where we may not look")
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
