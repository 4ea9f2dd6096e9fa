"""What the process we run in says: environment, home, processors. No floor below this one asks it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ostore.formats.errors import UsageError
from ostore.host.accounts import home_of
from ostore.host.discovery import find_store
from ostore.host.surroundings import StoreChoice, Surroundings

# ollama manifest/manifest.go at fb30760 builds a glob on the raw path of the store.
_GLOB_CHARACTERS = frozenset("*?[")
# malloc.h of glibc. More than all frames in flight together, and the most that glibc takes for the second.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BYTES, _LARGEST_ON_HEAP_BYTES = 256 * 1024 * 1024, 32 * 1024 * 1024


def surroundings() -> Surroundings:
    """All that decides where the store is."""
    return Surroundings(environ=os.environ, platform=sys.platform, home=_home(), cwd=Path.cwd(), home_of=home_of)


def choose_store(models: Path | None) -> StoreChoice:
    """The store that a command uses. Raises NotFoundError, UsageError for a path that Ollama could not use."""
    choice = find_store(surroundings(), models)
    refuse_globs(choice.path)
    return choice


def refuse_globs(path: Path) -> None:
    """Raises UsageError for the path of a store that Ollama could not use."""
    if not _GLOB_CHARACTERS.isdisjoint(str(path)):
        raise UsageError(f"{path}: Ollama cannot use a store whose path has one of * ? [")


def threads(jobs: int | None) -> int:
    """As many threads as processors we may use, unless told."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs: expected at least 1, got {jobs}")
    if jobs is None and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return jobs or os.cpu_count() or 1


def keep_freed_memory() -> None:
    """
    Let this process use the memory of one frame for the next instead of giving it back each time.

    By itself glibc returns every 8 MiB to the system, which clears each page anew: that costs more than compressing.
    See mallopt(3); other C libraries are left as they are.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP_BYTES)
        # One heap for all threads: what one of them frees, another can use.
        mallopt(_M_ARENA_MAX, 1)


def _home() -> Path | None:
    """Go's notion of a home folder (os.UserHomeDir), which is Ollama's: the variable and nothing else."""
    home = os.environ.get("USERPROFILE" if sys.platform == "win32" else "HOME")
    return Path(home) if home else None
