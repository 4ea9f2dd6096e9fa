"""Open a registry as one of the two places of `sync`. It is a module of its own because its libraries open a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ostore.api.network import network_terms, registries
from ostore.api.push import until_sent
from ostore.api.sync_places import Destination, SyncNetwork, found_in
from ostore.formats.registry_address import RegistryAddress
from ostore.places.registry.catalog import names_at
from ostore.places.registry.client import RegistryClient
from ostore.places.registry.sink import RegistrySink
from ostore.places.registry.source import RegistrySource
from ostore.places.registry.upload_states import UploadStates
from ostore.settings import state_folder
from ostore.streams.http import NetworkTerms
from ostore.streams.ranges import connections_for

_SENDING_CONNECTIONS = 8


@contextmanager
def opened_registry_source(address: RegistryAddress, word: str, network: SyncNetwork) -> Iterator[RegistrySource]:
    """Open a registry, or one namespace of it, as a source of all models that it lists."""
    terms = _terms(address, network)
    connections = connections_for(None, terms.limit_rate)
    with registries(terms, connections=connections, scheme=address.scheme) as client_of:
        yield RegistrySource(
            client_of,
            connections=connections,
            label=word,
            listed=lambda: names_at(client_of(address.host), address.host, address.namespace),
        )


@contextmanager
def opened_registry_destination(address: RegistryAddress, network: SyncNetwork) -> Iterator[Destination]:
    """Open a registry, or one namespace of it, as the place that models go to."""
    terms = _terms(address, network)
    with registries(terms, connections=_SENDING_CONNECTIONS, scheme=address.scheme) as client_of:
        source = RegistrySource(client_of, connections=1)
        yield Destination(
            lambda *, replace: _sink(client_of, address, replace=replace),
            lambda names: found_in(source, [name.full for name in names]),
            name_of=address.name_of,
            until_sent=until_sent,
        )


def _terms(address: RegistryAddress, network: SyncNetwork) -> NetworkTerms:
    is_plain = address.scheme == "http"
    return network_terms(limit_rate=network.limit_rate, ca_file=network.ca_file, plain_http=is_plain)


def _sink(client_of: Callable[[str], RegistryClient], address: RegistryAddress, *, replace: bool) -> RegistrySink:
    return RegistrySink(
        client_of,
        address.name_of,
        replace=replace,
        states=UploadStates(state_folder("uploads")),
        packs={},
        connections=_SENDING_CONNECTIONS,
    )
