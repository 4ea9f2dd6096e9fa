"""Ollama processes that run just now, found in /proc: what they write, they write to the store they began with."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from ostore.places.store.discovery import store_of_process

# ollama cmd/cmd.go: the server, its runners and its clients are all the one program of this name.
_PROGRAM = "ollama"
# Linux allows an environment as large as a quarter of the stack; what matters of it is one variable.
MAX_ENVIRONMENT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A process called `ollama`, and the store that it uses; None if we may not look."""

    pid: int
    store: Path | None


def running_servers(processes: Path = Path("/proc")) -> tuple[RunningServer, ...]:
    """Every one that can be seen; none where there is no /proc."""
    try:
        pids = sorted(int(name) for name in os.listdir(processes) if name.isdecimal())  # noqa: PTH208 - names only
    except OSError:
        return ()
    return tuple(RunningServer(pid, _store_of(processes / str(pid))) for pid in pids if _is_ollama(processes, pid))


def _is_ollama(processes: Path, pid: int) -> bool:
    try:
        return (processes / str(pid) / "comm").read_text(errors="replace").rstrip("\n") == _PROGRAM
    except OSError:
        return False


def _store_of(process: Path) -> Path | None:
    with contextlib.suppress(OSError), (process / "environ").open("rb") as file:
        pairs = (os.fsdecode(entry).partition("=") for entry in file.read(MAX_ENVIRONMENT_BYTES).split(b"\0"))
        return store_of_process({key: value for key, _, value in pairs}, (process / "cwd").readlink())
    return None
