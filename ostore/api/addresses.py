"""
Turn addresses, the words that stand for places, into sources and sinks.

One table says how each kind of place is recognised, read and written. A new kind of place is one row. Messages about
mistyped addresses are here too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.api.typed import BUNDLE_SUFFIXES, OCI, layout_path, means_name, refuse_address
from ostore.api.volumes import Word, opened_volumes, refuse_options, volume_in_folder, volumes_of
from ostore.formats.errors import NotFoundError, UsageError
from ostore.formats.name import alike_words
from ostore.formats.remedy import Remedy, ostore
from ostore.formats.shell import quoted_word
from ostore.formats.store_layout import MANIFESTS
from ostore.formats.volume_set import set_of
from ostore.places.store.store import LocalStore
from ostore.streams.links import is_there
from ostore.streams.progress import SILENT, Progress
from ostore.streams.terminal import is_terminal

# The code for bundles takes time to import, and `list` does not need it.
if TYPE_CHECKING:
    from ostore.formats.parity import ParityWish
    from ostore.operations.transfer import BlobSource, Sink, Source
    from ostore.places.bundle.reader import BundleReader
    from ostore.places.bundle.volume_export import NextMedium

# Levels above 19 need windows that other readers refuse.
MAX_LEVEL = 19
_SINKS = (
    "FILE.tar.zst, FILE.tar (not compressed), DIR/ (a plain store), oci:DIR (an OCI image layout) "
    "or - (standard output)"
)
_MOUNTED = "is the disk mounted?"
# Endings of files that people take for bundles, and what such files are.
_MISTAKES = {
    (".zip", ".7z", ".rar"): "another kind of archive",
    (".tgz", ".tar.gz", ".gz", ".tar.xz", ".xz", ".bz2"): "a file that is compressed in another way",
    (".zst",): "a zstd file that is no .tar.zst",
    (".gguf", ".safetensors"): "a file of weights",
}


@dataclass(frozen=True, slots=True)
class SinkTerms:
    """
    How models are written.

    `level` is the zstd level, or None to choose. `replace` allows overwriting a bundle or a different model. `jobs` is
    the number of threads. A bundle is cut into volumes of `split` bytes, which go to the folders `to` in turn and get
    `parity`; `verify` reads it back from its medium.
    """

    level: int | None
    replace: bool
    jobs: int
    progress: Progress
    split: int | None = None
    to: tuple[Path, ...] = ()
    parity: ParityWish | None = None
    verify: bool = False
    next_medium: NextMedium | None = None


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of place: which words mean it as a source and as a sink, and how to open it as either."""

    is_read: Callable[[str], bool]
    source: Callable[[str, int], AbstractContextManager[Source]]
    is_written: Callable[[str], bool]
    sink: Callable[[str, SinkTerms], Sink]


def opened_source(word: Word, *, jobs: int) -> AbstractContextManager[Source]:
    """
    Open the place that a word stands for as a source of models.

    `-` is a bundle on standard input, `oci:DIR` an OCI image layout, a folder a store, and any other word a bundle
    file, or one in volumes. Entering the block raises NotFoundError, UsageError if the place cannot be read as models,
    the errors of a bad bundle (FormatError, IntegrityError, LimitError, UnsafeError), OSError.
    """
    text = str(word)
    refuse_address(text)
    if volumes := volumes_of(word):
        return opened_volumes(volumes, jobs=jobs)
    kind = next(kind for kind in _KINDS if kind.is_read(text))
    return kind.source(text, jobs)


def opened_bundle(word: Word, *, jobs: int) -> AbstractContextManager[BundleReader]:
    """
    Open a bundle, or one in volumes, and read its index. `-` is standard input.

    Entering the block raises NotFoundError, UsageError if it is a terminal or not a regular file, FormatError,
    IntegrityError, LimitError or UnsafeError for a bad bundle, OSError.
    """
    refuse_address(str(word))
    if volumes := volumes_of(word):
        return opened_volumes(volumes, jobs=jobs)
    return _piped_bundle("-", jobs) if str(word) == "-" else _bundle(str(word), jobs)


