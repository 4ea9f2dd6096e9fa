"""
The one manifest parser: raw bytes kept, and a view of them that agrees with Ollama's.

Read tolerantly, as Go does, because a store holds what Ollama wrote; `refuse_unclear` is the strict door through
which a manifest leaves or enters a store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

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
    is_plain,
    plain_config_size,
    plain_descriptors,
    plain_digests,
    plain_layer_types,
    plain_sizes,
)

# A manifest of 1,000 tensor layers has 0.23 MB; oras-go and the distribution registry cap at 4 MiB, so do we.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
# The largest model known has a few thousand tensors; each layer costs a descriptor in memory.
MAX_LAYERS = 20_000
# A real config has under 1 kB, one with every digest of a 1,000-tensor model 0.1 MB.
MAX_CONFIG_BYTES = 4 * 1024 * 1024
MAX_MEDIA_TYPE_CHARACTERS = 255
_MAX_SIZE = 2**63 - 1

# types of branches pdevine/manifest-list of ollama (April 2026): a document that lists manifests, not layers.
_MANIFESTS = "manifests"
_SURROGATE = re.compile("[\ud800-\udfff]")
_DIGEST_SHAPED = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


class Descriptor(NamedTuple):
    """
    A manifest's promise about one blob. `size` in bytes; `origin` is the layer's `from`, never a path to open.

    A tuple, because a store has one for every blob of every model, and a dataclass takes three times as long to make.
    """

    digest: Digest
    size: int
    media_type: str = ""
    origin: str = ""
    layer_name: str = ""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a manifest says, read as JSON."""

    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    children: tuple[Digest, ...]
    ambiguity: str | None
    unfit: str | None
    end_offset: int


class Manifest:
    """
    One manifest: its bytes, and what they say; `parse` makes it. Two are compared by their `raw`.

    `config` is None for an empty config digest, which Ollama allows. `layers` are in manifest order, repeats kept.
    `children` are the digests that a manifest list names; a list has no layers of its own.
    `ambiguity` says why two readers may disagree about it, or is None.
    `unfit` says why it may not leave or enter a store although Ollama lists it, or is None.
    `is_plain` says that it is written as Ollama writes it; then descriptors are made only when somebody asks for them.
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
            InvalidManifestError: empty, not JSON, or a field of a type at which Go stops.
            InvalidDigestError: a digest that Ollama itself could not turn into a path.
            LimitError: more bytes, layers or nesting than the caps allow.
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
        return self._reading.config if self._reading else self.descriptors[0]

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        return self._reading.layers if self._reading else self.descriptors[1:]

    @property
    def end_offset(self) -> int:
        """Where the JSON document ends."""
        return self._reading.end_offset if self._reading else len(self.raw.rstrip())

    @cached_property
    def digest(self) -> Digest:
        """The digest of the file's bytes."""
        return Digest.of(self.raw)

    @property
    def is_list(self) -> bool:
        """True for a manifest list, which no released Ollama writes."""
        return bool(self.children)

    @cached_property
    def descriptors(self) -> tuple[Descriptor, ...]:
        """Config, then layers: every reference, repeats kept."""
        if self._reading is None:
            return tuple(
                Descriptor(Digest(digest), int(size), media_type, origin, name)
                for media_type, digest, size, origin, name in plain_descriptors(self.raw)
            )
        return ((self._reading.config,) if self._reading.config else ()) + self._reading.layers

    @property
    def layer_types(self) -> list[str]:
        """The media type of every layer, for those who go through thousands of manifests."""
        if self._reading is None:
            return plain_layer_types(self.raw)
        return [layer.media_type for layer in self.layers]

    @property
    def sizes(self) -> list[tuple[str, int]]:
        """The digits and the size of every descriptor, for those who go through thousands of manifests."""
        if self._reading is None:
            return [(digits, int(size)) for digits, size in plain_sizes(self.raw)]
        return [(blob.digest.hex, blob.size) for blob in self.descriptors]

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
        """Every distinct blob once, config first, then layers in manifest order."""
        distinct: dict[str, Descriptor] = {}
        for descriptor in self.descriptors:
            distinct.setdefault(descriptor.digest.hex, descriptor)
        return tuple(distinct.values())

    @property
    def declared_size(self) -> int:
        """Bytes as `ollama list` adds them up: config and every layer as declared, repeats counted."""
        return sum(descriptor.size for descriptor in self.descriptors)

    @property
    def model_id(self) -> str:
        """
        The 64 digits whose first 12 `ollama list` shows as ID.

        Ollama hashes what Go's streaming decoder consumed: its buffer holds 512, 1536, 3584, … bytes (each twice the
        last plus 512), and bytes after the buffer that holds the end of the value are never read.
        """
        boundary = 512
        while boundary < self.end_offset:
            boundary = 2 * boundary + 512
        return Digest.of(self.raw[:boundary]).hex

    def refuse_unclear(self) -> None:
        """
        Let only a manifest pass that every reader understands alike.

        Raises AmbiguousManifestError or InvalidManifestError, saying why, or LimitError for its config.
        """
        if self.ambiguity:
            raise AmbiguousManifestError(f"manifest: {self.ambiguity}")
        if self.unfit:
            raise InvalidManifestError(f"manifest: {self.unfit}")
        if self.is_list:
            raise InvalidManifestError("manifest: a list of manifests, which no released Ollama writes")
        if self._config_size > MAX_CONFIG_BYTES:
            raise LimitError(f"config: expected at most {MAX_CONFIG_BYTES} bytes, got {self._config_size}")

    @property
    def _config_size(self) -> int:
        if self._reading is None:
            return plain_config_size(self.raw)
        return self._reading.config.size if self._reading.config else 0


