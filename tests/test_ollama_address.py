"""Where an Ollama is looked for: OLLAMA_HOST and what a person types, by Ollama's rules."""

from __future__ import annotations

import pytest

from ostore.formats.errors import UsageError
from ostore.host.ollama_address import address_of, typed_address

# The rows of TestHost in envconfig/config_test.go at fb30760, and of ConnectableHost; then ours.
OLLAMAS = [
    ("", "http://127.0.0.1:11434"),
    ("1.2.3.4", "http://1.2.3.4:11434"),
    (":1234", "http://127.0.0.1:1234"),
    ("1.2.3.4:1234", "http://1.2.3.4:1234"),
    ("example.com", "http://example.com:11434"),
    ("example.com:1234", "http://example.com:1234"),
    (":0", "http://127.0.0.1:0"),
    (":66000", "http://127.0.0.1:11434"),
    (":-1", "http://127.0.0.1:11434"),
    ("[::1]", "http://[::1]:11434"),
    ("[::]", "http://[::1]:11434"),
    ("::1", "http://[::1]:11434"),
    ("[::1]:1337", "http://[::1]:1337"),
    ("fe80::1%eth0", "http://[fe80::1%eth0]:11434"),
    ("[fe80::1%eth0]:80", "http://[fe80::1%eth0]:80"),
    (" 1.2.3.4 ", "http://1.2.3.4:11434"),
    ('"1.2.3.4"', "http://1.2.3.4:11434"),
    ("http://1.2.3.4", "http://1.2.3.4:80"),
    ("http://1.2.3.4:4321", "http://1.2.3.4:4321"),
    ("https://1.2.3.4", "https://1.2.3.4:443"),
    ("https://1.2.3.4:4321", "https://1.2.3.4:4321"),
    ("https://example.com/ollama", "https://example.com:443/ollama"),
    ("example.com/ollama", "http://example.com:11434/ollama"),
    ("https://example.com:1234/a/", "https://example.com:1234/a"),
    ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104 - nothing is bound
    ("0.0.0.0:80", "http://127.0.0.1:80"),
    ("http://0.0.0.0:8080/v", "http://127.0.0.1:8080/v"),
    ("[::]:8080", "http://[::1]:8080"),
    ("ollama.com", "https://ollama.com:443"),
]


@pytest.mark.parametrize(("text", "url"), OLLAMAS)
def test_an_address_is_read_as_ollama_reads_it(text: str, url: str) -> None:
    assert typed_address(text) == url
    assert address_of({"OLLAMA_HOST": text}) == url


def test_without_the_variable_it_is_this_machine() -> None:
    assert address_of({}) == "http://127.0.0.1:11434"


@pytest.mark.parametrize(
    "text",
    [
        "ftp://host",
        "HTTP://host",
        "http://a://b",
        "me:secret@host:1",
        "host?key=secret",
        "host#secret",
        "a:b:c",
        "a:b:80",
        "[::1]x",
        "http://[::1]x:5",
        "fe80::1%]x",
        "a b",
        "a\nb",
        "a\x1b[2J:1",
        "host/a b",
        "host/\x1b",
        "x" * 300,
        "h\u00f6st",
    ],
)
def test_what_is_no_address_is_refused_and_no_secret_repeated(text: str) -> None:
    with pytest.raises(UsageError, match=r"^URL: ") as raised:
        typed_address(text)
    assert "secret" not in str(raised.value)
    with pytest.raises(UsageError, match=r"^OLLAMA_HOST: "):
        address_of({"OLLAMA_HOST": text})
