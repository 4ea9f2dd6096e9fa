"""What Ollama says of a model is told from its header."""

from __future__ import annotations

import pytest

from ostore.formats import gguf_facts as facts
from ostore.formats.gguf import Gguf
from tests.gguf import Tensor, Typed, Value, gguf, split_keys
from tests.test_gguf import read


def made(architecture: str = "llama", tensors: dict[str, Tensor] | None = None, **keys: Value) -> Gguf:
    """A header; of the names of keys, a double underscore is a dot."""
    named = {key.replace("__", "."): value for key, value in keys.items()}
    return read(gguf({"general.architecture": architecture, **named}, tensors or {}))


@pytest.mark.parametrize(
    ("gguf", "kind"),
    [
        (made(llama__block_count=1), "model"),
        (made(), "model"),
        (made(general__type="adapter"), "adapter"),
        (made(general__type="projector"), "projector"),
        (made(general__type="mmproj", llama__block_count=1), "projector"),
        (made(llama__vision__block_count=1), "projector"),
        (made(llama__vision__block_count=0), "model"),
        (made(llama__vision__block_count=1, llama__block_count=1), "model"),
        (made("clip", clip__has_vision_encoder=True), "projector"),
        (made("clip", clip__has_audio_encoder=True), "projector"),
        (made("clip", clip__has_audio_encoder=False), "model"),
        (made("clip", clip__has_vision_encoder=True, clip__block_count=1), "model"),
        (made("llama", llama__has_vision_encoder=True), "model"),
    ],
)
def test_the_kind_of_a_file(gguf: Gguf, kind: str) -> None:
    assert facts.kind_of(gguf) == kind


@pytest.mark.parametrize(
    ("count", "label"),
    [
        (0, "0"), (999, "999"), (1000, "1K"), (1999, "2K"), (999_999, "1000K"), (10**6, "1M"), (268_098_176, "268.10M"),
        (10**9, "1B"), (8 * 10**9, "8B"), (8_030_261_312, "8.0B"), (70_553_706_496, "70.6B"),
    ],
)  # fmt: skip
def test_the_label_of_a_number_of_parameters(count: int, label: str) -> None:
    assert facts.parameter_label(count) == label


def test_parameters_are_counted_over_all_tensors() -> None:
    assert facts.parameter_count(made(tensors={"a": ((32, 3), [1.0]), "b": ((7,), [1.0])})) == 103


@pytest.mark.parametrize(
    ("gguf", "in_config", "shown"),
    [
        (made(general__file_type=15), "Q4_K_M", "Q4_K_M"),
        (made(general__file_type=0), "unknown", "F32"),
        (made(), "unknown", "unknown"),
        (made(general__file_type=5), "unknown", "unknown"),
        (made(general__file_type=Typed(10, "Q", 15)), "unknown", "F32"),
    ],
)
def test_the_label_of_a_quantization(gguf: Gguf, in_config: str, shown: str) -> None:
    assert (facts.quantization_in_config(gguf), facts.quantization_shown(gguf)) == (in_config, shown)


def test_a_part_of_a_set_is_known() -> None:
    assert facts.split_of(read(gguf(split_keys(1, 3, 7), {}))) == facts.Split(1, 3, 7)
    assert facts.split_of(read(gguf(split_keys(0, 1, 7), {}))) is None
    assert facts.split_of(made(split__count=3)) is None


def test_tensors_for_other_than_text_are_known() -> None:
    assert facts.has_embedded_parts(made(tensors={"mtp.x": ((1,), [1.0])}))
    assert not facts.has_embedded_parts(made(tensors={"blk.0.v": ((1,), [1.0])}))
