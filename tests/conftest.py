"""Fixtures that many tests share."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import ostore.cli  # noqa: F401 - now, because it switches off what is switched on below
from ostore.places.store.receiving import publication
from ostore.places.store.survey import scan
from tests.fork_server import MEASURED, TAKEN_AWAY
from tests.support import Store, six_kinds

# The program switches the cyclic garbage collector off, because it ends soon. The process of the tests needs it.
gc.enable()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A small store with two models that share their weights."""
    made = Store(tmp_path / "models")
    made.model("tiny:latest", b"the weights " * 1000, template=b"{{ .Prompt }}")
    made.model("tiny:q4", b"the weights " * 1000, system=b"Say hi!")
    return made


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One model of every kind; tests must not change it."""
    return six_kinds(tmp_path_factory.mktemp("kinds") / "models")


@pytest.fixture
def public() -> Iterator[Store]:
    """A store with two models in a folder that everybody may enter, as pytest's own may not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        made = Store(Path(name) / "models")
        made.model("tiny:latest", b"the weights")
        made.model("other:latest", b"other")
        yield made


@pytest.fixture
def _process_as_before() -> Iterator[None]:
    """For tests that call a program as a function: it sets what holds for its process."""
    numbers = [number for number in signal.valid_signals() if number in {signal.SIGTERM, getattr(signal, "SIGHUP", 0)}]
    handlers, umask = {number: signal.getsignal(number) for number in numbers}, os.umask(0o022)
    yield
    os.umask(umask)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def _nobody_else_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For `nobody_else_writes` in support.py."""
    monkeypatch.setattr(publication, "_SETTLE_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(scan, "_RETRY_SECONDS", 0.0)


@pytest.fixture
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """For `unmeasured` in support.py."""
    monkeypatch.delenv(MEASURED, raising=False)


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the store, the home or the terminal of whoever runs it."""
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path / "home"))
    for name in ("OLLAMA_MODELS", "OSTORE_DEBUG", *TAKEN_AWAY):
        monkeypatch.delenv(name, raising=False)
