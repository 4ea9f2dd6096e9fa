"""Stores, servers and answers for the tests of `ostore probe`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ostore.operations.probe import version_of
from tests.gguf import talking_gguf
from tests.ollama_answers import Answer, AnsweringOllama, answering
from tests.support import CONFIG, MODEL, SYSTEM, Store, full
from tests.support import ostore as run
from tests.test_ollama import OLLAMA, Server, tiny_gguf

# Of one model alone.
OTHER_CONFIG = b'{"model_format":"gguf","model_family":"llama"}'
Asked = Callable[..., "Probed"]
# A server of a store, with a home; gives its URL.
Serve = Callable[[Path, Path], AbstractContextManager[str]]


class Probed:
    """What the program said about a server, as a person and as a program sees it."""

    def __init__(self, url: str, store: Path, *words: str, environment: dict[str, str] | None = None) -> None:
        where = (url, "--models", str(store)) if url else ("--models", str(store))
        self.done = run("probe", *where, *words, environment=environment)
        self.code, self.text, self.warnings = self.done.returncode, self.done.stdout, self.done.stderr

    def __contains__(self, text: str) -> bool:
        return text in self.text + self.warnings


def probed_store(folder: Path) -> Store:
    """A store of two models: one talks, and one has a config of its own."""
    made = Store(folder)
    made.model("talk:latest", talking_gguf(), template=b"{{ .Prompt }}", license=b"MIT")
    config = made.layer(CONFIG, OTHER_CONFIG)
    made.add(full("tiny:q4"), made.layer(MODEL, tiny_gguf(1)), made.layer(SYSTEM, b"Say hi!"), config=config)
    return made


@contextmanager
def real(models: Path, home: Path) -> Iterator[str]:
    server = Server(models, home)
    try:
        server.wait()
        yield f"http://{server._address}"
    finally:
        server.stop()


@contextmanager
def double(models: Path, _home: Path) -> Iterator[str]:
    with answering(AnsweringOllama(models)) as url:
        yield url


def cannot_run_models(server: Serve) -> bool:
    """Whether a real one has no llama-server beside it, which runs the models since 0.30. Some builds lack it."""
    if server is not real:
        return False
    told = subprocess.run([str(OLLAMA), "--version"], capture_output=True, text=True, check=True).stdout
    program = Path(str(OLLAMA)).resolve().parent
    places = (program, program / "lib/ollama", program.parent / "lib/ollama")
    is_new = (version_of(told.split()[-1]) or (0, 0, 0)) >= (0, 30, 0)
    return is_new and not any((place / "llama-server").exists() for place in places)


needs_ollama = pytest.mark.skipif(OLLAMA is None, reason="no ollama on PATH, and OSTORE_TEST_OLLAMA is not set")
SERVERS = [pytest.param(double, id="double"), pytest.param(real, id="real", marks=needs_ollama)]


@contextmanager
def asking(store: Store) -> Iterator[Asked]:
    """Probe a double whose answers are these, with these words."""
    with ExitStack() as servers:

        def ask(*words: str, answers: dict[str, Answer] | None = None, **settings: Any) -> Probed:  # noqa: ANN401
            made = AnsweringOllama(store.root, answers=answers or {}, **settings)
            return Probed(servers.enter_context(answering(made)), store.root, *words)

        yield ask
