"""Where the server listens, and with which certificate."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from ostore.formats.errors import BusyError, UsageError

DEFAULT_PORT = 11435
_BACKLOG = 512
_LISTEN = re.compile(r"(?:(?P<host>\[[^\[\]]+\]|[^:\[\]]*):)?(?P<port>[0-9]{1,5})")
_MAX_PORT = 65535
# Of RFC 5737: no packet is sent there, but the system says from where it would send one.
_SOMEWHERE = ("192.0.2.1", 9)


@dataclass(frozen=True, slots=True)
class Address:
    """A host, empty for all addresses of this machine, and a port; 0 for a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT`, `:PORT` or `PORT`. Raises UsageError."""
        found = _LISTEN.fullmatch(text)
        if found is None or int(found["port"]) > _MAX_PORT:
            raise UsageError(f"expected HOST:PORT, got {text!r:.90}", parameter="listen")
        return cls((found["host"] or "").strip("[]"), int(found["port"]))


def opened(address: Address) -> socket.socket:
    """
    Return a socket that listens.

    Raises BusyError if the port is taken, UsageError if this machine has no such address or we may not use the port,
    OSError.
    """
    host = address.host or "0.0.0.0"  # noqa: S104 - a mirror for the LAN
    try:
        family, _, _, _, at = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise UsageError(f"{host}: no address of that name", parameter="listen") from None
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # On Windows the option lets two servers have one port.
        if hasattr(socket, "SO_REUSEPORT"):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not ipaddress.ip_address(at[0]).is_loopback:
            with contextlib.suppress(OSError):
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(at)
        listening.listen(_BACKLOG)
        listening.settimeout(0)
    except OSError as error:
        listening.close()
        raise _explained(error, address) from error
    return listening


def _explained(error: OSError, address: Address) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return BusyError(
            f"port {address.port} is taken by another program", hint="--listen :PORT chooses another, :0 a free one"
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return UsageError(
            f"port {address.port}: this user may not listen there",
            hint="ports below 1024 need root, or the capability CAP_NET_BIND_SERVICE",
            parameter="listen",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(
            f"{address.host}: not an address of this machine",
            hint="0.0.0.0 means all of them",
            parameter="listen",
        )
    return error


def is_loopback(listening: socket.socket) -> bool:
    """Return whether only this machine can connect."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def reached_at(listening: socket.socket) -> str:
    """Return HOST:PORT under which clients reach it. Of several addresses, the one that leads to the network."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_SOMEWHERE)
            return f"{probe.getsockname()[0]}:{port}"
        return f"{socket.gethostname()}:{port}"
    # The name of a model cannot hold an address of IPv6.
    return f"{_name_of(host) if ':' in host else host}:{port}"


def _name_of(address: str) -> str:
    """Return a name that leads to an address, or HOST if none is known here."""
    name = "localhost" if ipaddress.ip_address(address.partition("%")[0]).is_loopback else socket.gethostname()
    with contextlib.suppress(OSError):
        if address in {found[4][0] for found in socket.getaddrinfo(name, None, socket.AF_INET6)}:
            return name
    return "HOST"


def shown(host: str, port: int) -> str:
    """Return an address as it is written in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Return what TLS needs. Raises UsageError if it is no certificate with its key, OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password, so that OpenSSL does not ask for one at a terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise UsageError(
            f"{certificate}: no certificate with its key in PEM ({error.reason or error})", parameter="tls-cert"
        ) from None
    except OSError as error:
        # OpenSSL does not say which of the two.
        error.filename = str(key if key is not None and certificate.is_file() else certificate)
        raise
    return context
