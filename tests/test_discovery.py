"""
The settings that name a store count in the documented order. Absent or broken settings do no harm.

Every file is below `tmp_path`: no test sees, or depends on, an Ollama of the machine it runs on.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from ostore.formats.errors import NotFoundError
from ostore.host.discovery import MAX_SETTING_CHARACTERS, FoundStore, doubts_of_setting, find_store, other_stores
from ostore.host.service_unit import MAX_CONFIG_BYTES
from ostore.host.surroundings import StoreChoice, Surroundings

UNIT = "etc/systemd/system/ollama.service"
DROP_IN = "etc/systemd/system/ollama.service.d/override.conf"
UNIT_FOLDERS = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)

only_where_modes_bind = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="modes do not bind this user"
)
only_with_symlinks_and_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a POSIX system")


def machine(
    root: Path, *, platform: str = "linux", home: str | None = "home/me", environ: Mapping[str, str] | None = None
) -> Surroundings:
    return Surroundings(
        environ=environ or {},
        platform=platform,
        home=root / home if home is not None else None,
        cwd=root / "work",
        root=root,
        home_of={"ollama": root / "usr/share/ollama", "1001": root / "home/other"}.get,
    )


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def make_store(path: Path) -> Path:
    (path / "blobs").mkdir(parents=True)
    return path


def write_unit(root: Path, service: str) -> Path:
    return write(root / UNIT, f"[Unit]\nDescription=Ollama\n\n[Service]\nExecStart=/usr/bin/ollama serve\n{service}\n")


def service_says(root: Path) -> str | None:
    """Return the models directory that the service's files lead to, or None if they lead nowhere."""
    choice = find_store(machine(root), None)
    return choice.path.as_posix() if choice.reason == "service" else None


# --- the flag -------------------------------------------------------------------------------------------------------


def test_the_flag_beats_everything(tmp_path: Path) -> None:
    write_unit(tmp_path, "Environment=OLLAMA_MODELS=/unit")
    here = machine(tmp_path, environ={"OLLAMA_MODELS": "/variable"})
    assert find_store(here, tmp_path / "flag") == StoreChoice(tmp_path / "flag", "flag", "--models")


@pytest.mark.parametrize(
    ("flag", "below_cwd"),
    [("models", "models"), ("a/../b", "a/../b"), ("~/models", "~/models"), (".", "")],
    ids=["plain", "dots are left to the disk", "tilde is a name", "here"],
)
def test_a_relative_flag_is_below_the_working_directory(tmp_path: Path, flag: str, below_cwd: str) -> None:
    assert find_store(machine(tmp_path), Path(flag)).path == tmp_path / "work" / below_cwd


# --- the environment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("/data/m", "/data/m"),
        ("  /data/m\t\n", "/data/m"),
        ('"/data/m"', "/data/m"),
        ("'/data/m'", "/data/m"),
        ("  \"'/data/m'\"  ", "/data/m"),
        ("\"''/data/m", "/data/m"),
        ("/data/it's", "/data/it's"),
        ('" /data/m "', "{cwd}/ /data/m "),
        ("\u3000\x85\xa0/data/m\u2028", "/data/m"),
        ("/data/m\x1c", "/data/m\x1c"),
        ("~/models", "{cwd}/~/models"),
        ("$HOME/models", "{cwd}/$HOME/models"),
        ("models", "{cwd}/models"),
        ("../m", "{root}/m"),
        ("/data/./x//../m/", "/data/m"),
    ],
    ids=[
        "plain",
        "white space around",
        "double quotes",
        "single quotes",
        "white space and both quotes",
        "quotes on one side, in any mix",
        "a quote inside stays",
        "white space inside quotes stays",
        "any white space of Unicode",
        "not what only Python calls white space",
        "tilde is a name",
        "variables are not expanded",
        "relative",
        "relative, upwards",
        "cleaned as Go cleans",
    ],
)
def test_the_variable_is_read_as_ollama_reads_it(tmp_path: Path, value: str, path: str) -> None:
    here = machine(tmp_path, environ={"OLLAMA_MODELS": value})
    expected = Path(path.format(cwd=here.cwd, root=tmp_path))
    assert find_store(here, None) == StoreChoice(expected, "environment", "OLLAMA_MODELS")


@pytest.mark.parametrize("value", ["", "  ", '""', " '\"' "], ids=["empty", "blank", "quotes", "blank and quotes"])
def test_a_variable_with_nothing_in_it_is_unset(tmp_path: Path, value: str) -> None:
    assert find_store(machine(tmp_path, environ={"OLLAMA_MODELS": value}), None).reason == "default"


def test_the_variable_beats_the_service(tmp_path: Path) -> None:
    write_unit(tmp_path, "Environment=OLLAMA_MODELS=/unit")
    assert find_store(machine(tmp_path, environ={"OLLAMA_MODELS": "/variable"}), None).path == Path("/variable")


