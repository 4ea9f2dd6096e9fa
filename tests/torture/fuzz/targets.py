"""
The functions to fuzz, one line each in TARGETS. To add a reader, add its line, its function and some seeds.

A function takes any bytes. It returns or raises OstoreError; everything else is a fault. `make fuzz` finds faults,
guided by what the code does with its input, and every `make test` tries a few mutations of the same seeds. Where two of
our readers read the same thing, a function asserts that they agree.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple
from unittest.mock import patch

from ostore.formats import seek_table
from ostore.formats.bundle_index import BundleIndex
from ostore.formats.capabilities import capabilities
from ostore.formats.challenge import parse_challenges
from ostore.formats.config import ModelConfig
from ostore.formats.content_range import parse_content_range
from ostore.formats.dialect import dialect_of
from ostore.formats.digest import Digest
from ostore.formats.errors import InvalidDigestError, OstoreError
from ostore.formats.export_state import ExportState
from ostore.formats.gguf import Gguf, GgufArray, GgufField, read_array, read_gguf
from ostore.formats.gguf_facts import kind_of, parameter_count, parameter_label, split_of
from ostore.formats.gguf_split import SplitPart, merged
from ostore.formats.inventory import Inventory
from ostore.formats.json_reading import read_go_json, read_strict_json, write_canonical_json
from ostore.formats.link_record import LinkRecord, parse_folders, write_folders
from ostore.formats.lock_file import LockFile
from ostore.formats.manifest import Descriptor, Manifest, mentioned_by
from ostore.formats.modelfile import render_modelfile
from ostore.formats.modelfile_reading import Modelfile, read_modelfile
from ostore.formats.name import ModelName, choose, matches_listing
from ostore.formats.oci_layout import ImageIndex, check_layout
from ostore.formats.packaged_model import is_package, packaged_model
from ostore.formats.par2_packets import whole_packets
from ostore.formats.recipe import MadeBlob, Recipe, joined
from ostore.formats.registry_address import RegistryAddress
from ostore.formats.safetensors import read_safetensors
from ostore.formats.selection import Selection
from ostore.formats.tar_header import member_header, parse_header
from ostore.formats.upload_state import UploadState
from ostore.formats.volume_set import read_sums, write_sums
from ostore.formats.wording import clean, one_line
from ostore.formats.zstd_frame import measure_frame
from ostore.host.service_unit import _file_variables, _inline_variables, _service_assignments, environment_line
from ostore.operations.show import Message, Parameter, _messages, _parameters
from ostore.places.bundle import restore
from ostore.places.store.survey.batches import BatchRecord
from ostore.streams.document import is_document, read_document
from ostore.streams.frames import decode_frame
from ostore.streams.recipe import MadeBytes, Nesting, follow, split_head
from tests.in_memory import StayingBytes
from tests.torture.fuzz import modelfile_reader, seeds
from tests.torture.fuzz.archives import read_bundle, read_frames, read_tar, refused_alike

# What no text has stands between the parts of an input that has several.
SEPARATOR = b"\xff"


class Target(NamedTuple):
    """A reader of bytes, and inputs from which mutations start."""

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]


def read_name(data: bytes) -> None:
    text = os.fsdecode(data)
    is_full = restore.NAME.fullmatch(text)
    try:
        name = ModelName.parse(text)
    except OstoreError:
        assert not is_full
        raise
    assert (name.full == text) == bool(is_full)
    assert ModelName.parse_full(name.full) == name
    assert ModelName.parse(str(name)).folded == name.folded
    assert all(part.isascii() and part.isprintable() and part not in {"", ".", ".."} for part in name.parts)
    assert not re.search(r"[/\\\0 ]", "".join(name.parts))
    name.windows_problem()


def read_pattern(data: bytes) -> None:
    """A word of a person's, and names that it may stand for."""
    pattern, *texts = data.split(SEPARATOR)
    names = [ModelName.parse(os.fsdecode(text)) for text in texts]
    word = os.fsdecode(pattern)
    listed = [name for name in names if matches_listing(word, name)]
    chosen, unmatched = choose(names, [word])
    assert bool(chosen) != bool(unmatched)
    assert set(listed) >= set(chosen) or word.count("/") or ":" not in word


