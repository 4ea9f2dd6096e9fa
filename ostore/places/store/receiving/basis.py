"""Refuse a delta whose basis is not here, and say what to type on the side that made it."""

from __future__ import annotations

from collections.abc import Collection

from ostore.formats.errors import BasisMissingError
from ostore.formats.manifest import Descriptor
from ostore.formats.remedy import Remedy, exported_again, ostore
from ostore.formats.selection import Selection
from ostore.formats.wording import listed, plural


def refuse_lacking(selection: Selection, lacking: Collection[Descriptor]) -> None:
    """Raises BasisMissingError for required blobs of a selection that are not here, or not whole; none is fine."""
    if lacking:
        how = "that the store does not have, or not whole"
        raise _error(selection, lacking, how, exported_again(_users(selection, lacking)))


def basis_damaged(selection: Selection, damaged: Collection[Descriptor]) -> BasisMissingError:
    """Return the error for required blobs whose files have the right size and other bytes."""
    # An inventory goes by sizes, so without hashing the next delta would build on the same blobs.
    whole = "lists what is whole here, for export --have on the side that made the bundle"
    hint = ostore("inventory", "--verify", after=whole).otherwise(exported_again(_users(selection, damaged), more=""))
    return _error(selection, damaged, "whose files in the store are damaged", hint)


def _error(selection: Selection, blobs: Collection[Descriptor], how: str, hint: Remedy) -> BasisMissingError:
    digests = [str(blob.digest) for blob in blobs]
    what = f"the bundle builds on {plural(len(blobs), 'blob')} {how}: {listed(digests)}"
    told = f"{what}; needed by {listed(_users(selection, blobs))}"
    return BasisMissingError(told, digests=tuple(digests), hint=hint)


def _users(selection: Selection, blobs: Collection[Descriptor]) -> list[str]:
    digests = {blob.digest for blob in blobs}
    return [
        str(model.name)
        for model in selection.models
        if not digests.isdisjoint(selection.built_on(model.blobs).union(model.blobs))
    ]
