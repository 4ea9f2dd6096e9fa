"""A manifest is read as Ollama reads it, with the same bytes and IDs. Only an unambiguous manifest may travel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ostore.formats.digest import Digest
from ostore.formats.errors import (
    AmbiguousManifestError,
    InvalidDigestError,
    InvalidManifestError,
    LimitError,
    OstoreError,
    UnsafeError,
)
from ostore.formats.manifest import (
    MAX_CONFIG_BYTES,
    MAX_LAYERS,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Manifest,
    digest_shaped,
)
from ostore.formats.plain_manifest import is_plain
from tests.support import CONFIG, MODEL, TEMPLATE, sha256

QUICK = settings(max_examples=80, deadline=None, database=None)

MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
A, B, C = (f"sha256:{sha256(text)}" for text in (b"a", b"b", b"c"))

# Literals of ollama server/routes_create_test.go at fb30760: the config of `create FROM` a tiny GGUF, and the GGUF.
TEST_CONFIG = (
    b'{"model_format":"gguf","model_family":"test","model_families":["test"],"model_type":"0","file_type":"unknown",'
    b'"architecture":"amd64","os":"linux"}\n'
)
TEST_GGUF = (
    b"GGUF"
    + (3).to_bytes(4, "little")
    + (0).to_bytes(8, "little")
    + (1).to_bytes(8, "little")
    + (20).to_bytes(8, "little")
    + b"general.architecture"
    + (8).to_bytes(4, "little")
    + (4).to_bytes(8, "little")
    + b"test"
)


def layer(digest: object = A, size: object = 1, media_type: object = MODEL, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": size, **more}


def document(**changes: object) -> dict[str, object]:
    return {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE,
        "config": layer(C, 3, CONFIG),
        "layers": [layer(), layer(B, 2, TEMPLATE)],
        **changes,
    }


def encode(value: object) -> bytes:
    """As Go's encoder writes it."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def parse(**changes: object) -> Manifest:
    return Manifest.parse(encode(document(**changes)))


def golden(**origin: str) -> bytes:
    config = layer(f"sha256:{sha256(TEST_CONFIG)}", len(TEST_CONFIG), CONFIG)
    weights = layer(f"sha256:{sha256(TEST_GGUF)}", len(TEST_GGUF), MODEL, **origin)
    return encode(document(config=config, layers=[weights]))


def test_the_inputs_of_the_golden_manifests_are_those_of_ollamas_own_tests() -> None:
    assert sha256(TEST_GGUF) == "89a2116c3a82d6a97f59f748d86ed4417214353fd178ee54df418fde32495fad"
    assert sha256(TEST_CONFIG) == "99759ad5b91e723db0393d698ffbb448b1b7df5ff6377a108c49254583b1bc8c"


@pytest.mark.parametrize(
    ("raw", "size", "digest", "origin"),
    [
        (golden(), 408, "f75369d1dd1fb2f7c3db80c05854077604d2e78397dbe270fbe9d8a453ae62ff", ""),
        (
            golden(**{"from": "test:latest"}),
            429,
            "b52fc24e800c02f13ab460d268796f5051c9720ca5cd4abe6490b73d31c8d65f",
            "test:latest",
        ),
    ],
    ids=["created from a file", "created FROM test"],
)
def test_the_manifests_that_ollama_writes_have_the_known_digests(
    raw: bytes, size: int, digest: str, origin: str
) -> None:
    manifest = Manifest.parse(raw)
    assert len(raw) == size
    assert manifest.raw == raw
    assert manifest.digest.hex == manifest.model_id == digest
    assert manifest.config == Descriptor(Digest.of(TEST_CONFIG), 147, CONFIG)
    assert manifest.layers == (Descriptor(Digest.of(TEST_GGUF), 68, MODEL, origin),)
    assert manifest.declared_size == 147 + 68
    manifest.refuse_unclear()


def padded(end: int, trailing: bytes) -> bytes:
    """A manifest whose JSON ends at a byte of our choice."""
    bare = encode(document(note="")).removesuffix(b"\n")
    raw = encode(document(note="x" * (end - len(bare)))).removesuffix(b"\n")
    assert len(raw) == end
    return raw + trailing


