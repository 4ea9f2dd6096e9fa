"""How far the upload of a blob has come: a small file of ours, so that a killed push goes on where the registry can."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError
from ostore.formats.json_reading import read_strict_json, write_canonical_json

MAX_STATE_BYTES = 64 * 1024
_SCHEMA = "ostore.upload-state/1"


@dataclass(frozen=True, slots=True)
class UploadState:
    """Where to send the rest to, and how many bytes the registry has said that it has."""

    location: str
    offset: int

    def write(self) -> bytes:
        return write_canonical_json({"schema": _SCHEMA, "location": self.location, "offset": self.offset})

    @classmethod
    def parse(cls, raw: bytes) -> UploadState | None:
        """Return the state, or None for other bytes: the upload then begins anew."""
        try:
            document = read_strict_json(raw)
        except OstoreError:
            return None
        if not isinstance(document, dict) or document.get("schema") != _SCHEMA:
            return None
        location, offset = document.get("location"), document.get("offset")
        if not isinstance(location, str) or type(offset) is not int or offset < 0:
            return None
        return cls(location, offset)


def upload_file_name(base: str, repository: str, digest: Digest) -> str:
    """Return the name of the file for one upload. It tells nothing, and no part of it comes from outside."""
    return f"{hashlib.sha256(f'{base}/{repository}@{digest}'.encode()).hexdigest()}.json"
