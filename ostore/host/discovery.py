"""Find the store to use, and say why. A server, a service and a person may each mean another one.

All facts about the process come from `Surroundings`. Nothing here writes. What cannot be read counts as absent.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.formats.errors import NotFoundError
from ostore.formats.store_layout import BLOBS
from ostore.host.surroundings import UNIT, Reason, StoreChoice, Surroundings, status_of
from ostore.streams.links import on_any_length

# Importing the reader of units takes time, and a command with --models does not need it.
if TYPE_CHECKING:
    from ostore.host.service_unit import Directive

# The only variable that moves a store (envconfig/config.go at fb30760).
MODELS_VARIABLE = "OLLAMA_MODELS"

# PATH_MAX of Linux, the largest on our platforms. SQLite's length() counts characters.
MAX_SETTING_CHARACTERS = 4096
# The app locks its database only briefly, and `ostore where` should not seem to hang.
_DATABASE_PATIENCE_SECONDS = 0.5

# The white space that Go's strings.TrimSpace removes (unicode.IsSpace). str.strip() also removes U+001C to U+001F.
_GO_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

# Folders below the root where stores are known to be, and who uses them.
_KNOWN_PLACES = (
    ("usr/share/ollama/.ollama/models", "the service that Ollama's install.sh sets up"),
    ("var/lib/ollama", "the service of Arch Linux"),
    ("var/lib/ollama/models", "the service of NixOS"),
    ("var/lib/ollama/.ollama/models", "a service that lives in /var/lib/ollama"),
    ("root/.ollama/models", "root, as in Ollama's container image"),
    ("var/root/.ollama/models", "root on macOS, as with sudo brew services"),
    # snap/hooks/install in ollama/ollama: $SNAP_COMMON/models.
    ("var/snap/ollama/common/models", "the ollama snap"),
    ("opt/homebrew/var/ollama/models", "Homebrew on Apple silicon"),
    ("usr/local/var/ollama/models", "Homebrew on Intel"),
)
_ALPACA_AT_HOME = ".var/app/com.jeffser.Alpaca/data/.ollama/models"


@dataclass(frozen=True, slots=True)
class FoundStore:
    """A directory that looks like a store. `why` says who would use it."""

    path: Path
    why: str


def find_store(surroundings: Surroundings, flag: Path | None) -> StoreChoice:
    """
    Choose the store: the first of flag, OLLAMA_MODELS, `ollama.service`, desktop app and home that names one.

    The store in the home of the service's user must exist, and so must the directory in the app's settings. Any other
    store need not exist. `~` is never expanded. Raises NotFoundError when none of them names a store.
    """
    if flag is not None:
        return StoreChoice(on_any_length(surroundings.cwd / flag), "flag", "--models")
    for rule in _RULES:
        if choice := rule(surroundings):
            return choice
    raise NotFoundError(
        f"store: expected {MODELS_VARIABLE}, an {UNIT} or a home directory, got none of them",
        hint="say where it is: models=DIR",
    )


def other_stores(surroundings: Surroundings, chosen: StoreChoice) -> tuple[FoundStore, ...]:
    """List other directories with `blobs/` or `manifests/` that may be meant, each once, even if it has two paths."""
    found: dict[tuple[int, int] | None, FoundStore] = {}
    for store in _candidates(surroundings):
        if _looks_like_store(store.path):
            found.setdefault(_identity(store.path), store)
    found.pop(_identity(chosen.path), None)
    return tuple(found.values())


def settings_of(surroundings: Surroundings) -> tuple[StoreChoice, ...]:
    """List the store that each setting names, in order of precedence. Adds the home only if nothing else names one."""
    said: dict[Reason, StoreChoice] = {}
    for rule in _RULES:
        choice = rule(surroundings)
        if choice and not (choice.reason == "default" and said):
            said.setdefault(choice.reason, choice)
    return tuple(said.values())


def doubts_of_choice(surroundings: Surroundings, choice: StoreChoice) -> tuple[str, ...]:
    """Return the doubts about the setting that chose the store, if OLLAMA_MODELS of this process did."""
    if choice.reason != "environment":
        return ()
    return doubts_of_setting(surroundings.environ.get(MODELS_VARIABLE, ""), surroundings.platform)


def doubts_of_setting(text: str, platform: str) -> tuple[str, ...]:
    """
    Return what a person probably did not mean by a value of OLLAMA_MODELS. Ollama takes it as it is, and so do we.

    A shell expands `~` and `$NAME`, but not in quotes, nor in a unit file. A relative path depends on the folder where
    each program is started.
    """
    path = as_ollama_reads(text)
    if not path:
        return ()
    what = ""
    if path.startswith("~"):
        what = "begins with ~, which nothing expands here"
    elif "$" in path or (platform == "win32" and "%" in path):
        what = "holds the name of a variable, which nothing expands here"
    elif platform != "win32" and re.match(r"[A-Za-z]:[\\/]", path):
        what = "is a path of Windows, and here the name of a folder"
    elif not os.path.isabs(path):  # noqa: PTH117 - of this platform
        what = "is relative: each program finds another store"
    return (f"{MODELS_VARIABLE} {what}; write the whole path",) if what else ()


def store_of_process(environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Return the store of an Ollama with this environment and folder, or None if it has no home folder."""
    said = as_ollama_reads(environ.get(MODELS_VARIABLE, ""))
    home = environ.get("HOME")
    if said:
        return _absolute(said, cwd)
    return _absolute(f"{home}/.ollama/models", cwd) if home else None


