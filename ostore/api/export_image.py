"""Write models as a container image, for `docker load`, for `COPY --from=` and for volumes of Kubernetes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from pathlib import Path

from ostore.api.chosen_store import chosen_store
from ostore.api.export import select_models, with_users
from ostore.api.typed import OCI, refuse_empty_word, typed_models
from ostore.formats.errors import BlobError, UsageError
from ostore.formats.oci_image import DEFAULT_AT, ImagePlan, parse_at
from ostore.formats.selection import OmittedModel, Selection
from ostore.operations.transfer import copy, copy_sound
from ostore.places.oci_layout.image import ImageFile
from ostore.streams.progress import SILENT, Progress

_PHASE = "exporting"
_SUFFIX = ".tar"


@dataclass(frozen=True, slots=True)
class ImageExportReport:
    """
    The image that was written, or with `dry_run` would be.

    `image` is the name that `docker load` gives it, and `at` the folder in it that is the store. `blobs` counts the
    distinct blobs and `size` is their bytes; `shared_size` is the bytes saved because models share blobs. `image_size`
    is the bytes of the file, or None if none was written. A glob matched the models in `left_out`, but they could not
    be written.
    """

    destination: str
    dry_run: bool
    image: str
    at: str
    models: tuple[str, ...]
    layers: int
    blobs: int
    size: int
    shared_size: int
    image_size: int | None
    left_out: tuple[OmittedModel, ...]
    warnings: tuple[str, ...]


def export_image(
    names: Sequence[str],
    destination: str | Path,
    *,
    at: str = DEFAULT_AT,
    replace: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    progress: Progress = SILENT,
    before: Callable[[ImageExportReport], object] | None = None,
    models: Path | None = None,
) -> ImageExportReport:
    """
    Write models as one image to `destination`, a file that ends in `.tar`: an OCI image layout and a `docker save`
    archive in one. Unpacked, its folder `at` is a store.

    `names` are names or globs; `["*"]` means all models. The same models give the same bytes. Each blob is hashed on
    the way; blobs of 64 KiB and more are layers of their own, at most 100 of them. `replace` allows overwriting the
    file. A model that only a glob matches and that cannot be written is left out, unless `strict` is set. With
    `dry_run`, nothing is written or hashed. `before` gets the report of a dry run before anything is written. After an
    error or an interruption no new file is there.

    Raises NotFoundError, UsageError, IntegrityError for a damaged blob, DamagedStoreError, AmbiguousManifestError,
    FormatError, LimitError, UnsafeError, NoSpaceError, BusyError, OSError.
    """
    folder = parse_at(at)
    sink = ImageFile(_file(str(destination)), at=folder, replace=replace)
    store = chosen_store(models).require()
    words = typed_models(names, store)
    if not words:
        raise UsageError("names: expected at least one model, got none", hint='["*"] means all models')
    try:
        selection, is_lenient = select_models(store, sink, words, strict=strict, is_pipe=False)
        sink.compare(selection)
        planned = _report(destination, ImagePlan(selection, folder))
        if dry_run:
            return planned
        if before:
            before(planned)
        if is_lenient:
            _, selection = copy_sound(store, sink, selection, phase=_PHASE, progress=progress)
        else:
            copy(store, sink, selection, phase=_PHASE, progress=progress)
    except BlobError as error:
        raise with_users(error, store) from None
    report = _report(destination, ImagePlan(selection, folder))
    return replaced(report, dry_run=False, image_size=Path(destination).stat().st_size)


def _file(text: str) -> Path:
    """Return the file of an image. Raises UsageError for a word that is no such file."""
    refuse_empty_word(text, "a file")
    if not text.endswith(_SUFFIX) or text.startswith(OCI):
        hint = "name FILE.tar"
        if text == "-":
            hint = "write FILE.tar; skopeo copy docker-archive:FILE.tar docker://... sends it on"
        elif text.startswith(OCI):
            hint = f"name FILE.tar; skopeo copy oci-archive:FILE.tar {text} then makes a layout of it"
        elif text.endswith(".tar.zst"):
            hint = "name FILE.tar: layers are not compressed, so that each has one digest everywhere"
        raise UsageError(f"{text}: expected the file of an image", hint=hint)
    return Path(text)


def _report(destination: str | Path, plan: ImagePlan) -> ImageExportReport:
    selection: Selection = plan.selection
    return ImageExportReport(
        destination=str(destination),
        dry_run=True,
        image=plan.reference,
        at=plan.at,
        models=tuple(str(model.name) for model in selection.models),
        layers=len(plan.layers),
        blobs=len(selection.blobs),
        size=selection.size,
        shared_size=selection.shared_size,
        image_size=None,
        left_out=tuple(one.told for one in selection.left),
        warnings=selection.warnings,
    )
