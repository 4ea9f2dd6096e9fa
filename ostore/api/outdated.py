"""Say which models of the store are another version elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.basis import opened_basis
from ostore.api.chosen_store import chosen_store
from ostore.api.typed import typed_models
from ostore.formats.digest import Digest
from ostore.formats.errors import RemoteError, UsageError
from ostore.formats.manifest import Manifest
from ostore.formats.name import ModelName
from ostore.formats.store_layout import MANIFESTS
from ostore.formats.wording import plural
from ostore.operations.inventory import clear_models
from ostore.places.store.store import LocalStore
from ostore.settings import threads

# With these a registry refuses one model, and may have others for us.
_OF_ONE_MODEL = frozenset({400, 401, 403})


@dataclass(frozen=True, slots=True)
class OutdatedModel:
    """
    A model whose tag means another one elsewhere: the digests of both manifests.

    `size` is the bytes of the blobs there that the store lacks, or None if they were not asked for.
    """

    name: str
    here: str
    there: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class UnansweredModel:
    """A model whose registry did not say what it has: the digest of its manifest here, and what happened."""

    name: str
    here: str
    problem: str


@dataclass(frozen=True, slots=True)
class OutdatedReport:
    """
    The models that differ, the number of those that are the same, and the names that the other place lacks.

    `against` is None if registries were asked. `unanswered` are the models of those that failed.
    """

    store: str
    against: str | None
    models: tuple[OutdatedModel, ...]
    current: int
    unknown: tuple[str, ...]
    unanswered: tuple[UnansweredModel, ...]
    warnings: tuple[str, ...]


def outdated(
    names: Sequence[str] = (),
    *,
    against: str | Path | None = None,
    ca_file: str | Path | None = None,
    plain_http: bool = False,
    jobs: int | None = None,
    models: Path | None = None,
) -> OutdatedReport:
    """
    Compare the tags of the store with those of `against`: an inventory, a bundle, a lock or a folder with a store.
    Without it, ask the registry of each model.

    `names` (or globs) choose some models; the default is all. Only manifests are compared. What a registry has is the
    same model if it has the same config and layers: old servers have written its manifest anew. `ca_file` and
    `plain_http` are those of `pull`. A registry that does not answer is asked once, and the others all the same. Raises
    RemoteError if none answers, NotFoundError, UsageError, FormatError, IntegrityError, UnsafeError, LimitError,
    OSError.
    """
    for option, value in (("ca-file", ca_file), ("plain-http", plain_http)):
        if value and against is not None:
            raise UsageError(f"with {against} to compare with, no registry is asked", parameter=option)
    store = chosen_store(models).require_whole()
    scan = store.scan(typed_models(names, store))
    chosen, notes = clear_models(model for model in scan.models if model.tree == MANIFESTS)
    chosen = sorted(chosen, key=lambda model: model.name.full)
    there: dict[str, tuple[Digest, int | None]]
    failed: dict[ModelName, RemoteError] = {}
    if against is None:
        manifests = [(model.name, model.manifest) for model in chosen]
        there, failed = _at_registries(manifests, store, ca_file, plain_http=plain_http)
        if failed and len(failed) == len(chosen):
            raise next(iter(failed.values()))
    else:
        with opened_basis(against, near=store, jobs=threads(jobs)) as basis:
            there = {model.name.folded: (model.manifest.digest, None) for model in basis.inventory.models}
    found: list[OutdatedModel] = []
    unknown: list[ModelName] = []
    for model in chosen:
        digest, size = there.get(model.name.folded, (None, None))
        if model.name in failed:
            continue
        if digest is None:
            unknown.append(model.name)
        elif digest != model.manifest.digest:
            found.append(OutdatedModel(str(model.name), str(model.manifest.digest), str(digest), size))
    unread = (f"{entry.path}: not compared: {entry.reason}" for entry in scan.unreadable)
    return OutdatedReport(
        store=str(store.root),
        against=None if against is None else str(against),
        models=tuple(found),
        current=len(chosen) - len(found) - len(unknown) - len(failed),
        unknown=tuple(map(str, unknown)),
        unanswered=tuple(
            UnansweredModel(str(model.name), str(model.manifest.digest), str(failed[model.name]))
            for model in chosen
            if model.name in failed
        ),
        warnings=(*notes, *_told(failed), *unread),
    )


def _told(failed: Mapping[ModelName, RemoteError]) -> Iterator[str]:
    """Yield a line for each registry that has failed, with its first error."""
    hosts = Counter(name.host.lower() for name in failed)
    for host, count in hosts.items():
        error = next(error for name, error in failed.items() if name.host.lower() == host)
        yield f"{host}: {plural(count, 'model')} not compared: {error}" + (f" ({error.hint})" if error.hint else "")


def _at_registries(
    manifests: Iterable[tuple[ModelName, Manifest]], store: LocalStore, ca_file: str | Path | None, *, plain_http: bool
) -> tuple[dict[str, tuple[Digest, int | None]], dict[ModelName, RemoteError]]:
    """
    Return what the registries have of each model, by folded name: the digest of its manifest, and the bytes to carry;
    and the error of each model whose registry has failed.

    A model that has the same blobs there gets the digest that it has here.
    """
    from ostore.api.network import network_terms, registries
    from ostore.places.registry.source import RegistrySource

    found: dict[str, tuple[Digest, int | None]] = {}
    failed: dict[ModelName, RemoteError] = {}
    silent: dict[str, RemoteError] = {}
    with registries(network_terms(ca_file=ca_file, plain_http=plain_http), connections=1) as client_of:
        source = RegistrySource(client_of, connections=1)
        for name, manifest in manifests:
            host = name.host.lower()
            if host in silent:
                failed[name] = silent[host]
                continue
            try:
                selections = source.find_models([name.full])
            except RemoteError as error:
                failed[name] = error
                if error.status not in _OF_ONE_MODEL:
                    silent[host] = error
                continue
            for selection in selections:
                (there,) = selection.models
                is_same = [blob.digest for blob in manifest.blobs] == list(there.blobs)
                digest = manifest.digest if is_same else there.manifest_digest
                lacking = sum(blob.size for blob in store.missing_of(selection.blobs))
                found[name.folded] = (digest, lacking)
    return found, failed
