"""`ostore link` gives weights readable names, keeps them up to date, and touches nothing that it has not made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ostore
from ostore.formats.digest import Digest
from ostore.formats.errors import UsageError
from ostore.formats.link_layout import Layout
from ostore.formats.link_record import LinkedFile, LinkRecord
from ostore.places.plain_files.link_folder import ForeignFileError, LinkFolder, WantedFile
from ostore.streams.file_lock import try_lock
from tests.gguf import gguf, talking_gguf
from tests.support import MODEL, OSTORE, PROJECTOR, SYSTEM, TENSOR, Store, as_user, full, sha256, tree
from tests.support import ostore as run
from tests.test_json import checked
from tests.torture.disks import mounted_disk

ADAPTER, DRAFT = "application/vnd.ollama.image.adapter", "application/vnd.ollama.image.draft"
WEIGHTS, OTHER = talking_gguf(), talking_gguf() + b"\0" * 32
SEES, TUNES, GUESSES = gguf({"general.architecture": "clip"}, {}), b"an adapter", b"a draft"
DIALECT = gguf({"general.architecture": "gptoss"}, {"a": ((32,), [1.0])})
RECORD, LOCK = ".ostore-links.json", ".ostore-links.lock"
needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")


@pytest.fixture
def made(tmp_path: Path) -> Store:
    store = Store(tmp_path / "models")
    store.model("talk:latest", WEIGHTS)
    store.model("talk:8b", OTHER, system=b"Say hi!", params=b'{"top_k":5}\n')
    return store


def link(store: Store, *words: str | Path, code: int = 0) -> str:
    """Run the command; gives what it told on standard error."""
    done = run("link", *words, environment={"OLLAMA_MODELS": str(store.root)})
    assert done.returncode == code, done.stderr
    return done.stderr


def links(folder: Path) -> dict[str, str]:
    """What is in a folder but for ostore's own files: links by what they lead to, files by their text."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path.relative_to(folder).as_posix()] = path.readlink().name[:13]
        elif path.is_file() and path.name not in {RECORD, LOCK}:
            found[path.relative_to(folder).as_posix()] = path.read_text("utf-8", "replace").partition("\n")[0][:13]
    return found


def leads_to(data: bytes) -> str:
    return f"sha256-{sha256(data)}"[:13]


TEXT = "# Made by ost"
A, B, C = leads_to(WEIGHTS), leads_to(OTHER), leads_to(SEES)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("files", {"talk-8b.Modelfile": TEXT, "talk-8b.gguf": B, "talk.gguf": A}),
        ("llama.cpp", {"talk-8b.Modelfile": TEXT, "talk-8b.gguf": B, "talk.gguf": A}),
        (
            "lmstudio",
            {
                "library/talk-8b/Modelfile": TEXT,
                "library/talk-8b/talk-8b.gguf": B,
                "library/talk/talk.gguf": A,
            },
        ),
    ],
)
def test_models_get_readable_names_and_what_they_lose_is_beside_them(
    made: Store, tmp_path: Path, layout: str, expected: dict[str, str]
) -> None:
    target = tmp_path / "out"
    told = link(made, "talk*", target, "--layout", layout)
    assert links(target) == expected
    assert told == (
        "ostore: warning: other programs do not read SYSTEM, PARAMETER of a model; the Modelfile beside it has them\n"
    )
    (text,) = target.rglob("*Modelfile")
    assert "FROM ./talk-8b.gguf\nSYSTEM Say hi!\nPARAMETER top_k 5\n" in text.read_text()
    before = tree(target)
    done = run("link", "--refresh", target)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        f"nothing has changed: 3 files -> {target} ({layout})",
    )
    assert tree(target) == before


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("files", ["adapter-all.gguf", "all.gguf", "draft-all.gguf", "mmproj-all.gguf"]),
        ("llama.cpp", ["all/all.gguf", "all/mmproj-all.gguf"]),
        ("lmstudio", ["library/all/all.gguf", "library/all/mmproj-all.gguf"]),
    ],
)
def test_a_projector_lies_beside_its_model_and_nothing_that_would_be_taken_for_the_model(
    made: Store, tmp_path: Path, layout: str, expected: list[str]
) -> None:
    kinds = {MODEL: WEIGHTS, PROJECTOR: SEES, ADAPTER: TUNES, DRAFT: GUESSES}
    made.add(full("all:latest"), *(made.layer(kind, data) for kind, data in kinds.items()))
    told = link(made, "all", tmp_path / "out", "--layout", layout)
    assert sorted(links(tmp_path / "out")) == expected
    hidden = "all:latest: not linked, as the program would take it for the model: adapter, draft model"
    assert (hidden in told) == (layout != "files")