def _candidates(surroundings: Surroundings) -> Iterator[FoundStore]:
    choices = (rule(surroundings) for rule in _RULES)
    yield from (FoundStore(choice.path, choice.detail) for choice in choices if choice)
    if surroundings.platform == "win32":
        return
    yield from (FoundStore(surroundings.root / place, why) for place, why in _KNOWN_PLACES)
    if surroundings.home is not None:
        yield FoundStore(surroundings.home / _ALPACA_AT_HOME, "the Alpaca flatpak")


def _looks_like_store(path: Path) -> bool:
    return _is_directory(path / BLOBS) or _is_directory(path / "manifests")


def _from_environment(surroundings: Surroundings) -> StoreChoice | None:
    text = as_ollama_reads(surroundings.environ.get(MODELS_VARIABLE, ""))
    return StoreChoice(_absolute(text, surroundings.cwd), "environment", MODELS_VARIABLE) if text else None


def _from_service_setting(surroundings: Surroundings) -> StoreChoice | None:
    from ostore.host.service_unit import service_environment, service_folder  # noqa: PLC0415 - see above

    directives = _service(surroundings)
    variable = service_environment(directives, surroundings.root).get(MODELS_VARIABLE)
    text = as_ollama_reads(variable.text) if variable else ""
    if variable is None or not text:
        return None
    folder = service_folder(directives, surroundings.root, surroundings.home_of)
    return StoreChoice(_absolute(text, folder), "service", str(variable.origin))


def _from_service_home(surroundings: Surroundings) -> StoreChoice | None:
    from ostore.host.service_unit import service_home  # noqa: PLC0415 - see above

    directives = _service(surroundings)
    home = service_home(directives, surroundings.root, surroundings.home_of)
    if home is None:
        return None
    path = _absolute(f"{home.text}/.ollama/models", Path("/"))
    return StoreChoice(path, "service", str(home.origin)) if _is_directory(path) else None


def _from_desktop_app(surroundings: Surroundings) -> StoreChoice | None:
    database = _desktop_database(surroundings)
    setting = _models_setting(database) if database else ""
    if not setting:
        return None
    path = _absolute(setting, surroundings.cwd)
    # The app does not pass a missing directory on to its server (app/server/server.go at fb30760).
    return StoreChoice(path, "desktop-app", str(database)) if _is_directory(path) else None


def _from_home(surroundings: Surroundings) -> StoreChoice | None:
    if surroundings.home is None:
        return None
    home = on_any_length(surroundings.cwd / surroundings.home)
    return StoreChoice(home / ".ollama" / "models", "default", "home directory")


# In order of precedence.
_RULES = (_from_environment, _from_service_setting, _from_service_home, _from_desktop_app, _from_home)


def as_ollama_reads(text: str) -> str:
    """Trim a value as envconfig.Var at fb30760 does: first white space, then single and double quotes."""
    return text.strip(_GO_SPACE).strip("\"'")


def _absolute(text: str, base: Path) -> Path:
    """Resolve `..` in the text, without following a link before it, as Ollama's filepath.Join does."""
    return on_any_length(Path(os.path.normpath(base / text)))


def _service(surroundings: Surroundings) -> list[Directive]:
    from ostore.host.service_unit import service_directives  # noqa: PLC0415 - see above

    return service_directives(surroundings.root) if surroundings.platform == "linux" else []


def _desktop_database(surroundings: Surroundings) -> Path | None:
    """Return the file of the app's settings (app/store/store.go at fb30760), or None. Linux has no app."""
    if surroundings.platform == "darwin" and surroundings.home:
        return surroundings.cwd / surroundings.home / "Library/Application Support/Ollama/db.sqlite"
    local = surroundings.environ.get("LOCALAPPDATA")
    if surroundings.platform == "win32" and local:
        return surroundings.cwd / local / "Ollama/db.sqlite"
    return None


def _models_setting(database: Path) -> str:
    """Read the models directory from the app's settings. Empty if it is not set or cannot be read."""
    import sqlite3  # noqa: PLC0415 - most commands on most machines never need it

    query = "SELECT models FROM settings WHERE id = 1 AND length(models) <= ?"
    uri = _read_only_uri(database)
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=_DATABASE_PATIENCE_SECONDS)) as settings:
            row: tuple[object] | None = settings.execute(query, (MAX_SETTING_CHARACTERS,)).fetchone()
    except sqlite3.Error:
        return ""
    return row[0] if row and isinstance(row[0], str) else ""


def _read_only_uri(database: Path) -> str:
    """
    Return an SQLite address for reading that leaves no file behind.

    Without a write-ahead log, the main file has everything. A plain read-only connection then creates an empty log and
    index beside it and leaves them there; `immutable` does not. With a log, `immutable` would miss what the log holds.
    """
    has_log = status_of(database.with_name(f"{database.name}-wal")) is not None
    return f"{database.as_uri()}?mode=ro{'' if has_log else '&immutable=1'}"


def _is_directory(path: Path) -> bool:
    status = status_of(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _identity(path: Path) -> tuple[int, int] | None:
    status = status_of(path)
    return (status.st_dev, status.st_ino) if status else None
