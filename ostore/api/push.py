"""Send models of the store to registries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ostore.api.chosen_store import chosen_store, refuse_nothing
from ostore.api.network import network_terms, registries
from ostore.api.typed import typed_models
from ostore.formats.config import ModelConfig
from ostore.formats.errors import InvalidNameError, OstoreError, UsageError
from ostore.formats.manifest import MAX_CONFIG_BYTES, Manifest
from ostore.formats.model_pack import ModelPack, model_pack
from ostore.formats.name import ModelName
from ostore.formats.outcome import Received
from ostore.formats.selection import Selection
from ostore.operations.transfer import copy
from ostore.places.registry.client import RegistryClient
from ostore.places.registry.sink import MountRefusedError, RegistrySink
from ostore.places.registry.upload import UploadLostError
from ostore.places.registry.upload_states import UploadStates
from ostore.places.store.store import LocalStore
from ostore.settings import state_folder
from ostore.streams.progress import SILENT, Progress

# An upload that a registry has lost begins anew. One that loses all of them is left alone.
_TRIES = 3
PUSH_CONNECTIONS = 8
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PushedModel:
    """A model and its name at the registry. `digest` is its manifest's.

    `outcome` is added, replaced, repaired (its blobs were missing) or already there.
    """

    name: str
    target: str
    outcome: str
    digest: str


@dataclass(frozen=True, slots=True)
class PushReport:
    """
    What was sent, or with `dry_run` would be. Sizes are bytes.

    Blobs were sent now, mounted (the registry took them over from another repository of its own) or present already.
    `size_resumed` is what an interrupted push had sent of them; it does not count as sent.
    """

    dry_run: bool
    models: tuple[PushedModel, ...]
    blobs_sent: int
    size_sent: int
    size_resumed: int
    blobs_mounted: int
    blobs_present: int
    warnings: tuple[str, ...]


def push(
    names: Sequence[str],
    *,
    to: str | None = None,
    modelpack: bool = False,
    replace: bool = False,
    dry_run: bool = False,
    limit_rate: int | str | None = None,
    ca_file: str | Path | None = None,
    plain_http: bool = False,
    progress: Progress = SILENT,
    before: Callable[[PushReport], object] | None = None,
    models: Path | None = None,
) -> PushReport:
    """
    Send models, each to the registry that its name says, or all of them `to` a registry and namespace.

    `names` are names or globs of the store. `to` is `HOST/NAMESPACE`; a model keeps its name and tag there. With
    `modelpack`, a manifest of the CNCF's ModelPack is put beside each model, under its tag and `-modelpack`. `replace`
    allows overwriting a different model of the same name. With `dry_run`, registries are asked and nothing is sent.
    `before` gets the report of a dry run before anything is sent. The other parameters are those of `pull`.

    Only what a registry lacks is sent, byte for byte as it is, and the manifest last. The same call goes on where an
    interrupted one has stopped.

    Raises NotFoundError, UsageError, RemoteError, IntegrityError, UnsafeError, DamagedStoreError, FormatError,
    LimitError, OSError.
    """
    terms = network_terms(limit_rate=limit_rate, ca_file=ca_file, plain_http=plain_http)
    target_of = _target_of(to)
    store = chosen_store(models).require_whole()
    words = typed_models(names, store)
    if not words:
        raise UsageError("names: expected at least one model, got none")
    selection = store.select(words)
    refuse_nothing(selection, store, store.label, strict=True)
    with registries(terms, connections=PUSH_CONNECTIONS) as client_of:
        packs = _packs(store, selection) if modelpack else {}
        sink = registry_sink(client_of, target_of, replace=replace, packs=packs)
        report = _reporter(selection, sink, target_of)
        progress.phase("asking the registry", 0)
        if dry_run or before:
            forecast = sink.compare(selection)
            foreseen = report(Received(forecast.outcomes, forecast.missing), dry_run=True)
            if dry_run:
                return foreseen
            if before:
                before(foreseen)
        received = until_sent(lambda: copy(store, sink, selection, phase="pushing", progress=progress))
        return report(received, dry_run=False)


def registry_sink(
    client_of: Callable[[str], RegistryClient],
    target_of: Callable[[ModelName], ModelName],
    *,
    replace: bool,
    packs: Mapping[ModelName, ModelPack] | None = None,
) -> RegistrySink:
    """Return a sink that goes on with the uploads of this person."""
    return RegistrySink(
        client_of,
        target_of,
        replace=replace,
        states=UploadStates(state_folder("uploads")),
        packs=packs or {},
        connections=PUSH_CONNECTIONS,
    )


def until_sent(send: Callable[[], _T]) -> _T:
    """Send again what a registry has lost, or did not take over from another repository. Raises what `send` raises."""
    left = _TRIES
    while True:
        try:
            return send()
        except MountRefusedError:
            # Each time, one more repository gets what it lacks.
            continue
        except UploadLostError as lost:
            left -= 1
            if not left:
                raise lost.error from None


def _target_of(to: str | None) -> Callable[[ModelName], ModelName]:
    """Return what gives a model its name at the registry. Raises UsageError if `to` is no registry and namespace."""
    if to is None:
        return lambda name: name
    host, _, namespace = to.partition("/")
    try:
        ModelName(host, namespace, "m", "t")
    except InvalidNameError:
        # It is not repeated: there may be a password in an address.
        raise UsageError("expected REGISTRY/NAMESPACE, such as registry.lan:5000/models", parameter="to") from None
    return lambda name: ModelName(host, namespace, name.model, name.tag)


def _packs(store: LocalStore, selection: Selection) -> dict[ModelName, ModelPack]:
    """Return the ModelPack of each model. Raises UsageError for a model that is none of GGUF files."""
    packs = {}
    for model in selection.models:
        manifest = Manifest.parse(model.raw or b"")
        config = ModelConfig()
        if manifest.config:
            config = ModelConfig.parse(store.read_small_blob(manifest.config, MAX_CONFIG_BYTES + 1))
        try:
            packs[model.name] = model_pack(model.name, manifest, config)
        except OstoreError as error:
            raise UsageError(str(error), parameter="modelpack") from None
    return packs


def _reporter(
    selection: Selection, sink: RegistrySink, target_of: Callable[[ModelName], ModelName]
) -> Callable[..., PushReport]:
    digests = {model.name: str(model.manifest_digest) for model in selection.models}

    def report(received: Received, *, dry_run: bool) -> PushReport:
        sent = {blob.digest for blob in received.written}
        mounted = {blob.digest for blob in received.linked} - sent
        return PushReport(
            dry_run=dry_run,
            models=tuple(
                PushedModel(str(name), str(target_of(name)), outcome.value, digests[name])
                for name, outcome in received.outcomes.items()
            ),
            blobs_sent=len(sent),
            size_sent=sum(blob.size for blob in received.written) if dry_run else sink.sent.size,
            size_resumed=sink.sent.resumed,
            blobs_mounted=len(mounted),
            blobs_present=len(selection.blobs) - len(sent) - len(mounted),
            warnings=selection.notes,
        )

    return report