def read_digest(data: bytes) -> None:
    text = os.fsdecode(data)
    assert (Digest.of_filename(text) is None) == (re.fullmatch(r"sha256-[0-9a-f]{64}", text) is None)
    digest = Digest.tolerate(text)
    assert Digest.of_filename(digest.filename) == digest == Digest.parse(str(digest))
    if Digest.of_text(text) is None:
        assert text != str(digest)
        raise InvalidDigestError(text)
    assert restore.parse_digest(text, "") == digest.hex


def read_index(data: bytes) -> None:
    theirs = _restored(data)
    # The creator decides nothing, so the script does not look at it.
    index = refused_alike(lambda: BundleIndex.parse(data), theirs, but_for="creator")
    said = index.selection
    assert theirs
    assert [tuple(blob) for blob in theirs.blobs] == [(blob.digest.hex, blob.size) for blob in said.whole]
    assert [(made.blob.hex, made.bases, tuple(made.stored)) for made in theirs.recipes] == [
        (made.blob.digest.hex, [base.hex for base in made.bases], (made.stored.digest.hex, made.stored.size))
        for made in said.recipes
    ]
    assert [tuple(blob) for blob in theirs.requires] == [(blob.digest.hex, blob.size) for blob in said.requires]
    assert [model.name for model in theirs.models] == [model.name.full for model in said.models]
    assert [path for path, _ in theirs.files] == [file.path for file in index.files]
    assert BundleIndex.parse(index.write()) == index


def read_recipe(data: bytes) -> None:
    """The size of a blob in two bytes, and its recipe as it is stored, with bases of 300 and 100 bytes."""
    size, stored, sizes = int.from_bytes(data[:2], "big"), data[2:], (300, 100)
    head, new = split_head(iter([stored[:7], stored[7:]]))
    blob, known = Digest.of(b""), Descriptor(Digest.of(stored), len(stored))
    made = MadeBlob(Descriptor(blob, size), (), known)
    made_there = restore.Made(restore.Blob(blob.hex, size), [], restore.Blob(known.digest.hex, known.size))
    recipe = refused_alike(lambda: Recipe.parse(head, made, sizes), _steps(head, made_there, sizes))
    steps = restore.parse_steps(head, made_there, list(sizes))
    assert [(step.base, step.offset, step.length) for step in steps] == [
        (-1 if step.base is None else step.base, step.offset, step.length) for step in recipe.steps
    ]
    bases = [bytes(range(100)) * 3, bytes(100)]
    whole = b"".join(follow(recipe, [StayingBytes(base) for base in bases], new))
    assert len(whole) == size
    at = MadeBytes(recipe, [StayingBytes(base) for base in bases], StayingBytes(stored), len(head), Nesting())
    assert at.read_at(size, 0) == whole
    assert Recipe(joined(recipe.steps)).size == size


def read_manifest(data: bytes) -> None:
    plain = _said(data)
    with patch("ostore.formats.manifest.is_plain", return_value=False):
        assert _said(data) == plain
    mentioned = mentioned_by(data)
    theirs = _passed_by_restore(data)
    manifest = Manifest.parse(data)
    assert mentioned >= manifest.digests | {manifest.digest}
    ours = [(blob.digest.hex, blob.size) for blob in manifest.descriptors]
    # The script does not look at texts that decide nothing; for what it lets pass there is one reading.
    assert theirs in (None, ours)
    assert theirs is None or "mediaType" in (manifest.ambiguity or "mediaType")
    manifest.refuse_unclear()
    assert theirs == ours
    assert manifest.declared_size >= sum(blob.size for blob in manifest.blobs)
    assert len(manifest.model_id) == len(manifest.digest.hex)


def read_json(data: bytes) -> None:
    try:
        value, end, trailing = read_go_json(data)
    except OstoreError:
        value, end, trailing = None, 0, -1
    else:
        assert 0 <= end <= len(data)
        assert trailing <= len(data) - end
    strict = read_strict_json(data)
    assert trailing == 0
    assert (value == strict) or isinstance(strict, (dict, list, float))
    assert read_strict_json(write_canonical_json(strict)) == strict
    assert read_strict_json(data, is_folded=True) == strict


