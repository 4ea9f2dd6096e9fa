"""Parity repairs volumes before anything is refused: within its budget to the same bytes, and beyond it not at all."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ostore
from ostore.cli.exit_codes import CODES
from ostore.formats.errors import IntegrityError, NoSpaceError, UnsafeError, UsageError
from ostore.formats.par2_packets import Packet, whole_packets
from ostore.formats.par2_renaming import DescribedFile, Renaming, aliases
from ostore.formats.parity import ParityPlan, ParityWish, least_parity, parse_parity, plan_parity
from ostore.places.bundle.par2 import BeyondRepairError, Mended, create_parity, repair_with_parity
from ostore.places.bundle.parity import repair_volumes
from ostore.places.bundle.volume_reader import find_volumes
from ostore.streams.durable import Directory
from tests.support import TORTURE, Store, noise, sha256, tree
from tests.support import ostore as run
from tests.volumes import NAME, SIZE, five_folders, five_volumes, imported, needs_par2, volumes, with_room

NAMES = frozenset(f"{NAME}.{number:03}" for number in range(1, 9))
INTEGRITY = CODES["integrity"]
_SHOWN = ("'*'", "'?'", r"'\\'", r"'\n'", r"'\x7f'")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return five_volumes(tmp_path_factory.mktemp("parity") / "models")


@pytest.fixture
def media(tmp_path: Path) -> list[Path]:
    return five_folders(tmp_path)


def export(store: Store, to: Sequence[Path], parity: str) -> ostore.ExportReport:
    return ostore.export(["*"], NAME, split=SIZE, to=to, parity=parity, models=store.root)


@needs_par2
def test_a_lost_medium_is_replaced_by_the_parity_of_the_others(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media, "1volume")
    shutil.rmtree(media[2])
    before = [tree(folder) for folder in (*media[:2], *media[3:])]
    done = imported(tmp_path, media[0] / NAME, *media[1:2], *media[3:])
    assert f"{NAME}.003 is missing: it is not in" in done.stderr
    assert "it was repaired: " in done.stderr
    assert tree(tmp_path / "other") == tree(models.root)
    assert [tree(folder) for folder in (*media[:2], *media[3:])] == before
    assert list((tmp_path / "other/.ostore/tx").iterdir()) == []


@needs_par2
@pytest.mark.parametrize("count", [2, 5])
def test_stock_par2_takes_parity_that_was_made_over_several_disks(
    models: Store, media: list[Path], tmp_path: Path, count: int
) -> None:
    """One of the folders is on another disk, where there is one: nothing can be linked or moved there."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as other:
        folders = [*media[: count - 1], Path(other)]
        report = export(models, folders, "1volume")
        assert len(report.parity) == 1
        assert [len(list(folder.glob("*.vol*.par2"))) for folder in folders] == [1] * count
        assert all((folder / f"{NAME}.par2").exists() for folder in folders)
        whole = tmp_path / "whole"
        whole.mkdir()
        for folder in folders:
            for path in folder.iterdir():
                shutil.copy(path, whole)
    content = {path.name: path.read_bytes() for path in whole.glob("*.0*")}
    program = [_program(), "repair", f"{NAME}.par2"]
    verified = subprocess.run(
        [_program(), "verify", f"{NAME}.par2"], cwd=whole, capture_output=True, text=True, check=True
    )
    assert "All files are correct, repair is not required" in verified.stdout
    for name, lost in content.items():
        (whole / name).unlink()
        subprocess.run(program, cwd=whole, capture_output=True, check=True)
        assert (whole / name).read_bytes() == lost


def changed_media(
    models: Store, stick: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ostore.ExportReport, list[Path]]:
    """Volumes with parity on sticks with room for two, which are changed at `stick`; gives the folders of all."""
    full: list[Path] = []

    def change(_number: int, _needed: int, folders: Sequence[Path], _problem: str) -> None:
        full.append(kept / f"full-{len(full)}")
        folders[0].rename(full[-1])
        folders[0].mkdir()

    with_room(monkeypatch, lambda path: 100_000 - sum(file.stat().st_size for file in path.rglob("*")))
    report = ostore.export(
        ["*"], NAME, split=SIZE, to=[stick], parity="5%", next_medium=change, models=models.root, replace=True
    )
    return report, [*full, stick]


