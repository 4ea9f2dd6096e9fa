"""What the repository promises about itself: its floors, errors, public names, and what it starts without."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

import ostore
from ostore.cli import exit_codes
from ostore.cli.program import COMMANDS
from ostore.formats import errors
from tests import fork_server
from tests.support import OSTORE, Store, unmeasured

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ostore"
# From the lowest up; each has the packages and modules that are on it.
FLOORS = {
    "formats": ("formats",),
    "streams": ("streams",),
    "host": ("host",),
    "places": ("places",),
    "operations": ("operations",),
    "top": ("api", "settings", "cli", "page", "server", "__main__", "__init__"),
}
CORE = frozenset(FLOORS) - {"top"}
FILES = sorted(PACKAGE.rglob("*.py"))
# A program of its own, which bundles carry: it shares no code with the package.
RESTORE = PACKAGE / "places" / "bundle" / "restore.py"
OURS = [path for path in FILES if path != RESTORE]
# They call the Windows API, and no other system can import them.
WINDOWS_ONLY = [ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in fork_server.WINDOWS_ONLY]


def each_of(paths: Sequence[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """Make one test of a rule for files. One for each pair of them would cost more than all the rules."""

    def with_rule(rule: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            broken = {}
            for path in paths:
                try:
                    rule(path)
                except Exception as error:  # noqa: BLE001 - whatever it is, the file has to be named
                    broken[path.relative_to(PACKAGE).as_posix()] = f"{type(error).__name__}: {error}"
            assert broken == {}

        return test

    return with_rule


each_file = each_of(OURS)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree_of(path)))


def parts_of(path: Path) -> tuple[str, ...]:
    """`("streams", "lock")` for ostore/streams/file_lock.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts


def floor_of(parts: tuple[str, ...]) -> str:
    return next(floor for floor, names in FLOORS.items() if parts[0] in names)


def height_of(parts: tuple[str, ...]) -> int:
    return list(FLOORS).index(floor_of(parts))


def existing(*modules: str) -> set[str]:
    """These modules. A guard that names one which has moved would hold for ever."""
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    return set(modules)


