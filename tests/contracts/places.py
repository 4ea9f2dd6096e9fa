"""Make every source and sink that the contract suites run with."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import ostore
from ostore.api.addresses import SinkTerms, opened_source, sink_of
from ostore.formats.digest import Digest
from ostore.formats.errors import NotFoundError
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.name import ModelName
from ostore.formats.recipe import MadeBlob, Recipe, Step
from ostore.formats.selection import Selection
from ostore.operations.delta.planning import WithRecipes
from ostore.operations.delta.search import PlannedRecipe
from ostore.operations.transfer import Sink, Source, copy
from ostore.places.bundle.reader import open_piped_bundle
from ostore.places.bundle.writer import BundlePipe
from ostore.places.foreign_caches.copies import CopiesFolder, NamedCopies
from ostore.places.foreign_caches.walk import recognise
from ostore.places.registry.authorization import Access, Authorizer
from ostore.places.registry.client import RegistryClient
from ostore.places.registry.docker_config import DockerConfig
from ostore.places.registry.sink import RegistrySink as PushSink
from ostore.places.registry.source import RegistrySource as PullSource
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.streams.bytes_at import PipeBytes
from ostore.streams.http import Http, NetworkTerms
from ostore.streams.open_blobs import OpenBlobs
from ostore.streams.progress import SILENT
from tests.contracts.registry import Registry, RegistrySink, RegistrySource
from tests.false_registry import false_registry, of_store
from tests.registries import PROGRAM, docker_registry
from tests.support import Store, full, noise

# More than one read, and no multiple of anything.
WEIGHTS, OTHER, SHARED = noise(70_001, 21), noise(30_003, 22), b"{{ .Prompt }}"
NAMES = (full("tiny:latest"), full("tiny:q4"), "hf.co/someone/mine:latest")
TERMS = SinkTerms(level=None, replace=False, jobs=2, progress=SILENT)


def a_store(root: Path) -> Store:
    """Three models, two of which share a blob."""
    store = Store(root)
    store.model("tiny:latest", WEIGHTS, template=SHARED)
    store.model("tiny:q4", OTHER, template=SHARED)
    store.model("hf.co/someone/mine:latest", b"a third one's weights")
    return store


def contents(store: Store) -> dict[Digest, bytes]:
    files = (path for path in (store.root / "blobs").iterdir() if path.is_file())
    return {Digest(path.name.removeprefix("sha256-")): path.read_bytes() for path in files}


@dataclass(frozen=True)
class SourcePlace:
    """
    How a test gets a source of the models of `a_store`.

    `is_pipe` is true of a source that can be read only once.
    """

    name: str
    opened: Callable[[Store, Path], AbstractContextManager[Source]]
    is_pipe: bool = False


@dataclass(frozen=True)
class SinkPlace:
    """How a test gets a sink, and a source of what has been published there; None if nothing has."""

    name: str
    sink: Callable[[Path], Sink]
    published: Callable[[Path], AbstractContextManager[Source | None]]
    can_resume: bool = False


def _bundle_of(store: Store, folder: Path, name: str) -> Path:
    path = folder / name
    ostore.export(["*"], path, models=store.root)
    return path


def _store_source(store: Store, _folder: Path) -> AbstractContextManager[Source]:
    return contextlib.nullcontext(LocalStore(store.root))


def _folder_source(store: Store, _folder: Path) -> AbstractContextManager[Source]:
    return opened_source(f"{store.root}/", jobs=2)


def _bundle_source(name: str) -> Callable[[Store, Path], AbstractContextManager[Source]]:
    return lambda store, folder: opened_source(_bundle_of(store, folder, name), jobs=2)


def _bundle_with_a_recipe(store: Store, folder: Path, name: str) -> Path:
    """A bundle in which one blob is made of another: of its first byte, wherever that has it."""
    local, path = LocalStore(store.root), folder / name
    base, made = (Descriptor(Digest.of(data), len(data)) for data in (WEIGHTS, OTHER))
    head = Recipe((Step(1, 0, WEIGHTS.index(OTHER[:1])), Step(len(OTHER) - 1))).write()
    stored = head + OTHER[1:]
    recipe = MadeBlob(made, (base.digest,), Descriptor(Digest.of(stored), len(stored)))
    planned = PlannedRecipe(recipe, head, ((1, len(OTHER) - 1),))
    selection = local.select(())
    others = tuple(blob for blob in selection.blobs if blob.digest != made.digest)
    with contextlib.closing(OpenBlobs(local.opened_blob)) as blobs:
        copy(
            WithRecipes(local, {recipe.stored.digest: planned}, blobs),
            sink_of(path, TERMS),
            replace(selection, blobs=(*others, made), recipes=(recipe,)),
            phase="",
            progress=SILENT,
        )
    return path


def _recipe_source(name: str) -> Callable[[Store, Path], AbstractContextManager[Source]]:
    return lambda store, folder: opened_source(_bundle_with_a_recipe(store, folder, name), jobs=2)


@contextlib.contextmanager
def _piped_source(store: Store, folder: Path) -> Iterator[Source]:
    content = _bundle_of(store, folder, "piped.tar.zst").read_bytes()
    reading, writing = os.pipe()
    feeder = threading.Thread(target=_feed, args=(writing, content))
    feeder.start()
    try:
        with open_piped_bundle(PipeBytes(reading), jobs=2) as reader:
            yield reader
    finally:
        os.close(reading)
        feeder.join()


def _feed(fd: int, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(fd, "wb") as pipe:
        pipe.write(content)


def _layout_source(store: Store, folder: Path) -> AbstractContextManager[Source]:
    # Once: a test damages it before it is opened.
    layout = folder / "oci"
    if not layout.exists():
        ostore.export(["*"], f"oci:{layout}", models=store.root)
    return opened_source(f"oci:{layout}", jobs=2)


def registry_of(store: Store) -> Registry:
    manifests = {ModelName.parse(name): store.manifest_path(name).read_bytes() for name in NAMES}
    return Registry(manifests, contents(store))


def _registry_source(store: Store, _folder: Path) -> AbstractContextManager[Source]:
    return contextlib.nullcontext(RegistrySource(registry_of(store)))


@contextlib.contextmanager
def _served_source(store: Store, _folder: Path) -> Iterator[Source]:
    """The client of registries, with one on loopback that answers for all hosts."""
    with false_registry(of_store(store.root)) as served:
        http = Http(NetworkTerms())
        base = f"http://{served.host}"
        nobody = Access(DockerConfig(()), None, lambda: 0.0)
        client = RegistryClient(http, base, Authorizer(served.host, base, nobody, http.ask))
        yield PullSource(lambda _: client, connections=4, listed=lambda: map(ModelName.parse, NAMES))
        http.close()


def named_files(store: Store, folder: Path) -> NamedCopies:
    """The blobs of a store as files that are called by their digests, in a folder of somebody else's."""
    for digest, content in contents(store).items():
        (folder / digest.hex).write_bytes(content)
    return NamedCopies(CopiesFolder(recognise(folder)), str(folder))


