"""A bundle in volumes: cut as `split` cuts, named exactly if one is wrong, and replaced as a whole."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import ostore
from ostore.api.volumes import VolumesAt, gathered
from ostore.cli.exit_codes import CODES
from ostore.formats.digest import Digest
from ostore.formats.errors import (
    BusyError,
    IntegrityError,
    LimitError,
    NoSpaceError,
    NotFoundError,
    UnsafeError,
    UsageError,
)
from ostore.formats.volume_set import write_sums
from ostore.places.bundle.volume_folders import VolumeFolder
from ostore.streams.volumes import ClosedFile, JoinedBytes, VolumesOutput
from tests.documents import ROOT
from tests.recipes import OLD, two_releases
from tests.support import Store, noise, sha256, tree
from tests.support import ostore as run
from tests.volumes import NAME, SIZE, five_folders, five_volumes, imported, needs_par2, volumes, with_room

INTEGRITY = CODES["integrity"]
posix = pytest.mark.skipif(os.name == "nt", reason="programs and files of POSIX")


@pytest.fixture
def models(tmp_path: Path) -> Store:
    return five_volumes(tmp_path / "models")


@pytest.fixture
def media(tmp_path: Path) -> list[Path]:
    return five_folders(tmp_path)


def export(store: Store, media: Sequence[Path], **options: object) -> ostore.ExportReport:
    settings: dict[str, object] = {"split": SIZE, "to": media, "models": store.root, **options}
    return ostore.export(["*"], NAME, **settings)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


def test_a_lock_that_asks_for_more_damages_no_volume(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media)
    models.model("third:latest", b"third")
    ostore.lock(update=tmp_path / "x.lock", models=models.root)
    words = ("--lock", tmp_path / "x.lock", "--progress", "json", "--models", models.root)
    done = run("verify", volumes(media)[0].with_suffix(""), *media, *words)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "third:latest" in done.stdout
    assert "damaged volume" not in done.stderr


@posix
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
    # Without the lists, nobody knows of the last one but the bundle itself.
    for folder in media:
        (folder / f"{NAME}.sha256").unlink()
    assert f"{NAME}.003 is missing" in imported(tmp_path, media[0] / NAME, *media[1:], code=INTEGRITY).stderr


@pytest.mark.parametrize("name", [NAME, "x.tar"])
def test_without_the_media_after_a_change_the_next_volume_is_named(
    models: Store, media: list[Path], tmp_path: Path, name: str
) -> None:
    """The list on the first medium was written when nobody knew of the others: by it, nothing is missing."""
    bundle, listed = media[0] / name, media[0] / f"{name}.sha256"
    ostore.export(["*"], bundle, split=SIZE, models=models.root)
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:2]))
    second = [path.rename(media[1] / path.name) for path in sorted(media[0].glob(f"{name}.0*"))[2:]]
    for command in ("import", "verify"):
        done = run(command, bundle, "--models", tmp_path / "other")
        told = f"error[integrity]: {name}.003 or later is missing: it is not in {media[0]}"
        assert (done.returncode, told in done.stderr) == (INTEGRITY, True), done.stderr
        assert "name the folders of the other media too" in done.stderr
    imported(tmp_path, bundle, *second)


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


def test_a_whole_bundle_takes_the_place_of_volumes(models: Store, media: list[Path]) -> None:
    export(models, media[:1])
    with pytest.raises(UsageError, match=r"x\.tar\.zst\.001: exists"):
        ostore.export(["*"], media[0] / NAME, models=models.root)
    ostore.export(["*"], media[0] / NAME, models=models.root, replace=True)
    assert names(media[0]) == [NAME]


def test_a_folder_with_volumes_says_how_to_name_them(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1])
    done = imported(tmp_path, media[0], code=CODES["not-found"])
    assert f"there are volumes of a bundle in it: name {media[0] / NAME}.001" in done.stderr


def test_a_failed_export_leaves_the_old_set_as_it_was(models: Store, media: list[Path]) -> None:
    export(models, media[:2])
    before = [tree(folder) for folder in media]
    with models.blob_path(noise(50_000)).open("r+b") as file:
        file.write(b"altered")
    with pytest.raises(IntegrityError):
        export(models, media[:2], replace=True, strict=True, split=SIZE // 2)
    assert [tree(folder) for folder in media] == before


def test_two_exports_of_one_set_do_not_mix(models: Store, media: list[Path]) -> None:
    with VolumeFolder.opened(media[0], NAME), pytest.raises(BusyError, match="another export is writing there"):
        export(models, media[:1])
    assert list(media[0].iterdir()) == []


def test_what_a_killed_export_has_left_goes_and_files_of_others_stay(models: Store, media: list[Path]) -> None:
    left = media[0] / f"{NAME}.parts"
    left.mkdir(mode=0o700)
    (left / f"{NAME}.007").write_bytes(b"left")
    (left / "mine.txt").write_bytes(b"keep me")
    export(models, media[:1])
    assert names(left) == ["mine.txt"]
    assert f"{NAME}.007" not in names(media[0])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_folder_of_another_user_is_not_used(models: Store, media: list[Path]) -> None:
    """Root could remove it: the file in it stands for a folder where only its owner may do that."""
    theirs = media[0] / f"{NAME}.parts"
    theirs.mkdir()
    (theirs / "theirs").write_bytes(b"")
    os.chown(theirs, 1234, 1234)
    with pytest.raises(UnsafeError, match="belongs to another user"):
        export(models, media[:1])
    (theirs / "theirs").unlink()
    # As on FAT, where everything belongs to whoever has mounted it.
    (theirs / f"{NAME}.001").write_bytes(b"left")
    export(models, media[:1])
    assert not theirs.exists()


@posix
def test_a_link_in_the_place_of_a_volume_is_never_replaced(models: Store, media: list[Path], tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"keep me")
    (media[0] / f"{NAME}.001").symlink_to(tmp_path / "target")
    with pytest.raises(UsageError, match="not a regular file, so it is never replaced"):
        export(models, media[:1], replace=True)
    assert (tmp_path / "target").read_bytes() == b"keep me"


@posix
def test_the_text_beside_a_set_restores_it_word_for_word(models: Store, media: list[Path], tmp_path: Path) -> None:
    name = "my models.tar.zst"
    parity = "20%" if importlib.util.find_spec("par2") else None
    ostore.export(["*"], media[0] / name, split=SIZE, parity=parity, models=models.root)
    text = (media[0] / f"{name}.RESTORE.txt").read_text()
    lines = [line[4:] for line in text.splitlines() if re.match(r" {4}\S", line)]
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "ostore").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m ostore "$@"\n')
    (bin_folder / "ostore").chmod(0o755)
    if parity:
        from par2.cli import par2_executable

        (bin_folder / "par2").symlink_to(par2_executable())
    ways = {
        "ostore": [lines[0], *(line for line in lines if line.startswith("ostore "))],
        "python": [line for line in lines if "restore.py" in line or "> " in line],
        "tar": lines[-3:],
        "par2": [line for line in lines if line.startswith("par2 ")] + lines[-3:],
    }
    # Every line is typed; the last three are in two of the ways.
    assert set().union(*ways.values()) == set(lines)
    for way, typed in ways.items():
        folder, target = tmp_path / f"copy-{way}", tmp_path / f"store-{way}"
        shutil.copytree(media[0], folder)
        if way == "par2" and parity:
            damaged = folder / f"{name}.002"
            damaged.write_bytes(noise(900) + damaged.read_bytes()[900:])
        done = in_shell(typed, folder, bin_folder, target)
        assert done.returncode == 0, (way, done.stdout, done.stderr)
        assert tree(target, without=(".ostore", "ostore")) == tree(models.root)


def in_shell(typed: Sequence[str], folder: Path, programs: Path, store: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", "\n".join(["set -e", *typed])],
        cwd=folder,
        env={"PATH": f"{programs}:{os.environ['PATH']}", "OLLAMA_MODELS": str(store)},
        capture_output=True,
        text=True,
        check=False,
    )


@posix
@pytest.mark.parametrize("suffix", [".tar", ".tar.zst"])
@pytest.mark.parametrize("kind", ["delta", "recipes"])
def test_the_text_beside_a_set_that_requires_more_says_so_and_each_way_that_it_tells_restores_it(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    near = two_releases(tmp_path / "near")
    store = Store(tmp_path / "far")
    if kind == "delta":
        near.model("same:latest", OLD, license=b"MIT")
    store.model("tiny:old", OLD, template=b"{{ .Prompt }}")
    name = "same:latest" if kind == "delta" else "tiny:new"
    done = run("export", name, tmp_path / f"x{suffix}", "--split", "3K", "--have", store.root, "--models", near.root)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / f"x{suffix}.RESTORE.txt").read_text()
    assert "does not contain all blobs of its models" in " ".join(text.split())
    assert ("delta" in text, "3. With tar" in text) == ((kind == "delta"), (kind == "delta"))
    lines = [line[4:] for line in text.splitlines() if re.match(r" {4}\S", line)]
    ways = [[line for line in lines if "restore.py" in line or "> " in line]]
    if kind == "delta":
        ways.append(lines[-2:])
    for typed in ways:
        target = tmp_path / f"target-{len(typed)}"
        shutil.copytree(store.root, target)
        restored = in_shell(typed, tmp_path, tmp_path, target)
        assert restored.returncode == 0, restored.stderr
        assert run("verify", name, "--models", target).returncode == 0


@posix
@pytest.mark.parametrize("suffix", [".tar", ".tar.zst"])
def test_stock_tools_restore_it(models: Store, media: list[Path], tmp_path: Path, suffix: str) -> None:
    ostore.export(["*"], f"x{suffix}", split=SIZE, to=media, models=models.root)
    (tmp_path / "other").mkdir()
    unpack = "zstd -dc" if suffix == ".tar.zst" else "cat"
    volumes_in_order = " ".join(f"'{path}'" for path in volumes(media))
    command = f"cat {volumes_in_order} | {unpack} | tar -xmof - -C other"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert tree(tmp_path / "other", without=("ostore",)) == tree(models.root)


def test_too_many_volumes_are_refused_with_a_size_that_would_do(models: Store, media: list[Path]) -> None:
    for size in (20, 90):
        # The first is seen before anything is written. What does not shrink to that is seen when it is.
        with pytest.raises(LimitError, match="at most 999 volumes") as caught:
            export(models, media[:1], split=size)
        assert caught.value.hint == "--split 1M makes larger ones"
        assert list(media[0].iterdir()) == []


def test_the_next_medium_is_asked_for_when_none_has_room(
    models: Store, media: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room is what a stick of three volumes would tell; no such small disk can be made everywhere."""
    asked: list[tuple[int, list[str]]] = []

    def change(number: int, _needed: int, folders: Sequence[Path], problem: str) -> None:
        assert problem == ""
        asked.append((number, names(folders[0])))
        folders[0].rename(tmp_path / f"full-{len(asked)}")
        folders[0].mkdir()

    def room(path: Path) -> int:
        return 60_000 - sum(file.stat().st_size for file in path.rglob("*"))

    with_room(monkeypatch, room)
    report = export(models, media[:1], next_medium=change, verify_after_write=True)
    first = [f"{NAME}.{end}" for end in ("001", "002", "sha256")]
    assert asked == [(3, first), (5, [f"{NAME}.003", f"{NAME}.004", f"{NAME}.sha256"])]
    assert [Path(one.path).name for one in report.volumes] == [f"{NAME}.00{number}" for number in range(1, 6)]
    places = [tmp_path / "full-1", tmp_path / "full-2", media[0]]
    imported(tmp_path, media[0] / NAME, *places[:2])
    assert tree(tmp_path / "other") == tree(models.root)