def test_the_environment_of_this_process_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", "/real")
    monkeypatch.setenv("HOME", "/real")
    assert find_store(machine(tmp_path), None).path == tmp_path / "home/me/.ollama/models"


# --- the service: which files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", UNIT_FOLDERS)
def test_a_unit_is_found_where_systemd_looks(tmp_path: Path, folder: str) -> None:
    unit = write(tmp_path / folder / "ollama.service", "[Service]\nEnvironment=OLLAMA_MODELS=/unit\n")
    assert find_store(machine(tmp_path), None) == StoreChoice(Path("/unit"), "service", str(unit))


@pytest.mark.parametrize(("earlier", "later"), list(pairwise(UNIT_FOLDERS)))
def test_a_unit_in_an_earlier_folder_hides_the_later_one(tmp_path: Path, earlier: str, later: str) -> None:
    write(tmp_path / earlier / "ollama.service", "[Service]\nUser=nobody\n")
    write(tmp_path / later / "ollama.service", "[Service]\nEnvironment=OLLAMA_MODELS=/hidden\n")
    assert service_says(tmp_path) is None


def test_a_drop_in_overrides_the_unit(tmp_path: Path) -> None:
    write_unit(tmp_path, "Environment=OLLAMA_MODELS=/unit")
    drop_in = write(tmp_path / DROP_IN, "[Service]\nEnvironment=OLLAMA_MODELS=/drop-in\n")
    assert find_store(machine(tmp_path), None) == StoreChoice(Path("/drop-in"), "service", str(drop_in))


def test_a_drop_in_of_any_folder_applies_to_the_unit_of_any_folder(tmp_path: Path) -> None:
    write_unit(tmp_path, "Environment=OLLAMA_MODELS=/unit")
    write(
        tmp_path / "usr/lib/systemd/system/ollama.service.d/vendor.conf", "[Service]\nEnvironment=OLLAMA_MODELS=/late\n"
    )
    assert service_says(tmp_path) == "/late"


def test_drop_ins_apply_in_the_order_of_their_names_whatever_their_folder(tmp_path: Path) -> None:
    write_unit(tmp_path, "")
    write(
        tmp_path / "etc/systemd/system/ollama.service.d/10-a.conf",
        "[Service]\nEnvironment=OLLAMA_MODELS=/administrator\n",
    )
    write(tmp_path / "lib/systemd/system/ollama.service.d/20-b.conf", "[Service]\nEnvironment=OLLAMA_MODELS=/vendor\n")
    assert service_says(tmp_path) == "/vendor"


@pytest.mark.parametrize(("earlier", "later"), list(pairwise(UNIT_FOLDERS)))
def test_of_two_drop_ins_with_one_name_the_earlier_folder_wins(tmp_path: Path, earlier: str, later: str) -> None:
    write_unit(tmp_path, "")
    write(tmp_path / earlier / "ollama.service.d/x.conf", "[Service]\nEnvironment=OLLAMA_MODELS=/earlier\n")
    write(tmp_path / later / "ollama.service.d/x.conf", "[Service]\nEnvironment=OLLAMA_MODELS=/later\n")
    assert service_says(tmp_path) == "/earlier"


@only_with_symlinks_and_pipes
def test_an_empty_drop_in_hides_its_namesake(tmp_path: Path) -> None:
    write_unit(tmp_path, "")
    link = write(tmp_path / DROP_IN, "").parent / "x.conf"
    link.symlink_to("/dev/null")
    write(tmp_path / "lib/systemd/system/ollama.service.d/x.conf", "[Service]\nEnvironment=OLLAMA_MODELS=/hidden\n")
    assert service_says(tmp_path) is None


def test_only_files_that_end_in_conf_are_drop_ins(tmp_path: Path) -> None:
    write_unit(tmp_path, "")
    write(tmp_path / f"{DROP_IN}.bak", "[Service]\nEnvironment=OLLAMA_MODELS=/backup\n")
    assert service_says(tmp_path) is None


def test_drop_ins_without_a_unit_are_no_service(tmp_path: Path) -> None:
    write(tmp_path / DROP_IN, "[Service]\nEnvironment=OLLAMA_MODELS=/left-over\n")
    assert service_says(tmp_path) is None


def test_an_empty_unit_is_masked_with_all_its_drop_ins(tmp_path: Path) -> None:
    write(tmp_path / UNIT, "")
    write(tmp_path / DROP_IN, "[Service]\nEnvironment=OLLAMA_MODELS=/masked\n")
    assert service_says(tmp_path) is None


@only_with_symlinks_and_pipes
def test_a_unit_linked_to_dev_null_is_masked(tmp_path: Path) -> None:
    (tmp_path / UNIT).parent.mkdir(parents=True)
    (tmp_path / UNIT).symlink_to("/dev/null")
    write(tmp_path / "lib/systemd/system/ollama.service", "[Service]\nEnvironment=OLLAMA_MODELS=/masked\n")
    assert service_says(tmp_path) is None


