"""What several commands open: the store they are about, and bundles. Bundles are imported by those that open one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ostore.formats.errors import UsageError
from ostore.formats.selection import Selection
from ostore.places.store.store import LocalStore
from ostore.settings import choose_store

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ostore.places.bundle.reader import BundleReader

BUNDLE_SUFFIXES = (".tar.zst", ".tar")


def chosen_store(models: Path | None) -> LocalStore:
    """The store that a command is about, there or not. Raises as `choose_store`."""
    return LocalStore(choose_store(models).path)


@contextmanager
def opened_source(source: str | Path, *, jobs: int) -> Iterator[BundleReader | LocalStore]:
    """A bundle, a pipe (`-`) or a folder that is a store. Raises UsageError, and what opening a bundle raises."""
    path = Path(source)
    if str(source) == "-":
        if os.isatty(0):
            raise UsageError("standard input is a terminal", hint="ostore import - < FILE.tar.zst")
        with opened_bundle("-", jobs=jobs) as reader:
            yield reader
    elif path.is_dir():
        if not any((path / part).is_dir() for part in ("blobs", "manifests")):
            raise UsageError(f"{path}: a folder that is no store; expected blobs/ and manifests/ in it")
        yield LocalStore(path)
    else:
        with opened_bundle(path, jobs=jobs) as reader:
            yield reader


def opened_bundle(bundle: str | Path, *, jobs: int) -> AbstractContextManager[BundleReader]:
    """A bundle whose index is read; `-` is standard input. Raises NotFoundError, FormatError, UnsafeError, …"""
    from ostore.places.bundle.reader import open_bundle, open_piped_bundle

    return open_piped_bundle(0, jobs=jobs) if str(bundle) == "-" else open_bundle(Path(bundle), jobs=jobs)


def is_bundle(subject: str | Path) -> bool:
    """Whether a word of a person means a bundle: `-`, a file, or what ends like one. Every other is a name."""
    text = str(subject)
    if text == "-" or text.endswith(BUNDLE_SUFFIXES):
        return True
    try:
        return Path(text).is_file()
    except OSError:
        # Too long for a path, for example; whether it is a name is for others to say.
        return False


def import_warnings(selection: Selection) -> Iterator[str]:
    """What is lawful in a bundle and yet may surprise where it is imported."""
    for model in selection.models:
        if model.name.is_selector:
            yield f"{model.name}: Ollama takes this tag for a source selector, not for a name"
        problem = model.name.windows_problem()
        if problem:
            yield f"{model.name}: {problem}"
