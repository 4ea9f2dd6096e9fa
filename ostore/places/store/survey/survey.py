"""
What lies in a store and what is needed of it, looked at in the one order that deleting may rest on.

1. the names in `blobs/` are listed
2. the manifests are read
3. the trash and the folders of dead commands are listed
4. the files of step 1 are looked at, when somebody asks for them

A pull that ends meanwhile can then only add to what is needed. Whoever read the manifests first could take the blobs
of that pull for orphans.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.digest import Digest
from ostore.places.store.survey.batches import FoundBatch, find_batches
from ostore.places.store.survey.census import Census, take_census
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.places.store.survey.references import References, references_of
from ostore.places.store.survey.scan import find_blobs, scan_manifests
from ostore.places.store.workspace import dead_transactions, workspace_path


@dataclass(frozen=True, slots=True)
class Survey:
    """
    One look at a store. `listed` are the names in `blobs/`, each with whether it is a regular file.

    `batches` is the trash, oldest first; `dead` are the folders in `.ostore/tx` of commands that have ended.
    """

    root: Path
    listed: Mapping[str, bool]
    references: References
    batches: tuple[FoundBatch, ...]
    dead: frozenset[str]

    def census(self, without: Collection[Digest] = frozenset()) -> Census:
        """
        What the disk says of everything that was listed, except these blobs under the names that Ollama gives them.

        A store has sixty thousand blobs that are needed, and the disk need not be asked about them. Raises OSError for
        a folder that cannot be read.
        """
        names = [name for name in self.listed if not without or Digest.of_filename(name) not in without]
        return take_census(self.root, names, skipped=len(self.listed) - len(names))

    def census_of(self, digests: Collection[Digest]) -> Census:
        """The same of these blobs only, whatever form of their names they have."""
        filenames = {digest.filename for digest in digests}
        # As text: to parse sixty thousand names takes longer.
        named = [name for name in self.listed if name.lower().replace(":", "-") in filenames]
        return take_census(self.root, named)


def survey(root: Path) -> Survey:
    """Look at a store. Creates and locks nothing. Raises OSError for a folder that cannot be read."""
    listed = {entry.name: entry.is_file(follow_symlinks=False) for entry in find_blobs(root)}
    scan = scan_manifests(find_manifests(root))
    references = references_of(root, scan)
    workspace = workspace_path(root)
    dead = dead_transactions(workspace)
    return Survey(root, listed, references, find_batches(workspace), dead)