@needs_par2
def test_media_that_are_changed_have_parity_of_their_own(
    models: Store, media: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, places = changed_media(models, media[0], tmp_path, monkeypatch)
    numbers = [[path.name[-3:] for path in volumes([place])] for place in places]
    assert numbers == [["001", "002"], ["003", "004"], ["005"]]
    assert [parity.files[0] for parity in report.parity] == [str(media[0] / f"{NAME}.00{n}.par2") for n in (1, 3, 5)]
    for parity, place in zip(report.parity, places, strict=True):
        assert sorted(Path(file).name for file in parity.files) == sorted(path.name for path in place.glob("*.par2"))
    # A scratch on two of them.
    for place, number in ((places[0], 2), (places[2], 5)):
        scratch(place / f"{NAME}.00{number}", 9)
    before = [tree(place) for place in places]
    done = imported(tmp_path, places[2] / NAME, *places[:2])
    assert f"{NAME}.002 is damaged" in done.stderr
    assert f"{NAME}.005 is damaged" in done.stderr
    assert tree(tmp_path / "other") == tree(models.root)
    assert [tree(place) for place in places] == before
    # What lies beside all of them in one folder tells par2 all that it has to do.
    (tmp_path / "copied").mkdir()
    for place in places:
        shutil.copytree(place, tmp_path / "copied", dirs_exist_ok=True)
    text = (tmp_path / f"copied/{NAME}.RESTORE.txt").read_text()
    typed = [line.split("#")[0].split() for line in text.splitlines() if line.startswith("    par2 repair ")]
    assert [words[2] for words in typed] == [f"{NAME}.00{number}.par2" for number in (1, 3, 5)]
    for words in typed:
        subprocess.run([_program(), *words[1:]], cwd=tmp_path / "copied", capture_output=True, check=True)
    assert ostore.verify([str(tmp_path / "copied" / NAME)])[0].verdict == "whole"


@needs_par2
def test_the_parity_of_one_medium_does_not_mend_another(
    models: Store, media: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, places = changed_media(models, media[0], tmp_path, monkeypatch)
    for number in (1, 2):
        scratch(places[0] / f"{NAME}.00{number}", 5000)
    done = imported(tmp_path, places[2] / NAME, *places[:2], code=INTEGRITY)
    assert re.search(r"the parity does not suffice to repair it: \d+ recovery blocks short", done.stderr)
    for path in places[0].glob("*.par2"):
        path.unlink()
    done = imported(tmp_path, places[2] / NAME, *places[:2], code=INTEGRITY)
    assert "no parity that is whole describes it" in done.stderr
    assert not (tmp_path / "other").exists()


@needs_par2
def test_what_is_missing_after_a_repair_is_missing_in_the_folders_that_were_named(
    models: Store, media: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, places = changed_media(models, media[0], tmp_path, monkeypatch)
    done = imported(tmp_path, places[0] / f"{NAME}.001", places[1], code=INTEGRITY)
    assert f"{NAME}.005 or later is missing: it is not in {places[0]}, {places[1]} (" in done.stderr
    assert "name the folders of the other media too: ostore import " in done.stderr


@needs_par2
def test_parity_of_an_older_set_does_not_keep_that_of_the_newer_one_from_mending(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    older = five_volumes(tmp_path / "older")
    older.model("more:latest", noise(3000, 9))
    export(older, media[:1], "5%")
    for path in (*volumes(media[:1]), media[0] / f"{NAME}.sha256"):
        path.unlink()
    export(models, media[1:2], "5%")
    scratch(media[1] / f"{NAME}.003", 9)
    done = imported(tmp_path, media[0] / f"{NAME}.003", media[0], media[1])
    assert "it was repaired: " in done.stderr
    assert tree(tmp_path / "other") == tree(models.root)


def scratch(path: Path, size: int) -> None:
    """Damage bytes in the middle of a file."""
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + noise(size, 77) + content[middle + size :])


@needs_par2
def test_the_report_says_how_many_blocks_were_spare(models: Store, media: list[Path], tmp_path: Path) -> None:
    exported = export(models, media[:1], "20%")
    (parity,) = exported.parity
    # One byte of weights, which do not shrink. Every import reads the index before them.
    files = sorted(media[0].glob(f"{NAME}.0*"))
    number, offset = divmod(b"".join(file.read_bytes() for file in files).index(noise(50_000)) + 25_000, SIZE)
    content = bytearray(files[number].read_bytes())
    content[offset] ^= 1
    files[number].write_bytes(content)
    report = ostore.import_bundle(media[0] / NAME, models=tmp_path / "other")
    assert report.parity == ostore.UsedParity(1, parity.recovery_blocks - 1)
    # What is there already is not read, so nobody sees the damage.
    assert ostore.import_bundle(media[0] / NAME, models=tmp_path / "other").parity is None


@needs_par2
def test_beyond_the_budget_the_message_says_how_many_blocks_short(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    exported = export(models, media[:1], "5%")
    (parity,) = exported.parity
    lost = -(-SIZE // parity.block_size)
    (media[0] / f"{NAME}.002").unlink()
    done = imported(tmp_path, media[0] / NAME, code=INTEGRITY)
    assert f"{NAME}.002 is missing" in done.stderr
    assert f"{lost - parity.recovery_blocks} recovery blocks short" in done.stderr
    assert not (tmp_path / "other").exists()


@needs_par2
def test_volumes_without_their_digests_are_repaired_too(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1], "20%")
    (media[0] / f"{NAME}.sha256").unlink()
    volume = media[0] / f"{NAME}.003"
    volume.write_bytes(noise(1500, 9) + volume.read_bytes()[1500:])
    assert "it was repaired" in imported(tmp_path, media[0] / NAME).stderr
    assert tree(tmp_path / "other") == tree(models.root)


@needs_par2
def test_volumes_under_each_others_names_are_put_right(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1], "5%")
    second, third = (media[0] / f"{NAME}.{number:03}" for number in (2, 3))
    content = second.read_bytes()
    second.write_bytes(third.read_bytes())
    third.write_bytes(content)
    assert "it was repaired: 0 recovery blocks" in imported(tmp_path, media[0] / NAME).stderr


@needs_par2
@pytest.mark.parametrize("lost", [3, 5])
def test_volumes_that_the_list_does_not_know_are_repaired_too(
    models: Store, media: list[Path], tmp_path: Path, lost: int
) -> None:
    """The list is that of the first of several media."""
    export(models, media[:1], "1volume")
    listed = media[0] / f"{NAME}.sha256"
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:2]))
    (media[0] / f"{NAME}.{lost:03}").unlink()
    done = imported(tmp_path, media[0] / NAME)
    assert "it was repaired: " in done.stderr
    assert tree(tmp_path / "other") == tree(models.root)


