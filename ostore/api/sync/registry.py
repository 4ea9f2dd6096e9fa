"""A registry as one of the two places of `sync`. A sync of folders loads no library of the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ostore.api.network import registries
from ostore.api.push import PUSH_CONNECTIONS, registry_sink, until_sent
from ostore.api.sync.places import Destination, Origin, found_in
from ostore.formats.name import ModelName
from ostore.formats.registry_address import RegistryAddress
from ostore.places.registry.catalog import names_at
from ostore.places.registry.source import RegistrySource
from ostore.streams.http import NetworkTerms
from ostore.streams.ranges import connections_for


@contextmanager
def opened_registry_origin(address: RegistryAddress, word: str, terms: NetworkTerms) -> Iterator[Origin]:
    """Open a registry, or one namespace of it, as the place of all models that it lists. Raises UsageError, OSError."""
    connections = connections_for(None, terms.limit_rate)
    with registries(terms, connections=connections, scheme=address.scheme) as client_of:
        source = RegistrySource(
            client_of,
            connections=connections,
            label=word,
            listed=lambda: names_at(client_of(address.host), address.host, address.namespace),
        )

        def may_have(name: ModelName) -> bool:
            # Lists may be short for want of a login, so each model is asked for. Those of others are not its business.
            return not address.has(name) or not source.lacks(name)

        yield Origin(source, may_have)


@contextmanager
def opened_registry_destination(address: RegistryAddress, terms: NetworkTerms) -> Iterator[Destination]:
    """Open a registry, or one namespace of it, as the place that models go to. Raises UsageError, OSError."""
    with registries(terms, connections=PUSH_CONNECTIONS, scheme=address.scheme) as client_of:
        source = RegistrySource(client_of, connections=1)
        yield Destination(
            lambda *, replace: registry_sink(client_of, address.name_of, replace=replace),
            lambda names: found_in(source, [name.full for name in names]),
            name_of=address.name_of,
            until_sent=until_sent,
        )
