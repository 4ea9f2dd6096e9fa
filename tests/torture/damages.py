"""
Damage a store by one small change each, and tell from the damage alone what must come of it.

A damage describes itself as hits. From the hits of several damages, `foretell` derives what `verify` must find, and
what `repair` from a bundle of the whole store must repair. It does not use ostore.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import Store, sha256

# Each is the number that `ostore verify` ends with.
INTEGRITY, DAMAGED, WHOLE = 4, 10, 0
_BYTES = frozenset({"blob-missing", "blob-size", "blob-altered"})
_SOUND = ""


@dataclass(frozen=True)
class BlobHit:
    """
    What happened to a blob. `kind` is what verify must report, or empty if the blob is whole under another name.

    `stands` is the name of what is in its place now, or None. If it is `in_the_way`, a person has to remove it.
    """

    blob: str
    kind: str
    stands: str | None
    in_the_way: bool = False


@dataclass(frozen=True)
class ManifestHit:
    """A manifest that nobody can read any more."""

    name: str
    in_the_way: bool = False


@dataclass(frozen=True)
class Promise:
    """A readable manifest that promises another `size` for `blob`, or does not name it any more (None)."""

    name: str
    blob: str
    size: int | None


@dataclass(frozen=True)
class Oddity:
    """Something to be found and to be left alone; goes away only with `blob`, if that is put in its place again."""

    kind: str
    subject: str
    blob: str = ""


Hit = BlobHit | ManifestHit | Promise | Oddity


@dataclass(frozen=True)
class Whole:
    """The store before: for each model its blobs with their sizes, and what is in each blob."""

    models: dict[str, dict[str, int]]
    contents: dict[str, bytes]

    @property
    def needed(self) -> list[str]:
        return sorted({blob for blobs in self.models.values() for blob in blobs})


@dataclass(frozen=True)
class Target:
    """A damaged store in the making: the blobs and manifests that are to be hit, and a seeded choice."""

    store: Store
    whole: Whole
    elsewhere: Path
    blobs: tuple[str, str]
    name: str
    choice: random.Random

    @property
    def blob(self) -> str:
        return self.blobs[0]

    @property
    def path(self) -> Path:
        return self.path_of(self.blob)

    @property
    def content(self) -> bytes:
        return self.whole.contents[self.blob]

    @property
    def manifest(self) -> Path:
        return self.store.manifest_path(self.name)

    def path_of(self, blob: str) -> Path:
        return self.store.root / "blobs" / f"sha256-{blob}"


Damage = Callable[[Target], Sequence[Hit]]


@dataclass(frozen=True)
class Foretold:
    """
    What verify must find, before (`found`) and after repair (`left`): subject by subject, what is wrong with it.

    `blobs` and `manifests` are those that repair puts back.
    """

    found: dict[str, set[str]]
    left: dict[str, set[str]]
    blobs: frozenset[str]
    manifests: frozenset[str]

    @staticmethod
    def code(found: dict[str, set[str]]) -> int:
        kinds = {kind for group in found.values() for kind in group}
        return INTEGRITY if kinds & _BYTES else DAMAGED if kinds else WHOLE


def foretell(whole: Whole, hits: Collection[Hit]) -> Foretold:
    """What must come of these hits, when repair gets a bundle of the whole store."""
    lost = {hit.name: hit for hit in hits if isinstance(hit, ManifestHit)}
    blobs = {hit.blob: hit for hit in hits if isinstance(hit, BlobHit)}
    walls = {blob for blob, hit in blobs.items() if hit.in_the_way}
    promised = _promised(whole, hits, lost.keys())
    # Of a file whose promised size is wrong, and its own too, nobody knows which to believe.
    unclear = {blob for blob, hit in blobs.items() if hit.kind != "blob-altered" and _misled(whole, blob, promised)}
    back = {
        name for name, hit in lost.items() if not hit.in_the_way and (walls | unclear).isdisjoint(whole.models[name])
    }
    repaired = {blob for blob, hit in blobs.items() if hit.kind and _is_seen(hit, promised) and blob in whole.needed}
    repaired -= walls | {blob for blob in repaired if promised.get(blob, set()) - {len(whole.contents[blob])}}
    # A model that is put back is put back whole.
    repaired |= {blob for name in back for blob in whole.models[name] if blob in blobs}
    found = _merged(_findings(whole, hits, promised))
    left_hits = [
        hit
        for hit in hits
        if not (isinstance(hit, (BlobHit, Oddity)) and hit.blob in repaired)
        and not (isinstance(hit, ManifestHit) and hit.name in back)
    ]
    left = _merged(_findings(whole, left_hits, _promised(whole, hits, lost.keys() - back)))
    return Foretold(found, left, frozenset(repaired), frozenset(back))


def _promised(whole: Whole, hits: Collection[Hit], lost: Collection[str]) -> dict[str, set[int]]:
    """What the manifests that can be read promise about each blob."""
    others = {(hit.name, hit.blob): hit.size for hit in hits if isinstance(hit, Promise)}
    promised: dict[str, set[int]] = {}
    for name in whole.models.keys() - lost:
        for blob, size in whole.models[name].items():
            other = others.get((name, blob), size)
            if other is not None:
                promised.setdefault(blob, set()).add(other)
    return promised


def _is_seen(hit: BlobHit, promised: Collection[str]) -> bool:
    """A blob that is not there and that nobody promises is missed by nobody."""
    return hit.stands is not None or hit.blob in promised


def _misled(whole: Whole, blob: str, promised: Mapping[str, set[int]]) -> bool:
    """Whether the manifests that can be read all promise a size that a blob never had."""
    return blob in promised and len(whole.contents[blob]) not in promised[blob]


def _findings(whole: Whole, hits: Collection[Hit], promised: Mapping[str, set[int]]) -> Iterator[tuple[str, str]]:
    for hit in hits:
        if isinstance(hit, BlobHit) and hit.kind and _is_seen(hit, promised):
            if hit.kind == "blob-size" and hit.blob not in promised:
                # Without a promise a file has no wrong size, only wrong bytes.
                yield f"sha256:{hit.blob}", "blob-altered"
            elif hit.kind != "blob-altered" or not _misled(whole, hit.blob, promised):
                yield f"sha256:{hit.blob}", hit.kind
        elif isinstance(hit, ManifestHit):
            yield path_of(hit.name), "manifest-damaged"
        elif isinstance(hit, Promise) and hit.size in promised.get(hit.blob, ()):
            other = next((each.kind for each in hits if isinstance(each, BlobHit) and each.blob == hit.blob), "")
            yield f"sha256:{hit.blob}", other if other in {"blob-missing", "blob-not-regular"} else "blob-size"
        elif isinstance(hit, Oddity):
            yield hit.subject, hit.kind


def _merged(findings: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    merged: dict[str, set[str]] = {}
    for subject, kind in findings:
        merged.setdefault(subject, set()).add(kind)
    return merged


def path_of(name: str) -> str:
    """Where the manifest of a name lies in a store."""
    folder, _, tag = name.rpartition(":")
    return f"manifests/{folder}/{tag}"


def short(name: str) -> str:
    """A name as verify says it."""
    return name.removeprefix("registry.ollama.ai/").removeprefix("library/")


# What becomes of a blob's bytes.


def _altered(target: Target, content: bytes) -> Sequence[Hit]:
    """Written in place, so that inode and mode are those of a file that a disk has damaged."""
    with target.path.open("r+b") as file:
        file.truncate(len(content))
        file.write(content)
    kind = "blob-altered" if len(content) == len(target.content) else "blob-size"
    return [BlobHit(target.blob, kind, target.path.name)]


def flipped(target: Target) -> Sequence[Hit]:
    content = bytearray(target.content)
    content[target.choice.randrange(len(content))] ^= 1 << target.choice.randrange(8)
    return _altered(target, bytes(content))


def zeroed(target: Target) -> Sequence[Hit]:
    return _altered(target, bytes(len(target.content)))


def partly_zeroed(target: Target) -> Sequence[Hit]:
    start = target.choice.randrange(len(target.content))
    hole = target.content[start : start + 512]
    return _altered(target, target.content[:start] + bytes(len(hole)) + target.content[start + 512 :])


def shifted(target: Target) -> Sequence[Hit]:
    return _altered(target, b"\xff" + target.content[:-1])


def cut(target: Target) -> Sequence[Hit]:
    return _altered(target, target.content[: target.choice.randrange(len(target.content))])


def one_short(target: Target) -> Sequence[Hit]:
    return _altered(target, target.content[:-1])


def emptied(target: Target) -> Sequence[Hit]:
    return _altered(target, b"")


def extended(target: Target) -> Sequence[Hit]:
    return _altered(target, target.content + target.choice.randbytes(target.choice.choice((1, 512, 4096))))


def with_the_bytes_of_another(target: Target) -> Sequence[Hit]:
    return _altered(target, target.whole.contents[target.blobs[1]])


def swapped(target: Target) -> Sequence[Hit]:
    first, second = target.path, target.path_of(target.blobs[1])
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    sizes = {len(target.whole.contents[blob]) for blob in target.blobs}
    kind = "blob-altered" if len(sizes) == 1 else "blob-size"
    return [BlobHit(blob, kind, f"sha256-{blob}") for blob in target.blobs]


# What becomes of a blob's name, or of the file itself.


def missing(target: Target) -> Sequence[Hit]:
    target.path.unlink()
    return [BlobHit(target.blob, "blob-missing", None)]


def without_a_dash(target: Target) -> Sequence[Hit]:
    target.path.rename(target.path.with_name(f"sha256{target.blob}"))
    return [BlobHit(target.blob, "blob-missing", None)]


def as_if_unfinished(target: Target) -> Sequence[Hit]:
    target.path.rename(target.path.with_name(f"{target.path.name}-partial"))
    return [BlobHit(target.blob, "blob-missing", None)]


def named_as_of_old(target: Target) -> Sequence[Hit]:
    target.path.rename(target.path.with_name(f"sha256:{target.blob}"))
    return [BlobHit(target.blob, _SOUND, f"sha256:{target.blob}")]


def named_as_of_old_and_flipped(target: Target) -> Sequence[Hit]:
    flipped(target)
    target.path.rename(target.path.with_name(f"sha256:{target.blob}"))
    return [BlobHit(target.blob, "blob-altered", f"sha256:{target.blob}")]


def _linked(target: Target, to: Path | str, kind: str = "blob-missing") -> Sequence[Hit]:
    target.path.symlink_to(to)
    return [BlobHit(target.blob, kind, target.path.name)]


def linked_to_a_good_copy(target: Target) -> Sequence[Hit]:
    target.elsewhere.mkdir(exist_ok=True)
    return _linked(target, target.path.rename(target.elsewhere / target.blob), _SOUND)


def linked_to_nothing(target: Target) -> Sequence[Hit]:
    target.path.unlink()
    return _linked(target, target.choice.choice(("nowhere", target.path.name, "/dev/null/x")))


def linked_to_a_folder(target: Target) -> Sequence[Hit]:
    target.path.unlink()
    return _linked(target, "..")


def a_folder(target: Target) -> Sequence[Hit]:
    target.path.unlink()
    target.path.mkdir()
    if target.choice.random() < 0.5:
        (target.path / "inner").write_bytes(target.content)
    return [BlobHit(target.blob, "blob-not-regular", target.path.name, in_the_way=True)]


def a_pipe(target: Target) -> Sequence[Hit]:
    target.path.unlink()
    os.mkfifo(target.path)
    return [BlobHit(target.blob, "blob-not-regular", target.path.name, in_the_way=True)]


def a_false_orphan(target: Target) -> Sequence[Hit]:
    """No model ever had it, so no bundle has it either."""
    digest = sha256(target.choice.randbytes(8))
    target.path_of(digest).write_bytes(target.choice.choice((b"", b"other bytes")))
    return [Oddity("blob-altered", f"sha256:{digest}")]


# Manifests that nobody can read.


def _unreadable(raw: Callable[[bytes, random.Random], bytes]) -> Damage:
    def damage(target: Target) -> Sequence[Hit]:
        target.manifest.write_bytes(raw(target.manifest.read_bytes(), target.choice))
        return [ManifestHit(target.name)]

    damage.__name__ = f"manifest_{raw.__name__}"
    return damage


def _empty(raw: bytes, choice: random.Random) -> bytes:
    return b""


def _half(raw: bytes, choice: random.Random) -> bytes:
    # Without its last line feed it would still be one.
    return raw[: choice.randrange(1, len(raw) - 1)]


def _zeros(raw: bytes, choice: random.Random) -> bytes:
    return bytes(len(raw))


def _noise(raw: bytes, choice: random.Random) -> bytes:
    return choice.randbytes(len(raw))


def _marked(raw: bytes, choice: random.Random) -> bytes:
    return b"\xef\xbb\xbf" + raw


def _something_else(raw: bytes, choice: random.Random) -> bytes:
    return choice.choice((b"[]", b'"manifest"', b"1", b"<html>"))


def _bracket_lost(raw: bytes, choice: random.Random) -> bytes:
    at = choice.choice([match.start() for match in re.finditer(rb"[{}\[\]]", raw)])
    return raw[:at] + b" " + raw[at + 1 :]


def _size_of_nothing(raw: bytes, choice: random.Random) -> bytes:
    return re.sub(rb'"size":\d+', b'"size":' + choice.choice((b"-1", b"1.5", b'"1"', b"1e99")), raw, count=1)


def _digest_cut(raw: bytes, choice: random.Random) -> bytes:
    return re.sub(rb"sha256:([0-9a-f]{63})[0-9a-f]", rb"sha256:\1", raw, count=1)


def manifest_linked_to_nothing(target: Target) -> Sequence[Hit]:
    target.manifest.unlink()
    target.manifest.symlink_to("nowhere")
    return [ManifestHit(target.name)]


def manifest_a_folder(target: Target) -> Sequence[Hit]:
    target.manifest.unlink()
    target.manifest.mkdir()
    return [ManifestHit(target.name, in_the_way=True)]


def manifest_a_pipe(target: Target) -> Sequence[Hit]:
    target.manifest.unlink()
    os.mkfifo(target.manifest)
    return [ManifestHit(target.name, in_the_way=True)]


# Manifests that Ollama can read, and that are not what they were. They may be somebody's own: repair leaves them.


def manifest_with_more_behind(target: Target) -> Sequence[Hit]:
    more = target.choice.choice((b"garbage", b"\0" * 10, target.manifest.read_bytes(), b"}"))
    target.manifest.write_bytes(target.manifest.read_bytes() + more)
    return [Oddity("manifest-unfit", short(target.name))]


def manifest_of_another_version(target: Target) -> Sequence[Hit]:
    target.manifest.write_bytes(target.manifest.read_bytes().replace(b'"schemaVersion":2', b'"schemaVersion":1'))
    return [Oddity("manifest-unfit", short(target.name))]


def manifest_with_a_key_twice(target: Target) -> Sequence[Hit]:
    raw = target.manifest.read_bytes()
    target.manifest.write_bytes(b'{"Layers":null,' + raw[1:])
    return [Oddity("manifest-ambiguous", short(target.name))]


def _own_blob(target: Target) -> str:
    """A blob that the manifest names. Other manifests may name it too, because models share blobs."""
    return target.choice.choice(sorted(target.whole.models[target.name]))


def manifest_with_another_size(target: Target) -> Sequence[Hit]:
    blob = _own_blob(target)
    size = target.whole.models[target.name][blob]
    # Such as no other damage gives to a file by chance.
    other = size + target.choice.choice((7777, 99_999))
    pattern = f'("digest":"sha256:{blob}","size":){size}'.encode()
    target.manifest.write_bytes(re.sub(pattern, rb"\g<1>%d" % other, target.manifest.read_bytes()))
    return [Promise(target.name, blob, other)]


def manifest_with_another_digest(target: Target) -> Sequence[Hit]:
    blob = _own_blob(target)
    other = ("0" if blob[0] != "0" else "1") + blob[1:]
    target.manifest.write_bytes(target.manifest.read_bytes().replace(blob.encode(), other.encode()))
    return [Promise(target.name, blob, None), Oddity("blob-missing", f"sha256:{other}")]


# Names where none belong.


def a_bad_name(target: Target) -> Sequence[Hit]:
    path = target.manifest.with_name(target.choice.choice((".DS_Store", "a b", "-x", "y" * 81, "latest~", "é")))
    path.write_bytes(target.choice.choice((b"", target.manifest.read_bytes(), b"finder")))
    return [Oddity("manifest-damaged", str(path.relative_to(target.store.root)))]


def a_stray_at_another_depth(target: Target) -> Sequence[Hit]:
    folder = target.choice.choice([parent for parent in target.manifest.parents[1:4] if parent.is_dir()])
    path = folder / "README"
    path.write_bytes(b"stray")
    return []


def a_stray_among_the_blobs(target: Target) -> Sequence[Hit]:
    name = target.choice.choice(("README", f"sha256-{target.blob[:63]}", f"sha512-{target.blob}", "x.tmp"))
    (target.store.root / "blobs" / name).write_bytes(target.content)
    return []


_READABLE: tuple[Damage, ...] = (
    manifest_with_more_behind, manifest_of_another_version, manifest_with_a_key_twice, manifest_with_another_size,
    manifest_with_another_digest,
)  # fmt: skip
_UNREADABLE: tuple[Damage, ...] = (
    *map(_unreadable, (_empty, _half, _zeros, _noise, _marked, _something_else, _bracket_lost, _size_of_nothing,
                       _digest_cut)),
    manifest_linked_to_nothing, manifest_a_folder, manifest_a_pipe,
)  # fmt: skip
_BLOBS: tuple[Damage, ...] = (
    flipped, zeroed, partly_zeroed, shifted, cut, one_short, emptied, extended, with_the_bytes_of_another, swapped,
    missing, without_a_dash, as_if_unfinished, named_as_of_old, named_as_of_old_and_flipped,
    linked_to_a_good_copy, linked_to_nothing, linked_to_a_folder, a_folder, a_pipe, a_false_orphan,
)  # fmt: skip
_NAMES: tuple[Damage, ...] = (a_bad_name, a_stray_at_another_depth, a_stray_among_the_blobs)

DAMAGES: tuple[Damage, ...] = (*_BLOBS, *_UNREADABLE, *_READABLE, *_NAMES)
