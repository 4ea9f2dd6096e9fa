"""Which models directory is meant, and why: a server, a service and a person may each mean another one.

Nothing here asks the process it runs in: `Surroundings` tells. Nothing here writes, and what cannot be read counts as
not there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.formats.errors import NotFoundError
from ostore.formats.store_layout import BLOBS
from ostore.host.surroundings import UNIT, Reason, StoreChoice, Surroundings, status_of

# Reading units takes a moment to get ready for, and whoever names a store has no need of it.
if TYPE_CHECKING:
    from ostore.host.service_unit import Directive

# envconfig/config.go at fb30760: the only variable that moves a store.
MODELS_VARIABLE = "OLLAMA_MODELS"

# PATH_MAX of Linux, the largest of our platforms; in characters, as SQLite's length() counts.
MAX_SETTING_CHARACTERS = 4096
# The app holds its database for moments only, and `ostore where` should not seem to hang.
_DATABASE_PATIENCE_SECONDS = 0.5

# unicode.IsSpace of Go, as strings.TrimSpace uses it; str.strip() would also take U+001C to U+001F.
_GO_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

# Folders below the root where stores were met, and whose they are.
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
    """A directory that looks like a store, and `why` it was looked at."""

    path: Path
    why: str


def find_store(surroundings: Surroundings, flag: Path | None) -> StoreChoice:
    """
    Choose: flag, OLLAMA_MODELS, `ollama.service`, desktop app, home; the first that says something.

    Only what is inferred must exist: the home of the service's user, and the directory in the app's settings. What is
    said outright is taken as it is. `~` is never expanded.

    Raises NotFoundError when nothing says anything and there is no home directory.
    """
    if flag is not None:
        return StoreChoice(surroundings.cwd / flag, "flag", "--models")
    for rule in _RULES:
        if choice := rule(surroundings):
            return choice
    raise NotFoundError(
        f"store: expected {MODELS_VARIABLE}, an {UNIT} or a home directory, got none of them",
        hint="say where it is: --models DIR",
    )


def other_stores(surroundings: Surroundings, chosen: StoreChoice) -> tuple[FoundStore, ...]:
    """List directories with `blobs/` or `manifests/` that someone could mean instead, each once, whatever its paths."""
    found: dict[tuple[int, int] | None, FoundStore] = {}
    for store in _candidates(surroundings):
        if _looks_like_store(store.path):
            found.setdefault(_identity(store.path), store)
    found.pop(_identity(chosen.path), None)
    return tuple(found.values())


def settings_of(surroundings: Surroundings) -> tuple[StoreChoice, ...]:
    """What each who has a say names as the store, first of them who wins here; the home folder only if nobody else."""
    said: dict[Reason, StoreChoice] = {}
    for rule in _RULES:
        choice = rule(surroundings)
        if choice and not (choice.reason == "default" and said):
            said.setdefault(choice.reason, choice)
    return tuple(said.values())


def store_of_process(environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Where an Ollama with that environment keeps its models; None without a home folder."""
    said = _as_ollama_reads(environ.get(MODELS_VARIABLE, ""))
    home = environ.get("HOME")
    if said:
        return _absolute(said, cwd)
    return _absolute(f"{home}/.ollama/models", cwd) if home else None


def _candidates(surroundings: Surroundings) -> Iterator[FoundStore]:
    choices = (rule(surroundings) for rule in _RULES)
    yield from (FoundStore(choice.path, choice.detail) for choice in choices if choice)
    yield from (FoundStore(surroundings.root / place, why) for place, why in _KNOWN_PLACES)
    if surroundings.home is not None:
        yield FoundStore(surroundings.home / _ALPACA_AT_HOME, "the Alpaca flatpak")


def _looks_like_store(path: Path) -> bool:
    return _is_directory(path / BLOBS) or _is_directory(path / "manifests")


def _from_environment(surroundings: Surroundings) -> StoreChoice | None:
    text = _as_ollama_reads(surroundings.environ.get(MODELS_VARIABLE, ""))
    return StoreChoice(_absolute(text, surroundings.cwd), "environment", MODELS_VARIABLE) if text else None


def _from_service_setting(surroundings: Surroundings) -> StoreChoice | None:
    from ostore.host.service_unit import service_environment, service_folder  # noqa: PLC0415 - see above

    directives = _service(surroundings)
    variable = service_environment(directives, surroundings.root).get(MODELS_VARIABLE)
    text = _as_ollama_reads(variable.text) if variable else ""
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
    # app/server/server.go at fb30760: a directory that is gone is not passed on to the server.
    return StoreChoice(path, "desktop-app", str(database)) if _is_directory(path) else None


def _from_home(surroundings: Surroundings) -> StoreChoice | None:
    if surroundings.home is None:
        return None
    return StoreChoice(surroundings.cwd / surroundings.home / ".ollama" / "models", "default", "home directory")


# The order is the precedence.
_RULES = (_from_environment, _from_service_setting, _from_service_home, _from_desktop_app, _from_home)


def _as_ollama_reads(text: str) -> str:
    """Trim as envconfig.Var at fb30760 does: white space once, then quotes in any mix, then nothing more."""
    return text.strip(_GO_SPACE).strip("\"'")


def _absolute(text: str, base: Path) -> Path:
    """Resolve `..` in the text alone: Ollama's filepath.Join does, so a symlink before `..` is not followed."""
    return Path(os.path.normpath(base / text))


def _service(surroundings: Surroundings) -> list[Directive]:
    from ostore.host.service_unit import service_directives  # noqa: PLC0415 - see above

    return service_directives(surroundings.root) if surroundings.platform == "linux" else []


def _desktop_database(surroundings: Surroundings) -> Path | None:
    """Return where the app keeps its settings (app/store/store.go at fb30760); Linux has no app."""
    if surroundings.platform == "darwin" and surroundings.home:
        return surroundings.cwd / surroundings.home / "Library/Application Support/Ollama/db.sqlite"
    local = surroundings.environ.get("LOCALAPPDATA")
    if surroundings.platform == "win32" and local:
        return surroundings.cwd / local / "Ollama/db.sqlite"
    return None


def _models_setting(database: Path) -> str:
    """Read the models directory from the app's settings; empty if unset or if the database cannot be read now."""
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
    Return an SQLite address that leaves nothing behind.

    Without a write-ahead log all is in the main file, and a plain read-only connection would create an empty log and
    index beside it and leave them there; `immutable` does not. With a log it would miss what is in there.
    """
    has_log = status_of(database.with_name(f"{database.name}-wal")) is not None
    return f"{database.as_uri()}?mode=ro{'' if has_log else '&immutable=1'}"


def _is_directory(path: Path) -> bool:
    status = status_of(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _identity(path: Path) -> tuple[int, int] | None:
    status = status_of(path)
    return (status.st_dev, status.st_ino) if status else None
