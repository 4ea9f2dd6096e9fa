"""
Say what a file is that is no bundle, and what to type next. Only its first bytes and its name are looked at.

What is found is for a message and decides nothing else. The bytes are hostile, so every decoder has a limit.
"""

from __future__ import annotations

import bz2
import glob
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import zstandard

from ostore.formats import zstd_frame
from ostore.formats.bundle_index import INDEX_PATH
from ostore.formats.errors import FormatError, IntegrityError, InvalidBundleError, LimitError, OstoreError
from ostore.formats.remedy import Remedy, command, ostore, person, pipe
from ostore.formats.store_layout import BLOBS, MANIFESTS
from ostore.formats.tar_header import BLOCK, padding, parse_header
from ostore.streams.frames import decode_frame

# A whole frame of ours, and one byte more.
PEEK_BYTES = zstd_frame.MAX_FRAME_BYTES + 1
# A zstd block has at most 128 KiB, and a frame shows nothing before its first block is complete.
PIPE_PEEK_BYTES = 256 * 1024
_DECODED_BYTES = 64 * 1024
_MEMORY_BYTES = 64 * 1024 * 1024
_SKIPPABLE = b"\x2a\x4d\x18"
_UNFINISHED = ".part"
# `split` and other programs append a number or letters to the name of a part.
# What lies in an OCI image layout, and in no store.
_LAYOUT = ("oci-layout", "blobs/sha256/")
# Of such an archive, what says that it is an image: the list of Docker, and a layer, as a tar or packed.
_DOCKER_LIST = "manifest.json"
_PACKED_LAYERS = (zstd_frame.MAGIC, b"\x1f\x8b")
_PART_NAME = re.compile(r"(.*\.tar(?:\.zst)?\.(?:part-?)?)([0-9]{1,4}|[a-z]{2})", re.IGNORECASE)
_IMPORT = ("ostore", "import", "-")
_UNPACK = "unpack it into a folder, and import the folder"


class _Packed(NamedTuple):
    """How another program compresses: its magic, its name (`-dc` undoes it), and a bounded decoder."""

    magic: bytes
    program: str
    decode: Callable[[bytes], bytes]


def _zstd(start: bytes) -> bytes:
    # pzstd and others begin with a skippable frame, which has its length in bytes 4 to 8.
    if start[1:4] == _SKIPPABLE:
        start = start[8 + int.from_bytes(start[4:8], "little") :]
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MEMORY_BYTES)
    return decompressor.stream_reader(io.BytesIO(start)).read(_DECODED_BYTES)


