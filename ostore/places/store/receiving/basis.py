"""Refuse a delta whose basis is not here, and say what to type on the side that made it."""

from __future__ import annotations

from collections.abc import Collection

from ostore.formats.errors import BasisMissingError
from ostore.formats.manifest import Descriptor
from ostore.formats.remedy import exported_again
from ostore.formats.selection import Selection
from ostore.formats.wording import listed, plural


def refuse_lacking(selection: Selection, lacking: Collection[Descriptor]) -> None:
    """Raises BasisMissingError for required blobs of a selection that are not here, or not whole; none is fine."""
    if not lacking:
        return
    digests = {blob.digest for blob in lacking}
    names = [
        str(model.name)
        for model in selection.models
        if not digests.isdisjoint(selection.built_on(model.blobs).union(model.blobs))
    ]
    raise BasisMissingError(
        f"the bundle builds on {plural(len(lacking), 'blob')} that the store does not have, or not whole: "
        f"{listed([str(blob.digest) for blob in lacking])}; needed by {listed(names)}",
        digests=tuple(str(blob.digest) for blob in lacking),
        hint=exported_again(names),
    )