@pytest.mark.parametrize("adapters", [1, 2])
def test_the_modelfile_names_all_adapters_and_no_model_of_another_machine(
    made: Store, tmp_path: Path, adapters: int
) -> None:
    layers = [made.layer(ADAPTER, b"adapter %d" % number) for number in range(adapters)]
    made.add(full("tuned:latest"), made.layer(MODEL, WEIGHTS), *layers, made.layer(SYSTEM, b"Say hi!"))
    link(made, "tuned", tmp_path / "out")
    text = (tmp_path / "out/tuned.Modelfile").read_text()
    # Of several ADAPTER lines, Ollama takes the last alone.
    named = (
        ["ADAPTER ./adapter-tuned.gguf"]
        if adapters == 1
        else ["FROM ./adapter-tuned.gguf", "FROM ./adapter2-tuned.gguf"]
    )
    assert text.splitlines() == ["# Made by ostore.", "", "FROM ./tuned.gguf", *named, "SYSTEM Say hi!"]
    done = run("export", "tuned", f"{tmp_path}/gguf/", "--as", "gguf", "--models", made.root)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gguf/Modelfile").read_text() == text


def test_two_models_that_want_one_name_get_two_and_keep_them(made: Store, tmp_path: Path) -> None:
    made.model("talk-8b:latest", SEES)
    target = tmp_path / "out"
    link(made, "talk-8b", target)
    link(made, "talk:8b", target)
    expected = {"library-talk-8b.Modelfile": TEXT, "library-talk-8b.gguf": B, "talk-8b.gguf": C}
    assert links(target) == expected
    run("rm", "talk-8b", "--yes", "--models", made.root)
    link(made, "--refresh", target)
    # Somebody may have written that name into a configuration.
    assert links(target) == {name: leads for name, leads in expected.items() if name.startswith("library")}


def test_refresh_follows_the_store(made: Store, tmp_path: Path) -> None:
    target = tmp_path / "out"
    made.model("goes:latest", SEES)
    made.model("breaks:latest", DIALECT)
    made.model("broken:latest", TUNES)
    link(made, "*", target)
    (target / "mine.txt").write_bytes(b"mine")

    run("rm", "goes", "--yes", "--models", made.root)
    made.blob_path(DIALECT).unlink()
    made.write_manifest(full("broken:latest"), b"")
    made.model("talk:latest", GUESSES, system=b"new")
    made.model("talk:8b", OTHER)
    told = link(made, "--refresh", target)

    assert links(target) == {
        "broken.gguf": leads_to(TUNES),
        "mine.txt": "mine",
        "talk-8b.gguf": B,
        "talk.Modelfile": TEXT,
        "talk.gguf": leads_to(GUESSES),
    }
    assert f"breaks:latest: blob sha256:{sha256(DIALECT)}: missing" in told
    assert "broken:latest: its links stay as they are: manifest: empty" in told
    before = tree(target)
    link(made, "--refresh", target)
    assert tree(target) == before


def test_remove_takes_back_all_that_was_made_and_nothing_else(made: Store, tmp_path: Path) -> None:
    target = tmp_path / "out"
    (target / "library/talk").mkdir(parents=True)
    (target / "library/talk/mine.gguf").write_bytes(b"mine")
    link(made, "talk*", target, "--layout", "lmstudio")
    blobs = tree(made.root)
    assert link(made, "--remove", target) == ""
    assert tree(target) == {"library": "folder", "library/talk": "folder", "library/talk/mine.gguf": sha256(b"mine")}
    assert tree(made.root) == blobs
    assert "ostore has linked nothing here" in link(made, "--remove", target, code=3)
    assert "ostore has linked nothing here" in link(made, "--refresh", target, code=3)


def other_file(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"mine")


def other_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hosts")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other_text(path: Path) -> None:
    path.write_text("FROM mine\n")


