"""
Logins as Docker, Podman and skopeo keep them: in a file, or with a program that the file names.

`docker login HOST` writes them. No secret is in a message or in a `repr`.
"""

from __future__ import annotations

import base64
import binascii
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from ostore.formats.errors import FormatError, OstoreError, UsageError
from ostore.formats.json_reading import read_strict_json
from ostore.host.surroundings import Surroundings
from ostore.places.registry.user_files import read_user_file

# Files of people with a hundred logins have some 20 KiB.
MAX_CONFIG_BYTES = 1024 * 1024
# A name, a secret and a URL. The secrets of clouds have some kilobytes.
MAX_HELPER_BYTES = 64 * 1024
# It may ask a person for the password of a keychain.
HELPER_SECONDS = 60.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SCHEME = re.compile(r"https?://")
_VERSION = re.compile(r"/v[12]/?")
# What Docker calls the login of its Hub, whatever the host is called elsewhere.
_HUB = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
# Docker's programs say this, with exit code 1, if they have no such login.
_NO_LOGIN = "credentials not found"
# In place of a name, it says that the secret is an identity token.
_TOKEN_USER = "<token>"  # noqa: S105 - no secret


@dataclass(frozen=True, slots=True)
class Login:
    """A name and its password, or an identity token, which has no name."""

    user: str | None
    secret: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of `Authorization` for a name and its password (RFC 7617)."""
        return f"Basic {base64.b64encode(f'{self.user}:{self.secret}'.encode()).decode('ascii')}"


class DockerConfig:
    """The files of one person. They are read when somebody asks for a login, and not before."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        self._read: dict[Path, _Config] = {}

    @classmethod
    def of(cls, surroundings: Surroundings) -> DockerConfig:
        """Return the configuration of this user: Docker's, then that of Podman and skopeo."""
        environ, home = surroundings.environ, surroundings.home
        folder = Path(environ["DOCKER_CONFIG"]) if environ.get("DOCKER_CONFIG") else home and home / ".docker"
        files = [folder / "config.json"] if folder else []
        if runtime := environ.get("XDG_RUNTIME_DIR"):
            files.append(Path(runtime) / "containers" / "auth.json")
        return cls([surroundings.cwd / path for path in files])

    def login_for(self, host: str, repository: str) -> Login | None:
        """
        Return the login for a repository of a registry, or None. `host` is as typed, with the port if one was typed.

        Raises FormatError or LimitError for a file that is no such configuration, UsageError if a program that it
        names does not give the login, OSError if a file cannot be read.
        """
        for config in self._configs():
            if login := config.login_for(host, repository):
                return login
        return None

    def names(self, host: str) -> bool:
        """Return whether a file names a host, with or without a login. Raises what `login_for` raises."""
        return any(config.names(host) for config in self._configs())

    def _configs(self) -> Iterator[_Config]:
        for path in self._files:
            if path not in self._read:
                self._read[path] = _Config.read(path)
            yield self._read[path]


@dataclass(frozen=True, slots=True)
class _Config:
    """
    One file. Keys of `logins` are normal (`_normal`).

    `helpers` maps a host to the name of the program that has its login, `store` is that of all other hosts.
    """

    path: Path
    logins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    helpers: Mapping[str, str] = field(default_factory=dict)
    store: str = ""

    @classmethod
    def read(cls, path: Path) -> _Config:
        raw = read_user_file(path, MAX_CONFIG_BYTES)
        if raw is None or not raw.strip():
            return cls(path)
        try:
            document = read_strict_json(raw)
            if not isinstance(document, dict):
                raise FormatError("expected an object")
            logins = {_normal(key): _object(entry, key) for key, entry in _member(document, "auths").items()}
            helpers = {
                _normal(key): _helper(name) for key, name in _member(document, "credHelpers").items() if name != ""
            }
            return cls(path, logins, helpers, _helper(document.get("credsStore") or ""))
        except OstoreError as error:
            raise type(error)(f"{path}: {error}") from None

    def login_for(self, host: str, repository: str) -> Login | None:
        key = _normal(host)
        if helper := self.helpers.get(key) or self.store:
            login = _ask(helper, _HUB if key in _HUB_HOSTS else host, self.path)
            if login:
                return login
        parts = repository.split("/") if repository else []
        for count in range(len(parts), -1, -1):
            entry = self.logins.get("/".join((key, *parts[:count])))
            if entry and (login := _login(entry, host, self.path)):
                return login
        return None

    def names(self, host: str) -> bool:
        return _normal(host) in self.logins or _normal(host) in self.helpers


