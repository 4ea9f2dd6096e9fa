"""How a store takes models in, as whoever opens the transaction wants it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostore.formats.name import ModelName
from ostore.streams.progress import Progress


@dataclass(frozen=True, slots=True)
class ReceivingTerms:
    """
    How a store takes models in. With `trust_existing`, blobs that are there are not hashed; with `links`, files of a
    source on the same disk are given one more name instead of being copied.

    `jobs` files are hashed at once. Manifests have the times in `modified`, nanoseconds since 1970, or now.
    """

    trust_existing: bool
    links: bool
    jobs: int
    progress: Progress
    modified: Mapping[ModelName, int]