@needs_par2
def test_a_dry_run_repairs_nothing(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media[:1], "1volume")
    (media[0] / f"{NAME}.002").unlink()
    done = run("import", "-n", media[0] / NAME, "--models", tmp_path / "other")
    told = "a dry run repairs nothing; the import repairs it, if the parity suffices"
    assert (done.returncode, told in done.stderr) == (INTEGRITY, True)
    assert not (tmp_path / "other").exists()


@needs_par2
def test_damage_within_the_budget_is_repaired_to_the_same_bytes_and_beyond_it_refused(
    models: Store, tmp_path: Path
) -> None:
    """100 patterns for `make torture`."""
    folder, work = tmp_path / "set", tmp_path / "work"
    folder.mkdir()
    exported = export(models, [folder], "10%")
    (parity,) = exported.parity
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    budget, block = parity.recovery_blocks, parity.block_size
    blocks = [(volume.path, offset) for volume in exported.volumes for offset in range(0, volume.size, block)]
    for seed in range(100 if TORTURE else 6):
        chance = random.Random(seed)
        is_within = seed % 2 == 0
        count = chance.randint(1, budget) if is_within else chance.randint(budget + 1, len(blocks))
        for path, offset in chance.sample(blocks, count):
            damaged = bytearray(Path(path).read_bytes())
            damaged[min(offset + chance.randrange(block), len(damaged) - 1)] ^= chance.randint(1, 255)
            Path(path).write_bytes(damaged)
        work.mkdir()
        with Directory.open(work) as room:
            if is_within:
                repaired, mended = repair_volumes(find_volumes(NAME, [folder]), room, jobs=2)
                assert mended == Mended(count, budget - count)
                assert {path.name: path.read_bytes() for (path,) in repaired.copies.values()} == {
                    name: content for name, content in whole.items() if name in NAMES
                }
            else:
                with pytest.raises(IntegrityError, match=f"{count - budget} recovery blocks short"):
                    repair_volumes(find_volumes(NAME, [folder]), room, jobs=2)
        shutil.rmtree(work)
        for name, content in whole.items():
            (folder / name).write_bytes(content)


