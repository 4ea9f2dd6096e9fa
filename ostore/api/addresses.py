"""
The words that stand for places: one table of what each kind is, how it is read and how it is written.

A new kind of place is one row. What people type by mistake is explained here as well, and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.formats.errors import UsageError
from ostore.formats.store_layout import BLOBS, MANIFESTS
from ostore.places.store.store import LocalStore
from ostore.streams.progress import SILENT, Progress

# What reads and writes bundles takes time to import, and `list` has no need of it.
if TYPE_CHECKING:
    from ostore.operations.transfer import BlobSource, Sink, Source
    from ostore.places.bundle.reader import BundleReader

BUNDLE_SUFFIXES = (".tar.zst", ".tar")
# Levels past 19 need windows that other readers refuse.
MAX_LEVEL = 19
_SINKS = "FILE.tar.zst, FILE.tar (not compressed), DIR/ (a plain store) or - (standard output)"
# By how a word ends: what it is, to somebody who takes it for a bundle.
_MISTAKES = {
    (".zip", ".7z", ".rar"): "an archive of another kind",
    (".tgz", ".tar.gz", ".gz", ".tar.xz", ".xz", ".bz2"): "compressed in another way",
    (".zst",): "zstd, but no .tar.zst",
    (".gguf", ".safetensors"): "weights",
}


@dataclass(frozen=True, slots=True)
class SinkTerms:
    """How models are written: `level` is of zstd (None chooses), `replace` allows to overwrite what differs."""

    level: int | None
    replace: bool
    jobs: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of place: which words are it where something is read, and where something is written."""

    is_read: Callable[[str], bool]
    source: Callable[[str, int], AbstractContextManager[Source]]
    is_written: Callable[[str], bool]
    sink: Callable[[str, SinkTerms], Sink]


def opened_source(word: str | Path, *, jobs: int) -> AbstractContextManager[Source]:
    """What a word stands for, as a source of models. Raises NotFoundError, UsageError, and what opening it raises."""
    text = str(word)
    kind = next(kind for kind in _KINDS if kind.is_read(text))
    return kind.source(text, jobs)


def opened_bundle(word: str | Path, *, jobs: int) -> AbstractContextManager[BundleReader]:
    """A bundle whose index is read; `-` is standard input. Raises NotFoundError, FormatError, UnsafeError."""
    return _piped_bundle("-", jobs) if str(word) == "-" else _bundle(str(word), jobs)


def sink_of(word: str | Path, terms: SinkTerms) -> Sink:
    """What a word stands for, as a sink. Raises UsageError for a word that stands for none, and for a wrong level."""
    text = str(word)
    if terms.level is not None and not 1 <= terms.level <= MAX_LEVEL:
        raise UsageError(f"level: expected auto or 1 to {MAX_LEVEL}, got {terms.level}")
    kind = next((kind for kind in _KINDS if kind.is_written(text)), None)
    if kind is None:
        mistake = f"is {what}; " if (what := _mistake(text)) else ""
        raise UsageError(f"{text!r}: {mistake}expected a destination as the last argument", hint=_SINKS)
    if terms.level is not None and text.endswith((".tar", "/")):
        raise UsageError(f"{text}: is not compressed, so it takes no level")
    return kind.sink(text, terms)


@contextmanager
def opened_blob_sources(
    word: str | Path, *, jobs: int, progress: Progress = SILENT
) -> Iterator[tuple[BlobSource, ...]]:
    """What a word stands for, as sources of single blobs: also a folder of any files. Raises as `opened_source`."""
    from ostore.places.foreign_caches.copies import CopiesFolder, NamedCopies, SizedCopies
    from ostore.places.foreign_caches.walk import recognise

    text = str(word)
    if Path(text).is_dir() and not (Path(text) / MANIFESTS).is_dir():
        folder = CopiesFolder(recognise(Path(text).absolute()))
        yield NamedCopies(folder, text), SizedCopies(folder, text, progress)
        return
    with opened_source(text, jobs=jobs) as source:
        yield (source,)


def is_bundle(word: str | Path) -> bool:
    """Whether a word means a bundle: `-`, a file, or what ends like one. Every other is the name of a model."""
    text = str(word)
    if text == "-" or text.endswith(BUNDLE_SUFFIXES):
        return True
    try:
        return Path(text).is_file()
    except OSError:
        # Too long for a path, for example; whether it is a name is for others to say.
        return False


def _mistake(text: str) -> str:
    return next((what for endings, what in _MISTAKES.items() if text.lower().endswith(endings)), "")


@contextmanager
def _piped_bundle(_text: str, jobs: int) -> Iterator[BundleReader]:
    from ostore.places.bundle.reader import open_piped_bundle
    from ostore.streams.bytes_at import PipeBytes

    if os.isatty(0):
        raise UsageError("standard input is a terminal", hint="< FILE.tar.zst behind the command lets it read a bundle")
    with open_piped_bundle(PipeBytes(0), jobs=jobs) as reader:
        yield reader


def _bundle(text: str, jobs: int) -> AbstractContextManager[BundleReader]:
    from ostore.places.bundle.reader import open_bundle

    return open_bundle(Path(text), jobs=jobs, label=text)


@contextmanager
def _store(text: str, _jobs: int) -> Iterator[LocalStore]:
    path = Path(text)
    if not any((path / part).is_dir() for part in (BLOBS, MANIFESTS)):
        raise UsageError(f"{path}: a folder that is no store; expected blobs/ and manifests/ in it")
    yield LocalStore(path, label=text)


def _bundle_pipe(_text: str, terms: SinkTerms) -> Sink:
    from ostore.places.bundle.writer import BundlePipe

    if os.isatty(1):
        raise UsageError("standard output is a terminal", hint="ostore export MODEL - > FILE.tar.zst")
    return BundlePipe(1, level=terms.level, jobs=terms.jobs)


def _bundle_file(text: str, terms: SinkTerms) -> Sink:
    from ostore.places.bundle.writer import BundleFile

    return BundleFile(Path(text), level=terms.level, jobs=terms.jobs, replace=terms.replace)


def _store_sink(text: str, terms: SinkTerms) -> Sink:
    from ostore.places.store.receiving.sink import StoreSink

    return StoreSink(LocalStore(Path(text)), replace=terms.replace, jobs=terms.jobs, progress=terms.progress)


def _is_pipe(text: str) -> bool:
    return text == "-"


# The first that fits. A file may be called anything: whether it is a bundle shows in its first bytes.
_KINDS = (
    _Kind(_is_pipe, _piped_bundle, _is_pipe, _bundle_pipe),
    _Kind(lambda text: Path(text).is_dir(), _store, lambda text: text.endswith("/"), _store_sink),
    _Kind(lambda _text: True, _bundle, lambda text: text.endswith(BUNDLE_SUFFIXES), _bundle_file),
)
