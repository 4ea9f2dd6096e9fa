"""What `sync` has to know of its two places. `registry` has those of registries."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from ostore.api.addresses import SinkTerms, is_bundle, opened_source, sink_of
from ostore.api.typed import BUNDLE_SUFFIXES, layout_path, means_name, refuse_empty_word
from ostore.formats.errors import NotFoundError, UsageError
from ostore.formats.name import ModelName
from ostore.formats.outcome import Received
from ostore.formats.remedy import ostore
from ostore.formats.selection import SelectedModel, Selection
from ostore.formats.shell import quoted_word
from ostore.operations.transfer import Sink, Source
from ostore.places.oci_layout.layout import OciLayout
from ostore.places.store.store import LocalStore
from ostore.settings import threads
from ostore.streams.progress import Progress

Copied: TypeAlias = tuple[Received, Selection]


@dataclass(frozen=True, slots=True)
class Origin:
    """
    Where models come from. `may_have` says whether it may have a model of a name that `source` has not selected.

    That is asked before a model of the destination is removed.
    """

    source: Source
    may_have: Callable[[ModelName], bool] = lambda _name: False


@dataclass(frozen=True, slots=True)
class Destination:
    """
    Where models go. `sink(replace=…)` makes a sink, and `found` says which of some models are there, by folded name.

    `name_of` gives a model its name there. `store` is the store, if it is one. `until_sent` copies again where that
    helps.
    """

    sink: Callable[..., Sink]
    found: Callable[[Sequence[ModelName]], Mapping[str, SelectedModel]]
    name_of: Callable[[ModelName], ModelName] = lambda name: name
    store: LocalStore | None = None
    until_sent: Callable[[Callable[[], Copied]], Copied] = lambda copying: copying()


@contextmanager
def opened_origin(word: str) -> Iterator[Origin]:
    """Open a store, a bundle or a layout. Entering the block raises what `addresses.opened_source` raises."""
    if means_name(word) and not is_bundle(word) and not Path(word).exists():
        hint = "a registry is https://HOST, and a bundle ends in .tar.zst or .tar"
        raise NotFoundError(f"{word}: no such store or bundle", hint=hint)
    with opened_source(word, jobs=threads(None)) as source:
        if isinstance(source, LocalStore):
            source.require_whole()
        # A store leaves out what it cannot carry, and a bundle has nothing else than models.
        names = source.names if isinstance(source, OciLayout) else frozenset()
        yield Origin(source, lambda name: not names.isdisjoint((name.folded, str(name).lower())))


def destination_of(word: str, progress: Progress) -> Destination:
    """Return what a store's folder or `oci:DIR` is as a destination. Raises UsageError for any other word."""
    layout = layout_path(word)
    store = _store_at(word) if layout is None else None
    sink_word = word if layout else f"{word.rstrip('/')}/"
    terms = partial(SinkTerms, level=None, jobs=threads(None), progress=progress)
    return Destination(
        lambda *, replace: sink_of(sink_word, terms(replace=replace)),
        lambda names: found_in(_there(layout, word, store), [name.folded for name in names]),
        store=store,
    )


def found_in(source: Source | None, names: Sequence[str]) -> Mapping[str, SelectedModel]:
    """Return the models of these names that a place has, by folded name. Raises what its `find_models` raises."""
    if source is None:
        return {}
    found = [model for selection in source.find_models(names) for model in selection.models]
    return {model.name.folded: known(source, model) for model in found}


def known(source: Source, model: SelectedModel) -> SelectedModel:
    """Return a model with its manifest, if the source can read that by itself."""
    if model.raw is None and isinstance(source, OciLayout):
        ((_, raw),) = source.read_manifests([model])
        return replace(model, raw=raw)
    return model


def _store_at(word: str) -> LocalStore:
    """Return the store that a word means, which need not be there. Raises UsageError for anything else."""
    path = Path(word)
    if word.endswith(BUNDLE_SUFFIXES) or word == "-":
        raise UsageError(
            f"{word}: a bundle, which is written once and never added to",
            hint=ostore("export", "--help", after="says how to write one; --have leaves out what is there already"),
        )
    refuse_empty_word(word)
    if "://" in word:
        # It is not repeated: there may be a password in an address.
        raise UsageError("expected a folder, oci:DIR, or a registry as https://HOST")
    if path.is_file():
        raise UsageError(f"{word}: a file; expected a folder, oci:DIR or the address of a registry")
    if not path.is_dir() and not word.endswith("/"):
        new = quoted_word(f"{word}/", sys.platform)
        raise UsageError(f"{word}: no such folder", hint=f"{new} makes a store there")
    return LocalStore(path, label=word)


def _there(layout: Path | None, word: str, store: LocalStore | None) -> Source | None:
    """Return the place to look into, or None if it is not there yet."""
    try:
        return OciLayout(layout, word) if layout else store and store.require()
    except NotFoundError:
        return None
