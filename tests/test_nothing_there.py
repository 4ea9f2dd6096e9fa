"""A folder where nothing was found is not called whole: each command says so, and names the models that were meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ostore.cli.main import run as run_here
from tests.support import Store, noise
from tests.support import ostore as run

NOT_FOUND = 3
# What a command says of a store without models beside one that has some, and its exit code.
COMMANDS = {
    "list": 0,
    "verify": 0,
    "doctor": 0,
    "du": 0,
    "gc --yes": 0,
    "repair --from disk/models": 0,
    "move new --yes": 0,
    "move new --dry-run": 0,
    "export --all x.tar": NOT_FOUND,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `disk`, a store that was made beside the one that was meant, `disk/models`."""
    Store(tmp_path / "disk/models").model("tiny:latest", noise(500))
    for part in ("blobs", "manifests"):
        (tmp_path / "disk" / part).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_without_models_names_the_one_beside_it(
    here: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    code = run_here([*command.split(), "--models", "disk"])
    told = capsys.readouterr()
    assert code == COMMANDS[command], told
    assert str(here / "disk/models") in f"{told.out}{told.err}".replace(str(here / "disk/models/blobs"), "")
    assert "whole" not in told.out
    assert not (here / "new").exists()


def test_there_is_nothing_to_name_once_the_last_model_is_removed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(["rm", "tiny", "--yes", "--models", "disk/models"]) == 0
    capsys.readouterr()
    assert run_here(["verify", "--models", "disk", "-q"]) == 0
    assert capsys.readouterr().err == ""
    assert run_here(["export", "--all", "x.tar", "--models", "disk"]) == NOT_FOUND
    assert "ostore where shows which store is used" in capsys.readouterr().err
    assert run_here(["import", "disk", "--models", "t"]) == NOT_FOUND
    assert "ostore doctor --models disk shows what is in it" in capsys.readouterr().err


def test_an_import_of_nothing_is_told_before_the_word_for_the_store_is(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = here / "disk/models"
    shutil.copytree(store / "blobs", here / "only/blobs")
    shutil.copytree(store / "blobs", here / "short/blobs")
    shutil.copytree(store / "manifests/registry.ollama.ai/library", here / "short/manifests/library")
    for source, says in {
        "disk": "no models in disk (there are some in disk/models)",
        "only": "only: blobs/ has blobs, but there is no manifests/: the folder was not copied whole",
        "short": "there is a manifest where Ollama does not look: ostore doctor --models short says where it belongs",
    }.items():
        for target in ("t", "llama3", "./t"):
            code = run_here(["import", source, "--models", target])
            told = capsys.readouterr().err
            assert (code, says in told) == (NOT_FOUND, True), told
            assert not (here / target).exists()


def test_a_word_of_one_letter_is_a_folder_and_any_other_is_refused(here: Path) -> None:
    done = run("import", "disk/models", "--models", "tiny")
    hint = "(--model tiny is one model; --models ./tiny makes a new store)\n"
    assert (done.returncode, done.stderr.endswith(hint)) == (2, True)
    assert run("import", "disk/models", "--models", "t", "-q").returncode == 0
    assert run("verify", "--models", "t").returncode == 0


def test_a_source_without_models_is_not_said_to_be_the_store_that_is_used(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bare").mkdir()
    for command in (["import", "bare", "--models", "./new"], ["verify", "bare"]):
        assert run_here(command) == NOT_FOUND
        told = capsys.readouterr().err
        assert "A source is a bundle, or a folder with blobs/ and manifests/" in told
        assert "ostore where" not in told