@needs_par2
@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "evil", f"{NAME}.001/../../evil", f"{NAME}.0001"])
def test_parity_of_other_files_is_refused_before_par2_sees_it(
    models: Store, media: list[Path], tmp_path: Path, name: str
) -> None:
    export(models, media[:1], "20%")
    (media[0] / f"{NAME}.002").unlink()
    with (media[0] / f"{NAME}.par2").open("ab") as file:
        file.write(packet(b"PAR 2.0\0FileDesc", bytes(48) + struct.pack("<Q", 5) + padded(name.encode())))
    done = imported(tmp_path, media[0] / NAME, code=CODES["unsafe"])
    assert f"expected parity of the volumes, got that of a file '{name}'" in done.stderr
    assert not list(tmp_path.rglob("*evil*"))


@needs_par2
def test_parity_that_makes_other_volumes_is_refused(models: Store, media: list[Path], tmp_path: Path) -> None:
    """Parity of a set of the same name with other content, and the list of the right one."""
    export(models, media[:1], "20%")
    other = Store(tmp_path / "evil")
    other.model("tiny:latest", noise(50_000, 7), template=b"{{ .Prompt }}")
    other.model("other:q4", noise(20_000, 8), license=b"MIT")
    export(other, media[1:2], "100%")
    for path in media[0].glob("*.par2"):
        path.unlink()
    for path in media[1].glob("*.par2"):
        shutil.copy(path, media[0])
    (media[0] / f"{NAME}.002").unlink()
    done = imported(tmp_path, media[0] / NAME, code=INTEGRITY)
    assert "the parity makes other volumes than the list of digests says" in done.stderr
    assert not (tmp_path / "other/manifests").exists()


@needs_par2
def test_a_list_that_is_wrong_about_a_whole_volume_is_no_reason_to_refuse(
    models: Store, media: list[Path], tmp_path: Path
) -> None:
    export(models, media[:1], "1volume")
    (media[0] / f"{NAME}.002").unlink()
    listed = media[0] / f"{NAME}.sha256"
    first = sha256((media[0] / f"{NAME}.001").read_bytes())
    listed.write_text(listed.read_text().replace(first, "0" * 64))
    imported(tmp_path, media[0] / NAME)
    assert tree(tmp_path / "other") == tree(models.root)


@needs_par2
def test_damaged_parity_is_used_as_far_as_it_is_whole(models: Store, media: list[Path], tmp_path: Path) -> None:
    export(models, media, "1volume")
    (media[1] / f"{NAME}.002").unlink()
    recovery = next(media[0].glob("*.vol*"))
    content = bytearray(recovery.read_bytes())
    content[500] ^= 1
    recovery.write_bytes(content)
    imported(tmp_path, media[0] / NAME, *media[1:])
    assert tree(tmp_path / "other") == tree(models.root)


def test_without_par2_the_message_says_how_to_get_it(
    models: Store, media: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "par2.cli", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="the program par2 is not installed") as caught:
        export(models, media[:1], "5%")
    assert "pip install 'ostore[parity]'" in str(caught.value.hint)
    assert list(media[0].iterdir()) == []