def test_a_volume_without_room_is_named_if_nobody_can_be_asked(
    models: Store, media: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room is that of a disk that somebody else fills meanwhile."""
    rooms = iter([10**6] * 3 + [0] * 9)
    with_room(monkeypatch, lambda _path: next(rooms))
    with pytest.raises(NoSpaceError, match="no room for volume 3 of 20000 bytes") as caught:
        export(models, media[:1])
    assert "add --to DIR for every medium" in str(caught.value.hint)
    assert list(media[0].iterdir()) == []


@needs_par2
def test_media_are_not_changed_where_parity_is_to_replace_whole_volumes(
    models: Store, media: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = iter([10**6] * 3 + [0] * 9)
    with_room(monkeypatch, lambda _path: next(rooms))
    with pytest.raises(NoSpaceError, match="no room for volume 3") as caught:
        export(models, media[:1], parity="1volume", next_medium=lambda *_: pytest.fail("asked"))
    assert "parity needs all of them at once" in str(caught.value.hint)


def test_disks_that_are_too_small_together_are_refused_before_anything_is_written(
    models: Store, media: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_room(monkeypatch, lambda _path: 1000)
    with pytest.raises(NoSpaceError, match=r"expected \d+ bytes of free space, got 1000"):
        export(models, media)
    assert list(media[0].iterdir()) == []


@pytest.mark.parametrize(
    ("destination", "options", "said"),
    [
        ("out/", {"split": SIZE}, "split: out/ is no file"),
        ("-", {"parity": "5%"}, "parity: - is no file"),
        (NAME, {"to": ["."]}, "to: only a bundle in volumes can have it"),
        (NAME, {"parity": "5%"}, "parity: only a bundle in volumes can have it"),
        (f"folder/{NAME}", {"split": SIZE, "to": ["."]}, "with --to, expected a name without a folder"),
        (NAME, {"split": "large"}, "split: expected a size"),
    ],
)
def test_what_does_not_go_together_is_refused(
    models: Store, destination: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        ostore.export(["*"], destination, models=models.root, **options)  # type: ignore[arg-type]


@posix
def test_one_folder_given_twice_is_refused(models: Store, media: list[Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(media[0])
    for other in (tmp_path / "link", media[0] / "../a"):
        with pytest.raises(UsageError, match="the same folder as"):
            export(models, [media[0], media[1], other])
    assert names(media[0]) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--split", "large"), "--split: expected a size"),
        (("--split", "0"), "--split: expected 1 to"),
        (("--split", "9K", "--parity", "0%"), "--parity: expected 1% to"),
        (("--split", "9K", "--to", ""), "expected a folder, got an empty word"),
        (("--to", "."), "--to: only a bundle in volumes"),
        (("--level", "77"), "--level: expected auto or 1 to 19"),
    ],
)
def test_the_program_names_options(models: Store, tmp_path: Path, options: Sequence[str], said: str) -> None:
    done = run("export", "--all", "x.tar.zst", *options, "--models", models.root)
    assert (done.returncode, f"error[usage]: {said}" in done.stderr) == (CODES["usage"], True), done.stderr
    assert not list(tmp_path.glob("x.tar.zst*"))


@posix
@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_has_the_name_of_the_folder_where_volumes_wait_is_named(
    models: Store, media: list[Path], kind: str
) -> None:
    parts = media[0] / f"{NAME}.parts"
    if kind == "file":
        parts.write_bytes(b"theirs")
    else:
        parts.symlink_to(media[1])
    with pytest.raises(UsageError, match=r"x\.tar\.zst\.parts: not a folder") as caught:
        export(models, media[:1])
    assert "move it away" in str(caught.value.hint)
    assert (names(media[0]), names(media[1])) == ([parts.name], [])


def test_of_many_volumes_the_first_are_shown(models: Store, tmp_path: Path) -> None:
    done = run("export", "--all", tmp_path / NAME, "--split", "2KB", "--models", models.root)
    lines = done.stdout.splitlines()
    made = len(volumes([tmp_path]))
    assert made > 20
    assert [line.split()[0] for line in lines[:5]] == [f"{tmp_path / NAME}.00{number}" for number in range(1, 6)]
    assert lines[5] == f"  and {made - 5} more (--json shows all)"
    assert len(lines) == 7


def test_a_volume_that_is_named_and_not_there_is_not_found(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:2])
    absent = media[0] / f"{NAME}.009"
    done = imported(tmp_path, absent, media[1], code=CODES["not-found"])
    assert f"{absent}: no such volume (name one that is there, or {media[0] / NAME})" in done.stderr
    # It is in another of the folders.
    imported(tmp_path, media[0] / f"{NAME}.002", media[1])


def test_a_folder_that_is_not_there_is_named(models: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such folder"):
        export(models, [tmp_path / "absent"])
    with pytest.raises(NotFoundError, match="no volume of it in"):
        ostore.import_bundle(ostore.VolumesAt(tmp_path / NAME, (tmp_path,)), models=tmp_path / "other")


def test_a_set_takes_part_wherever_a_bundle_does(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1])
    bundle = media[0] / NAME
    assert ostore.inspect(bundle).bundle_size == sum(path.stat().st_size for path in volumes(media))
    (whole,) = ostore.verify([bundle], models=models.root)
    assert (whole.verdict, whole.models, whole.volumes) == ("whole", 2, 0)
    models.blob_path(noise(20_000, 2)).unlink()
    assert run("repair", "--from", bundle, "--models", models.root).returncode == 0
    assert models.blob_path(noise(20_000, 2)).exists()


def test_verify_names_the_volume_of_a_damaged_blob(models: Store, media: list[Path]) -> None:
    export(models, media[:1])
    third = media[0] / f"{NAME}.003"
    content = bytearray(third.read_bytes())
    content[SIZE // 2] ^= 1
    third.write_bytes(content)
    done = run("verify", media[0] / NAME)
    assert done.returncode == INTEGRITY
    assert f"volume-damaged: {third} is damaged: expected sha256:" in done.stdout
    assert "blob-altered" in done.stdout
    (media[0] / f"{NAME}.sha256").unlink()
    assert "volume-damaged" not in run("verify", media[0] / NAME).stdout
    done = run("verify", third)
    assert (done.returncode, f"no {NAME}.sha256 is beside it" in done.stderr) == (CODES["not-found"], True)


def test_verify_finds_the_volumes_of_a_bundle_in_folders(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media)
    assert "verified 2 models" in run("verify", tmp_path / NAME, *media).stdout
    assert run("verify", tmp_path / NAME, *media[1:]).returncode == INTEGRITY
    assert run("verify", media[1] / f"{NAME}.001").returncode == INTEGRITY


def test_a_folder_without_a_store_is_what_it_is_if_no_set_is_named(models: Store, media: list[Path]) -> None:
    ostore.export(["*"], media[0] / "whole.tar.zst", models=models.root)
    done = run("import", media[0] / "whole.tar.zst", media[1], "--models", models.root)
    assert done.returncode == CODES["not-found"]


@posix
def test_a_thousand_open_files_are_not_needed(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1], split=500)
    assert len(volumes(media)) > 100
    limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"]
    done = run("import", media[0] / NAME, "--models", tmp_path / "other", tracer=limited)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "other") == tree(models.root)


def test_a_volume_that_changes_while_it_is_read_is_noticed(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1])

    def touch(_report: object) -> None:
        os.utime(media[0] / f"{NAME}.002", (1, 1))

    with pytest.raises(IntegrityError, match="changed while it was read"):
        ostore.import_bundle(media[0] / NAME, models=tmp_path / "other", before=touch)


def test_a_last_volume_that_is_larger_than_the_others_is_named(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media[:1])
    (media[0] / f"{NAME}.sha256").unlink()
    last = media[0] / f"{NAME}.005"
    last.write_bytes(last.read_bytes() + bytes(SIZE))
    done = imported(tmp_path, media[0] / NAME, code=INTEGRITY)
    assert f"{last} is damaged: expected at most {SIZE} bytes, got " in done.stderr


def test_a_set_of_one_volume_is_a_set(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1], split="fat32")
    assert [path.name for path in volumes(media)] == [f"{NAME}.001"]
    (media[0] / f"{NAME}.sha256").unlink()
    imported(tmp_path, media[0] / f"{NAME}.001")
    assert tree(tmp_path / "other") == tree(models.root)


def test_a_damaged_volume_beside_a_list_of_another_set_is_damaged(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media)
    (media[1] / f"{NAME}.sha256").write_bytes(write_sums(NAME, [Digest.of(b"another")]))
    (media[2] / f"{NAME}.003").write_bytes(noise(SIZE, 5))
    done = imported(tmp_path, media[0] / NAME, *media[1:], code=INTEGRITY)
    assert f"{media[2] / NAME}.003 is damaged: expected sha256:" in done.stderr


def test_words_mean_volumes_only_where_there_are_some(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media)
    here = VolumesAt(media[0] / NAME, tuple(media))
    assert gathered([here, tmp_path]) == [here, tmp_path]
    assert gathered(["\0", media[1]]) == ["\0", media[1]]
    assert gathered(list(media)) == media
    assert gathered([tmp_path / "absent" / NAME, models.root]) == [tmp_path / "absent" / NAME, models.root]
    assert gathered([tmp_path / "absent" / NAME, *media[:2]]) == [
        VolumesAt(tmp_path / "absent" / NAME, (tmp_path / "absent", *media[:2]))
    ]
    assert ostore.inspect(here).blobs == 5


def test_two_sources_are_looked_at_first_even_if_one_needs_repair(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media[:1])
    (media[0] / f"{NAME}.002").unlink()
    ostore.export(["tiny"], tmp_path / "tiny.tar", models=models.root)
    done = imported(tmp_path, tmp_path / "tiny.tar", media[0] / NAME, code=INTEGRITY)
    assert ("tiny:latest: added" in done.stdout, f"{NAME}.002 is missing" in done.stderr) == (True, True)


def test_of_many_problems_the_first_are_told(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1], split=5000)
    for path in volumes(media)[1:-1]:
        path.unlink()
    done = imported(tmp_path, media[0] / NAME, code=INTEGRITY)
    assert f"{NAME}.006 is missing" in done.stderr
    assert re.search(r"; and \d+ more", done.stderr)
    assert f"{NAME}.007" not in done.stderr


def test_damage_without_a_list_says_why_no_volume_is_named(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1])
    (media[0] / f"{NAME}.sha256").unlink()
    (media[0] / f"{NAME}.003").write_bytes(noise(SIZE, 5))
    done = imported(tmp_path, media[0] / NAME, code=INTEGRITY)
    assert f"without {NAME}.sha256 nobody knows which volume is damaged" in done.stderr


def test_damage_of_the_store_is_no_damage_of_volumes(models: Store, media: list[Path], tmp_path: Path) -> None:
    """The list says that all volumes are whole, so the error is told as it is."""
    export(models, media[:1])
    other = Store(tmp_path / "other")
    other.model("tiny:latest", b"another model of that name")
    done = imported(tmp_path, media[0] / NAME, code=CODES["usage"])
    assert "another model of that name is there" in done.stderr


def test_a_folder_by_the_name_of_a_volume_is_no_volume(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1])
    (media[0] / f"{NAME}.002").unlink()
    (media[0] / f"{NAME}.002").mkdir()
    assert f"{NAME}.002 is missing" in imported(tmp_path, media[0] / NAME, code=INTEGRITY).stderr


def test_a_good_copy_in_another_place_is_used(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1])
    shutil.copy(media[0] / f"{NAME}.002", media[1])
    (media[0] / f"{NAME}.002").write_bytes(bytes(SIZE))
    imported(tmp_path, media[0] / NAME, media[1])
    assert tree(tmp_path / "other") == tree(models.root)


@posix
def test_a_volume_that_the_disk_cannot_hold_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    """A limit on files stands for FAT, and a hole for weights."""
    store = Store(tmp_path / "models")
    path = store.model("large:latest", b"weights")
    size = 5_000_000_000
    path.write_text(path.read_text().replace('"size":7', f'"size":{size}'))
    os.truncate(store.blob_path(b"weights"), size)
    limited = ["sh", "-c", 'ulimit -f 8388607; exec "$@"', "sh"]
    target = tmp_path / NAME
    done = run("export", "large", target, "--split", "4500M", "--models", store.root, tracer=limited)
    assert (done.returncode, "cannot hold a file of 4718592000 bytes" in done.stderr) == (CODES["no-space"], True)
    assert "--split fat32" in done.stderr
    assert names(tmp_path) == ["models"]


class Missing:
    """Bytes that end early."""

    size = 10

    def read_at(self, size: int, offset: int) -> bytes:
        return b"12345"[offset : offset + size]

    def refuse_changes(self) -> None:
        """They do not."""


def test_no_bytes_make_no_volume() -> None:
    output = VolumesOutput(10, lambda _number: pytest.fail("begun"))
    assert output.write([b"", b""]) == 0
    output.sync()
    output.close()
    assert output.volumes == []


def test_bytes_of_a_volume_that_ends_early_are_not_those_of_the_next() -> None:
    joined = JoinedBytes([Missing(), Missing()])
    assert joined.size == 20
    assert joined.read_at(20, 0) == b"12345"
    assert joined.read_at(3, 11) == b"234"
    assert joined.read_at(5, 20) == b""


@posix
def test_only_regular_files_are_volumes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        ClosedFile(tmp_path / "fifo")
