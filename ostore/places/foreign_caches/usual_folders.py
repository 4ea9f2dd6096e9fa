"""Where other programs usually keep models: other stores, and the caches of the user and of the caller of sudo."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from string import Template

from ostore.host.discovery import other_stores
from ostore.host.surroundings import StoreChoice, Surroundings
from ostore.places.foreign_caches.candidates import CacheKind, ForeignCache

# PATH_MAX of Linux.
_MAX_PATH_BYTES = 4096


def usual_caches(known: Surroundings, store: Path) -> Iterator[ForeignCache]:
    """Yield the folders that exist, each once, without `store` itself."""
    found = [ForeignCache(CacheKind.STORE, other.path) for other in other_stores(known, StoreChoice(store, "flag", ""))]
    homes = (known.home, known.home_of(known.environ.get("SUDO_USER", "")))
    for home in dict.fromkeys(home for home in homes if home):
        found += [ForeignCache(CacheKind.HUGGING_FACE, path) for path in _hub_caches(known, home)]
        found += [ForeignCache(CacheKind.LM_STUDIO, path) for path in _lm_studio_folders(home)]
        found += [ForeignCache(CacheKind.LLAMA_CPP, path) for path in _llama_caches(known, home)]
    absolute = (ForeignCache(cache.kind, known.cwd / cache.path) for cache in found)
    yield from {cache.path: cache for cache in absolute if cache.path.is_dir()}.values()


def _hub_caches(known: Surroundings, home: Path) -> Iterator[Path]:
    """Yield the Hub's caches. huggingface_hub 2.4, constants.py: the first set variable, `~` and variables expanded."""
    for variable, below in (
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        if text := known.environ.get(variable):
            yield _expanded(text, known) / below
            break
    # Under sudo the variables are root's, but the cache is the caller's.
    yield home / ".cache/huggingface/hub"


def _expanded(text: str, known: Surroundings) -> Path:
    path = Path(Template(text).safe_substitute(known.environ))
    first, *rest = path.parts or (".",)
    if first.startswith("~"):
        home = known.home if first == "~" else known.home_of(first[1:])
        return home.joinpath(*rest) if home else path
    return path


def _lm_studio_folders(home: Path) -> Iterator[Path]:
    """Follow findLMStudioHome of lmstudio.js: a pointer in the home folder, the old folder, the present one."""
    try:
        with (home / ".lmstudio-home-pointer").open("rb") as pointer:
            yield home / os.fsdecode(pointer.read(_MAX_PATH_BYTES).strip()) / "models"
    except OSError:
        pass
    yield home / ".cache/lm-studio/models"
    yield home / ".lmstudio/models"


def _llama_caches(known: Surroundings, home: Path) -> Iterator[Path]:
    """Follow common.cpp and hf-cache.cpp of llama.cpp. Since 2026 it also uses the Hub's cache, despite LLAMA_CACHE."""
    if text := known.environ.get("LLAMA_CACHE"):
        yield Path(text)
    folders = {"darwin": home / "Library/Caches", "win32": Path(known.environ.get("LOCALAPPDATA") or home)}
    yield folders.get(known.platform, Path(known.environ.get("XDG_CACHE_HOME") or home / ".cache")) / "llama.cpp"