def imports_of(path: Path) -> Iterator[tuple[str, ...]]:
    """Every module of ours that a file imports, wherever in it."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")[1:]) for alias in node.names if alias.name.startswith("ostore."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ostore":
            module = tuple((node.module or "").split(".")[1:])
            for alias in node.names:
                below = (*module, alias.name)
                yield below if PACKAGE.joinpath(*below).with_suffix(".py").exists() else module or ("__init__",)


def libraries_of(path: Path) -> Iterator[str]:
    """Every module of others that a file imports, by its first name."""
    for node in nodes_of(path):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name.split(".")[0] for name in names if not name.startswith("ostore"))


def attributes_of(path: Path) -> Iterator[str]:
    """Every `name.attribute` in a file."""
    for node in nodes_of(path):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


@each_of(FILES)
def test_every_file_has_a_floor(path: Path) -> None:
    assert floor_of(parts_of(path)) in FLOORS


def test_every_floor_has_files() -> None:
    names = {parts_of(path)[0] for path in FILES}
    assert {name for floor in FLOORS.values() for name in floor} == names


@each_file
def test_imports_point_downstairs(path: Path) -> None:
    here = parts_of(path)
    for target in imports_of(path):
        assert height_of(target) <= height_of(here), f"{'.'.join(here)} imports {'.'.join(target)}"
        assert target[0] != "cli" or here[0] in {"cli", "__main__"}, f"{'.'.join(here)} imports {'.'.join(target)}"


@each_file
def test_places_never_import_each_other(path: Path) -> None:
    here = parts_of(path)
    if here[0] == "places" and len(here) > 2:
        assert {target[1] for target in imports_of(path) if target[0] == "places"} <= {here[1]}


# The modules of a store that others may import, each with its reason. Everything else is behind this door.
DOOR = {
    "store": "a store, what can be read of it, and its lock for whoever removes",
    "fixing": "the steps of `doctor --fix`",
    "succession": "what a move may take from a store because another one has it",
    "receiving.sink": "a store as the place where models go",
    "survey.survey": "what removing rests on, in the one safe order",
    "survey.census": "what lies in a store: the values that plans are made of",
    "survey.references": "what is needed: the values that plans are made of",
    "survey.batches": "what lies in the trash: the values that plans are made of",
    "survey.scan": "manifests that were read",
    "survey.manifest_tree": "names alone: completion loads nothing else",
    "survey.remainder": "what a census leaves out, for `du`",
    "survey.examination": "all that a store says of its condition, for `doctor`",
}


def test_the_store_has_a_door() -> None:
    inside = PACKAGE / "places" / "store"
    used: dict[str, str] = {}
    for path in OURS:
        if not path.is_relative_to(inside):
            names = (target for target in imports_of(path) if target[:2] == ("places", "store"))
            used.update((".".join(name[2:]), path.relative_to(PACKAGE).as_posix()) for name in names)
    assert {name: path for name, path in used.items() if name not in DOOR} == {}
    assert DOOR.keys() == used.keys(), "a door that nobody uses"
    assert len(DOOR) <= 12


@each_of(sorted(PACKAGE.rglob("__init__.py")))
def test_packages_export_nothing_but_the_library(path: Path) -> None:
    """Whoever imports one module of a package should not wait for the others."""
    if path not in {PACKAGE / "__init__.py", PACKAGE / "cli" / "__init__.py"}:
        assert [type(node).__name__ for node in tree_of(path).body] == ["Expr"], "more than a docstring"


def test_no_modules_import_each_other_in_a_circle() -> None:
    below: dict[tuple[str, ...], set[tuple[str, ...]]] = {parts_of(path): set(imports_of(path)) for path in OURS}
    while leaves := [here for here, targets in below.items() if not targets & below.keys()]:
        for here in leaves:
            del below[here]
    assert not below, f"among them is a circle: {sorted('.'.join(here) for here in below)}"


@each_file
def test_operations_import_nothing_sideways_but_what_several_share(path: Path) -> None:
    here = parts_of(path)
    if here[0] == "operations":
        # One that is a package of its own is one operation.
        allowed = {"transfer", "verify", "loading", "weights", here[1]}
        assert {target[1] for target in imports_of(path) if target[0] == "operations"} <= allowed


@each_file
def test_operations_take_values_of_places_and_no_facts_of_paths(path: Path) -> None:
    """Names of folders and files are in `formats/store_layout.py`. A plan can be tested without a place."""
    if parts_of(path)[0] == "operations":
        froms = [node for node in nodes_of(path) if isinstance(node, ast.ImportFrom)]
        names = [
            alias.name for node in froms if (node.module or "").startswith("ostore.places") for alias in node.names
        ]
        assert not [name for name in names if name.isupper() or name == "workspace_path"]


@each_file
def test_nobody_above_the_places_is_given_a_root(path: Path) -> None:
    """Whoever has a store passes the store on. Only what opens one is told a path."""
    if parts_of(path)[0] in {"operations", "api"}:
        functions = [node for node in nodes_of(path) if isinstance(node, ast.FunctionDef)]
        arguments = [(made.name, argument.arg) for made in functions for argument in made.args.args]
        assert [name for name, argument in arguments if argument == "root"] == []


@each_file
def test_the_lowest_floor_does_nothing_but_compute(path: Path) -> None:
    if floor_of(parts_of(path)) == "formats":
        outside = {"io", "os", "pathlib", "random", "shutil", "socket", "subprocess", "sys", "tempfile", "time"}
        assert not outside & set(libraries_of(path))
        assert set(libraries_of(path)) <= set(sys.stdlib_module_names)


@each_file
def test_the_core_is_told_and_does_not_ask(path: Path) -> None:
    if floor_of(parts_of(path)) in CORE:
        asks = {"os.environ", "os.getenv", "os.getcwd", "time.time", "Path.home", "Path.cwd", "sys.argv", "sys.stdin"}
        assert not asks & set(attributes_of(path))


@each_file
def test_only_the_top_floor_talks_to_people(path: Path) -> None:
    if floor_of(parts_of(path)) in CORE:
        names = {node.id for node in nodes_of(path) if isinstance(node, ast.Name)}
        assert not {"print", "input"} & names
        assert not {"sys.stdout", "sys.stderr", "sys.exit"} & set(attributes_of(path))
        assert not {"rich", "typer", "logging"} & set(libraries_of(path))


# Of os: what changes a disk. `Directory` has methods of the same names; `Path` has them with other arguments.
MUTATOR = re.compile(
    r"os\.(f?chmod|[fl]?chown|fdatasync|fsync|sync|link|symlink|makedirs|mkdir|mkfifo|mknod|remove|removedirs|rename"
    r"|renames|replace|rmdir|truncate|unlink|utime|write|writev|pwrite|O_CREAT|O_TRUNC)"
)
PATH_MUTATOR = re.compile(
    r"l?chmod|hardlink_to|symlink_to|mkdir|write_bytes|write_text|copy2?|copyfile|copyfileobj|copytree|move|rmtree"
)
# The modules that may.
MUTATORS = [PACKAGE / "streams" / name for name in ("durable.py", "owners.py", "windows.py", "writing.py")]
# Method: how many arguments make it the one of Path.
PATH_TWINS = {"rename": 1, "replace": 1, "rmdir": 0, "touch": 0, "unlink": 0}


def test_the_modules_that_change_disks_are_there() -> None:
    assert [path for path in (*MUTATORS, RESTORE) if path not in FILES] == []


@each_file
def test_one_module_changes_disks_and_one_the_files_on_them(path: Path) -> None:
    if path in MUTATORS:
        return
    assert not [name for name in attributes_of(path) if MUTATOR.fullmatch(name)]
    assert "tempfile" not in set(libraries_of(path))
    for node in nodes_of(path):
        if isinstance(node, ast.Attribute):
            assert not PATH_MUTATOR.fullmatch(node.attr), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert PATH_TWINS.get(node.func.attr) != len(node.args), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "open", f"line {node.lineno}"


def test_what_only_windows_can_load_is_not_measured() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    omitted = {path.removeprefix("*/") for path in settings["tool"]["coverage"]["run"]["omit"]}
    assert omitted == {path.relative_to(ROOT).as_posix() for path in WINDOWS_ONLY}


def test_the_restorer_stands_alone() -> None:
    assert list(imports_of(RESTORE)) == []
    allowed = set(sys.stdlib_module_names) | {"compression"}  # compression.zstd: Python 3.14
    assert set(libraries_of(RESTORE)) <= allowed


# Every bundle contains these files, so a change of one byte changes every bundle: the same models no longer give the
# same bytes. To change a file on purpose, write its new digest here and tell users in CHANGELOG.md that bundles differ.
CARRIED = {
    "RESTORE.txt": "535d96253e88629fd75e1518d366a38c27d0b376ddc97a24f31f34b8e501f7fb",
    "RESTORE-DELTA.txt": "f486cbb666d351cfe08ea28d9f70874e6ad3b156485ed779b02c382e5e3bc35d",
    "RESTORE-RECIPES.txt": "5a45d7f506aafce3030b464a2efaf791b29f598dd10c1576478bf04c93630e1d",
    "restore.py": "97f9aba9a5b309895051021a3dd236d7a69a36e254d00a6b0e1f02adc5bc1778",
}


@pytest.mark.parametrize("name", CARRIED)
def test_what_travels_in_bundles_changes_only_on_purpose(name: str) -> None:
    assert hashlib.sha256((RESTORE.parent / name).read_bytes()).hexdigest() == CARRIED[name]


VAGUE_MODULES = {"utils", "util", "helpers", "common", "base", "types", "constants", "misc", "core"}


@each_of(FILES)
def test_names_of_modules_and_classes_say_something(path: Path) -> None:
    assert not set(parts_of(path)) & VAGUE_MODULES
    classes = [node.name for node in nodes_of(path) if isinstance(node, ast.ClassDef)]
    assert not [name for name in classes if re.search(r"(Manager|Handler|Service|Helper|Util)s?$", name)]


def every(kind: type[errors.OstoreError]) -> Iterator[type[errors.OstoreError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from every(child)


def one_of(kind: type[errors.OstoreError]) -> errors.OstoreError:
    if issubclass(kind, errors.BlobError):
        return kind("", digest="")
    return kind("")


def test_every_error_has_an_exit_code() -> None:
    for path in OURS:
        if path in WINDOWS_ONLY and sys.platform != "win32":
            continue
        importlib.import_module(".".join(("ostore", *parts_of(path))).removesuffix(".__init__"))
    found = set(every(errors.OstoreError)) - {errors.OstoreError}
    assert {kind.__module__ for kind in found} == {"ostore.formats.errors"}
    classes = {errors.class_of(one_of(kind)) for kind in found}
    assert classes == set(exit_codes.CODES) - {"failed", "io", "trust"}
    assert errors.class_of(errors.OstoreError("")) == "failed"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (errors.BlobMissingError("", digest=""), "integrity"),
        (errors.TruncatedError(""), "integrity"),
        (errors.InUseError("file"), "busy"),
        (errors.InvalidNameError(""), "unsafe"),
        (errors.AmbiguousManifestError(""), "unsafe"),
        (errors.InvalidManifestError(""), "format"),
        (errors.DamagedStoreError(""), "damaged"),
        (errors.RemoteError(""), "remote"),
        (OSError(28, "No space left on device"), "no-space"),
        (OSError(122, "Disk quota exceeded"), "no-space"),
        (OSError(27, "File too large"), "no-space"),
        (FileNotFoundError(2, "No such file or directory"), "io"),
        (BlockingIOError(11, "try again"), "io"),
        (OSError("without a number"), "io"),
        (ValueError(), "failed"),
        (KeyError("x"), "failed"),
        (MemoryError(), "limit"),
        (RuntimeError("can't start new thread"), "limit"),
        (RuntimeError("another"), "failed"),
    ],
    ids=repr,
)
@pytest.mark.skipif(sys.platform != "linux", reason="error numbers are those of Linux")
def test_an_error_belongs_to_one_class(error: Exception, name: str) -> None:
    assert errors.class_of(error) == name


def test_exit_codes_are_the_documented_ones_and_no_two_are_alike() -> None:
    assert list(exit_codes.CODES.values()) == list(range(1, 14))
    table = re.findall(r"^\| (\d+) \| ([a-z-]+) \|", (ROOT / "docs" / "exit-codes.md").read_text(), re.MULTILINE)
    assert {name: int(code) for code, name in table} == exit_codes.CODES


@pytest.mark.parametrize("name", ostore.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(ostore, name)
    assert found is getattr(ostore, name)
    if name != "__version__":
        assert found.__doc__
        assert not found.__doc__.startswith(f"{name}("), "a dataclass without a docstring of its own"


def test_public_names_are_sorted_and_those_that_type_checkers_see() -> None:
    assert list(ostore.__all__) == sorted(ostore.__all__)
    assert len(set(ostore.__all__)) == len(ostore.__all__)
    checked = next(node for node in tree_of(PACKAGE / "__init__.py").body if isinstance(node, ast.If))
    names = [
        alias.asname or alias.name for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    assert sorted([*names, "__version__"]) == ostore.__all__


def test_every_public_name_is_defined_where_the_library_looks_for_it() -> None:
    assert list(ostore._HOMES) == [name for name in ostore.__all__ if name != "__version__"]
    for name, home in ostore._HOMES.items():
        module = Path(importlib.import_module(home).__file__ or "")
        defined = {node.name for node in tree_of(module).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        assert name in defined, f"{name} is not defined in {home}"


def test_every_error_is_public() -> None:
    assert {kind.__name__ for kind in every(errors.OstoreError)} <= set(ostore.__all__)


def test_a_name_that_is_not_public_is_not_there() -> None:
    for name in ("no_such_name", "Path", "LocalStore", "annotations_"):
        with pytest.raises(AttributeError, match=f"module 'ostore' has no attribute '{name}'"):
            getattr(ostore, name)


def test_the_version_is_said_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", ostore.__version__)
    assert importlib.metadata.version("ostore") == ostore.__version__
    told = subprocess.run([*OSTORE, "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"ostore {ostore.__version__}\n"


HEAVY = {"aiohttp", "asyncio", "numpy", "pydantic", "requests", "rich", "urllib3", "zstandard"}
RUN = """
import json, sys
sys.argv = ["ostore", *sys.argv[1:]]
try:
    from ostore.cli.main import main
    main()
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["export", "--help"], ["list", "--help"]], ids=" ".join
)
def test_a_command_that_does_nothing_loads_nothing_heavy(arguments: list[str]) -> None:
    told = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=True)
    code, modules = json.loads(told.stderr.splitlines()[-1])
    assert code == 0
    assert "ostore.cli.main" in modules
    assert not HEAVY & set(modules)
    # The other commands are not even made.
    made = existing("ostore.cli.commands.list", "ostore.cli.commands.export") & set(modules)
    assert len(made) == (arguments[-2:-1] != [])