def read_config(data: bytes) -> None:
    config = ModelConfig.parse(data)
    assert config.is_cloud_stub in {True, False}


def read_texts(data: bytes) -> None:
    """The texts of a model as a Modelfile, which Ollama's reader must take back."""
    template, system, licence, params, messages, *_ = (*data.split(SEPARATOR), *[b""] * 5)
    texts = [part.decode("utf-8", "replace") for part in (template, system, licence)]
    parameters: tuple[Parameter, ...] = _parameters(params) if params else ()
    said: tuple[Message, ...] = _messages(messages) if messages else ()
    kinds = ("template", "system", "license")
    rendered = render_modelfile(
        "x:latest",
        [("FROM", "/models/blobs/sha256-0")],
        zip((kind.upper() for kind in kinds), texts, strict=True),
        ((parameter.key, parameter.value) for parameter in parameters),
        ((message.role, message.content) for message in said),
    )
    found = modelfile_reader.read_modelfile(rendered)
    assert found[0] == ("from", "", "/models/blobs/sha256-0")
    expected = [(kind, "", _kept(text)) for kind, text in zip(kinds, texts, strict=True) if text]
    assert found[1 : 1 + len(expected)] == expected
    rest = found[1 + len(expected) :]
    assert [key for kind, key, _ in rest if kind == "parameter"] == [parameter.key for parameter in parameters]
    assert rest[len(parameters) :] == [("message", message.role, _kept(message.content)) for message in said]


def read_instructions(data: bytes) -> None:
    """A Modelfile, as a lexer reads it that goes character by character; and what it says comes back if written."""
    try:
        slow = modelfile_reader.read_modelfile(_decoded(data))
    except modelfile_reader.UnreadableError:
        slow = []
    found = read_modelfile(data)
    said = {word: [value for kind, _, value in slow if kind == word] for word in modelfile_reader.INSTRUCTIONS}
    assert [source.text for source in found.sources] == said["from"] != []
    for word, reference in (("adapter", found.adapter), ("draft", found.draft)):
        assert ([reference.text] if reference else []) == said[word][-1:]
    for word, text in _texts(found).items():
        assert text == (said[word.lower()] or [""])[-1].removeprefix("v" if word == "REQUIRES" else "")
    assert [*found.licenses] == said["license"]
    assert [*found.messages] == [(key, value) for kind, key, value in slow if kind == "message"]
    keys = {key for kind, key, _ in slow if kind == "parameter"}
    assert {*found.parameters, *found.ignored} == keys
    assert found.parameters.get("stop", []) == [value for _, key, value in slow if key == "stop"]
    again = read_modelfile(_written(found).encode())
    assert _values(again) == _values(found)
    assert not again.dropped


def _decoded(data: bytes) -> str:
    marks = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
    mark = next((mark for mark in marks if data.startswith(mark)), b"")
    return data[len(mark) :].decode(marks.get(mark, "utf-8"), "replace")


def _texts(modelfile: Modelfile) -> dict[str, str]:
    words = ("TEMPLATE", "SYSTEM", "RENDERER", "PARSER", "REQUIRES")
    return {word: getattr(modelfile, word.lower()) for word in words}


def _written(modelfile: Modelfile) -> str:
    others = (("ADAPTER", modelfile.adapter), ("DRAFT", modelfile.draft))
    named = [("FROM", source.text) for source in modelfile.sources]
    named += [(word, reference.text) for word, reference in others if reference]
    texts = [*_texts(modelfile).items(), *(("LICENSE", text) for text in modelfile.licenses)]
    listed = ((key, value if isinstance(value, list) else [value]) for key, value in modelfile.parameters.items())
    parameters = [(key, value) for key, values in listed for value in values]
    return render_modelfile("x", named, texts, parameters, modelfile.messages)


def _values(modelfile: Modelfile) -> tuple[object, ...]:
    """What a Modelfile says, wherever it stands. An empty licence says nothing."""
    references = (*modelfile.sources, modelfile.adapter, modelfile.draft)
    named = [reference and reference.text for reference in references]
    licenses = [text for text in modelfile.licenses if text]
    return named, _texts(modelfile), licenses, modelfile.messages, dict(modelfile.parameters)