BOUNDARIES = (512, 1536, 3584, 7680, 15872, 32256, 65024)


@pytest.mark.parametrize("boundary", BOUNDARIES[1:])
@pytest.mark.parametrize(
    ("end", "trailing", "hashed"),
    [
        (-1, b"\n", 0),
        (0, b"\n", 0),
        (0, b"", 0),
        (1, b"\n", 2),
        (-1, b"\nand more", 0),
        (-100, b"\n" * 99, -1),
        (-100, b"\n" * 100, 0),
        (-100, b"\n" * 101, 0),
    ],
    ids=[
        "one byte before",
        "on it",
        "on it, no newline",
        "one byte past",
        "before it, more follows",
        "space up to one before",
        "space up to it",
        "space past it",
    ],
)
def test_the_id_covers_what_goes_decoder_has_read_and_no_more(
    boundary: int, end: int, trailing: bytes, hashed: int
) -> None:
    raw = padded(boundary + end, trailing)
    assert Manifest.parse(raw).model_id == sha256(raw[: boundary + hashed])


def test_a_manifest_of_512_bytes_is_identified_without_its_newline() -> None:
    raw = encode(document(layers=[], note="")).removesuffix(b"\n")
    raw = encode(document(layers=[], note="x" * (512 - len(raw))))
    assert len(raw) == 513
    assert Manifest.parse(raw).model_id == sha256(raw[:512])
    assert Manifest.parse(raw).digest.hex == sha256(raw)


@pytest.mark.parametrize(
    ("raw", "layers", "has_config"),
    [
        (encode(document(layers=None)), 0, True),
        (encode({"schemaVersion": 2, "config": layer(C, 3, CONFIG)}), 0, True),
        (encode(document(layers=[])), 0, True),
        (encode(document(config=None)), 2, False),
        (encode(document(config={"digest": "", "size": 0, "mediaType": ""})), 2, False),
        (encode(document(config={})), 2, False),
        (encode({"schemaVersion": 2, "layers": [layer()]}), 1, False),
        (encode({key.upper(): value for key, value in document().items()}), 2, True),
        (json.dumps(document(unknown={"a": [1.5, None]}), indent=3).encode(), 2, True),
        (b" \r\n\t" + encode(document()), 2, True),
        (encode(document(layers=[layer(urls=["https://example.org"]), layer(B, 2)])), 2, True),
        (encode(document(layers=[{"digest": A, "size": 1}])), 1, True),
        (encode(document(big=10**400)), 2, True),
        (encode(document() | {"con\ufb01g": 5, "conf\u0131g": 5}), 2, True),
    ],
    ids=[
        "layers null",
        "layers absent",
        "no layers",
        "config null",
        "config digest empty",
        "config empty",
        "config absent",
        "keys in upper case",
        "pretty-printed, unknown keys",
        "white space in front",
        "urls",
        "no media type",
        "huge integer in an unknown key",
        "look-alike keys",
    ],
)
def test_what_ollama_lists_is_read_and_may_travel(raw: bytes, layers: int, has_config: bool) -> None:
    manifest = Manifest.parse(raw)
    assert len(manifest.layers) == layers
    assert (manifest.config is not None) is has_config
    assert not manifest.is_list
    manifest.refuse_unclear()


def test_where_a_layer_came_from_is_kept_as_text() -> None:
    origin = "/usr/share/ollama/.ollama/models/blobs/sha256-../../etc/passwd"
    found = parse(layers=[layer(**{"from": origin}, name="model.layers.0.weight")]).layers[0]
    assert (found.origin, found.layer_name) == (origin, "model.layers.0.weight")


