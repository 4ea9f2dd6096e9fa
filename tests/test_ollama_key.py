"""Ollama's own key: exactly what its server signs, with keys as ssh-keygen writes them."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ostore.formats.errors import FormatError, LimitError, UsageError
from ostore.places.registry.ollama_key import OllamaKey

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen of OpenSSH")

URL = "https://registry.ollama.ai/v2/token?nonce=abc&scope=repository%3Ame%2Fmine%3Apull&service=r&ts=1700000000"
SIGNED = f"GET,{URL},ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="


def made_key(path: Path, *options: str) -> Path:
    """A key of ssh-keygen, which is a program of the system; an Ollama writes the same format."""
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-C", "", "-t", "ed25519", *options, "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path


def test_what_is_sent_is_the_public_key_and_a_signature_of_the_url(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    path = made_key(tmp_path / "id_ed25519")
    key = OllamaKey.read(path)
    assert key is not None
    public, _, signature = key.authorization(URL).partition(":")
    told = path.with_suffix(".pub").read_bytes()
    assert public == told.decode().split()[1]
    verifier = load_ssh_public_key(told)
    assert isinstance(verifier, Ed25519PublicKey)
    verifier.verify(base64.b64decode(signature, validate=True), SIGNED.encode())
    assert len(base64.b64decode(signature)) == 64


def test_no_key_is_no_error(tmp_path: Path) -> None:
    assert OllamaKey.read(tmp_path / "absent" / "id_ed25519") is None


@pytest.mark.parametrize("options", [("-N", "secret"), ("-t", "ecdsa")], ids=["passphrase", "other kind"])
def test_another_key_is_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = made_key(tmp_path / "id_ed25519", *options)
    with pytest.raises(FormatError, match=str(path)):
        OllamaKey.read(path)


def test_what_is_no_key_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    path.write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----\nsecretsecret\n")
    with pytest.raises(FormatError) as refusal:
        OllamaKey.read(path)
    assert "secretsecret" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    path.write_bytes(b"x" * 20_000)
    with pytest.raises(LimitError):
        OllamaKey.read(path)
    with pytest.raises(FormatError):
        OllamaKey.read(tmp_path)


def test_without_the_extra_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made_key(tmp_path / "id_ed25519")
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(UsageError) as refusal:
        OllamaKey.read(path)
    assert str(refusal.value.hint) == "pip install 'ostore[registry]' installs what it takes"
