"""Read what systemd gives to the Ollama service: the unit, its drop-ins and its environment files, as systemd does."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.host.surroundings import UNIT, HomeOf, status_of

# systemd's limit for one line (systemd.syntax(7)). A larger file is not configuration.
MAX_CONFIG_BYTES = 1024 * 1024
# systemd.unit(5), table 1: an earlier folder hides a later one.
_UNIT_FOLDERS = tuple(f"{folder}/systemd/system" for folder in ("etc", "run", "usr/local/lib", "usr/lib", "lib"))
# No package contains this drop-in, so ostore can suggest it.
DROP_IN = f"/etc/systemd/system/{UNIT}.d/models.conf"

# systemd.unit(5), "Specifiers", as the system manager resolves them. Others stay as written, so people see them.
_SPECIFIERS = {
    "%": "%", "h": "/root", "S": "/var/lib", "C": "/var/cache", "E": "/etc", "t": "/run",
    "n": UNIT, "N": "ollama", "p": "ollama",
}  # fmt: skip

# systemd.syntax(7): a comment inside a continued line is not part of it.
_COMMENT_LINE = re.compile(r"^[ \t]*[#;].*\n?", re.MULTILINE)
# An odd number of backslashes at the end of a line.
_CONTINUATION = re.compile(r"(?<!\\)((?:\\\\)*+)\\\n")

# systemd.syntax(7), table 1. systemd accepts no escape for NUL or for a code point above U+10FFFF.
_ESCAPE = (
    r"""\\(?:[abfnrtv\\"'s]|x(?!00)[0-9a-fA-F]{2}|(?!000)[0-3][0-7]{2}"""
    r"""|u(?!0000)[0-9a-fA-F]{4}|U(?!0{8})00(?:10|0[0-9a-fA-F])[0-9a-fA-F]{4})"""
)
_ESCAPES = {"\\": "\\\\", '"': '\\"', "%": "%%"}
_ESCAPED_LETTERS = dict(zip("abfnrtvs", "\a\b\f\n\r\t\v ", strict=True))
# The manual asks for quotes around whole items. systemd 252 accepts them anywhere in a word, and people rely on it.
_QUOTED = rf""""((?:[^"\\]|{_ESCAPE})*+)"|'((?:[^'\\]|{_ESCAPE})*+)'"""
_WORD = re.compile(rf"""[ \t]*+((?:[^ \t"'\\]|{_ESCAPE}|{_QUOTED})+)(?=[ \t]|\Z)""")

# systemd.exec(5), EnvironmentFile=: a comment, an assignment, or a line without meaning. In a value, quoted parts come
# first; quotes after them are ordinary characters.
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


@dataclass(frozen=True, slots=True)
class Directive:
    """An assignment in the `[Service]` section of a unit or drop-in. An empty value resets earlier ones."""

    origin: Path
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the service, and the file that sets it."""

    text: str
    origin: Path


def service_directives(root: Path) -> list[Directive]:
    """Return the assignments of the unit and its drop-ins in the order they apply. Empty if there is no service."""
    return [
        Directive(file, key, _with_specifiers(value))
        for file in _unit_and_drop_ins(root)
        for key, value in _service_assignments(_read_config(file))
    ]


def service_environment(directives: Sequence[Directive], root: Path) -> dict[str, Variable]:
    """Return the variables of the service. Those of environment files win, in any order (systemd.exec(5))."""
    inline = {
        name: Variable(text, directive.origin)
        for directive in _since_reset(directives, "Environment")
        for name, text in _inline_variables(directive.value)
    }
    from_files = {
        name: Variable(text, file)
        for directive in _since_reset(directives, "EnvironmentFile")
        for file in _matching(directive.value, root)
        for name, text in _file_variables(_read_config(file))
    }
    return inline | from_files


def service_home(directives: Sequence[Directive], root: Path, home_of: HomeOf) -> Variable | None:
    """Return the $HOME of the service: the variable, or the home of its user. Without User= systemd sets none."""
    said = service_environment(directives, root).get("HOME")
    if said is not None:
        return said if said.text else None
    users = _since_reset(directives, "User")
    home = home_of(users[-1].value) if users else None
    return Variable(str(home), users[-1].origin) if home else None


def service_account(directives: Sequence[Directive]) -> tuple[str, tuple[str, ...]]:
    """Return the user that the service runs as (by default root), and the groups that the unit names."""
    users = _since_reset(directives, "User")
    groups = [*_since_reset(directives, "Group"), *_since_reset(directives, "SupplementaryGroups")]
    return users[-1].value if users else "root", tuple(name for group in groups for name in group.value.split())


def service_folder(directives: Sequence[Directive], root: Path, home_of: HomeOf) -> Path:
    """Return the working directory of the service, by default `/`."""
    said = [directive.value.removeprefix("-") for directive in _since_reset(directives, "WorkingDirectory")]
    if said[-1:] == ["~"] and (home := service_home(directives, root, home_of)):
        return Path(home.text)
    return Path("/", *said[-1:])


def environment_line(name: str, text: str) -> str:
    """Return a line for a unit that sets this variable, escaped as systemd reads it."""
    escaped = "".join(_ESCAPES.get(character) or _as_escape(character) for character in text)
    return f'Environment="{name}={escaped}"'


def _as_escape(character: str) -> str:
    return character if character.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def _since_reset(directives: Sequence[Directive], key: str) -> list[Directive]:
    said: list[Directive] = []
    for directive in directives:
        if directive.key == key and directive.value:
            said.append(directive)
        elif directive.key == key:
            said.clear()
    return said


def _unit_and_drop_ins(root: Path) -> list[Path]:
    """Return the files of the service in the order they apply. Empty if there is no unit or it is masked."""
    folders = [root / folder for folder in _UNIT_FOLDERS]
    unit = next((folder / UNIT for folder in folders if status_of(folder / UNIT)), None)
    if unit is None or _is_masked(unit):
        return []
    named = {file.name: file for folder in reversed(folders) for file in _drop_ins(folder)}
    return [unit, *(named[name] for name in sorted(named))]


def _is_masked(unit: Path) -> bool:
    """Whether a unit is empty or links to /dev/null. `systemctl mask` makes such a link."""
    status = status_of(unit)
    return status is not None and status.st_size == 0


def _drop_ins(folder: Path) -> list[Path]:
    try:
        return [file for file in (folder / f"{UNIT}.d").iterdir() if file.suffix == ".conf"]
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
    """Yield what `Environment=` assigns. systemd ignores everything from the first word that it cannot read."""
    position = 0
    while match := _WORD.match(value, position):
        position = match.end()
        name, assigned, text = _unquoted(match[1]).partition("=")
        if assigned and _is_unicode(text):
            yield name, text


def _unquoted(word: str) -> str:
    without_quotes = re.sub(f"{_QUOTED}|({_ESCAPE})", lambda match: match[1] or match[2] or match[3] or "", word)
    unescaped = re.sub(_ESCAPE, _unescaped, without_quotes)
    # Several escapes may spell the bytes of one character.
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
    """Return the files that match `EnvironmentFile=`, an absolute pattern. A `-` before it marks it as optional."""
    pattern = pattern.removeprefix("-")
    if not pattern.startswith("/"):
        return []
    # Path.glob expands ** to the whole tree. systemd's glob(3) does not.
    return [root / name for name in sorted(glob.glob(pattern.lstrip("/"), root_dir=root))]  # noqa: PTH207


def _file_variables(text: str) -> Iterator[tuple[str, str]]:
    for match in _ENTRY.finditer(text):
        if match["key"] is None:
            continue
        value = _ENTRY_PART.sub(_without_entry_quotes, match["quoted"]) + _without_backslashes(match["bare"], ".")
        if _is_unicode(value):
            yield match["key"].strip(" \t"), value


def _without_entry_quotes(match: re.Match[str]) -> str:
    # In double quotes, a backslash before any other character stays, as in a shell.
    return match[1] or _without_backslashes(match[2] or "", r'["\\`$\n]')


def _without_backslashes(text: str, escapable: str) -> str:
    return re.sub(rf"\\({escapable})", lambda match: match[1].strip("\r\n"), text, flags=re.DOTALL)


def _is_unicode(text: str) -> bool:
    """Whether the bytes of a text were UTF-8. systemd drops a variable whose value is not."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _read_config(file: Path) -> str:
    """Return the text of a file, with bytes outside UTF-8 as surrogates. Empty if unreadable, too large or not text."""
    status = status_of(file)
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
