"""What is typed by mistake ends with the right code, says what it is, and offers what to type, which then works."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import ostore
from ostore.cli.main import run as run_here
from tests.support import Store, noise
from tests.support import ostore as run

USAGE, NOT_FOUND, INTEGRITY, FORMAT = 2, 3, 4, 12


@dataclass(frozen=True)
class Mistake:
    """
    A command as it is typed in the folder of `shop`, its exit code, and a phrase of what to type next.

    With `works`, the command in the hint is run, and ends with 0.
    """

    typed: str
    code: int
    says: str
    works: bool = False


MISTAKES = (
    # Names that are nearly right.
    Mistake("show lama3", NOT_FOUND, "did you mean llama3:latest"),
    Mistake("show mistral", NOT_FOUND, "did you mean mistral:7b?"),
    Mistake("export mistral x.tar", NOT_FOUND, "did you mean mistral:7b?"),
    Mistake("verify MISTRAL", NOT_FOUND, "did you mean mistral:7b?"),
    Mistake("rm lama3 --yes", NOT_FOUND, "did you mean llama3:latest"),
    Mistake("du qwen", NOT_FOUND, "ostore list shows what is there"),
    Mistake("cp lama3 copy", NOT_FOUND, "did you mean llama3:latest"),
    Mistake("import models.tar --dry-run", NOT_FOUND, "did you mean models.tar.zst"),
    Mistake("inspect modles.tar.zst", NOT_FOUND, "did you mean models.tar.zst"),
    Mistake("import models.tar.zst --model mistral", NOT_FOUND, "did you mean mistral:7b?"),
    Mistake("import models.tar.zst --model qwen", NOT_FOUND, "It holds llama3:latest, mistral:7b"),
    # A model, a bundle or a folder, where another one of them is meant.
    Mistake("show models.tar.zst", NOT_FOUND, "ostore inspect models.tar.zst shows", works=True),
    Mistake("rm models.tar.zst --yes", NOT_FOUND, "ostore inspect models.tar.zst shows", works=True),
    Mistake("inspect llama3", NOT_FOUND, "ostore show"),
    Mistake("import models.tar.zst llama3", NOT_FOUND, "ostore import models.tar.zst --model llama3", works=True),
    Mistake("import llama3 models.tar.zst", NOT_FOUND, "ostore import models.tar.zst --model llama3", works=True),
    Mistake("import one.tar models.tar.zst --model qwen", NOT_FOUND, "ostore inspect one.tar"),
    Mistake("import one.tar nope.tar", NOT_FOUND, "nope.tar: no such bundle"),
    Mistake("show {store}", USAGE, "did you mean --models {store}?"),
    Mistake("list {store}", USAGE, "did you mean --models {store}?"),
    Mistake("rm ./empty --yes", USAGE, "did you mean --models ./empty?"),
    Mistake("show second", NOT_FOUND, "did you mean --models second?"),
    Mistake("export second x.tar", NOT_FOUND, "did you mean --models second?"),
    Mistake("export llama3/ x.tar", USAGE, "did you mean llama3?"),
    Mistake("export ./models.tar.zst x.tar", USAGE, "ostore inspect ./models.tar.zst shows", works=True),
    Mistake("repair models.tar.zst", USAGE, "ostore repair --from models.tar.zst", works=True),
    Mistake("repair llama3 models.tar.zst", USAGE, "ostore repair llama3 --from models.tar.zst", works=True),
    Mistake("repair", USAGE, "ostore repair --from BUNDLE"),
    # Names and addresses that cannot be.
    Mistake("show ''", USAGE, "got nothing"),
    Mistake("show ..", USAGE, "a folder"),
    Mistake("show -- -x", USAGE, "a name is like llama3"),
    Mistake("cp llama3 'a b'", USAGE, "a name is like llama3"),
    Mistake("cp llama3 /nowhere/x", USAGE, "a name is like llama3"),
    Mistake("show http://host/x", USAGE, "no address goes before it"),
    Mistake("show file:///x", USAGE, "no address goes before it"),
    Mistake("import file://{here}/models.tar.zst", USAGE, "type the path: {here}/models.tar.zst"),
    Mistake("verify file:models.tar.zst", USAGE, "type the path: models.tar.zst"),
    Mistake(
        "import http://host/a.tar.zst",
        USAGE,
        "curl -fLO http://host/a.tar.zst downloads it; then name the file a.tar.zst",
    ),
    Mistake("import https://me:secret@host/a.tar", USAGE, "download a file first"),
    Mistake("serve http://host:5000", USAGE, "ostore pull --help says how to take models from a registry"),
    Mistake("pull llama3 --to http://host/", USAGE, "ostore push --help says how to send models to a registry"),
    Mistake("pull llama3 --to host/models", USAGE, "--to: 'host/models': expected a destination (FILE.tar.zst"),
    Mistake("pull oci:layout", USAGE, "(to add its models: ostore import oci:layout)"),
    Mistake("pull models.tar.zst", USAGE, "ostore import models.tar.zst", works=True),
    Mistake("pull 127.0.0.1:5000/tiny:q4", USAGE, "type all, as in 127.0.0.1:5000/library/tiny:q4"),
    Mistake("pull localhost/tiny", USAGE, "type all, as in localhost/library/tiny"),
    Mistake("pull mirror.lan/tiny@sha256:0", USAGE, "type all, as in mirror.lan/library/tiny"),
    Mistake("cp llama3 127.0.0.1:5000/tiny", USAGE, "type all, as in 127.0.0.1:5000/library/tiny"),
    Mistake("pull llama3@latest", USAGE, "expected @sha256:DIGEST behind a name"),
    Mistake("pull llama3@sha256:0", USAGE, "llama3: digest: expected"),
    Mistake("pull https://host/library/tiny", USAGE, "no address goes before it"),
    Mistake("pull 'https://host/library/*'", USAGE, "HOST[:PORT]/NAMESPACE/MODEL:TAG, in quotes"),
    Mistake("repair --from http://host/a.tar", USAGE, "curl -fLO"),
    Mistake("export llama3 file:///tmp/x.tar", USAGE, "type the path: /tmp/x.tar"),
    Mistake("show {twins}", USAGE, "llama3:latest, llama3:twin"),
    Mistake("rm {twins} --yes", USAGE, "name one of them"),
    Mistake("show 0123456789ab", NOT_FOUND, "ostore list shows what is there"),
    # Destinations.
    Mistake("export llama3 x", USAGE, "FILE.tar.zst"),
    Mistake("export llama3 x.tgz", USAGE, "x.tar.zst?"),
    Mistake("export llama3 x.zip", USAGE, "x.tar.zst?"),
    Mistake("export llama3 empty", USAGE, "empty/ makes a store in it"),
    Mistake("export llama3", USAGE, "ostore export llama3 bundle.tar.zst"),
    Mistake("export llama3 nope/x.tar", NOT_FOUND, "is the disk mounted?"),
    Mistake("export llama3 nope/x.tar --dry-run", NOT_FOUND, "is the disk mounted?"),
    Mistake("export llama3 nope/x/", NOT_FOUND, "is the disk mounted?"),
    Mistake("export llama3 nope/x/ --dry-run", NOT_FOUND, "is the disk mounted?"),
    Mistake("import one.tar --models nope/x", NOT_FOUND, "is the disk mounted?"),
    Mistake("import one.tar --models nope/x --dry-run", NOT_FOUND, "is the disk mounted?"),
    Mistake("du --html nope/x.html", NOT_FOUND, "is the disk mounted?"),
    Mistake("move nope/x --dry-run", NOT_FOUND, "is the disk mounted?"),
    Mistake("export llama3 one.tar", USAGE, "--replace overwrites it"),
    Mistake("export llama3 one.tar --dry-run", USAGE, "--replace overwrites it"),
    # --models
    Mistake("list --models ''", USAGE, "--models: empty"),
    Mistake("where --models=", USAGE, "--models: empty"),
    Mistake("import one.tar --models ''", USAGE, "--models: empty"),
    Mistake(
        "import one.tar --models llama3", USAGE, "--model llama3 is one model; --models ./llama3 makes a new store"
    ),
    Mistake("import cut.tar.zst --models llama3", INTEGRITY, "truncated"),
    Mistake("verify --models nope", NOT_FOUND, "--models DIR names another"),
    # Arguments that are missing.
    Mistake("import", USAGE, "for example: ostore import bundle.tar.zst"),
    Mistake("cp llama3", USAGE, "for example: ostore cp llama3 my-llama"),
    Mistake("rm", USAGE, "for example: ostore rm llama3"),
    Mistake("show", USAGE, "for example: ostore show llama3"),
    Mistake("inspect", USAGE, "for example: ostore inspect bundle.tar.zst"),
    Mistake("move", USAGE, "for example: ostore move"),
)


@dataclass(frozen=True)
class Shop:
    """A folder in which somebody works."""

    here: Path
    store: Store

    def words(self, typed: str) -> list[str]:
        """What a shell makes of it. A path of Windows has characters that a shell takes for others."""
        return [self.command(word) for word in shlex.split(typed)]

    def command(self, typed: str) -> str:
        return typed.format(here=self.here, store=self.store.root, twins=_id(self.store, "llama3:latest"))


def _id(store: Store, name: str) -> str:
    (found,) = (row for row in ostore.list_models(models=store.root).models if row.name == name)
    return found.id


def _furnished(folder: Path) -> Shop:
    store = Store(folder / "models")
    store.model("llama3:latest", noise(3000))
    store.model("mistral:7b", noise(2000, 2))
    ostore.export(["*"], folder / "models.tar.zst", models=store.root)
    ostore.export(["llama3"], folder / "one.tar", models=store.root)
    ostore.export(["mistral:7b"], f"{folder / 'second'}/", models=store.root)
    ostore.cp("llama3", "llama3:twin", models=store.root)
    (folder / "cut.tar.zst").write_bytes((folder / "models.tar.zst").read_bytes()[:-30])
    (folder / "empty").mkdir()
    return Shop(folder, store)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _furnished(tmp_path_factory.mktemp("shop") / "here").here


@pytest.fixture
def shop(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "here" / "models"))
    return Shop(tmp_path / "here", Store(tmp_path / "here" / "models"))


def _typed_here(words: Sequence[str]) -> tuple[int, str]:
    told = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
        code = run_here(words)
    return code, told.getvalue()


def _offered(told: str) -> str:
    """The command of ostore in a hint."""
    found = re.search(r"\((?:.*: )?(ostore .*?)(?: shows .*)?\)$", told.rstrip("\n"))
    assert found, told
    return found[1]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.typed)
def test_a_mistake_says_what_to_type_and_changes_nothing(shop: Shop, mistake: Mistake) -> None:
    before = sorted(shop.here.rglob("*"))
    code, told = _typed_here(shop.words(mistake.typed))
    assert (code, told.count("\n")) == (mistake.code, 1), told
    assert shop.command(mistake.says) in told
    assert "secret" not in told
    assert sorted(shop.here.rglob("*")) == before
    if mistake.works:
        code, told = _typed_here(shlex.split(_offered(told))[1:])
        assert code == 0, told


@pytest.mark.parametrize("mistake", MISTAKES[::9], ids=lambda mistake: mistake.typed)
def test_the_program_says_the_same(shop: Shop, mistake: Mistake) -> None:
    done = run(*shop.words(mistake.typed))
    assert (done.returncode, done.stderr.count("\n")) == (mistake.code, 1)
    assert shop.command(mistake.says) in done.stderr


ID = {
    "show": "show {}",
    "export": "export {} x.tar",
    "verify": "verify {}",
    "du": "du {}",
    "cp": "cp {} copy",
    "repair": "repair {} --from models.tar.zst",
    "rm": "rm {} --yes",
    "import": "import models.tar.zst --model {} --dry-run",
    "move": "move --offload {} other --yes",
}


@pytest.mark.parametrize("typed", ID.values(), ids=ID)
@pytest.mark.parametrize("shape", [lambda text: text, str.upper, lambda text: f"sha256:{text}"])
def test_an_id_of_list_stands_for_its_model(shop: Shop, typed: str, shape: Callable[[str], str]) -> None:
    code, told = _typed_here(typed.format(shape(_id(shop.store, "mistral:7b"))).split())
    assert code == 0, told


def test_a_name_comes_before_an_id(shop: Shop) -> None:
    name = _id(shop.store, "mistral:7b")
    ostore.cp("llama3", name)
    assert ostore.show(name).name == f"{name}:latest"


def test_several_bundles_share_the_names(shop: Shop) -> None:
    ostore.export(["mistral:7b"], "two.tar")
    (shop.here / "new").mkdir()
    code, told = _typed_here(["import", "one.tar", "two.tar", "--model", "mistral:7b", "--models", "new", "-q"])
    assert (code, told) == (0, "")
    assert [row.name for row in ostore.list_models(models=shop.here / "new").models] == ["mistral:7b"]


def test_one_bundle_that_cannot_be_read_does_not_hide_the_others(shop: Shop) -> None:
    done = run("verify", "cut.tar.zst", "one.tar", "nope.tar", "second")
    assert done.returncode == INTEGRITY
    errors = [line for line in done.stderr.splitlines() if line.startswith("ostore: error")]
    assert [line.split(": ")[2] for line in errors] == ["cut.tar.zst", "nope.tar"]
    assert [line.rpartition(" (")[2] for line in done.stdout.splitlines()] == ["one.tar)", "second)"]
    for words in (["one.tar", "nope.tar"], ["nope.tar", "one.tar"]):
        assert run("verify", *words).returncode == NOT_FOUND


def test_a_cut_plain_bundle_is_named(shop: Shop) -> None:
    (shop.here / "cut.tar").write_bytes((shop.here / "one.tar").read_bytes()[:4000])
    done = run("verify", "cut.tar", "one.tar")
    assert done.returncode == INTEGRITY
    assert "error[integrity]: cut.tar: " in done.stderr


def test_a_folder_that_export_made_is_inspected_and_verified(shop: Shop) -> None:
    assert [model.name for model in ostore.inspect("second/").models] == ["mistral:7b"]
    assert [(report.subject, report.verdict) for report in ostore.verify(["second/"])] == [("second/", "whole")]
    # A model is meant before a folder.
    (shop.here / "llama3").mkdir()
    assert [report.subject for report in ostore.verify(["llama3"])] == [str(shop.store.root)]


SETTINGS = {
    "~/models": "begins with ~",
    "$HOME/models": "holds the name of a variable",
    "D:\\models": "is a path of Windows",
    "'~'": "begins with ~",
    "relative": "is relative",
}


@pytest.mark.parametrize(("value", "says"), SETTINGS.items())
def test_a_setting_that_nobody_means_is_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, value: str, says: str
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", value)
    code, told = _typed_here(["where"])
    assert (code, told.count("\n")) == (0, 1)
    assert told.startswith(f"ostore: warning: OLLAMA_MODELS {says}")
    code, told = _typed_here(["list"])
    assert code == NOT_FOUND
    assert says in told
    shutil.copytree(shop.store.root, value.strip("'"))
    report = ostore.doctor()
    assert [finding.code for finding in report.findings if says in finding.detail] == ["setting-doubtful"]
    assert ostore.import_bundle("one.tar", dry_run=True).warnings[0].startswith("OLLAMA_MODELS ")


def test_a_whole_path_is_no_matter(shop: Shop) -> None:
    assert ostore.where().warnings == ()
    assert ostore.import_bundle("one.tar").warnings == ()


@pytest.mark.parametrize(
    "call",
    [
        lambda: ostore.list_models("llama3"),
        lambda: ostore.export("llama3", "x.tar"),
        lambda: ostore.verify("one.tar"),
        lambda: ostore.import_bundle("one.tar", "llama3"),
        lambda: ostore.du("llama3"),
        lambda: ostore.rm("llama3"),
        lambda: ostore.repair("llama3", sources=["one.tar"]),
        lambda: ostore.repair(sources="one.tar"),
        lambda: ostore.move("elsewhere", "llama3"),
    ],
)
def test_the_library_takes_a_list_and_no_text(shop: Shop, call: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="expected a list"):
        call()
    assert len(ostore.list_models().models) == 3


def test_export_of_nothing_is_refused(shop: Shop) -> None:
    with pytest.raises(ostore.UsageError, match="expected at least one model"):
        ostore.export([], "x.tar")
    assert not Path("x.tar").exists()


def test_hints_of_the_library_name_parameters_and_those_of_the_program_options(shop: Shop) -> None:
    with pytest.raises(ostore.UsageError) as caught:
        ostore.export(["llama3"], "one.tar")
    assert caught.value.hint == "replace=True overwrites it"
    with pytest.raises(ostore.NotFoundError) as missing:
        ostore.list_models(models=shop.here / "nope")
    assert "models=DIR" in str(missing.value.hint)
    assert "--models DIR" in run("list", "--models", "nope").stderr


@pytest.mark.parametrize(
    "words",
    [
        "pull me:secret@mirror.lan:5000/library/tiny",
        "pull me:sec/ret@mirror.lan:5000/library/tiny:q4@sha256:0",
        "pull 'me:secret@mirror.lan:5000/library/*'",
        "push me:secret@mirror.lan:5000/library/tiny",
        "cp llama3 me:secret@mirror.lan:5000/library/tiny",
        "list 'me:secret@mirror.lan:5000/library/*'",
        "rm 'me:secret@mirror.lan:5000/library/*'",
    ],
)
def test_a_name_with_a_password_is_refused_and_not_repeated(shop: Shop, words: str) -> None:
    done = run(*shlex.split(words), "--models", shop.store.root)
    told = "a name begins with its host, without a user and a password (docker login mirror.lan:5000 keeps them"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"ostore: error[usage]: {told}; then type the name alone)\n"


@pytest.mark.parametrize("word", ["me:secret@mirror.lan", "https://me:secret@mirror.lan/l/*", "me:secret@a b/l/m"])
def test_what_may_be_a_password_is_not_repeated(word: str) -> None:
    done = run("pull", word)
    assert done.returncode == 2
    assert "secret" not in done.stderr
