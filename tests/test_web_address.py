"""What a URL and the name of a host say by themselves."""

from __future__ import annotations

import pytest

from ostore.formats.web_address import is_excepted, is_inward, is_loopback, origin_of, without_secrets


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("a.localhost", True), ("127.1.2.3", True), ("[::1]", True), ("localhost.example", False)],
)
def test_loopback_is_known_by_its_name(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("169.254.169.254", True),
        ("0.0.0.0", True),  # noqa: S104 - nothing is bound
        ("[fe80::1]", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("registry.example", False),
    ],
)
def test_what_is_here_or_on_the_link_is_inward(host: str, expected: bool) -> None:
    assert is_inward(host) is expected


@pytest.mark.parametrize(
    ("exceptions", "expected"),
    [
        ("registry.example", True),
        (".example:443", True),
        ("other.example, EXAMPLE", True),
        ("*", True),
        ("istry.example", False),
        ("", False),
    ],
)
def test_no_proxy_names_hosts_and_domains(exceptions: str, expected: bool) -> None:
    assert is_excepted("Registry.example", exceptions) is expected


def test_a_port_is_part_of_an_origin() -> None:
    assert origin_of("https://Registry.example/x") == origin_of("https://registry.example:443/y")
    assert origin_of("http://registry.example/") == ("http", "registry.example", 80)
    assert origin_of("https://registry.example:8443/") != origin_of("https://registry.example/")


def test_messages_have_no_secrets() -> None:
    assert without_secrets("https://me:secret@registry.example/v2/x?token=secret#y") == "https://registry.example/v2/x"