def _gzip(start: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(start, _DECODED_BYTES)


def _xz(start: bytes) -> bytes:
    return lzma.LZMADecompressor(memlimit=_MEMORY_BYTES).decompress(start, _DECODED_BYTES)


def _bzip2(start: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(start, _DECODED_BYTES)


# What a file is, and the next step. Both are empty if nothing is known.
_Recognised = tuple[str, Remedy | str]
_PACKED = (
    _Packed(zstd_frame.MAGIC, "zstd", _zstd),
    _Packed(b"\x1f\x8b", "gzip", _gzip),
    _Packed(b"\xfd7zXZ", "xz", _xz),
    _Packed(b"BZh", "bzip2", _bzip2),
)
# First bytes of other files: what they are, and what can be done with them.
_OTHERS = (
    (b"7z\xbc\xaf\x27\x1c", "looks like a 7z archive", _UNPACK),
    (b"Rar!", "looks like a rar archive", _UNPACK),
    (
        b"GGUF",
        "looks like a GGUF file, the weights of one model",
        command("ollama", "create", "NAME", "-f", "Modelfile", before="with its path behind FROM in a Modelfile"),
    ),
    # RFC 1740, appendix B. macOS writes `._NAME` beside a file on a stick.
    (b"\0\5\x16\7", "a side file of macOS, without the models", "take the file of the same name without ._ before it"),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, without the file itself",
        command("git", "lfs", "pull", before="in its repository"),
    ),
    (b"<!doctype", "looks like a web page", "download the file itself again"),
    (b"<html", "looks like a web page", "download the file itself again"),
)


def explained(error: OstoreError, start: bytes, path: Path | None) -> OstoreError:
    """
    Return the error that says what a file is and what to type, if its first bytes or its name tell; else the same.

    `start` are its first bytes, up to PEEK_BYTES, and `path` its name, None for a pipe. An error of another class
    becomes an InvalidBundleError if the file is an archive of another program.
    """
    what, hint = _recognised(start, path) if start.strip(b"\0") else _blank(start, path)
    if what:
        label = "" if path is None else f"{path}: "
        return InvalidBundleError(f"{label}{what}", hint=hint)
    if path is not None:
        error.hint = _part_of(path) or error.hint
    return error


def _blank(start: bytes, path: Path | None) -> _Recognised:
    if not start and path is None:
        return "the input is empty", "the program before the pipe may say why"
    hint = (path and _part_of(path)) or "the copy may have been cut off; copy the file again"
    return "there are zeros where a bundle begins" if start else "an empty file", hint


def _recognised(start: bytes, path: Path | None) -> _Recognised:
    """Return what other program's file it is, and the next step; empty if it is none, or one of our own."""
    packed = next((one for one in _PACKED if start.startswith(one.magic)), None)
    if packed is None and start[1:4] == _SKIPPABLE:
        packed = _PACKED[0]
    if packed:
        return _unpacked(packed, start, path)
    if start.startswith(b"PK\x03\x04"):
        return _zip(start, path)
    if start.startswith(b"age-encryption.org"):
        return "looks like a file that age has encrypted", _piped(("age", "-d"), path)
    if start[257:262] == b"ustar" and not _is_bundle(start):
        return _tar("a tar of something else", start, path)
    found = ((what, hint) for magic, what, hint in _OTHERS if start[:30].lower().startswith(magic.lower()))
    return next(found, ("", ""))


def _unpacked(packed: _Packed, start: bytes, path: Path | None) -> _Recognised:
    try:
        inner = packed.decode(start[:PIPE_PEEK_BYTES])
    except (OSError, EOFError, ValueError, MemoryError, lzma.LZMAError, zlib.error, zstandard.ZstdError):
        inner = b""
    is_zstd = packed.program == "zstd"
    undo = (packed.program, "-dc")
    if inner[:4] == zstd_frame.MAGIC or (_is_bundle(inner) and not (is_zstd and _is_ours(start))):
        return f"a bundle that {packed.program} has compressed anew", _piped(undo, path)
    if inner[257:262] == b"ustar" and not _is_bundle(inner):
        return _tar(f"a tar of other files, compressed by {packed.program}", inner, path)
    return ("", "") if is_zstd else (f"looks like {packed.program}, not like a bundle", _piped(undo, path))


def _tar(what: str, start: bytes, path: Path | None) -> _Recognised:
    names = list(_member_names(start))
    if any(name.removeprefix("./").startswith(_LAYOUT) for name in names):
        if _is_image(start):
            return _image(path)
        what = "a tar of an OCI image layout"
        if path is None:
            return what, _UNPACK
        target = _new_folder(path)
        unpack = command("mkdir", target).then(command("tar", "-xf", _no_option(path), "-C", target))
        return what, unpack.then(ostore("import", f"oci:{target}"))
    folder = _store_in(names)
    what = "a tar of a store, made by another program" if folder is not None else what
    if path is None:
        return what, _UNPACK
    target = _new_folder(path)
    unpack = command("mkdir", target).then(command("tar", "-xf", _no_option(path), "-C", target))
    return what, unpack.then(ostore("import", Path(target) / (folder or "")))


def _image(path: Path | None) -> _Recognised:
    what = "a container image"
    if path is None:
        return what, "write it to a file, and name that"
    target = _new_folder(path)
    layout = f"{target.removesuffix('-unpacked')}-layout"
    copy = command("skopeo", "copy", "--preserve-digests", f"oci-archive:{path}", f"oci:{layout}:models")
    unpack = command("umoci", "unpack", "--rootless", "--image", f"{layout}:models", target)
    add = ostore("import", Path(target) / "rootfs/models", after="takes the store out of it, if that is in /models")
    return what, replace(copy.then(unpack).then(add), after=add.after)


def _is_image(start: bytes) -> bool:
    """Whether an archive with a layout is that of an image: models are no tar, and seldom packed."""
    for name, content in _members(start):
        path = name.removeprefix("./")
        is_layer = content[257:262] == b"ustar" or content.startswith(_PACKED_LAYERS)
        if path == _DOCKER_LIST or (path.startswith(_LAYOUT) and is_layer):
            return True
    return False


def _zip(start: bytes, path: Path | None) -> _Recognised:
    # The first entry: the length of its name is at 26, the name at 30 (APPNOTE.TXT 4.3.7).
    name = start[30 : 30 + int.from_bytes(start[26:28], "little")].decode("utf-8", "replace")
    if path is None:
        return "a zip archive", _UNPACK
    if name.endswith((".tar", ".tar.zst")):
        return "a zip archive of a bundle", pipe(("unzip", "-p", _no_option(path), name), _IMPORT)
    target = _new_folder(path)
    folder = _store_in([name])
    if folder is None:
        # The first entry may be the folder that was packed.
        folder = name if name.find("/") == len(name) - 1 else ""
    unpack = command("unzip", "-q", _no_option(path), "-d", target)
    return "a zip archive", unpack.then(ostore("import", Path(target) / folder))


def _is_bundle(start: bytes) -> bool:
    return start.startswith(INDEX_PATH.encode() + b"\0")


def _is_ours(start: bytes) -> bool:
    """
    Whether ostore may have written the first frame of a bundle, even if the file is cut off or damaged.

    The zstd program writes a checksum, no content size, or one large frame. If it writes one frame like ours, that is
    the whole file and holds blobs; ostore ends a frame before the first blob, and writes a table behind the last.
    """
    try:
        span = zstd_frame.measure_frame(start)
        if span is None or span.size != len(start):
            return True
        return not any(name.startswith(f"{BLOBS}/") for name in _member_names(bytes(decode_frame(start))))
    except (FormatError, LimitError):
        return False
    except IntegrityError:
        return True


def _member_names(start: bytes) -> Iterator[str]:
    """Yield the names of the members that begin in these bytes of a tar."""
    return (name for name, _ in _members(start))


def _members(start: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each member that begins in these bytes of a tar, and the first bytes of its content."""
    offset = 0
    while offset + BLOCK <= len(start) and any(block := start[offset : offset + BLOCK]):
        try:
            header = parse_header(block)
        except OstoreError:
            # Other programs write headers that ours never has. The name is in the same place.
            name = block[:100].rstrip(b"\0").decode("utf-8", "replace")
            number = block[124:135].strip(b" \0")
            size = int(number, 8) if re.fullmatch(rb"[0-7]+", number) else len(start)
        else:
            name, size = header.name, header.size
        yield name, start[offset + BLOCK : offset + BLOCK + min(size, BLOCK)]
        offset += BLOCK + size + padding(size)


def _store_in(names: list[str]) -> str | None:
    """Return the folder in an archive that holds a store, or None if no name says so."""
    for name in names:
        parts = Path(name).parts
        for part in (BLOBS, MANIFESTS):
            if part in parts:
                return str(Path(*parts[: parts.index(part)])) if parts.index(part) else ""
    return None


def _piped(undo: tuple[str, ...], path: Path | None) -> Remedy:
    if path is None:
        return person(f"put {' '.join(undo)} in the pipe, before this command")
    return pipe((*undo, _no_option(path)), _IMPORT)


def _new_folder(path: Path) -> str:
    return f"{path.name.partition('.')[0] or 'unpacked'}-unpacked"


def _no_option(path: Path | str) -> str:
    # A name that begins with a dash would be an option.
    return f"./{path}" if str(path).startswith("-") else str(path)


def _part_of(path: Path) -> Remedy | str | None:
    """Return what to type if the name is that of a part of a bundle, or of an unfinished one."""
    if path.name.endswith(_UNFINISHED):
        return "an export has not finished it; run that export again, and it goes on from there"
    if split := _PART_NAME.fullmatch(path.name):
        parts = glob.glob(glob.escape(str(path.with_name(split[1]))) + "?" * len(split[2]))  # noqa: PTH207 - no errors
        return pipe(("cat", *map(_no_option, sorted(parts))), _IMPORT, before="if it is one of several parts")
    return None
