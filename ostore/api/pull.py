"""Fetch models from registries: into the store, or straight into a bundle for the other side of the gap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.addresses import SinkTerms, sink_of
from ostore.api.locked import Lock, digests_of
from ostore.api.network import network_terms, registries
from ostore.api.typed import BUNDLE_SUFFIXES, OCI, refuse_login, refuse_short_address, typed_name, words_of
from ostore.formats.digest import Digest
from ostore.formats.errors import InvalidDigestError, NotFoundError, UsageError
from ostore.formats.name import DEFAULT_NAMESPACE, DEFAULT_TAG, ModelName, is_glob
from ostore.formats.outcome import Received
from ostore.formats.remedy import ostore
from ostore.formats.selection import OmittedModel, Selection
from ostore.host.discovery import doubts_of_choice
from ostore.operations.transfer import Sink, copy
from ostore.places.registry.catalog import names_at
from ostore.places.registry.source import RegistrySource
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.settings import choose_store, surroundings, threads
from ostore.streams.progress import SILENT, Progress
from ostore.streams.ranges import connections_for

_GLOB = "HOST[:PORT]/NAMESPACE/MODEL:TAG, in quotes"


@dataclass(frozen=True, slots=True)
class PulledModel:
    """A model of a registry. `outcome` is added, replaced, repaired or already there; `digest` its manifest's."""

    name: str
    outcome: str
    digest: str


@dataclass(frozen=True, slots=True)
class PullReport:
    """
    What was pulled, or with `dry_run` would be. Sizes are bytes.

    Blobs were written now, resumed (an interrupted command had finished them) or present already. Repaired blobs were
    damaged; they also count as written or resumed. `destination` is a store's folder, or the word of the destination.
    `bundle_size` is None if no bundle was written. `left_out` are models that a glob has matched and that could not be
    taken.
    """

    destination: str
    dry_run: bool
    models: tuple[PulledModel, ...]
    blobs_written: int
    size_written: int
    blobs_resumed: int
    blobs_present: int
    blobs_repaired: int
    bundle_size: int | None
    left_out: tuple[OmittedModel, ...]
    warnings: tuple[str, ...]


def pull(
    names: Sequence[str] = (),
    *,
    to: str | Path | None = None,
    lock: str | Path | None = None,
    replace: bool = False,
    dry_run: bool = False,
    jobs: int | None = None,
    limit_rate: int | str | None = None,
    ca_file: str | Path | None = None,
    plain_http: bool = False,
    progress: Progress = SILENT,
    before: Callable[[PullReport], object] | None = None,
    models: Path | None = None,
) -> PullReport:
    """
    Fetch models, each from the registry that its name says, and verify them.

    `names` are typed as to Ollama, with `@sha256:…` behind a name for exactly that manifest. A glob such as
    `mirror.lan:11435/library/*` takes what that registry lists. `to` is what `export` takes as its destination; the
    default is the store. `lock` is a lock file: its manifests are fetched and no others, all of them if there are no
    names. `replace` allows overwriting a bundle, or a different model of the same name. With `dry_run`, only manifests
    are fetched and nothing is written. `before` gets the report of a dry run before anything is written.

    `jobs` is the number of connections, `limit_rate` the bytes a second of all of them together (a number, or a text
    such as `10MB`). `ca_file` has certificates of authorities to trust beside those of the system. `plain_http` allows
    connections without TLS to other machines than this one.

    Models become visible at the end; after an error, none does. The same call goes on with what has arrived.

    Raises NotFoundError, UsageError, RemoteError, IntegrityError, BusyError, NoSpaceError, UnsafeError,
    DamagedStoreError, FormatError, LimitError, OSError.
    """
    terms = network_terms(limit_rate=limit_rate, ca_file=ca_file, plain_http=plain_http)
    locked = None if lock is None else Lock.read(lock)
    globs = [word for word in words_of(names) if is_glob(word)]
    hosts = list(dict.fromkeys(map(_host_of, globs)))
    chosen = _chosen([word for word in words_of(names) if not is_glob(word)], None if globs else locked)
    if not chosen and not globs:
        hint = ostore("pull", "llama3", before="for example")
        raise UsageError("names: expected at least one model, got none", hint=hint)
    sink, destination, doubts = _sink(to, models, replace=replace, progress=progress)
    connections = connections_for(None if jobs is None else threads(jobs), terms.limit_rate)
    with registries(terms, connections=connections) as client_of:
        pins = {name: digest for name, digest in chosen if digest is not None}

        def listed() -> Iterator[ModelName]:
            for host in hosts:
                yield from names_at(client_of(host), host)

        source = RegistrySource(client_of, connections=connections, pins=pins, listed=listed)
        progress.phase("pulling manifests", 0)
        selection = source.select([*(name.full for name, _ in chosen), *globs])
        selection.refuse_left(strict=False)
        if not selection.models:
            raise NotFoundError(f"no model matches {', '.join(globs)}", hint="; ".join(selection.notes) or None)
        if locked is not None:
            needed = locked.restricted(model.name for model in selection.models)
            needed.refuse_others(digests_of(selection.models), source.label)
        report = _reporter(selection, destination, doubts, is_carried=to is not None)
        if dry_run or before:
            forecast = sink.compare(selection)
            foreseen = report(Received(forecast.outcomes, forecast.missing), dry_run=True)
            if dry_run:
                return foreseen
            if before:
                before(foreseen)
        return report(copy(source, sink, selection, phase="pulling", progress=progress), dry_run=False)


