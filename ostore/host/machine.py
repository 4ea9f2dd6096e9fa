"""
What this machine says of Ollama: the server's user, other stores, and whether the network and the cloud are off.

Nothing here opens a socket. The kernel's route tables tell whether there is a way out, and its processes whether a
server runs. What we may not see stays unknown.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.errors import NotFoundError
from ostore.formats.store_layout import BLOBS
from ostore.host.accounts import Account, account_of, login_homes
from ostore.host.discovery import FoundStore, doubts_of_choice, find_store, other_stores
from ostore.host.servers import OllamaProcess, ollama_processes
from ostore.host.service_unit import Directive, service_account, service_directives, service_environment, service_home
from ostore.host.surroundings import StoreChoice, Surroundings

NO_CLOUD_VARIABLE = "OLLAMA_NO_CLOUD"
# The file that tells a server the same (app and server of ollama at fb30760).
_SERVER_SETTINGS = ".ollama/server.json"
_MAX_SETTINGS_BYTES = 1024 * 1024
# strconv.ParseBool of Go. Any other text counts as true to Ollama.
_FALSE = frozenset({"", "0", "f", "F", "FALSE", "false", "False"})
# linux/route.h
_UP, _REJECT = 0x1, 0x200
_IPV4_COLUMNS, _IPV6_COLUMNS = 11, 10


@dataclass(frozen=True, slots=True)
class OtherStore:
    """Another store that somebody may mean: who would use it, and how many models it has."""

    path: Path
    why: str
    models: int


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A running Ollama server. `store` is None if we may not see which store it uses."""

    pid: int
    store: Path | None


@dataclass(frozen=True, slots=True)
class Host:
    """
    Facts about this machine that matter to one store.

    `is_offline` is true if the machine has no default route. `is_cloud_off` says whether the server is told
    not to use the cloud; None if we may not see that. `has_service` says that Ollama is set up as a service.

    `is_server_known` is false if nothing tells the server's user; the owner of the store then stands in for it.
    `is_named_by_flag` is true if `--models` names the store, `is_found_by_root` if the service does, so that a command
    of root finds it without `--models`. `setting_doubts` say what was probably not meant by OLLAMA_MODELS. `servers`
    run outside of containers and use another store or an unknown one.
    """

    is_offline: bool
    has_ollama: bool
    has_service: bool
    is_cloud_off: bool | None
    is_server_known: bool
    is_named_by_flag: bool
    setting_doubts: tuple[str, ...]
    is_found_by_root: bool
    servers: tuple[RunningServer, ...]
    others: tuple[OtherStore, ...]


def read_host(
    known: Surroundings, choice: StoreChoice, count_models: Callable[[Path], int]
) -> tuple[Host, Account | None]:
    """
    Return the facts that matter to the chosen store, and the user that its server runs as, or else the store's owner.

    The user is None on Windows, where files have no such owners. `count_models` returns how many models another store
    has. A store for which it raises OSError is left out.
    """
    directives = service_directives(known.root) if known.platform == "linux" else []
    servers = tuple(_servers(known))
    account, is_known = _account(known, choice, directives, servers)
    host = Host(
        is_offline=is_offline(known.root / "proc"),
        has_ollama=bool(directives or servers or shutil.which("ollama", path=known.environ.get("PATH"))),
        has_service=bool(directives),
        is_cloud_off=_is_cloud_off(known, directives, servers),
        is_server_known=is_known,
        is_named_by_flag=choice.reason == "flag",
        setting_doubts=doubts_of_choice(known, choice),
        is_found_by_root=choice.reason == "service",
        servers=tuple(
            RunningServer(server.pid, server.store)
            for server in servers
            if not server.is_contained and not server.uses(choice.path)
        ),
        others=tuple(_others(known, choice, count_models)),
    )
    return host, account


def is_offline(proc: Path) -> bool:
    """Whether the kernel has no default route that is up. False if it does not tell its routes."""
    rows = _rows(proc / "net/route")
    if rows is None:
        return False
    return not any(map(_is_ipv4_way_out, rows)) and not any(map(_is_ipv6_way_out, _rows(proc / "net/ipv6_route") or ()))


