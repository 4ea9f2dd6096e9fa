"""
How far an export has come: the file `NAME.part.state` beside an unfinished bundle `NAME.part`.

It lies on a medium, so it is parsed strictly and its own SHA-256 is checked: a false number in it would make a false
bundle. One line of JSON comes first, then the seek table of the frames that are on the disk (none in a `.tar`), then
the SHA-256 of all that, in hexadecimal.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ostore.formats import seek_table
from ostore.formats.digest import Digest
from ostore.formats.errors import FormatError, InvalidBundleError, LimitError
from ostore.formats.json_reading import read_strict_json, write_canonical_json
from ostore.formats.zstd_frame import FrameSpan

_SCHEMA = "ostore.export-state/1"
_KEYS = {"schema", "head", "made_by", "offset", "cut", "volumes", "damaged"}
_CUT_KEYS = {"size", "digest"}
# Room for the digests of all volumes that a set may have.
_MAX_LINE_BYTES = 128 * 1024
_SUM_BYTES = 64
MAX_STATE_BYTES = _MAX_LINE_BYTES + seek_table.MAX_TABLE_BYTES + _SUM_BYTES
_MAX_INT64 = 2**63 - 1
# Whoever goes on hashes these first.
MAX_DAMAGED = 100


@dataclass(frozen=True, slots=True)
class CutBlob:
    """The first `size` bytes of the blob that was being written, and their digest."""

    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class ExportState:
    """
    What of an export is on the disk for certain.

    `head` is the digest of everything in the archive before the first blob, so it stands for the selection. `made_by`
    says what decides the bytes of a frame. `offset` bytes of the archive are written, in frames of `spans`, or plain if
    there are none. All blobs before there are verified, but for the last one if it is `cut`. `volumes` are the digests
    of the volumes that are full, if the bundle is cut into any. `damaged` are blobs that could not be read, so that the
    models with them are not in the selection.
    """

    head: Digest
    made_by: str
    offset: int
    spans: tuple[FrameSpan, ...]
    cut: CutBlob | None
    volumes: tuple[Digest, ...] = ()
    damaged: tuple[Digest, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of the file that are written."""
        return sum(span.size for span in self.spans) if self.spans else self.offset

    @classmethod
    def parse(cls, raw: bytes) -> ExportState:
        """Read the bytes of a state file. Raises FormatError, LimitError."""
        if len(raw) > MAX_STATE_BYTES:
            raise LimitError(f"state: expected at most {MAX_STATE_BYTES} bytes")
        body, declared = raw[:-_SUM_BYTES], raw[-_SUM_BYTES:]
        _expect(declared == _sum(body), "the SHA-256 of what comes before it")
        line, newline, table = body.partition(b"\n")
        _expect(newline and len(line) < _MAX_LINE_BYTES, "one short line")
        document = read_strict_json(line)
        _expect(isinstance(document, dict) and document.keys() == _KEYS, "keys of a state")
        _expect(document["schema"] == _SCHEMA, _SCHEMA)
        _expect(isinstance(document["made_by"], str), "what made it")
        spans = seek_table.read_table(table) if table else ()
        offset, cut = _number(document["offset"]), document["cut"]
        _expect(not table or sum(span.content_size for span in spans) == offset, "frames that end at the offset")
        if cut is not None:
            _expect(isinstance(cut, dict) and cut.keys() == _CUT_KEYS, "keys of a cut blob")
            cut = CutBlob(_number(cut["size"]), Digest.parse(cut["digest"]))
        _expect(isinstance(document["volumes"], list) and isinstance(document["damaged"], list), "lists of digests")
        volumes, damaged = (tuple(map(Digest.parse, document[key])) for key in ("volumes", "damaged"))
        _expect(len(damaged) <= MAX_DAMAGED, f"at most {MAX_DAMAGED} damaged blobs")
        return cls(Digest.parse(document["head"]), document["made_by"], offset, spans, cut, volumes, damaged)

    def write(self) -> bytes:
        """Return the bytes of the state file."""
        cut = self.cut and {"size": self.cut.size, "digest": str(self.cut.digest)}
        document = {"schema": _SCHEMA, "head": str(self.head), "made_by": self.made_by, "offset": self.offset}
        lists = {"volumes": list(map(str, self.volumes)), "damaged": list(map(str, self.damaged))}
        body = write_canonical_json({**document, "cut": cut, **lists})
        body += seek_table.write_table(self.spans) if self.spans else b""
        return body + _sum(body)


def _sum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MAX_INT64:
        raise FormatError(f"state: expected a number of bytes, got {value!r:.40}")
    return value


def _expect(is_so: object, what: str) -> None:
    if not is_so:
        raise InvalidBundleError(f"state: expected {what}")
