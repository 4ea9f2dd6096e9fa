"""Make a model of a Modelfile, of GGUF files, or of a folder of them. No server has to run, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ostore.api.create_sources import CreateSources, find_sources
from ostore.api.typed import means_model, typed_name
from ostore.formats import media_types
from ostore.formats.dialect import dialect_of, runs_in
from ostore.formats.errors import DamagedStoreError, FormatError, NotFoundError, UsageError
from ostore.formats.gguf_facts import chat_template, is_embedding
from ostore.formats.go_template import check_template
from ostore.formats.modelfile_reading import MAX_MODELFILE_BYTES, Modelfile, Reference, read_modelfile
from ostore.formats.name import ModelName, is_glob
from ostore.formats.remedy import ostore
from ostore.formats.selection import Selection
from ostore.host.discovery import doubts_of_choice
from ostore.operations.create import NewModel, new_model
from ostore.places.files.weights import opened_file
from ostore.places.store.receiving.sink import StoreSink
from ostore.places.store.store import LocalStore
from ostore.settings import choose_store, surroundings, threads
from ostore.streams.chunks import read_full
from ostore.streams.links import is_there
from ostore.streams.progress import SILENT, Progress

MODELFILE = "Modelfile"
_BARE_PROMPT = "Ollama before 0.30 sends it the bare prompt"


@dataclass(frozen=True, slots=True)
class CreatedLayer:
    """A layer of a new model. `size` is in bytes."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class CreateReport:
    """
    What was made. `outcome` is added, replaced, repaired (a broken manifest had the name) or already there.

    `size_copied` is the bytes of weights that were written, `size_linked` those that have a second name now. Weights
    that were cloned or there already are neither.
    """

    store: str
    model: str
    outcome: str
    digest: str
    layers: tuple[CreatedLayer, ...]
    size_copied: int
    size_linked: int
    warnings: tuple[str, ...]


def create(
    name: str,
    sources: Sequence[str | Path] = (),
    *,
    modelfile: str | Path | None = None,
    link: bool = False,
    replace: bool = False,
    progress: Progress = SILENT,
    models: Path | None = None,
) -> CreateReport:
    """
    Make the model `name` of `sources`, GGUF files or a folder, or of a `modelfile`: a path, or `-` for standard input.

    Without either, it is the file Modelfile in the present folder, or else the GGUF there. Weights keep their bytes:
    they are cloned where the disk can, else copied; with `link` they get a second name, and are then one file with the
    source. A model that FROM names is relied upon by the sizes of its blobs. `replace` allows overwriting a different
    model.

    Raises UsageError, NotFoundError for a file or a model that FROM names, FormatError for a Modelfile or GGUF with a
    mistake in it, LimitError, IntegrityError for weights that end too early or change meanwhile, UnsafeError for a name
    that differs from another only by case, DamagedStoreError, NoSpaceError, BusyError, OSError.
    """
    target = _target(name)
    choice = choose_store(models)
    store = LocalStore(choice.path)
    instructions, folder = _instructions(name, sources, modelfile, store)
    found = find_sources(instructions, folder, store)
    sink = StoreSink(
        store,
        replace=replace,
        make_parents=choice.reason not in {"flag", "environment"},
        jobs=threads(None),
        progress=progress,
    )
    with sink.draft(target, sizes := found.sizes_to_stage) as draft:
        if sizes:
            progress.phase("taking in weights", sum(sizes))
        made = new_model(instructions, found.staged(draft, link=link), found.base)
        selection = Selection.of([(target, made.manifest)])
        with draft.receive(selection, found.trusted) as inbox:
            for wanted in inbox.missing:
                if (data := made.blobs.get(wanted.blob.digest)) is None:
                    raise DamagedStoreError(f"blob {wanted.blob.digest}: removed by another program meanwhile")
                inbox.write_blob(wanted, iter([data]))
            inbox.write_manifest(target, made.manifest.raw)
            # It looks into the files, which somebody may take away as soon as the model is there.
            warnings = (*doubts_of_choice(surroundings(), choice), *_warnings(instructions, found, made))
    return CreateReport(
        store=str(store.root),
        model=str(target),
        outcome=inbox.received.outcomes[target].value,
        digest=str(made.manifest.digest),
        layers=tuple(CreatedLayer(blob.media_type, str(blob.digest), blob.size) for blob in made.manifest.layers),
        size_copied=draft.copied_bytes,
        size_linked=draft.linked_bytes,
        warnings=warnings,
    )


