"""What the process we run in says: environment, home, users, processors. Nothing below floor 4 asks it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.formats.errors import UsageError
from ostore.places.store.discovery import StoreChoice, Surroundings, find_store

if TYPE_CHECKING:
    from ostore.places.foreign_caches.candidates import ForeignPlace
    from ostore.places.store.access import Account

# ollama manifest/manifest.go at fb30760 builds a glob on the raw path of the store.
_GLOB_CHARACTERS = frozenset("*?[")
# login.defs(5): where the numbers of people begin; those below are of services.
_FIRST_PERSON = 1000
# malloc.h of glibc. More than all frames in flight together, and the most that glibc takes for the second.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# PATH_MAX of Linux.
_MAX_PATH_BYTES = 4096
_KEPT_BYTES, _LARGEST_ON_HEAP_BYTES = 256 * 1024 * 1024, 32 * 1024 * 1024


def surroundings() -> Surroundings:
    """All that decides where the store is."""
    return Surroundings(environ=os.environ, platform=sys.platform, home=_home(), cwd=Path.cwd(), home_of=_home_of)


def owner_of(path: Path) -> str:
    """A user name, or the number of a user without one."""
    try:
        return path.owner()
    # The second is what Python says where files have no such owner, on Windows.
    except (KeyError, NotImplementedError):
        return str(path.stat().st_uid)


def account_of(user: str, groups: Sequence[str] = ()) -> Account | None:
    """A user by name or number, in the groups that it has and in further ones; None if there is no such user."""
    from ostore.places.store.access import Account

    try:
        import grp
        import pwd

        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (ImportError, KeyError):
        return None
    further = []
    for group in groups:
        with contextlib.suppress(KeyError):
            further.append(int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid)
    return Account(entry.pw_uid, frozenset((*os.getgrouplist(entry.pw_name, entry.pw_gid), *further)), entry.pw_name)


def login_homes() -> Iterator[tuple[Path, str]]:
    """The home folders of people, and of root: who starts `ollama serve` by hand has a store there."""
    try:
        import pwd
    except ImportError:
        return
    for entry in pwd.getpwall():
        if entry.pw_uid == 0 or entry.pw_uid >= _FIRST_PERSON:
            yield Path(entry.pw_dir), entry.pw_name


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


def foreign_places(store: Path) -> Iterator[ForeignPlace]:
    """Other stores, and where programs of this user, and of who called sudo, keep models; those that are there."""
    from ostore.places.foreign_caches.candidates import ForeignPlace, PlaceKind
    from ostore.places.store.discovery import other_stores

    known = surroundings()
    found = [ForeignPlace(PlaceKind.STORE, other.path) for other in other_stores(known, StoreChoice(store, "flag", ""))]
    homes = (known.home, _home_of(known.environ.get("SUDO_USER", "")))
    for home in dict.fromkeys(home for home in homes if home):
        found += [ForeignPlace(PlaceKind.HUGGING_FACE, path) for path in _hub_caches(known, home)]
        found += [ForeignPlace(PlaceKind.LM_STUDIO, path) for path in _lm_studio_folders(home)]
        found += [ForeignPlace(PlaceKind.LLAMA_CPP, path) for path in _llama_caches(known, home)]
    absolute = (ForeignPlace(place.kind, known.cwd / place.path) for place in found)
    yield from {place.path: place for place in absolute if place.path.is_dir()}.values()


def _hub_caches(known: Surroundings, home: Path) -> Iterator[Path]:
    """huggingface_hub 2.4, constants.py: the first of these that is set, with `~` and variables expanded."""
    for variable, below in (
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        if text := known.environ.get(variable):
            yield Path(os.path.expandvars(text)).expanduser() / below
            break
    # Beside it: under sudo the variables are root's, the cache is not.
    yield home / ".cache/huggingface/hub"


def _lm_studio_folders(home: Path) -> Iterator[Path]:
    """lmstudio.js, findLMStudioHome: a pointer in the home folder, the old place, the present one."""
    try:
        with (home / ".lmstudio-home-pointer").open("rb") as pointer:
            yield home / os.fsdecode(pointer.read(_MAX_PATH_BYTES).strip()) / "models"
    except OSError:
        pass
    yield home / ".cache/lm-studio/models"
    yield home / ".lmstudio/models"


def _llama_caches(known: Surroundings, home: Path) -> Iterator[Path]:
    """llama.cpp, common.cpp and hf-cache.cpp: its own cache; since 2026 also the Hub's, wherever LLAMA_CACHE is."""
    if text := known.environ.get("LLAMA_CACHE"):
        yield Path(text)
    folders = {"darwin": home / "Library/Caches", "win32": Path(known.environ.get("LOCALAPPDATA") or home)}
    yield folders.get(known.platform, Path(known.environ.get("XDG_CACHE_HOME") or home / ".cache")) / "llama.cpp"


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