def test_repeats_count_in_the_size_and_once_as_a_blob() -> None:
    manifest = parse(config=layer(A, 1, CONFIG), layers=[layer(B, 2), layer(A, 1), layer(B, 2)])
    assert manifest.declared_size == 1 + 2 + 1 + 2
    assert [str(blob.digest) for blob in manifest.blobs] == [A, B]
    assert [str(entry.digest) for entry in manifest.descriptors] == [A, B, A, B]


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", InvalidManifestError),
        (b" \n", InvalidManifestError),
        (b"\0" * 400, InvalidManifestError),
        (encode(document())[:100], InvalidManifestError),
        (b"\xef\xbb\xbf" + encode(document()), InvalidManifestError),
        (encode([document()]), InvalidManifestError),
        (encode("manifest"), InvalidManifestError),
        (encode(document(layers={})), InvalidManifestError),
        (encode(document(layers=["a"])), InvalidManifestError),
        (encode(document(config=[])), InvalidManifestError),
        (encode(document(config="a")), InvalidManifestError),
        (encode(document(config={"digest": 0})), OstoreError),
        (encode(document(config={"digest": False})), OstoreError),
        (encode(document(config=layer(C, "3"))), InvalidManifestError),
        (encode(document(schemaVersion="2")), InvalidManifestError),
        (encode(document(schemaVersion=True)), InvalidManifestError),
        (encode(document(schemaVersion=2.0)), InvalidManifestError),
        (encode(document(schemaVersion=2**63)), InvalidManifestError),
        (encode(document(config={"digest": "", "size": "3"})), InvalidManifestError),
        (encode(document(mediaType=5)), InvalidManifestError),
        (encode(document(layers=[layer(media_type=5)])), InvalidManifestError),
        (encode(document(layers=[layer(**{"from": 5})])), InvalidManifestError),
        (b"[" * 200_000, LimitError),
        (encode(document(layers=[{}] * (MAX_LAYERS + 1))), LimitError),
        (encode(document(manifests=[{}] * (MAX_LAYERS + 1))), LimitError),
        (b" " * (MAX_MANIFEST_BYTES + 1), LimitError),
        (encode(document(manifests=[{"digest": B}])), UnsafeError),
        (encode({"manifests": [{"digest": "sha256:../../x"}]}), InvalidDigestError),
    ],
    ids=[
        "empty",
        "white space",
        "zeros of a crash",
        "cut",
        "byte order mark",
        "list",
        "text",
        "layers an object",
        "layer text",
        "config a list",
        "config text",
        "config digest a number",
        "config digest false",
        "config size text",
        "version text",
        "version true",
        "version float",
        "version 2^63",
        "size text of a config without a digest",
        "media type a number",
        "layer's media type a number",
        "from a number",
        "nested too deeply",
        "too many layers",
        "too many manifests",
        "too long",
        "both layers and manifests",
        "child with a path for a digest",
    ],
)
def test_what_ollama_could_not_read_is_refused(raw: bytes, error: type[OstoreError]) -> None:
    with pytest.raises(error):
        Manifest.parse(raw)


@pytest.mark.parametrize(
    "size",
    ["-1", "1.0", "1e3", '"5"', "true", "[]", "{}", "9223372036854775808", "9" * 5000],
    ids=["negative", "float", "exponent", "text", "true", "list", "object", "2^63", "5,000 digits"],
)
def test_a_size_is_an_integer_of_63_bits(size: str) -> None:
    raw = encode(document(layers=[layer(size=0)])).replace(b'"size":0', b'"size":' + size.encode())
    with pytest.raises(InvalidManifestError, match=r"^layers\[0\]\.size: expected 0 to 2\^63-1"):
        Manifest.parse(raw)


def test_the_largest_size_is_read() -> None:
    assert parse(layers=[layer(size=2**63 - 1)]).layers[0].size == 2**63 - 1


