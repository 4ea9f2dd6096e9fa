"""A bundle in volumes: cut as `split` cuts, named exactly if one is wrong, and replaced as a whole."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import ostore
from ostore.cli.exit_codes import CODES
from ostore.formats.errors import (
    BusyError,
    IntegrityError,
    UsageError,
)
from tests.support import Store, noise, sha256, tree
from tests.support import ostore as run

SIZE = 20_000
NAME = "x.tar.zst"
INTEGRITY = CODES["integrity"]
needs_par2 = pytest.mark.skipif(
    not (shutil.which("par2") or pytest.importorskip("importlib.util").find_spec("par2")),
    reason="par2 is not installed",
)


@pytest.fixture
def models(tmp_path: Path) -> Store:
    """A store whose bundle is some 93 kB: five volumes."""
    store = Store(tmp_path / "models")
    store.model("tiny:latest", noise(50_000), template=b"{{ .Prompt }}")
    store.model("other:q4", noise(20_000, 2), license=b"MIT")
    return store


@pytest.fixture
def media(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / name for name in "abcde"]
    for folder in folders:
        folder.mkdir()
    return folders


def export(store: Store, media: Sequence[Path], **options: object) -> ostore.ExportReport:
    settings: dict[str, object] = {"split": SIZE, "to": media, "models": store.root, **options}
    return ostore.export(["*"], NAME, **settings)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def volumes(media: Sequence[Path]) -> list[Path]:
    return sorted((path for folder in media for path in folder.glob("*.[0-9][0-9][0-9]")), key=lambda path: path.name)


def imported(tmp_path: Path, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = run("import", *words, "--models", tmp_path / "other")
    assert done.returncode == code, done.stderr
    return done


def test_volumes_are_what_split_makes_of_the_bundle(models: Store, media: list[Path], tmp_path: Path) -> None:
    report = export(models, media)
    ostore.export(["*"], tmp_path / "whole.tar.zst", models=models.root)
    joined = b"".join(path.read_bytes() for path in volumes(media))
    assert joined == (tmp_path / "whole.tar.zst").read_bytes()
    assert [path.stat().st_size for path in volumes(media)][:-1] == [SIZE] * (len(volumes(media)) - 1)
    assert len(volumes(media)) == 5
    assert report.bundle_size == len(joined)
    assert [(Path(one.path), one.size, one.digest) for one in report.volumes] == [
        (path, path.stat().st_size, f"sha256:{sha256(path.read_bytes())}") for path in volumes(media)
    ]
    assert [one.parent for one in volumes(media)] == media


def test_each_volume_can_be_checked_alone(models: Store, media: list[Path]) -> None:
    export(models, media)
    for path in volumes(media):
        done = run("verify", path)
        assert (done.returncode, "1 volume" in done.stdout, "whole" in done.stdout) == (0, True, True)
        subprocess.run(
            ["sha256sum", "--quiet", "--ignore-missing", "-c", f"{NAME}.sha256"], cwd=path.parent, check=True
        )
    third = volumes(media)[2]
    third.write_bytes(bytes(SIZE))
    done = run("verify", third)
    assert (done.returncode, "1 problem" in done.stdout) == (INTEGRITY, True)
    assert f"{third} is damaged: expected sha256:" in done.stdout


@pytest.mark.parametrize("first", ["b/x.tar.zst.002", "a/x.tar.zst", "c/x.tar.zst.sha256"])
def test_volumes_are_imported_from_several_places_in_any_order(
    models: Store, media: list[Path], tmp_path: Path, first: str
) -> None:
    export(models, media)
    (media[0] / "x_notes.002").write_bytes(b"foreign")
    (media[1] / f"{NAME}.notes").write_bytes(b"foreign")
    (media[2] / f"{NAME}.006").mkdir()
    imported(tmp_path, tmp_path / first, *random.Random(1).sample(media, 5))
    assert tree(tmp_path / "other") == tree(models.root)


def test_all_volumes_named_are_one_source(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media)
    done = imported(tmp_path, *reversed(volumes(media)))
    assert "imported 2 models" in done.stdout
    assert tree(tmp_path / "other") == tree(models.root)


def test_a_volume_that_is_missing_is_named_with_where_it_was_looked_for(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media)
    (media[2] / f"{NAME}.003").unlink()
    done = imported(tmp_path, media[0] / NAME, *media[1:], code=INTEGRITY)
    assert f"{NAME}.003 is missing: it is not in {', '.join(map(str, media))}" in done.stderr
    assert not (tmp_path / "other").exists()
    # Without the side files, nobody knows of the last one but the bundle itself.
    for folder in media:
        (folder / f"{NAME}.sha256").unlink()
    assert f"{NAME}.003 is missing" in imported(tmp_path, media[0] / NAME, *media[1:], code=INTEGRITY).stderr


def test_volumes_under_each_others_names_are_named(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media)
    second, third = volumes(media)[1:3]
    content = second.read_bytes()
    second.write_bytes(third.read_bytes())
    third.write_bytes(content)
    done = imported(tmp_path, media[0] / NAME, *media[1:], code=INTEGRITY)
    assert f"{second} is {NAME}.003 under another name; {third} is {NAME}.002 under another name" in done.stderr
    assert not (tmp_path / "other/manifests").exists()


def test_swapped_media_do_no_harm(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media)
    media[1].rename(tmp_path / "kept")
    media[3].rename(media[1])
    (tmp_path / "kept").rename(media[3])
    imported(tmp_path, media[0] / NAME, *media[1:])
    assert tree(tmp_path / "other") == tree(models.root)


def test_a_volume_of_another_set_with_the_same_name_is_named(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media)
    others = [tmp_path / f"other-{folder.name}" for folder in media]
    for folder in others:
        folder.mkdir()
    ostore.export(["other:q4"], NAME, split=SIZE // 2, to=others, models=models.root)
    shutil.rmtree(media[1])
    done = imported(tmp_path, media[0] / NAME, *media[2:], others[1], code=INTEGRITY)
    assert f"{others[1] / NAME}.002 is of another set with the same name" in done.stderr


def test_a_volume_of_the_wrong_size_is_named_before_anything_is_read(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media)
    for folder in media:
        (folder / f"{NAME}.sha256").unlink()
    os.truncate(volumes(media)[1], SIZE - 1)
    done = imported(tmp_path, media[0] / NAME, *media[1:], code=INTEGRITY)
    assert f"{volumes(media)[1]} is damaged: expected {SIZE} bytes, got {SIZE - 1}" in done.stderr


def test_another_size_leaves_no_old_volume(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1])
    (media[0] / "x_notes.002").write_bytes(b"foreign")
    (media[0] / f"{NAME}.001.1").write_bytes(b"foreign")
    before = tree(media[0])
    with pytest.raises(UsageError, match=r"x\.tar\.zst\.001: exists"):
        export(models, media[:1], split=2 * SIZE)
    assert tree(media[0]) == before
    export(models, media[:1], split=2 * SIZE, replace=True)
    assert names(media[0]) == sorted(
        ["x_notes.002", f"{NAME}.001.1", *(f"{NAME}.{end}" for end in ("001", "002", "003", "sha256", "RESTORE.txt"))]
    )
    imported(tmp_path, media[0] / NAME)
    assert tree(tmp_path / "other") == tree(models.root)


def test_a_bundle_of_that_name_goes_with_replace(models: Store, media: list[Path]) -> None:
    ostore.export(["tiny"], media[0] / NAME, models=models.root)
    with pytest.raises(UsageError, match="exists"):
        export(models, media[:1])
    export(models, media[:1], replace=True)
    assert not (media[0] / NAME).exists()
    assert len(ostore.inspect(media[0] / NAME).models) == 2


def test_a_failed_export_leaves_the_old_set_as_it_was(models: Store, media: list[Path]) -> None:
    export(models, media[:2])
    before = [tree(folder) for folder in media]
    with models.blob_path(noise(50_000)).open("r+b") as file:
        file.write(b"altered")
    with pytest.raises(IntegrityError):
        export(models, media[:2], replace=True, strict=True, split=SIZE // 2)
    assert [tree(folder) for folder in media] == before


def test_two_exports_of_one_set_do_not_mix(models: Store, media: list[Path]) -> None:
    def again(_report: object) -> None:
        (media[0] / f"{NAME}.parts").mkdir(mode=0o700)
        with (media[0] / f"{NAME}.parts" / "lock").open("w") as file:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            kept.append(file)
            os.dup(file.fileno())

    kept: list[object] = []
    with pytest.raises(BusyError, match="another export is writing there"):
        export(models, media[:1], before=again)