def sink_of(word: str | Path, terms: SinkTerms, *, parameter: str = "") -> Sink:
    """
    Return the sink that a word stands for, the value of a `parameter` if it is not the last argument.

    Raises UsageError if it stands for none or does not take the level.
    """
    text = str(word)
    if terms.level is not None and not 1 <= terms.level <= MAX_LEVEL:
        raise UsageError(f"expected auto or 1 to {MAX_LEVEL}, got {terms.level}", parameter="level")
    refuse_address(text, is_written=True)
    kind = next((kind for kind in _KINDS if kind.is_written(text)), None)
    if kind is None:
        raise _no_sink(text, parameter)
    is_bundle_file = text.endswith(BUNDLE_SUFFIXES) and not text.startswith(OCI)
    if terms.level is not None and (text.endswith(".tar") or not is_bundle_file) and text != "-":
        raise UsageError(f"{text}: not compressed, so it takes no level")
    if not is_bundle_file:
        given = (
            ("split", terms.split),
            ("to", terms.to),
            ("parity", terms.parity),
            ("verify-after-write", terms.verify),
        )
        refuse_options(given, text)
    return kind.sink(text, terms)


@contextmanager
def opened_blob_sources(
    word: str | Path, *, jobs: int, progress: Progress = SILENT
) -> Iterator[tuple[BlobSource, ...]]:
    """
    Open the place that a word stands for as sources of single blobs. A folder of any files will do.

    Of such a folder, files named by a digest are the first source, and files of the right size the second. Raises
    NotFoundError, UsageError, the errors of a bad bundle (FormatError, IntegrityError, LimitError, UnsafeError),
    OSError.
    """
    from ostore.places.foreign_caches.copies import CopiesFolder, NamedCopies, SizedCopies
    from ostore.places.foreign_caches.walk import recognise

    text = str(word)
    refuse_address(text)
    if text != "-" and Path(text).is_dir() and not (Path(text) / MANIFESTS).is_dir():
        folder = CopiesFolder(recognise(Path(text).absolute()))
        yield NamedCopies(folder, text), SizedCopies(folder, text, progress)
        return
    with opened_source(text, jobs=jobs) as source:
        yield (source,)


def is_bundle(word: Word) -> bool:
    """
    Return whether a word means a bundle or a layout: `-`, `oci:`, a file, or a bundle's ending. Any other word is a
    model's name.
    """
    text = str(word)
    if text == "-" or text.startswith(OCI) or text.endswith(BUNDLE_SUFFIXES) or set_of(Path(text).name):
        return True
    try:
        return Path(text).is_file()
    except OSError:
        # It is too long for a path, for example. It may still be a name.
        return False


def _no_sink(text: str, parameter: str) -> UsageError:
    """Return the error for a word that is no destination, with the spelling that was probably meant."""
    if Path(text).is_dir():
        return UsageError(
            f"{text}: a folder", hint=f"{quoted_word(f'{text}/', sys.platform)} makes a store in it; a bundle is a file"
        )
    for endings, what in _MISTAKES.items():
        for ending in endings:
            if text.lower().endswith(ending):
                meant = quoted_word(f"{text[: -len(ending)]}.tar.zst", sys.platform)
                return UsageError(f"{text}: the name of {what}", hint=f"bundles end in .tar.zst or .tar: {meant}?")
    what = "a destination" if parameter else "a destination as the last argument"
    return UsageError(f"{text!r}: expected {what}", hint=_SINKS, parameter=parameter)


def _no_bundle(text: str) -> NotFoundError:
    """Return the error for a bundle that does not exist, with the files beside it that were probably meant."""
    path = Path(text)
    try:
        files = sorted(entry.name for entry in path.parent.iterdir() if entry.name.endswith(BUNDLE_SUFFIXES))
    except OSError:
        return NotFoundError(f"{text}: no such bundle; {path.parent} is no folder that can be read", hint=_MOUNTED)
    if found := alike_words(path.name, files):
        meant = " or ".join(quoted_word(str(path.with_name(name)), sys.platform) for name in found)
        return NotFoundError(f"{text}: no such bundle", hint=f"did you mean {meant}?")
    hint: Remedy | str | None = None
    if not text.endswith(BUNDLE_SUFFIXES):
        hint = "a bundle is a file that ends in .tar.zst or .tar"
        if means_name(text):
            hint = ostore("show", text, before=f"{hint}; if it is a model", after="shows it")
    return NotFoundError(f"{text}: no such bundle", hint=hint)


