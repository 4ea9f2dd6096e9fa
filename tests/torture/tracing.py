"""Stopping a program at a system call of choice, and letting that call fail: with strace, from outside."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

# What changes a disk or what is on it. `writev` and `write` are told apart, because each counts by itself.
MUTATING = (
    "mkdir", "mkdirat", "openat", "link", "linkat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir",
    "fsync", "fdatasync", "chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat", "lchown", "utimensat", "write",
    "writev", "pwrite64", "ftruncate", "fallocate", "symlinkat", "ioctl", "copy_file_range", "sendfile", "flock",
)  # fmt: skip
READING = ("read", "pread64", "preadv", "getdents64", "newfstatat", "fstat", "statx", "readlink", "readlinkat")
_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_RELATIVE = re.compile(r'AT_FDCWD, "[^/]')
_WRITING_OPEN = re.compile(r"O_(WRONLY|RDWR|CREAT)")


def recording(log: Path, calls: tuple[str, ...] = MUTATING) -> tuple[str, ...]:
    """Words to put before a command, so that its calls are written down, with the paths of descriptors."""
    # A question mark: not every system has every call.
    return ("strace", "-f", "-y", "-o", str(log), "-e", f"trace={','.join(f'?{call}' for call in calls)}")


def injecting(*injections: str) -> tuple[str, ...]:
    """The same, so that calls are tampered with: `renameat:error=EIO:when=3`."""
    words = ["strace", "-f", "-o", "/dev/null", "--quiet=attach,exit,path-resolution,personality,thread-execve"]
    for injection in injections:
        words += ["-e", f"inject={injection}"]
    return tuple(words)


def points(log: Path, folder: Path, *, reading: bool = False) -> list[tuple[str, int]]:
    """
    Every call that a recorded command made below a folder: its name, and its number as strace counts `when`.

    That is by name and thread; a number that two threads reach is one point. Opening a file to read it counts only if
    `reading`.
    """
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, int], None] = {}
    for line in log.read_text(errors="replace").splitlines():
        if not (match := _CALL.match(line)):
            continue
        thread, call, rest = match.groups()
        counts[thread, call] += 1
        is_open_to_read = call == "openat" and not _WRITING_OPEN.search(rest)
        if _is_below(folder, rest) and (reading or not is_open_to_read):
            found[call, counts[thread, call]] = None
    return list(found)


def _is_below(folder: Path, arguments: str) -> bool:
    """Whether a call is about something below its working directory, which is the folder."""
    # `-y` writes that one behind every AT_FDCWD, also before an absolute path.
    told = arguments.replace(f"AT_FDCWD<{folder}>", "AT_FDCWD")
    return f"{folder}/" in told or f"{folder}>" in told or _RELATIVE.match(told) is not None
