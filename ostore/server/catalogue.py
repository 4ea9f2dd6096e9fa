"""Which model a request means. A client asks for `library/llama3`, from whatever host the store has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ostore.formats.digest import Digest
from ostore.formats.manifest import Descriptor
from ostore.formats.name import DEFAULT_HOST, ModelName
from ostore.server.supplies import ServedModel


class Repository:
    """
    The models of one namespace and name, from all hosts.

    `tags` has one model for each tag: that of Ollama's own host if there is one, else that of the first host by name.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.tags: dict[str, ServedModel] = {}
        self.manifests: dict[Digest, ServedModel] = {}
        self.blobs: dict[Digest, Descriptor] = {}

    def add(self, model: ServedModel) -> None:
        self.tags.setdefault(model.name.tag.lower(), model)
        self.manifests.setdefault(model.digest, model)
        self.blobs.update((blob.digest, blob) for blob in model.blobs)


class Catalogue:
    """
    The models that are served. It does not change: when models come or go, there is another one.

    `broken` are names of the place that cannot be served, and with `has_doubts` there may be others that are not even
    known. To a client that is not the same as if they were gone.
    """

    def __init__(
        self, models: Iterable[ServedModel] = (), broken: Iterable[ModelName] = (), *, has_doubts: bool = False
    ) -> None:
        self.broken = frozenset(broken)
        self.has_doubts = has_doubts
        self._broken = {f"{name.namespace}/{name.model}:{name.tag}".lower() for name in self.broken}
        self.models: Sequence[ServedModel] = sorted(models, key=lambda model: _preference(model.name))
        self.repositories: dict[str, Repository] = {}
        for model in self.models:
            path = f"{model.name.namespace}/{model.name.model}"
            self.repositories.setdefault(path.lower(), Repository(path)).add(model)

    def repository(self, path: str) -> Repository | None:
        """Return the models of `namespace/model`. Case does not matter, as in Ollama."""
        return self.repositories.get(path.lower())

    def may_be_broken(self, path: str, tag: str) -> bool:
        """Whether there is or may be a model of this name, and it cannot be served."""
        repository = self.repository(path)
        is_served = repository is not None and tag.lower() in repository.tags
        return not is_served and (self.has_doubts or f"{path}:{tag}".lower() in self._broken)

    @property
    def blobs(self) -> dict[Digest, Descriptor]:
        """Every blob, once."""
        return {digest: blob for one in self.repositories.values() for digest, blob in one.blobs.items()}


def _preference(name: ModelName) -> tuple[bool, str, str]:
    """Return a key that sorts those models first that a request means if it can mean several."""
    return name.host.lower() != DEFAULT_HOST, name.folded, name.full
