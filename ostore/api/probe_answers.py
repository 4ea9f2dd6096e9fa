"""What a running Ollama answers about the models of a store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath, PureWindowsPath

from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError, RemoteError
from ostore.host.ollama_api import OllamaApi, ServedModel, Shown, Spoken
from ostore.operations.listing import is_cloud_stub
from ostore.operations.probe import folded
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.scan import StoredModel
from ostore.streams.progress import Progress

# Ollama's words for what a model can do, and that can be asked for a word.
_EMBEDDING, _COMPLETION = "embedding", "completion"


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """
    What a model answered over one API, `ollama` or `openai`. `problem` is empty if it did.

    `seconds` went by until its first token came, `load_seconds` of them for loading; that and `tokens_per_second` are
    the server's own figures. What is not known is None. An embedding model has `dimensions` and no text.
    """

    api: str
    text: str
    seconds: float | None
    load_seconds: float | None
    tokens: int | None
    tokens_per_second: float | None
    dimensions: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class Answers:
    """
    What a server says of the models of a store, each by folded name, and what is odd about it.

    `names` are those that it lists. `shown` are the models that it opens, `problems` why it does not open others. Of
    models that run elsewhere it is not asked. `lacking` are the blobs of listed models that it does not have. `loaded`
    are in its memory.
    """

    listed: Mapping[str, ServedModel]
    shown: Mapping[str, Shown]
    problems: Mapping[str, str]
    lacking: frozenset[Digest]
    loaded: frozenset[str]
    notes: tuple[str, ...]

    @property
    def folder(self) -> str | None:
        """The folder of its store as the server sees it, by the path of a blob that it opens. None if it opens none."""
        for shown in self.shown.values():
            for path in shown.files if shown.digests else ():
                return str(_pure(path).parent.parent)
        return None


def ask(api: OllamaApi, store: LocalStore, stored: Sequence[StoredModel]) -> Answers:
    """Ask a server about models. Raises RemoteError, LimitError."""
    served = api.models()
    listed = {folded(model.name): model for model in served}
    shown: dict[str, Shown] = {}
    problems: dict[str, str] = {}
    lacking: dict[Digest, bool] = {}
    for model in stored:
        found = listed.get(model.name.folded)
        if found is None:
            continue
        for blob in model.manifest.blobs:
            if blob.digest not in lacking:
                lacking[blob.digest] = not api.has_blob(blob.digest)
        if not runs_elsewhere(store, model, found):
            try:
                shown[model.name.folded] = api.show(found.name)
            except RemoteError as error:
                if error.status is None:
                    raise
                problems[model.name.folded] = str(error)
    loaded = api.loaded()
    return Answers(
        listed=listed,
        shown=shown,
        problems=problems,
        lacking=frozenset(digest for digest, is_lacking in lacking.items() if is_lacking),
        loaded=frozenset(map(folded, loaded)),
        notes=(*_stale(served, loaded), *_unlike_openai(api, served)),
    )


def runs_elsewhere(store: LocalStore, model: StoredModel, listed: ServedModel) -> bool:
    """Return whether the server would ask another host about a model: a stub, or a tag that means Ollama's cloud."""
    return listed.is_stub or model.name.is_selector or is_cloud_stub(store, model.manifest)


def hear(
    api: OllamaApi, answers: Answers, models: Sequence[StoredModel], progress: Progress
) -> dict[str, tuple[SpokenWord, ...]]:
    """
    Let each model that the server opens say a word over both APIs. A model that was not in memory leaves it again.

    A model that does not answer has a problem in its words, and the others are asked all the same.
    """
    words = {}
    for number, model in enumerate(models, 1):
        shown = answers.shown.get(model.name.folded)
        ways = _ways(api, shown.capabilities) if shown else ()
        name = answers.listed[model.name.folded].name if shown else ""
        if ways:
            progress.phase(f"waiting for a word of model {number} of {len(models)}", 0)
            words[model.name.folded] = tuple(_word(way, ask, name) for way, ask in ways)
            if model.name.folded not in answers.loaded:
                with contextlib.suppress(OstoreError):
                    api.unload(name)
    return words


def _ways(api: OllamaApi, capabilities: Sequence[str]) -> tuple[tuple[str, Callable[[str], Spoken]], ...]:
    """Return how to ask a model that can do this. One that makes pictures is not asked."""
    if _COMPLETION in capabilities:
        return (("ollama", api.generate), ("openai", api.chat_as_openai))
    if _EMBEDDING in capabilities:
        return (("ollama", api.embed), ("openai", api.embed_as_openai))
    return ()


def _word(api: str, ask: Callable[[str], Spoken], name: str) -> SpokenWord:
    try:
        said = ask(name)
    except OstoreError as error:
        return SpokenWord(api, "", None, None, None, None, None, str(error))
    return SpokenWord(
        api, said.text, said.seconds, said.load_seconds, said.tokens, said.tokens_per_second, said.dimensions, ""
    )


def _stale(served: Sequence[ServedModel], loaded: Mapping[str, Digest]) -> Iterator[str]:
    now = {model.name: model.digest for model in served}
    for name, digest in loaded.items():
        if now.get(name, digest) != digest:
            yield f"{name:.80}: an older version of it is in memory; `ollama stop` takes it out"


def _unlike_openai(api: OllamaApi, served: Sequence[ServedModel]) -> Iterator[str]:
    try:
        names = api.openai_names()
    except RemoteError as error:
        if error.status is None:
            raise
        yield f"no models over the API of OpenAI: {error}"
        return
    if missing := sorted({model.name for model in served} - names):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        yield f"the API of OpenAI does not list {missing[0]:.80}{more}"


def _pure(path: str) -> PurePath:
    """Return a path of the server's machine, which may be another kind of machine than this."""
    return PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
