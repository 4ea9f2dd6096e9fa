"""The record of a folder of links says the same when it is read again, and nothing else than ours is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ostore.formats import link_record
from ostore.formats.digest import Digest
from ostore.formats.errors import FormatError, LimitError, OstoreError, UnsafeError
from ostore.formats.link_layout import Layout
from ostore.formats.link_record import LinkedFile, LinkedModel, LinkRecord, parse_folders, write_folders
from ostore.formats.name import ModelName

FILE = LinkedFile("a/b/x.gguf", "reflink", Digest("a" * 64), 5, 7)
RECORD = LinkRecord(Layout.LM_STUDIO, (LinkedModel(ModelName.parse("x"), "/models", (FILE,)),))


def test_a_record_says_the_same_when_it_is_read_again() -> None:
    assert LinkRecord.parse(RECORD.write()) == RECORD
    assert LinkRecord.parse(LinkRecord(Layout.FILES).write()) == LinkRecord(Layout.FILES)
    assert parse_folders(write_folders(["/b", "/a", "/b"])) == ("/a", "/b")


@pytest.mark.parametrize("store", ["/models", "C:\\models", "C:/models", "\\\\host\\share"])
def test_a_store_is_an_absolute_path(store: str) -> None:
    assert LinkRecord.parse(edited(lambda entry: entry["models"][0].update(store=store))).models[0].store == store


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(RECORD.write())
    change(document)
    return json.dumps(document).encode()


def with_path(path: object) -> bytes:
    return edited(lambda entry: entry["models"][0]["files"][0].update(path=path))


def with_file(**fields: object) -> bytes:
    return edited(lambda entry: entry["models"][0]["files"][0].update(fields))


@pytest.mark.parametrize(
    "path",
    [
        "../x", "a/../x", "/x", "a//x", "", ".", "a/.", "a/b/c/x", "a\\x", "C:x", "x\0", "x\n", "\x1b[2J", "con", "x.",
        "\u202egguf.x", ".ostore-links.json", ".OSTORE-links.lock", "a/.ostore-link.part", "x" * 256, "\u00e9" * 128,
    ],
)  # fmt: skip
def test_a_path_that_may_leave_the_folder_or_is_odd_is_refused(path: str) -> None:
    with pytest.raises(UnsafeError, match="is none that ostore makes"):
        LinkRecord.parse(with_path(path))


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", FormatError),
        (b"[]", FormatError),
        (b"\xff", FormatError),
        (b"{}", FormatError),
        (edited(lambda entry: entry.update(schema="ostore.links/2")), FormatError),
        (edited(lambda entry: entry.update(layout="flat")), FormatError),
        (edited(lambda entry: entry.update(layout=[])), FormatError),
        (edited(lambda entry: entry.update(more=1)), FormatError),
        (edited(lambda entry: entry.update(models={})), FormatError),
        (edited(lambda entry: entry.update(models=[1])), FormatError),
        (edited(lambda entry: entry["models"][0].update(name="x")), UnsafeError),
        (edited(lambda entry: entry["models"][0].update(name=1)), UnsafeError),
        (edited(lambda entry: entry["models"][0].update(files=None)), FormatError),
        (edited(lambda entry: entry["models"][0].update(store="models")), UnsafeError),
        (edited(lambda entry: entry["models"][0].update(store="/a\0")), UnsafeError),
        (edited(lambda entry: entry["models"][0].update(store=f"/{'a' * 5000}")), UnsafeError),
        (edited(lambda entry: entry["models"][0].update(store=5)), FormatError),
        (edited(lambda entry: entry["models"][0]["files"].append(entry["models"][0]["files"][0])), UnsafeError),
        (with_path(1), FormatError),
        (with_file(kind="copy"), FormatError),
        (with_file(kind=None), FormatError),
        (with_file(digest="a" * 64), UnsafeError),
        (with_file(size=-1), FormatError),
        (with_file(size=True), FormatError),
        (with_file(mark=2**63), FormatError),
        (with_file(size=1.5), FormatError),
        (b"[" * 100_000, LimitError),
        (b" " * (link_record.MAX_RECORD_BYTES + 1), LimitError),
        (RECORD.write().replace(b'"layout"', b'"layout":"files","layout"'), FormatError),
    ],
)
def test_anything_else_is_no_record(raw: bytes, error: type[OstoreError]) -> None:
    with pytest.raises(error):
        LinkRecord.parse(raw)


def test_there_is_a_limit_to_files() -> None:
    files = tuple(LinkedFile(f"{number}.gguf", "symlink", Digest("a" * 64), 1) for number in range(50_001))
    with pytest.raises(LimitError, match="at most 50000 files"):
        LinkRecord.parse(LinkRecord(Layout.FILES, (LinkedModel(ModelName.parse("x"), "/m", files),)).write())


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"{}", FormatError),
        (b'{"schema":"ostore.linked/1","folders":["a"]}', UnsafeError),
        (b'{"schema":"ostore.linked/1","folders":[1]}', FormatError),
        (b'{"schema":"ostore.linked/1","folders":{}}', FormatError),
        (b'{"schema":"ostore.linked/2","folders":[]}', FormatError),
        (write_folders(f"/{number}" for number in range(1001)), LimitError),
        (b" " * (link_record.MAX_RECORD_BYTES + 1), LimitError),
    ],
)
def test_a_list_of_folders_is_read_as_strictly(raw: bytes, error: type[OstoreError]) -> None:
    with pytest.raises(error):
        parse_folders(raw)
