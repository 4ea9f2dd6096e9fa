"""What a config blob says about a model (types/model/config.go at fb30760). ostore shows it and never rewrites it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ostore.formats.errors import FormatError, LimitError
from ostore.formats.json_reading import GoObject, is_go_object, read_go_json
from ostore.formats.manifest import MAX_CONFIG_BYTES

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The fields that ostore shows. An absent field is empty or 0."""

    model_format: str = ""
    model_family: str = ""
    parameter_size: str = ""
    quantization: str = ""
    remote_host: str = ""
    remote_model: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    context_length: int = 0
    embedding_length: int = 0
    capabilities: tuple[str, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> ModelConfig:
        """
        Read a config. A config of null says nothing.

        Raises FormatError for anything else that is no JSON object, and LimitError when it is larger than 4 MiB.
        """
        if len(raw) > MAX_CONFIG_BYTES:
            raise LimitError(f"config: expected at most {MAX_CONFIG_BYTES} bytes, got {len(raw)}")
        document, _, _ = read_go_json(raw)
        if document is None:
            return cls()
        if not isinstance(document, GoObject):
            raise FormatError("config: expected an object")
        return cls(
            model_format=_text(document, "model_format"),
            model_family=_text(document, "model_family"),
            # Ollama kept the old names of these two fields. They hold the size label and the quantisation label.
            parameter_size=_text(document, "model_type"),
            quantization=_text(document, "file_type"),
            remote_host=_text(document, "remote_host"),
            remote_model=_text(document, "remote_model"),
            renderer=_text(document, "renderer"),
            parser=_text(document, "parser"),
            requires=_text(document, "requires"),
            context_length=_number(document, "context_length"),
            embedding_length=_number(document, "embedding_length"),
            capabilities=_texts(document, "capabilities"),
        )

    @property
    def is_cloud_stub(self) -> bool:
        """True if the model runs on another host and has no weights here."""
        return bool(self.remote_host and self.remote_model)


def is_config(raw: bytes) -> bool:
    """Return whether `parse` can read these bytes. Faster than it when there are thousands of configs."""
    return len(raw) <= MAX_CONFIG_BYTES and is_go_object(raw)


def is_stub(raw: bytes) -> bool:
    """Return whether `parse` finds a cloud stub. Raises what it raises, for a config that names a host."""
    # To read all of a config takes longer.
    return b"remote_host" in raw.lower() and ModelConfig.parse(raw).is_cloud_stub


def _text(document: GoObject, key: str) -> str:
    value = document.get(key)
    return _readable(value) if isinstance(value, str) else ""


def _texts(document: GoObject, key: str) -> tuple[str, ...]:
    value = document.get(key)
    return tuple(_readable(entry) for entry in value if isinstance(entry, str)) if isinstance(value, list) else ()


def _readable(text: str) -> str:
    """Replace what is not UTF-8, as Go does."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _number(document: GoObject, key: str) -> int:
    value = document.get(key)
    return value if isinstance(value, int) else 0