def test_a_unit_that_cannot_be_read_is_skipped_and_its_drop_ins_are_not(tmp_path: Path) -> None:
    (tmp_path / UNIT).mkdir(parents=True)
    assert service_says(tmp_path) is None
    write(tmp_path / DROP_IN, "[Service]\nEnvironment=OLLAMA_MODELS=/drop-in\n")
    assert service_says(tmp_path) == "/drop-in"


@only_where_modes_bind
def test_a_unit_that_may_not_be_read_is_skipped(tmp_path: Path) -> None:
    write_unit(tmp_path, "Environment=OLLAMA_MODELS=/secret").chmod(0)
    assert service_says(tmp_path) is None


@pytest.mark.parametrize(("over", "says"), [(0, "/unit"), (1, None)], ids=["at the bound", "one byte over"])
def test_a_unit_over_the_bound_is_not_read(tmp_path: Path, over: int, says: str | None) -> None:
    unit = write_unit(tmp_path, "Environment=OLLAMA_MODELS=/unit")
    with unit.open("ab") as file:
        file.write(b"#" * (MAX_CONFIG_BYTES - unit.stat().st_size + over))
    assert service_says(tmp_path) == says


@pytest.mark.parametrize("platform", ["darwin", "win32", "freebsd14"])
def test_units_count_on_linux_only(tmp_path: Path, platform: str) -> None:
    write_unit(tmp_path, "Environment=OLLAMA_MODELS=/unit")
    assert find_store(machine(tmp_path, platform=platform), None).reason == "default"


# --- the service: what they say -------------------------------------------------------------------------------------

# Each was also given to systemd 252 (`systemd --test --user`), which agreed, but for %h and %S: a user's manager has
# others than the system's.
ENVIRONMENT_LINES = [
    ("plain", "Environment=OLLAMA_MODELS=/m", "/m"),
    ("quotes around the assignment", 'Environment="OLLAMA_MODELS=/a b"', "/a b"),
    ("quotes around the value", 'Environment=OLLAMA_MODELS="/a b"', "/a b"),
    ("single quotes", "Environment='OLLAMA_MODELS=/a b'", "/a b"),
    ("one of several", 'Environment=A=1 "OLLAMA_MODELS=/m" B=2', "/m"),
    ("the later of two wins", "Environment=OLLAMA_MODELS=/a OLLAMA_MODELS=/b", "/b"),
    ("the later line wins", "Environment=OLLAMA_MODELS=/a\nEnvironment=OLLAMA_MODELS=/b", "/b"),
    ("an empty line resets", "Environment=OLLAMA_MODELS=/a\nEnvironment=", None),
    ("after a reset it starts again", "Environment=OLLAMA_MODELS=/a\nEnvironment=\nEnvironment=OLLAMA_MODELS=/b", "/b"),
    ("white space around the equals sign", "  Environment \t=  OLLAMA_MODELS=/m  ", "/m"),
    ("escapes", r"Environment=OLLAMA_MODELS=/a\sb\x2fc\057d\u00e9\U0001F600", "/a b/c/dé😀"),
    ("two escaped bytes of one character", r"Environment=OLLAMA_MODELS=/\xc3\xa9", "/é"),
    ("escaped quotes", r"""Environment="OLLAMA_MODELS=/a\"b\'c\\d" """, "/a\"b'c\\d"),
    ("the other quote inside quotes", """Environment="OLLAMA_MODELS=/it's" """, "/it's"),
    ("a continued line", "Environment=A=1 \\\n  OLLAMA_MODELS=/m", "/m"),
    ("continued inside quotes", 'Environment="OLLAMA_MODELS=/a\\\nb"', "/a b"),
    ("comments inside a continued line", "Environment=A=1 \\\n# no\n ; no \\\n OLLAMA_MODELS=/m", "/m"),
    ("an escaped backslash does not continue", "Environment=A=\\\\\\\\\nEnvironment=OLLAMA_MODELS=/m", "/m"),
    ("continued at the end of the file", "Environment=OLLAMA_MODELS=/m \\", "/m"),
    ("a byte order mark", "\ufeff[Service]\nEnvironment=OLLAMA_MODELS=/m", "/m"),
    ("lines of DOS", "Environment=A=1 \\\r\nOLLAMA_MODELS=/m\r\n", "/m"),
    ("a comment", "# Environment=OLLAMA_MODELS=/m", None),
    ("a comment with semicolon", " ; Environment=OLLAMA_MODELS=/m", None),
    ("a comment does not continue", "# note \\\nEnvironment=OLLAMA_MODELS=/m", "/m"),
    ("another section", "[Install]\nEnvironment=OLLAMA_MODELS=/m", None),
    ("back in the section", "[Service]\n[Install]\n[Service]\nEnvironment=OLLAMA_MODELS=/m", "/m"),
    ("no case folding", "environment=OLLAMA_MODELS=/m\nEnvironment=ollama_models=/n", None),
    ("a dollar sign is itself", "Environment=OLLAMA_MODELS=/$HOME", "/$HOME"),
    ("a percent sign", "Environment=OLLAMA_MODELS=/100%%", "/100%"),
    ("home of the system manager", "Environment=OLLAMA_MODELS=%h/models", "/root/models"),
    ("state directory", "Environment=OLLAMA_MODELS=%S/%N", "/var/lib/ollama"),
    ("words before an unclosed quote", 'Environment=OLLAMA_MODELS=/m "A=1', "/m"),
    ("words after an unclosed quote", 'Environment="A=1 OLLAMA_MODELS=/m', None),
    ("an unknown escape ends the line", r"Environment=A=\q OLLAMA_MODELS=/m", None),
    ("a NUL escape ends the line", r"Environment=A=\x00 OLLAMA_MODELS=/m", None),
    ("no such character", r"Environment=A=\U00110000 OLLAMA_MODELS=/m", None),
    ("half of a character", r"Environment=OLLAMA_MODELS=/\xff", None),
    ("half of a surrogate pair", r"Environment=OLLAMA_MODELS=/\ud800", None),
    ("not UTF-8", "Environment=OLLAMA_MODELS=/\udcff", None),
    ("a word without equals sign", "Environment=OLLAMA_MODELS", None),
    ("an empty value", "Environment=OLLAMA_MODELS=", None),
]


