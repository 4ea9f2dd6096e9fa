"""Serve the models of a store, a bundle or an OCI image layout to others, as a registry that nobody can write to."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.api.addresses import opened_source
from ostore.api.chosen_store import chosen_store
from ostore.api.typed import words_of
from ostore.formats.errors import NotFoundError, UsageError
from ostore.formats.name import ModelName, choose
from ostore.formats.remedy import command
from ostore.formats.selection import OmittedModel
from ostore.operations.transfer import Source
from ostore.places.store.store import LocalStore
from ostore.settings import return_freed_memory, surroundings

if TYPE_CHECKING:
    from ostore.server.supplies import Offer, Supply

DEFAULT_LISTEN = "0.0.0.0:11435"
_LIBRARY = "aiohttp"
_MAX_TOKEN_BYTES = 4096
# Each connection has a socket, that of the thread that sends, and the file of a blob.
_FILES_EACH, _FILES_BESIDE = 3, 64


@dataclass(frozen=True, slots=True)
class ServeStart:
    """
    A server that clients can connect to. `url` is what it listens at, `reached_at` the HOST:PORT for clients.

    `models` are the names of the models that are served, `left` those of the place that cannot be.
    """

    place: str
    url: str
    reached_at: str
    has_tls: bool
    has_token: bool
    models: tuple[str, ...]
    left: tuple[OmittedModel, ...]


@dataclass(frozen=True, slots=True)
class ServeReport:
    """What a server has done until it was asked to end: its requests, and the bytes of blobs that it sent."""

    place: str
    url: str
    models: int
    requests: int
    sent_bytes: int
    seconds: float


def serve(
    place: str | Path | None = None,
    *,
    listen: str = DEFAULT_LISTEN,
    hosts: Sequence[str] = (),
    only: Sequence[str] = (),
    token_file: Path | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    models: Path | None = None,
    started: Callable[[ServeStart], None] = lambda _start: None,
    log: Callable[[str], None] = lambda _line: None,
) -> ServeReport:
    """
    Serve the models of a store, a bundle file or an OCI image layout, as a read-only registry, until SIGTERM or Ctrl-C.

    `place` may be `oci:DIR`. It defaults to the store at `models`, or the store that `where` finds. `listen` is
    HOST:PORT. `only` are names and globs. Clients may ask under the names `hosts`; without any, an address of the
    network is served under every name, and a loopback address under those of this machine. `started` is called once,
    and `log` with a line for each request and problem, neither of them escaped. `log` is called in a thread of its own;
    while it does not return, some thousand lines wait for it, and more are dropped and counted.

    Raises UsageError if the library is missing, or for a wrong argument; BusyError if the port is taken; NotFoundError;
    the errors of a bad bundle (FormatError, IntegrityError, LimitError, UnsafeError); OSError.
    """
    if importlib.util.find_spec(_LIBRARY) is None:
        raise UsageError(
            "a server needs a library that is not installed", hint=command("pip", "install", "ostore[serve]")
        )
    from ostore.server import listening as at
    from ostore.server.catalogue import Catalogue
    from ostore.server.log import Log
    from ostore.server.registry import Limits, Registry
    from ostore.server.requests import Doorman
    from ostore.server.running import notify, run

    return_freed_memory()
    address = at.Address.parse(listen)
    if tls_key and not tls_cert:
        raise UsageError("a key needs a certificate: --tls-cert FILE", parameter="tls-key")
    tls = at.tls_context(tls_cert, tls_key) if tls_cert else None
    token = _token(token_file) if token_file else None
    names = tuple(map(_host_name, words_of(hosts)))
    patterns = words_of(only)

    def is_served(name: ModelName) -> bool:
        return not patterns or bool(choose([name], patterns)[0])

    with _opened(place, models) as source:
        supply, offer = _offered(source, is_served, patterns)
        begin = time.monotonic()
        listener = at.opened(address)
        doorman = Doorman(names, token, is_local=at.is_loopback(listener))
        url = f"http{'s' if tls else ''}://{at.shown(*listener.getsockname()[:2])}"
        start = ServeStart(
            supply.label,
            url,
            at.reached_at(listener),
            tls is not None,
            token is not None,
            tuple(str(model.name) for model in Catalogue(offer.models).models),
            tuple(one.told for one in offer.left),
        )
        awaiting = str(surroundings().environ.get("NOTIFY_SOCKET", ""))

        def tell() -> None:
            notify(awaiting, "READY=1")
            started(start)

        limits = Limits(connections=_connections(Limits().connections))
        with Log(log) as lines:
            registry = run(
                lambda: Registry(supply, doorman, is_served=is_served, log=lines.tell, limits=limits),
                offer,
                listener,
                tls,
                started=tell,
                ended=lambda: notify(awaiting, "STOPPING=1"),
            )
    figures = registry.figures
    seconds = time.monotonic() - begin
    return ServeReport(
        start.place, url, len(start.models), figures.requests.total(), figures.sent_bytes, round(seconds, 1)
    )


@contextmanager
def _opened(place: str | Path | None, models: Path | None) -> Iterator[Source]:
    if place is None:
        yield chosen_store(models).require()
        return
    if models is not None:
        raise UsageError("name either a place or --models, not both")
    if str(place) == "-":
        raise UsageError("a pipe cannot be served: clients read a bundle in any order", hint="name the bundle file")
    with opened_source(str(place), jobs=1) as source:
        yield source


def _offered(source: Source, is_served: Callable[[ModelName], bool], only: Sequence[str]) -> tuple[Supply, Offer]:
    """Return a place to serve and what it gives now. Raises NotFoundError for a pattern that matches nothing."""
    from ostore.places.bundle.reader import BundleReader
    from ostore.places.oci_layout.layout import OciLayout
    from ostore.server.supplies import BundleSupply, LayoutSupply, Offer, StoreSupply

    supply: Supply
    if isinstance(source, LocalStore):
        supply = StoreSupply(source)
    elif isinstance(source, BundleReader):
        supply = BundleSupply(source)
    elif isinstance(source, OciLayout):
        supply = LayoutSupply(source.path, source.label)
    else:
        raise UsageError("only a store, a bundle or an OCI image layout can be served")
    found = supply.look()
    offer = Offer(tuple(model for model in found.models if is_served(model.name)), found.left)
    _, unmatched = choose([model.name for model in found.models], only)
    if unmatched:
        raise NotFoundError(f"no model {unmatched[0]!r} that is whole in {supply.label}")
    return supply, offer


def _host_name(text: str) -> str:
    """Return a name under which clients may ask. Raises UsageError for an address with a scheme, path or port."""
    if "/" in text or text.count(":") == 1:
        raise UsageError(f"{text}: expected the name of a host, without scheme and port", parameter="host")
    return text


def _token(file: Path) -> str:
    """Return the token in a file. Raises UsageError if there is none, OSError."""
    with file.open("rb") as opened:
        data = opened.read(_MAX_TOKEN_BYTES + 1)
    text = data.decode("utf-8", "replace").strip()
    if not text or len(data) > _MAX_TOKEN_BYTES or not text.isprintable():
        raise UsageError(f"{file}: expected one line with a token", parameter="token-file")
    return text


def _connections(most: int) -> int:
    """Let this process open as many files as it may, and return how many connections it can have."""
    try:
        import resource
    except ImportError:  # pragma: no cover - Windows
        return most
    needed = _FILES_BESIDE + _FILES_EACH * most
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(most, (soft - _FILES_BESIDE) // _FILES_EACH))
    return most
