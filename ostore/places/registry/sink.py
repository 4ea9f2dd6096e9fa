"""Registries as the place where models go: only what is missing is sent, and the manifests come last."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from ostore.formats.digest import Digest
from ostore.formats.errors import IntegrityError, InvalidNameError, UsageError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.media_types import MANIFEST, OCI_MANIFEST
from ostore.formats.model_pack import TAG_SUFFIX, ModelPack
from ostore.formats.name import ModelName
from ostore.formats.outcome import Forecast, Outcome, Received
from ostore.formats.selection import Selection, Wanted
from ostore.places.registry.authorization import Permit
from ostore.places.registry.client import RegistryClient
from ostore.places.registry.source import repository_of
from ostore.places.registry.upload import Repository, Sent
from ostore.places.registry.upload_states import UploadStates
from ostore.streams.bytes_at import BytesAt
from ostore.streams.chunks import Chunk
from ostore.streams.pool import WaitingPool
from ostore.streams.verified import verified

# A model of tensors has a thousand of these. Each costs two answers, so several are sent at once.
_SMALL_BYTES = 1024 * 1024
_MOST_UNDER_WAY = 16
# The repositories that lack a blob.
_Lacking: TypeAlias = list[tuple[Repository, Descriptor]]


class MountRefusedError(Exception):
    """A blob was sent to one repository, and the registry does not give it to another. A second push sends it there."""


@dataclass(slots=True)
class _Plan:
    """
    What a selection needs at the registries.

    `lacking` are the blobs that a repository lacks, `present` those that it has, and `outcomes` what becomes of each
    model. `manifests` are those to send: repository, tag, and the model, or the bytes of a ModelPack.
    """

    outcomes: dict[ModelName, Outcome] = field(default_factory=dict)
    lacking: list[tuple[Repository, Descriptor]] = field(default_factory=list)
    present: list[tuple[Repository, Digest]] = field(default_factory=list)
    manifests: list[tuple[Repository, str, ModelName | bytes]] = field(default_factory=list)


class RegistrySink:
    """
    Registries, each model at the one that its target names. `target_of` gives the target of a model.

    `packs` are ModelPacks that are put beside models, under a tag of their own. `sent` counts bytes. What a repository
    is known to have is remembered, so that a second `receive` asks for less.
    """

    def __init__(
        self,
        client_of: Callable[[str], RegistryClient],
        target_of: Callable[[ModelName], ModelName] = lambda name: name,
        *,
        replace: bool = False,
        states: UploadStates | None = None,
        packs: Mapping[ModelName, ModelPack] | None = None,
        connections: int = 1,
    ) -> None:
        self.sent = Sent()
        self._connections = connections
        self._client_of = client_of
        self._target_of = target_of
        self._replace = replace
        self._states = states or UploadStates(None)
        self._packs = packs or {}
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._plan: tuple[Selection, _Plan] | None = None

    def compare(self, selection: Selection) -> Forecast:
        """
        Ask the registries what they have.

        Raises UsageError for a different model of a name, unless it may be replaced, RemoteError, LimitError.
        """
        plan = self._planned(selection)
        missing = {blob.digest: blob for repository, blob in plan.lacking if not self._has_elsewhere(repository, blob)}
        return Forecast(plan.outcomes, tuple(missing.values()))

    def without_clashes(self, selection: Selection) -> Selection:
        return selection

    @contextmanager
    def receive(self, selection: Selection) -> Iterator[RegistryInbox]:
        """Send a selection. Leaving the block makes the models visible, one after the other."""
        plan = self._planned(selection)
        self._plan = None
        with closing(WaitingPool(self._connections)) as pool:
            inbox = RegistryInbox(selection, plan, self._sources_of(selection), self._neighbours, pool)
            for name, pack in self._packs.items():
                if name in plan.outcomes:
                    inbox.write_pack(self._repository(self._target_of(name)), pack)
            yield inbox
            inbox.publish()

    def _planned(self, selection: Selection) -> _Plan:
        """Return what to do, without asking a second time for the same selection."""
        if self._plan is not None and self._plan[0] is selection:
            return self._plan[1]
        if selection.requires:
            hint = "import it into a store, and send the models from there"
            raise UsageError("a delta: a registry has to hold every blob", hint=hint)
        plan, seen = _Plan(), dict[ModelName, ModelName]()
        self._open_repositories(selection)
        for model in selection.models:
            target = self._target_of(model.name)
            twin = seen.setdefault(target, model.name)
            if twin != model.name:
                raise UsageError(f"{twin} and {model.name} would both become {target}")
            repository = self._repository(target)
            plan.outcomes[model.name] = outcome = self._outcome(repository, target, target.tag, model.manifest_digest)
            if outcome is not Outcome.ALREADY_THERE:
                plan.manifests.append((repository, target.tag, model.name))
            if pack := self._packs.get(model.name):
                tag, digest = f"{target.tag}{TAG_SUFFIX}", Digest.of(pack.manifest)
                if self._outcome(repository, target, tag, digest) is not Outcome.ALREADY_THERE:
                    plan.manifests.append((repository, tag, pack.manifest))
        self._look_for_blobs(selection, plan)
        self._plan = selection, plan
        return plan

    def _look_for_blobs(self, selection: Selection, plan: _Plan) -> None:
        """Ask each repository for the blobs of its models. One whose blobs are not all there is not there already."""
        repositories = {model.name: self._repository(self._target_of(model.name)) for model in selection.models}
        asked = dict.fromkeys(
            (repositories[model.name], digest) for model in selection.models for digest in model.blobs
        )
        with closing(WaitingPool(self._connections)) as pool:
            answers = {one: pool.submit(one[0].has, one[1]) for one in asked}
            has = {one: answer.result() for one, answer in answers.items()}
        for repository, digest in asked:
            if has[repository, digest]:
                plan.present.append((repository, digest))
            else:
                plan.lacking.append((repository, Descriptor(digest, selection.sizes[digest])))
        for model in selection.models:
            is_whole = all(has[repositories[model.name], digest] for digest in model.blobs)
            if plan.outcomes[model.name] is Outcome.ALREADY_THERE and not is_whole:
                plan.outcomes[model.name] = Outcome.REPAIRED

    def _outcome(self, repository: Repository, target: ModelName, tag: str, digest: Digest) -> Outcome:
        """Return what putting a manifest under a tag would do. Raises UsageError if another one is there to stay."""
        there = repository.manifest(tag)
        if there is None:
            return Outcome.ADDED
        if Digest.of(there) == digest:
            return Outcome.ALREADY_THERE
        if not self._replace:
            raise UsageError(
                f"{target.host}/{repository.name}:{tag}: the registry has a different model of this name",
                hint="--replace overwrites it",
            )
        return Outcome.REPLACED

    def _open_repositories(self, selection: Selection) -> None:
        """Prepare each repository, with the right to read those that blobs may be mounted from."""
        targets = [self._target_of(model.name) for model in selection.models]
        origins = {name for names in self._sources_of(selection).values() for name in names}
        for target in targets:
            key = (target.host, repository_of(target))
            if key not in self._repositories:
                beside = {repository_of(other) for other in targets if other.host == target.host}
                permit = Permit(key[1], ("pull", "push"), tuple(sorted(beside | origins)))
                client = self._client_of(target.host)
                self._repositories[key] = Repository(client, permit, self._states, self.sent)

    def _repository(self, target: ModelName) -> Repository:
        return self._repositories[target.host, repository_of(target)]

    def _neighbours(self, repository: Repository) -> Iterator[Repository]:
        """Yield the other repositories of the same registry."""
        for other in self._repositories.values():
            if other is not repository and other.client is repository.client:
                yield other

    def _has_elsewhere(self, repository: Repository, blob: Descriptor) -> bool:
        return any(blob.digest in other.present for other in self._neighbours(repository))

    @staticmethod
    def _sources_of(selection: Selection) -> dict[Digest, list[str]]:
        """Return the repositories that blobs were made from, as the models say (`from` of a layer)."""
        found: dict[Digest, list[str]] = {}
        for model in selection.models:
            for layer in Manifest.parse(model.raw or b"").layers if model.raw else ():
                with suppress(InvalidNameError):
                    if layer.origin:
                        found.setdefault(layer.digest, []).append(repository_of(ModelName.parse(layer.origin)))
        return found


class RegistryInbox:
    """One push."""

    def __init__(
        self,
        selection: Selection,
        plan: _Plan,
        origins: Mapping[Digest, list[str]],
        neighbours: Callable[[Repository], Iterable[Repository]],
        pool: WaitingPool,
    ) -> None:
        self._models = {model.name: model for model in selection.models}
        self._selection = selection
        self._plan = plan
        self._origins = origins
        self._neighbours = neighbours
        self._pool = pool
        self._under_way: deque[tuple[_Lacking, Future[_Lacking]]] = deque()
        self._delivered: dict[ModelName, bytes] = {}
        self._written: list[Descriptor] = []
        self._mounted: list[Descriptor] = []
        self._owed: set[Digest] = set()
        self._received: Received | None = None
        self._waiting = [(repository, blob) for repository, blob in plan.lacking if not self._mount(repository, blob)]

    @property
    def missing(self) -> tuple[Wanted, ...]:
        """The blobs to send, from the start: what a registry has of an interrupted upload cannot be hashed here."""
        return tuple({blob.digest: Wanted(blob) for _, blob in self._waiting}.values())

    @property
    def received(self) -> Received:
        if self._received is None:
            raise RuntimeError("nothing is received before it is published")
        return self._received

    def held(self, _digest: Digest, /) -> BytesAt | None:
        return None

    def take_files(self, file_of: Callable[[Descriptor], Path | None]) -> None:
        pass

    def write_blob(self, wanted: Wanted, chunks: Iterable[Chunk]) -> None:
        """
        Send a blob to one repository that lacks it, and let the registry give it to the others.

        Small ones are sent several at once, so an error may be that of an earlier one.
        """
        lacking = [one for one in self._waiting if one[1].digest == wanted.blob.digest]
        if wanted.blob.size > _SMALL_BYTES:
            self._note(lacking, self._deliver(lacking, chunks))
            return
        data = b"".join(verified(chunks, wanted.blob))
        self._under_way.append((lacking, self._pool.submit(self._deliver, lacking, [data])))
        if len(self._under_way) > _MOST_UNDER_WAY:
            self._settle()

    def _deliver(self, lacking: _Lacking, chunks: Iterable[Chunk]) -> _Lacking:
        """Send a blob to the first repository. Return those that have it then."""
        (repository, blob), *others = lacking
        repository.upload(blob, chunks)
        return [lacking[0], *(one for one in others if self._mount(*one))]

    def _settle(self) -> None:
        """Wait for the small blob that was begun first. Raises what sending it raises."""
        lacking, sending = self._under_way.popleft()
        self._note(lacking, sending.result())

    def _note(self, lacking: _Lacking, delivered: _Lacking) -> None:
        self._written.append(lacking[0][1])
        self._waiting = [one for one in self._waiting if one not in delivered]
        if len(delivered) < len(lacking):
            self._owed.add(lacking[0][1].digest)

    def write_pack(self, repository: Repository, pack: ModelPack) -> None:
        """Send the config of a ModelPack."""
        if not repository.has(pack.described.digest):
            repository.upload(pack.described, [pack.config])

    def write_manifest(self, name: ModelName, raw: bytes) -> None:
        if name not in self._models or self._models[name].manifest_digest != Digest.of(raw):
            raise IntegrityError(f"manifest of {name}: not the one that was announced")
        self._delivered[name] = raw

    def publish(self) -> None:
        """Put the manifests. Raises RemoteError, MountRefusedError, and what sending a blob raises."""
        while self._under_way:
            self._settle()
        if self._owed and {blob.digest for _, blob in self._waiting} <= self._owed:
            raise MountRefusedError
        if self._waiting or len(self._delivered) != len(self._models):
            raise RuntimeError("a blob or a manifest of the selection was not delivered")
        for repository, tag, one in self._plan.manifests:
            raw = one if isinstance(one, bytes) else self._delivered[one]
            repository.put_manifest(tag, raw, _media_type_of(raw))
        for repository, digest in self._plan.present:
            # A push that was killed may have sent the last byte.
            repository.forget(digest)
        touched = {blob.digest for blob in (*self._written, *self._mounted)}
        self._received = Received(
            self._plan.outcomes,
            written=tuple(self._written),
            present=tuple(blob for blob in self._selection.blobs if blob.digest not in touched),
            linked=tuple(self._mounted),
        )

    def _mount(self, repository: Repository, blob: Descriptor) -> bool:
        """Let the registry take a blob over from another repository, if one has it."""
        neighbours = {other.name: blob.digest in other.present for other in self._neighbours(repository)}
        # A neighbour that lacks it may get it first. Of other repositories, only the registry knows what they have.
        origins = [name for name in self._origins.get(blob.digest, ()) if name not in {repository.name, *neighbours}]
        for name in dict.fromkeys((*(name for name, has_it in neighbours.items() if has_it), *origins)):
            if not repository.was_refused(blob.digest, name) and repository.mount(blob.digest, name):
                self._mounted.append(blob)
                return True
        return False


def _media_type_of(raw: bytes) -> str:
    """Return the type that a manifest says it has. A registry refuses one that is sent as another."""
    with suppress(ValueError):
        document = json.loads(raw)
        if isinstance(document, dict) and document.get("mediaType") in {MANIFEST, OCI_MANIFEST}:
            return str(document["mediaType"])
    return OCI_MANIFEST
