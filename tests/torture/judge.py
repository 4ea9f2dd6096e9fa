"""
Check what must hold at every instant, whatever is stopped where, from the files alone and in plain Python.

The rule is the same for every command: each file is as before or as it is to be, nothing that was to stay is gone, and
what is listed is whole. The record of a folder of links holds what is known of many files, so the same is true of each
of these. Three things do not count: a command's own folder `.ostore` beside `blobs/`, what it stages in
`manifests/`, and unfinished files outside of both: `NAME.part`, perhaps with a `NAME.part.state`, and those in a folder
`NAME.parts`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOB = re.compile(r"(?:.*/)?blobs/sha256[-:/]([0-9a-f]{64})")
_OWN, _OWN_IN_MANIFESTS, _UNFINISHED = ".ostore", ".ostore-tmp", (".part", ".part.state")
_PARTS = ".parts"
_RECORD = ".ostore-links.json"
_NOTHING = hashlib.sha256(b"").hexdigest()
# A folder right in `blobs/`, but for that of the blobs of a layout, or where a manifest would be.
_NO_FOLDER = re.compile(r"(?:.*/)?(?:blobs/(?!sha256$)[^/]+|manifests/[^/]+/[^/]+/[^/]+/[^/]+)")
# An error, a warning, an interruption, or progress. Whatever warns begins with `ostore: warning: `, and is no progress.
_LINE = re.compile(
    r"(ostore: ((error\[[a-z-]+\]|warning): |(interrupted|terminated); )|restore: error: ).+"
    r"|(?!.*\bwarning\b)[a-z0-9 ]+(: [0-9.]+ [KMG]?B.*)?"
)
_WARNS = re.compile(r"(?!\{).*(\bwarning|Warning)\b.*")
_ERROR = re.compile(r"ostore: error\[([a-z-]+)\]: .*")
# docs/exit-codes.md
_CODES = {
    "failed": 1,
    "usage": 2,
    "not-found": 3,
    "integrity": 4,
    "busy": 6,
    "no-space": 7,
    "unsafe": 8,
    "io": 9,
    "damaged": 10,
    "remote": 11,
    "format": 12,
    "limit": 13,
}
# By exit code, how many lines of errors there are: one, but none if all is well or somebody stopped it; what verify and
# doctor find (4, 9 and 10) is a report and no error, and so is what move left (6).
_ERROR_LINES = {0: (0, 0), 130: (0, 0), 143: (0, 0), 4: (0, 1), 6: (0, 1), 9: (0, 1), 10: (0, 1)}
# host/namespace/model/tag below `manifests/`.
_SLASHES = 3


@dataclass(frozen=True)
class State:
    """
    All files and links below a folder, by path: what they are. Folders count only by what is in them, unless they are
    in the place of a file.

    `broken` are the models that Ollama would list, each with a blob that it needs and that is not there and whole.
    `contents` are the bytes that are somewhere, also set aside or in the trash; where, is a command's own affair.
    """

    files: Mapping[str, str]
    broken: frozenset[tuple[str, str]]
    contents: frozenset[str] = field(compare=False)

    @classmethod
    def of(cls, folder: Path) -> State:
        return cls.made_of(dict(_files(folder)), lambda path: (folder / path).read_bytes())

    @classmethod
    def made_of(cls, everything: Mapping[str, str], read: Callable[[str], bytes]) -> State:
        """The same from what is said to be there: every path below a folder, with the SHA-256 of its bytes."""
        finished = {path: content for path, content in everything.items() if not _is_unfinished(path)}
        files = {
            part: told
            for path, content in everything.items()
            if not _is_own(path)
            for part, told in _parts(path, content, read)
        }
        needs = [need for path in files for need in _needs(path, read)]
        broken = {(model, blob) for root, model, blob in needs if not _is_whole(files, root, blob)}
        return cls(files, frozenset(broken), frozenset(finished.values()) - {_NOTHING})


def problems(folder: Path, before: State, after: State) -> list[str]:
    """
    Everything that is wrong with what a stopped command left in a folder; `after` is where it would have ended.

    No step of recovery comes first: this is what Ollama would find.
    """
    return wrongs(State.of(folder), before, after)


def wrongs(now: State, before: State, after: State) -> list[str]:
    """The same of a state that is not on any disk."""
    wrong = [
        f"{path}: neither what it was nor what it is to be"
        for path, content in now.files.items()
        if content not in {before.files.get(path), after.files.get(path)}
    ]
    wrong += [f"{path}: gone, and was to stay" for path in before.files.keys() - now.files if path in after.files]
    wrong += [f"{path}: its bytes are not what it is named" for path, _ in _false_blobs(now) - _false_blobs(before)]
    wrong += [f"{model}: blob {blob[:12]} is missing or damaged" for model, blob in now.broken - before.broken]
    wrong += [f"{content[:12]}: nowhere any more" for content in (before.contents & after.contents) - now.contents]
    return wrong


def output_problems(code: int, out: str, err: str) -> list[str]:
    """What is wrong with what a command printed and how it ended: every failure is one line, and nothing is raw."""
    wrong = [f"unprintable: {line!r}" for line in (*out.split("\n"), *err.split("\n")) if not line.isprintable()]
    wrong += ["a traceback"] if "Traceback" in out + err else []
    wrong += ["a bug was met"] if "OSTORE_DEBUG" in err else []
    judged = [line for line in err.splitlines() if code or _WARNS.fullmatch(line)]
    wrong += [f"not one of ours: {line}" for line in judged if not _LINE.fullmatch(line)]
    errors = [line for line in err.splitlines() if line.startswith(("ostore: error", "restore: error"))]
    told = [_CODES.get(match[1]) for line in errors if (match := _ERROR.fullmatch(line))]
    wrong += [f"exit code {code}, and told is that of {other}" for other in told if other != code]
    least, most = _ERROR_LINES.get(code, (1, 1))
    if not least <= len(errors) <= most:
        wrong.append(f"{len(errors)} lines of errors, exit code {code}")
    return wrong


def _is_own(path: str) -> bool:
    above, inside = _at_store(path)
    if _OWN in above or inside[:2] == ["manifests", _OWN_IN_MANIFESTS]:
        return True
    return not inside and _is_unfinished(path)


def _is_unfinished(path: str) -> bool:
    """Whether a file is a part of a bundle that is being written, or says how far it is."""
    return path.endswith(_UNFINISHED) or any(part.endswith(_PARTS) for part in path.split("/")[:-1])


def _at_store(path: str) -> tuple[list[str], list[str]]:
    """The parts of a path before the first that is `blobs` or `manifests`, and from there on."""
    parts = path.split("/")
    start = next((number for number, part in enumerate(parts) if part in {"blobs", "manifests"}), len(parts))
    return parts[:start], parts[start:]


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    for base, folders, files in os.walk(folder):
        for name in (*files, *folders):
            path = Path(base) / name
            told = str(path.relative_to(folder))
            if path.is_symlink():
                yield told, f"link to {path.readlink()}"
            elif path.is_file():
                yield told, hashlib.sha256(path.read_bytes()).hexdigest()
            elif not path.is_dir() or _NO_FOLDER.fullmatch(told):
                yield told, "a folder" if path.is_dir() else "no file"


def _parts(path: str, content: str, read: Callable[[str], bytes]) -> Iterator[tuple[str, str]]:
    """A file, and what it says of each file if it is the record of a folder of links."""
    try:
        document = json.loads(read(path)) if path.endswith(f"/{_RECORD}") else None
    except ValueError:
        document = None
    if not document:
        yield path, content
        return
    yield path, document["layout"]
    for model in document["models"]:
        for file in model["files"]:
            # The time or the number of that file, which each run makes anew. The same command again refuses a file with
            # another one.
            file["mark"] = 0
            yield f"{path}: {file['path']}", json.dumps([model["name"], model["store"], file])


def _needs(path: str, read: Callable[[str], bytes]) -> Iterator[tuple[str, str, str]]:
    """If a path is that of a model which Ollama would list: its store, itself, and the digest of each of its blobs."""
    if path.endswith("/index.json"):
        yield from _listed(path.removesuffix("/index.json"), path, read)
    root, slash, name = f"/{path}".partition("/manifests/")
    if slash and name.count("/") == _SLASHES:
        for digest in _blobs_of(path, read):
            yield root.removeprefix("/"), path, digest


def _listed(root: str, path: str, read: Callable[[str], bytes]) -> Iterator[tuple[str, str, str]]:
    """The same of an OCI image layout: each manifest that its index names, and each blob of it."""
    for entry in _document(path, read).get("manifests", ()):
        if entry["mediaType"].endswith("manifest.v1+json"):
            digest = entry["digest"].removeprefix("sha256:")
            for needed in (digest, *_blobs_of(f"{root}/blobs/sha256/{digest}", read)):
                yield root, path, needed


def _blobs_of(path: str, read: Callable[[str], bytes]) -> Iterator[str]:
    document = _document(path, read)
    for layer in (document["config"], *document["layers"]) if document else ():
        yield layer["digest"].removeprefix("sha256:")


def _document(path: str, read: Callable[[str], bytes]) -> dict[str, Any]:
    """What a file says, and nothing if it does not parse or is not there: nobody lists that."""
    try:
        found: dict[str, Any] = json.loads(read(path))
    except (ValueError, OSError, KeyError):
        return {}
    return found


def _is_whole(files: Mapping[str, str], root: str, blob: str) -> bool:
    prefix = f"{root}/blobs/sha256" if root else "blobs/sha256"
    return blob in {files.get(f"{prefix}{mark}{blob}") for mark in "-:/"}


def _false_blobs(state: State) -> set[tuple[str, str]]:
    found = ((path, content, _BLOB.fullmatch(path)) for path, content in state.files.items())
    return {(path, content) for path, content, name in found if name and name[1] != content}
