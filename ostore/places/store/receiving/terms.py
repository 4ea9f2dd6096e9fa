"""How a store takes models in. The caller that opens the transaction decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostore.formats.digest import Digest
from ostore.formats.name import ModelName
from ostore.streams.progress import Progress


@dataclass(frozen=True, slots=True)
class ReceivingTerms:
    """
    How a store takes models in.

    With `trust_existing`, existing blobs are not hashed, nor are those in `trusted`. With `links`, files of a source on
    the same disk get a second name instead of being copied. `jobs` files are hashed at once. Manifests get the times in
    `modified`, nanoseconds since 1970, or the present time.
    """

    trust_existing: bool
    links: bool
    jobs: int
    progress: Progress
    modified: Mapping[ModelName, int]
    trusted: frozenset[Digest] = frozenset()

    def trusts(self, digest: Digest) -> bool:
        """Return whether an existing blob of the right size is relied upon as it is."""
        return self.trust_existing or digest in self.trusted