@pytest.mark.parametrize(
    "digest",
    ["sha256:../../../../etc/passwd", A[:-1], A + "0", A + "\n", "sha512:" + "0" * 64, 5, [A]],
    ids=["traversal", "63 digits", "65 digits", "newline", "sha512", "number", "list"],
)
def test_a_digest_that_could_be_no_path_of_ollama_is_refused(digest: object) -> None:
    with pytest.raises(InvalidDigestError, match=r"^layers\[1\]\.digest: "):
        parse(layers=[layer(), layer(digest)])


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (encode(document()).replace(b"{", b'{"Layers":[],', 1), "occurs twice"),
        (encode(document()).replace(b'"digest"', b'"DIGEST":"x","digest"', 1), "occurs twice"),
        (encode(document()).replace(b'"size"', b'"\xc5\xbfize":7,"size"', 1), "occurs twice"),
        (encode(document(layers=[layer(A.replace(":", "-"))])), "lower-case hex"),
        (encode(document(layers=[layer("sha256:" + A[7:].upper())])), "lower-case hex"),
        (encode(document(config=layer(C.replace(":", "-"), 3))), "lower-case hex"),
        (encode(document(layers=[layer(media_type="a\nb")])), "not a media type"),
        (encode(document(layers=[layer(media_type="a" * 256)])), "not a media type"),
    ],
    ids=[
        "layers twice",
        "digest twice",
        "size twice, with a long s",
        "dash",
        "upper case",
        "dash in the config",
        "line break in a media type",
        "long media type",
    ],
)
def test_what_two_readers_may_take_in_two_ways_is_read_and_may_not_travel(raw: bytes, why: str) -> None:
    manifest = Manifest.parse(raw)
    assert manifest.ambiguity is not None
    assert why in manifest.ambiguity
    with pytest.raises(AmbiguousManifestError, match=r"^manifest: "):
        manifest.refuse_unclear()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (encode(document(schemaVersion=1)), "schemaVersion"),
        (encode(document(schemaVersion=3)), "schemaVersion"),
        (encode({"layers": []}), "schemaVersion"),
        (encode(document()) + b"x", "1 bytes after"),
        (encode(document()) * 2, "bytes after"),
        (encode(document(mediaType="X")).replace(b"X", b"\xff"), "not UTF-8"),
        (encode(document(layers=[layer(**{"from": "\ud800"})])), "not UTF-8"),
    ],
    ids=["version 1", "version 3", "no version", "byte after it", "second document", "invalid UTF-8", "lone surrogate"],
)
def test_what_ollama_lists_but_others_would_not_is_read_and_may_not_travel(raw: bytes, why: str) -> None:
    manifest = Manifest.parse(raw)
    assert manifest.unfit is not None
    assert why in manifest.unfit
    with pytest.raises(InvalidManifestError, match=r"^manifest: "):
        manifest.refuse_unclear()


def test_the_last_of_two_keys_is_what_ollama_sees() -> None:
    raw = encode(document()).replace(b'"layers"', b'"layers":[],"LAYERS"', 1)
    assert len(Manifest.parse(raw).layers) == 2


def test_the_children_of_a_manifest_list_are_references() -> None:
    manifest = Manifest.parse(encode({"schemaVersion": 2, "manifests": [{"digest": A, "size": 5}, {"digest": B}]}))
    assert manifest.is_list
    assert list(map(str, manifest.children)) == [A, B]
    assert manifest.descriptors == ()


def test_a_key_manifests_that_is_no_list_names_no_children_and_may_not_travel() -> None:
    assert not parse(manifests="none").is_list
    with pytest.raises(InvalidManifestError, match="manifests: expected a list"):
        parse(manifests="none").refuse_unclear()


def test_a_config_too_long_to_be_read_may_not_travel() -> None:
    parse(config=layer(C, MAX_CONFIG_BYTES, CONFIG)).refuse_unclear()
    with pytest.raises(LimitError, match=r"^config: "):
        parse(config=layer(C, MAX_CONFIG_BYTES + 1, CONFIG)).refuse_unclear()


@pytest.mark.parametrize(
    ("spell", "is_found"),
    [
        (lambda text: text, True),
        (lambda text: text.replace(":", "-"), True),
        (lambda text: "sha256:" + text[7:].upper(), True),
        (lambda text: f"blobs/{text.replace(':', '-')}", True),
        (lambda text: text[:-1], False),
        (lambda text: text[7:], False),
    ],
    ids=["as written", "dash", "upper case", "inside a path", "63 digits", "no prefix"],
)
def test_every_digest_that_bytes_may_refer_to_is_found(spell: Callable[[str], str], is_found: bool) -> None:
    raw = b'\xff{"anything": "' + spell(A).encode() + b'", broken'
    assert digest_shaped(raw) == ({Digest.parse(A)} if is_found else frozenset())


