"""Make bundles by hand, part by part, so that a test can change exactly one part."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import zstandard

from ostore.formats.seek_table import write_table
from ostore.formats.zstd_frame import FrameSpan
from tests.support import CONFIG, MODEL, TEMPLATE, full, sha256

BLOCK = 512
END = bytes(2 * BLOCK)
MAGIC = b"\x28\xb5\x2f\xfd"
GNU = b"ustar  \0"
POSIX = b"ustar\00000"

NAME = full("tiny:latest")
WEIGHTS = b"the weights " * 40
TEXT = b"{{ .Prompt }}"
SETTINGS = b'{"model_format":"gguf","model_family":"test"}\n'


def digest(data: bytes) -> str:
    return f"sha256:{sha256(data)}"


def entry(data: bytes, **changes: object) -> dict[str, Any]:
    return {"digest": digest(data), "size": len(data), **changes}


def layer(media_type: str, data: bytes, **changes: object) -> dict[str, Any]:
    return {"mediaType": media_type, **entry(data), **changes}


def document(**changes: object) -> dict[str, Any]:
    """The good model's manifest, with some keys changed; a key of None is left out."""
    fields: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": layer(CONFIG, SETTINGS),
        "layers": [layer(MODEL, WEIGHTS), layer(TEMPLATE, TEXT)],
        **changes,
    }
    return {key: value for key, value in fields.items() if value is not None}


def dumped(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


@dataclass
class Bundle:
    """
    Everything a bundle is made of, consistent until a test changes a part.

    `manifests` are names, their bytes, and the blobs that the index lists for them.
    """

    blobs: list[bytes] = field(default_factory=lambda: [SETTINGS, WEIGHTS, TEXT])
    manifests: list[tuple[str, bytes, Sequence[bytes]]] = field(
        default_factory=lambda: [(NAME, dumped(document()), (SETTINGS, WEIGHTS, TEXT))]
    )
    files: list[tuple[str, bytes]] = field(default_factory=lambda: [("ostore/note", b"a note\n")])

    def index(self, **changes: object) -> dict[str, Any]:
        return {
            "format": "ostore-bundle",
            "version": 1,
            "creator": "ostore/0.1.0",
            "models": [
                {"name": name, "manifest": entry(raw), "blobs": [digest(blob) for blob in blobs]}
                for name, raw, blobs in self.manifests
            ],
            "blobs": [entry(blob) for blob in self.blobs],
            "requires": [],
            "files": [{"path": path, **entry(data)} for path, data in self.files],
            **changes,
        }

    def parts(self, index: bytes | None = None) -> list[bytes]:
        """
        Every member, header and data, in the order of the format; 0 is the index, 1 the note, 2 to 4 the blobs.

        The manifest of a model that names blobs which are not here is below `ostore/`.
        """
        return [
            member("ostore/bundle.json", dumped(self.index()) if index is None else index),
            *(member(path, data) for path, data in self.files),
            *(member(blob_name(blob), blob) for blob in self.blobs),
            *(
                member(manifest_name(name) if set(blobs) <= set(self.blobs) else f"ostore/{manifest_name(name)}", raw)
                for name, raw, blobs in self.manifests
            ),
        ]


def blob_name(data: bytes) -> str:
    return f"blobs/sha256-{sha256(data)}"


def manifest_name(name: str) -> str:
    path, _, tag = name.rpartition(":")
    return f"manifests/{path}/{tag}"


def octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


def header(
    name: bytes,
    size: bytes,
    *,
    flag: bytes = b"0",
    link: bytes = b"",
    mode: bytes = b"0000644\0",
    owner: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    magic: bytes = GNU,
    checksum: bytes | None = None,
) -> bytes:
    """One tar header with any content; the checksum is right unless given."""
    start = name.ljust(100, b"\0") + mode + owner * 2 + size + mtime
    rest = flag + link.ljust(100, b"\0") + magic
    block = (start + b" " * 8 + rest).ljust(BLOCK, b"\0")
    return block[:148] + (checksum or b"%06o\0 " % sum(block)) + block[156:]


def member(name: str | bytes, data: bytes, *, declared: int | None = None, **fields: bytes) -> bytes:
    """A member; `declared` is the size that its header claims, `fields` are those of `header`."""
    encoded = name.encode() if isinstance(name, str) else name
    size = octal(len(data) if declared is None else declared, 12)
    before = b""
    if len(encoded) > 100:
        before = header(b"././@LongLink", octal(len(encoded) + 1, 12), flag=b"L") + padded(encoded + b"\0")
    return before + header(encoded[:100], fields.pop("size", size), **fields) + padded(data)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def tar(parts: Iterable[bytes]) -> bytes:
    return b"".join(parts) + END


def large(size: int) -> bytes:
    """A size field in base-256."""
    return b"\x80" + size.to_bytes(11, "big")


def frame(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_content_size=True, write_checksum=False).compress(content)


def framed(contents: Iterable[bytes]) -> bytes:
    """A whole bundle file of these frame contents, its seek table right."""
    return sealed((frame(content), len(content)) for content in contents)


def sealed(frames: Iterable[tuple[bytes, int]]) -> bytes:
    """Frames as they are, each with the content size that the seek table claims for it."""
    listed = list(frames)
    spans = [FrameSpan(len(data), size) for data, size in listed]
    return b"".join(data for data, _ in listed) + write_table(spans)


def compressed(stream: bytes) -> bytes:
    """A tar stream as a bundle file, cut every 8 MiB."""
    step = 8 * 1024 * 1024
    return framed(stream[start : start + step] for start in range(0, len(stream), step))


def run_length_frame(content_size: int, *, blocks: int | None = None, block_size: int = 128 * 1024) -> bytes:
    """Zeros as RLE blocks; by default as many as the content size says."""
    count = -(-content_size // block_size) if blocks is None else blocks
    pieces = [MAGIC + b"\xe0" + content_size.to_bytes(8, "little")]
    left = content_size
    for number in range(count):
        size = block_size if blocks is not None else min(block_size, left)
        left -= size
        pieces.append((size << 3 | 1 << 1 | (number == count - 1)).to_bytes(3, "little") + b"\0")
    return b"".join(pieces)


def skippable(size: int, *, declared: int | None = None, kind: int = 0) -> bytes:
    length = size if declared is None else declared
    return bytes([0x50 + kind]) + b"\x2a\x4d\x18" + length.to_bytes(4, "little") + bytes(size)
