"""Keep on this machine how far uploads have come. Without it, a push works and begins anew after a kill."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError
from ostore.formats.upload_state import MAX_STATE_BYTES, UploadState, upload_file_name
from ostore.places.registry.user_files import read_user_file
from ostore.streams.durable import Directory
from ostore.streams.writing import make_private_folder, write_whole


class UploadStates:
    """
    The states of all uploads of one person, a file for each, in `folder`. None keeps nothing.

    A folder that cannot be read or written is no reason to fail: nothing here decides what a registry gets.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, base: str, repository: str, digest: Digest) -> UploadState | None:
        if self._folder is None:
            return None
        with suppress(OSError, OstoreError):
            raw = read_user_file(self._folder / upload_file_name(base, repository, digest), MAX_STATE_BYTES)
            return None if raw is None else UploadState.parse(raw)
        return None

    def write(self, base: str, repository: str, digest: Digest, state: UploadState) -> None:
        if self._folder is None:
            return
        with suppress(OSError, OstoreError):
            # A location may be as good as a password.
            make_private_folder(self._folder)
            write_whole(self._folder / upload_file_name(base, repository, digest), state.write(), replace=True)

    def forget(self, base: str, repository: str, digest: Digest) -> None:
        if self._folder is None:
            return
        with suppress(OSError), Directory.open(self._folder) as folder:
            folder.unlink(upload_file_name(base, repository, digest))
