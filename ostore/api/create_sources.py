"""Find what a Modelfile names: the files of weights, or the model of the store that it builds on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.typed import means_model, means_name, typed_models
from ostore.formats import media_types
from ostore.formats.digest import Digest
from ostore.formats.errors import DamagedStoreError, NotFoundError, UsageError
from ostore.formats.gguf import Gguf
from ostore.formats.gguf_facts import kind_of, parameter_count, parameter_label, quantization_in_config
from ostore.formats.manifest import Descriptor
from ostore.formats.modelfile_reading import Modelfile, Reference
from ostore.formats.name import ModelName
from ostore.formats.remedy import ostore
from ostore.formats.store_layout import BLOBS
from ostore.operations.create import Base, Header, Layer
from ostore.operations.show import handed_down
from ostore.operations.transfer import Draft
from ostore.operations.weights import opened_gguf
from ostore.places.files.weights import WeightFile, find_weights, merged_chunks
from ostore.places.store.store import LocalStore
from ostore.places.store.survey.scan import StoredModel
from ostore.streams.links import is_there

_KINDS = {"model": media_types.MODEL, "adapter": media_types.ADAPTER, "projector": media_types.PROJECTOR}
# Layers whose header the config of a model tells of.
_WITH_HEADER = frozenset({media_types.MODEL, media_types.DRAFT})


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of weights, the type of its layer, and its blob if the file is one of the store already."""

    weights: WeightFile
    media_type: str
    stored: Descriptor | None

    def layer(self, blob: Descriptor) -> Layer:
        return Layer(blob._replace(media_type=self.media_type), _header(self.weights.gguf))


@dataclass(frozen=True, slots=True)
class CreateSources:
    """What a model is made of: the layers of a model of the store, then files."""

    base: Base | None
    inherited: tuple[Layer, ...]
    files: tuple[SourceFile, ...]

    @property
    def trusted(self) -> frozenset[Digest]:
        """The blobs of the store that are relied upon by their sizes, so that no weights are read."""
        stored = (file.stored for file in self.files if file.stored)
        return frozenset(blob.digest for blob in (*(layer.blob for layer in self.inherited), *stored))

    @property
    def sizes_to_stage(self) -> list[int]:
        """The bytes of each file that is not in the store already."""
        return [file.weights.size for file in self.files if file.stored is None]

    def staged(self, draft: Draft, *, link: bool) -> list[Layer]:
        """
        Take the files in, and return all layers in their order. Raises what `Draft.stage` raises.

        A file that is no longer the one whose header was read is refused.
        """
        staged = [file.layer(file.stored or _stage(draft, file.weights, link=link)) for file in self.files]
        for file in self.files:
            # A server touches the blobs that it needs again.
            if file.stored is None:
                file.weights.refuse_changes()
        return [*self.inherited, *staged]


def find_sources(modelfile: Modelfile, folder: Path, store: LocalStore) -> CreateSources:
    """
    Find what a Modelfile in a folder names. What FROM names is a file or folder if there is one, else a model.

    Raises NotFoundError, UsageError, and the errors of `find_weights` and of a damaged model.
    """
    paths = [(reference, _path_of("FROM", reference, folder)) for reference in modelfile.sources]
    # Several lines may name the parts of one set.
    files_meant = {path for _, path in paths if is_there(path)}
    found = {weights.paths: weights for weights in find_weights(*(path for _, path in paths if path in files_meant))}
    names = [reference for reference, path in paths if path not in files_meant]
    if found and names:
        raise UsageError(f"{_said('FROM', names[-1])} names no file, and another FROM does", hint="keep one of them")
    files = [_source_file(weights, _KINDS[kind_of(weights.gguf)], store) for weights in found.values()]
    if not all(file.stored for file in files):
        # As Ollama layers them: by their paths, what was merged last. Blobs stay in the order in which
        # `show --modelfile` names them.
        files.sort(key=lambda file: (file.weights.plan is not None, file.weights.paths[0].absolute().as_posix()))
    _refuse_several(files)
    for word, reference, media_type in (
        ("ADAPTER", modelfile.adapter, media_types.ADAPTER),
        ("DRAFT", modelfile.draft, media_types.DRAFT),
    ):
        if reference:
            weights = _other(word, reference, media_type, folder)
            if weights.paths in found:
                raise UsageError(f"{_said(word, reference)}: FROM names the same file", hint="keep one of them")
            files.append(_source_file(weights, media_type, store))
    if not names:
        return CreateSources(None, (), tuple(files))
    # Of several models, the last one counts.
    base, inherited = _inherited(names[-1], store)
    return CreateSources(base, inherited, tuple(files))