@pytest.mark.parametrize(
    ("change", "name"),
    [(other_file, "talk.gguf"), (other_link, "talk.gguf"), (a_folder, "talk.gguf"), (other_text, "talk-8b.Modelfile")],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.parametrize("word", ["talk*", "--refresh", "--remove"])
def test_what_somebody_has_changed_is_left_alone_and_named(
    made: Store, tmp_path: Path, change: Callable[[Path], object], name: str, word: str
) -> None:
    target = tmp_path / "out"
    ostore.link(["talk*"], target, models=made.root)
    change(target / name)
    before = {path: content for path, content in tree(target).items() if path == name}
    told = link(made, word, target, code=0 if word == "--remove" else 2)
    assert f"ostore: warning: {target / name}: left alone: " in told
    after = tree(target)
    assert {path: content for path, content in after.items() if path == name} == before
    assert len(after) == (1 if word == "--remove" else 5)


def test_a_link_in_place_of_a_folder_is_not_followed(made: Store, tmp_path: Path) -> None:
    target, outside = tmp_path / "out", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "library").symlink_to(outside)
    told = link(made, "talk", target, "--layout", "lmstudio", code=2)
    assert f"{target}/library/talk/talk.gguf: left alone: library is no folder" in told
    assert tree(outside) == {}


def test_links_of_a_command_that_was_killed_before_its_record_are_its_own(made: Store, tmp_path: Path) -> None:
    target = tmp_path / "out"
    link(made, "talk*", target)
    expected = tree(target)
    (target / RECORD).unlink()
    (target / ".ostore-link.part").write_bytes(b"half")
    link(made, "talk*", target)
    assert tree(target) == expected


def test_a_link_that_was_made_just_before_a_kill_follows_the_next_tag(made: Store, tmp_path: Path) -> None:
    target = tmp_path / "out"
    link(made, "talk", target)
    record = (target / RECORD).read_bytes()
    for weights, known in ((OTHER, record), (GUESSES, None)):
        # What the kill left: the link leads to these weights, and the record is older or was never written.
        made.blob(weights)
        (target / "talk.gguf").unlink()
        (target / "talk.gguf").symlink_to(made.blob_path(weights))
        (target / RECORD).write_bytes(known) if known else (target / RECORD).unlink()
        made.model("talk:latest", SEES)
        assert "left alone" not in link(made, *(["--refresh"] if known else ["talk"]), target)
        assert links(target) == {"talk.gguf": C}
    link(made, "--remove", target)
    assert tree(target) == {}


def test_what_is_left_alone_is_named_again_until_it_is_gone(made: Store, tmp_path: Path) -> None:
    target = tmp_path / "out"
    link(made, "talk", target)
    other_file(target / "talk.gguf")
    made.model("talk:latest", OTHER)
    for _ in range(2):
        assert f"{target}/talk.gguf: left alone" in link(made, "--refresh", target, code=2)
    (target / "talk.gguf").unlink()
    assert link(made, "--refresh", target) == ""
    assert links(target) == {"talk.gguf": B}


def test_links_follow_a_store_that_has_moved(made: Store, tmp_path: Path) -> None:
    target, moved = tmp_path / "out", tmp_path / "moved"
    link(made, "talk*", target)
    made.root.rename(moved)
    assert "no such store" in link(made, "--refresh", target, code=3)
    assert len(links(target)) == 3
    link(made, "--refresh", target, "--models", moved)
    assert (target / "talk.gguf").read_bytes() == WEIGHTS
    assert links(target)["talk.gguf"] == A
    assert json.loads((moved / ".ostore/links").read_text())["folders"] == [str(target)]