@needs_par2
def test_a_program_on_the_path_is_used_if_the_extra_is_not_there(
    models: Store, media: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from par2.cli import par2_executable

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/par2").symlink_to(par2_executable())
    monkeypatch.setitem(sys.modules, "par2.cli", None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert export(models, media[:1], "5%").parity


@needs_par2
@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((f"a{char}b.tar.zst", f"a name with {shown}") for char, shown in zip("*?\\\n\x7f", _SHOWN, strict=True)),
        (f"{'é' * 115}.tar.zst", "expected a name of at most 237 bytes, got 238"),
    ],
)
def test_a_name_that_parity_cannot_have_is_refused_before_anything_is_written(
    models: Store, media: list[Path], name: str, said: str
) -> None:
    for places in (media[:1], media[:2]):
        with pytest.raises(UsageError, match=re.escape(said)):
            ostore.export(["*"], name, split=SIZE, to=places, parity="5%", models=models.root)
    assert [list(medium.iterdir()) for medium in media] == [[]] * 5


@needs_par2
@pytest.mark.parametrize("name", ["a[1] 'é'.tar.zst", f"{'a' * 229}.tar.zst", "-@b.tar.zst"])
def test_parity_of_any_other_name_repairs_it(models: Store, media: list[Path], tmp_path: Path, name: str) -> None:
    for places in (media[:1], media[1:3]):
        ostore.export(["*"], name, split=SIZE, to=places, parity="30%", models=models.root)
        volume = next(path for folder in places for path in folder.iterdir() if path.name.endswith(".002"))
        volume.write_bytes(bytes(10) + volume.read_bytes()[10:])
        target = tmp_path / f"target-{len(places)}"
        target.mkdir()
        imported(target, places[0] / name, *places[1:])
        assert tree(target / "other") == tree(models.root)


@needs_par2
def test_what_par2_cannot_do_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    plan = ParityPlan(1024, 1, 1, 1, 9999)
    with pytest.raises(OSError, match="par2 could not make parity: You must specify a list of files"):
        create_parity(tmp_path, ["absent"], Path("p.par2"), plan, jobs=1)
    with pytest.raises(IntegrityError, match="par2 could not repair: "):
        repair_with_parity(tmp_path, "absent.par2", jobs=1)


def test_a_full_disk_is_told_as_one(
    models: Store, media: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script stands for a par2 on a disk that somebody else has filled. It says what par2 1.0 says."""
    (tmp_path / "par2").write_text(
        "#!/bin/sh\necho 'Could not write 9 bytes to x.par2 at offset 0: No space left on device'\nexit 6\n"
    )
    (tmp_path / "par2").chmod(0o755)
    monkeypatch.setitem(sys.modules, "par2.cli", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoSpaceError, match="no room for the parity: Could not write 9 bytes"):
        export(models, media[:1], "5%")
    assert list(media[0].iterdir()) == []


@needs_par2
@pytest.mark.parametrize("parity", ["100%", "2volumes"])
def test_the_room_for_the_parity_is_looked_for_before_anything_is_written(
    models: Store, media: list[Path], monkeypatch: pytest.MonkeyPatch, parity: str
) -> None:
    """A disk of that size cannot be made everywhere."""
    with_room(monkeypatch, lambda _path: 75_000)
    with pytest.raises(NoSpaceError, match=r"expected \d+ bytes of free space, got 75000"):
        export(models, media[:1], parity)
    assert list(media[0].iterdir()) == []
    assert export(models, media[:1], "1%").parity


def test_a_program_that_says_nothing_is_no_reason_to_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script stands for a par2 that was killed."""
    (tmp_path / "par2").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "par2").chmod(0o755)
    monkeypatch.setitem(sys.modules, "par2.cli", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IntegrityError, match="could not repair: it does not say why"):
        repair_with_parity(tmp_path, "absent.par2", jobs=1)
    (tmp_path / "par2").write_text("#!/bin/sh\nexit 2\n")
    with pytest.raises(BeyondRepairError, match="the parity does not suffice") as caught:
        repair_with_parity(tmp_path, "absent.par2", jobs=1)
    assert caught.value.short is None


@given(st.lists(st.tuples(st.binary(max_size=9), st.integers(0, 2**63 - 1)), min_size=1, max_size=30))
def test_below_their_aliases_files_have_the_order_that_they_have_without(told: list[tuple[bytes, int]]) -> None:
    files = [DescribedFile.of(f"{NAME}.{number:03}", *one) for number, one in enumerate(told, 1)]
    below = [file.below(alias) for file, alias in zip(files, aliases(files), strict=True)]

    def order(described: list[DescribedFile]) -> list[int]:
        return sorted(range(len(files)), key=lambda number: int.from_bytes(described[number].identity, "little"))

    assert order(below) == order(files)
    assert len({file.name.partition(b"/")[0] for file in below}) == len(files)


