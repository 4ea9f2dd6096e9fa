"""
Look at a store all the time, as a server might at any moment, and report whatever must never be seen.

This is a program of its own, in plain Python. It looks until its input is closed, and then prints what it saw, as JSON.
It reports something only if it was wrong at one instant: it proves that a manifest stands there before and after it
looks up what the manifest names. What was wrong at its first look is not reported.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# Little enough to see what stands for a few milliseconds, enough to leave the processor to those who are watched.
_SECONDS = 0.002
_BLOB = re.compile(r"sha256-([0-9a-f]{64})")
# What a pull leaves in `blobs/` while it runs (ollama server/download.go at fb30760).
_DOWNLOAD = re.compile(r"sha256-[0-9a-f]{64}-partial(-[0-9]+)?")


class Watcher:
    """`names` are the manifests that may be seen, by path. Those of `in_place` may be seen half written."""

    def __init__(self, store: Path, names: frozenset[str], in_place: frozenset[str]) -> None:
        self._store = store
        self._names = names
        self._in_place = in_place
        self._hashed: dict[tuple[str, int, int, int], bool] = {}
        self.looks = 0
        self._before: frozenset[tuple[str, ...]] = frozenset()
        self._seen: dict[tuple[str, ...], list[float]] = {}

    @property
    def seen(self) -> list[dict[str, object]]:
        """What was wrong, and when it was seen for the first and the last time."""
        return [
            {"kind": kind, "what": what, "blob": blob, "first": times[0], "last": times[-1]}
            for (kind, what, blob), times in self._seen.items()
            if (kind, what, blob) not in self._before
        ]

    def look_first(self) -> None:
        self.look()
        self._before = frozenset(self._seen)

    def look(self) -> None:
        self.looks += 1
        for path in self._manifests():
            self._look_at_manifest(path)
        for name in self._names_in(self._store / "blobs"):
            self._look_at_blob(name)

    def _manifests(self) -> Iterator[str]:
        paths = [""]
        for _ in range(4):
            paths = [
                f"{path}/{name}".lstrip("/")
                for path in paths
                for name in self._names_in(self._store / "manifests" / path)
            ]
        return iter(paths)

    def _names_in(self, folder: Path) -> list[str]:
        try:
            return os.listdir(folder)  # noqa: PTH208 - names
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _look_at_manifest(self, name: str) -> None:
        path = self._store / "manifests" / name
        if name not in self._names:
            self._tell("foreign name", f"manifests/{name}")
            return
        try:
            before, raw = _identity(path), path.read_bytes()
            document = json.loads(raw)
        except FileNotFoundError:
            return
        except ValueError:
            if name not in self._in_place:
                self._tell("no manifest", name)
            return
        for layer in (*document["layers"], document["config"]):
            if not self._is_there(layer) and _identity(path) == before:
                self._tell("not whole", name, layer["digest"])

    def _is_there(self, layer: dict[str, object]) -> bool:
        blob = self._store / "blobs" / str(layer["digest"]).replace(":", "-")
        try:
            return blob.stat().st_size == layer["size"]
        except FileNotFoundError:
            return False

    def _look_at_blob(self, name: str) -> None:
        match = _BLOB.fullmatch(name)
        if match is None:
            if not self._in_place or not _DOWNLOAD.fullmatch(name):
                self._tell("foreign name", f"blobs/{name}")
            return
        try:
            with (self._store / "blobs" / name).open("rb") as file:
                status = os.fstat(file.fileno())
                key = (name, status.st_ino, status.st_size, status.st_mtime_ns)
                if key not in self._hashed:
                    self._hashed[key] = hashlib.sha256(file.read()).hexdigest() == match[1]
        except FileNotFoundError:
            return
        if not self._hashed[key]:
            self._tell("false blob", name, f"file {status.st_ino}")

    def _tell(self, kind: str, what: str, blob: str = "") -> None:
        self._seen.setdefault((kind, what, blob), []).append(time.time())


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Which file stands there; renaming and linking change its ctime, writing its size or mtime and so its ctime."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns, status.st_size


def main(store: str, names: str, in_place: str) -> None:
    watcher = Watcher(Path(store), frozenset(json.loads(names)), frozenset(json.loads(in_place)))
    watcher.look_first()
    sys.stdout.write("looking\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], _SECONDS)[0]:
        watcher.look()
    json.dump({"looks": watcher.looks, "seen": watcher.seen}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
