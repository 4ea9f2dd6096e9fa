"""A digest has one form, and nothing that could become another path is accepted (CVE-2024-37032)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostore.formats.digest import Digest
from ostore.formats.errors import InvalidDigestError, OstoreError, UnsafeError

HEX = hashlib.sha256(b"").hexdigest()
QUICK = settings(max_examples=60, deadline=None, database=None)

HOSTILE = {
    "empty": "",
    "only the prefix": "sha256:",
    "63 digits": f"sha256:{HEX[:-1]}",
    "65 digits": f"sha256:{HEX}0",
    "one digit is no digit": f"sha256:g{HEX[1:]}",
    "newline at the end": f"sha256:{HEX}\n",
    "space in front": f" sha256:{HEX}",
    "NUL at the end": f"sha256:{HEX}\0",
    "full-width digits": f"sha256:{chr(0xFF10)}{HEX[1:]}",
    "arabic digits": f"sha256:{chr(0x0660)}{HEX[1:]}",
    "no prefix": HEX,
    "upper-case prefix": f"SHA256:{HEX}",
    "sha512": f"sha512:{HEX}",
    "md5": "md5:d41d8cd98f00b204e9800998ecf8427e",
    "two separators": f"sha256::{HEX[1:]}",
    "traversal": "sha256:../../../../etc/passwd",
    "traversal padded to 64": "sha256:" + "../" * 21 + "x",
    "slash as separator": f"sha256/{HEX}",
    "bytes": f"sha256:{HEX}".encode(),
    "number": 0,
    "true": True,
    "null": None,
    "list": [f"sha256:{HEX}"],
}
TOLERATED = {
    "dash": f"sha256-{HEX}",
    "upper case": f"sha256:{HEX.upper()}",
    "one upper-case digit": "sha256:" + HEX.replace("e", "E", 1),
    "dash and upper case": f"sha256-{HEX.upper()}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("read", [Digest.parse, Digest.tolerate], ids=["parse", "tolerate"])
def test_text_that_ollama_could_not_resolve_is_refused(read: Callable[[object], Digest], text: object) -> None:
    with pytest.raises(InvalidDigestError, match=r"^digest: expected 'sha256:'"):
        read(text)


@pytest.mark.parametrize("text", TOLERATED.values(), ids=TOLERATED.keys())
def test_the_forms_whose_blobs_ollama_prunes_are_read_only_where_asked_for(text: str) -> None:
    assert Digest.tolerate(text) == Digest(HEX)
    with pytest.raises(InvalidDigestError):
        Digest.parse(text)


def test_a_long_hostile_digest_does_not_fill_the_message() -> None:
    with pytest.raises(InvalidDigestError) as caught:
        Digest.parse("x" * 1_000_000)
    assert len(str(caught.value)) < 200


def test_a_refused_digest_counts_as_unsafe() -> None:
    assert issubclass(InvalidDigestError, UnsafeError)
    assert issubclass(InvalidDigestError, OstoreError)


@pytest.mark.parametrize(
    "filename",
    [
        f"sha256:{HEX}",
        f"sha256-{HEX.upper()}",
        f"sha256-{HEX}-partial",
        f"sha256-{HEX}-partial-0",
        f"sha256-{HEX}.tmp",
        "sha256-1234567890",
        f".sha256-{HEX}",
        "README",
    ],
    ids=[
        "before 0.1.30",
        "upper case",
        "partial",
        "piece of a partial",
        "tensor download",
        "upload",
        "hidden",
        "foreign",
    ],
)
def test_only_the_name_of_a_finished_blob_is_a_digest(filename: str) -> None:
    assert Digest.of_filename(filename) is None


def test_bytes_have_the_digest_that_sha256sum_prints() -> None:
    assert str(Digest.of(b"")) == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Digest.of(memoryview(b"{{ .Prompt }}")).short == "b507b9c2f6ca"


def test_digests_sort_as_their_text_does() -> None:
    digests = [Digest.of(bytes([number])) for number in range(20)]
    assert list(map(str, sorted(digests))) == sorted(map(str, digests))


@QUICK
@given(st.binary(max_size=200))
def test_every_digest_survives_its_text_and_its_file_name(data: bytes) -> None:
    digest = Digest.of(data)
    assert (
        Digest.parse(str(digest)) == digest == Digest.tolerate(digest.filename) == Digest.of_filename(digest.filename)
    )
    assert digest.hex == hashlib.sha256(data).hexdigest()


@QUICK
@given(st.text() | st.from_regex(r"sha256[:-][0-9a-fA-F./\\]{60,66}"))
def test_what_is_read_as_a_digest_is_one_path_component_on_every_system(text: str) -> None:
    try:
        digest = Digest.tolerate(text)
    except InvalidDigestError:
        return
    for flavour in (PurePosixPath, PureWindowsPath):
        assert flavour(digest.filename).parts == (digest.filename,)
    assert text.replace("-", ":", 1).lower() == str(digest)