def read_selection(data: bytes) -> None:
    """Names and manifests in turn."""
    parts = data.split(SEPARATOR)
    pairs = zip(parts[::2], parts[1::2], strict=False)
    found = Selection.of((ModelName.parse(os.fsdecode(name)), Manifest.parse(raw)) for name, raw in pairs)
    assert found.restricted(model.name for model in found.models) == found
    assert found.shared_size >= 0
    if found.size < 2**63:
        assert BundleIndex.parse(BundleIndex("", found, ()).write()).selection == found


def read_record(data: bytes) -> None:
    record = BatchRecord.parse(data)
    assert BatchRecord.parse(record.write()) == record


def read_links(data: bytes) -> None:
    """The record of a folder of links, and with a first byte of 255 the list of such folders."""
    if data[:1] == SEPARATOR:
        folders = parse_folders(data[1:])
        assert {*parse_folders(write_folders(folders))} == {*folders}
    else:
        record = LinkRecord.parse(data)
        assert LinkRecord.parse(record.write()).write() == record.write()
        assert not [file for model in record.models for file in model.files if ".." in file.path.split("/")]


def read_unit(data: bytes) -> None:
    """A unit of systemd and an environment file; and what we write for one comes back."""
    text = data.decode("utf-8-sig", "surrogateescape").replace("\0", "")
    for _, value in _service_assignments(text):
        list(_inline_variables(value))
    list(_file_variables(text))
    line = environment_line("OLLAMA_MODELS", text)
    assert line.isprintable()
    if text.isprintable():
        assert list(_inline_variables(line.removeprefix("Environment=").replace("%%", "%"))) == [
            ("OLLAMA_MODELS", text)
        ]


def read_text(data: bytes) -> None:
    shown = clean(os.fsdecode(data))
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert one_line(shown).isprintable()
    shown.encode()


def read_header(data: bytes) -> None:
    """One tar header. An input of odd length first gets the right checksum."""
    block = bytearray(data[:512].ljust(512, b"\0"))
    if len(data) % 2:
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    header = parse_header(bytes(block))
    assert header.name.isascii()
    assert 0 <= header.size < 2**63
    if header.type_flag == b"0" and 0 < len(header.name) <= 100:
        again = parse_header(member_header(header.name, header.size))
        assert again == header


def read_weights(data: bytes) -> None:
    """The header of a GGUF, and all that is told from it."""
    gguf = read_gguf(_at(data), len(data), "x")
    assert all(field.offset + field.size <= gguf.data_offset for field in gguf.fields.values())
    for tensor in gguf.tensors:
        assert gguf.data_offset + tensor.offset + (tensor.size or 0) <= len(data)
    for value in gguf.metadata.values():
        if isinstance(value, GgufArray):
            assert len(read_array(_at(data), gguf, value, count=9)) == min(9, value.count)
    assert kind_of(gguf) in {"model", "adapter", "projector"}
    assert parameter_label(parameter_count(gguf))
    assert capabilities(ModelConfig(), "", gguf)
    assert dialect_of(gguf, _at(data)) in {None, gguf.architecture}
    if split_of(gguf) is None and None not in {tensor.size for tensor in gguf.tensors}:
        _merge(gguf, data)


def _merge(gguf: Gguf, data: bytes) -> None:
    """As the first part of a set whose second has no tensors: the whole is like the part."""
    own = {key: field for key, field in gguf.fields.items() if not key.startswith("split.")}
    values = ({"no": number, "count": 2, "tensors.count": len(gguf.tensors)} for number in (0, 1))
    first, second = ({f"split.{key}": GgufField(value, 4, 0, 0) for key, value in said.items()} for said in values)
    parts = (replace(gguf, fields={**own, **first}), replace(gguf, fields=second, tensors=()))
    plan = merged([SplitPart("x", part, _at(data)) for part in parts])
    pieces = (data[piece.offset :][: piece.size] + bytes(piece.padding) for piece in plan.pieces)
    whole = plan.header + b"".join(pieces)
    again = read_gguf(_at(whole), len(whole), "x")
    assert (list(again.fields), plan.size) == (list(own), len(whole))
    assert [tensor.name for tensor in again.tensors] == [tensor.name for tensor in gguf.tensors]


