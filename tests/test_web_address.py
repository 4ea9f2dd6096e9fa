"""What a URL and the name of a host say by themselves."""

from __future__ import annotations

import pytest

from ostore.formats.web_address import is_excepted, is_inward, is_loopback, origin_of, without_secrets


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.1.2.3", True),
        ("[::1]", True),
        ("127.1", True),
        ("2130706433", True),
        ("0x7f.1", True),
        ("[::ffff:127.0.0.1]", True),
        ("localhost.example", False),
        ("127.1.example", False),
        ("0177.0.0.01", True),
        ("127.0.0.256", False),
        ("127.4294967295", False),
        ("1.2.3.4.127", False),
        ("", False),
        ("cafe", False),
    ],
)
def test_loopback_is_known_by_its_name(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("169.254.169.254", True),
        ("0.0.0.0", True),  # noqa: S104 - nothing is bound
        ("0", True),
        ("[fe80::1]", True),
        ("169.254.43518", True),
        ("::ffff:169.254.169.254", True),
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


@pytest.mark.parametrize(
    ("host", "exceptions", "expected"),
    [
        ("192.0.2.7", "10.0.0.0/8,192.0.2.0/24", True),
        ("192.0.2.7", "192.0.2.7:5000", True),
        ("192.0.2.7", "192.0.3.0/24", False),
        ("fd00::5", "fd00::5", True),
        ("fd00::5", "[fd00::5]:5000", True),
        ("fd00::5", "fd00::/8", True),
        ("fd00::5", "fe00::5", False),
        ("registry.example", "192.0.2.0/24", False),
    ],
)
def test_no_proxy_names_addresses_and_networks(host: str, exceptions: str, expected: bool) -> None:
    assert is_excepted(host, exceptions) is expected


def test_a_port_is_part_of_an_origin() -> None:
    assert origin_of("https://Registry.example/x") == origin_of("https://registry.example:443/y")
    assert origin_of("http://registry.example/") == ("http", "registry.example", 80)
    assert origin_of("https://registry.example:8443/") != origin_of("https://registry.example/")


def test_messages_have_no_secrets() -> None:
    assert without_secrets("https://me:secret@registry.example/v2/x?token=secret#y") == "https://registry.example/v2/x"