@pytest.mark.parametrize(
    ("service", "says"), [case[1:] for case in ENVIRONMENT_LINES], ids=[case[0] for case in ENVIRONMENT_LINES]
)
def test_environment_lines_are_read_as_systemd_reads_them(tmp_path: Path, service: str, says: str | None) -> None:
    write(tmp_path / UNIT, service if "[Service]" in service else f"[Service]\n{service}")
    assert service_says(tmp_path) == says


def test_a_specifier_that_we_cannot_resolve_stays_to_be_seen(tmp_path: Path) -> None:
    write_unit(tmp_path, "Environment=OLLAMA_MODELS=/data/%H")
    assert service_says(tmp_path) == "/data/%H"


def test_ollama_strips_quotes_that_systemd_left(tmp_path: Path) -> None:
    write_unit(tmp_path, r"""Environment="OLLAMA_MODELS= '/data/m' " """)
    assert service_says(tmp_path) == "/data/m"


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("", "/models"),
        ("WorkingDirectory=/srv/ollama", "/srv/ollama/models"),
        ("WorkingDirectory=-/srv/ollama", "/srv/ollama/models"),
        ("WorkingDirectory=/srv\nWorkingDirectory=", "/models"),
        ("User=ollama\nWorkingDirectory=~", "{root}/usr/share/ollama/models"),
    ],
    ids=["root of the disk", "said", "said, may be missing", "reset", "home"],
)
def test_a_relative_setting_is_below_the_folder_of_the_service(tmp_path: Path, folder: str, path: str) -> None:
    write_unit(tmp_path, f"Environment=OLLAMA_MODELS=models\n{folder}")
    assert service_says(tmp_path) == path.format(root=tmp_path.as_posix())


def test_a_setting_need_not_exist(tmp_path: Path) -> None:
    write_unit(tmp_path, f"Environment=OLLAMA_MODELS={tmp_path.as_posix()}/unmounted")
    assert service_says(tmp_path) == f"{tmp_path.as_posix()}/unmounted"


# --- the service: environment files ---------------------------------------------------------------------------------


def test_an_environment_file_says_it(tmp_path: Path) -> None:
    write_unit(tmp_path, "EnvironmentFile=/etc/default/ollama")
    file = write(tmp_path / "etc/default/ollama", "OLLAMA_MODELS=/file\n")
    assert find_store(machine(tmp_path), None) == StoreChoice(Path("/file"), "service", str(file))