def read_tensors(data: bytes) -> None:
    found = read_safetensors(_at(data), len(data), "x")
    assert found.data_offset + sum(tensor.size for tensor in found.tensors) == len(data)
    assert {tensor.name for tensor in found.unpacked} <= {tensor.name for tensor in found.tensors}


def read_inventory(data: bytes) -> None:
    found = Inventory.parse(data)
    assert Inventory.parse(found.write()) == found
    for blob in found.blobs:
        end = blob.tensors.header.size if blob.tensors else 0
        for tensor in blob.tensors.tensors if blob.tensors else ():
            assert tensor.offset >= end
            end = tensor.offset + tensor.length
        assert end <= blob.size


def read_lock(data: bytes) -> None:
    found = LockFile.parse(data)
    again = LockFile.parse(found.write())
    assert (again.models, again.write()) == (found.models, found.write())
    assert found.updated(found.models, is_whole=True) == found
    assert found.changes_to(again) == ()


def read_carried(data: bytes) -> None:
    """An inventory or a lock as other programs leave it."""
    limit = 1024 * 1024
    is_one = is_document(data)
    text = read_document(io.BytesIO(data[1:]).read, limit, data[:1])
    assert len(text) <= limit
    assert text.lstrip().startswith((b"{", b"#", b"sha256:")) or not is_one


def read_layout(data: bytes) -> None:
    """The index of an OCI image layout; what cannot be read of it stays in it."""
    found = ImageIndex.parse(data)
    assert all(bool(entry.problem) != bool(entry.name and entry.manifest) for entry in found.entries)
    again = ImageIndex.parse(found.write())
    assert [entry.raw for entry in again.entries] == [entry.raw for entry in found.entries]
    name, blob = ModelName.parse("x"), Descriptor(Digest.of(data), 1)
    added = ImageIndex.parse(found.with_models([(name, blob)]).write())
    assert [entry.manifest for entry in added.entries if entry.name == name] == [blob]
    check_layout(data)


def _at(data: bytes) -> Callable[[int, int], bytes]:
    return lambda size, offset: data[offset : offset + size]


def read_frame(data: bytes) -> None:
    span = measure_frame(data)
    if span is None or span.size > len(data):
        return
    assert len(decode_frame(data[: span.size])) == span.content_size


def read_table(data: bytes) -> None:
    assert seek_table.table_size(data) is None or len(data) == seek_table.FOOTER_BYTES
    spans = seek_table.read_table(data)
    assert seek_table.write_table(spans)[8:] == data[8:]


def read_list(data: bytes) -> None:
    digests = read_sums("x.tar.zst", data)
    assert write_sums("x.tar.zst", digests) == data.replace(b" *", b"  ")


def read_parity(data: bytes) -> None:
    names = {"x.tar.zst.001", "x.tar.zst.002"}
    end = 0
    for packet in whole_packets(lambda size, at: data[at : at + size], len(data), names=names, subject="p"):
        assert end <= packet.offset
        assert packet.name in {None, *names}
        end = packet.offset + packet.size
    assert end <= len(data)


def read_state(data: bytes) -> None:
    """How far an export is. An input of odd length first gets the right sum."""
    if len(data) % 2:
        data = data[:-64] + hashlib.sha256(data[:-64]).hexdigest().encode()
    state = ExportState.parse(data)
    assert ExportState.parse(state.write()) == state
    assert 0 < state.offset < 2**63
    assert sum(span.content_size for span in state.spans) in {0, state.offset}


def read_heads(data: bytes) -> None:
    """What servers say in headers. `http.client` decodes them like this."""
    text = data.decode("latin-1")
    parse_challenges([text])
    if span := parse_content_range(text):
        first, end, total = span
        assert 0 <= first < end <= (end if total is None else total)


def read_upload(data: bytes) -> None:
    """How far an upload is."""
    if state := UploadState.parse(data):
        assert UploadState.parse(state.write()) == state


