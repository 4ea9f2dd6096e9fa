"""Say why a connection failed, in the words of one error of ours: what urllib3 wraps several times over."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError

from ostore.formats.errors import RemoteError

# People read no more of what a server says.
TOLD_CHARACTERS = 200


@contextmanager
def translated(told: str) -> Iterator[None]:
    """Raises RemoteError instead of the errors of a connection. `told` is what was asked for."""
    try:
        yield
    except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        reason, hint, is_passing = _explained(error)
        raise RemoteError(f"{told}: {reason}", hint=hint, is_passing=is_passing) from None


def _explained(error: Exception) -> tuple[str, str | None, bool]:
    """Return why a connection failed, what to do about it, and whether it may work a moment later."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return *_explained_tls(cause), False
        if isinstance(cause, NameResolutionError):
            return "no address is known for this name", None, False
        if isinstance(cause, (TimeoutError, urllib3.exceptions.TimeoutError)):
            return "no answer in time", None, True
        if isinstance(cause, OSError) and cause.strerror:
            may_pass = isinstance(cause, ConnectionError) and not isinstance(cause, ConnectionRefusedError)
            return cause.strerror.lower(), None, may_pass
    if isinstance(error, ValueError):
        # Its text may have the password of a proxy.
        return "its address, or that of the proxy, is not valid", None, False
    text = str(next(_causes(error))) or type(error).__name__
    return f"the connection broke: {text[:TOLD_CHARACTERS]}", None, not isinstance(error, OSError)


def _explained_tls(error: ssl.SSLError) -> tuple[str, str | None]:
    if isinstance(error, ssl.SSLCertVerificationError):
        is_unknown = "self" in error.verify_message or "issuer" in error.verify_message
        hint = "--ca-file FILE trusts a private authority" if is_unknown else None
        return f"its certificate is not valid: {error.verify_message}", hint
    is_plain = error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}
    reason = (error.reason or str(error)).replace("_", " ").lower()
    return (
        f"no TLS connection: {reason}",
        "if it speaks plain http: --plain-http, or an address with http://" if is_plain else None,
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it wraps, the innermost first."""
    inner = [one for one in (*error.args, error.__cause__, error.__context__) if isinstance(one, BaseException)]
    for one in inner[:1]:
        yield from _causes(one)
    yield error