def test_one_folder_has_links_to_two_stores(made: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.model("talk:latest", SEES)
    link(made, "talk", tmp_path / "out")
    link(other, "talk", tmp_path / "out")
    assert links(tmp_path / "out") == {"library-talk-latest.gguf": C, "talk.gguf": A}
    link(other, "--refresh", tmp_path / "out")
    assert links(tmp_path / "out") == {"library-talk-latest.gguf": C, "talk.gguf": A}


def test_a_removal_says_which_links_it_breaks(made: Store, tmp_path: Path) -> None:
    target = tmp_path / "out"
    link(made, "talk*", target)
    (tmp_path / "gone").mkdir()
    link(made, "talk", tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    planned = run("rm", "talk:8b", "--dry-run", "--models", made.root).stderr
    assert f"{target}/talk-8b.gguf: would lead nowhere then" in planned
    done = run("rm", "talk:8b", "--yes", "--models", made.root).stderr
    assert f"{target}/talk-8b.gguf: leads nowhere now" in done
    assert f"ostore link --refresh {target}" in done
    document = checked("rm", run("rm", "talk", "--yes", "--json", "--models", made.root).stdout)
    assert document["dangling"] == [f"{target}/talk.gguf"]
    link(made, "--remove", target)
    assert json.loads((made.root / ".ostore/links").read_text())["folders"] == [str(tmp_path / "gone")]


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "offload"])
def test_a_move_says_which_links_it_breaks(made: Store, tmp_path: Path, is_whole: bool) -> None:
    target, away = tmp_path / "out", tmp_path / "away"
    made.model("same:latest", OTHER)
    link(made, "*", target)
    done = run("move", *(() if is_whole else ("--offload", "talk*")), away, "--yes", "--models", made.root)
    paths = [target / name for name in (["same.gguf", "talk.gguf", "talk-8b.gguf"] if is_whole else ["talk.gguf"])]
    assert done.returncode == 0, done.stderr
    [told] = [one for one in done.stderr.splitlines() if "leads nowhere once the old store is cleared" in one]
    assert [path for path in sorted(target.glob("*.gguf")) if str(path) in told] == sorted(paths)
    assert f"; then ostore link --refresh {target}" in told
    run("link", "--refresh", target, *(("--models", away) if is_whole else ("--models", made.root)))
    assert all(path.exists() for path in target.iterdir())


def test_a_list_of_folders_that_is_none_informs_nobody(made: Store, tmp_path: Path) -> None:
    link(made, "talk", tmp_path / "out")
    (made.root / ".ostore/links").write_bytes(b"{")
    assert run("rm", "talk", "--yes", "--models", made.root).stderr == ""
    (tmp_path / "out" / RECORD).write_bytes(b"{")
    (made.root / ".ostore/links").write_text(f'{{"schema":"ostore.linked/1","folders":["{tmp_path}/out"]}}')
    assert run("rm", "talk:8b", "--yes", "--models", made.root).stderr == ""


@pytest.fixture
def home(public: Store) -> Iterator[Path]:
    """The folder of a user who does not own the store."""
    path = public.root.parent / "home"
    path.mkdir()
    os.chown(path, 12_345, 12_345)
    yield path
    shutil.rmtree(path)


@needs_root
def test_links_to_a_store_of_another_user_are_made_all_the_same(public: Store, home: Path) -> None:
    public.model("talk:latest", WEIGHTS)
    public.model("zeta:latest", OTHER)
    done = as_user(12_345, "link", "talk", home / "out", "--models", public.root)
    assert done.returncode == 0
    assert (home / "out/talk.gguf").read_bytes() == WEIGHTS
    assert f"{public.root}: cannot remember this folder" in done.stderr
    assert "so rm will not say that it breaks links here" in done.stderr
    public.blob_path(OTHER).chmod(0o600)
    done = as_user(12_345, "link", "talk", "zeta", home / "new", "--models", public.root)
    assert done.returncode == 9
    assert "no permission to read this (-rw------- root:root)" in done.stderr
    assert not (home / "new").exists()


