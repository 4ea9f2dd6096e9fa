"""
Settled blobs, which need no second look. Nearly all blobs of a store are.

They have one name, the size that manifests promise and the rights that a server needs, so a census drops them at once.
To keep sixty thousand of them, and to go through them for every question, would take as long as to find them.
"""

from __future__ import annotations

import os

from ostore.host.accounts import Account
from ostore.places.store.survey.access import is_plain_file_of
from ostore.places.store.survey.scan import ManifestScan


class SettledBlobs:
    """
    `count` blobs with `size` bytes in total. `settles` finds them while a census is taken.

    They are files of `account`, unless that is None, and their mtime is not later than `now`, seconds since 1970.
    """

    def __init__(self, scan: ManifestScan, account: Account | None, now: float) -> None:
        self.count = 0
        self.size = 0
        self._account = account
        self._now = now
        # The size of each blob; None once it is settled; -1, which no file has, if manifests contradict each other.
        self._promised: dict[str, int | None] = {}
        for model in scan.models:
            for digits, size in model.manifest.sizes:
                filename = f"sha256-{digits}"
                if self._promised.setdefault(filename, size) != size:
                    self._promised[filename] = -1

    def settles(self, filename: str, status: os.stat_result) -> bool:
        """Return whether nothing is wrong with a file in `blobs/`, and count it. Call it once for each file."""
        if (
            self._promised.get(filename) != status.st_size
            or status.st_nlink > 1
            or status.st_mtime > self._now
            or not is_plain_file_of(self._account, status)
        ):
            return False
        self._promised[filename] = None
        self.count += 1
        self.size += status.st_size
        return True

    def has(self, filename: str) -> bool:
        """Return whether this is the file name of a settled blob."""
        return self._promised.get(filename, -1) is None

    @property
    def is_all(self) -> bool:
        """Whether every blob that a manifest promises is settled."""
        return self.count == len(self._promised)
