"""What the process we run in says: environment, home, users, processors. Nothing below floor 4 asks it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ostore.formats.errors import UsageError
from ostore.places.store.discovery import StoreChoice, Surroundings, find_store

# ollama manifest/manifest.go at fb30760 builds a glob on the raw path of the store.
_GLOB_CHARACTERS = frozenset("*?[")


def surroundings() -> Surroundings:
    """All that decides where the store is."""
    return Surroundings(environ=os.environ, platform=sys.platform, home=_home(), cwd=Path.cwd(), home_of=_home_of)


def owner_of(path: Path) -> str:
    """A user name, or the number of a user without one."""
    try:
        return path.owner()
    except (KeyError, NotImplementedError):
        return str(path.stat().st_uid)


def choose_store(models: Path | None) -> StoreChoice:
    """The store that a command uses. Raises NotFoundError, UsageError for a path that Ollama could not use."""
    choice = find_store(surroundings(), models)
    if not _GLOB_CHARACTERS.isdisjoint(str(choice.path)):
        raise UsageError(f"{choice.path}: Ollama cannot use a store whose path has one of * ? [")
    return choice


def threads(jobs: int | None) -> int:
    """As many threads as processors we may use, unless told."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs: expected at least 1, got {jobs}")
    if jobs is None and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return jobs or os.cpu_count() or 1


def _home() -> Path | None:
    """Go's notion of a home folder (os.UserHomeDir), which is Ollama's: the variable and nothing else."""
    home = os.environ.get("USERPROFILE" if sys.platform == "win32" else "HOME")
    return Path(home) if home else None


def _home_of(user: str) -> Path | None:
    try:
        import pwd

        return Path(pwd.getpwnam(user).pw_dir)
    except (ImportError, KeyError):
        return None