@needs_root
def test_an_error_half_way_loses_no_record(public: Store, home: Path) -> None:
    target = home / "out"
    for name in ("talk", "zeta"):
        public.model(f"{name}:latest", WEIGHTS)
    words = ("link", "talk", "zeta", target, "--layout", "lmstudio", "--models", public.root)
    assert as_user(12_345, *words).returncode == 0
    for name in ("talk", "zeta"):
        public.model(f"{name}:latest", OTHER)
    os.chown(target / "library/zeta", 0, 0)
    new, old = (digest.removeprefix("sha256-") for digest in (B, A))
    for word, linked in (("--refresh", {"talk": new, "zeta": old}), ("--remove", {"zeta": old})):
        done = as_user(12_345, "link", word, target)
        assert done.returncode == 9, done.stderr
        models = json.loads((target / RECORD).read_text())["models"]
        files = {model["name"].split("/")[-1].split(":")[0]: model["files"][0]["digest"] for model in models}
        assert {name: digest.removeprefix("sha256:")[: len(old)] for name, digest in files.items()} == linked
    os.chown(target / "library/zeta", 12_345, 12_345)
    assert as_user(12_345, "link", "--remove", target).returncode == 0
    assert tree(target) == {}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "for example: ostore link llama3 gguf, or"),
        (("talk",), 2, "expected MODEL... DIR"),
        (("talk", "out", "--refresh"), 2, "expected DIR alone"),
        (("out", "--refresh", "--remove"), 2, "choose only one of --refresh and --remove"),
        (("out", "--refresh", "--layout", "files"), 2, "--layout is that of a folder from its first link on"),
        (("talk", "out", "--layout", "flat"), 2, "'flat' is not one of 'files', 'lmstudio', 'llama.cpp'"),
        (("talk", "no/out"), 3, "no: no such folder"),
        (("talk", "file"), 2, "file: expected a folder"),
        (("--refresh", "file"), 2, "file: expected a folder"),
        (("--refresh", "no"), 3, "no: no such folder"),
        (("nobody", "out"), 3, "no model 'nobody'"),
        (("mlx", "out"), 12, "mlx:latest: a model of 1 tensors"),
        (("ml*", "out"), 12, "mlx:latest: a model of 1 tensors"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_linked_is_one_line_and_nothing_is_made(
    made: Store, tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    made.add(full("mlx:latest"), made.layer(TENSOR, b"t"))
    (tmp_path / "file").write_bytes(b"mine")
    before = tree(tmp_path)
    done = run("link", *words, environment={"OLLAMA_MODELS": str(made.root)}, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
    assert says in done.stderr
    assert tree(tmp_path) == before


def test_a_glob_links_what_it_can_and_the_exit_code_tells(made: Store, tmp_path: Path) -> None:
    made.add(full("mlx:latest"), made.layer(TENSOR, b"t"))
    made.write_manifest(full("broken:latest"), b"")
    told = link(made, "*", tmp_path / "out", code=10)
    assert "mlx:latest: left out: a model of 1 tensors" in told
    assert "broken:latest: left out: " in told
    assert sorted(links(tmp_path / "out")) == ["talk-8b.Modelfile", "talk-8b.gguf", "talk.gguf"]


def test_a_folder_keeps_its_layout(made: Store, tmp_path: Path) -> None:
    link(made, "talk", tmp_path / "out", "--layout", "lmstudio")
    link(made, "talk:8b", tmp_path / "out")
    assert "library/talk-8b/talk-8b.gguf" in links(tmp_path / "out")
    assert "has the layout lmstudio, not files" in link(made, "talk", tmp_path / "out", "--layout", "files", code=2)


def test_a_dialect_and_a_text_that_no_modelfile_holds_are_warnings(made: Store, tmp_path: Path) -> None:
    made.model("odd:latest", DIALECT, system=b'"""\n"""\n')
    told = link(made, "odd", tmp_path / "out")
    assert links(tmp_path / "out") == {"odd.gguf": leads_to(DIALECT)}
    assert "odd:latest: runs in Ollama only (gptoss dialect)" in told
    assert "odd:latest: no Modelfile is written beside it: a text with three quotes" in told


def test_weights_are_linked_although_a_text_of_the_model_is_damaged(made: Store, tmp_path: Path) -> None:
    made.model("odd:latest", WEIGHTS, params=b"{")
    told = link(made, "odd", tmp_path / "out")
    assert links(tmp_path / "out") == {"odd.gguf": A}
    assert "odd:latest: no Modelfile is written beside it: params blob sha256:" in told


def test_a_folder_whose_path_is_no_text_has_no_record(made: Store, tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(UsageError, match="its path is no text"):
        ostore.link(["talk"], folder, models=made.root)
    assert not Path(folder).exists()


def test_the_library_knows_three_layouts(made: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="layout: expected files, lmstudio"):
        ostore.link(["talk"], tmp_path / "out", layout="flat", models=made.root)


def test_the_document_has_all_of_it(made: Store, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "talk.gguf").write_bytes(b"mine")
    done = run("link", "talk*", target, "--json", "--models", made.root)
    document = checked("link", done.stdout)
    assert (done.returncode, done.stderr) == (2, "")
    assert [(file["model"], file["path"], file["kind"]) for file in document["linked"]] == [
        ("talk:8b", f"{target}/talk-8b.gguf", "symlink"),
        ("talk:8b", f"{target}/talk-8b.Modelfile", "text"),
    ]
    assert document["left_alone"] == [
        {"path": f"{target}/talk.gguf", "reason": "a file that ostore has not made, or that was changed"}
    ]
    assert document["lost"] == ["SYSTEM", "PARAMETER"]
    assert run("link", "talk*", target, "-q", "--models", made.root).stdout.splitlines() == [
        f"{target}/talk-8b.gguf",
        f"{target}/talk-8b.Modelfile",
    ]


def test_two_commands_wait_for_each_other(made: Store, tmp_path: Path) -> None:
    link(made, "talk", tmp_path / "out")
    words = [*OSTORE, "link", "talk:8b", str(tmp_path / "out"), "--models", str(made.root)]
    with (tmp_path / "out" / LOCK).open("rb") as lock:
        assert try_lock(lock.fileno())
        other = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=1.5)
        assert sorted(links(tmp_path / "out")) == ["talk.gguf"]
    assert other.wait(timeout=60) == 0
    assert len(links(tmp_path / "out")) == 3


def wanted(store: Store, data: bytes, path: str = "x.gguf") -> WantedFile:
    return WantedFile(path, Digest(sha256(data)), len(data), store.blob_path(data))


def test_hard_links_as_on_windows(made: Store, tmp_path: Path) -> None:
    target, store = tmp_path / "out", str(made.root)
    with LinkFolder.opened(target, create=True, are_hard=True) as opened:
        known = opened.put(wanted(made, WEIGHTS), None, store)
        assert known.kind == "hardlink"
        assert (target / "x.gguf").samefile(made.blob_path(WEIGHTS))
        # The blob is another one after a pull, and our name keeps the old bytes.
        assert opened.put(wanted(made, WEIGHTS), None, store) == known
        other = opened.put(wanted(made, OTHER), known, store)
        assert (target / "x.gguf").samefile(made.blob_path(OTHER))
        with pytest.raises(ForeignFileError):
            opened.put(wanted(made, WEIGHTS), known, store)
        with pytest.raises(ForeignFileError):
            opened.remove(known, store)
        made.blob_path(OTHER).unlink()
        assert opened.remove(other, store)
        assert not opened.remove(other, store)
        assert not opened.remove(LinkedFile("no/x.gguf", "symlink", known.digest, 1), store)


@needs_root
def test_a_hard_link_cannot_lead_to_another_disk(made: Store, tmp_path: Path) -> None:
    with (
        mounted_disk("ext4", tmp_path) as disk,
        LinkFolder.opened(disk.mounted, are_hard=True) as opened,
        pytest.raises(UsageError, match="a hard link cannot lead to another disk"),
    ):
        opened.put(wanted(made, WEIGHTS), None, str(made.root))


@needs_root
def test_the_disk_shares_the_bytes_where_it_can(tmp_path: Path) -> None:
    with mounted_disk("xfs", tmp_path) as disk:
        store, target = Store(disk.mounted / "models"), disk.mounted / "out"
        store.model("talk:latest", WEIGHTS)
        link(store, "talk", target)
        path = target / "talk.gguf"
        assert not path.is_symlink()
        assert path.read_bytes() == WEIGHTS
        assert path.stat().st_ino != store.blob_path(WEIGHTS).stat().st_ino
        assert json.loads((target / RECORD).read_text())["models"][0]["files"][0]["kind"] == "reflink"
        # One that a killed command has made is told from any other copy by where its bytes lie.
        (target / RECORD).unlink()
        link(store, "talk", target)
        (target / RECORD).unlink()
        path.write_bytes(WEIGHTS)
        assert "left alone: a file that ostore has not made" in link(store, "talk", target, code=2)
        path.unlink()
        link(store, "talk", target)
        # It has the only good bytes then.
        store.blob_path(WEIGHTS).unlink()
        assert "missing" in link(store, "--refresh", target)
        assert path.read_bytes() == WEIGHTS
        store.model("talk:latest", OTHER)
        link(store, "--refresh", target)
        assert path.read_bytes() == OTHER
        path.write_bytes(OTHER)
        assert f"{path}: left alone: changed since ostore made it" in link(store, "--remove", target)


def test_a_record_that_is_a_link_is_none(made: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").write_bytes(LinkRecord(Layout.FILES).write())
    (tmp_path / "out" / RECORD).symlink_to(tmp_path / "elsewhere")
    assert "expected a file of ours" in link(made, "talk", tmp_path / "out", code=8)
