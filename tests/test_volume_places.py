"""Which set is meant where volumes lie in several folders, which files belong to it, and what to type for the rest."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

import ostore
from ostore.cli.exit_codes import CODES
from ostore.formats.digest import Digest
from ostore.formats.errors import NotFoundError
from ostore.formats.volume_set import write_sums
from tests.support import Store, noise, tree
from tests.support import ostore as run
from tests.volumes import NAME, SIZE, five_folders, five_volumes, imported, needs_par2, volumes

INTEGRITY, NOT_FOUND = CODES["integrity"], CODES["not-found"]
LIST = f"{NAME}.sha256"


@pytest.fixture
def models(tmp_path: Path) -> Store:
    return five_volumes(tmp_path / "models")


@pytest.fixture
def media(tmp_path: Path) -> list[Path]:
    return five_folders(tmp_path)


def export(store: Store, to: Sequence[Path], *names: str, name: str = NAME, **options: object) -> None:
    settings: dict[str, object] = {"split": SIZE, "to": to, "models": store.root, **options}
    ostore.export(names or ["*"], name, **settings)  # type: ignore[arg-type]


def shorten(listed: Path, count: int) -> None:
    """Make a list that of a medium which was written when so many volumes were."""
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:count]))


def warning(folder: Path) -> str:
    return f"ostore: warning: {folder}: {LIST} there is that of another set with the same name"


@pytest.mark.parametrize("first", [0, 1])
def test_the_list_beside_the_volume_that_is_named_says_which_set_is_meant(
    models: Store, media: list[Path], tmp_path: Path, first: int
) -> None:
    other, count = 1 - first, 1 + first
    export(models, media[:1], "other:q4")
    export(models, media[1:2])
    words = (media[first] / f"{NAME}.001", media[other])
    done = imported(tmp_path, *words)
    assert f"imported {count} model" in done.stdout
    assert warning(media[other]) in done.stderr
    for command in ("verify", "inspect"):
        told = run(command, *words, "--models", models.root) if command == "verify" else run(command, *words)
        assert (told.returncode, f"{count} model" in told.stdout) == (0, True), told.stderr
        assert warning(media[other]) in told.stderr


def test_what_a_larger_set_has_left_on_another_medium_does_not_count(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media[:2])
    export(models, media[:1], "other:q4", replace=True)
    assert "imported 1 model" in imported(tmp_path, media[0] / f"{NAME}.001", media[1]).stdout


def test_if_the_first_folder_has_no_list_the_longest_counts(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1], "other:q4")
    export(models, media[1:2])
    done = imported(tmp_path, tmp_path / NAME, *media[:2])
    assert ("imported 2 models" in done.stdout, warning(media[0]) in done.stderr) == (True, True)


def test_lists_that_continue_the_one_beside_the_volume_are_of_its_set(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media)
    for number, folder in enumerate(media, 1):
        shorten(folder / LIST, number)
    for first in (media[0] / f"{NAME}.001", media[2] / f"{NAME}.003"):
        assert "warning" not in imported(tmp_path, first, *media).stderr
    done = imported(tmp_path, media[0] / NAME, *media[:3], code=INTEGRITY)
    assert f"{NAME}.004 or later is missing: it is not in {', '.join(map(str, media[:3]))}" in done.stderr


@pytest.mark.parametrize("name", [NAME, "x.tar"])
@pytest.mark.parametrize("known", [1, 4])
def test_volumes_behind_the_end_of_the_list_are_taken_if_the_bundle_is_whole_with_them(
    models: Store, media: list[Path], tmp_path: Path, name: str, known: int
) -> None:
    """Media that were written one after the other, copied into one folder backwards."""
    bundle = media[0] / name
    export(models, media[:1], name=name)
    shorten(media[0] / f"{name}.sha256", known)
    done = imported(tmp_path, f"{bundle}.001")
    assert "warning" not in done.stderr
    assert tree(tmp_path / "other") == tree(models.root)
    assert run("verify", bundle).returncode == 0
    assert ostore.inspect(bundle).bundle_size == sum(path.stat().st_size for path in media[0].glob(f"{name}.0*"))
    alone = run("verify", f"{bundle}.005", "--json")
    assert alone.returncode == NOT_FOUND
    error = json.loads(alone.stderr.splitlines()[-1])
    assert error["message"] == f"{bundle}.005: {name}.sha256 says nothing of it"
    (typed,) = error["remedy_arguments"]
    assert run(*typed[1:]).returncode == 0


@pytest.mark.parametrize("name", [NAME, "x.tar"])
def test_volumes_behind_the_end_of_the_list_are_ignored_if_it_is_whole_without_them(
    models: Store, media: list[Path], tmp_path: Path, name: str
) -> None:
    export(models, media[:1], name=name)
    export(models, media[1:2], "other:q4", name=name)
    for path in media[1].iterdir():
        shutil.copy(path, media[0])
    assert "imported 1 model" in imported(tmp_path, media[0] / name).stdout


def test_a_volume_behind_the_end_of_the_list_that_is_damaged_is_no_missing_one(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media[:1])
    shorten(media[0] / LIST, 2)
    last = media[0] / f"{NAME}.005"
    last.write_bytes(last.read_bytes()[:-1])
    done = imported(tmp_path, media[0] / NAME, code=INTEGRITY)
    told = f"{LIST} says nothing of {media[0] / NAME}.003: it or a later one is damaged or of another set"
    assert f"{told}, or {NAME}.006 or later is missing" in done.stderr


@needs_par2
def test_whole_volumes_that_the_list_does_not_know_are_not_repaired(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media[:1], parity="20%")
    shorten(media[0] / LIST, 2)
    assert "warning" not in imported(tmp_path, media[0] / NAME).stderr
    assert tree(tmp_path / "other") == tree(models.root)


@needs_par2
def test_a_damaged_volume_that_the_list_does_not_know_is_repaired(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media[:1], parity="20%")
    shorten(media[0] / LIST, 2)
    volume = media[0] / f"{NAME}.003"
    volume.write_bytes(noise(9, 9) + volume.read_bytes()[9:])
    assert "it was repaired: 1 recovery blocks" in imported(tmp_path, media[0] / NAME).stderr
    assert tree(tmp_path / "other") == tree(models.root)


@needs_par2
def test_parity_of_another_set_in_another_folder_does_not_count(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media[:1], "other:q4", parity="20%")
    export(models, media[1:2], parity="5%")
    volume = media[0] / f"{NAME}.001"
    volume.write_bytes(volume.read_bytes()[:-9] + noise(9, 9))
    done = imported(tmp_path, volume, media[1])
    assert ("it was repaired: 1 recovery blocks" in done.stderr, "imported 1 model" in done.stdout) == (True, True)


def test_a_volume_without_a_list_beside_it_is_not_called_damaged(models: Store, media: list[Path]) -> None:
    export(models, media[:1])
    listed, volume = media[0] / LIST, media[0] / f"{NAME}.001"
    listed.unlink()
    done = run("verify", volume)
    assert done.returncode == NOT_FOUND
    assert f"error[not-found]: {volume}: no {LIST} is beside it" in done.stderr
    assert f"(copy {LIST} along)" in done.stderr
    listed.write_bytes(b"noise")
    assert f"{volume}: no {LIST} can be read beside it" in run("verify", volume).stderr


@pytest.mark.parametrize("parity", [None, pytest.param("5%", marks=needs_par2)])
@pytest.mark.parametrize("command", ["import", "verify", "inspect"])
def test_where_volumes_are_missing_the_command_with_more_folders_is_told(
    models: Store, media: list[Path], tmp_path: Path, command: str, parity: str | None
) -> None:
    export(models, media, parity=parity)
    words = [command, f"{media[0] / NAME}{'.001' if command == 'import' else ''}"]
    if command != "inspect":
        words += ["--models", str(tmp_path / "other")]
    done = run(*words)
    assert done.returncode == INTEGRITY
    told = f"name the folders of the other media too: {shlex.join(['ostore', *words])} DIR…"
    assert told in done.stderr
    assert run(*words, *media[1:]).returncode == 0


def test_a_set_in_several_folders_is_verified_and_inspected_by_any_volume(models: Store, media: list[Path]) -> None:
    export(models, media)
    volume, others = media[1] / f"{NAME}.002", [*media[:1], *media[2:]]
    done = run("verify", volume, *others, "--models", models.root)
    assert (done.returncode, "verified 2 models" in done.stdout) == (0, True), done.stderr
    done = run("inspect", volume, *others)
    assert (done.returncode, "2 models" in done.stdout) == (0, True), done.stderr
    # A volume alone is hashed alone, and a folder with a store is one.
    assert "1 volume," in run("verify", volume).stdout
    done = run("verify", volume, models.root)
    assert ("1 volume," in done.stdout, "2 models" in done.stdout) == (True, True)
    done = run("verify", media[0] / f"{NAME}.009", *media)
    assert (done.returncode, "no such volume" in done.stderr) == (NOT_FOUND, True)


def test_a_folder_by_the_name_of_a_model_is_no_place_of_volumes(
    models: Store, media: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(models, media)
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    reports = ostore.verify([str(media[0] / f"{NAME}.001"), "tiny"], models=models.root)
    assert [(report.models, report.volumes) for report in reports] == [(1, 0), (0, 1)]


def test_inspect_takes_no_other_words_after_a_bundle(models: Store, media: list[Path]) -> None:
    export(models, media)
    for word in (models.root, media[0] / "absent"):
        done = run("inspect", media[0] / f"{NAME}.001", word)
        assert (done.returncode, f"{word}: expected a folder with more volumes" in done.stderr) == (2, True)


def test_a_set_without_a_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no volume of it"):
        ostore.inspect(ostore.VolumesAt(tmp_path / NAME, ()))


def test_of_two_lists_that_continue_the_first_one_counts(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media)
    shorten(media[0] / LIST, 1)
    listed = (media[0] / LIST).read_text().split()[0]
    (media[1] / LIST).write_bytes(write_sums(NAME, [Digest(listed), Digest.of(b"another")]))
    done = imported(tmp_path, volumes(media)[0], *media[1:])
    assert warning(media[1]) in done.stderr
    assert tree(tmp_path / "other") == tree(models.root)
