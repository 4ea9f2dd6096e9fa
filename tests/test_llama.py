"""
A real llama.cpp runs what ostore points to, links and copies.

OSTORE_TEST_LLAMA names a program that takes `-m FILE -p PROMPT -n TOKENS`, as llama-cli does, and prints what the model
says. docs/testing.md has one of some lines, for people who do not want to compile.
"""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

import ostore
from tests.gguf import talking_gguf
from tests.support import Store
from tests.support import ostore as run

LLAMA = os.environ.get("OSTORE_TEST_LLAMA")
_TYPES = b"tokenizer.ggml.token_type"

pytestmark = pytest.mark.skipif(not LLAMA, reason="OSTORE_TEST_LLAMA names no llama-cli")


@pytest.fixture
def made(tmp_path: Path) -> Store:
    # llama.cpp wants signed numbers here.
    unsigned, signed = (_TYPES + struct.pack("<II", 9, kind) for kind in (4, 5))
    weights = talking_gguf().replace(unsigned, signed)
    assert weights != talking_gguf()
    store = Store(tmp_path / "models")
    store.model("talk:latest", weights)
    return store


def says_hello(weights: str | Path) -> bool:
    words = [str(LLAMA), "-m", str(weights), "-p", "Say", "-n", "2", "--no-display-prompt", "-no-cnv"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120)
    return "hello" in done.stdout


def test_llama_cpp_runs_a_model_where_it_is(made: Store) -> None:
    assert says_hello(run("path", "talk", "--models", made.root).stdout.removesuffix("\n"))


@pytest.mark.parametrize("layout", ["files", "lmstudio", "llama.cpp"])
def test_llama_cpp_runs_a_linked_model(made: Store, tmp_path: Path, layout: str) -> None:
    report = ostore.link(["talk"], tmp_path / "out", layout=layout, models=made.root)
    assert says_hello(report.linked[0].path)


def test_llama_cpp_runs_an_exported_model(made: Store, tmp_path: Path) -> None:
    ostore.export_gguf(["talk"], tmp_path / "out", models=made.root)
    assert says_hello(tmp_path / "out/talk.gguf")
