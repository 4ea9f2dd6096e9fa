"""
Doubles of what Ollama does to a store while another program works in it: pull, rm, and the prune of a starting server.

A real server cannot be told to act at a given moment, or to pause while it acts. What the doubles do, and in which
order, comes from Ollama's source at fb30760: server/images.go, server/download.go, server/routes.go,
manifest/manifest.go. The rule without a grace is that of v0.20.0. tests/test_ollama.py runs the real server. Each
double is a program of its own that does not use ostore, and prints every step as a line of JSON with the time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_PARTS = 4
# The server's are of 100 MB and more; here a blob has several.
_PIECE = 40_000

Pause = Callable[[], None]


class CorruptError(Exception):
    """A manifest that a server does not read, or a name at its depth that is none."""


def tell(did: str, what: str = "") -> None:
    sys.stdout.write(json.dumps({"time": time.time(), "did": did, "what": what}) + "\n")
    sys.stdout.flush()


def pull(store: Path, registry: Path, name: str, pause: Pause) -> None:
    """Layers one after the other, the config last; then all that were loaded are hashed; then the manifest."""
    path = store / "manifests" / name
    raw = (registry / "manifests" / name).read_bytes()
    former = _read(path) if path.exists() else None
    loaded = [digest for digest in _digests(json.loads(raw)) if _load(store, registry, digest, pause)]
    for digest in loaded:
        if hashlib.sha256(_blob(store, digest).read_bytes()).hexdigest() != digest.removeprefix("sha256:"):
            _blob(store, digest).unlink()
            raise CorruptError(digest)
    pause()
    path.parent.mkdir(parents=True, exist_ok=True)
    # In place and not synced: for a moment it is empty, and then a part of itself.
    with path.open("wb") as file:
        pause()
        file.write(raw[: len(raw) // 2])
        file.flush()
        file.write(raw[len(raw) // 2 :])
    tell("manifest", name)
    if former:
        _remove_unused(store, set(_digests(former)) - set(_digests(json.loads(raw))), pause)


def _load(store: Path, registry: Path, digest: str, pause: Pause) -> bool:
    """Load a blob, unless there is one of that name: nobody hashes or touches that."""
    final = _blob(store, digest)
    pause()
    if final.exists():
        tell("found", digest)
        return False
    final.parent.mkdir(parents=True, exist_ok=True)
    data = _blob(registry, digest).read_bytes()
    partial = final.with_name(f"{final.name}-partial")
    offsets = range(0, max(len(data), 1), _PIECE)
    parts = [final.with_name(f"{final.name}-partial-{number}") for number in range(len(offsets))]
    for number, offset in enumerate(offsets):
        _plan(parts[number], number, offset, len(data), 0)
    with partial.open("wb") as file:
        file.truncate(len(data))
        for number, offset in enumerate(offsets):
            pause()
            file.seek(offset)
            file.write(data[offset : offset + _PIECE])
            file.flush()
            _plan(parts[number], number, offset, len(data), len(data[offset : offset + _PIECE]))
    for part in parts:
        part.unlink()
    partial.rename(final)
    tell("loaded", digest)
    return True


def _plan(part: Path, number: int, offset: int, size: int, completed: int) -> None:
    piece = min(_PIECE, size - offset)
    part.write_text(json.dumps({"N": number, "Offset": offset, "Size": piece, "Completed": completed}) + "\n")


def remove(store: Path, name: str, pause: Pause) -> None:
    """What `ollama rm` has the server do: the manifest, empty folders, then each blob that nobody refers to."""
    path = store / "manifests" / name
    digests = _digests(_read(path))
    path.unlink()
    tell("unlisted", name)
    _remove_empty(store / "manifests")
    for digest in digests:
        _remove_unused(store, {digest}, pause)


def _remove_unused(store: Path, digests: set[str], pause: Pause) -> None:
    used: set[str] = set()
    for path in _entries(store):
        # Here a manifest that cannot be read counts as none.
        with contextlib.suppress(CorruptError):
            used.update(_digests(_read(path)))
    pause()
    for digest in digests - used:
        with contextlib.suppress(FileNotFoundError):
            _blob(store, digest).unlink()
            tell("removed", digest)


def prune(store: Path, grace: float, pause: Pause) -> None:
    """What a server does when it starts: every file goes that is no blob, or one that nobody refers to."""
    blobs = store / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    for path in blobs.glob("sha256:*"):
        path.rename(path.with_name(path.name.replace(":", "-")))
    try:
        for path in _entries(store):
            _read(path)
    except CorruptError as error:
        tell("skipped", str(error))
        return
    doomed = []
    for entry in os.scandir(blobs):
        with contextlib.suppress(FileNotFoundError):
            if entry.is_dir() or time.time() - entry.stat(follow_symlinks=False).st_mtime < grace:
                continue
            if _DIGEST.fullmatch(entry.name):
                doomed.append(entry.name.replace("-", ":"))
            else:
                Path(entry.path).unlink()
                tell("removed", entry.name)
    _remove_unused(store, set(doomed), pause)
    _remove_empty(store / "manifests")


def _remove_empty(folder: Path) -> None:
    for below in (path for path in folder.glob("*") if path.is_dir() and not path.is_symlink()):
        _remove_empty(below)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _entries(store: Path) -> Iterator[Path]:
    """Whatever stands where manifests stand; what is removed between the two looks is none."""
    return (path for path in (store / "manifests").glob("*/*/*/*") if path.is_file())


def _read(path: Path) -> dict[str, Any]:
    *_, host, namespace, model, tag = path.parts
    patterns = (_HOST, _NAMESPACE, _PART, _PART)
    if not all(map(re.Pattern.fullmatch, patterns, (host, namespace, model, tag))):
        raise CorruptError(f"{path}: no name")
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {"layers": []}
    except ValueError as error:
        raise CorruptError(f"{path}: {error}") from None
    return dict(document)


def _digests(manifest: dict[str, Any]) -> list[str]:
    return [part["digest"] for part in (*(manifest["layers"] or ()), manifest.get("config")) if part]


def _blob(store: Path, digest: str) -> Path:
    return store / "blobs" / digest.replace(":", "-")


def main(what: str, seed: str, longest: str, *words: str) -> None:
    """
    `longest` is the longest pause, in seconds.

    A pruning server starts again and again until its input is closed. It pauses between two starts: each removes empty
    folders, also those made for a manifest that comes next, and a slowed import has to win in the end.
    """
    chance = random.Random(seed)

    def pause() -> None:
        time.sleep(chance.uniform(0, float(longest)))

    store = Path(words[0])
    if what == "pull":
        pull(store, Path(words[1]), words[2], pause)
    elif what == "rm":
        remove(store, words[1], pause)
    else:
        while not select.select([sys.stdin], [], [], chance.uniform(0, 3 * float(longest)))[0]:
            prune(store, float(words[1]), pause)


if __name__ == "__main__":
    main(*sys.argv[1:])
