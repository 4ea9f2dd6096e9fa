"""Compare what a store holds with what a server says that it serves, and say what the server's version means for us."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from ostore.formats import media_types
from ostore.formats.digest import Digest
from ostore.formats.errors import InvalidNameError
from ostore.formats.manifest import Manifest
from ostore.formats.manifest_writing import write_manifest
from ostore.formats.name import ModelName

# The same manifest; another manifest of the same layers; another model; the same, but not all its blobs; not listed.
Served = Literal["same", "rewritten", "different", "incomplete", "missing"]
AS_STORED: frozenset[Served] = frozenset({"same", "rewritten"})

_VERSION = re.compile(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})")
_Version = tuple[int, int, int]
# What to know of a server that is older than a version: docs/store.md has the sources.
_NOTES: tuple[tuple[_Version, str], ...] = (
    ((0, 1, 30), "its blobs have other file names, so it does not see those of this store before a newer one has run"),
    ((0, 1, 34), "it builds paths from digests that it does not check (CVE-2024-37032): let it pull nothing"),
    ((0, 4, 0), "one manifest that it cannot read hides all models from its list"),
    ((0, 19, 0), "it writes the manifests that it pulls anew, so the same model may get another ID there"),
    (
        (0, 21, 0),
        "at its start it deletes blobs without a model at once, so do not start it while an import runs",
    ),
)


class ServedModel(Protocol):
    """A model that a server lists."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> Digest: ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a server serves in place of one model of the store. `because` is empty if there is nothing to say."""

    served: Served
    digest: Digest | None = None
    because: str = ""


def compare(
    manifest: Manifest,
    listed: ServedModel | None,
    *,
    opened: Collection[Digest] = (),
    lacking: Collection[Digest] = (),
    hidden: str = "",
) -> Comparison:
    """
    Compare a model of the store with what a server says.

    `opened` are the digests of the weights that the server opens for it, as far as it tells; `lacking` are the blobs
    that it does not have; `hidden` says why no server lists it.
    """
    if listed is None:
        return Comparison("missing", None, hidden or "it does not list it")
    absent = [blob.digest for blob in manifest.blobs if blob.digest in lacking]
    weights = {layer.digest for layer in manifest.layers if layer.media_type in media_types.WEIGHTS}
    lack = f"it lacks {len(absent)} of {len(manifest.blobs)} blobs" if absent else ""
    if opened and not weights.issuperset(opened):
        return Comparison("different", listed.digest, "it opens other weights")
    if listed.digest in _digests(manifest, manifest.raw):
        return Comparison("incomplete" if absent else "same", listed.digest, lack)
    if any(listed.digest in _digests(manifest, raw) for raw in _rewritten(manifest)):
        because = lack or "another ID for the same layers: its manifest was written anew"
        return Comparison("incomplete" if absent else "rewritten", listed.digest, because)
    same = "the same weights, with another config or other texts" if opened else "another manifest"
    return Comparison("different", listed.digest, "; ".join(filter(None, (same, lack))))


def folded(name: str) -> str:
    """Return the key of a name that a server lists. A name that nobody can have stands for itself."""
    try:
        return ModelName.parse(name).folded
    except InvalidNameError:
        return name


def version_of(text: str) -> _Version | None:
    """Return a version as numbers, or None for a build that was given none."""
    found = _VERSION.match(text)
    version = tuple(map(int, found.groups())) if found else (0, 0, 0)
    return (version[0], version[1], version[2]) if any(version) else None


def notes_of_version(text: str) -> tuple[str, ...]:
    """Return what a server of this version does that matters to a store."""
    version = version_of(text)
    if version is None:
        return (f"a build without a version ({text!r:.40}): nothing is known of it",)
    return tuple(f"Ollama {text:.40}: {note}" for below, note in _NOTES if version < below)


def lacks_version(requires: str, text: str) -> bool:
    """Return whether a model was made for a newer server than one of this version."""
    required, version = version_of(requires), version_of(text)
    return required is not None and version is not None and version < required


def _digests(manifest: Manifest, raw: bytes) -> tuple[Digest, ...]:
    """Return what servers call a manifest: its ID, and the digest of the whole file up to 0.1.34."""
    return (Digest.of(raw), *((Digest(manifest.model_id),) if raw is manifest.raw else ()))


def _rewritten(manifest: Manifest) -> Iterator[bytes]:
    """Yield the manifest as older servers and pushes write it: without its last newline, and encoded anew."""
    bare = manifest.raw.rstrip()
    yield from (bare, bare + b"\n")
    if manifest.config is not None and not manifest.ambiguity:
        encoded = write_manifest(manifest.config, manifest.layers)
        yield from (encoded, encoded.rstrip())
