"""
The manifest parser. It keeps the raw bytes and reads them as Ollama does.

Parsing is tolerant, as in Go, because a store holds what Ollama wrote. `refuse_unclear` is strict: a manifest has to
pass it to leave or enter a store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeGuard

from ostore.formats import media_types
from ostore.formats.digest import Digest
from ostore.formats.errors import (
    AmbiguousManifestError,
    FormatError,
    InvalidDigestError,
    InvalidManifestError,
    LimitError,
    OstoreError,
    UnsafeError,
)
from ostore.formats.json_reading import GoObject, read_go_json
from ostore.formats.plain_manifest import (
    LARGE_BYTES,
    PlainDescriptor,
    has_large_blob,
    is_plain,
    plain_config,
    plain_descriptors,
    plain_digests,
    plain_layer_types,
    plain_sizes,
)

# A manifest of 1,000 tensor layers has 0.23 MB. This is also the limit of oras-go and of the distribution registry.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
# The largest known model has a few thousand tensors. Each layer takes a descriptor in memory.
MAX_LAYERS = 20_000
# A real config has less than 1 kB. One that lists every digest of a model of 1,000 tensors has 0.1 MB.
MAX_CONFIG_BYTES = 4 * 1024 * 1024
MAX_MEDIA_TYPE_CHARACTERS = 255
_MAX_INT64 = 2**63 - 1

# Branch pdevine/manifest-list of ollama (April 2026): a document with this key lists manifests, not layers.
_MANIFESTS = "manifests"
_SURROGATE = re.compile("[\ud800-\udfff]")
# A digest where a descriptor has it. Go reads keys in any case.
_DIGEST_VALUE = re.compile(rb'((?i:"digest")\s*:\s*)"sha256[:-]([0-9a-fA-F]{64})"')
_DIGEST_SHAPED = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


class Descriptor(NamedTuple):
    """
    What a manifest says of one blob. `size` is in bytes. `origin` is the layer's `from`; never open it as a path.

    It is a tuple because a store has one for every blob of every model. A dataclass takes three times as long to make.
    """

    digest: Digest
    size: int
    media_type: str = ""
    origin: str = ""
    layer_name: str = ""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a manifest says when it is read as JSON."""

    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    children: tuple[Digest, ...]
    ambiguity: str | None
    unfit: str | None
    end_offset: int


