"""Registries as a source of models: manifests by name, and blobs by ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from ostore.formats.digest import Digest
from ostore.formats.errors import (
    BlobMissingError,
    ForeignManifestError,
    FormatError,
    IntegrityError,
    LimitError,
    NotFoundError,
    SizeMismatchError,
    UnsafeError,
)
from ostore.formats.gguf import is_gguf
from ostore.formats.manifest import MAX_CONFIG_BYTES, Descriptor, Manifest
from ostore.formats.media_types import MODEL, TEMPLATE, foreign_kind
from ostore.formats.model_pack import is_pack_of
from ostore.formats.name import ModelName, choose, is_glob
from ostore.formats.oci_layout import MAX_MANIFESTS_BYTES
from ostore.formats.packaged_model import is_package, packaged_model
from ostore.formats.selection import LeftOut, SelectedModel, Selection, Wanted
from ostore.formats.web_address import origin_of
from ostore.formats.wording import few_notes
from ostore.places.registry.client import RegistryClient
from ostore.streams.bytes_at import Held
from ostore.streams.chunks import Chunk
from ostore.streams.http import Patience, Response
from ostore.streams.ranges import Ranges, Target
from ostore.streams.verified import verified

_OK, _PARTIAL, _NOT_FOUND = 200, 206, 404
_MAGIC_BYTES = 4
# What a signed address answers when its time is over.
_EXPIRED = frozenset({400, 401, 403, 404, 410})


class RegistrySource:
    """
    Models of registries, each by its name, whose host is the registry.

    `pins` are digests that manifests must have. `listed` gives all names, if the registry is to be asked for them.
    What `select` has seen is remembered, because a blob is asked for in the repository of a model that has it.
    """

    can_resume = True

    def __init__(
        self,
        client_of: Callable[[str], RegistryClient],
        *,
        connections: int,
        label: str = "the registry",
        pins: Mapping[ModelName, Digest] | None = None,
        listed: Callable[[], Iterable[ModelName]] = tuple,
    ) -> None:
        self.label = label
        self._listed = listed
        self._client_of = client_of
        self._connections = connections
        self._pins = pins or {}
        self._is_listed = False
        self._owners: dict[Digest, ModelName] = {}
        self._sizes: dict[Digest, int] = {}
        # The configs of packaged models: no registry has them.
        self._written: dict[Digest, bytes] = {}

    def select(self, patterns: Sequence[str]) -> Selection:
        """
        Ask for the manifest of each name. Globs, and no patterns, mean models that the registry lists.

        What is only listed and no model is a note, and a listed model that cannot be taken is left out. Raises
        NotFoundError, RemoteError, IntegrityError, FormatError, LimitError, UnsafeError.
        """
        named, listed = self._chosen(patterns)
        manifests = [(name, self._manifest(name)) for name in named]
        sizes = {blob.digest: blob.size for _, manifest in manifests for blob in manifest.blobs}
        found, left, notes = self._listed_manifests(listed, sizes)
        manifests += found
        notes += (
            f"{name}: made from a package for other programs, which has no template of Ollama's for prompts"
            for name, manifest in manifests
            if self._is_made(manifest) and TEMPLATE not in manifest.layer_types
        )
        selection = Selection.of(manifests).noting(left, few_notes(notes))
        self._sizes.update(selection.sizes)
        for name, manifest in manifests:
            for blob in manifest.blobs:
                self._owners.setdefault(blob.digest, name)
        return selection

    def _chosen(self, patterns: Sequence[str]) -> tuple[list[ModelName], list[ModelName]]:
        """Return the names that were typed, and those that the registry lists and patterns match."""
        named = list(dict.fromkeys(ModelName.parse(word) for word in patterns if not is_glob(word)))
        if len(named) == len(patterns) and patterns:
            return named, []
        listed, unmatched = choose(dict.fromkeys(self._listed()), [word for word in patterns if is_glob(word)] or ["*"])
        if unmatched and patterns:
            raise NotFoundError(f"no model {unmatched[0]!r} at {self.label}")
        return named, [name for name in listed if name not in named]

    def _listed_manifests(
        self, names: Sequence[ModelName], sizes: dict[Digest, int]
    ) -> tuple[list[tuple[ModelName, Manifest]], list[LeftOut], list[str]]:
        """
        Return the manifests of listed names, the models that cannot be taken, and what is no model.

        `sizes` are those of the blobs so far. A model that says another one is left out. Raises RemoteError, and
        LimitError if the manifests have too many bytes in all.
        """
        kept = 0
        found: list[tuple[ModelName, Manifest]] = []
        notes: list[str] = []
        spellings = Counter(name.folded for name in names)
        left = [
            LeftOut(str(name), UnsafeError(f"{name}: a name that differs from it only by case is listed too"))
            for name in names
            if spellings[name.folded] > 1
        ]
        beside = frozenset(names)
        for name in names:
            if spellings[name.folded] > 1:
                continue
            try:
                manifest = self._manifest(name)
                if self._is_made(manifest) and is_pack_of(name, beside):
                    # The model itself comes too.
                    continue
                for blob in manifest.blobs:
                    if sizes.setdefault(blob.digest, blob.size) != blob.size:
                        raise UnsafeError(f"{name}: {blob.digest}: two sizes for one blob")  # noqa: TRY301
                found.append((name, manifest))
                kept += len(manifest.raw)
            except ForeignManifestError as error:
                notes.append(f"not taken: {error}")
            except (NotFoundError, IntegrityError, UnsafeError, FormatError, LimitError) as error:
                left.append(LeftOut(str(name), error))
            if kept > MAX_MANIFESTS_BYTES:
                raise LimitError(
                    f"{self.label}: lists models with manifests of more than {MAX_MANIFESTS_BYTES} bytes in all",
                    hint="take fewer models at once: one namespace, or a narrower glob",
                )
        return found, left, notes

    def lacks(self, name: ModelName) -> bool:
        """Whether a registry has nothing of a name, not even what cannot be taken. Raises RemoteError, LimitError."""
        try:
            self._client_of(name.host).manifest(repository_of(name), name.tag)
        except NotFoundError:
            return True
        return False

    def find_models(self, folded: Collection[str]) -> tuple[Selection, ...]:
        """Return one selection for each of these names that is a model there. Raises RemoteError."""
        found = []
        for name in folded:
            with suppress(NotFoundError, IntegrityError, UnsafeError, FormatError, LimitError):
                found.append(self.select([name]))
        return tuple(found)

    def find_blobs(self, lacking: Mapping[Digest, int | None]) -> tuple[Descriptor, ...]:
        self._look_for(lacking)
        return tuple(
            Descriptor(digest, self._sizes[digest])
            for digest, size in lacking.items()
            if digest in self._sizes and size in {None, self._sizes[digest]}
        )

    def file_of(self, _blob: Descriptor, /) -> Path | None:
        return None

    def read_blobs(self, wanted: Sequence[Wanted], _held: Held, /) -> Iterator[tuple[Wanted, Iterator[Chunk]]]:
        self._look_for(one.blob.digest for one in wanted)
        away = [one for one in wanted if one.blob.digest not in self._written]
        ranges = Ranges([self._blob(one) for one in away], connections=self._connections)
        try:
            for one in wanted:
                here = self._written.get(one.blob.digest)
                yield one, ranges.stream() if here is None else iter([here[one.start :]])
        except BaseException:
            # After the last stream is asked for, it may still be read.
            ranges.close()
            raise

    def read_manifests(self, models: Sequence[SelectedModel]) -> Iterator[tuple[ModelName, bytes]]:
        for model in models:
            yield model.name, self._manifest(model.name).raw if model.raw is None else model.raw

    def _manifest(self, name: ModelName) -> Manifest:
        """Return the manifest of a model, or of the model in a package. Raises ForeignManifestError for an image."""
        client, repository = self._client_of(name.host), repository_of(name)
        pin = self._pins.get(name)
        answer = client.manifest(repository, str(pin) if pin else name.tag)
        try:
            manifest = Manifest.parse(answer.body)
            manifest.refuse_unclear()
        except (UnsafeError, FormatError, LimitError) as error:
            raise type(error)(f"{name}: {client.base} sends no manifest of a model: {error}") from None
        told = answer.headers.get("docker-content-digest", str(manifest.digest))
        for expected in (told, str(pin or manifest.digest)):
            if expected != str(manifest.digest):
                raise IntegrityError(f"{name}: {client.base}: expected the manifest {expected}, got {manifest.digest}")
        try:
            kind = foreign_kind(manifest.layer_types)
            if kind and is_package(manifest) and manifest.config:
                packaged = packaged_model(manifest, self._small(name, manifest.config))
                manifest = packaged.manifest
                manifest.refuse_unclear()
                self._refuse_other_weights(name, manifest)
                self._written[Digest.of(packaged.config)] = packaged.config
            elif kind or not manifest.blobs:
                raise ForeignManifestError(kind or "no model: it has no blob")
        except (UnsafeError, FormatError, LimitError, IntegrityError) as error:
            error.args = (f"{name}: {error}",)
            raise
        return manifest

    def _is_made(self, manifest: Manifest) -> bool:
        """Whether a manifest is made from that of a package."""
        return manifest.config is not None and manifest.config.digest in self._written

    def _small(self, name: ModelName, blob: Descriptor) -> bytes:
        """Return a small blob. Raises BlobError, RemoteError, LimitError."""
        target = self._blob_of(name, blob)

        def read() -> bytes:
            with target.opened(0, blob.size) as response:
                return response.whole(MAX_CONFIG_BYTES).body

        return b"".join(verified([Patience().repeated(read)], blob))

    def _refuse_other_weights(self, name: ModelName, manifest: Manifest) -> None:
        """Look at the first bytes of weights: a package may say of any file that it is GGUF. Raises FormatError."""
        weights = next(layer for layer in manifest.layers if layer.media_type == MODEL)
        target = self._blob_of(name, weights)
        begin = bytearray(min(_MAGIC_BYTES, weights.size))

        def read() -> None:
            with target.opened(0, len(begin)) as response:
                response.read_into(memoryview(begin))

        Patience().repeated(read)
        if not is_gguf(bytes(begin)):
            raise ForeignManifestError(f"its weights are no GGUF file: they begin with {bytes(begin)!r}")

    def _blob_of(self, name: ModelName, blob: Descriptor) -> _Blob:
        return _Blob(self._client_of(name.host), repository_of(name), Wanted(blob))

    def _blob(self, wanted: Wanted) -> Target:
        name = self._owners.get(wanted.blob.digest)
        if name is None:
            return _AbsentBlob(self.label, wanted)
        return _Blob(self._client_of(name.host), repository_of(name), wanted)

    def _look_for(self, digests: Iterable[Digest]) -> None:
        """Ask for the manifests of all models that the registry lists, if one of these blobs is not known."""
        if any(digest not in self._owners for digest in digests) and not self._is_listed:
            self._is_listed = True
            self.select(())


class _AbsentBlob:
    """A blob of no model of the registry."""

    def __init__(self, label: str, wanted: Wanted) -> None:
        self.start, self.size = wanted.start, wanted.blob.size
        self._error = BlobMissingError(f"{label}: no blob {wanted.blob.digest}", digest=str(wanted.blob.digest))

    def opened(self, _first: int, _end: int, /) -> NoReturn:
        raise self._error

    def refuse_size(self, _size: int, /) -> None:
        pass


class _Blob:
    """A blob at a registry: a target of `Ranges`."""

    def __init__(self, client: RegistryClient, repository: str, wanted: Wanted) -> None:
        self.start, self.size = wanted.start, wanted.blob.size
        self._client = client
        self._repository = repository
        self._digest = str(wanted.blob.digest)
        self._direct: str | None = None

    @contextmanager
    def opened(self, first: int, end: int, /) -> Iterator[Response]:
        """Ask for a range, or for all without one. Raises BlobMissingError, RemoteError, LimitError."""
        is_whole = first == 0 and end == self.size
        headers = {} if is_whole else {"Range": f"bytes={first}-{end - 1}"}
        if self._direct is not None:
            # The registry has redirected to a server of files. Each redirect costs a request, so it is asked once.
            with self._client.opened_url(self._direct, headers) as response:
                if response.status not in _EXPIRED:
                    self._refuse(response)
                    yield response
                    return
            self._direct = None
        with self._client.opened_blob(self._repository, self._digest, headers) as response:
            self._refuse(response)
            if origin_of(response.url) != origin_of(self._client.base):
                self._direct = response.url
            yield response

    def refuse_size(self, size: int, /) -> None:
        if size != self.size:
            raise SizeMismatchError(
                f"blob {self._digest}: expected {self.size} bytes, {self._client.base} has {size}", digest=self._digest
            )

    def _refuse(self, response: Response) -> None:
        if response.status == _NOT_FOUND:
            raise BlobMissingError(f"{self._client.base}: no blob {self._digest}", digest=self._digest)
        if response.status not in {_OK, _PARTIAL}:
            raise self._client.refused(response.request, response.whole())


def repository_of(name: ModelName) -> str:
    """Return what a registry calls the models of which this is one tag."""
    return f"{name.namespace}/{name.model}"
