"""
null in a manifest reads as Go's encoding/json reads it: as the zero value, or as no change.

What each document says is what Go 1.26 decoded into the structures of ollama manifest/manifest.go at fb30760.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from ostore.formats.errors import AmbiguousManifestError, InvalidManifestError, OstoreError
from ostore.formats.json_reading import read_go_json
from ostore.formats.manifest import Descriptor, Manifest
from tests.support import costs_the_same_per_item

HEX = {letter: letter.lower() * 64 for letter in "ABC"}
WHOLE = (
    '{"schemaVersion":2,"mediaType":"m","config":{"mediaType":"c","digest":"C","size":3},"layers":['
    '{"mediaType":"t","digest":"A","size":1,"from":"f","name":"n"},{"mediaType":"u","digest":"B","size":2}]}'
)
CONFIG = '{"mediaType":"c","digest":"C","size":3}'
SECOND = '{"mediaType":"u","digest":"B","size":2}'
NULLS = '{"mediaType":null,"digest":null,"size":null,"from":null,"name":null}'
# What is replaced in WHOLE, by what, and what Go reads then: the config and the layers, each as its digest, size, media
# type, `from` and name. A dash is an empty text. The last column says why the manifest may not travel, if it may not.
GO: list[tuple[str, str, str, list[str], type[OstoreError] | None]] = [
    ('"mediaType":"m"', '"mediaType":null', "C 3 c - -", ["A 1 t f n", "B 2 u - -"], None),
    ('"mediaType":"c"', '"mediaType":null', "C 3 - - -", ["A 1 t f n", "B 2 u - -"], None),
    ('"mediaType":"t"', '"mediaType":null', "C 3 c - -", ["A 1 - f n", "B 2 u - -"], None),
    ('"from":"f"', '"from":null', "C 3 c - -", ["A 1 t - n", "B 2 u - -"], None),
    ('"name":"n"', '"name":null', "C 3 c - -", ["A 1 t f -", "B 2 u - -"], None),
    ('"digest":"C"', '"digest":null', "- 3 c - -", ["A 1 t f n", "B 2 u - -"], None),
    (CONFIG, "null", "- 0 - - -", ["A 1 t f n", "B 2 u - -"], None),
    ('"layers":[', '"layers":null,"none":[', "C 3 c - -", [], None),
    ('"layers"', '"manifests":null,"layers"', "C 3 c - -", ["A 1 t f n", "B 2 u - -"], None),
    ('"layers"', '"other":null,"layers"', "C 3 c - -", ["A 1 t f n", "B 2 u - -"], None),
    ('"schemaVersion":2', '"schemaVersion":null', "C 3 c - -", ["A 1 t f n", "B 2 u - -"], InvalidManifestError),
    ('"size":3', '"size":null', "C 0 c - -", ["A 1 t f n", "B 2 u - -"], InvalidManifestError),
    ('"size":1', '"size":null', "C 3 c - -", ["A 0 t f n", "B 2 u - -"], InvalidManifestError),
    ("[{", "[null,{", "C 3 c - -", ["- 0 - - -", "A 1 t f n", "B 2 u - -"], InvalidManifestError),
    ("}]", "},null]", "C 3 c - -", ["A 1 t f n", "B 2 u - -", "- 0 - - -"], InvalidManifestError),
    (SECOND, "null", "C 3 c - -", ["A 1 t f n", "- 0 - - -"], InvalidManifestError),
    ('"layers"', '"manifests":[null],"layers"', "C 3 c - -", ["A 1 t f n", "B 2 u - -"], AmbiguousManifestError),
    ('{"schema', 'null {"schema', "- 0 - - -", [], InvalidManifestError),
    ('"digest":"A"', '"digest":null', "C 3 c - -", ["- 1 t f n", "B 2 u - -"], AmbiguousManifestError),
    (SECOND, NULLS, "C 3 c - -", ["A 1 t f n", "- 0 - - -"], AmbiguousManifestError),
    # Equal keys: null changes nothing, but empties a list. Objects and lists are merged.
    ('"layers"', '"config":null,"layers"', "C 3 c - -", ["A 1 t f n", "B 2 u - -"], AmbiguousManifestError),
    ('"layers"', '"config":{"size":8},"layers"', "C 8 c - -", ["A 1 t f n", "B 2 u - -"], AmbiguousManifestError),
    ('"size":1', '"size":1,"size":null', "C 3 c - -", ["A 1 t f n", "B 2 u - -"], AmbiguousManifestError),
    ('"size":1', '"size":null,"size":1', "C 3 c - -", ["A 1 t f n", "B 2 u - -"], AmbiguousManifestError),
    ('"digest":"A"', '"digest":"A","Digest":null', "C 3 c - -", ["A 1 t f n", "B 2 u - -"], AmbiguousManifestError),
    ("}]}", '}],"layers":null}', "C 3 c - -", [], AmbiguousManifestError),
    ("}]}", '}],"layers":[null]}', "C 3 c - -", ["A 1 t f n"], AmbiguousManifestError),
    ("}]}", '}],"LAYERS":[null,{"size":5}]}', "C 3 c - -", ["A 1 t f n", "B 5 u - -"], AmbiguousManifestError),
    (
        '"mediaType":"m"',
        '"layers":[{"size":9,"from":"g"},{"name":"o"},{"size":7}],"mediaType":"m"',
        "C 3 c - -",
        ["A 1 t f n", "B 2 u - o"],
        AmbiguousManifestError,
    ),
    (
        '"layers"',
        '"layers":null,"layers":[null],"layers"',
        "C 3 c - -",
        ["A 1 t f n", "B 2 u - -"],
        AmbiguousManifestError,
    ),
]
REFUSED_BY_GO = {
    "two types of a size": ('"size":1', '"size":"1","size":1'),
    "two types of a digest": ('"digest":"A"', '"digest":false,"digest":"A"'),
    "two types of layers": ('"layers"', '"layers":{},"layers"'),
    "two types of a config": ('"layers"', '"config":"C","layers"'),
}


def written(old: str, new: str) -> bytes:
    assert old in WHOLE
    text = WHOLE.replace(old, new, 1)
    for letter, digits in HEX.items():
        text = text.replace(f'"{letter}"', f'"sha256:{digits}"')
    return text.encode()


def in_words(blob: Descriptor) -> str:
    letter = blob.digest.hex[0].upper()
    said = (letter, str(blob.size), blob.media_type, blob.origin, blob.layer_name)
    return " ".join(text or "-" for text in said)


@pytest.mark.parametrize(("old", "new", "config", "layers", "why"), GO, ids=[f"{old} {new}" for old, new, *_ in GO])
def test_null_reads_as_in_go_and_travels_only_where_it_says_nothing_new(
    old: str, new: str, config: str, layers: list[str], why: type[OstoreError] | None
) -> None:
    manifest = Manifest.parse(written(old, new))
    # A layer or config without a digest needs no blob.
    assert [in_words(blob) for blob in manifest.layers] == [layer for layer in layers if layer[0] != "-"]
    assert (in_words(manifest.config) if manifest.config else "-") == (config if config[0] != "-" else "-")
    if why is None:
        manifest.refuse_unclear()
    else:
        with pytest.raises(why):
            manifest.refuse_unclear()


@pytest.mark.parametrize(("old", "new"), REFUSED_BY_GO.values(), ids=REFUSED_BY_GO.keys())
def test_values_of_two_types_under_equal_keys_are_refused_as_in_go(old: str, new: str) -> None:
    with pytest.raises(OstoreError, match="values of several types"):
        Manifest.parse(written(old, new))


def test_equal_keys_cost_no_more_than_they_are_long() -> None:
    """What is there already must not be read again for each of them."""

    def read(count: int) -> Callable[[], object]:
        members = ",".join(f'"{number}":0' for number in range(count))
        return partial(read_go_json, ('{"a":{' + members + "}" + ',"a":{}' * count + "}").encode())

    assert costs_the_same_per_item(read)
