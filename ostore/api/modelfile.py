"""Write a model of the store as a Modelfile, and say in it what would be lost on the way back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ostore.api.create_sources import stored_layer
from ostore.api.show import chosen_model
from ostore.formats import media_types
from ostore.formats.errors import OstoreError
from ostore.formats.json_reading import read_strict_json
from ostore.formats.manifest import Descriptor, Manifest
from ostore.formats.modelfile import render_modelfile
from ostore.formats.modelfile_reading import Modelfile, read_modelfile
from ostore.formats.parts import instructions_of
from ostore.formats.store_layout import BLOBS
from ostore.operations.create import NewModel, new_model
from ostore.operations.show import ShownModel, show_model
from ostore.places.store.store import LocalStore

# A Modelfile has a line for each of these, so what differs is their text.
_TEXTS = {
    media_types.TEMPLATE: "TEMPLATE",
    media_types.SYSTEM: "SYSTEM",
    media_types.LICENSE: "LICENSE",
    media_types.MESSAGES: "MESSAGE",
}


def modelfile(name: str, *, models: Path | None = None) -> str:
    """
    Return the text of a Modelfile that builds a model again from the blobs of this store.

    Its first lines say what `create` would not bring back. `name` may be a glob that matches one model. Raises what
    `show` raises, and FormatError for a value that no Modelfile can say.
    """
    store, model = chosen_model(name, models)
    shown = show_model(store, model)
    layers = instructions_of(model.manifest)
    # Tensors have no single file to name, and a model on another host has none. Ollama also names the model then.
    sources = [(word, str(store.root / BLOBS / layer.digest.filename)) for word, layer in layers]
    named = sources or [("FROM", shown.name)]
    remarks = tuple(_lost(store, shown, model.manifest, layers, modelfile_of(shown, named)))
    return modelfile_of(shown, named, remarks, name=shown.name)


def modelfile_of(
    shown: ShownModel, sources: Sequence[tuple[str, str]], remarks: Sequence[str] = (), *, name: str = ""
) -> str:
    """
    Return the text of a Modelfile with these FROM, ADAPTER and DRAFT lines.

    It says how to build on the model `name`, if one is given. Raises FormatError as `modelfile`.
    """
    config = shown.config
    return render_modelfile(
        name,
        sources,
        (
            ("TEMPLATE", shown.template),
            ("SYSTEM", shown.system),
            ("RENDERER", config.renderer),
            ("PARSER", config.parser),
            ("REQUIRES", config.requires),
            *(("LICENSE", text) for text in shown.licenses),
        ),
        ((parameter.key, parameter.value) for parameter in shown.parameters),
        ((message.role, message.content) for message in shown.messages),
        remarks=remarks,
    )


def _lost(
    store: LocalStore, shown: ShownModel, manifest: Manifest, layers: Sequence[tuple[str, Descriptor]], text: str
) -> Iterator[str]:
    """Make the model of the Modelfile, without writing it, and yield what it lacks."""
    if shown.config.is_cloud_stub:
        yield f"it runs on {shown.config.remote_host}, and has no weights here"
        return
    if not layers:
        yield "a Modelfile cannot name its tensors; FROM builds on the model where it is"
        return
    try:
        parts = [stored_layer(layer._replace(origin=""), store) for _, layer in layers]
    except (OstoreError, OSError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        yield f"what is lost is not known: {reason}"
        return
    read = read_modelfile(text.encode("utf-8", "surrogateescape"))
    yield from _differences(manifest, shown, read, new_model(read, parts))


def _differences(manifest: Manifest, shown: ShownModel, read: Modelfile, made: NewModel) -> Iterator[str]:
    before, after = (
        Counter((layer.media_type, layer.digest) for layer in one.layers) for one in (manifest, made.manifest)
    )
    if any(layer.origin for layer in manifest.layers):
        yield "what it was built from, so the model gets another ID"
    if before == after and list(map(_place, manifest.layers)) != list(map(_place, made.manifest.layers)):
        yield "the layers come in another order, so the model gets another ID"
    for kind, count in sorted(Counter(kind for kind, _ in (before - after).elements()).items()):
        if kind == media_types.PARAMS:
            # Their values are all there: a parameter that cannot be said is an error.
            yield "the parameters are written anew, so the model gets another ID"
        elif kind not in _TEXTS:
            yield f"{count} of its layers: {kind}"
        elif read.dropped:
            yield f"{_TEXTS[kind]} loses characters that cannot be printed"
        else:
            yield f"{_TEXTS[kind]} is not what the model has"
    made_config = made.manifest.config
    config = read_strict_json(made.blobs[made_config.digest]) if made_config else None
    stored = read_strict_json(shown.raw_config) if shown.raw_config else None
    if isinstance(config, dict) and isinstance(stored, dict):
        # No Ollama reads `rootfs`, and none has written it since 0.32.7.
        keys = sorted(key for key in stored if key != "rootfs" and stored[key] != config.get(key))
        if keys:
            yield f"what its config says of {', '.join(keys)}"


def _place(layer: Descriptor) -> tuple[str, str]:
    return layer.media_type, layer.digest.hex
