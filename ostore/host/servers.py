"""
Ollama processes that run just now, found in /proc: what they write, they write to the store they began with.

No socket is opened. Elsewhere than on Linux, and for what runs outside of our container, there are none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ostore.host.discovery import store_of_process

# ollama cmd/cmd.go: the server, its runners and its clients are all the one program of this name.
_PROGRAM = "ollama"
_SERVE = b"serve"
_PROCESSES = Path("/proc")
# What the kernel says of a program that was replaced while it runs (proc_pid_exe(5)).
_DELETED = " (deleted)"
# Linux allows an environment as large as a quarter of the stack; what matters of it is two variables.
MAX_ENVIRONMENT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OllamaProcess:
    """
    A process of that program, with what it was started with: `environ` is None if it is not ours to see.

    `is_server` says that it is `ollama serve`, and not what a server starts itself, or a client. `root` leads to the
    file system that it sees.
    """

    pid: int
    uid: int
    is_server: bool
    environ: Mapping[str, str] | None
    cwd: Path
    root: Path

    @property
    def store(self) -> Path | None:
        """The store that it uses, as it sees it; None if we may not know."""
        return None if self.environ is None else store_of_process(self.environ, self.cwd)

    @property
    def is_contained(self) -> bool:
        """Whether it has a file system of its own, as in a container: its paths are not ours."""
        try:
            return not self.root.samefile("/")
        except OSError:
            return False

    def uses(self, store: Path) -> bool:
        """Whether its store is this one, which in a container has another path."""
        if self.store is None:
            return False
        seen = self.root / self.store.relative_to("/") if self.is_contained else self.store
        try:
            return seen == store or seen.samefile(store)
        except OSError:
            return False


def ollama_processes(processes: Path = _PROCESSES) -> Iterator[OllamaProcess]:
    """Every one that can be seen, by number."""
    try:
        pids = sorted(int(name) for name in os.listdir(processes) if name.isdecimal())  # noqa: PTH208 - names only
    except OSError:
        return
    for pid in pids:
        folder = processes / str(pid)
        # Ended meanwhile, or hidden from us.
        with contextlib.suppress(OSError):
            if _is_ollama(folder):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                yield OllamaProcess(
                    pid, folder.stat().st_uid, _SERVE in words, _environ(folder), _cwd(folder), folder / "root"
                )


def sees_ollama(processes: Path = _PROCESSES) -> bool:
    """Whether there is any such process, as far as one can see."""
    return next(ollama_processes(processes), None) is not None


def _is_ollama(process: Path) -> bool:
    with contextlib.suppress(OSError):
        if (process / "comm").read_text(errors="replace").rstrip("\n") == _PROGRAM:
            return True
        # A program may call itself something else; where it lies is not hidden from its user and root.
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