def test_parity_of_files_in_another_order_is_never_renamed() -> None:
    files = [DescribedFile.of(name, b"", 0).below("alias") for name in "ab"]
    ids = [file.identity for file in files]
    bodies = [file.identity + bytes(16) + file.beginning + file.length + file.name for file in files]
    right = sorted(files, key=lambda file: int.from_bytes(file._replace(name=file.name[-1:]).identity, "little"))
    in_order = b"".join(file.identity for file in right)
    Renaming(bytes(12) + in_order, bodies)
    with pytest.raises(RuntimeError, match="the files would have another order"):
        Renaming(bytes(12) + b"".join(ids if b"".join(ids) != in_order else reversed(ids)), bodies)


@pytest.mark.parametrize(
    ("text", "wish"),
    [("5%", ParityWish(5)), ("5", ParityWish(5)), ("100%", ParityWish(100)), ("1volume", ParityWish(volumes=1))],
)
def test_a_wish_is_a_percentage_or_whole_volumes(text: str, wish: ParityWish) -> None:
    assert parse_parity(text) == wish


@pytest.mark.parametrize(
    "text", ["", "0", "0%", "101%", "1.5%", "-1", "5 %", "volume", "0volume", "1000volumes", "\u0665"]
)
def test_any_other_wish_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="parity: expected 1% to 100%, or 1volume, 2volumes and so on"):
        parse_parity(text)


GIB = 1024 * 1024 * 1024
DVD = 4_683_595_776


@pytest.mark.parametrize(
    ("wish", "sizes", "split", "folders", "plan"),
    [
        # 100 of some 2,000 blocks, in one file of less than a volume.
        (ParityWish(5), [DVD] * 5, DVD, 1, ParityPlan(11708992, 2000, 100, 1, 1171718160)),
        # A whole volume is 400 blocks; with their headers they do not fit into one.
        (ParityWish(volumes=1), [DVD] * 5, DVD, 1, ParityPlan(11708992, 2000, 400, 2, 4685203200)),
        # The medium that is lost has a fifth of the parity too: 500 without it are enough.
        (ParityWish(volumes=1), [DVD] * 5, DVD, 5, ParityPlan(11708992, 2000, 500, 5, 5858410320)),
        (ParityWish(5), [1000], 1000, 1, ParityPlan(1024, 1, 1, 1, 19884)),
        (ParityWish(volumes=1), [1000], 1000, 1, ParityPlan(1024, 1, 1, 1, 19884)),
        # No more can be lost than there is: all blocks of the only volume.
        (ParityWish(volumes=2), [1000], 1000, 1, ParityPlan(1024, 1, 1, 1, 19884)),
        (ParityWish(volumes=9), [DVD], DVD, 1, ParityPlan(2341800, 2000, 2000, 2, 4685171840)),
    ],
)
def test_a_wish_becomes_blocks(wish: ParityWish, sizes: list[int], split: int, folders: int, plan: ParityPlan) -> None:
    found = plan_parity(wish, sizes, split, folders)
    assert found == plan
    needed = found.recovery_blocks * found.block_size
    assert needed - found.block_size < least_parity(wish, sum(sizes), split, folders) <= needed


@pytest.mark.parametrize(
    ("wish", "sizes", "split", "folders"),
    [
        (ParityWish(100), [GIB] * 100, GIB, 1),
        (ParityWish(volumes=2), [GIB] * 2, GIB, 1),
        (ParityWish(volumes=2), [GIB] * 5, GIB, 2),
        (ParityWish(100), [GIB] * 64, GIB, 64),
    ],
)
def test_what_no_parity_can_do_is_refused(wish: ParityWish, sizes: list[int], split: int, folders: int) -> None:
    with pytest.raises(UsageError, match="parity: "):
        plan_parity(wish, sizes, split, folders)


