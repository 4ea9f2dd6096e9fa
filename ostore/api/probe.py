"""Ask a running Ollama whether it serves what the store holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ostore.api.chosen_store import chosen_store
from ostore.api.network import network_terms
from ostore.api.probe_answers import Answers, SpokenWord, ask, hear
from ostore.api.probe_place import is_of_this_machine, place_of, running_addresses
from ostore.api.typed import means_model, typed_models
from ostore.formats.config import ModelConfig
from ostore.formats.errors import NotFoundError, OstoreError, RemoteError, UsageError
from ostore.formats.manifest import MAX_CONFIG_BYTES
from ostore.formats.remedy import Remedy, command, ostore, person
from ostore.formats.store_layout import MANIFESTS
from ostore.host.ollama_address import address_of, typed_address
from ostore.host.ollama_api import OllamaApi
from ostore.operations.listing import list_rows
from ostore.operations.probe import AS_STORED, Comparison, Served, compare, lacks_version, notes_of_version
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.scan import StoredModel
from ostore.settings import surroundings
from ostore.streams.http import Http
from ostore.streams.progress import SILENT, Progress

# A list is made at once. Ollama itself waits five minutes for a model that does not get on with loading.
SECONDS = 30.0
MODEL_SECONDS = 600.0
_FORBIDDEN = frozenset({401, 403})

Verdict = Literal["served", "differs", "silent"]


@dataclass(frozen=True, slots=True)
class ProbedModel:
    """
    A model of the store, and what the server serves in its place.

    `served` is `same`, `rewritten` (another ID for the same layers), `different`, `incomplete` (the server lacks some
    of its blobs) or `missing`. `digest` and `served_digest` are of the manifests. `because` says more, or is empty.
    `problem` is what the server says when it cannot open the model, or empty. `loaded` says whether the model was in
    memory before. `words` is empty if it was not asked for one.
    """

    name: str
    served: Served
    digest: str
    served_digest: str | None
    because: str
    problem: str
    loaded: bool
    words: tuple[SpokenWord, ...]


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """
    What a running Ollama serves of a store.

    `server_store` is the folder that the server says it uses, None if it opens no model; `is_same_store` says whether
    that is this store, None if that cannot be told from here. `extra` are models that the server alone has; it is empty
    if some models were named. `verdict` is `served`, `differs`, or `silent` if all is as stored, but a model cannot be
    opened or does not answer. `remedy` is what to do about the first of the `warnings`.
    """

    url: str
    version: str
    store: str
    server_store: str | None
    is_same_store: bool | None
    models: tuple[ProbedModel, ...]
    extra: tuple[str, ...]
    verdict: Verdict
    warnings: tuple[str, ...]
    remedy: Remedy


def probe(
    url: str | None = None,
    *,
    names: Sequence[str] = (),
    generate: bool = False,
    timeout: float | None = None,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> ProbeReport:
    """
    Ask the Ollama at `url`, by default that of OLLAMA_HOST, whether it serves what the store holds, digest by digest.

    `names` (or globs) choose some models. With `generate`, each of them says a word over both APIs, and models that
    were not in memory before leave it again. The server may be silent for `timeout` seconds; the default is 30, and 600
    while a model says its word. Raises RemoteError if the server cannot be reached or is no Ollama, LimitError if it
    answers too much, NotFoundError (also for a store without models), UsageError, OSError.
    """
    store = chosen_store(models).require()
    address = _address(url, store, names, generate=generate)
    if timeout is not None and not timeout > 0:
        raise UsageError(f"expected more than 0 seconds, got {timeout:g}", parameter="timeout")
    scan = store.scan(typed_models(names, store))
    stored = sorted((model for model in scan.models if model.tree == MANIFESTS), key=lambda model: model.name.full)
    if not stored:
        # A script takes the end of this command for a proof, and nothing would be proven.
        raise _nothing_to_compare(store, is_readable=not scan.unreadable)
    # Nothing secret is sent, and Ollama itself speaks nothing but plain http.
    http = Http(network_terms(plain_http=True))
    api = OllamaApi(address, http, seconds=timeout or SECONDS, model_seconds=timeout or MODEL_SECONDS)
    progress.phase("asking the server", 0)
    version = _version(api)
    answers = ask(api, store, stored)
    words = hear(api, answers, stored, progress) if generate else {}
    probed = tuple(_probed(store, model, answers, words.get(model.name.folded, ())) for model in stored)
    place = place_of(store, models, address, answers.folder, differs=any(one.served not in AS_STORED for one in probed))
    old = [one for one in stored if lacks_version(_requires(store, one), version)]
    return ProbeReport(
        url=address,
        version=version,
        store=str(store.root),
        server_store=place.folder,
        is_same_store=place.is_same,
        models=probed,
        extra=() if names else _extra(answers, stored),
        verdict=_verdict(probed),
        warnings=(
            *place.warnings,
            *answers.notes,
            *notes_of_version(version),
            *(
                f"{one.name}: made for Ollama {_requires(store, one):.40} and newer; the server has {version:.40}"
                for one in old
            ),
            *store.told(scan, "counted"),
            *(f"{entry.path}: not compared: {entry.reason}" for entry in scan.unreadable),
        ),
        remedy=place.remedy,
    )


def _nothing_to_compare(store: LocalStore, *, is_readable: bool) -> NotFoundError:
    if is_readable:
        error = store.no_models()
        return NotFoundError(f"{error} to compare", hint=error.hint)
    look = ostore("doctor", models=store.option, after="shows what is in it")
    return NotFoundError(f"no models in {store.label} that can be read, to compare", hint=look)


def _address(url: str | None, store: LocalStore, names: Sequence[str], *, generate: bool) -> str:
    """Return the URL to ask. Raises UsageError if what was typed is none, or is a model."""
    if url is None:
        return address_of(surroundings().environ)
    if means_model(url, store):
        chosen = [word for name in (url, *names) for word in ("--model", name)]
        hint = ostore("probe", *chosen, *(["--generate"] if generate else []))
        raise UsageError(f"{url}: a model; expected the address of a server", hint=hint)
    return typed_address(url)


def _version(api: OllamaApi) -> str:
    try:
        return api.version()
    except RemoteError as error:
        if error.status in _FORBIDDEN:
            error.hint = person("it answers only to names that it knows, or wants a key: try its IP address")
        elif error.status is None:
            error.hint = _way_to_a_server(api.url)
        raise


def _way_to_a_server(url: str) -> Remedy:
    """Return what to do where nothing answers."""
    if not is_of_this_machine(url):
        return person("Ollama listens to other machines only if OLLAMA_HOST=0.0.0.0 is set for it")
    for address in running_addresses():
        if address != url:
            return ostore("probe", address, before="an Ollama listens elsewhere")
    return command("ollama", "serve", before="is it running?", after="starts it")


def _probed(store: LocalStore, model: StoredModel, answers: Answers, words: tuple[SpokenWord, ...]) -> ProbedModel:
    folded = model.name.folded
    shown = answers.shown.get(folded)
    found = compare(
        model.manifest,
        answers.listed.get(folded),
        opened=shown.digests if shown else (),
        lacking=answers.lacking,
        hidden="" if folded in answers.listed else _hidden(store, model),
    )
    return ProbedModel(
        name=str(model.name),
        served=found.served,
        digest=f"sha256:{model.manifest.model_id}",
        served_digest=_text(found),
        because=found.because,
        problem=answers.problems.get(folded, ""),
        loaded=folded in answers.loaded,
        words=words,
    )


def _text(found: Comparison) -> str | None:
    return None if found.digest is None else str(found.digest)


def _hidden(store: LocalStore, model: StoredModel) -> str:
    """Return why no server lists a model, or an empty text."""
    return list_rows(store, [model], lambda _: True)[0].note


def _requires(store: LocalStore, model: StoredModel) -> str:
    if model.manifest.config is None:
        return ""
    try:
        return ModelConfig.parse(store.read_small_blob(model.manifest.config, MAX_CONFIG_BYTES + 1)).requires
    except (OstoreError, OSError):
        return ""


def _extra(answers: Answers, stored: Sequence[StoredModel]) -> tuple[str, ...]:
    ours = {model.name.folded for model in stored}
    return tuple(sorted(model.name for folded, model in answers.listed.items() if folded not in ours))


def _verdict(models: Sequence[ProbedModel]) -> Verdict:
    if any(model.served not in AS_STORED for model in models):
        return "differs"
    is_silent = any(model.problem or any(word.problem for word in model.words) for model in models)
    return "silent" if is_silent else "served"