@pytest.mark.parametrize(
    ("service", "says"),
    [
        ("EnvironmentFile=-/etc/a.env", "/a"),
        ("EnvironmentFile=-/etc/missing.env", None),
        ("EnvironmentFile=/etc/missing.env\nEnvironmentFile=/etc/a.env", "/a"),
        ("EnvironmentFile=/etc/a.env\nEnvironment=OLLAMA_MODELS=/unit", "/a"),
        ("EnvironmentFile=/etc/a.env\nEnvironmentFile=/etc/b.env", "/b"),
        ("EnvironmentFile=/etc/b.env\nEnvironmentFile=\nEnvironmentFile=/etc/a.env", "/a"),
        ("EnvironmentFile=/etc/a.env\nEnvironmentFile=", None),
        ("EnvironmentFile=/etc/?.env", "/b"),
        ("EnvironmentFile=/**/a.env", "/a"),
        ("EnvironmentFile=%E/a.env", "/a"),
        ("EnvironmentFile=etc/a.env", None),
        ('EnvironmentFile="/etc/a.env"', None),
        ("Environment=OLLAMA_MODELS=/unit\nEnvironmentFile=/etc/empty.env", None),
        ("EnvironmentFile=/etc", None),
        ("EnvironmentFile=/etc/nul.env", None),
    ],
    ids=[
        "optional",
        "optional and missing",
        "missing",
        "beats inline assignments, wherever they are",
        "the later file wins",
        "reset and started again",
        "reset",
        "a pattern, in order of names",
        "two asterisks are one",
        "a specifier",
        "relative",
        "quotes are part of the name",
        "may unset it",
        "a folder",
        "a NUL in the file",
    ],
)
def test_environment_files_are_found_as_systemd_finds_them(tmp_path: Path, service: str, says: str | None) -> None:
    write_unit(tmp_path, service)
    write(tmp_path / "etc/a.env", "OLLAMA_MODELS=/a\n")
    write(tmp_path / "etc/b.env", "OLLAMA_MODELS=/b\n")
    write(tmp_path / "etc/deeper/still/a.env", "OLLAMA_MODELS=/deep\n")
    write(tmp_path / "etc/empty.env", "OLLAMA_MODELS=\n")
    write(tmp_path / "etc/nul.env", "OLLAMA_MODELS=/a\0b\n")
    assert service_says(tmp_path) == says


# Each was also given to systemd 252 (its environment.d generator has the same parser), which agreed, but for the dollar
# sign: that generator expands it.
ENVIRONMENT_FILES = [
    ("plain", "OLLAMA_MODELS=/m", "/m"),
    ("white space around", "  OLLAMA_MODELS = \t/m \t\n", "/m"),
    ("white space inside", "OLLAMA_MODELS=/a  b", "/a  b"),
    ("double quotes", 'OLLAMA_MODELS="/a b"', "/a b"),
    ("single quotes", "OLLAMA_MODELS='/a b'", "/a b"),
    ("quoted parts are joined", "OLLAMA_MODELS='/a' \"b\"c", "/abc"),
    ("quotes after the first character stay", 'OLLAMA_MODELS=/a"b"\'c', '/a"b"\'c'),
    ("an escaped character", r"OLLAMA_MODELS=/a\ b\\c\n", "/a b\\cn"),
    ("an escaped space at the end", "OLLAMA_MODELS=/a\\ \n", "/a"),
    ("escapes in double quotes", r'OLLAMA_MODELS="/a\"b\\c\n\$"', '/a"b\\c\\n$'),
    ("no escapes in single quotes", r"OLLAMA_MODELS='/a\nb'", r"/a\nb"),
    ("a continued line", "OLLAMA_MODELS=/a\\\nb", "/ab"),
    ("continued in double quotes", 'OLLAMA_MODELS="/a\\\nb"', "/ab"),
    ("a line break in quotes", "OLLAMA_MODELS='/a\nb'", "/a\nb"),
    ("a quote that is never closed", 'OLLAMA_MODELS="/a', "/a"),
    ("a comment", "#OLLAMA_MODELS=/m", None),
    ("a comment with semicolon", "  ; OLLAMA_MODELS=/m", None),
    ("a quote in a comment", "# it's = 'off\nOLLAMA_MODELS=/m", "/m"),
    ("a line of no meaning", "nonsense\nOLLAMA_MODELS=/m", "/m"),
    ("the later one wins", "OLLAMA_MODELS=/a\nOLLAMA_MODELS=/b", "/b"),
    ("lines of DOS", "A=1\r\nOLLAMA_MODELS=/m\r\nB=2\r\n", "/m"),
    ("export is not for systemd", "export OLLAMA_MODELS=/m", None),
    ("a dollar sign is itself", "OLLAMA_MODELS=/$HOME", "/$HOME"),
    ("not UTF-8", "OLLAMA_MODELS=/\udcff", None),
]


@pytest.mark.parametrize(
    ("text", "says"), [case[1:] for case in ENVIRONMENT_FILES], ids=[case[0] for case in ENVIRONMENT_FILES]
)
def test_environment_files_are_read_as_systemd_reads_them(tmp_path: Path, text: str, says: str | None) -> None:
    write_unit(tmp_path, "EnvironmentFile=/etc/ollama.env")
    write(tmp_path / "etc/ollama.env", text)
    assert service_says(tmp_path) == says


@only_with_symlinks_and_pipes
def test_a_pipe_in_place_of_an_environment_file_does_not_stop_us(tmp_path: Path) -> None:
    write_unit(tmp_path, "EnvironmentFile=/etc/pipe")
    os.mkfifo(tmp_path / "etc/pipe")
    assert service_says(tmp_path) is None


