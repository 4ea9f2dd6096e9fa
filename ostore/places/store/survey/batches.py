"""Look into the trash of a store. It has one folder for each removal, with the record of what is removed."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, OstoreError
from ostore.formats.json_reading import read_strict_json
from ostore.formats.store_layout import TRASH
from ostore.places.store.survey.scan import read_small_file
from ostore.streams.links import is_link

# The record of a removal, until it is finished, and afterwards if its blobs are kept.
UNFINISHED_RECORD = "plan.json"
KEPT_RECORD = "kept.json"
# Folders of other names are not ours, and are left alone.
_NAME = re.compile(r"[0-9]{8,}T[0-9]{6}Z-[0-9a-f]{8}")
# Enough for two hundred thousand blobs. Only the record of a removed model lists its blobs.
_MAX_RECORD_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """
    What a removal removes: the full names of the models, and the digests that only they need.

    Its blobs are kept until `expires`, seconds since 1970, or are not kept if that is None.
    """

    models: tuple[str, ...] = ()
    blobs: tuple[Digest, ...] = ()
    expires: float | None = None

    def write(self) -> bytes:
        document = {"blobs": [str(digest) for digest in self.blobs], "expires": self.expires, "models": self.models}
        return json.dumps(document, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> BatchRecord:
        """Read the bytes of a record. Raises OstoreError for bytes that we did not write."""
        document = read_strict_json(raw)
        try:
            blobs = tuple(Digest.parse(text) for text in document["blobs"])
            models = tuple(str(name) for name in document["models"])
            expires = document["expires"]
            return cls(models, blobs, None if expires is None else float(expires))
        except (KeyError, TypeError, ValueError):
            raise DamagedStoreError("trash: a record that is not ours") from None


@dataclass(frozen=True, slots=True)
class FoundBatch:
    """A folder of the trash. `record` is None if there is none that we can read; then its blobs go back."""

    name: str
    record: BatchRecord | None
    is_finished: bool

    def is_expired(self, now: float) -> bool:
        """Return whether a finished removal need not be kept any longer at `now`, seconds since 1970."""
        expires = self.record.expires if self.record else None
        return self.is_finished and expires is not None and expires <= now


def find_batches(workspace: Path) -> tuple[FoundBatch, ...]:
    """Return the folders in the trash of a workspace, oldest first. Nothing is created. Raises OSError."""
    trash = workspace / TRASH
    try:
        names = sorted(os.listdir(trash))  # noqa: PTH208 - names
    except (FileNotFoundError, NotADirectoryError):
        return ()
    ours = (trash / name for name in names if _NAME.fullmatch(name))
    return tuple(_found(folder) for folder in ours if folder.is_dir() and not is_link(folder))


def _found(folder: Path) -> FoundBatch:
    for filename, is_finished in ((UNFINISHED_RECORD, False), (KEPT_RECORD, True)):
        try:
            raw, _ = read_small_file(folder / filename, _MAX_RECORD_BYTES)
            return FoundBatch(folder.name, BatchRecord.parse(raw), is_finished)
        except FileNotFoundError:
            continue
        except (OSError, OstoreError):
            break
    return FoundBatch(folder.name, None, is_finished=False)