def _rows(table: Path) -> list[list[str]] | None:
    try:
        return [line.split() for line in table.read_text("ascii", "replace").splitlines()]
    except OSError:
        return None


def _is_ipv4_way_out(row: list[str]) -> bool:
    return (
        len(row) >= _IPV4_COLUMNS
        and (row[1], row[7]) == ("00000000", "00000000")
        and int(row[3], 16) & (_UP | _REJECT) == _UP
    )


def _is_ipv6_way_out(row: list[str]) -> bool:
    if len(row) < _IPV6_COLUMNS or row[:2] != ["0" * 32, "00"] or row[9] == "lo":
        return False
    return int(row[8], 16) & (_UP | _REJECT) == _UP


def _servers(known: Surroundings) -> Iterator[OllamaProcess]:
    if known.platform in {"linux", "win32"}:
        yield from (process for process in ollama_processes(known.root / "proc") if process.is_server)


def _account(
    known: Surroundings, choice: StoreChoice, directives: list[Directive], servers: Iterable[OllamaProcess]
) -> tuple[Account | None, bool]:
    """Return the user of the server or service of this store and True, or else the owner of the store and False."""
    if known.platform == "win32":
        return None, False
    for server in servers:
        if server.uid is not None and server.uses(choice.path):
            return _numbered(server.uid), True
    if directives and _is_same(_store_of_service(known), choice.path):
        user, groups = service_account(directives)
        if account := account_of(user, groups):
            return account, True
    return _numbered(_owner(choice.path)), False


def _owner(store: Path) -> int:
    blobs = store / BLOBS
    try:
        return (blobs if blobs.is_dir() else store).stat().st_uid
    except OSError:
        return store.stat().st_uid


def _numbered(uid: int) -> Account:
    return account_of(str(uid)) or Account(uid, frozenset(), f"user {uid}")


def _store_of_service(known: Surroundings) -> Path | None:
    seen = Surroundings({}, known.platform, None, known.cwd, known.root, known.home_of)
    with contextlib.suppress(NotFoundError):
        return find_store(seen, None).path
    return None


def _is_same(one: Path | None, other: Path) -> bool:
    try:
        return one is not None and one.samefile(other)
    except OSError:
        return False


def _is_cloud_off(known: Surroundings, directives: list[Directive], servers: tuple[OllamaProcess, ...]) -> bool | None:
    """Whether a running server, or else the service, or else a server that we would start is told to use no cloud."""
    environ, home = _told_server(known, directives, servers)
    if environ is None:
        return None
    if environ.get(NO_CLOUD_VARIABLE, "").strip().strip("\"'") not in _FALSE:
        return True
    return _says_no_cloud(home / _SERVER_SETTINGS) if home else False


def _told_server(
    known: Surroundings, directives: list[Directive], servers: tuple[OllamaProcess, ...]
) -> tuple[Mapping[str, str] | None, Path | None]:
    """Return the environment and home of that server, each None if it is unknown."""
    if ours := [server for server in servers if not server.is_contained]:
        environ = ours[0].environ
        return environ, Path(environ["HOME"]) if environ and environ.get("HOME") else None
    if directives:
        said = service_environment(directives, known.root)
        home = service_home(directives, known.root, known.home_of)
        return {name: variable.text for name, variable in said.items()}, Path(home.text) if home else None
    return known.environ, known.home


def _says_no_cloud(settings: Path) -> bool | None:
    try:
        with settings.open("rb") as stream:
            document = json.loads(stream.read(_MAX_SETTINGS_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("disable_ollama_cloud") is True


def _others(known: Surroundings, choice: StoreChoice, count_models: Callable[[Path], int]) -> Iterator[OtherStore]:
    """Yield the other stores that have models. Leaves out those that we may not read."""
    found = [*other_stores(known, choice)]
    paths = {store.path.resolve() for store in found} | {choice.path.resolve()}
    for home, user in login_homes():
        path = home / ".ollama/models"
        if path.resolve() not in paths:
            found.append(FoundStore(path, f"the home of {user}"))
    for store in found:
        with contextlib.suppress(OSError):
            if models := count_models(store.path):
                yield OtherStore(store.path, store.why, models)
