"""The key of an Ollama, by which its registry knows who asks (auth/auth.go and server/auth.go at fb30760)."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.formats.errors import FormatError, UsageError
from ostore.formats.remedy import command
from ostore.places.registry.user_files import read_user_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_FILE = (".ollama", "id_ed25519")
# The file of such a key has some 400 bytes.
_MAX_KEY_BYTES = 16 * 1024
# The request has no body, and this is what Ollama signs of it: the hex digits of a SHA-256, in Base64.
_NO_BODY = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()


class OllamaKey:
    """A private key, in memory."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def read(cls, path: Path) -> OllamaKey | None:
        """
        Return the key in a file, or None if there is no file.

        Raises UsageError without the extra `registry`, FormatError if it is not an Ed25519 key of OpenSSH without a
        passphrase, LimitError, OSError.
        """
        raw = read_user_file(path, _MAX_KEY_BYTES)
        if raw is None:
            return None
        try:
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
            from cryptography.hazmat.primitives.serialization import load_ssh_private_key
        except ImportError:
            hint = command("pip", "install", "ostore[registry]", after="installs what it takes")
            raise UsageError(f"{path}: signing with Ollama's key is not installed", hint=hint) from None
        try:
            private = load_ssh_private_key(raw, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # What the library says may quote the key.
            raise FormatError(f"{path}: not a private key of OpenSSH, or one with a passphrase") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise FormatError(f"{path}: expected an Ed25519 key")
        return cls(private)

    def authorization(self, url: str) -> str:
        """Return the value of `Authorization` for a GET of a URL: the public key and a signature, with no scheme."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        public = self._private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
        signature = self._private.sign(f"GET,{url},{_NO_BODY}".encode())
        return f"{public.decode()}:{base64.b64encode(signature).decode()}"
