"""Which models directory is meant, and why: a server, a service and a person may each mean another one.

Nothing here asks the process it runs in: `Surroundings` tells. Nothing here writes, and what cannot be read counts as
not there.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ostore.formats.errors import NotFoundError

Reason = Literal["flag", "environment", "service", "desktop-app", "default"]

# envconfig/config.go at fb30760: the only variable that moves a store.
MODELS_VARIABLE = "OLLAMA_MODELS"

# systemd's own cap on one line (systemd.syntax(7)); a whole file of that size is not configuration.
MAX_CONFIG_BYTES = 1024 * 1024
# PATH_MAX of Linux, the largest of our platforms; in characters, as SQLite's length() counts.
MAX_SETTING_CHARACTERS = 4096
# The app holds its database for moments only, and `ostore where` should not seem to hang.
_DATABASE_PATIENCE_SECONDS = 0.5

# unicode.IsSpace of Go, as strings.TrimSpace uses it; str.strip() would also take U+001C to U+001F.
_GO_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"

# systemd.unit(5), table 1: an earlier folder hides a later one.
_UNIT_FOLDERS = tuple(f"{folder}/systemd/system" for folder in ("etc", "run", "usr/local/lib", "usr/lib", "lib"))
_UNIT = "ollama.service"

# systemd.unit(5), "Specifiers", as the system manager resolves them. Others stay as written, so that they show.
_SPECIFIERS = {
    "%": "%", "h": "/root", "S": "/var/lib", "C": "/var/cache", "E": "/etc", "t": "/run",
    "n": _UNIT, "N": "ollama", "p": "ollama",
}  # fmt: skip

# systemd.syntax(7): a comment block inside a continued line is left out of it.
_COMMENT_LINE = re.compile(r"^[ \t]*[#;].*\n?", re.MULTILINE)
# An odd number of backslashes at the end of a line.
_CONTINUATION = re.compile(r"(?<!\\)((?:\\\\)*+)\\\n")

# systemd.syntax(7), table 1. NUL and code points above U+10FFFF are not escapes.
_ESCAPE = (
    r"""\\(?:[abfnrtv\\"'s]|x(?!00)[0-9a-fA-F]{2}|(?!000)[0-3][0-7]{2}"""
    r"""|u(?!0000)[0-9a-fA-F]{4}|U(?!0{8})00(?:10|0[0-9a-fA-F])[0-9a-fA-F]{4})"""
)
_ESCAPED_LETTERS = dict(zip("abfnrtvs", "\a\b\f\n\r\t\v ", strict=True))
# The manual wants quotes around whole items; systemd 252 takes them anywhere in a word, and people rely on it.
_QUOTED = rf""""((?:[^"\\]|{_ESCAPE})*+)"|'((?:[^'\\]|{_ESCAPE})*+)'"""
_WORD = re.compile(rf"""[ \t]*+((?:[^ \t"'\\]|{_ESCAPE}|{_QUOTED})+)(?=[ \t]|\Z)""")

# systemd.exec(5), EnvironmentFile=: a comment, an assignment, or a line of no meaning. In a value, quoted parts come
# first, and after them quotes are ordinary characters.
_ENTRY = re.compile(
    r"""
    [ \t]*+[#;][^\r\n]*
    | (?P<key>[^=\r\n]*+)=
      (?P<quoted>(?:[ \t]|'[^']*+(?:'|\Z)|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))*+)
      (?P<bare>(?:[^\\\r\n \t]|\\.|[ \t]++(?=[^\r\n]))*+)
    | [^\r\n]+
    """,
    re.DOTALL | re.VERBOSE,
)
_ENTRY_PART = re.compile(r"""'([^']*+)'?|"((?:[^"\\]|\\.)*+)(?:"|\\?\Z)|[ \t]+""", re.DOTALL)

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


def _unknown_user(_user: str) -> Path | None:
    return None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    All that discovery may know of the process and the machine.

    `platform` is `sys.platform`; `home` is Go's notion: $HOME, or %USERPROFILE% on Windows. `root` is put before every
    fixed place and every file that a unit names, so a test sees nothing of the real machine; directories that a setting
    names are taken as written. `home_of` answers with the home directory of a user (a name or a number), or None.
    """

    environ: Mapping[str, str]
    platform: str
    home: Path | None
    cwd: Path
    root: Path = Path("/")
    home_of: Callable[[str], Path | None] = _unknown_user


@dataclass(frozen=True, slots=True)
class StoreChoice:
    """The store to use; `path` is absolute and need not exist, `detail` names the variable or file that decided."""

    path: Path
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class FoundStore:
    """A directory that looks like a store, and `why` it was looked at."""

    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class _Directive:
    """One assignment in the `[Service]` section of a unit or drop-in; an empty value resets what came before."""

    origin: Path
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class _Variable:
    text: str
    origin: Path


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
        f"store: expected {MODELS_VARIABLE}, an {_UNIT} or a home directory, got none of them",
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


def _candidates(surroundings: Surroundings) -> Iterator[FoundStore]:
    choices = (rule(surroundings) for rule in _RULES)
    yield from (FoundStore(choice.path, choice.detail) for choice in choices if choice)
    yield from (FoundStore(surroundings.root / place, why) for place, why in _KNOWN_PLACES)
    if surroundings.home is not None:
        yield FoundStore(surroundings.home / _ALPACA_AT_HOME, "the Alpaca flatpak")


def _looks_like_store(path: Path) -> bool:
    return _is_directory(path / "blobs") or _is_directory(path / "manifests")


def _from_environment(surroundings: Surroundings) -> StoreChoice | None:
    text = _as_ollama_reads(surroundings.environ.get(MODELS_VARIABLE, ""))
    return StoreChoice(_absolute(text, surroundings.cwd), "environment", MODELS_VARIABLE) if text else None


def _from_service_setting(surroundings: Surroundings) -> StoreChoice | None:
    directives = _service_directives(surroundings)
    variable = _service_environment(directives, surroundings.root).get(MODELS_VARIABLE)
    text = _as_ollama_reads(variable.text) if variable else ""
    if variable is None or not text:
        return None
    return StoreChoice(_absolute(text, _service_folder(directives, surroundings)), "service", str(variable.origin))


def _from_service_home(surroundings: Surroundings) -> StoreChoice | None:
    directives = _service_directives(surroundings)
    home = _service_home(directives, surroundings)
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


def _service_directives(surroundings: Surroundings) -> list[_Directive]:
    if surroundings.platform != "linux":
        return []
    return [
        _Directive(file, key, _with_specifiers(value))
        for file in _unit_and_drop_ins(surroundings.root)
        for key, value in _service_assignments(_read_config(file))
    ]


def _service_environment(directives: Sequence[_Directive], root: Path) -> dict[str, _Variable]:
    """Return the unit's variables; those of environment files win, wherever they are named (systemd.exec)."""
    inline = {
        name: _Variable(text, directive.origin)
        for directive in _since_reset(directives, "Environment")
        for name, text in _inline_variables(directive.value)
    }
    from_files = {
        name: _Variable(text, file)
        for directive in _since_reset(directives, "EnvironmentFile")
        for file in _matching(directive.value, root)
        for name, text in _file_variables(_read_config(file))
    }
    return inline | from_files


def _service_home(directives: Sequence[_Directive], surroundings: Surroundings) -> _Variable | None:
    """Return what the service gets as $HOME: said outright, or its user's. Without User= systemd sets none."""
    said = _service_environment(directives, surroundings.root).get("HOME")
    if said is not None:
        return said if said.text else None
    users = _since_reset(directives, "User")
    home = surroundings.home_of(users[-1].value) if users else None
    return _Variable(str(home), users[-1].origin) if home else None


def _service_folder(directives: Sequence[_Directive], surroundings: Surroundings) -> Path:
    """Return the service's working directory, which is `/` unless it says otherwise."""
    said = [directive.value.removeprefix("-") for directive in _since_reset(directives, "WorkingDirectory")]
    if said[-1:] == ["~"] and (home := _service_home(directives, surroundings)):
        return Path(home.text)
    return Path("/", *said[-1:])


def _since_reset(directives: Sequence[_Directive], key: str) -> list[_Directive]:
    said: list[_Directive] = []
    for directive in directives:
        if directive.key == key and directive.value:
            said.append(directive)
        elif directive.key == key:
            said.clear()
    return said


def _unit_and_drop_ins(root: Path) -> list[Path]:
    """Return the files that make up the service, in the order they apply; none if there is no unit or it is masked."""
    folders = [root / folder for folder in _UNIT_FOLDERS]
    unit = next((folder / _UNIT for folder in folders if _status(folder / _UNIT)), None)
    if unit is None or _is_masked(unit):
        return []
    named = {file.name: file for folder in reversed(folders) for file in _drop_ins(folder)}
    return [unit, *(named[name] for name in sorted(named))]


def _is_masked(unit: Path) -> bool:
    """Tell whether a unit is empty or a link to /dev/null, which is how `systemctl mask` switches it off."""
    status = _status(unit)
    return status is not None and status.st_size == 0


def _drop_ins(folder: Path) -> list[Path]:
    try:
        return [file for file in (folder / f"{_UNIT}.d").iterdir() if file.suffix == ".conf"]
    except OSError:
        return []


def _service_assignments(text: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in _logical_lines(text):
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line:
            key, _, value = line.partition("=")
            yield key.rstrip(" \t"), value.lstrip(" \t")


def _logical_lines(text: str) -> list[str]:
    lines = _COMMENT_LINE.sub("", re.sub("\r\n?", "\n", f"{text}\n"))
    return [line.strip(" \t") for line in _CONTINUATION.sub(r"\1 ", lines).split("\n")]


def _with_specifiers(value: str) -> str:
    return re.sub("%(.)", lambda match: _SPECIFIERS.get(match[1], match[0]), value)


def _inline_variables(value: str) -> Iterator[tuple[str, str]]:
    """Yield what `Environment=` assigns; from the first word that systemd cannot read, the rest counts for nothing."""
    position = 0
    while match := _WORD.match(value, position):
        position = match.end()
        name, assigned, text = _unquoted(match[1]).partition("=")
        if assigned and _is_unicode(text):
            yield name, text


def _unquoted(word: str) -> str:
    without_quotes = re.sub(f"{_QUOTED}|({_ESCAPE})", lambda match: match[1] or match[2] or match[3] or "", word)
    unescaped = re.sub(_ESCAPE, _unescaped, without_quotes)
    # Two escapes may be the two bytes of one character.
    return unescaped.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _unescaped(match: re.Match[str]) -> str:
    letter, digits = match[0][1], match[0][2:]
    if letter in "uU":
        raw = chr(int(digits, 16)).encode("utf-8", "surrogatepass")
    elif letter == "x":
        raw = bytes.fromhex(digits)
    elif letter.isdigit():
        raw = bytes([int(letter + digits, 8)])
    else:
        return _ESCAPED_LETTERS.get(letter, letter)
    return raw.decode("utf-8", "surrogateescape")


def _matching(pattern: str, root: Path) -> list[Path]:
    """Return the files that `EnvironmentFile=` names: an absolute pattern, after a `-` if there may be none."""
    pattern = pattern.removeprefix("-")
    if not pattern.startswith("/"):
        return []
    # Path.glob would take ** for the whole tree; systemd's glob(3) does not.
    return [root / name for name in sorted(glob.glob(pattern.lstrip("/"), root_dir=root))]  # noqa: PTH207


def _file_variables(text: str) -> Iterator[tuple[str, str]]:
    for match in _ENTRY.finditer(text):
        if match["key"] is None:
            continue
        value = _ENTRY_PART.sub(_without_entry_quotes, match["quoted"]) + _without_backslashes(match["bare"], ".")
        if _is_unicode(value):
            yield match["key"].strip(" \t"), value


def _without_entry_quotes(match: re.Match[str]) -> str:
    # In double quotes a backslash before anything else stays, as in a shell.
    return match[1] or _without_backslashes(match[2] or "", r'["\\`$\n]')


def _without_backslashes(text: str, escapable: str) -> str:
    return re.sub(rf"\\({escapable})", lambda match: match[1].strip("\r\n"), text, flags=re.DOTALL)


def _is_unicode(text: str) -> bool:
    """Tell whether the bytes were UTF-8; systemd drops a variable whose value is not."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


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
    has_log = _status(database.with_name(f"{database.name}-wal")) is not None
    return f"{database.as_uri()}?mode=ro{'' if has_log else '&immutable=1'}"


def _read_config(file: Path) -> str:
    """Return a file's text, bytes that are not UTF-8 as surrogates; empty if unreadable, too large or not text."""
    status = _status(file)
    if status is None or not stat.S_ISREG(status.st_mode):
        return ""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_CONFIG_BYTES + 1)
    except OSError:
        return ""
    if len(raw) > MAX_CONFIG_BYTES or b"\0" in raw:
        return ""
    return raw.decode("utf-8-sig", "surrogateescape")


def _is_directory(path: Path) -> bool:
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _identity(path: Path) -> tuple[int, int] | None:
    status = _status(path)
    return (status.st_dev, status.st_ino) if status else None


def _status(path: Path) -> os.stat_result | None:
    """Ask the disk; None for whatever cannot be asked about, such as a path behind a closed directory or with a NUL."""
    try:
        return path.stat()
    except (OSError, ValueError):
        return None
