"""
A server of tokens for a real docker-registry. None is packaged for Debian, and a test has to see what it is asked.

The registry checks each token: its signature, its time, and what it allows.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

ISSUER, SERVICE = "tests", "the-registry"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class TokenServer:
    """
    Gives tokens to whoever has a login: for all that is asked, and to nobody in particular for reading `public`.

    `seen` has the query and the header `Authorization` of each request. `seconds` is how long a token lasts.
    """

    folder: Path
    logins: tuple[tuple[str, str], ...] = (("me", "hush"),)
    public: str = "library/"
    seconds: int = 300
    port: int = 0
    seen: list[tuple[dict[str, list[str]], str | None]] = field(default_factory=list)
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._chain = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()

    @property
    def bundle(self) -> Path:
        return self.folder / "tokens.pem"

    def settings(self, realm: str) -> str:
        """What docker-registry needs to know."""
        return (
            f"auth: {{token: {{realm: '{realm}', service: {SERVICE}, issuer: {ISSUER},"
            f" rootcertbundle: {self.bundle}}}}}\n"
        )

    def answer(self, query: dict[str, list[str]], authorization: str | None) -> tuple[int, dict[str, Any]]:
        self.seen.append((query, authorization))
        user = ""
        if authorization is not None:
            user, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
            if (user, password) not in self.logins:
                return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "no such user"}]}
        access = []
        for kind, name, actions in (scope.split(":") for scope in query.get("scope", [])):
            allowed = actions.split(",") if user else ["pull"] if name.startswith(self.public) else []
            access.append({"type": kind, "name": name, "actions": allowed})
        return 200, {"token": self._signed(user, access), "expires_in": self.seconds}

    def _signed(self, user: str, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "exp": now + self.seconds,
            "nbf": now - 10,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        head = {"typ": "JWT", "alg": "ES256", "x5c": [self._chain]}
        text = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


@contextlib.contextmanager
def token_server(folder: Path, **options: Any) -> Iterator[TokenServer]:  # noqa: ANN401 - of the dataclass
    """Run a server of tokens on a free port of loopback."""
    tokens = TokenServer(folder, **options)

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = tokens.answer(parse_qs(urlsplit(self.path).query), self.headers["Authorization"])
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        tokens.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield tokens
        finally:
            server.shutdown()
            thread.join()