def read_package(data: bytes) -> None:
    """A manifest of a packaged model, and its config. What is made of it is a plain manifest of some of its layers."""
    raw, _, config = data.partition(SEPARATOR)
    package = Manifest.parse(raw)
    package.refuse_unclear()
    if is_package(package):
        made = packaged_model(package, config)
        made.manifest.refuse_unclear()
        assert made.manifest.config
        assert made.manifest.config.digest == Digest.of(made.config)
        assert {layer.digest for layer in made.manifest.layers} <= {layer.digest for layer in package.layers}
        assert packaged_model(package, config).manifest.raw == made.manifest.raw
        ModelConfig.parse(made.config)


def read_address(data: bytes) -> None:
    """The address of a registry, as it is typed."""
    if address := RegistryAddress.parse(_decoded(data)):
        assert address.has(address.name_of(ModelName.parse("me/m:t")))
        assert "@" not in address.host


TARGETS = {
    "name": Target(read_name, seeds.names),
    "pattern": Target(read_pattern, seeds.patterns),
    "digest": Target(read_digest, seeds.digests),
    "index": Target(read_index, seeds.indexes),
    "recipe": Target(read_recipe, seeds.recipes),
    "manifest": Target(read_manifest, seeds.manifests),
    "json": Target(read_json, seeds.documents),
    "config": Target(read_config, seeds.configs),
    "modelfile": Target(read_texts, seeds.texts),
    "instructions": Target(read_instructions, seeds.modelfiles),
    "selection": Target(read_selection, seeds.selections),
    "record": Target(read_record, seeds.records),
    "links": Target(read_links, seeds.links),
    "inventory": Target(read_inventory, seeds.inventories),
    "layout": Target(read_layout, seeds.layouts),
    "lock": Target(read_lock, seeds.locks),
    "carried": Target(read_carried, seeds.carried),
    "unit": Target(read_unit, seeds.units),
    "text": Target(read_text, seeds.names),
    "header": Target(read_header, seeds.headers),
    "tar": Target(read_tar, seeds.archives),
    "gguf": Target(read_weights, seeds.weights),
    "safetensors": Target(read_tensors, seeds.tensors),
    "frame": Target(read_frame, seeds.frames),
    "table": Target(read_table, seeds.tables),
    "state": Target(read_state, seeds.states),
    "heads": Target(read_heads, seeds.heads),
    "upload": Target(read_upload, seeds.uploads),
    "package": Target(read_package, seeds.packages),
    "address": Target(read_address, seeds.addresses),
    "frames": Target(read_frames, seeds.framed),
    "bundle": Target(read_bundle, seeds.archives),
    "list of volumes": Target(read_list, seeds.lists),
    "parity": Target(read_parity, seeds.parity),
}


def _restored(raw: bytes) -> restore.Index | None:
    try:
        return restore.parse_index(raw)
    except restore.RestoreError:
        return None


def _steps(head: bytes, made: restore.Made, sizes: Sequence[int]) -> list[restore.Step] | None:
    try:
        return restore.parse_steps(head, made, list(sizes))
    except restore.RestoreError:
        return None


def _passed_by_restore(raw: bytes) -> list[tuple[str, int]] | None:
    """The blobs of a manifest that the script in every bundle would let into a store, if the index says the same."""
    try:
        value, _ = restore.parse_json(raw, "")
        blobs = restore.references(value, "")
        hexes = list(dict.fromkeys(blob.hex for blob in blobs))
        model = restore.Model("", (), restore.Blob("", 0), hexes)
        restore.check_manifest(raw, model, {blob.hex: blob.size for blob in blobs})
    except restore.RestoreError:
        return None
    return [(blob.hex, blob.size) for blob in blobs]


def _said(raw: bytes) -> tuple[object, ...]:
    """All that a manifest says, or why it is none."""
    try:
        manifest = Manifest.parse(raw)
    except OstoreError as error:
        return (type(error), str(error))
    said = (manifest.config, manifest.layers, manifest.children, manifest.descriptors, manifest.digests)
    return (*said, manifest.ambiguity, manifest.unfit, manifest.end_offset, manifest.model_id)


def _kept(text: str) -> str:
    """What Ollama keeps of a value."""
    return "".join(character for character in text if character.isprintable() or character in "\t\r\n")
