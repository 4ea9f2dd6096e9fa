"""
What a registry says it has: its repositories, and the tags of each.

Source: the OCI distribution specification 1.1, and Docker's registry for the list of repositories.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar
from urllib.parse import urljoin

from ostore.formats.errors import FormatError, InvalidNameError, LimitError, RemoteError
from ostore.formats.json_reading import read_strict_json
from ostore.formats.name import ModelName
from ostore.formats.web_address import origin_of
from ostore.places.registry.authorization import Permit
from ostore.places.registry.client import RegistryClient

# A mirror of everything that Ollama has would not have a tenth of that.
MAX_NAMES = 20_000
_MAX_PAGES = 400
_AT_ONCE = 1000
_NOT_FOUND = 404
# RFC 8288, as registries write it.
_NEXT = re.compile(r'<([^>]*)>(?:\s*;[^,<]*)?;\s*rel="?next\b"?')
_T = TypeVar("_T")


def names_at(client: RegistryClient, host: str, namespace: str | None = None) -> Iterator[ModelName]:
    """
    Yield the names of all models of a registry, or of one namespace. What cannot be the name of a model is passed over.

    Raises RemoteError, LimitError, FormatError.
    """
    pages = _pages(client, f"{client.base}/v2/_catalog?n={_AT_ONCE}", "repositories", Permit(""))
    # All of them before the first is asked for its tags: a list without end is refused sooner.
    repositories = list(_no_more(pages, "repositories", client.base))
    for space, model, tag in _no_more(_tagged(client, repositories, namespace), "tags", client.base):
        with suppress(InvalidNameError):
            yield ModelName(host, space, model, tag)


def _tagged(
    client: RegistryClient, repositories: Iterable[str], namespace: str | None
) -> Iterator[tuple[str, str, str]]:
    """Yield namespace, model and tag of all that may be models."""
    for repository in repositories:
        space, slash, model = repository.partition("/")
        if slash and "/" not in model and namespace in {None, space}:
            url = f"{client.base}/v2/{repository}/tags/list?n={_AT_ONCE}"
            for tag in _pages(client, url, "tags", Permit(repository)):
                yield space, model, tag


def _no_more(listed: Iterable[_T], what: str, base: str) -> Iterator[_T]:
    """Yield what is listed. Raises LimitError if that is more than anybody has."""
    for number, one in enumerate(listed):
        if number >= MAX_NAMES:
            raise LimitError(f"{base}: more than {MAX_NAMES} {what}")
        yield one


def _pages(client: RegistryClient, url: str, key: str, permit: Permit) -> Iterator[str]:
    """Yield the texts of a list that comes in pages. A page that leads back to one that was seen is refused."""
    seen: set[str] = set()
    while url:
        if url in seen or len(seen) >= _MAX_PAGES:
            raise LimitError(f"{client.base}: its list of {key} does not end")
        seen.add(url)
        answer = client.ask("GET", permit.repository, url, permit=permit)
        if answer.status == _NOT_FOUND:
            return
        client.accepted(answer, "GET", url)
        yield from _listed(answer.body, key, client.base)
        url = _next_page(url, answer.headers.get("link", ""), client.base)


def _listed(body: bytes, key: str, base: str) -> list[str]:
    try:
        document = read_strict_json(body)
    except FormatError as error:
        raise FormatError(f"{base}: its list of {key}: {error}") from None
    # Registries say null for none.
    found = document.get(key) or [] if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise FormatError(f"{base}: its list of {key} is none")
    return found


def _next_page(url: str, link: str, base: str) -> str:
    found = _NEXT.search(link)
    if found is None:
        return ""
    try:
        following: str = urljoin(url, found[1])
        is_here = origin_of(following) == origin_of(base)
    except ValueError:
        raise RemoteError(f"{base}: its list goes on at what is no address") from None
    if not is_here:
        raise RemoteError(f"{base}: its list goes on at another server")
    return following
