"""
A survey: what lies in a store and what is needed of it, found in the one order that deleting may rely on.

1. list the names in `blobs/`
2. read the manifests
3. list the trash and the folders of dead commands
4. look at the files of step 1, when a census is asked for

In this order, a pull that ends meanwhile can only add to what is needed. If the manifests were read first, the blobs
of that pull would look like orphans.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.digest import Digest, blob_digest
from ostore.places.store.survey.batches import FoundBatch, find_batches
from ostore.places.store.survey.census import Census, take_census
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.places.store.survey.references import References, references_of
from ostore.places.store.survey.scan import find_blobs, scan_manifests
from ostore.places.store.workspace import dead_transactions, workspace_path

_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Survey:
    """
    One look at a store. `listed` are the entries of `blobs/`, whatever they are, in no order.

    `batches` are the folders of the trash, oldest first. `dead` are the folders in `.ostore/tx` of ended commands.
    """

    root: Path
    listed: tuple[os.DirEntry[str], ...]
    references: References
    batches: tuple[FoundBatch, ...]
    dead: frozenset[str]

    def census(self, without: Collection[Digest] = frozenset()) -> Census:
        """
        Take a census of what was listed, without these blobs. Blobs with an unusual file name are always included.

        A store may have sixty thousand needed blobs, and the disk need not be asked about them. Raises OSError for an
        unreadable folder.
        """
        names = [entry.name for entry in self.listed]
        chosen = [name for name in names if Digest.of_filename(name) not in without] if without else names
        return take_census(self.root, chosen, skipped=len(names) - len(chosen))

    def census_of(self, digests: Collection[Digest]) -> Census:
        """Take a census of these blobs only, in any form of their names."""
        wanted = {digest.hex for digest in digests}
        # Compare text first, because to parse sixty thousand names takes longer.
        alike = (entry.name for entry in self.listed if entry.name[-_DIGITS:].lower() in wanted)
        return take_census(self.root, [name for name in alike if blob_digest(name)])


def survey(root: Path) -> Survey:
    """
    Look at a store. Nothing is created, and the store is not locked. Raises OSError if `blobs/` may not be read.

    A folder of manifests that may not be read is a doubt of the references.
    """
    listed = tuple(find_blobs(root))
    scan = scan_manifests(find_manifests(root))
    references = references_of(root, scan)
    workspace = workspace_path(root)
    dead = dead_transactions(workspace)
    return Survey(root, listed, references, find_batches(workspace), dead)
