"""The folders elsewhere that hold links to a store's blobs (`.ostore/links`): what a removal will break."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ostore.formats.errors import OstoreError
from ostore.formats.link_record import MAX_RECORD_BYTES, parse_folders, write_folders
from ostore.places.store.survey.reading import read_small_file
from ostore.places.store.workspace import Workspace, workspace_path
from ostore.streams.durable import Directory
from ostore.streams.writing import write_file

_LINKS = "links"
_PART = "links.part"


def linked_folders(root: Path) -> tuple[str, ...]:
    """Return the folders, as absolute paths. A list that is absent or cannot be read has none: it only informs."""
    try:
        return parse_folders(read_small_file(workspace_path(root) / _LINKS, MAX_RECORD_BYTES)[0])
    except (OSError, OstoreError):
        return ()


def note_folder(root: Path, folder: str, *, has_links: bool) -> None:
    """
    Remember that a folder has links to this store, or has none any more.

    Raises UnsafeError, BusyError, LimitError, OSError; the folder is not touched.
    """
    if (folder in linked_folders(root)) == has_links:
        return
    with (
        Directory.open(root) as directory,
        contextlib.closing(Workspace.open(directory)) as workspace,
        workspace.locked(),
    ):
        others = {*linked_folders(root)} - {folder}
        raw = write_folders({*others, folder} if has_links else others)
        # It must be possible to read it again.
        parse_folders(raw)
        workspace.directory.unlink(_PART)
        write_file(workspace.directory, _PART, (raw,), workspace.ownership)
        workspace.directory.rename(_PART, workspace.directory, _LINKS)
        workspace.directory.sync()