def _chosen(names: Sequence[str], lock: Lock | None) -> list[tuple[ModelName, Digest | None]]:
    """Return the models to pull, each with the digest that its manifest must have, if one was typed."""
    chosen = [_pinned(word) for word in words_of(names)]
    if not chosen and lock is not None:
        chosen = [(model.name, None) for model in lock.file.models]
    return chosen


def _host_of(glob: str) -> str:
    """Return the registry that lists what a glob may match. Raises UsageError if the glob does not begin with it."""
    refuse_login(glob)
    if "@" in glob or "://" in glob:
        # It is not repeated: there may be a password in an address.
        raise UsageError("a glob begins with a host, without an address before it or a digest behind it", hint=_GLOB)
    host, *rest = glob.split("/")
    if len(rest) != 2 or is_glob(host):  # noqa: PLR2004 - namespace, and model:tag
        raise UsageError(f"{glob}: a glob needs a registry that lists what it has", hint=_GLOB)
    return ModelName(host, DEFAULT_NAMESPACE, "model", DEFAULT_TAG).host


def _pinned(word: str) -> tuple[ModelName, Digest | None]:
    refuse_login(word)
    if word.startswith(OCI) or (word.endswith(BUNDLE_SUFFIXES) and Path(word).is_file()):
        what = "a place on this machine; expected the name of a model in a registry"
        raise UsageError(f"{word}: {what}", hint=ostore("import", word, before="to add its models"))
    name, at, digest = word.partition("@")
    refuse_short_address(name)
    if not at or "://" in word:
        return typed_name(word), None
    if not digest.startswith("sha256:"):
        # It is not repeated: it may be a password.
        raise UsageError("expected @sha256:DIGEST behind a name, or a name without @")
    try:
        return typed_name(name), Digest.parse(digest)
    except InvalidDigestError as error:
        raise UsageError(f"{name}: {error}") from None


def _sink(
    to: str | Path | None, models: Path | None, *, replace: bool, progress: Progress
) -> tuple[Sink, str, tuple[str, ...]]:
    """Return where to put the models, what to call it, and what is doubtful about the choice."""
    if to is not None:
        if models is not None:
            raise UsageError("--to and --models: two destinations; expected one")
        return sink_of(to, SinkTerms(None, replace, threads(None), progress), parameter="to"), str(to), ()
    choice = choose_store(models)
    sink = StoreSink(
        LocalStore(choice.path),
        replace=replace,
        make_parents=choice.reason not in {"flag", "environment"},
        jobs=threads(None),
        progress=progress,
    )
    return sink, str(choice.path), doubts_of_choice(surroundings(), choice)


def _reporter(
    selection: Selection, destination: str, doubts: tuple[str, ...], *, is_carried: bool
) -> Callable[..., PullReport]:
    digests = {model.name: str(model.manifest_digest) for model in selection.models}

    def report(received: Received, *, dry_run: bool) -> PullReport:
        path = Path(destination)
        return PullReport(
            destination=destination,
            dry_run=dry_run,
            models=tuple(
                PulledModel(str(name), outcome.value, digests[name]) for name, outcome in received.outcomes.items()
            ),
            blobs_written=len(received.written),
            size_written=sum(blob.size for blob in received.written),
            blobs_resumed=len(received.resumed),
            blobs_present=len(selection.blobs) - len(received.written) - len(received.resumed),
            blobs_repaired=len(received.repaired),
            bundle_size=path.stat().st_size if not dry_run and path.is_file() else None,
            left_out=tuple(one.told for one in selection.left),
            # Only what may be carried to another machine has to suit that.
            warnings=(*doubts, *(selection.warnings if is_carried else selection.notes)),
        )

    return report