def _path_of(word: str, reference: Reference, folder: Path) -> Path:
    try:
        expanded = Path(reference.text).expanduser()
    except RuntimeError:
        raise UsageError(f"{_said(word, reference)}: there is no such home") from None
    return folder / expanded


def _source_file(weights: WeightFile, media_type: str, store: LocalStore) -> SourceFile:
    path = weights.paths[0]
    digest = Digest.of_filename(path.name) if len(weights.paths) == 1 else None
    is_stored = digest is not None and store.exists and _is_same(path.parent, store.root / BLOBS)
    return SourceFile(weights, media_type, Descriptor(digest, weights.size) if digest and is_stored else None)


def _is_same(one: Path, other: Path) -> bool:
    return other.is_dir() and one.samefile(other)


def _refuse_several(files: Sequence[SourceFile]) -> None:
    models = [file for file in files if file.media_type == media_types.MODEL]
    if len(models) > 1:
        listed = ", ".join(file.weights.name for file in models[:3])
        raise UsageError(f"expected one model, got {len(models)}: {listed}", hint="name one of the files")
    if files and not models:
        what = files[0].media_type.rpartition(".")[2]
        raise UsageError(f"{files[0].weights.paths[0]}: only {what} weights, and a model needs others")


def _other(word: str, reference: Reference, media_type: str, folder: Path) -> WeightFile:
    path = _path_of(word, reference, folder)
    if not is_there(path):
        raise NotFoundError(f"{_said(word, reference)}: no such file or folder")
    files = find_weights(path)
    if len(files) > 1:
        raise UsageError(f"{_said(word, reference)}: expected one file, got {len(files)}")
    [file] = files
    if media_type == media_types.ADAPTER and kind_of(file.gguf) != "adapter":
        raise UsageError(f"{_said(word, reference)}: its header says that it is a {kind_of(file.gguf)}")
    return file


def _inherited(reference: Reference, store: LocalStore) -> tuple[Base, tuple[Layer, ...]]:
    model = _model_of(reference, store)
    config, parameters = handed_down(store, model)
    if config.is_cloud_stub:
        raise UsageError(f"{model.name}: runs on {config.remote_host}, and has no weights here to build on")
    origin = str(ModelName.parse(reference.text))
    layers = (layer._replace(origin=origin) for layer in model.manifest.layers)
    return Base(config, parameters), tuple(stored_layer(layer, store) for layer in layers)


def _model_of(reference: Reference, store: LocalStore) -> StoredModel:
    word, said = reference.text, _said("FROM", reference)
    if not means_name(word) or (_is_path_like(word) and not means_model(word, store)):
        hint = ostore("list", models=store.option, after="shows the names of models")
        raise NotFoundError(f"{said}: no such file or folder, and no name of a model", hint=hint)
    try:
        scan = store.require().scan(typed_models([word], store))
    except NotFoundError as error:
        hint = ostore("list", models=store.option, before="pull or import it first", after="shows what is there")
        raise NotFoundError(f"{said}: no such file, and {error}", hint=hint) from None
    for entry in scan.unreadable:
        raise DamagedStoreError(f"{entry.path}: {entry.reason}")
    # Raises the error of a model that lacks a blob, or whose manifest must not travel.
    store.select_scanned(scan, [word])
    return scan.models[0]


def _is_path_like(word: str) -> bool:
    return word.startswith((".", "/", "\\", "~")) or word.endswith((".gguf", ".safetensors", ".bin"))


def stored_layer(layer: Descriptor, store: LocalStore) -> Layer:
    """Return a layer of a model of the store, with the header that a config tells of. Raises OstoreError, OSError."""
    if layer.media_type not in _WITH_HEADER:
        return Layer(layer)
    with opened_gguf(store, layer.digest) as (gguf, _):
        return Layer(layer, _header(gguf))


def _header(gguf: Gguf) -> Header:
    return Header(gguf.architecture, parameter_label(parameter_count(gguf)), quantization_in_config(gguf))


def _stage(draft: Draft, file: WeightFile, *, link: bool) -> Descriptor:
    if file.plan is None:
        return draft.stage(file.paths[0], stamp=file.stamps[0], link=link)
    if link:
        raise UsageError(f"{file.name}: the parts become one file, so they cannot be linked")
    return draft.write(merged_chunks(file.plan, file.paths, file.stamps), file.size, file.name)


def _said(word: str, reference: Reference) -> str:
    """What stands in the Modelfile, for a message. A word of the command line has no line."""
    text = f"{reference.text:.120}"
    return f"Modelfile, line {reference.line}: {word} {text}" if reference.line else text
