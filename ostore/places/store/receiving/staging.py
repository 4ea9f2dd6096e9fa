"""Where the manifests of an import wait until all its blobs are there. It is on the disk of `manifests/`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from ostore.formats.errors import DamagedStoreError
from ostore.formats.store_layout import MANIFESTS, STAGED_MANIFESTS, TRANSACTION_MANIFESTS, TRANSACTIONS
from ostore.places.store.workspace import Workspace
from ostore.streams.durable import Directory, remove_tree

_LIVE = "live"


def open_staging(
    root: Directory, workspace: Workspace, transaction: Directory, resources: contextlib.ExitStack
) -> Directory:
    """
    Open a folder for the manifests of one transaction, on the disk of `manifests/`.

    It is in the transaction, unless that is on another disk. Raises DamagedStoreError if `manifests` is a dangling
    link, OSError.
    """
    manifests = opened_if_there(root, MANIFESTS, resources)
    disk = (manifests or root).status().st_dev
    if disk == transaction.status().st_dev:
        return resources.enter_context(transaction.make_child(TRANSACTION_MANIFESTS, workspace.ownership))
    manifests = manifests or resources.enter_context(root.make_child(MANIFESTS, workspace.ownership))
    apart = resources.enter_context(manifests.make_child(STAGED_MANIFESTS, workspace.ownership))
    resources.callback(quietly, manifests.rmdir, STAGED_MANIFESTS)
    _clear_abandoned(apart, workspace)
    name = transaction.path.name
    staging = resources.enter_context(apart.make_child(name, workspace.ownership))
    resources.callback(quietly, remove_tree, apart, name)
    # Ollama removes empty folders below `manifests/` when it starts, and this one may stay unused for long.
    os.close(staging.create(_LIVE))
    return staging


def _clear_abandoned(apart: Directory, workspace: Workspace) -> None:
    """Remove what killed commands have staged here. Their folders in the workspace are gone."""
    staged = apart.names()
    with workspace.directory.child(TRANSACTIONS) as transactions:
        running = transactions.names()
    for name in staged:
        if name not in running:
            quietly(remove_tree, apart, name)


def opened_if_there(root: Directory, name: str, resources: contextlib.ExitStack) -> Directory | None:
    """Open a folder of the store, links followed; None if absent. Raises DamagedStoreError for a dangling link."""
    try:
        return resources.enter_context(Directory.open(root.path / name))
    except FileNotFoundError:
        if root.lstat(name) is not None:
            raise DamagedStoreError(f"{root.path / name}: a link that leads nowhere; is a disk not mounted?") from None
        return None


def quietly(clean: Callable[..., object], *arguments: object) -> None:
    """Clean up and ignore OSError, because it must not become the outcome of the command."""
    with contextlib.suppress(OSError):
        clean(*arguments)