@QUICK
@given(
    st.lists(
        st.builds(
            layer,
            st.binary(max_size=3).map(lambda data: str(Digest.of(data))),
            st.integers(0, 2**63 - 1),
            st.text(st.characters(categories=["L", "N"]), max_size=20),
        ),
        max_size=5,
    ),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_every_reference_of_a_manifest_is_seen(
    layers: list[dict[str, Any]], indent: int | None, ensure_ascii: bool
) -> None:
    raw = json.dumps(document(layers=layers), indent=indent, ensure_ascii=ensure_ascii).encode()
    manifest = Manifest.parse(raw)
    assert [(str(found.digest), found.size, found.media_type) for found in manifest.layers] == [
        (entry["digest"], entry["size"], entry["mediaType"]) for entry in layers
    ]
    assert {blob.digest for blob in manifest.blobs} == digest_shaped(raw)
    assert manifest.digest.hex == hashlib.sha256(raw).hexdigest()


@QUICK
@given(st.integers(0, 600), st.integers(0, 255))
def test_a_manifest_with_one_byte_changed_is_read_or_refused_and_never_anything_else(place: int, value: int) -> None:
    raw = bytearray(encode(document()))
    raw[place % len(raw)] = value
    try:
        manifest = Manifest.parse(bytes(raw))
    except OstoreError:
        return
    assert manifest.raw == raw
    assert len(manifest.model_id) == 64


MEDIA_TYPES = st.sampled_from(
    ["", MODEL, TEMPLATE, CONFIG, MODEL, TEMPLATE, "a b", "ü", 'a"b', "a\\b", "x" * 255, "x" * 256, "tab\t"]
)
SIZES = st.sampled_from(
    [0, 1, 2, 3, 44, 512, 4096, 10**9, 10**18 - 1, 10**18, 2**63 - 1, 2**63, -1, 1.5, "1", None, True]
)
DIGESTS = st.sampled_from([A, B, C, A, B, C, A, B, C, A.replace(":", "-"), A.upper(), A[:-1], "", None])


@st.composite
def nearly_plain(draw: st.DrawFn) -> bytes:
    """Bytes that are what Ollama writes, or miss it in one thing or several."""

    def descriptor() -> dict[str, Any]:
        members = {"mediaType": draw(MEDIA_TYPES), "digest": draw(DIGESTS), "size": draw(SIZES)}
        members |= {key: draw(MEDIA_TYPES) for key in draw(st.sets(st.sampled_from(["from", "name"])))}
        return members

    whole: dict[str, Any] = {"schemaVersion": draw(st.sampled_from([2, 2, 2, 1])), "mediaType": draw(MEDIA_TYPES)}
    whole |= {"config": descriptor(), "layers": [descriptor() for _ in range(draw(st.integers(0, 3)))]}
    raw = json.dumps(whole, separators=(",", ":"), ensure_ascii=draw(st.booleans())).encode()
    place = draw(st.integers(0, len(raw)))
    return raw[:place] + draw(st.sampled_from([b"", b"", b" ", b",", b"\xff", b"}"])) + raw[place:] + b"\n"


def test_what_ollama_writes_is_recognised_by_its_bytes() -> None:
    assert all(Manifest.parse(raw).is_plain for raw in (encode(document()), encode(document()) + b"\n \r\t"))
    assert not Manifest.parse(b" " + encode(document())).is_plain


@given(nearly_plain())
@settings(max_examples=300, deadline=None, database=None)
def test_what_is_recognised_by_its_bytes_says_what_it_says_as_json(raw: bytes) -> None:
    with patch("ostore.formats.manifest.is_plain", return_value=False):
        read, error = outcome(raw)
    event("plain" if is_plain(raw) else "not plain")
    plain, plain_error = outcome(raw)
    assert plain_error == error
    assert plain == read


def outcome(raw: bytes) -> tuple[tuple[Any, ...] | None, str | None]:
    """All that a manifest says, or why it is none."""
    try:
        manifest = Manifest.parse(raw)
    except OstoreError as error:
        return None, f"{type(error)}: {error}"
    said = (
        manifest.config,
        manifest.layers,
        manifest.children,
        manifest.descriptors,
        manifest.sizes,
        manifest.layer_types,
        manifest.has_large_blob,
        manifest.digests,
    )
    return (*said, manifest.ambiguity, manifest.unfit, manifest.end_offset, manifest.model_id), None
