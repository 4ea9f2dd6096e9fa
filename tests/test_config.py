"""A config may lack any field, and the others are shown. A config that is no object is refused."""

from __future__ import annotations

import pytest

from ostore.formats.config import ModelConfig, is_config
from ostore.formats.errors import FormatError, LimitError, OstoreError
from ostore.formats.manifest import MAX_CONFIG_BYTES

FULL = (
    b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"8.0B","file_type":"Q4_0",'
    b'"requires":"0.19.0","remote_host":"https://ollama.com","remote_model":"big","capabilities":["tools","vision"],'
    b'"context_length":131072,"embedding_length":4096,"architecture":"amd64","os":"linux","rootfs":{"diff_ids":[]}}\n'
)


def test_every_field_that_is_shown_is_read() -> None:
    config = ModelConfig.parse(FULL)
    assert config == ModelConfig(
        model_format="gguf",
        model_family="llama",
        parameter_size="8.0B",
        quantization="Q4_0",
        remote_host="https://ollama.com",
        remote_model="big",
        requires="0.19.0",
        context_length=131_072,
        embedding_length=4096,
        capabilities=("tools", "vision"),
    )
    assert config.is_cloud_stub


@pytest.mark.parametrize(
    ("raw", "config"),
    [
        (b"{}", ModelConfig()),
        (b'{"MODEL_TYPE":"7B"}', ModelConfig(parameter_size="7B")),
        (b'{"model_type":null,"file_type":5,"capabilities":"x","context_length":"y"}', ModelConfig()),
        (b'{"remote_host":"x"}', ModelConfig(remote_host="x")),
        (b"null", ModelConfig()),
        (
            b'{"parser":"a\xff\\ud800","capabilities":["x",null]}',
            ModelConfig(parser="a\ufffd\ufffd", capabilities=("x",)),
        ),
        (b'{"context_length":' + b"9" * 5000 + b"}", ModelConfig()),
    ],
    ids=["empty", "upper case", "other types", "host without a model", "null", "not UTF-8", "huge number"],
)
def test_what_is_absent_or_odd_is_left_empty(raw: bytes, config: ModelConfig) -> None:
    assert ModelConfig.parse(raw) == config
    assert not config.is_cloud_stub
    assert is_config(raw)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", FormatError),
        (b"[]", FormatError),
        (b"GGUF", FormatError),
        (b'{"context_length":NaN}', FormatError),
        ("{}".encode("utf-16"), FormatError),
        (b"[" * 200_000, LimitError),
        (b" " * (MAX_CONFIG_BYTES + 1), LimitError),
    ],
    ids=["empty", "list", "weights", "NaN", "UTF-16", "nested too deeply", "too long"],
)
def test_a_config_that_is_no_object_is_refused(raw: bytes, error: type[OstoreError]) -> None:
    with pytest.raises(error):
        ModelConfig.parse(raw)
    assert not is_config(raw)
