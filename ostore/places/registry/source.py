"""Registries as a source of models: manifests by name, and blobs by ranges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from ostore.formats.digest import Digest
from ostore.formats.errors import (
    BlobMissingError,
    FormatError,
    IntegrityError,
    LimitError,
    NotFoundError,
    SizeMismatchError,
    UnsafeError,
)
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName, choose, is_glob
from ostore.formats.selection import SelectedModel, Selection, Wanted
from ostore.formats.web_address import origin_of
from ostore.places.registry.client import RegistryClient
from ostore.streams.bytes_at import Held
from ostore.streams.chunks import Chunk
from ostore.streams.http import Response
from ostore.streams.ranges import Ranges, Target

_OK, _PARTIAL, _NOT_FOUND = 200, 206, 404
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

    def select(self, patterns: Sequence[str]) -> Selection:
        """
        Ask for the manifest of each name. Globs, and no patterns, mean models that the registry lists.

        Raises NotFoundError, RemoteError, IntegrityError, FormatError, LimitError, UnsafeError.
        """
        names = self._named(patterns)
        manifests = [(name, self._manifest(name)) for name in names]
        selection = Selection.of(manifests)
        self._sizes.update(selection.sizes)
        for name, manifest in manifests:
            for blob in manifest.blobs:
                self._owners.setdefault(blob.digest, name)
        return selection

    def _named(self, patterns: Sequence[str]) -> list[ModelName]:
        whole = [ModelName.parse(word) for word in patterns if not is_glob(word)]
        if len(whole) == len(patterns) and patterns:
            return list(dict.fromkeys(whole))
        listed, unmatched = choose(self._listed(), [word for word in patterns if is_glob(word)] or ["*"])
        if unmatched and patterns:
            raise NotFoundError(f"no model {unmatched[0]!r} at {self.label}")
        return list(dict.fromkeys((*whole, *listed)))

    def find_models(self, folded: Collection[str]) -> tuple[Selection, ...]:
        found = []
        for name in folded:
            with suppress(NotFoundError):
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
        ranges = Ranges([self._blob(one) for one in wanted], connections=self._connections)
        try:
            for one in wanted:
                yield one, ranges.stream()
        except BaseException:
            # After the last stream is asked for, it may still be read.
            ranges.close()
            raise

    def read_manifests(self, models: Sequence[SelectedModel]) -> Iterator[tuple[ModelName, bytes]]:
        for model in models:
            yield model.name, self._manifest(model.name).raw if model.raw is None else model.raw

    def _manifest(self, name: ModelName) -> Manifest:
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
        return manifest

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
