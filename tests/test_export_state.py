"""The state of an export says what it said when it was written, or is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ostore.formats import seek_table
from ostore.formats.digest import Digest
from ostore.formats.errors import FormatError, LimitError, OstoreError
from ostore.formats.export_state import MAX_DAMAGED, MAX_STATE_BYTES, CutBlob, ExportState
from ostore.formats.zstd_frame import FrameSpan

FRAMED = ExportState(
    Digest.of(b"head"),
    "level auto, zstd 1.5.7",
    900,
    (FrameSpan(100, 400), FrameSpan(500, 500)),
    CutBlob(300, Digest.of(b"x")),
)
VOLUMES = replace(FRAMED, volumes=(Digest.of(b"volume"),) * 999, damaged=(Digest.of(b"damaged"),) * MAX_DAMAGED)
PLAIN = replace(FRAMED, made_by="tar", spans=(), cut=None)


@pytest.mark.parametrize("state", [FRAMED, PLAIN, replace(PLAIN, cut=FRAMED.cut), replace(FRAMED, cut=None), VOLUMES])
def test_what_is_written_is_read(state: ExportState) -> None:
    assert ExportState.parse(state.write()) == state


def test_the_size_of_the_file_follows_from_the_frames() -> None:
    assert (FRAMED.size, PLAIN.size) == (600, 900)


def test_a_bundle_with_all_the_frames_it_may_have_has_a_state() -> None:
    spans = tuple(FrameSpan(1, 1) for _ in range(seek_table.MAX_FRAMES))
    state = replace(FRAMED, spans=spans, offset=len(spans), made_by="x" * 300)
    assert len(state.write()) <= MAX_STATE_BYTES
    assert ExportState.parse(state.write()) == state


def summed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).hexdigest().encode()


def said(change: Callable[[dict[str, Any]], object], state: ExportState = FRAMED) -> bytes:
    """A state that says something else, with the right sum."""
    line, _, table = state.write()[:-64].partition(b"\n")
    document = json.loads(line)
    document = change(document) or document
    return summed(json.dumps(document).encode() + b"\n" + table)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}\n", id="no sum"),
        pytest.param(FRAMED.write()[:-1], id="cut off"),
        pytest.param(FRAMED.write() + b"\n", id="something behind it"),
        pytest.param(FRAMED.write().upper(), id="a sum in capitals"),
        pytest.param(summed(b""), id="an empty body"),
        pytest.param(summed(b"{}"), id="no line"),
        pytest.param(summed(b"{}\n"), id="no keys"),
        pytest.param(summed(b"[]\n"), id="a list"),
        pytest.param(said(lambda state: state.update(damaged={})), id="damaged blobs that are no list"),
        pytest.param(said(lambda state: state.update(damaged=["x"])), id="a damaged blob without a digest"),
        pytest.param(
            said(lambda state: state.update(damaged=[str(Digest.of(b"x"))] * (MAX_DAMAGED + 1))),
            id="too many damaged blobs",
        ),
        pytest.param(summed(b"\xff\n"), id="no text"),
        pytest.param(summed(b" " * 128 * 1024 + b"{}\n"), id="a long line"),
        pytest.param(summed(FRAMED.write()[:-64] + b"x"), id="a table with something behind it"),
        pytest.param(said(lambda said: said.update(more=1)), id="a key too many"),
        pytest.param(said(lambda said: said.pop("cut") and None), id="a key too few"),
        pytest.param(said(lambda said: said.update(schema="ostore.export-state/2")), id="a newer one"),
        pytest.param(said(lambda said: said.update(made_by=5)), id="made by a number"),
        pytest.param(said(lambda said: said.update(offset=899)), id="frames that end elsewhere"),
        pytest.param(said(lambda said: said.update(offset=0), PLAIN), id="nothing written"),
        pytest.param(said(lambda said: said.update(offset=-1), PLAIN), id="less than nothing written"),
        pytest.param(said(lambda said: said.update(offset=True), PLAIN), id="a truth"),
        pytest.param(said(lambda said: said.update(offset=9.0), PLAIN), id="a float"),
        pytest.param(said(lambda said: said.update(offset=2**63), PLAIN), id="more than 64 bits"),
        pytest.param(said(lambda said: said.update(cut=[])), id="a list of no blob"),
        pytest.param(said(lambda said: said.update(cut={"size": 5})), id="a cut blob without its digest"),
        pytest.param(said(lambda said: said["cut"].update(size=0)), id="nothing of a cut blob"),
        pytest.param(said(lambda said: said["cut"].update(digest="sha256:x")), id="no digest of a cut blob"),
        pytest.param(said(lambda said: said.update(head=None)), id="no digest of the head"),
        pytest.param(said(lambda said: said.update(volumes={})), id="no list of volumes"),
        pytest.param(said(lambda said: said.update(volumes=["x"])), id="no digest of a volume"),
    ],
)
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(OstoreError):
        ExportState.parse(raw)


def test_more_than_a_state_can_be_is_not_looked_at() -> None:
    with pytest.raises(LimitError, match="at most"):
        ExportState.parse(bytes(MAX_STATE_BYTES + 1))


def test_each_bit_counts() -> None:
    raw = FRAMED.write()
    for place in range(len(raw)):
        flipped = bytearray(raw)
        flipped[place] ^= 1
        with pytest.raises(FormatError):
            ExportState.parse(bytes(flipped))
