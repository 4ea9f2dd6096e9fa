"""Open the network for a command whose purpose it is: one client for all hosts, with what the environment says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ostore.formats.byte_size import parse_byte_size
from ostore.places.registry.authorization import Authorizer
from ostore.places.registry.client import RegistryClient, base_of
from ostore.settings import access, proxies
from ostore.streams.http import Http, NetworkTerms


def network_terms(
    *, limit_rate: int | str | None = None, ca_file: str | Path | None = None, plain_http: bool = False
) -> NetworkTerms:
    """Return the terms of a command. Raises UsageError for a rate that is none."""
    rate = None
    if limit_rate is not None:
        rate = parse_byte_size(str(limit_rate), "limit-rate", expected="bytes a second such as 10MB or 512K")
    return NetworkTerms(proxies(), None if ca_file is None else Path(ca_file), plain_http, rate)


@contextmanager
def registries(
    terms: NetworkTerms, *, connections: int, scheme: str | None = None
) -> Iterator[Callable[[str], RegistryClient]]:
    """
    Yield what gives the client of each registry, by its host. Leaving the block ends all connections.

    `scheme` is what was typed before the host, if anything was.
    """
    http, proven = Http(terms, connections=connections), access()

    @cache
    def client_of(host: str) -> RegistryClient:
        base = base_of(host, terms, scheme)
        return RegistryClient(http, base, Authorizer(host, base, proven, http.ask))

    try:
        yield client_of
    finally:
        http.close()