@contextmanager
def _piped_bundle(_text: str, jobs: int) -> Iterator[BundleReader]:
    from ostore.places.bundle.reader import open_piped_bundle
    from ostore.streams.bytes_at import PipeBytes

    if is_terminal(0):
        raise UsageError("standard input is a terminal", hint="append < FILE.tar.zst to the command to read a bundle")
    with open_piped_bundle(PipeBytes(0), jobs=jobs) as reader:
        yield reader


def _bundle(text: str, jobs: int) -> AbstractContextManager[BundleReader]:
    from ostore.places.bundle.reader import open_bundle

    if not is_there(Path(text)):
        raise _no_bundle(text)
    return open_bundle(Path(text), jobs=jobs, label=text)


@contextmanager
def _store(text: str, _jobs: int) -> Iterator[LocalStore]:
    try:
        store = LocalStore(Path(text), label=text).require()
    except NotFoundError as error:
        if volume := volume_in_folder(Path(text)):
            error.hint = f"there are volumes of a bundle in it: name {quoted_word(str(volume), sys.platform)}"
        raise
    yield store


def _bundle_pipe(_text: str, terms: SinkTerms) -> Sink:
    from ostore.places.bundle.writer import BundlePipe

    if is_terminal(1):
        raise UsageError("standard output is a terminal", hint="append > FILE.tar.zst to the command to write a bundle")
    return BundlePipe(1, level=terms.level, jobs=terms.jobs)


def _bundle_file(text: str, terms: SinkTerms) -> Sink:
    path = Path(text)
    if terms.split:
        return _volumes_sink(path, terms)
    for option, value in (("to", terms.to), ("parity", terms.parity)):
        if value:
            raise UsageError(
                "only a bundle in volumes can have it", hint="--split SIZE makes volumes", parameter=option
            )
    from ostore.places.bundle.writer import BundleFile

    return BundleFile(
        path,
        level=terms.level,
        jobs=terms.jobs,
        replace=terms.replace,
        verify=terms.verify,
        progress=terms.progress,
    )


def _volumes_sink(path: Path, terms: SinkTerms) -> Sink:
    from ostore.places.bundle.volume_export import VolumeTerms
    from ostore.places.bundle.volume_writer import BundleVolumes

    if terms.to and path.name != str(path):
        raise UsageError(
            f"{path}: with --to, expected a name without a folder",
            hint=f"--to {quoted_word(str(path.parent), sys.platform)} puts volumes there",
        )
    folders = terms.to or (path.parent,)
    volumes = VolumeTerms(terms.split or 0, folders, terms.parity, terms.verify, terms.next_medium)
    return BundleVolumes(
        path.name, volumes, level=terms.level, jobs=terms.jobs, replace=terms.replace, progress=terms.progress
    )


def _store_sink(text: str, terms: SinkTerms) -> Sink:
    from ostore.places.store.receiving.sink import StoreSink

    store = LocalStore(Path(text), label=text)
    if store.exists:
        # Before anything is fetched for it.
        store.require_folder()
    return StoreSink(LocalStore(Path(text)), replace=terms.replace, jobs=terms.jobs, progress=terms.progress)


@contextmanager
def _layout(text: str, _jobs: int) -> Iterator[Source]:
    from ostore.places.oci_layout.layout import OciLayout

    yield OciLayout(layout_path(text) or Path(), text)


def _layout_sink(text: str, terms: SinkTerms) -> Sink:
    from ostore.places.oci_layout.sink import OciLayoutSink

    path = layout_path(text) or Path()
    if ":" in str(path).removeprefix(path.drive):
        raise UsageError(
            f"{text}: a colon in the name of the folder, which skopeo takes for its end",
            hint="oci:DIR names a folder; the models keep their names in it",
        )
    return OciLayoutSink(path, replace=terms.replace, progress=terms.progress)


def _is_layout(text: str) -> bool:
    return text.startswith(OCI)


def _is_pipe(text: str) -> bool:
    return text == "-"


# The first kind that fits counts. A bundle to read may have any name, because its first bytes tell what it is.
_KINDS = (
    _Kind(_is_pipe, _piped_bundle, _is_pipe, _bundle_pipe),
    _Kind(_is_layout, _layout, _is_layout, _layout_sink),
    _Kind(lambda text: Path(text).is_dir(), _store, lambda text: text.endswith("/"), _store_sink),
    _Kind(lambda _text: True, _bundle, lambda text: text.endswith(BUNDLE_SUFFIXES), _bundle_file),
)
