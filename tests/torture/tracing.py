"""Stop a program at a chosen system call, or let that call fail, from outside with strace."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")

# What changes a disk or what is on it. `writev` and `write` are told apart, because each counts by itself.
MUTATING = (
    "mkdir", "mkdirat", "openat", "link", "linkat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir",
    "fsync", "fdatasync", "chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat", "lchown", "utimensat", "write",
    "writev", "pwrite64", "ftruncate", "fallocate", "symlinkat", "ioctl", "copy_file_range", "sendfile", "flock",
)  # fmt: skip
READING = (
    "read", "pread64", "preadv", "getdents64", "newfstatat", "fstat", "statx", "readlink", "readlinkat", "lseek",
    "statfs", "fstatfs", "fcntl", "close",
)  # fmt: skip
_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_RELATIVE = re.compile(r'AT_FDCWD, "[^/]')
_WRITING_OPEN = re.compile(r"O_(WRONLY|RDWR|CREAT)")


def recording(log: Path, calls: tuple[str, ...] = MUTATING, injections: tuple[str, ...] = ()) -> tuple[str, ...]:
    """
    Words to put before a command, so that its calls are written down, with the paths of descriptors.

    `injections` are as for `injecting`.
    """
    return (*tracing(log, calls, "-y", *_fast(injections)), *tampering(injections))


def injecting(*injections: str, log: Path | None = None) -> tuple[str, ...]:
    """The same, so that calls are tampered with: `renameat:error=EIO:when=3`. `log` is for `was_met`."""
    quiet = "--quiet=attach,exit,path-resolution,personality,thread-execve"
    calls = sorted(called(injections))
    return (*tracing(log or Path(os.devnull), calls, quiet, *_fast(injections)), *tampering(injections))


def tracing(log: Path, calls: Iterable[str], *options: str) -> tuple[str, ...]:
    """The words with which strace begins to look at these calls."""
    # A question mark: not every system has every call.
    return ("strace", "-f", *options, "-o", str(log), "-e", f"trace={','.join(f'?{call}' for call in calls)}")


def tampering(injections: Sequence[str]) -> Iterator[str]:
    """The words of that alone, for strace."""
    for injection in injections:
        yield from ("-e", f"inject={injection}")


def called(injections: Sequence[str]) -> set[str]:
    """The calls that they are about."""
    return {injection.partition(":")[0] for injection in injections}


def was_met(log: Path, injections: Sequence[str]) -> bool:
    """Whether an injected fault took effect. If one of the faults is a kill, only the kill counts."""
    calls, told = called(injections), log.read_text(errors="replace")
    if _is_kill(injections):
        return "+++ killed by" in told
    hits = (match[2] for line in told.splitlines() if "(INJECTED)" in line and (match := _CALL.match(line)))
    return not calls.isdisjoint(hits)


def _fast(injections: Sequence[str]) -> tuple[str, ...]:
    """The option by which all other calls are made at full speed. With it, strace 6.1 sends no signal."""
    return () if _is_kill(injections) else ("--seccomp-bpf",)


def _is_kill(injections: Sequence[str]) -> bool:
    return any("signal=" in injection for injection in injections)


def points(log: Path, folder: Path, *, reading: bool = False, after: str = "") -> list[tuple[str, int]]:
    """
    Every call that a recorded command made below a folder: its name, and its number as strace counts `when`.

    That is by name and thread; a number that two threads reach is one point. Opening a file to read it counts only if
    `reading`. With the injection `after`, only what came after the call that failed by it.
    """
    has_failed = not after
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, int], None] = {}
    for line in log.read_text(errors="replace").splitlines():
        if not (match := _CALL.match(line)):
            continue
        thread, call, rest = match.groups()
        counts[thread, call] += 1
        if not has_failed:
            has_failed = call == after.partition(":")[0] and "(INJECTED)" in rest
            continue
        is_open_to_read = call == "openat" and not _WRITING_OPEN.search(rest)
        if _is_below(folder, rest) and (reading or not is_open_to_read):
            found[call, counts[thread, call]] = None
    return list(found)


def _is_below(folder: Path, arguments: str) -> bool:
    """Whether a call is about something below its working directory, which is the folder."""
    # `-y` writes that one behind every AT_FDCWD, also before an absolute path.
    told = arguments.replace(f"AT_FDCWD<{folder}>", "AT_FDCWD")
    return f"{folder}/" in told or f"{folder}>" in told or _RELATIVE.match(told) is not None
