"""What a URL and the name of a host say by themselves. Nobody is asked."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

_IPV4_BYTES = 4
_NUMBER = re.compile(r"0x[0-9a-f]{1,8}|0[0-7]{0,11}|[1-9][0-9]{0,9}", re.IGNORECASE)
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
    address = _address(host)
    return address.is_loopback if address else _LOOPBACK_NAME.fullmatch(host) is not None


def is_inward(host: str) -> bool:
    """Return whether a host is this machine or something on its link: no other server has to send us there."""
    address = _address(host)
    if address is None:
        return is_loopback(host)
    return address.is_loopback or address.is_link_local or address.is_unspecified


def is_excepted(host: str, exceptions: str) -> bool:
    """Return whether NO_PROXY names a host, a domain that it is in, or a network that its address is in."""
    address = _address(host)
    for word in exceptions.lower().replace(",", " ").split():
        name = _without_port(word).removeprefix(".")
        if name == "*" or host.lower() == name or host.lower().endswith(f".{name}"):
            return True
        with suppress(ValueError):
            if address and address in ipaddress.ip_network(name, strict=False):
                return True
    return False


def _without_port(word: str) -> str:
    if word.startswith("["):
        return word[1:].partition("]")[0]
    # More colons are those of an address.
    return word.partition(":")[0] if word.count(":") == 1 else word


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host is written as, in any of the ways that systems read; None for a name."""
    text = host.strip("[]")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return _short_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _short_address(text: str) -> ipaddress.IPv4Address | None:
    """Return what 127.1, 0x7f.0.0.1 and 2130706433 mean: the last number has all bytes that others leave."""
    parts = text.split(".")
    if len(parts) > _IPV4_BYTES or not all(map(_NUMBER.fullmatch, parts)):
        return None
    *bytes_, rest = (int(part, 16 if part[1:2] in {"x", "X"} else 8 if part[0] == "0" else 10) for part in parts)
    try:
        left = rest.to_bytes(_IPV4_BYTES - len(bytes_), "big")
        return ipaddress.IPv4Address(bytes(bytes_) + left)
    except (OverflowError, ValueError):
        return None
