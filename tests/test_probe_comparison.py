"""What a server serves in place of a model, and what its version means, decided from values alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from ostore.formats.digest import Digest
from ostore.formats.manifest import Manifest
from ostore.operations.probe import compare, folded, lacks_version, notes_of_version, version_of
from tests.support import ADAPTER, CONFIG, LICENSE, MODEL

WEIGHTS, ADAPTED, TEXT, SETTINGS = (Digest(digit * 64) for digit in "1234")
OTHER = Digest("f" * 64)


@dataclass
class Listed:
    digest: Digest
    name: str = "m:latest"


def layer(media_type: str, digest: Digest) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": 10}


DOCUMENT = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "config": layer(CONFIG, SETTINGS),
    "layers": [layer(MODEL, WEIGHTS), layer(ADAPTER, ADAPTED), layer(LICENSE, TEXT)],
}
COMPACT = json.dumps(DOCUMENT, separators=(",", ":")).encode()
# As a registry may write it: other order, other spacing, a key that nobody knows.
ODD = json.dumps({"annotations": {}, **dict(reversed(DOCUMENT.items()))}, indent=1).encode()


@pytest.mark.parametrize("raw", [COMPACT, COMPACT + b"\n", ODD], ids=["compact", "newline", "odd"])
def test_the_same_manifest_is_the_same(raw: bytes) -> None:
    assert compare(Manifest.parse(raw), Listed(Digest.of(raw))).served == "same"


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (COMPACT + b"\n", COMPACT),
        (COMPACT, COMPACT + b"\n"),
        (ODD, COMPACT),
        (ODD, COMPACT + b"\n"),
        (ODD + b"\n", ODD),
    ],
)
def test_a_manifest_that_was_written_anew_is_proven_to_have_the_same_layers(here: bytes, there: bytes) -> None:
    found = compare(Manifest.parse(here), Listed(Digest.of(there)))
    assert (found.served, found.digest, "same layers" in found.because) == ("rewritten", Digest.of(there), True)


def test_another_manifest_is_another_model_whatever_its_weights() -> None:
    manifest = Manifest.parse(COMPACT)
    assert compare(manifest, Listed(OTHER)).because == "another manifest"
    same = compare(manifest, Listed(OTHER), opened={WEIGHTS, ADAPTED})
    assert (same.served, same.because) == ("different", "the same weights, with another config or other texts")
    lacking = compare(manifest, Listed(OTHER), opened={WEIGHTS}, lacking={TEXT})
    assert lacking.because == "the same weights, with another config or other texts; it lacks 1 of 4 blobs"


def test_other_weights_count_even_under_the_right_digest() -> None:
    found = compare(Manifest.parse(COMPACT), Listed(Digest.of(COMPACT)), opened={WEIGHTS, OTHER})
    assert (found.served, found.because) == ("different", "it opens other weights")


@pytest.mark.parametrize("there", [COMPACT, COMPACT + b"\n"])
def test_a_model_without_all_its_blobs_is_incomplete(there: bytes) -> None:
    found = compare(Manifest.parse(COMPACT), Listed(Digest.of(there)), lacking={SETTINGS, OTHER})
    assert (found.served, found.because) == ("incomplete", "it lacks 1 of 4 blobs")


def test_a_model_that_is_not_listed_is_missing() -> None:
    found = compare(Manifest.parse(COMPACT), None)
    assert (found.served, found.digest, found.because) == ("missing", None, "it does not list it")
    assert compare(Manifest.parse(COMPACT), None, hidden="its config is gone").because == "its config is gone"


def test_an_id_is_what_gos_decoder_has_read() -> None:
    """The last newline is beyond the buffer of Go's decoder, so it is not in the ID."""
    document = {**DOCUMENT, "mediaType": "x"}
    document["mediaType"] = "x" * (1 + 1536 - len(json.dumps(document)))
    raw = json.dumps(document).encode()
    assert len(raw) == 1536
    assert compare(Manifest.parse(raw + b"\n"), Listed(Digest.of(raw))).served == "same"


def test_names_differ_by_more_than_case() -> None:
    assert folded("Llama3") == folded("registry.ollama.ai/library/llama3:LATEST")
    assert folded("\x1b bad") == "\x1b bad"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.9.6", (0, 9, 6)),
        ("0.33.0-rc2", (0, 33, 0)),
        ("v0.20.7", (0, 20, 7)),
        ("0.0.0", None),
        ("", None),
        ("main", None),
        ("9" * 5000, None),
    ],
)
def test_a_version_is_three_numbers(text: str, version: tuple[int, ...] | None) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("0.1.29", ["file names", "CVE-2024-37032", "hides all", "another ID", "at its start"]),
        ("0.1.33", ["CVE-2024-37032", "hides all", "another ID", "at its start"]),
        ("0.1.34", ["hides all", "another ID", "at its start"]),
        ("0.9.6", ["another ID", "at its start"]),
        ("0.20.7", ["at its start"]),
        ("0.21.0", []),
        ("0.33.0-rc2", []),
        ("0.0.0", ["nothing is known"]),
    ],
)
def test_what_an_old_version_does_is_said(version: str, words: list[str]) -> None:
    notes = notes_of_version(version)
    assert [word for note, word in zip(notes, words, strict=True) if word not in note] == []


def test_a_model_may_be_made_for_a_newer_server() -> None:
    assert lacks_version("0.19.0", "0.18.3")
    assert not lacks_version("0.19.0", "0.19.0-rc1")
    assert not lacks_version("", "0.1.0")
    assert not lacks_version("0.19.0", "0.0.0")