def digest_shaped(raw: bytes) -> set[Digest]:
    """Every digest that occurs anywhere in a manifest's bytes, in either form and case: what it might refer to."""
    return {Digest(digits.lower()) for digits in _DIGEST_SHAPED.findall(raw.decode("latin-1"))}


def mentioned_by(raw: bytes) -> set[Digest]:
    """
    Every digest that the bytes of a manifest might refer to, and their own. They need not be a manifest.

    Raises LimitError for bytes that are too much for us: nobody knows what they need.
    """
    own = {Digest.of(raw)}
    try:
        return Manifest.parse(raw).mentioned | own
    except LimitError:
        raise
    except OstoreError:
        return digest_shaped(raw) | own


class _ManifestReader:
    """Collects what makes one document ambiguous or unfit while it is read."""

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
        if not isinstance(value, GoObject):
            raise InvalidManifestError(f"{where}: expected an object, got {_kind(value)}")
        if value.repeated:
            self._ambiguities.append(f"{where}: key {value.repeated[0]!r} occurs twice")
        return value

    def _config(self, value: Any) -> Descriptor | None:  # noqa: ANN401
        if value is None or self._object(value, "config").get("digest") in (None, ""):
            return None
        return self._descriptor(value, "config")

    def _layers(self, value: Any) -> tuple[Descriptor, ...]:  # noqa: ANN401
        if value is None:
            return ()
        if not isinstance(value, list):
            raise InvalidManifestError(f"layers: expected a list, got {_kind(value)}")
        if len(value) > MAX_LAYERS:
            raise LimitError(f"layers: expected at most {MAX_LAYERS}, got {len(value)}")
        return tuple(self._descriptor(layer, f"layers[{index}]") for index, layer in enumerate(value))

    def _children(self, value: Any) -> tuple[Digest, ...]:  # noqa: ANN401
        if not isinstance(value, list):
            if value is not None:
                self._unfit.append(f"manifests: expected a list, got {_kind(value)}")
            return ()
        if len(value) > MAX_LAYERS:
            raise LimitError(f"manifests: expected at most {MAX_LAYERS}, got {len(value)}")
        entries = [self._object(entry, f"manifests[{index}]") for index, entry in enumerate(value)]
        return tuple(self._digest(entry.get("digest"), "manifests") for entry in entries)

    def _descriptor(self, value: Any, where: str) -> Descriptor:  # noqa: ANN401
        members = self._object(value, where)
        size = members.get("size")
        # Not isinstance: True is no size.
        if type(size) is not int or not 0 <= size <= _MAX_SIZE:
            raise InvalidManifestError(f"{where}.size: expected 0 to 2^63-1 as an integer, got {_kind(size)}")
        return Descriptor(
            self._digest(members.get("digest"), where),
            size,
            self._media_type(members.get("mediatype"), where),
            self._text(members["from"], f"{where}.from") if "from" in members else "",
            self._text(members["name"], f"{where}.name") if "name" in members else "",
        )

    def _digest(self, value: Any, where: str) -> Digest:  # noqa: ANN401
        if digest := Digest.of_text(value):
            return digest
        # Ollama's start-up prune compares text, and deletes the blobs of a manifest that spells them otherwise.
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
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise InvalidManifestError(f"schemaVersion: expected an integer, got {_kind(value)}")
        if value != 2:  # noqa: PLR2004 - the only version there is
            self._unfit.append(f"schemaVersion: expected 2, got {value!r}")


def _kind(value: object) -> str:
    """What a wrong JSON value is, short enough for a message."""
    if isinstance(value, (GoObject, list)):
        return "an object" if isinstance(value, GoObject) else "a list"
    return f"{value!r:.40}" if isinstance(value, (str, int, float, type(None))) else "a number out of range"
