"""
Talk to one registry: what the paths mean, and who may ask for them.

Source: the OCI distribution specification 1.1, and Ollama's own registry, which answers to the same paths
(server/images.go at fb30760).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from ostore.formats.errors import NotFoundError, RemoteError
from ostore.formats.media_types import MANIFEST, OCI_MANIFEST
from ostore.formats.web_address import is_loopback, origin_of
from ostore.places.registry.authorization import Authorizer, Permit
from ostore.streams.http import STALL_SECONDS, Answer, Http, NetworkTerms, Request, Response, refused

ACCEPT = f"{MANIFEST}, {OCI_MANIFEST}"
_CHALLENGE = "www-authenticate"
_UNAUTHORIZED, _NOT_FOUND = 401, 404
_DENIED = frozenset({401, 403})
# What people and Docker call the registry that is elsewhere.
_ALIASES = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


class RegistryClient:
    """One registry. `base` is `https://host[:port]`. Several threads may use it."""

    def __init__(self, http: Http, base: str, authorizer: Authorizer) -> None:
        self.base = base
        self.rate = http.rate
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
        permit: Permit | None = None,
        stall_seconds: float = STALL_SECONDS,
    ) -> Answer:
        """
        Ask for `/v2/REPOSITORY/PATH`, or for a URL of an upload, and return the answer of whatever status.

        `permit` is to read the repository, unless it is given. A body that is an iterator cannot be sent twice, so a
        401 then comes back. Raises RemoteError, LimitError, and what `Authorizer.answers` raises.
        """
        permit = permit or Permit(repository)
        url = path if "://" in path else f"{self.base}/v2/{repository}/{path}"
        granted = self._authorizer.known(permit)
        answers: Iterator[str] | None = None
        while True:
            answer = self._http.ask(Request(method, url, _with(headers, granted), body, stall_seconds))
            if answer.status != _UNAUTHORIZED or isinstance(body, Iterator):
                return answer
            if answers is None:
                answers = self._authorizer.answers(answer.headers.get(_CHALLENGE, ""), permit, granted)
            granted = next(answers, None)
            if granted is None:
                return answer

    def manifest(self, repository: str, reference: str) -> Answer:
        """Return a manifest by its tag or digest. Raises NotFoundError, RemoteError, LimitError."""
        answer = self.ask("GET", repository, f"manifests/{reference}", headers={"Accept": ACCEPT})
        if answer.status == _NOT_FOUND:
            sign = "@" if ":" in reference else ":"
            raise NotFoundError(f"{self.base}: no model {repository}{sign}{reference}")
        return self.accepted(answer, "GET", f"{repository}/manifests/{reference}")

    def accepted(self, answer: Answer, method: str, path: str) -> Answer:
        """Return an answer of success. Raises RemoteError for any other."""
        if answer.status >= 300:  # noqa: PLR2004 - redirects were followed
            raise self.refused(Request(method, path if "://" in path else f"{self.base}/v2/{path}"), answer)
        return answer

    def refused(self, request: Request, answer: Answer) -> RemoteError:
        """Return the error for an answer that is not what was asked for, and what to do if a login is wanted."""
        if origin_of(answer.url) != origin_of(self.base):
            # A server of files may repeat what the address was signed with, and knows no login.
            return refused(request, replace(answer, body=b""))
        return refused(request, answer, hint=self._authorizer.hint if answer.status in _DENIED else None)

    @contextmanager
    def opened_blob(self, repository: str, digest: str, headers: Mapping[str, str]) -> Iterator[Response]:
        """Ask for a blob, and yield the answer of whatever status. Raises what `ask` raises."""
        permit = Permit(repository)
        url = f"{self.base}/v2/{repository}/blobs/{digest}"
        granted = self._authorizer.known(permit)
        answers: Iterator[str] | None = None
        while True:
            with self._http.opened(Request("GET", url, _with(headers, granted))) as response:
                if response.status == _UNAUTHORIZED:
                    if answers is None:
                        answers = self._authorizer.answers(response.headers.get(_CHALLENGE, ""), permit, granted)
                    granted = next(answers, None)
                if response.status != _UNAUTHORIZED or granted is None:
                    yield response
                    return

    @contextmanager
    def opened_url(self, url: str, headers: Mapping[str, str]) -> Iterator[Response]:
        """Ask for what a registry has redirected to, and yield the answer. Raises RemoteError, LimitError."""
        with self._http.opened(Request("GET", url, headers)) as response:
            yield response


def base_of(host: str, terms: NetworkTerms, scheme: str | None = None) -> str:
    """
    Return the URL of a registry.

    Without a scheme, this machine is asked without TLS, unless there is a file of authorities for it.
    """
    is_plain = terms.plain_http or (is_loopback(host.partition(":")[0]) and terms.ca_file is None)
    return f"{scheme or ('http' if is_plain else 'https')}://{_ALIASES.get(host.lower(), host)}"


def _with(headers: Mapping[str, str] | None, granted: str | None) -> dict[str, str]:
    return {**(headers or {}), **({"Authorization": granted} if granted else {})}