SOURCES = (
    SourcePlace("store", _store_source),
    SourcePlace("folder", _folder_source),
    SourcePlace("bundle", _bundle_source("b.tar.zst")),
    SourcePlace("plain bundle", _bundle_source("b.tar")),
    SourcePlace("bundle in a pipe", _piped_source, is_pipe=True),
    SourcePlace("bundle with a recipe", _recipe_source("r.tar.zst")),
    SourcePlace("plain bundle with a recipe", _recipe_source("r.tar")),
    SourcePlace("layout", _layout_source),
    SourcePlace("registry", _registry_source),
    SourcePlace("served registry", _served_source),
)


@contextlib.contextmanager
def _published_store(root: Path) -> Iterator[Source | None]:
    models = LocalStore(root).scan().models if root.exists() else ()
    yield LocalStore(root) if models else None


@contextlib.contextmanager
def _published_bundle(path: Path) -> Iterator[Source | None]:
    if not path.exists():
        yield None
        return
    with opened_source(path, jobs=2) as source:
        yield source


@contextlib.contextmanager
def _published_layout(path: Path) -> Iterator[Source | None]:
    if not (path / "index.json").exists():
        yield None
        return
    with opened_source(f"oci:{path}", jobs=2) as source:
        yield source


class _FileOfAPipe:
    """A bundle that goes to standard output, which is a file: what a shell makes of `ostore export - > FILE`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> Sink:
        return BundlePipe(
            os.open(self._path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644), level=None, jobs=2
        )


def _sealed(path: Path) -> AbstractContextManager[Source | None]:
    """A pipe has no name to give: whether all of it is there shows at its end."""
    from ostore.formats.errors import OstoreError

    try:
        with opened_source(path, jobs=2):
            pass
    except OstoreError:
        return contextlib.nullcontext(None)
    return _published_bundle(path)


_REGISTRIES: dict[Path, Registry] = {}


def registry_at(folder: Path) -> Registry:
    """The registry that a test's sink is: one for each folder."""
    return _REGISTRIES.setdefault(folder, Registry())


