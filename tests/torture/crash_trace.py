"""Record what a command does to the files below a folder: every call of strace with all its bytes, as values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.torture.tracing import tampering, tracing

# Those that a model can follow; of the others it must be known that they were not made.
_NAMING = (
    "mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat", "rename", "renameat", "renameat2", "unlink",
    "unlinkat", "rmdir",
)  # fmt: skip
_WRITING = ("write", "writev", "pwrite64", "ftruncate", "lseek", "fsync", "fdatasync")
_FOLLOWED = frozenset({*_NAMING, *_WRITING, "openat"})
_NOT_FOLLOWED = (
    "open", "creat", "truncate", "fallocate", "copy_file_range", "sendfile", "splice",
    "pwritev", "pwritev2", "mknod", "mknodat",
)  # fmt: skip
_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_UNFINISHED = " <unfinished ...>"
_CALL = re.compile(r"(\w+)\((.*)\) += (\d+)")
# With `-xx` every text is written like this, so that nothing in it can be taken for anything else.
_TEXT = r"((?:\\x[0-9a-f]{2})*)"
_PATH = re.compile(rf'(?:(?:AT_FDCWD|\d+)<{_TEXT}>, )?"{_TEXT}"')
_HANDLE = re.compile(rf"(\d+)<{_TEXT}>(?!\(deleted\))")
_DATA = re.compile(rf'"{_TEXT}"')


@dataclass(frozen=True)
class Call:
    """
    A call that succeeded, as far as it is about files below the folder: their paths are relative to that.

    `paths` are those that it was given by name, `handle` the path of an open file, `fd` that file's number; `data` what
    it wrote, or what a link says; `arguments` its words for everything else. When it began, `begun` others had ended.
    """

    name: str
    arguments: str
    result: int
    begun: int
    paths: tuple[str, ...] = ()
    handle: str | None = None
    fd: int = -1
    data: bytes = b""


def recording(log: Path, injections: Sequence[str]) -> tuple[str, ...]:
    """Words to put before a command, so that all that is written down; what fails by the injections is not done."""
    # Longer than anything that is written at once.
    whole = ("-y", "-xx", "-s", "100000000")
    return (*tracing(log, (*sorted(_FOLLOWED), *_NOT_FOLLOWED)), *whole, *tampering(injections))


def calls(log: Path, folder: Path) -> Iterator[Call]:
    """Everything that was done below a folder, in the order in which it was done; the folder was the working one."""
    started: dict[str, tuple[str, int]] = {}
    ended = 0
    for line in log.read_text().splitlines():
        match = _LINE.fullmatch(line)
        if not match:
            continue
        thread, text = match.groups()
        begun = ended
        if text.endswith(_UNFINISHED):
            started[thread] = text.removesuffix(_UNFINISHED), ended
            continue
        if resumed := _RESUMED.fullmatch(text):
            start, begun = started.pop(thread)
            text = start + resumed[1]
        # Anything else failed, or was never finished.
        if (done := _CALL.match(text)) and (call := _below(folder, done[1], done[2], int(done[3]), begun)):
            ended += 1
            yield call


def _below(folder: Path, name: str, arguments: str, result: int, begun: int) -> Call | None:
    paths: tuple[str, ...] = ()
    handle, fd = None, -1
    if name in _WRITING:
        match = _HANDLE.match(arguments)
        # A pipe is called `pipe:[5]`, and is in no folder.
        handle = _relative(folder, "/", match[2]) if match else None
        fd = int(match[1]) if match else -1
    else:
        found = (_relative(folder, _plain(base) or str(folder), path) for base, path in _PATH.findall(arguments))
        paths = tuple(path for path in found if path is not None)
    if handle is None and not paths:
        return None
    if name not in _FOLLOWED:
        # A model that leaves out a call would prove too much.
        raise NotImplementedError(f"{name}: the model does not know what it does")
    texts = _DATA.findall(arguments)
    # A link says its first text, and its name is the second.
    texts = texts[:1] if name.startswith("symlink") else texts if "write" in name else []
    data = b"".join(map(_bytes, texts))
    rest = _DATA.sub("", _HANDLE.sub("", arguments))
    fd = result if name == "openat" else fd
    return Call(name, rest, result, begun, paths, handle, fd, data)


def _relative(folder: Path, base: str, path: str) -> str | None:
    """A path below the folder, or None for one elsewhere."""
    full = os.path.normpath(os.path.join(base, _plain(path)))  # noqa: PTH118 - an absolute one stays what it is
    return os.path.relpath(full, folder) if full == str(folder) or full.startswith(f"{folder}/") else None


def _plain(text: str) -> str:
    return os.fsdecode(_bytes(text))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