def test_an_environment_file_over_the_bound_is_not_read(tmp_path: Path) -> None:
    write_unit(tmp_path, "EnvironmentFile=/etc/ollama.env")
    write(tmp_path / "etc/ollama.env", "OLLAMA_MODELS=/m\n" + "#" * MAX_CONFIG_BYTES)
    assert service_says(tmp_path) is None


# --- the service: its home ------------------------------------------------------------------------------------------


def test_a_service_that_names_only_its_user_uses_the_home_of_that_user(tmp_path: Path) -> None:
    unit = write_unit(tmp_path, 'User=ollama\nGroup=ollama\nEnvironment="PATH=/usr/bin"')
    models = make_store(tmp_path / "usr/share/ollama/.ollama/models")
    assert find_store(machine(tmp_path), None) == StoreChoice(models, "service", str(unit))


def test_the_home_of_the_service_counts_only_if_its_store_exists(tmp_path: Path) -> None:
    write_unit(tmp_path, "User=ollama")
    assert find_store(machine(tmp_path), None).reason == "default"


@pytest.mark.parametrize(
    ("service", "home"),
    [
        ("User=ollama\nUser=1001", "home/other"),
        ("User=1001\nUser=ollama", "usr/share/ollama"),
        ("User=ollama\nUser=", None),
        ("User=nobody", None),
        ("Group=ollama", None),
        ("User=ollama\nEnvironment=HOME={root}/srv", "srv"),
        ("User=ollama\nEnvironment=HOME=", None),
        ("Environment=HOME={root}/srv", "srv"),
    ],
    ids=[
        "the later user",
        "the later user, the other way",
        "reset to root, who gets no home",
        "unknown user",
        "no user",
        "a home said outright beats the user's",
        "an empty home is none",
        "a home and no user",
    ],
)
def test_the_home_of_the_service_is_what_systemd_gives_it(tmp_path: Path, service: str, home: str | None) -> None:
    write_unit(tmp_path, service.format(root=tmp_path.as_posix()))
    for place in ("usr/share/ollama", "home/other", "srv"):
        make_store(tmp_path / place / ".ollama/models")
    expected = (tmp_path / home / ".ollama/models").as_posix() if home else None
    assert service_says(tmp_path) == expected


def test_a_setting_beats_the_home_of_the_service(tmp_path: Path) -> None:
    write_unit(tmp_path, "User=ollama\nEnvironment=OLLAMA_MODELS=/unit")
    make_store(tmp_path / "usr/share/ollama/.ollama/models")
    assert service_says(tmp_path) == "/unit"


# --- the desktop app ------------------------------------------------------------------------------------------------

APP_FOLDER = {"darwin": "home/me/Library/Application Support/Ollama", "win32": "home/me/AppData/Local/Ollama"}


def desktop(root: Path, platform: str = "darwin") -> Surroundings:
    return machine(root, platform=platform, environ={"LOCALAPPDATA": str(root / "home/me/AppData/Local")})


@contextmanager
def app_settings(root: Path, models: object, platform: str = "darwin", journal: str = "WAL") -> Iterator[Path]:
    """Write the app's database and keep it open, as the running app does."""
    database = root / APP_FOLDER[platform] / "db.sqlite"
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database)) as app:
        app.execute(f"PRAGMA journal_mode={journal}")
        app.execute("CREATE TABLE settings (id INTEGER PRIMARY KEY, models, other TEXT)")
        app.execute("INSERT INTO settings VALUES (1, ?, '')", (models,))
        app.execute("INSERT INTO settings VALUES (2, '/not this row', '')")
        app.commit()
        yield database


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_the_settings_of_the_desktop_app_count(tmp_path: Path, platform: str) -> None:
    models = make_store(tmp_path / "disk/models")
    with app_settings(tmp_path, str(models), platform) as database:
        pass
    assert find_store(desktop(tmp_path, platform), None) == StoreChoice(models, "desktop-app", str(database))


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_the_settings_of_a_running_app_count(tmp_path: Path, journal: str) -> None:
    models = make_store(tmp_path / "disk/models")
    with app_settings(tmp_path, str(models), journal=journal):
        assert find_store(desktop(tmp_path), None).path == models


def test_what_a_running_app_has_only_in_its_log_counts(tmp_path: Path) -> None:
    before, after = make_store(tmp_path / "before"), make_store(tmp_path / "after")
    with app_settings(tmp_path, str(before)) as database, closing(sqlite3.connect(database)) as app:
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        app.execute("UPDATE settings SET models = ? WHERE id = 1", (str(after),))
        app.commit()
        assert str(after).encode() not in database.read_bytes()
        assert find_store(desktop(tmp_path), None).path == after


def test_reading_the_settings_leaves_the_folder_of_the_app_as_it_was(tmp_path: Path) -> None:
    with app_settings(tmp_path, str(make_store(tmp_path / "models"))) as database:
        pass
    before = {file.name: file.read_bytes() for file in database.parent.iterdir()}
    assert find_store(desktop(tmp_path), None).reason == "desktop-app"
    assert {file.name: file.read_bytes() for file in database.parent.iterdir()} == before