@needs_par2
def test_no_more_blocks_can_be_repaired_than_there_are(models: Store, media: list[Path], tmp_path: Path) -> None:
    """The recovery blocks of two of three folders may be lost with their volumes, so there are three times as many."""
    words = [word for folder in media[:3] for word in ("--to", folder)]
    done = run("export", "--all", NAME, "--split", "40000", *words, "--parity", "2volumes", "--models", models.root)
    found = re.search(r"any (\d+) of (\d+) blocks can be repaired", done.stdout)
    assert found, done.stderr
    assert found[1] == found[2]
    for folder in media[1:3]:
        shutil.rmtree(folder)
    imported(tmp_path, media[0] / NAME)
    assert tree(tmp_path / "other") == tree(models.root)


def _program() -> str:
    try:
        from par2.cli import par2_executable
    except ImportError:
        return "par2"
    return str(par2_executable())


def padded(name: bytes) -> bytes:
    return name + bytes(-len(name) % 4)


# Which files a packet is about.
SET = b"a set of volumes"


def packet(kind: bytes, body: bytes) -> bytes:
    hashed = SET + kind + body
    digest = hashlib.md5(hashed, usedforsecurity=False).digest()
    return b"PAR2\0PKT" + struct.pack("<Q", 32 + len(hashed)) + digest + hashed


def described(name: bytes, length: int = 5) -> bytes:
    return packet(b"PAR 2.0\0FileDesc", bytes(48) + struct.pack("<Q", length) + padded(name))


def found_in(data: bytes) -> Iterator[Packet]:
    yield from whole_packets(
        lambda size, offset: data[offset : offset + size], len(data), names=NAMES, subject="p.par2"
    )


OURS = described(f"{NAME}.001".encode(), 7)
MAIN = packet(b"PAR 2.0\0Main\0\0\0\0", bytes(32))


def test_packets_are_found_wherever_they_begin() -> None:
    data = b"noise" + MAIN + b"PAR2\0PK" + OURS + b"PAR2\0PKT"
    assert list(found_in(data)) == [
        (5, len(MAIN), SET, None, 0),
        (5 + len(MAIN) + 7, len(OURS), SET, f"{NAME}.001", 7),
    ]
    far = bytes(3 * 1024 * 1024 - 3)
    assert [one[0] for one in found_in(far + MAIN)] == [len(far)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAIN[:-1],
        MAIN[:30] + b"x" + MAIN[31:],
        packet(b"PAR 2.0\0Unknown\0", bytes(8)),
        packet(b"PAR 2.0\0Main\0\0\0\0", bytes(31)),
        b"PAR2\0PKT" + struct.pack("<Q", 2**63) + bytes(100),
        b"PAR2\0PKT" + struct.pack("<Q", 60) + bytes(100),
    ],
)
def test_what_is_no_whole_packet_is_skipped(data: bytes) -> None:
    assert list(found_in(data)) == []
    assert len(list(found_in(data + MAIN))) == 1


def test_bytes_that_only_look_like_packets_are_not_hashed_for_ever() -> None:
    """Each of these claims all that follows it."""
    size, header = 400_000, 64
    claims = (b"PAR2\0PKT" + struct.pack("<Q", size - n) + bytes(32) + MAIN[48:64] for n in range(0, size, header))
    data = b"".join(claims)
    read = 0

    def read_at(size: int, offset: int) -> bytes:
        nonlocal read
        read += size
        return data[offset : offset + size]

    assert list(whole_packets(read_at, len(data), names=NAMES, subject="p.par2")) == []
    assert read < 8 * size + 2 * 1024 * 1024


def test_a_packet_inside_of_a_packet_is_refused() -> None:
    with pytest.raises(UnsafeError, match=r"p\.par2: a packet inside of a packet"):
        list(found_in(packet(b"PAR 2.0\0IFSC\0\0\0\0", bytes(16) + described(b"../evil"))))


@pytest.mark.parametrize("name", [b"", b"..", b"x.tar.zst.009", b"\xff", b"x" * 70_000])
def test_a_name_that_is_not_ours_is_refused(name: bytes) -> None:
    with pytest.raises(UnsafeError, match=r"p\.par2: expected parity of the volumes"):
        list(found_in(MAIN + described(name)))