def _published_registry(folder: Path) -> AbstractContextManager[Source | None]:
    registry = registry_at(folder)
    return contextlib.nullcontext(RegistrySource(registry) if registry.manifests else None)


# Whatever runs, and the clients of it. It ends with the test (conftest.py).
RUNNING = contextlib.ExitStack()
_CLIENTS: dict[Path, Callable[[str], RegistryClient]] = {}


def _docker_client(folder: Path) -> Callable[[str], RegistryClient]:
    """The client of a real registry, one for each folder, which stands for every host."""
    if folder not in _CLIENTS:
        host = RUNNING.enter_context(docker_registry(folder.with_name(f"{folder.name}-registry"))).host
        http = Http(NetworkTerms())
        RUNNING.callback(http.close)
        base = f"http://{host}"
        nobody = Access(DockerConfig([]), None, lambda: 0.0)
        client = RegistryClient(http, base, Authorizer(host, base, nobody, http.ask))
        _CLIENTS[folder] = lambda _host: client
    return _CLIENTS[folder]


def _docker_sink(folder: Path) -> Sink:
    return PushSink(_docker_client(folder))


class _Listed(PullSource):
    """A registry does not say what it has: these are the names that a test may have put there."""

    def select(self, patterns: Sequence[str]) -> Selection:
        found = []
        for name in patterns or NAMES:
            with contextlib.suppress(NotFoundError):
                super().select([name])
                found.append(name)
        return super().select(found)


@contextlib.contextmanager
def _published_docker(folder: Path) -> Iterator[Source | None]:
    source = _Listed(_docker_client(folder), connections=2)
    yield source if source.select(()).models else None


SINKS = (
    SinkPlace(
        "store",
        lambda folder: StoreSink(LocalStore(folder / "models"), jobs=2),
        lambda folder: _published_store(folder / "models"),
        can_resume=True,
    ),
    SinkPlace(
        "folder",
        lambda folder: sink_of(f"{folder / 'plain'}/", TERMS),
        lambda folder: _published_store(folder / "plain"),
        can_resume=True,
    ),
    SinkPlace(
        "bundle",
        lambda folder: sink_of(folder / "out.tar.zst", TERMS),
        lambda folder: _published_bundle(folder / "out.tar.zst"),
    ),
    SinkPlace(
        "plain bundle",
        lambda folder: sink_of(folder / "out.tar", TERMS),
        lambda folder: _published_bundle(folder / "out.tar"),
    ),
    SinkPlace(
        "bundle in a pipe",
        lambda folder: _FileOfAPipe(folder / "piped.tar.zst")(),
        lambda folder: _sealed(folder / "piped.tar.zst"),
    ),
    SinkPlace(
        "layout",
        lambda folder: sink_of(f"oci:{folder / 'layout'}", TERMS),
        lambda folder: _published_layout(folder / "layout"),
    ),
    SinkPlace("registry", lambda folder: RegistrySink(registry_at(folder)), _published_registry),
    *([SinkPlace("docker-registry", _docker_sink, _published_docker)] if PROGRAM else []),
)


def everything_of(source: Source, held: Callable[[Digest], None]) -> tuple[dict[ModelName, bytes], dict[Digest, bytes]]:
    """All that a source gives: its manifests by name, its blobs by digest."""
    from ostore.formats.selection import Wanted

    selection = source.select(())
    blobs = {
        wanted.blob.digest: b"".join(chunks)
        for wanted, chunks in source.read_blobs([Wanted(blob) for blob in selection.blobs], held)
    }
    return dict(source.read_manifests(selection.models)), blobs


def manifest_of(store: Store, name: str) -> Manifest:
    return Manifest.parse(store.manifest_path(name).read_bytes())
