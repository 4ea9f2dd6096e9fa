"""Say what is meant by a model that is not in a store: one in an odd place, another spelling, another folder."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ostore.formats.errors import NotFoundError, OstoreError, UsageError
from ostore.formats.name import ModelName, alike, is_glob
from ostore.formats.remedy import Remedy, ostore
from ostore.formats.shell import quoted_word
from ostore.formats.store_layout import BLOBS, COMING_MANIFESTS, MANIFESTS
from ostore.places.store.nearby import store_instead
from ostore.places.store.survey.manifest_tree import ManifestTree
from ostore.places.store.survey.strays import judge_strays

HALF = f"{BLOBS}/ has blobs, but there is no {MANIFESTS}/: the folder was not copied whole"
COPY_AGAIN = f"copy the store again, with {MANIFESTS}/"


class Searched(Protocol):
    """A store, as far as an error speaks of it."""

    root: Path
    label: str
    option: str | None

    @property
    def is_half(self) -> bool: ...


def refuse_layout(store: Searched) -> None:
    """Raises UsageError for an OCI image layout: it has `blobs/` too, and a store in it would be in its way."""
    if any(os.path.lexists(store.root / tree) for tree in (MANIFESTS, COMING_MANIFESTS)):
        return
    from ostore.formats.oci_layout import LAYOUT  # noqa: PLC0415 - a store has manifests, and needs none of it

    # A folder that we may not enter is told by whoever looks into it.
    if not os.path.isfile(store.root / LAYOUT):  # noqa: PTH113
        return
    layout = f"oci:{str(store.label).rstrip('/')}"
    hint: Remedy | str = f"as a layout, it is {quoted_word(layout, sys.platform)}"
    if store.option is None:
        hint = ostore("inspect", layout, after="shows the models in it")
    raise UsageError(f"{store.label}: an OCI image layout, and no store", hint=hint)


def no_model(store: Searched, word: str, tree: ManifestTree) -> OstoreError | OSError:
    """Return the error for a pattern that matches no model of a tree, as `LocalStore.no_model` says."""
    what = f"no model {word!r} in {store.root}"
    hint = ostore("list", models=store.option, after="shows what is there")
    if is_glob(word):
        return NotFoundError(what, hint=hint)
    name = ModelName.parse(word)
    if folder := tree.closed_around(name.folded):
        return folder.error
    for stray in judge_strays(store.root, tree.strays):
        if stray.name and stray.name.folded == name.folded:
            where = f"its manifest is at {stray.path}, where Ollama does not look"
            fix = ostore("doctor", "--fix", models=store.option, after="puts it in its place")
            return NotFoundError(f"{what}, but {where}", hint=fix)
    if store.is_half:
        return NotFoundError(f"{what}: {HALF}", hint=COPY_AGAIN)
    if found := alike(word, (entry.name for entry in tree.entries if entry.name)):
        hint = replace(hint, before=f"did you mean {' or '.join(found)}? If not")
    return NotFoundError(what, hint=hint)


def no_models(store: Searched, tree: ManifestTree) -> NotFoundError:
    """Return the error for a tree in which nothing can be chosen, as `LocalStore.no_models` says."""
    what = f"no models in {store.label}"
    if near := store_instead(tree):
        return NotFoundError(what, hint=f"there are some in {near}")
    if store.is_half:
        return NotFoundError(f"{what}: {HALF}", hint=COPY_AGAIN)
    if any(stray.is_misplaced for stray in judge_strays(store.root, tree.strays)):
        where = ostore("doctor", models=store.option, before="there is a manifest where Ollama does not look")
        return NotFoundError(what, hint=replace(where, after="says where it belongs"))
    if store.option is not None:
        return NotFoundError(what, hint=ostore("doctor", models=store.option, after="shows what is in it"))
    return NotFoundError(what, hint=ostore("where", after="shows which store is used; models=DIR names another"))
