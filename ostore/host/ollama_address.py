"""Where an Ollama listens: what a person types, or OLLAMA_HOST, by Ollama's own rules (envconfig.Host at fb30760)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from ostore.formats.errors import UsageError
from ostore.host.discovery import as_ollama_reads

HOST_VARIABLE = "OLLAMA_HOST"
_PORT = 11434
_SCHEME_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}")
# Python takes any text for the link that an address is on, behind `%`.
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?")
# What can stand in a path without being escaped, but for `?` and `#`, which would end it.
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")


def address_of(environ: Mapping[str, str]) -> str:
    """Return the URL that Ollama's own client uses in this environment. Raises UsageError if OLLAMA_HOST is none."""
    return typed_address(environ.get(HOST_VARIABLE, ""), HOST_VARIABLE)


def typed_address(text: str, what: str = "URL") -> str:
    """
    Return the URL of a server for what a person typed: `HOST`, `HOST:PORT` or a URL; `what` names it in messages.

    Without a scheme, the port is 11434. An address to listen on everywhere, such as 0.0.0.0, becomes this machine.
    Raises UsageError if it is no address. A text with a password is not repeated.
    """
    scheme, has_scheme, rest = as_ollama_reads(text).rpartition("://")
    if not has_scheme:
        # Ollama's cloud is the one exception.
        scheme = "https" if rest == "ollama.com" else "http"
    if scheme not in _SCHEME_PORTS:
        raise UsageError("expected http:// or https://", parameter=what)
    if "@" in rest or "?" in rest or "#" in rest:
        raise UsageError("expected HOST:PORT, without a user, a query or a fragment", parameter=what)
    hostport, _, path = rest.partition("/")
    host, port = _split(hostport)
    if not _PATH.fullmatch(path) or not (_HOST.fullmatch(host) or _ip(host)):
        raise UsageError(f"{text!r:.80}: no address of a server; expected HOST:PORT", parameter=what)
    default = _SCHEME_PORTS[scheme] if has_scheme or scheme == "https" else _PORT
    shown = f"[{host}]" if ":" in host else host
    path = f"/{path}".rstrip("/")
    return f"{scheme}://{shown}:{default if port is None else port}{path}"


def _split(hostport: str) -> tuple[str, int | None]:
    """Return host and port. A port that is none is not one to Ollama either: it takes the default."""
    address = _ip(hostport)
    host, port = hostport, None
    if address is None:
        before, colon, after = hostport.rpartition(":")
        if colon:
            number = int(after) if after.isascii() and after.isdigit() and len(after) <= len(str(_MAX_PORT)) else -1
            host, port = before, number if 0 <= number <= _MAX_PORT else None
        address = _ip(host)
    if address is not None:
        host = str(address)
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"  # noqa: PLR2004 - of IP
    return host or "127.0.0.1", port


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    text = text.removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(text) if _ADDRESS.fullmatch(text) else None
    except ValueError:
        return None