class Manifest:
    """
    A manifest: its bytes and what they say. `parse` makes one. It defines no equality: compare `raw` instead.

    `config` is None if its digest is empty, which Ollama allows. `layers` are in the order of the manifest, with
    repeats. `children` are the digests that a manifest list names; a list has no layers.
    `ambiguity` says why two readers may understand the manifest differently, or is None.
    `unfit` says why it must not leave or enter a store although Ollama lists it, or is None.
    `is_plain` is true if it is written exactly as Ollama writes it. Its descriptors are then made on first use.
    """

    def __init__(self, raw: bytes, reading: _Reading | None) -> None:
        self.raw = raw
        self.is_plain = reading is None
        self.children = reading.children if reading else ()
        self.ambiguity = reading.ambiguity if reading else None
        self.unfit = reading.unfit if reading else None
        self._reading = reading

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """
        Read a manifest as Ollama would.

        Raises:
            InvalidManifestError: it is empty, is not JSON, or has a field of a type that Go refuses.
            InvalidDigestError: it has a digest that Ollama cannot turn into a path.
            UnsafeError: it has both layers (or a config) and a list of manifests.
            LimitError: it has more bytes, layers or nesting than the limits allow.
        """
        if len(raw) > MAX_MANIFEST_BYTES:
            raise LimitError(f"manifest: expected at most {MAX_MANIFEST_BYTES} bytes, got {len(raw)}")
        if is_plain(raw):
            return cls(raw, None)
        if not raw.strip():
            raise InvalidManifestError("manifest: empty")
        try:
            document, end_offset, trailing = read_go_json(raw)
        except FormatError as error:
            raise InvalidManifestError(f"manifest: {error}") from None
        return cls(raw, _ManifestReader(end_offset, trailing).read(document))

    @property
    def config(self) -> Descriptor | None:
        return self._reading.config if self._reading else _made_of(plain_config(self.raw))

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        return self._reading.layers if self._reading else self.descriptors[1:]

    @property
    def end_offset(self) -> int:
        """The byte offset of the end of the JSON document."""
        return self._reading.end_offset if self._reading else len(self.raw.rstrip())

    @cached_property
    def digest(self) -> Digest:
        """The digest of the raw bytes."""
        return Digest.of(self.raw)

    @property
    def is_list(self) -> bool:
        """True if this is a manifest list. No released Ollama writes one."""
        return bool(self.children)

    @cached_property
    def descriptors(self) -> tuple[Descriptor, ...]:
        """Every descriptor: the config, then the layers, with repeats."""
        if self._reading is None:
            return tuple(map(_made_of, plain_descriptors(self.raw)))
        return ((self._reading.config,) if self._reading.config else ()) + self._reading.layers

    @property
    def layer_types(self) -> list[str]:
        """The media type of every layer. Faster than `layers` when there are thousands of manifests."""
        if self._reading is None:
            return plain_layer_types(self.raw)
        return [layer.media_type for layer in self.layers]

    @property
    def sizes(self) -> list[tuple[str, int]]:
        """The digits and size of every descriptor. Faster than `descriptors` when there are thousands of manifests."""
        if self._reading is None:
            return [(digits, int(size)) for digits, size in plain_sizes(self.raw)]
        return [(blob.digest.hex, blob.size) for blob in self.descriptors]

    @property
    def has_large_blob(self) -> bool:
        """Whether a blob has 100,000 bytes or more. Faster than `sizes` when there are thousands of manifests."""
        if self._reading is None:
            return has_large_blob(self.raw)
        return any(blob.size >= LARGE_BYTES for blob in self.descriptors)

    @property
    def digests(self) -> frozenset[Digest]:
        """Every digest that config, layers and children name."""
        if self._reading is None:
            return frozenset(map(Digest, plain_digests(self.raw)))
        return frozenset((*(descriptor.digest for descriptor in self.descriptors), *self.children))

    @property
    def mentioned(self) -> set[Digest]:
        """Every digest that it names, or that stands anywhere in its bytes."""
        mentioned = digest_shaped(self.raw)
        # In JSON every character may be written as an escape, so that no digest shows in the bytes.
        return mentioned if self.is_plain else mentioned | self.digests

    @cached_property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every distinct blob once: the config, then the layers in the order of the manifest."""
        distinct: dict[str, Descriptor] = {}
        for descriptor in self.descriptors:
            distinct.setdefault(descriptor.digest.hex, descriptor)
        return tuple(distinct.values())

    @property
    def declared_size(self) -> int:
        """The size that `ollama list` shows: the declared bytes of the config and all layers, with repeats."""
        return sum(size for _, size in self.sizes)

    @property
    def model_id(self) -> str:
        """
        64 digits. `ollama list` shows the first 12 as the ID.

        Ollama hashes what Go's streaming decoder reads. The decoder's buffer holds 512 bytes, and grows to twice its
        size plus 512 (1536, 3584 and so on). The decoder stops after the buffer that holds the end of the value.
        """
        boundary = 512
        while boundary < self.end_offset:
            boundary = 2 * boundary + 512
        return Digest.of(self.raw[:boundary]).hex

    @property
    def is_misspelled(self) -> bool:
        """True if all that is unclear is the spelling of digests, and `respelled` puts that right."""
        return self.ambiguity is not None and self.respelled() is not None

    def respelled(self) -> bytes | None:
        """
        Return the bytes with every digest in the form that Ollama writes, or None if that does not make them clear.

        Only the texts of digests change, and none changes its length.
        """
        raw = _DIGEST_VALUE.sub(lambda found: found[1] + b'"sha256:' + found[2].lower() + b'"', self.raw)
        try:
            manifest = Manifest.parse(raw)
            manifest.refuse_unclear()
        except OstoreError:
            return None
        return raw if manifest.descriptors == self.descriptors else None

    def refuse_unclear(self) -> None:
        """
        Refuse a manifest that must not leave or enter a store.

        Raises AmbiguousManifestError or InvalidManifestError with the reason, and LimitError when its config is too
        large.
        """
        if self.ambiguity:
            raise AmbiguousManifestError(f"manifest: {self.ambiguity}")
        if self.unfit:
            raise InvalidManifestError(f"manifest: {self.unfit}")
        if self.is_list:
            raise InvalidManifestError("manifest: a list of manifests, which no released Ollama writes")
        if (config := self.config) and config.size > MAX_CONFIG_BYTES:
            raise LimitError(f"config: expected at most {MAX_CONFIG_BYTES} bytes, got {config.size}")


def _made_of(plain: PlainDescriptor) -> Descriptor:
    media_type, digest, size, origin, name = plain
    return Descriptor(Digest(digest), int(size), media_type, origin, name)


def digest_shaped(raw: bytes) -> set[Digest]:
    """Return every digest in a manifest's bytes, in either form and case: all blobs that it might refer to."""
    return {Digest(digits.lower()) for digits in _DIGEST_SHAPED.findall(raw.decode("latin-1"))}


