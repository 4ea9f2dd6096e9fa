"""
The record of a folder of links, `.ostore-links.json`: what ostore has made there, so that it touches nothing else.

Anybody may have written the file, so it is parsed strictly: a path in it cannot leave the folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args

from ostore.formats.digest import Digest
from ostore.formats.errors import FormatError, LimitError, UnsafeError
from ostore.formats.json_reading import read_strict_json, write_canonical_json
from ostore.formats.link_layout import Layout
from ostore.formats.name import ModelName, windows_problem

RECORD = ".ostore-links.json"
# Names that begin like this are ostore's own, and no file of a model has one.
OWN_PREFIX = ".ostore-"
# A model takes some 500 bytes.
MAX_RECORD_BYTES = 16 * 1024 * 1024
MAX_LINKED_FILES = 50_000
# So many folders may hold links to one store.
MAX_FOLDERS = 1_000
_SCHEMA = "ostore.links/1"
_FOLDERS_SCHEMA = "ostore.linked/1"
# The deepest layout is PUBLISHER/MODEL/FILE.
_MAX_DEPTH = 3
_MAX_COMPONENT_BYTES = 255
_MAX_PATH_CHARACTERS = 4096
_MAX_INT64 = 2**63 - 1

# `text` is a file of ostore's own words: a Modelfile.
LinkKind = Literal["symlink", "reflink", "hardlink", "text"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LinkedFile:
    """
    One file that ostore has made: its path in the folder, with '/', and the digest and size (bytes) of its content.

    `mark` tells whether it is still that file: the mtime of a reflink in nanoseconds, the inode of a hard link, else 0.
    """

    path: str
    kind: LinkKind
    digest: Digest
    size: int
    mark: int = 0


@dataclass(frozen=True, slots=True)
class LinkedModel:
    """A model, the store that it is in (an absolute path), and its files."""

    name: ModelName
    store: str
    files: tuple[LinkedFile, ...]


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """All that ostore has made in a folder."""

    layout: Layout
    models: tuple[LinkedModel, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> LinkRecord:
        """
        Read a record.

        Raises FormatError for anything else, UnsafeError for a path that may leave the folder or is there twice,
        LimitError.
        """
        if len(raw) > MAX_RECORD_BYTES:
            raise LimitError(f"{RECORD}: expected at most {MAX_RECORD_BYTES} bytes, got {len(raw)}")
        document = _object(read_strict_json(raw), {"schema", "layout", "models"})
        _expect(document["schema"] == _SCHEMA, "schema", _SCHEMA, document["schema"])
        layout = document["layout"]
        _expect(layout in [*Layout], "layout", "one of ostore's", layout)
        record = cls(Layout(layout), tuple(_model(entry) for entry in _typed(document["models"], list, "models")))
        paths = [file.path.lower() for model in record.models for file in model.files]
        if len(paths) > MAX_LINKED_FILES:
            raise LimitError(f"{RECORD}: expected at most {MAX_LINKED_FILES} files, got {len(paths)}")
        if len(set(paths)) != len(paths):
            raise UnsafeError(f"{RECORD}: a path is there twice")
        return record

    def write(self) -> bytes:
        """Return the bytes of the record. Equal records have equal bytes."""
        return write_canonical_json(
            {
                "schema": _SCHEMA,
                "layout": self.layout.value,
                "models": [
                    {
                        "name": model.name.full,
                        "store": model.store,
                        "files": [
                            {
                                "path": file.path,
                                "kind": file.kind,
                                "digest": str(file.digest),
                                "size": file.size,
                                "mark": file.mark,
                            }
                            for file in model.files
                        ],
                    }
                    for model in sorted(self.models, key=lambda model: (model.name.full, model.store))
                ],
            }
        )


def parse_folders(raw: bytes) -> tuple[str, ...]:
    """Read the list of folders that a store keeps (`.ostore/links`). Raises FormatError, LimitError."""
    if len(raw) > MAX_RECORD_BYTES:
        raise LimitError(f"links: expected at most {MAX_RECORD_BYTES} bytes, got {len(raw)}")
    document = _object(read_strict_json(raw), {"schema", "folders"})
    _expect(document["schema"] == _FOLDERS_SCHEMA, "schema", _FOLDERS_SCHEMA, document["schema"])
    folders = _typed(document["folders"], list, "folders")
    if len(folders) > MAX_FOLDERS:
        raise LimitError(f"links: expected at most {MAX_FOLDERS} folders, got {len(folders)}")
    return tuple(_absolute(folder, "folder") for folder in folders)


def write_folders(folders: Iterable[str]) -> bytes:
    """Return the bytes of a list of folders."""
    return write_canonical_json({"schema": _FOLDERS_SCHEMA, "folders": sorted(set(folders))})


def _model(value: object) -> LinkedModel:
    entry = _object(value, {"name", "store", "files"})
    files = _typed(entry["files"], list, "files")
    return LinkedModel(
        ModelName.parse_full(entry["name"]), _absolute(entry["store"], "store"), tuple(_file(file) for file in files)
    )


def _file(value: object) -> LinkedFile:
    entry = _object(value, {"path", "kind", "digest", "size", "mark"})
    kind = entry["kind"]
    _expect(kind in get_args(LinkKind), "kind", "one of ostore's", kind)
    digest = Digest.parse(entry["digest"])
    return LinkedFile(
        _path(entry["path"]), cast("LinkKind", kind), digest, _number(entry, "size"), _number(entry, "mark")
    )


def _path(value: object) -> str:
    path = _typed(value, str, "path")
    parts = path.split("/")
    if len(parts) > _MAX_DEPTH or not all(map(_is_component, parts)):
        raise UnsafeError(f"{RECORD}: path {path!r:.90} is none that ostore makes")
    return path


def _is_component(part: str) -> bool:
    return (
        part not in {"", ".", ".."}
        and part.isprintable()
        and len(part.encode()) <= _MAX_COMPONENT_BYTES
        and windows_problem(part) is None
        and not part.lower().startswith(OWN_PREFIX)
    )


def _absolute(value: object, what: str) -> str:
    path = _typed(value, str, what)
    # On Windows, a path begins with a drive or a share.
    is_absolute = path.startswith(("/", "\\\\")) or path[1:3] in {":\\", ":/"}
    if not is_absolute or "\0" in path or len(path) > _MAX_PATH_CHARACTERS:
        raise UnsafeError(f"{what}: expected an absolute path, got {path!r:.90}")
    return path


def _object(value: object, keys: set[str]) -> dict[str, Any]:
    members: dict[str, Any] = _typed(value, dict, "record")
    _expect(members.keys() == keys, "keys", ", ".join(sorted(keys)), sorted(members))
    return members


def _number(entry: dict[str, Any], key: str) -> int:
    value = _typed(entry[key], int, key)
    _expect(0 <= value <= _MAX_INT64 and not isinstance(value, bool), key, "0 or more", value)
    return value


def _typed(value: object, kind: type[T], what: str) -> T:
    if not isinstance(value, kind):
        raise FormatError(f"{what}: expected {kind.__name__}, got {value!r:.40}")
    return value


def _expect(is_so: object, what: str, expected: str, got: object) -> None:
    if not is_so:
        raise FormatError(f"{what}: expected {expected}, got {got!r:.90}")
