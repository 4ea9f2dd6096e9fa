"""
Talk to one registry: what the paths mean, and who may ask for them.

Source: the OCI distribution specification 1.1, and Ollama's own registry, which answers to the same paths
(server/images.go at fb30760).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from ostore.formats.errors import NotFoundError
from ostore.formats.media_types import MANIFEST, OCI_MANIFEST
from ostore.streams.http import Answer, Http, NetworkTerms, Request, Response, is_loopback, refused

_ACCEPT = f"{MANIFEST}, {OCI_MANIFEST}"
_UNAUTHORIZED, _NOT_FOUND = 401, 404


@dataclass(frozen=True, slots=True)
class Scope:
    """What is asked for: actions, such as `pull` or `pull,push`, in a repository of a registry (`host[:port]`)."""

    base: str
    repository: str
    actions: str = "pull"


class Authorizer(Protocol):
    """Knows the value of the header `Authorization` for each scope."""

    def known(self, scope: Scope, /) -> str | None:
        """Return what was granted before, or what there is to try at once, or None."""
        ...

    def granted(self, scope: Scope, challenge: str, /) -> str | None:
        """Return what answers a challenge (the header `WWW-Authenticate`), or None. Raises RemoteError, UsageError."""
        ...


class RegistryClient:
    """One registry. `base` is `https://host[:port]`. Several threads may use it."""

    def __init__(self, http: Http, base: str, authorizer: Authorizer) -> None:
        self.base = base
        self._http = http
        self._authorizer = authorizer

    def ask(
        self,
        method: str,
        repository: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] = b"",
        actions: str = "pull",
    ) -> Answer:
        """
        Ask for `/v2/REPOSITORY/PATH`, or for a URL of an upload, and return the answer of whatever status.

        Raises RemoteError, LimitError.
        """
        scope = Scope(self.base, repository, actions)
        url = path if "://" in path else f"{self.base}/v2/{repository}/{path}"
        granted = self._authorizer.known(scope)
        answer = self._http.ask(Request(method, url, _with(headers, granted), body))
        challenge = answer.headers.get("www-authenticate", "")
        if answer.status != _UNAUTHORIZED or not isinstance(body, bytes):
            return answer
        granted = self._authorizer.granted(scope, challenge)
        return answer if granted is None else self._http.ask(Request(method, url, _with(headers, granted), body))

    def manifest(self, repository: str, reference: str) -> Answer:
        """Return a manifest by its tag or digest. Raises NotFoundError, RemoteError, LimitError."""
        answer = self.ask("GET", repository, f"manifests/{reference}", headers={"Accept": _ACCEPT})
        if answer.status == _NOT_FOUND:
            sign = "@" if ":" in reference else ":"
            raise NotFoundError(f"{self.base}: no model {repository}{sign}{reference}")
        return self.accepted(answer, "GET", f"{repository}/manifests/{reference}")

    def accepted(self, answer: Answer, method: str, path: str) -> Answer:
        """Return an answer of success. Raises RemoteError for any other."""
        if answer.status >= 300:  # noqa: PLR2004 - redirects were followed
            raise refused(Request(method, f"{self.base}/v2/{path}"), answer)
        return answer

    @contextmanager
    def opened_blob(self, repository: str, digest: str, headers: Mapping[str, str]) -> Iterator[Response]:
        """Ask for a blob, and yield the answer of whatever status. Raises RemoteError, LimitError."""
        scope = Scope(self.base, repository)
        url = f"{self.base}/v2/{repository}/blobs/{digest}"
        granted = self._authorizer.known(scope)
        with self._http.opened(Request("GET", url, _with(headers, granted))) as response:
            if response.status != _UNAUTHORIZED:
                yield response
                return
            granted = self._authorizer.granted(scope, response.headers.get("www-authenticate", ""))
            if granted is None:
                yield response
                return
        with self._http.opened(Request("GET", url, _with(headers, granted))) as response:
            yield response

    @contextmanager
    def opened_url(self, url: str, headers: Mapping[str, str]) -> Iterator[Response]:
        """Ask for what a registry has redirected to, and yield the answer. Raises RemoteError, LimitError."""
        with self._http.opened(Request("GET", url, headers)) as response:
            yield response


def base_of(host: str, terms: NetworkTerms) -> str:
    """Return the URL of a registry. This machine is asked without TLS, unless there is a file of authorities for it."""
    is_plain = terms.plain_http or (is_loopback(host.partition(":")[0]) and terms.ca_file is None)
    return f"{'http' if is_plain else 'https'}://{host}"


def _with(headers: Mapping[str, str] | None, granted: str | None) -> dict[str, str]:
    return {**(headers or {}), **({"Authorization": granted} if granted else {})}