def _normal(key: str) -> str:
    """Return a key without scheme, version and final slash: `docker login` has written each form at some time."""
    host, slash, path = _SCHEME.sub("", key, count=1).partition("/")
    host = host.lower()
    path = "" if _VERSION.fullmatch(slash + path) else path.rstrip("/")
    host = "docker.io" if host in _HUB_HOSTS else host
    return f"{host}/{path}" if path else host


def _member(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _object(document.get(name), name)


def _object(value: object, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FormatError(f"{what!r:.80}: expected an object")
    return value


def _helper(name: object) -> str:
    if name == "" or (isinstance(name, str) and _HELPER_NAME.fullmatch(name)):
        return str(name)
    raise FormatError(f"{name!r:.80}: no name of a program docker-credential-NAME")


def _login(entry: Mapping[str, Any], host: str, path: Path) -> Login | None:
    """Return what an entry of a file says, or None if it says nothing: a program has it then. Raises FormatError."""
    token, encoded = entry.get("identitytoken") or "", entry.get("auth") or ""
    user, password = entry.get("username") or "", entry.get("password") or ""
    if not all(isinstance(text, str) for text in (token, encoded, user, password)):
        raise FormatError(f"{path}: login of {host}: expected text")
    if token:
        return Login(None, token)
    if encoded:
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            colon = ""
        if not colon:
            # The text is as good as the password.
            raise FormatError(f"{path}: login of {host}: 'auth' is not NAME:PASSWORD in Base64")
        # Docker before 1.13 filled it up.
        password = password.rstrip("\0")
    return Login(user, password) if user else None


def _ask(helper: str, host: str, path: Path) -> Login | None:
    """Return what a program says about a host, or None if it knows nothing. Raises UsageError."""
    name = f"docker-credential-{helper}"
    program = shutil.which(name)
    if program is None:
        raise UsageError(
            f"{path}: the logins are with the program {name}, which is not installed",
            hint=f"install it, or take {helper!r} out of the file and log in again",
        )
    code, output = _run(program, host, name)
    if code:
        said = output.decode("utf-8", "replace").strip()
        if _NO_LOGIN in said:
            return None
        raise UsageError(f"{name}: gave no login for {host}, and ended with {code}: {said[:200]!r}")
    try:
        answer = read_strict_json(output)
        user, secret = answer["Username"], answer["Secret"]
    except (OstoreError, TypeError, KeyError):
        user = secret = None
    if not isinstance(user, str) or not isinstance(secret, str) or ":" in user:
        raise UsageError(f"{name}: what it says about {host} is no login")
    if not secret:
        return None
    return Login(None if user == _TOKEN_USER else user, secret)


def _run(program: str, host: str, name: str) -> tuple[int, bytes]:
    """Run a program that reads a host and prints a login. Raises UsageError if it prints too much or takes too long."""
    try:
        process = subprocess.Popen(
            [program, "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        raise UsageError(f"{program}: cannot be run: {error.strerror}") from None
    output: list[bytes] = []
    # It may never end, and a program that it has started may keep the pipe open. Whoever reads can be left behind.
    reader = threading.Thread(target=_talk, args=(process, host, output), daemon=True)
    reader.start()
    reader.join(HELPER_SECONDS)
    with suppress(subprocess.TimeoutExpired):
        if output and len(output[0]) <= MAX_HELPER_BYTES:
            return process.wait(HELPER_SECONDS), output[0]
    process.kill()
    process.wait()
    if output and len(output[0]) > MAX_HELPER_BYTES:
        raise UsageError(f"{name}: expected at most {MAX_HELPER_BYTES} bytes, got more")
    raise UsageError(f"{name}: no answer in {HELPER_SECONDS:.0f} seconds")


def _talk(process: subprocess.Popen[bytes], host: str, output: list[bytes]) -> None:
    """Give a program its input, and keep what it prints."""
    # It may have ended without reading. What it printed says why.
    with suppress(OSError), cast(IO[bytes], process.stdin) as stdin:
        stdin.write(host.encode())
    with cast(IO[bytes], process.stdout) as stdout:
        output.append(stdout.read(MAX_HELPER_BYTES + 1))
