"""Write the files of models as plain files, for a machine without Ollama."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.export import with_users
from ostore.api.modelfile import modelfile_of
from ostore.api.plain_models import PlainModel, choose_models, sources, weights_of, weights_warning
from ostore.formats.digest import Digest
from ostore.formats.errors import BlobError
from ostore.formats.link_layout import Layout
from ostore.formats.media_types import LICENSE
from ostore.formats.plain_names import MODELFILE, plain_names
from ostore.formats.selection import LeftOut, OmittedModel
from ostore.operations.show import ShownModel, show_model
from ostore.places.plain_files.copy_folder import CopiedFile, refuse_existing, write_copies
from ostore.streams.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class PlainFile:
    """One file: its model, its name in the folder, the digest of its bytes, and its size in bytes."""

    model: str
    name: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class GgufExportReport:
    """
    The plain files that were written, or with `dry_run` would be.

    `size` is the bytes of all files. A glob matched the models in `left_out`, but they cannot be written as files.
    """

    destination: str
    dry_run: bool
    models: tuple[str, ...]
    files: tuple[PlainFile, ...]
    size: int
    left_out: tuple[OmittedModel, ...]
    warnings: tuple[str, ...]


def export_gguf(
    names: Sequence[str],
    destination: str | Path,
    *,
    replace: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    progress: Progress = SILENT,
    before: Callable[[GgufExportReport], object] | None = None,
    models: Path | None = None,
) -> GgufExportReport:
    """
    Copy the weights of models to files that any program reads, with a Modelfile, the licences and `SHA256SUMS`.

    `names` are names or globs; `["*"]` means all models. `destination` is a folder; it is made if the folder above it
    is there. The weights have the digest that the manifest says, and are hashed on the way. `replace` allows
    overwriting files. A model that only a glob matches and that is not made of GGUF files is left out, unless `strict`
    is set. With `dry_run`, nothing is written or hashed. `before` gets the report of a dry run before anything is
    written. A damaged blob leaves nothing behind.

    Raises NotFoundError, UsageError if a file exists, FormatError for a model of tensors, in several files, or with a
    text that no Modelfile can say; IntegrityError for a damaged blob; DamagedStoreError, NoSpaceError, BusyError,
    OSError.
    """
    store, folder = chosen_store(models).require(), Path(destination)
    chosen, left = choose_models(names, store)
    if left and (strict or not chosen):
        raise left[0].error
    if not chosen:
        raise store.no_models()
    shown = [(model, show_model(store, model.stored)) for model in chosen]
    # A folder of one model has the names that people look for. The same words give the same names if some are left out.
    files = list(_files(shown, is_single=len(chosen) + len(left) == 1))
    refuse_existing(folder, (file for _, file in files), replace=replace)
    planned = _report(destination, shown, files, left, dry_run=True)
    if dry_run:
        return planned
    if before:
        before(planned)
    progress.phase("exporting", sum(file.size for _, file in files))
    try:
        write_copies(folder, [file for _, file in files], store.opened_blob, progress, replace=replace)
    except BlobError as error:
        raise with_users(error, store) from None
    return _report(destination, shown, files, left, dry_run=False)


def _files(chosen: Sequence[tuple[PlainModel, ShownModel]], *, is_single: bool) -> Iterator[tuple[str, CopiedFile]]:
    """Yield the files of each model, with its name."""
    taken: set[str] = set()
    for model, shown in chosen:
        parts = model.parts
        counts = len(parts.projectors), len(parts.adapters), len(parts.drafts)
        names = plain_names(model.stored.name, Layout.FILES, counts, taken)
        taken |= names.claims
        paths = names.paths_of(parts)
        for part, path in paths.items():
            yield model.name, CopiedFile(path, part.digest, part.size)
        prefix = "" if is_single else names.modelfile.removesuffix(MODELFILE)
        yield model.name, _text(f"{prefix}{MODELFILE}", modelfile_of(shown, sources(model, paths)))
        licences = [layer for layer in model.stored.manifest.layers if layer.media_type == LICENSE]
        for number, licence in enumerate(licences, start=1):
            name = f"{prefix}LICENSE{f'-{number}' if number > 1 else ''}.txt"
            yield model.name, CopiedFile(name, licence.digest, licence.size)


def _text(name: str, text: str) -> CopiedFile:
    content = text.encode()
    return CopiedFile(name, Digest.of(content), len(content), content)


def _report(
    destination: str | Path,
    chosen: Sequence[tuple[PlainModel, ShownModel]],
    files: Sequence[tuple[str, CopiedFile]],
    left: Sequence[LeftOut],
    *,
    dry_run: bool,
) -> GgufExportReport:
    warnings = (weights_warning(model.name, weights_of(shown)) for model, shown in chosen)
    return GgufExportReport(
        destination=os.fspath(destination),
        dry_run=dry_run,
        models=tuple(model.name for model, _ in chosen),
        files=tuple(PlainFile(model, file.name, str(file.digest), file.size) for model, file in files),
        size=sum(file.size for _, file in files),
        left_out=tuple(one.told for one in left),
        warnings=tuple(filter(None, warnings)),
    )
