"""What a URL and the name of a host say by themselves. Nobody is asked."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit, urlunsplit

_LOOPBACK_NAME = re.compile(r"(.+\.)?localhost\.?", re.IGNORECASE)


def origin_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL. What is issued for one origin goes to no other."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (80 if parts.scheme == "http" else 443)


def without_secrets(url: str) -> str:
    """Return a URL without user, password, query and fragment, which may be secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return _LOOPBACK_NAME.fullmatch(host) is not None


def is_inward(host: str) -> bool:
    """Return whether a host is this machine or something on its link: no other server has to send us there."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return is_loopback(host)
    return address.is_loopback or address.is_link_local or address.is_unspecified


def is_excepted(host: str, exceptions: str) -> bool:
    """Return whether NO_PROXY names a host, or a domain that it is in."""
    for word in exceptions.lower().replace(",", " ").split():
        name = word.partition(":")[0].removeprefix(".")
        if name == "*" or host.lower() == name or host.lower().endswith(f".{name}"):
            return True
    return False