def test_a_home_with_marks_of_an_address_is_no_obstacle(tmp_path: Path) -> None:
    root = tmp_path / "50%20 #1?mode=rwc"
    with app_settings(root, str(make_store(root / "models"))):
        pass
    assert find_store(desktop(root), None).path == root / "models"


@pytest.mark.parametrize(
    "models",
    ["", None, 7, b"/bytes", "/no/such/directory", "/nul\0"],
    ids=["empty", "null", "a number", "bytes", "a directory that is gone", "a NUL"],
)
def test_settings_without_an_existing_directory_do_not_count(tmp_path: Path, models: object) -> None:
    with app_settings(tmp_path, models):
        assert find_store(desktop(tmp_path), None).reason == "default"


@pytest.mark.parametrize(
    ("over", "reason"), [(0, "desktop-app"), (1, "default")], ids=["at the bound", "one character over"]
)
def test_a_setting_over_the_bound_does_not_count(tmp_path: Path, over: int, reason: str) -> None:
    models = str(make_store(tmp_path / "models"))
    with app_settings(tmp_path, models + "/" * (MAX_SETTING_CHARACTERS - len(models) + over)):
        assert find_store(desktop(tmp_path), None).reason == reason


@pytest.mark.parametrize(
    "content",
    [None, b"", b"not a database", b"SQLite format 3\0" + bytes(2000)],
    ids=["missing", "empty", "other bytes", "a header and no more"],
)
def test_a_broken_database_of_the_app_does_not_count(tmp_path: Path, content: bytes | None) -> None:
    folder = tmp_path / APP_FOLDER["darwin"]
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "db.sqlite").write_bytes(content)
    assert find_store(desktop(tmp_path), None).reason == "default"


def test_a_database_of_another_shape_does_not_count(tmp_path: Path) -> None:
    (tmp_path / APP_FOLDER["darwin"]).mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / APP_FOLDER["darwin"] / "db.sqlite")) as app:
        app.execute("CREATE TABLE settings (id INTEGER PRIMARY KEY)")
        app.commit()
    assert find_store(desktop(tmp_path), None).reason == "default"


def test_a_locked_database_of_the_app_does_not_count(tmp_path: Path) -> None:
    models = make_store(tmp_path / "models")
    with app_settings(tmp_path, str(models)) as database:
        pass
    with closing(sqlite3.connect(database)) as app:
        app.execute("PRAGMA locking_mode=EXCLUSIVE")
        app.execute("UPDATE settings SET other = 'x'")
        app.commit()
        assert find_store(desktop(tmp_path), None).reason == "default"
    assert find_store(desktop(tmp_path), None).path == models


def test_the_app_counts_where_there_is_one(tmp_path: Path) -> None:
    with app_settings(tmp_path, str(make_store(tmp_path / "models"))):
        pass
    assert find_store(machine(tmp_path), None).reason == "default"
    assert find_store(machine(tmp_path, platform="win32"), None).reason == "default"


def test_the_variable_beats_the_desktop_app(tmp_path: Path) -> None:
    with app_settings(tmp_path, str(make_store(tmp_path / "models"))):
        pass
    here = machine(tmp_path, platform="darwin", environ={"OLLAMA_MODELS": "/variable"})
    assert find_store(here, None).reason == "environment"


# --- the default ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32", "freebsd14"])
def test_nobody_says_anything_and_the_home_directory_is_left(tmp_path: Path, platform: str) -> None:
    expected = StoreChoice(tmp_path / "home/me/.ollama/models", "default", "home directory")
    assert find_store(machine(tmp_path, platform=platform), None) == expected


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_without_a_home_there_is_no_store_and_the_error_says_what_would_help(tmp_path: Path, platform: str) -> None:
    with pytest.raises(NotFoundError, match=r"OLLAMA_MODELS.*ollama\.service.*home") as caught:
        find_store(machine(tmp_path, platform=platform, home=None), None)
    assert "models=DIR" in str(caught.value.hint)


def test_without_a_home_the_other_rules_still_hold(tmp_path: Path) -> None:
    homeless = machine(tmp_path, home=None, environ={"OLLAMA_MODELS": "/variable"})
    assert find_store(homeless, None).path == Path("/variable")
    assert find_store(homeless, Path("/flag")).path == Path("/flag")


def test_without_an_answer_about_users_a_service_has_no_home(tmp_path: Path) -> None:
    write_unit(tmp_path, "User=ollama")
    here = Surroundings({}, "linux", tmp_path / "home", tmp_path, tmp_path)
    assert find_store(here, None).reason == "default"


# --- other stores ---------------------------------------------------------------------------------------------------


