"""Inputs that fuzzing has found, which two readers of a bundle took differently, each with what all readers say now."""

from __future__ import annotations

import pytest

from tests.hostile.forge import WEIGHTS, Bundle, blob_name, digest, document, dumped, large, member, tar
from tests.support import full
from tests.torture.fuzz.attempt import attempt
from tests.torture.fuzz.targets import TARGETS

INDEX = dumped(Bundle().index())


def with_signature(*, padding: bytes) -> bytes:
    parts = Bundle().parts()
    signature = member("ostore/bundle.json.sig", b"signature")
    parts.insert(1, signature[: -len(padding)] + padding)
    return tar(parts)


def with_weights(header_and_data: bytes) -> bytes:
    parts = Bundle().parts()
    parts[3] = header_and_data
    return tar(parts)


def unsorted() -> bytes:
    return tar(Bundle(manifests=[(full(f"{n}:x"), dumped({"schemaVersion": 2}), ()) for n in "ba"], blobs=[]).parts())


def twice_in_a_model() -> bytes:
    index = Bundle().index()
    index["models"][0]["blobs"].append(digest(WEIGHTS))
    return dumped(index)


@pytest.mark.parametrize(
    ("target", "data", "is_read"),
    [
        ("index", INDEX.replace(b'"digest"', b'"Digest"', 1), False),
        ("index", INDEX.replace(b'"requires":[]', b'"requires":null'), False),
        ("index", INDEX.replace(b'"version"', b'"x":"\\ud800","version"'), False),
        ("index", INDEX.replace(b'"version"', b'"x":["\\ud800"],"version"'), False),
        ("index", INDEX.replace(b'"version"', b'"x":1e999,"version"'), False),
        ("index", INDEX.replace(b'"version"', b'"x":{"a":1,"A":1},"version"'), False),
        ("index", INDEX.replace(b'"version"', '"\ufb01":1,"fi":2,"version"'.encode()), True),
        ("index", twice_in_a_model(), False),
        ("index", INDEX.replace(b"ostore/note", b"ostore/Bundle.json"), True),
        ("manifest", dumped(document()).replace(b'{"schema', '{"\ufb01":1,"fi":2,"schema'.encode()), True),
        ("tar", with_weights(member(blob_name(WEIGHTS), WEIGHTS, link=b"x")), False),
        ("tar", with_weights(member(blob_name(WEIGHTS), WEIGHTS, size=large(len(WEIGHTS)))), False),
        ("tar", with_weights(member("caf\u00e9", b"")), False),
        ("tar", with_weights(member(b"x\0y", b"")), False),
        ("bundle", unsorted(), True),
        ("bundle", with_signature(padding=b"x"), True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_all_readers_of_a_bundle_say_the_same(target: str, data: bytes, is_read: bool) -> None:
    # That they agree is asserted by the target itself; a whole bundle is only compared, never refused by it.
    assert attempt(TARGETS[target], data) == is_read
