"""Bring one place up to another: only what it lacks is copied."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.api.chosen_store import refuse_nothing
from ostore.api.rm import Removal, RmReport, interrupted_removals
from ostore.api.sync.places import Copied, Destination, Origin, destination_of, known, opened_origin
from ostore.formats.errors import BusyError, DamagedStoreError, NotFoundError, OstoreError, UnsafeError, UsageError
from ostore.formats.manifest import Manifest
from ostore.formats.name import ModelName
from ostore.formats.outcome import Outcome, Received
from ostore.formats.registry_address import RegistryAddress
from ostore.formats.remedy import ostore
from ostore.formats.selection import OmittedModel, SelectedModel, Selection
from ostore.formats.wording import listed, plural
from ostore.operations.transfer import Sink, Source, copy, copy_sound
from ostore.places.oci_layout.layout import OciLayout
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.manifest_tree import find_manifests
from ostore.streams.progress import SILENT, Progress

if TYPE_CHECKING:
    from ostore.streams.http import NetworkTerms


@dataclass(frozen=True, slots=True)
class SyncedModel:
    """
    A model that was copied, and its name at the destination.

    `outcome` is added, replaced, repaired, or already there for one that lacked blobs.
    """

    name: str
    target: str
    outcome: str


@dataclass(frozen=True, slots=True)
class SyncReport:
    """
    What was copied and removed, or with `dry_run` would be. Sizes are bytes.

    `same` is the number of models that the destination had already. Blobs of the models that were copied were written
    now, resumed (an interrupted command had finished them) or present already. `removed` says what was removed of the
    destination, and is None if nothing was. `left_out` are models of the source that could not be copied.
    """

    source: str
    destination: str
    dry_run: bool
    models: tuple[SyncedModel, ...]
    same: int
    blobs_written: int
    size_written: int
    blobs_resumed: int
    blobs_present: int
    removed: RmReport | None
    left_out: tuple[OmittedModel, ...]
    warnings: tuple[str, ...]


def sync(
    source: str | Path,
    destination: str | Path,
    *,
    replace: bool = False,
    delete: bool = False,
    dry_run: bool = False,
    limit_rate: int | str | None = None,
    ca_file: str | Path | None = None,
    progress: Progress = SILENT,
    approve: Callable[[SyncReport], bool] | None = None,
    before: Callable[[SyncReport], object] | None = None,
) -> SyncReport | None:
    """
    Copy the models of one place that another one lacks.

    Both are the folder of a store, `oci:DIR`, or `https://HOST[:PORT][/NAMESPACE]` for a registry (`http://` without
    TLS); the source may be a bundle too. A model of a registry is named after it, as for `pull`; in a registry, the
    host of a name is the registry's.

    A model with the same config and layers is the same, however its manifest is written. `replace` allows overwriting
    a different model of the same name. `delete` removes the models of a store that the source lacks (of a registry as
    the source: of its own), as `rm` does, and nothing if anything of the source was left out. With `dry_run`, nothing
    is changed. `approve` gets the report of a dry run if models would be removed; if it returns False, nothing is
    changed and `sync` returns None. `before` gets it if models are to be copied.

    `limit_rate` and `ca_file` are those of `pull`; between two registries, each has that rate.

    Raises NotFoundError, UsageError, RemoteError, IntegrityError, BusyError, NoSpaceError, UnsafeError,
    DamagedStoreError, FormatError, LimitError, OSError.
    """
    words = str(source), str(destination)
    network = _Network(RegistryAddress.parse(words[0]), RegistryAddress.parse(words[1]), limit_rate, ca_file)
    with network.origin(words[0]) as origin, network.destination(words[1], progress) as there:
        _refuse_same_place(origin.source, there)
        if delete and there.store is None:
            raise UsageError(f"{words[1]}: no store; models are removed only from a store", parameter="delete")
        progress.phase("comparing", 0)
        selection = origin.source.select(())
        _refuse_to_guess(selection, origin.source, words[0], delete=delete)
        wanted = _wanted(origin.source, selection, there, replace=replace)
        removal = _removal(origin, selection, there) if delete else None
        report = _Reporter(words, there.name_of, len(selection.models) - len(wanted.models))
        sink = there.sink(replace=replace)
        forecast = sink.compare(wanted)
        if removal and not dry_run:
            removal.prepare()
        planned = _planned(removal, wanted) if removal else None
        foreseen = report(Received(forecast.outcomes, forecast.missing), wanted, planned, dry_run=True)
        if dry_run:
            return foreseen
        if planned and approve and not approve(foreseen):
            return None
        if before and wanted.models:
            before(foreseen)
        received, copied = _copied(origin.source, sink, there, wanted, progress)
        if removal and copied.left:
            failed = listed([one.subject for one in copied.left])
            copied = copied.noting(notes=[f"nothing was removed, because {failed} could not be copied"])
            removal = None
        return report(received, copied, _removed(removal, len(received.outcomes)) if removal else None, dry_run=False)


def _refuse_same_place(origin: Source, there: Destination) -> None:
    if isinstance(origin, LocalStore) and there.store:
        source, target = origin.root.resolve(), there.store.root.resolve()
        if target == source:
            raise UsageError(f"{origin.root}: both the source and the destination")
        if target.is_relative_to(source):
            raise UsageError(f"{there.store.root}: a folder in the source")


def _refuse_to_guess(selection: Selection, origin: Source, word: str, *, delete: bool) -> None:
    """Raise if nothing can be copied, or if models are to be removed and not all of the source is known."""
    try:
        if delete and isinstance(origin, LocalStore):
            _refuse_strays(origin)
        refuse_nothing(selection, origin, word, strict=delete)
    except OstoreError as error:
        if RegistryAddress.parse(word) and not selection.models and not selection.left:
            lists = "not every registry lists what it has"
            by_name = ostore("pull", "NAME", before=lists, after="takes one by name")
            error.hint = "; ".join(selection.notes) or by_name
        if selection.models:
            error.args = (f"{error}; while that is so, nothing can be deleted",)
        raise


def _refuse_strays(store: LocalStore) -> None:
    """Raise DamagedStoreError if there is something among the manifests that may stand for models."""
    for stray in store.scan().strays:
        if not stray.is_side_file:
            raise DamagedStoreError(
                f"{stray.path}: not a place where a manifest can be",
                hint=ostore("doctor", models=store.option, after="says what to do about it"),
            )


def _layers(model: SelectedModel) -> list[tuple[str, str, str]] | None:
    """Return what the config and the layers are, in order; None if the manifest is not known yet, as in a bundle."""
    if model.raw is None:
        return None
    blobs = Manifest.parse(model.raw).descriptors
    return [(blob.digest.hex, blob.media_type, blob.layer_name) for blob in blobs]


def _wanted(origin: Source, selection: Selection, there: Destination, *, replace: bool) -> Selection:
    """
    Return what to copy: models that the destination lacks, has with other layers, or lacks blobs of.

    Raises UsageError for a model with other layers, unless `replace` is set.
    """
    forecast = there.sink(replace=True).compare(selection)
    missing = {blob.digest for blob in forecast.missing}
    others = [model for model in selection.models if forecast.outcomes[model.name] is Outcome.REPLACED]
    found = there.found([there.name_of(model.name) for model in others]) if others else {}
    rewritten, different = set(), []
    for model in others:
        target = there.name_of(model.name)
        twin = found.get(target.folded)
        # Old servers have written manifests anew.
        if twin and missing.isdisjoint(model.blobs) and _layers(twin) == _layers(known(origin, model)):
            rewritten.add(model.name)
        else:
            different.append(str(target))
    if different and not replace:
        what = "another model of this name" if len(different) == 1 else "other models of these names"
        raise UsageError(f"{listed(different)}: {what} there", hint="--replace overwrites what differs")
    return selection.restricted(
        model.name
        for model in selection.models
        if model.name not in rewritten
        and (forecast.outcomes[model.name] is not Outcome.ALREADY_THERE or not missing.isdisjoint(model.blobs))
    )


def _removal(origin: Origin, selection: Selection, there: Destination) -> Removal | None:
    """Return the removal of what the source lacks, or None if there is nothing to remove."""
    if there.store is None or not there.store.exists:
        return None
    tree = find_manifests(there.store.root)
    tree.refuse_closed()
    kept = {model.name.folded for model in selection.models}
    names = {entry.name for entry in tree.entries if entry.name}
    names |= interrupted_removals(there.store)
    doomed = [name.full for name in sorted(names) if name.folded not in kept and not origin.may_have(name)]
    return Removal(there.store, doomed) if doomed else None


def _planned(removal: Removal, wanted: Selection) -> RmReport:
    """Return what would be removed. Raises UnsafeError for a model that is only a link to one that goes."""
    planned = removal.plan({blob.digest: tuple(map(str, wanted.users_of(blob.digest))) for blob in wanted.blobs})
    doomed = {ModelName.parse(word).folded for word in removal.words}
    if others := [name for name in planned.models if ModelName.parse(name).folded not in doomed]:
        raise UnsafeError(
            f"{listed(others)}: in {planned.store} only a link to a model that the source lacks, so it would go too",
            hint="without --delete, the other models are copied",
        )
    return planned


def _removed(removal: Removal, copied: int) -> RmReport:
    """Remove what is planned. Raises BusyError if that has changed while models were copied."""
    try:
        return removal.carry_out()
    except (NotFoundError, UsageError) as error:
        raise BusyError(f"{error}; {plural(copied, 'model')} copied", hint="run the same command again") from None


def _copied(source: Source, sink: Sink, there: Destination, wanted: Selection, progress: Progress) -> Copied:
    """Copy, and return what was received and the selection without what turned out to be damaged."""
    if not wanted.models:
        return Received({}), wanted
    if isinstance(source, LocalStore | OciLayout):
        return there.until_sent(lambda: copy_sound(source, sink, wanted, phase="copying", progress=progress))
    return there.until_sent(lambda: (copy(source, sink, wanted, phase="copying", progress=progress), wanted))


@dataclass(frozen=True, slots=True)
class _Network:
    """The registries among the two places, and the terms of their connections."""

    source: RegistryAddress | None
    target: RegistryAddress | None
    limit_rate: int | str | None
    ca_file: str | Path | None

    def __post_init__(self) -> None:
        for option, value in (("limit-rate", self.limit_rate), ("ca-file", self.ca_file)):
            if value is not None and not self.source and not self.target:
                raise UsageError("neither place is a registry", parameter=option)

    def origin(self, word: str) -> AbstractContextManager[Origin]:
        if self.source is None:
            return opened_origin(word)
        from ostore.api.sync.registry import opened_registry_origin

        return opened_registry_origin(self.source, word, self._terms(self.source))

    def destination(self, word: str, progress: Progress) -> AbstractContextManager[Destination]:
        if self.target is None:
            return nullcontext(destination_of(word, progress))
        from ostore.api.sync.registry import opened_registry_destination

        return opened_registry_destination(self.target, self._terms(self.target))

    def _terms(self, address: RegistryAddress) -> NetworkTerms:
        from ostore.api.network import network_terms

        is_plain = address.scheme == "http"
        return network_terms(limit_rate=self.limit_rate, ca_file=self.ca_file, plain_http=is_plain)


@dataclass(frozen=True, slots=True)
class _Reporter:
    """Makes reports of one call. `same` is the number of models that are there already."""

    words: tuple[str, str]
    name_of: Callable[[ModelName], ModelName]
    same: int

    def __call__(self, received: Received, copied: Selection, removed: RmReport | None, *, dry_run: bool) -> SyncReport:
        return SyncReport(
            source=self.words[0],
            destination=self.words[1],
            dry_run=dry_run,
            models=tuple(
                SyncedModel(str(name), str(self.name_of(name)), outcome.value)
                for name, outcome in received.outcomes.items()
            ),
            same=self.same,
            blobs_written=len(received.written),
            size_written=sum(blob.size for blob in received.written),
            blobs_resumed=len(received.resumed),
            blobs_present=len(copied.blobs) - len(received.written) - len(received.resumed),
            removed=removed,
            left_out=tuple(one.told for one in copied.left),
            warnings=copied.warnings,
        )
