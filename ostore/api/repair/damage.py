"""Find what is damaged or missing in a store, for `repair`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ostore.formats.digest import Digest
from ostore.formats.errors import NotFoundError
from ostore.formats.name import ModelName, choose, is_glob
from ostore.formats.selection import Selection
from ostore.operations.repair import Lack, find_lack
from ostore.operations.transfer import BlobSource, Source
from ostore.operations.verify import Promises, VerifyReport, verify_store
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.manifest_tree import ManifestTree, find_manifests
from ostore.places.store.survey.scan import ManifestScan
from ostore.streams.progress import Progress


@dataclass(frozen=True, slots=True)
class Damage:
    """
    A store and its damage.

    `obstacles` maps the blobs that cannot be replaced to the reason. `absent` are models that were named and that the
    store does not have.
    """

    store: LocalStore
    scan: ManifestScan
    verified: VerifyReport
    lack: Lack
    obstacles: Mapping[Digest, str]
    absent: tuple[ModelName, ...]


def find_damage(
    store: LocalStore, names: Sequence[str], sources: Sequence[BlobSource], *, jobs: int, progress: Progress
) -> Damage:
    """
    Hash the store, or only the models that `names` match, and return the damage.

    Raises NotFoundError for a model that is neither in the store nor in any source, InvalidNameError, OSError.
    """
    present, absent = _split(names, store)
    for name in absent:
        if not any(models_of(source, {name.folded}) for source in sources):
            raise NotFoundError(f"no model {str(name)!r} in {store.root}, nor in any source")
    scan = store.scan(present) if present or not names else ManifestScan((), (), ManifestTree())
    promised = Promises(scan)
    verified = verify_store(
        str(store.root),
        store,
        promised,
        beside=store.entries_of(promised.digests) if names else store.unreferenced(promised.needs),
        notes=() if names else store.told(scan, "judged"),
        jobs=jobs,
        progress=progress,
    )
    suspects = [Digest.parse(problem.subject) for problem in verified.problems if problem.subject.startswith("sha256:")]
    obstacles = StoreSink(store).obstacles(suspects)
    lack = find_lack(verified.problems, scan.models, scan.unreadable, obstacles)
    return Damage(store, scan, verified, lack, obstacles, absent)


def models_of(source: BlobSource, folded: Collection[str]) -> Sequence[Selection]:
    """Return the models of a source with these folded names. A folder of files has none."""
    return source.find_models(folded) if isinstance(source, Source) else ()


def _split(names: Sequence[str], store: LocalStore) -> tuple[list[str], tuple[ModelName, ...]]:
    """Return the words that match models of the store, and the other names, which a source may have."""
    entries = find_manifests(store.root).entries if names else []
    _, unmatched = choose([entry.name for entry in entries if entry.name], names)
    absent = [name for name in unmatched if not is_glob(name)]
    # A glob that matches nothing stays among the first, so that the scan refuses it.
    present = [name for name in names if name not in absent]
    return present, tuple(ModelName.parse(name) for name in dict.fromkeys(absent))