def test_every_command_has_files_of_its_name_and_no_file_is_without_a_command() -> None:
    names = {"import_" if name == "import" else name for name in COMMANDS}
    stems = {
        folder: {path.stem for path in (PACKAGE / "cli" / folder).glob("*.py")} for folder in ("commands", "render")
    }
    assert stems["commands"] == names | {"__init__"}
    assert stems["render"] == names - {"completion", "help", "version"} | {"__init__", "report"}
    functions = {name for name in ostore.__all__ if name.islower() and not name.startswith("_")}
    files = {path.stem for path in (PACKAGE / "api").rglob("*.py")}
    assert functions - files == {
        "check_move",
        "fix",
        "inspect",
        "refresh_links",
        "remove_links",
        "restore",
        "show_part",
    }


@unmeasured
@pytest.mark.parametrize("words", [["="], ["=--", "export"], ["=ti", "verify", "-q"]], ids=" ".join)
def test_completing_loads_nothing_but_what_names_need(words: list[str], store: Store) -> None:
    # It ends without unwinding, so what was loaded is told from the place where it ends.
    code = "import json, os, sys; os._exit = lambda code: print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    told = subprocess.run(
        [sys.executable, "-c", code + RUN, "_complete", *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OLLAMA_MODELS": str(store.root)},
    )
    modules = set(json.loads(told.stderr.splitlines()[0]))
    assert len(told.stdout.splitlines()) > 2
    assert not modules & (HEAVY | existing("hashlib", "importlib.resources", "platformdirs", "sqlite3"))
    modules -= {"ostore.streams", "ostore.streams.links"}
    assert not [name for name in modules if name.startswith(("ostore.api", "ostore.operations", "ostore.streams"))]
    assert existing("ostore.formats.manifest", "ostore.places.store.survey.scan").isdisjoint(modules)


