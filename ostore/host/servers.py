"""
Find running Ollama processes: in /proc on Linux, in the list of processes on Windows. A process writes to the store
that it started with.

Nothing here opens a socket. It finds no processes on other systems, and none outside our container. Windows does not
tell which store a process uses.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ostore.host.discovery import store_of_process

# The server, its runners and its clients are all this one program (ollama cmd/cmd.go).
_PROGRAM = "ollama"
_SERVE = b"serve"
_PROCESSES = Path("/proc")
# The kernel adds this to the path of a program that was replaced while it runs (proc_pid_exe(5)).
_DELETED = " (deleted)"
# Linux allows an environment of up to a quarter of the stack. We need a few of its variables.
MAX_ENVIRONMENT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OllamaProcess:
    """
    A running process of the program `ollama`. `environ` is its environment at the start, or None if we may not see it.

    `is_server` is true for `ollama serve`, and false for a client or a process that a server starts; on Windows, where
    we do not see that, it is false only for the latter. `root` leads to the file system that the process sees. `uid`
    is None on Windows.
    """

    pid: int
    uid: int | None
    is_server: bool
    environ: Mapping[str, str] | None
    cwd: Path
    root: Path

    @property
    def store(self) -> Path | None:
        """The store that it uses, by its path as the process sees it. None if unknown."""
        return None if self.environ is None else store_of_process(self.environ, self.cwd)

    @property
    def is_contained(self) -> bool:
        """Whether it has a root file system of its own, as in a container. Its paths then differ from ours."""
        try:
            return not self.root.samefile("/")
        except OSError:
            return False

    def uses(self, store: Path) -> bool:
        """Whether it uses this store. In a container, the store has another path."""
        if self.store is None:
            return False
        seen = self.root / self.store.relative_to("/") if self.is_contained else self.store
        try:
            return seen == store or seen.samefile(store)
        except OSError:
            return False


def ollama_processes(processes: Path = _PROCESSES) -> Iterator[OllamaProcess]:
    """Yield every Ollama process that we can see, in order of process number."""
    if sys.platform == "win32":  # pragma: no cover - Windows
        from ostore.host.toolhelp import running  # noqa: PLC0415 - Windows only

        programs = [process for process in running() if process.program.lower() == f"{_PROGRAM}.exe"]
        ours = {process.pid for process in programs}
        for process in sorted(programs):
            is_server = process.parent not in ours
            yield OllamaProcess(process.pid, None, is_server, None, Path("/"), Path("/"))
        return
    try:
        pids = sorted(int(name) for name in os.listdir(processes) if name.isdecimal())  # noqa: PTH208 - names only
    except OSError:
        return
    for pid in pids:
        folder = processes / str(pid)
        # The process has ended, or is hidden from us.
        with contextlib.suppress(OSError):
            if _is_ollama(folder):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                yield OllamaProcess(
                    pid, folder.stat().st_uid, _SERVE in words, _environ(folder), _cwd(folder), folder / "root"
                )


def sees_ollama(processes: Path = _PROCESSES) -> bool:
    """Whether we can see any Ollama process."""
    return next(ollama_processes(processes), None) is not None


def _is_ollama(process: Path) -> bool:
    with contextlib.suppress(OSError):
        if (process / "comm").read_text(errors="replace").rstrip("\n") == _PROGRAM:
            return True
        # A program can rename itself, but its user and root can still see the path of its file.
        return (process / "exe").readlink().name.removesuffix(_DELETED) == _PROGRAM
    return False


def _environ(process: Path) -> dict[str, str] | None:
    try:
        with (process / "environ").open("rb") as file:
            raw = file.read(MAX_ENVIRONMENT_BYTES)
    except OSError:
        return None
    entries = (entry.partition("=") for entry in os.fsdecode(raw).split("\0"))
    return {name: value for name, assigned, value in entries if assigned}


def _cwd(process: Path) -> Path:
    try:
        return (process / "cwd").readlink()
    except OSError:
        return Path("/")