def mentioned_by(raw: bytes) -> set[Digest]:
    """
    Return every digest that the bytes of a manifest might refer to, and their own. The manifest may be broken.

    Raises LimitError if the bytes exceed a limit. It is then unknown what they need.
    """
    own = {Digest.of(raw)}
    try:
        return Manifest.parse(raw).mentioned | own
    except LimitError:
        raise
    except OstoreError:
        return digest_shaped(raw) | own


class _ManifestReader:
    """Reads one document and notes what makes it ambiguous or unfit."""

    def __init__(self, end_offset: int, trailing: int) -> None:
        self._end_offset = end_offset
        self._ambiguities: list[str] = []
        self._unfit: list[str] = [f"{trailing} bytes after the JSON document"] if trailing else []

    def read(self, document: Any) -> _Reading:  # noqa: ANN401 - fresh from the JSON decoder
        manifest = self._object(document, "manifest")
        config = self._config(manifest.get("config"))
        layers = self._layers(manifest.get("layers"))
        children = self._children(manifest.get(_MANIFESTS))
        if children and (layers or config):
            raise UnsafeError("manifest: both layers and manifests in one document")
        self._check_version(manifest.get("schemaversion"))
        self._media_type(manifest.get("mediatype"), "manifest")
        return _Reading(
            config=config,
            layers=layers,
            children=children,
            ambiguity=self._ambiguities[0] if self._ambiguities else None,
            unfit=self._unfit[0] if self._unfit else None,
            end_offset=self._end_offset,
        )

    def _object(self, value: Any, where: str) -> GoObject:  # noqa: ANN401
        if value is None:
            self._unfit.append(f"{where}: null")
            return GoObject()
        if not isinstance(value, GoObject):
            raise InvalidManifestError(f"{where}: expected an object, got {_kind(value)}")
        if value.repeated:
            self._ambiguities.append(f"{where}: key {value.repeated[0]!r} occurs twice")
        return value

    def _config(self, value: Any) -> Descriptor | None:  # noqa: ANN401
        if value is None:
            return None
        is_absent = self._object(value, "config").get("digest") in (None, "")
        # Ollama writes an empty digest if there is no config. Go still refuses wrong types then; nothing else counts.
        return (_ManifestReader(0, 0) if is_absent else self)._descriptor(value, "config")  # noqa: SLF001 - its own

    def _layers(self, value: Any) -> tuple[Descriptor, ...]:  # noqa: ANN401
        layers = self._list(value, "layers")
        descriptors = (self._descriptor(layer, f"layers[{index}]") for index, layer in enumerate(layers))
        return tuple(descriptor for descriptor in descriptors if descriptor)

    def _children(self, value: Any) -> tuple[Digest, ...]:  # noqa: ANN401
        if value is not None and not isinstance(value, list):
            self._unfit.append(f"manifests: expected a list, got {_kind(value)}")
            return ()
        entries = [
            self._object(entry, f"manifests[{index}]") for index, entry in enumerate(self._list(value, "manifests"))
        ]
        digests = (self._digest(entry.get("digest"), "manifests") for entry in entries)
        return tuple(digest for digest in digests if digest)

    def _list(self, value: Any, where: str) -> list[Any]:  # noqa: ANN401
        if value is None:
            return []
        if not isinstance(value, list):
            raise InvalidManifestError(f"{where}: expected a list, got {_kind(value)}")
        if len(value) > MAX_LAYERS:
            raise LimitError(f"{where}: expected at most {MAX_LAYERS}, got {len(value)}")
        return value

    def _descriptor(self, value: Any, where: str) -> Descriptor | None:  # noqa: ANN401
        """Return None if the digest is empty or the layer is null. Ollama lists such a model."""
        members = self._object(value, where)
        if value is None:
            return None
        size = self._size(members.get("size"), f"{where}.size")
        media_type = self._media_type(members.get("mediatype"), where)
        origin = self._text(members["from"], f"{where}.from") if "from" in members else ""
        name = self._text(members["name"], f"{where}.name") if "name" in members else ""
        digest = self._digest(members.get("digest"), where)
        return Descriptor(digest, size, media_type, origin, name) if digest else None

    def _size(self, value: Any, where: str) -> int:  # noqa: ANN401
        if value is None:
            self._unfit.append(f"{where}: expected an integer, got null")
            return 0
        if not _is_int64(value) or value < 0:
            raise InvalidManifestError(f"{where}: expected 0 to 2^63-1 as an integer, got {_kind(value)}")
        return value

    def _digest(self, value: Any, where: str) -> Digest | None:  # noqa: ANN401
        if digest := Digest.of_text(value):
            return digest
        if value in (None, ""):
            self._ambiguities.append(f"{where}.digest: empty")
            return None
        # Ollama's start-up prune compares text. It deletes the blobs of a manifest that spells digests in another form.
        self._ambiguities.append(f"{where}.digest: not in the form 'sha256:' and lower-case hex")
        try:
            return Digest.tolerate(value)
        except InvalidDigestError as error:
            raise InvalidDigestError(f"{where}.{error}") from None

    def _media_type(self, value: Any, where: str) -> str:  # noqa: ANN401
        if isinstance(value, str) and value in media_types.KNOWN:
            return value
        media_type = self._text(value, f"{where}.mediaType")
        is_text = media_type.isascii() or not _SURROGATE.search(media_type)
        if len(media_type) > MAX_MEDIA_TYPE_CHARACTERS or (is_text and not media_type.isprintable()):
            self._ambiguities.append(f"{where}.mediaType: not a media type")
        return media_type

    def _text(self, value: Any, where: str) -> str:  # noqa: ANN401
        if value is None:
            return ""
        if not isinstance(value, str):
            raise InvalidManifestError(f"{where}: expected text, got {_kind(value)}")
        if not value.isascii() and _SURROGATE.search(value):
            self._unfit.append(f"{where}: not UTF-8")
        return value

    def _check_version(self, value: Any) -> None:  # noqa: ANN401
        if value is not None and not _is_int64(value):
            raise InvalidManifestError(f"schemaVersion: expected an integer, got {_kind(value)}")
        if value != 2:  # noqa: PLR2004 - the only version there is
            self._unfit.append(f"schemaVersion: expected 2, got {'null' if value is None else value}")


def _is_int64(value: object) -> TypeGuard[int]:
    # isinstance would accept True.
    return type(value) is int and -_MAX_INT64 - 1 <= value <= _MAX_INT64


def _kind(value: object) -> str:
    """Describe a wrong JSON value in a few words, for a message."""
    if isinstance(value, (GoObject, list)):
        return "an object" if isinstance(value, GoObject) else "a list"
    return f"{value!r:.40}"
