"""Open the places where `repair` may find good copies: bundles, stores and other folders."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ostore.api.addresses import is_bundle, opened_blob_sources
from ostore.api.typed import is_place, refuse_empty_word, words_of
from ostore.formats.errors import NotFoundError, OstoreError, UsageError
from ostore.formats.remedy import ostore
from ostore.operations.transfer import BlobSource
from ostore.places.store.store import LocalStore
from ostore.streams.progress import Progress


def refuse_no_source(names: Sequence[str], sources: Sequence[str | Path]) -> None:
    """Raises UsageError if there is no source. One may be among the names of models. TypeError for a text."""
    if words_of(sources):
        return
    places = [word for word in words_of(names) if is_place(word)]
    models = [word for word in words_of(names) if word not in places]
    options = [text for place in places or ["BUNDLE"] for text in ("--from", place)]
    raise UsageError(
        "expected a source of good copies: a bundle, a store or a folder", hint=ostore("repair", *models, *options)
    )


def open_sources(
    sources: Sequence[str | Path], store: LocalStore, opened: ExitStack, *, jobs: int, progress: Progress
) -> tuple[list[BlobSource], list[str]]:
    """
    Return the places that `sources` stand for, and notes on those that cannot be used. `opened` closes them.

    Raises UsageError or NotFoundError for a mistyped source, and the error of the first source if none can be used. A
    person should learn this before hours of hashing.
    """
    if [str(source) for source in sources].count("-") > 1:
        raise UsageError("standard input can be read only once")
    opened_sources: list[BlobSource] = []
    notes: list[str] = []
    unusable: list[Exception] = []
    for source in sources:
        try:
            opened_sources += _sources(source, store, opened, jobs, progress)
        except (UsageError, NotFoundError):
            raise
        except (OstoreError, OSError) as error:
            unusable.append(error)
            text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            notes.append(text if str(source) in text else f"{source}: {text}")
    if not opened_sources:
        raise unusable[0]
    return opened_sources, notes


def _sources(
    word: str | Path, store: LocalStore, opened: ExitStack, jobs: int, progress: Progress
) -> Sequence[BlobSource]:
    path, label = Path(word), str(word)
    refuse_empty_word(label)
    if path.is_dir() and path.resolve() == store.root.resolve():
        raise UsageError(f"{label}: is the store itself; expected another source")
    if not is_bundle(word) and not path.exists():
        raise NotFoundError(f"{label}: no such bundle or folder")
    return opened.enter_context(opened_blob_sources(word, jobs=jobs, progress=progress))
