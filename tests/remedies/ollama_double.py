"""
What `ollama create`, `pull` and `rm` do to a store, as far as remedies are about it.

This stands for a server with a registry, which no test has. After the new manifest is written, or the old one removed,
Ollama deletes the blobs of the old manifest that no manifest names, and it compares digests as text: a digest that is
written `sha256-…` or in capitals is another one to it, although it opens the same file (server/images.go,
manifest/layer.go of ollama at fb30760; done by hand with 0.9.6 and 0.33). `test_remedies.py` compares this with a real
one where there is one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import full


@dataclass(frozen=True)
class OllamaDouble:
    """A server of the store `models`; `registry` is a store whose models can be pulled."""

    models: Path
    registry: Path

    def run(self, arguments: Sequence[str]) -> int:
        """Run a command. Returns 0, or 1 if the server refuses."""
        command, name, *_ = arguments
        action = {"pull": self.pull, "rm": self.remove, "create": self.create}[command]
        try:
            action(name)
        except (FileNotFoundError, IsADirectoryError, KeyError, json.JSONDecodeError):
            return 1
        return 0

    def pull(self, name: str) -> None:
        """Fetch what is missing, write the manifest, and delete what only the old one needed."""
        raw = _manifest(self.registry, name).read_bytes()
        for digest in _digests(raw):
            place = self._blob(digest)
            # What is there is taken for whole, whatever its size; a link that leads nowhere is not there.
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.registry / "blobs" / digest.replace(":", "-"), f"{place}-partial")
                Path(f"{place}-partial").replace(place)
        self._write(name, raw)

    def create(self, name: str) -> None:
        """Create a model from its own blobs. The new manifest has the digests as Ollama writes them."""
        raw = _manifest(self.models, name).read_bytes()
        for digest in _digests(raw):
            right = f"sha256:{digest[7:].lower()}"
            if not self._blob(right).exists():
                raise FileNotFoundError(right)
            raw = raw.replace(digest.encode(), right.encode())
        self._write(name, raw)

    def remove(self, name: str) -> None:
        """Remove the manifest, then its blobs."""
        path = _manifest(self.models, name)
        old = path.read_bytes()
        digests = _digests(old)
        path.unlink()
        self._delete_unused(digests)

    def _write(self, name: str, raw: bytes) -> None:
        path = _manifest(self.models, name)
        try:
            old = _digests(path.read_bytes())
        except (OSError, KeyError, TypeError, ValueError):
            old = []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        self._delete_unused(old)

    def _delete_unused(self, digests: Sequence[str]) -> None:
        used = {digest for raw in self._manifests() for digest in _digests(raw)}
        for digest in digests:
            if digest not in used:
                self._blob(digest).unlink(missing_ok=True)

    def _manifests(self) -> list[bytes]:
        found = []
        for path in (self.models / "manifests").glob("*/*/*/*"):
            try:
                _digests(raw := path.read_bytes())
            except (OSError, KeyError, TypeError, ValueError):
                continue
            found.append(raw)
        return found

    def _blob(self, digest: str) -> Path:
        return self.models / "blobs" / digest.replace(":", "-")


def _manifest(store: Path, name: str) -> Path:
    given = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    host = given if given.count("/") == 2 else full(given) if "/" not in given else f"registry.ollama.ai/{given}"
    folder, _, tag = host.rpartition(":")
    return store / "manifests" / folder / tag


def _digests(raw: bytes) -> list[str]:
    document: dict[str, Any] = json.loads(raw)
    parts = [*(document.get("layers") or ()), document.get("config") or {}]
    return [part["digest"] for part in parts if part.get("digest")]
