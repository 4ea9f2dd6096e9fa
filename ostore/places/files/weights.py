"""
Find files of weights in a folder, open them, and read their headers: a GGUF, or the parts of one.

A path was typed by a person or stands in a Modelfile. Links are followed: the Hugging Face cache consists of them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.errors import FormatError, IntegrityError, NotFoundError, TruncatedError, UsageError
from ostore.formats.gguf import Gguf, is_gguf, read_gguf
from ostore.formats.gguf_facts import split_of
from ostore.formats.gguf_split import MergePlan, SplitPart, merged, split_name
from ostore.streams.bytes_at import FileBytes
from ostore.streams.chunks import CHUNK_BYTES
from ostore.streams.links import on_any_length, open_to_read
from ostore.streams.same_file import stamp_of

# What a folder may have in place of a GGUF, in the order in which Ollama looks for it.
_CONVERTED = ("model*.safetensors", "consolidated*.safetensors", "pytorch_model*.bin", "consolidated*.pth")
_NO_CONVERSION = "ostore keeps weights as they are, and does not convert them"
_CONVERT = "convert them with convert_hf_to_gguf.py of llama.cpp, or find the model as GGUF"


@dataclass(frozen=True, slots=True)
class WeightFile:
    """
    One GGUF: its file, or the files of all its parts. `gguf` is its header, that of the first part if there are parts.

    `stamps` tell the files whose headers were read. `plan` says how the parts become one file.
    """

    paths: tuple[Path, ...]
    stamps: tuple[tuple[int, ...], ...]
    gguf: Gguf
    plan: MergePlan | None = None

    @property
    def name(self) -> str:
        """The name of the file, or of the first part."""
        return self.paths[0].name

    @property
    def size(self) -> int:
        """The size in bytes of the file, or of what the parts become."""
        return self.plan.size if self.plan else self.gguf.size

    def refuse_changes(self) -> None:
        """Raises IntegrityError if a path leads to another file by now, or to one that was written to. OSError."""
        for path, stamp in zip(self.paths, self.stamps, strict=True):
            if stamp_of(_status(path)) != stamp:
                raise IntegrityError(f"{path}: changed while it was read")


def find_weights(*paths: Path) -> list[WeightFile]:
    """
    Return the GGUF files that paths stand for: the file, or all of a folder, sorted by name. Parts count as one file.

    A set is known by the names of its parts. Parts without such names, as blobs are, are a set if their headers say so
    and several of them are meant.

    Raises NotFoundError, UsageError for what is neither file nor folder, and for a folder without any GGUF;
    FormatError, TruncatedError and LimitError for a bad GGUF; OSError.
    """
    files = list(dict.fromkeys(file for path in paths for file in _found(on_any_length(path))))
    groups: dict[object, list[Path]] = {}
    for file in files:
        named = split_name(file.name)
        key = (file.parent, named.prefix, named.parts) if named else _unnamed_set(file) if len(files) > 1 else file
        groups.setdefault(key, []).append(file)
    return [_read(group) for group in groups.values()]


def merged_chunks(plan: MergePlan, paths: Sequence[Path], stamps: Sequence[tuple[int, ...]]) -> Iterator[bytes]:
    """Yield the bytes of the parts as one file. Raises IntegrityError if a part is not as its stamp says, OSError."""
    by_name = {path.name: (path, stamp) for path, stamp in zip(paths, stamps, strict=True)}
    with contextlib.ExitStack() as stack:
        parts = []
        for path, stamp in (by_name[name] for name in plan.order):
            parts.append(stack.enter_context(opened_file(path)))
            if parts[-1].stamp != stamp:
                raise IntegrityError(f"{path}: changed while it was read")
        yield plan.header
        for piece in plan.pieces:
            part, at, end = parts[piece.part], piece.offset, piece.offset + piece.size
            while at < end:
                chunk = part.read_at(min(CHUNK_BYTES, end - at), at)
                if not chunk:
                    raise TruncatedError(f"{plan.order[piece.part]}: became shorter while it was read")
                at += len(chunk)
                yield chunk
            if piece.padding:
                yield bytes(piece.padding)
        for part in parts:
            part.refuse_changes()


@contextlib.contextmanager
def opened_file(path: Path) -> Iterator[FileBytes]:
    """Open a regular file, following links, without waiting for a pipe. Raises NotFoundError, UsageError, OSError."""
    _status(path)
    fd = open_to_read(path)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError(f"{path}: expected a regular file")
        yield FileBytes(fd, path)
    finally:
        os.close(fd)


def _status(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{path}: no such file or folder") from None
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{path}: expected a file of weights or a folder, got a pipe or a device")
    return status


def _found(path: Path) -> list[Path]:
    return _in_folder(path) if stat.S_ISDIR(_status(path).st_mode) else _with_siblings(path)


def _unnamed_set(path: Path) -> object:
    """Return what the parts of a set have in common, or the path of a file that is no part."""
    with opened_file(path) as file:
        split = split_of(read_gguf(file.read_at, file.size, str(path))) if is_gguf(file.read_at(4, 0)) else None
    return (path.parent, split.count, split.tensors) if split else path


def _in_folder(folder: Path) -> list[Path]:
    for pattern in _CONVERTED:
        if found := sorted(folder.glob(pattern)):
            raise UsageError(f"{found[0]}: {_NO_CONVERSION}", hint=_CONVERT)
    files = sorted(folder.glob("*.gguf")) or sorted(file for file in folder.glob("*.bin") if _begins_as_gguf(file))
    if not files:
        raise UsageError(f"{folder}: no GGUF file in it")
    return files


def _with_siblings(path: Path) -> list[Path]:
    """Return a file, or all parts of the set that its name says that it belongs to."""
    named = split_name(path.name)
    if named is None or named.parts < 2:  # noqa: PLR2004 - a set of one is whole
        return [path]
    known = ((file, split_name(file.name)) for file in path.parent.iterdir())
    return sorted(file for file, part in known if part and (part.prefix, part.parts) == (named.prefix, named.parts))


def _begins_as_gguf(path: Path) -> bool:
    with opened_file(path) as file:
        return is_gguf(file.read_at(4, 0))


def _read(paths: Sequence[Path]) -> WeightFile:
    with contextlib.ExitStack() as stack:
        opened = [(path, stack.enter_context(opened_file(path))) for path in paths]
        stamps = tuple(file.stamp for _, file in opened)
        for path, file in opened:
            if not is_gguf(head := file.read_at(4, 0)):
                raise _no_gguf(path, head)
        parts = [
            SplitPart(path.name, read_gguf(file.read_at, file.size, str(path)), file.read_at) for path, file in opened
        ]
        if len(parts) == 1 and split_of(parts[0].gguf) is None:
            return WeightFile(tuple(paths), stamps, parts[0].gguf)
        plan = merged(parts)
        first = next(part.gguf for part in parts if part.name == plan.order[0])
        return WeightFile(tuple(paths), stamps, first, plan)


def _no_gguf(path: Path, head: bytes) -> Exception:
    if path.suffix in {".safetensors", ".bin", ".pt", ".pth"} or head[:2] == b"PK":
        return UsageError(f"{path}: not a GGUF: {_NO_CONVERSION}", hint=_CONVERT)
    return FormatError(f"{path}: not a GGUF file: it begins with {head!r}")