def _target(name: str) -> ModelName:
    if is_glob(name):
        raise UsageError(f"{name!r}: expected one new name, got a glob")
    return typed_name(name)


def _instructions(
    name: str, sources: Sequence[str | Path], modelfile: str | Path | None, store: LocalStore
) -> tuple[Modelfile, Path]:
    """Return what is to be made, and the folder that its paths begin at."""
    words = [str(source) for source in sources]
    if words and modelfile is not None:
        raise UsageError("expected a Modelfile or files, got both", hint="FROM in the Modelfile names the files")
    if words:
        for word in words:
            _refuse_other_than_weights(name, word, store)
        return Modelfile(tuple(Reference(word, 0) for word in words)), Path()
    if modelfile is None and not Path(MODELFILE).exists():
        if any(Path().glob("*.gguf")):
            return Modelfile((Reference(".", 0),)), Path()
        hint = "name a file: create NAME FILE.gguf, or -f Modelfile"
        raise UsageError(f"neither a {MODELFILE} nor a GGUF in this folder", hint=hint)
    path = Path(MODELFILE if modelfile is None else modelfile)
    instructions = read_modelfile(_read(path))
    try:
        # Before hours of hashing.
        check_template(instructions.template)
    except FormatError as error:
        raise FormatError(f"Modelfile: {error}") from None
    return instructions, Path() if str(path) == "-" else path.parent


def _refuse_other_than_weights(name: str, word: str, store: LocalStore) -> None:
    path = Path(word)
    if path.is_dir() and (path / MODELFILE).is_file():
        raise UsageError(f"{word}: a folder with a Modelfile", hint=ostore("create", name, "-f", path / MODELFILE))
    if path.is_file() and MODELFILE.lower() in path.name.lower():
        raise UsageError(f"{word}: a Modelfile, and no weights", hint=ostore("create", name, "-f", path))
    if not is_there(path) and means_model(word, store):
        copy = ostore("cp", word, name, before="a model gets a second name by")
        raise NotFoundError(f"{word}: no such file or folder", hint=copy)


def _read(path: Path) -> bytes:
    """Read a Modelfile. It may come out of a pipe."""
    limit = MAX_MODELFILE_BYTES + 1
    if str(path) == "-":
        return read_full(0, limit)
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such Modelfile") from None


def _warnings(modelfile: Modelfile, found: CreateSources, made: NewModel) -> Iterator[str]:
    """Say what Ollama leaves out, and what a person would find out only when the model runs."""
    for key in modelfile.ignored:
        yield f"PARAMETER {key} is left out: Ollama knows it no more"
    if modelfile.dropped:
        yield "characters that cannot be printed are left out, as Ollama does"
    has_template = any(layer.media_type == media_types.TEMPLATE for layer in made.manifest.layers)
    for file in found.files:
        path = file.weights.paths[0]
        with opened_file(path) as opened:
            dialect = dialect_of(file.weights.gguf, opened.read_at)
        if dialect:
            yield f"{path}: {runs_in(dialect)}"
        if file.media_type == media_types.MODEL and not has_template and not is_embedding(file.weights.gguf):
            if chat_template(file.weights.gguf):
                yield f"{path}: its chat template is in Jinja, and there is no TEMPLATE: {_BARE_PROMPT}"
            else:
                yield f"{path}: neither a chat template nor a TEMPLATE: {_BARE_PROMPT}, later ones format it as ChatML"
