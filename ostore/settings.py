"""Read the environment, home and processors of this process. No lower floor asks for these itself."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.formats.errors import UsageError
from ostore.formats.store_layout import PATH_GLOBS
from ostore.host.accounts import home_of
from ostore.host.discovery import find_store
from ostore.host.surroundings import StoreChoice, Surroundings

if TYPE_CHECKING:
    from ostore.places.registry.authorization import Access

# malloc.h of glibc. The first size is larger than all frames in flight, the second is the maximum of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BYTES, _LARGEST_ON_HEAP_BYTES = 256 * 1024 * 1024, 32 * 1024 * 1024
_SMALLEST_RETURNED_BYTES = 1024 * 1024


def surroundings() -> Surroundings:
    """Return all facts that decide which store to use."""
    return Surroundings(environ=os.environ, platform=sys.platform, home=_home(), cwd=Path.cwd(), home_of=home_of)


def access() -> Access:
    """Return by what this person proves to registries who they are. No file is read yet."""
    from ostore.places.registry.authorization import Access

    return Access.of(surroundings(), time.time)


def choose_store(models: Path | None) -> StoreChoice:
    """Return the store to use. Raises NotFoundError if there is none, UsageError if Ollama cannot use its path."""
    choice = find_store(surroundings(), models)
    refuse_globs(choice.path)
    return choice


def refuse_globs(path: Path) -> None:
    """Raises UsageError if Ollama cannot use a store at this path."""
    if not PATH_GLOBS.isdisjoint(str(path)):
        raise UsageError(f"{path}: Ollama cannot use a store whose path contains * ? or [")


def threads(jobs: int | None) -> int:
    """Return `jobs`, or the number of processors that we may use. Raises UsageError if `jobs` is less than 1."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs: expected at least 1, got {jobs}")
    if jobs is None and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return jobs or os.cpu_count() or 1


def state_folder(name: str) -> Path | None:
    """Return the folder for what ostore remembers of unfinished work, or None without a home. It need not exist."""
    import platformdirs

    folder = Path(platformdirs.user_state_dir("ostore", appauthor=False))
    # Without a home, it would begin with the letter `~`.
    return folder / name if folder.is_absolute() else None


def proxies() -> dict[str, str]:
    """Return what the environment says of proxies: `http`, `https` and `no`. The lower-case spelling counts first."""
    found = {}
    for name in ("http", "https", "no"):
        # A server may run us with the header `Proxy` as HTTP_PROXY (CVE-2016-5385).
        upper = "" if name == "http" and "REQUEST_METHOD" in os.environ else os.environ.get(f"{name.upper()}_PROXY", "")
        found[name] = os.environ.get(f"{name}_proxy") or upper
    return {name: value for name, value in found.items() if value}


def return_freed_memory() -> None:
    """
    Let this process give the memory of a frame back to the system as soon as nobody uses it.

    glibc by default keeps what several threads have freed, each for itself: three times what is used.
    """
    _set_malloc((_M_MMAP_THRESHOLD, _SMALLEST_RETURNED_BYTES))


def keep_freed_memory() -> None:
    """
    Let this process reuse the memory of one frame for the next.

    By default, glibc returns every 8 MiB to the system, and the system then clears each page again. This takes longer
    than compressing. See mallopt(3). Other C libraries are not changed.
    """
    _set_malloc(
        (_M_TRIM_THRESHOLD, _KEPT_BYTES),
        (_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP_BYTES),
        # Use one heap for all threads, so a thread can reuse what another has freed.
        (_M_ARENA_MAX, 1),
    )


def _set_malloc(*settings: tuple[int, int]) -> None:
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for number, value in settings:
            mallopt(number, value)


def _home() -> Path | None:
    """Return the home folder as Ollama finds it (Go's os.UserHomeDir): from the variable only."""
    home = os.environ.get("USERPROFILE" if sys.platform == "win32" else "HOME")
    return Path(home) if home else None