def test_importing_the_library_loads_nothing_that_is_not_used() -> None:
    code = "import json, sys, ostore; ostore.__version__; print(json.dumps(sorted(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(json.loads(told.stdout))
    assert not modules & (HEAVY | existing("typer", "platformdirs", "ostore.api"))


def ours(*suffixes: str) -> Iterator[Path]:
    skipped = {
        ".git",
        ".coverage.d",
        ".fuzz",
        ".pythons",
        ".vectors",
        ".venv",
        ".windows",
        "dist",
        ".hypothesis",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        "__pycache__",
    }
    for path in ROOT.rglob("*"):
        if path.is_file() and not skipped & set(path.relative_to(ROOT).parts) and path.suffix in suffixes:
            yield path


def test_no_file_names_the_machine_it_was_written_on() -> None:
    # A folder at the top, as /tmp, is on every machine.
    forbidden = {f"{path}/" for path in (ROOT, ROOT.parent) if len(path.parts) > 2}
    if sys.prefix != sys.base_prefix:
        forbidden.add(f"{sys.prefix}/")
    for path in ours(".py", ".md", ".txt", ".toml", ".sh", ".json", ".yml", ""):
        text = path.read_text(encoding="utf-8", errors="replace")
        found = {word for word in forbidden if re.search(rf"(?<![\w.*]){re.escape(word)}", text)}
        assert not found, path