def others(here: Surroundings, flag: Path | None = None) -> dict[Path, str]:
    return {store.path: store.why for store in other_stores(here, find_store(here, flag))}


def test_a_machine_with_one_store_has_no_others(tmp_path: Path) -> None:
    make_store(tmp_path / "home/me/.ollama/models")
    assert other_stores(machine(tmp_path), find_store(machine(tmp_path), None)) == ()


def test_what_another_rule_would_have_chosen_is_listed_with_its_reason(tmp_path: Path) -> None:
    by_unit, by_variable = make_store(tmp_path / "unit"), make_store(tmp_path / "variable")
    unit = write_unit(tmp_path, f"User=ollama\nEnvironment=OLLAMA_MODELS={by_unit.as_posix()}")
    of_user = make_store(tmp_path / "usr/share/ollama/.ollama/models")
    at_home = make_store(tmp_path / "home/me/.ollama/models")
    here = machine(tmp_path, environ={"OLLAMA_MODELS": str(by_variable)})
    assert other_stores(here, find_store(here, Path("flag"))) == (
        FoundStore(by_variable, "OLLAMA_MODELS"),
        FoundStore(by_unit, str(unit)),
        FoundStore(of_user, str(unit)),
        FoundStore(at_home, "home directory"),
    )


def test_the_directory_of_the_desktop_app_is_listed(tmp_path: Path) -> None:
    models = make_store(tmp_path / "models")
    with app_settings(tmp_path, str(models)) as database:
        pass
    assert others(desktop(tmp_path), Path("flag")) == {models: str(database)}


@pytest.mark.parametrize(
    "place",
    [
        "usr/share/ollama/.ollama/models",
        "var/lib/ollama",
        "var/lib/ollama/models",
        "var/lib/ollama/.ollama/models",
        "root/.ollama/models",
        "var/root/.ollama/models",
        "var/snap/ollama/common/models",
        "opt/homebrew/var/ollama/models",
        "usr/local/var/ollama/models",
        "home/me/.var/app/com.jeffser.Alpaca/data/.ollama/models",
    ],
)
def test_a_store_in_a_known_place_is_listed(tmp_path: Path, place: str) -> None:
    store = make_store(tmp_path / place)
    assert list(others(machine(tmp_path))) == [store]


@pytest.mark.parametrize(
    ("inside", "listed"),
    [("blobs", True), ("manifests", True), ("", False), ("other", False)],
    ids=["blobs", "manifests", "empty", "something else"],
)
def test_a_directory_is_listed_if_it_looks_like_a_store(tmp_path: Path, inside: str, listed: bool) -> None:
    (tmp_path / "var/lib/ollama" / inside).mkdir(parents=True)
    assert bool(others(machine(tmp_path))) == listed


def test_a_file_named_blobs_makes_no_store(tmp_path: Path) -> None:
    write(tmp_path / "var/lib/ollama/blobs", "")
    assert others(machine(tmp_path)) == {}


@only_with_symlinks_and_pipes
def test_one_directory_under_two_names_is_listed_once(tmp_path: Path) -> None:
    make_store(tmp_path / "usr/share/ollama/.ollama/models")
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/ollama").symlink_to(tmp_path / "usr/share/ollama")
    assert list(others(machine(tmp_path))) == [tmp_path / "usr/share/ollama/.ollama/models"]


@only_with_symlinks_and_pipes
def test_the_chosen_store_is_not_another_under_any_name(tmp_path: Path) -> None:
    make_store(tmp_path / "var/lib/ollama/models")
    (tmp_path / "mine").symlink_to(tmp_path / "var/lib/ollama/models")
    assert others(machine(tmp_path), tmp_path / "mine") == {}
    assert list(others(machine(tmp_path), tmp_path / "elsewhere")) == [tmp_path / "var/lib/ollama/models"]


@only_where_modes_bind
def test_a_closed_directory_is_passed_over(tmp_path: Path) -> None:
    make_store(tmp_path / "usr/share/ollama/.ollama/models")
    (tmp_path / "usr/share/ollama").chmod(0)
    try:
        assert others(machine(tmp_path)) == {}
        write_unit(tmp_path, "User=ollama")
        assert find_store(machine(tmp_path), None).reason == "default"
    finally:
        (tmp_path / "usr/share/ollama").chmod(0o755)


def test_without_a_home_the_known_places_are_listed_all_the_same(tmp_path: Path) -> None:
    store = make_store(tmp_path / "var/lib/ollama/models")
    assert list(others(machine(tmp_path, home=None), Path("flag"))) == [store]


def test_on_windows_no_store_is_looked_for_where_linux_has_them(tmp_path: Path) -> None:
    found = machine(tmp_path, platform="win32")
    assert other_stores(found, find_store(found, None)) == ()


def test_nothing_is_doubtful_about_a_setting_that_is_empty() -> None:
    assert doubts_of_setting("", "linux") == ()
