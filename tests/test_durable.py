"""A disk is changed by single names below an open directory, completely, and with the owner and mode asked for."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ostore.formats.errors import DamagedStoreError, UnsafeError
from ostore.streams import durable, writing
from ostore.streams.durable import Directory, DurabilityWarning, remove_tree, sync_file
from ostore.streams.extents import share_extents
from ostore.streams.owners import Ownership, User, current_user
from ostore.streams.writing import GrowingFile, write_all, write_file
from tests.support import noise, tree

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX system")
root_only = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give a file to another user"
)


@pytest.fixture(params=["handles", "paths"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By handles, as on POSIX, and by full paths, as on Windows."""
    if request.param == "paths":
        monkeypatch.setattr(durable, "HAS_DIRECTORY_HANDLES", False)
    elif not durable.HAS_DIRECTORY_HANDLES:
        pytest.skip("no directory handles here")


@pytest.fixture
def directory(_way: None, tmp_path: Path) -> Iterator[Directory]:
    path = tmp_path / "folder"
    path.mkdir()
    with Directory.open(path) as opened:
        yield opened


@pytest.fixture
def other(_way: None, tmp_path: Path) -> Iterator[Directory]:
    (tmp_path / "other").mkdir()
    with Directory.open(tmp_path / "other") as opened:
        yield opened


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mine(directory_mode: int = 0o755) -> Ownership:
    return Ownership(*(current_user() or User(0, 0)), directory_mode)


def descriptors_of(path: Path) -> list[int]:
    """Which descriptors of this process lead to a path. Linux only."""
    return [int(fd.name) for fd in Path("/proc/self/fd").iterdir() if os.path.lexists(fd) and fd.readlink() == path]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


NAME_TAKERS: dict[str, Callable[[Directory, str], object]] = {
    "lstat": lambda directory, name: directory.lstat(name),
    "child": lambda directory, name: directory.child(name).close(),
    "make_child": lambda directory, name: directory.make_child(name, mine()).close(),
    "create": lambda directory, name: directory.create(name),
    "open_or_create": lambda directory, name: directory.open_or_create(name, 0o600, writable=True),
    "open_file": lambda directory, name: directory.open_file(name),
    "rename from": lambda directory, name: directory.rename(name, directory, "new"),
    "rename to": lambda directory, name: directory.rename("there", directory, name),
    "link from": lambda directory, name: directory.link(name, directory, "new"),
    "link to": lambda directory, name: directory.link("there", directory, name),
    "touch": lambda directory, name: directory.touch(name),
    "unlink": lambda directory, name: directory.unlink(name),
    "rmdir": lambda directory, name: directory.rmdir(name),
    "write_file": lambda directory, name: write_file(directory, name, [b"x"], mine()),
    "remove_tree": remove_tree,
}


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "inner/file", "/etc", "inner/"])
@pytest.mark.parametrize("use", NAME_TAKERS.values(), ids=NAME_TAKERS.keys())
def test_a_name_of_more_than_one_component_is_refused(
    directory: Directory, tmp_path: Path, use: Callable[[Directory, str], object], name: str
) -> None:
    (directory.path / "there").write_bytes(b"data")
    (directory.path / "inner").mkdir()
    (directory.path / "inner" / "file").write_bytes(b"inner")
    (tmp_path / "outside").write_bytes(b"outside")
    before = tree(tmp_path)
    # Windows has more separators, and says of each name what is wrong with it.
    with pytest.raises((ValueError, UnsafeError)):
        use(directory, name)
    assert tree(tmp_path) == before


def test_a_file_that_is_there_is_never_created_over(directory: Directory) -> None:
    target = directory.path / "file"
    target.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        directory.create("file")
    with pytest.raises(FileExistsError):
        write_file(directory, "file", [b"new"], mine())
    assert target.read_bytes() == b"old"


@posix_only
@pytest.mark.parametrize("target", ["target", "absent"])
def test_a_file_is_never_created_through_a_link(directory: Directory, tmp_path: Path, target: str) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (directory.path / "link").symlink_to(tmp_path / target)
    with pytest.raises(FileExistsError):
        directory.create("link")
    with pytest.raises(UnsafeError, match="a link; expected a file of ours"):
        directory.open_or_create("link", 0o600, writable=True)
    assert (tmp_path / "target").read_bytes() == b"old"
    assert not (tmp_path / "absent").exists()


@posix_only
def test_a_created_file_is_private_until_it_is_given(directory: Directory) -> None:
    with umask(0):
        os.close(directory.create("file"))
    assert mode_of(directory.path / "file") == 0o600


def test_opening_or_creating_says_which_it_was(directory: Directory) -> None:
    fd, created = directory.open_or_create("lock", 0o644, writable=False)
    os.close(fd)
    assert created
    (directory.path / "lock").write_bytes(b"kept")
    fd, created = directory.open_or_create("lock", 0o644, writable=True)
    assert not created
    assert os.read(fd, 10) == b"kept"
    os.write(fd, b"!")
    os.close(fd)
    assert (directory.path / "lock").read_bytes() == b"kept!"


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        # A socket's path is limited to about 100 bytes, and a test's folder may be deeper.
        here = Path.cwd()
        os.chdir(path.parent)
        made.bind(path.name)
        os.chdir(here)


@posix_only
@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        make_fifo,
        make_socket,
        lambda path: path.symlink_to("/etc/passwd"),
        lambda path: path.symlink_to("absent"),
        lambda path: path.symlink_to(path.name),
    ],
    ids=["directory", "FIFO that nobody writes", "socket", "link", "dangling link", "link to itself"],
)
def test_only_a_regular_file_is_opened_for_reading(directory: Directory, make: Callable[[Path], object]) -> None:
    make(directory.path / "entry")
    with pytest.raises(DamagedStoreError, match="expected a regular file"):
        directory.open_file("entry")


def test_a_file_that_is_not_there_is_told_as_such(directory: Directory) -> None:
    with pytest.raises(FileNotFoundError):
        directory.open_file("absent")
    assert directory.lstat("absent") is None
    directory.unlink("absent")


def test_a_file_is_read_as_it_is(directory: Directory) -> None:
    (directory.path / "file").write_bytes(b"\r\n\x1a data")
    fd = directory.open_file("file")
    assert os.read(fd, 100) == b"\r\n\x1a data"
    os.close(fd)


@posix_only
def test_a_child_is_not_opened_through_a_link(directory: Directory, other: Directory) -> None:
    (directory.path / "link").symlink_to(other.path)
    with pytest.raises(NotADirectoryError):
        directory.child("link")
    with pytest.raises(NotADirectoryError):
        directory.make_child("link", mine())
    with pytest.raises(NotADirectoryError):
        remove_tree(directory, "link")


def test_what_is_no_directory_is_not_opened_as_one(directory: Directory) -> None:
    (directory.path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        directory.child("file")
    with pytest.raises(NotADirectoryError):
        Directory.open(directory.path / "file")


@pytest.mark.parametrize(
    "fails",
    [
        lambda directory: directory.child("absent"),
        lambda directory: directory.create("there"),
        lambda directory: directory.make_child("there", mine()),
        lambda directory: directory.child("there"),
    ],
)
def test_an_error_names_the_whole_path(directory: Directory, fails: Callable[[Directory], object]) -> None:
    (directory.path / "there").write_bytes(b"")
    with pytest.raises(OSError, match=r"absent|there") as raised:
        fails(directory)
    assert Path(raised.value.filename).parent == directory.path


@posix_only
def test_a_folder_that_cannot_be_made_is_named_whole(directory: Directory) -> None:
    directory.path.rmdir()
    for make in (
        lambda: directory.make_child("trash", mine()),
        lambda: directory.open_or_create("trash", 0o644, writable=True),
    ):
        with pytest.raises(FileNotFoundError) as raised:
            make()
        assert raised.value.filename == str(directory.path / "trash")


def test_a_child_is_made_once_and_opened_after(directory: Directory) -> None:
    for _ in range(2):
        with directory.make_child("child", mine()) as child:
            assert child.path == directory.path / "child"
            assert child.names() == []
    with directory.child("child") as child, pytest.raises(FileNotFoundError):
        child.child("absent")


@posix_only
def test_a_rename_goes_over_what_is_there_and_across_directories(directory: Directory, other: Directory) -> None:
    write_file(directory, "new", [b"new"], mine())
    write_file(other, "old", [b"old"], mine())
    directory.rename("new", other, "old")
    assert directory.names() == []
    assert (other.path / "old").read_bytes() == b"new"
    with pytest.raises(FileNotFoundError):
        directory.rename("absent", other, "old")
    assert (other.path / "old").read_bytes() == b"new"


def test_a_link_is_a_second_name_and_never_replaces_one(directory: Directory, other: Directory) -> None:
    write_file(directory, "blob", [b"data"], mine())
    assert directory.link("blob", other, "pin")
    assert (other.path / "pin").samefile(directory.path / "blob")
    with pytest.raises(FileExistsError):
        directory.link("blob", other, "pin")
    with pytest.raises(FileNotFoundError):
        directory.link("absent", other, "new")


@posix_only
def test_where_hard_links_are_not_allowed_the_answer_is_no(directory: Directory) -> None:
    # A directory cannot have a second name: the same EPERM that a FAT disk gives for a file.
    (directory.path / "folder").mkdir()
    assert directory.link("folder", directory, "second") is False
    assert directory.names() == ["folder"]


@posix_only
def test_the_link_itself_gets_a_second_name_not_what_it_points_to(directory: Directory, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    (directory.path / "link").symlink_to(tmp_path / "secret")
    assert directory.link("link", directory, "second")
    assert (directory.path / "second").is_symlink()
    assert (tmp_path / "secret").stat().st_nlink == 1


def test_touching_sets_the_times_to_now(directory: Directory) -> None:
    target = directory.path / "file"
    target.write_bytes(b"")
    os.utime(target, (0, 0))
    directory.touch("file")
    assert target.stat().st_mtime > 1_000_000_000
    with pytest.raises(FileNotFoundError):
        directory.touch("absent")


@pytest.mark.parametrize(
    ("entries", "is_gone"), [((), True), (("file",), False)], ids=["an empty one goes", "another stays"]
)
def test_only_an_empty_directory_is_removed(directory: Directory, entries: tuple[str, ...], is_gone: bool) -> None:
    (directory.path / "child").mkdir()
    for entry in entries:
        (directory.path / "child" / entry).write_bytes(b"")
    assert directory.rmdir("child") is is_gone
    assert (directory.path / "child").exists() is not is_gone


def test_removing_what_is_gone_already_is_no_error(directory: Directory) -> None:
    assert directory.rmdir("absent") is False
    directory.unlink("absent")


def test_a_tree_goes_except_for_what_shall_stay(directory: Directory) -> None:
    for name in ("a.part", "keep", "m/b.part"):
        path = directory.path / "tx" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert remove_tree(directory, "tx", when=lambda name: name.endswith(".part")) is False
    assert set(tree(directory.path)) == {"tx", "tx/keep"}
    assert remove_tree(directory, "tx") is True
    assert directory.names() == []


@posix_only
def test_a_tree_is_removed_without_following_a_link_in_it(directory: Directory, other: Directory) -> None:
    (other.path / "file").write_bytes(b"precious")
    (directory.path / "tx").mkdir()
    (directory.path / "tx" / "link").symlink_to(other.path)
    assert remove_tree(directory, "tx") is True
    assert (other.path / "file").read_bytes() == b"precious"


def test_names_are_sorted(directory: Directory) -> None:
    for name in ("b", "a", "C"):
        (directory.path / name).write_bytes(b"")
    assert directory.names() == ["C", "a", "b"]


@posix_only
def test_a_directory_that_is_moved_away_stays_the_one_that_was_opened(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "elsewhere").mkdir()
    with Directory.open(tmp_path / "real") as directory:
        (tmp_path / "real").rename(tmp_path / "moved")
        (tmp_path / "real").symlink_to(tmp_path / "elsewhere")
        write_file(directory, "blob", [b"data"], mine())
    assert (tmp_path / "moved" / "blob").read_bytes() == b"data"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_directory_is_closed_once_and_may_be_closed_again(directory: Directory) -> None:
    child = directory.make_child("child", mine())
    if sys.platform == "linux":
        assert bool(descriptors_of(child.path)) is durable.HAS_DIRECTORY_HANDLES
    child.close()
    child.close()
    if sys.platform == "linux":
        assert descriptors_of(child.path) == []


@posix_only
@pytest.mark.parametrize("mask", [0, 0o022, 0o077], ids=["000", "022", "077"])
def test_neither_files_nor_directories_depend_on_the_umask(tmp_path: Path, mask: int) -> None:
    with Directory.open(tmp_path) as directory, umask(mask):
        write_file(directory, "blob", [b"data"], mine())
        directory.make_child("shared", mine(0o2775)).close()
        directory.make_child("private", mine(0o700)).close()
    assert mode_of(tmp_path / "blob") == 0o644
    assert mode_of(tmp_path / "shared") == 0o2775
    assert mode_of(tmp_path / "private") == 0o700


@posix_only
def test_the_mode_of_a_directory_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "child").mkdir()
    (tmp_path / "child").chmod(0o750)
    with Directory.open(tmp_path) as directory:
        directory.make_child("child", mine(0o777)).close()
    assert mode_of(tmp_path / "child") == 0o750


@posix_only
def test_ownership_is_read_from_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs").chmod(0o2750)
    with Directory.open(tmp_path / "blobs") as directory:
        assert directory.ownership == mine(0o2750)


@root_only
def test_root_gives_what_it_creates_to_the_owner_of_the_store(tmp_path: Path) -> None:
    with Directory.open(tmp_path) as directory, umask(0o077):
        write_file(directory, "blob", [b"data"], Ownership(4242, 4343, 0o755))
        directory.make_child("child", Ownership(4242, 4343, 0o755)).close()
    for name, mode in (("blob", 0o644), ("child", 0o755)):
        status = (tmp_path / name).stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4242, 4343, mode)


WITHOUT_ROOT = """
import os, sys
from pathlib import Path
from ostore.streams.durable import Directory
from ostore.streams.owners import Ownership
from ostore.streams.writing import write_file
with Directory.open(Path(sys.argv[1])) as directory:
    os.setgroups([4343]); os.setgid(4444); os.setuid(4242)
    write_file(directory, "of the group", [b"x"], Ownership(5555, 4343, 0o755))
    write_file(directory, "of a stranger", [b"x"], Ownership(5555, 6666, 0o755))
    directory.touch("of root")
"""


@root_only
def test_who_is_not_root_gives_to_a_group_of_his_and_keeps_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "of root").write_bytes(b"")
    made = subprocess.run([sys.executable, "-c", WITHOUT_ROOT, folder], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    for name, group in (("of the group", 4343), ("of a stranger", 4444)):
        status = (folder / name).stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4242, group, 0o644)


@pytest.mark.parametrize(
    "buffers",
    [[], [b""], [b"a"], [b"a", b"", b"b"], [memoryview(b"abc")[1:], b"d"], [b"%d," % number for number in range(2000)]],
    ids=["none", "empty", "one", "with an empty one", "view", "more than a call takes"],
)
def test_all_buffers_are_written_in_order(tmp_path: Path, buffers: list[bytes | memoryview]) -> None:
    with (tmp_path / "file").open("wb") as file:
        assert write_all(file.fileno(), buffers) == sum(map(len, buffers))
    assert (tmp_path / "file").read_bytes() == b"".join(buffers)


def test_all_buffers_are_written_where_one_call_takes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "writev", raising=False)
    with (tmp_path / "file").open("wb") as file:
        assert write_all(file.fileno(), [b"a" * 10, b"b", b"c" * 1000]) == 1011
    assert (tmp_path / "file").read_bytes() == b"a" * 10 + b"b" + b"c" * 1000


@posix_only
def test_a_pipe_that_takes_less_than_it_is_given_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # A signal that arrives while a pipe is full makes writev return what it has written so far.
    asked: list[int] = []
    written: list[int] = []
    real = os.writev

    def noted(fd: int, views: list[memoryview]) -> int:
        asked.append(sum(map(len, views)))
        written.append(real(fd, views))
        return written[-1]

    monkeypatch.setattr(os, "writev", noted)
    parts = [noise(size, size) for size in (700_001, 1, 299_999, 500_000)]
    read_end, write_end = os.pipe()
    read: list[bytes] = []

    def drain() -> None:
        while data := os.read(read_end, 5000):
            read.append(data)
            threading.Event().wait(0.0005)

    thread = threading.Thread(target=drain)
    thread.start()
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        assert write_all(write_end, parts) == 1_500_001
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(write_end)
        thread.join()
        os.close(read_end)
    assert b"".join(read) == b"".join(parts)
    assert any(took < gave for took, gave in zip(written, asked, strict=True))


FILE_LIMIT = """
import resource, sys
from pathlib import Path
from ostore.streams.durable import Directory
from ostore.streams.owners import Ownership, current_user
from ostore.streams.writing import write_file
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
with Directory.open(Path(sys.argv[1])) as directory:
    try:
        write_file(directory, "file", [b"x" * 6000, b"y" * 6000], Ownership(*current_user(), 0o755))
    except OSError as error:
        print(error.errno)
"""


@posix_only
def test_a_file_that_may_not_grow_further_is_an_error_not_a_short_file(tmp_path: Path) -> None:
    made = subprocess.run([sys.executable, "-c", FILE_LIMIT, tmp_path], capture_output=True, text=True, check=False)
    assert made.stdout == f"{errno.EFBIG}\n", made.stderr
    # The first write past the limit was short, and the rest of it was tried and refused.
    assert (tmp_path / "file").stat().st_size == 10_000


@posix_only
@pytest.mark.filterwarnings("always::ostore.streams.durable.DurabilityWarning")
def test_where_nothing_can_be_synced_there_is_a_warning() -> None:
    read_end, write_end = os.pipe()
    with pytest.warns(DurabilityWarning, match="durability is not available"):
        sync_file(write_end)
    os.close(read_end)
    os.close(write_end)


@posix_only
def test_on_macos_a_disk_that_has_only_the_ordinary_sync_gets_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux knows no F_FULLFSYNC either, so that it answers as such a disk does."""
    synced: list[int] = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "fsync", synced.append)
    with (tmp_path / "file").open("wb") as file:
        sync_file(file.fileno())
        assert synced == [file.fileno()]


def test_what_another_program_wrote_is_put_on_the_disk(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory.path / "file").write_bytes(b"x")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    directory.sync_entry("file")
    assert len(synced) == 1


@posix_only
def test_a_rename_that_is_not_allowed_is_an_error_at_once(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def refused(*arguments: object, **fields: object) -> None:
        calls.append(arguments)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError):
        directory.rename("a", directory, "b")
    assert len(calls) == 1


@posix_only
@pytest.mark.parametrize(("code", "is_told"), [(errno.EPERM, False), (errno.EIO, True)], ids=["EPERM", "EIO"])
def test_a_disk_without_modes_takes_files_and_one_that_fails_is_told_of(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, code: int, is_told: bool
) -> None:
    def refused(fd: int, mode: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fchmod", refused)
    with pytest.raises(OSError, match="Errno 5") if is_told else contextlib.nullcontext():
        write_file(directory, "file", [b"x"], mine())


def test_a_folder_where_a_lock_should_be_is_no_lock(directory: Directory) -> None:
    (directory.path / "lock").mkdir()
    with pytest.raises((OSError, DamagedStoreError), match="lock"):
        directory.open_or_create("lock", 0o600, writable=True)


def test_a_failed_sync_is_an_error_and_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def failing(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "fsync", failing)
    with Directory.open(tmp_path) as directory, pytest.raises(OSError, match=r"\[Errno 5\]"):
        write_file(directory, "file", [b"x"], mine())
    assert len(calls) == 1


@posix_only
def test_making_a_directory_and_syncing_one_reach_the_disk(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(durable, "sync_file", synced.append)
    directory.make_child("child", mine()).close()
    directory.sync()
    assert synced == descriptors_of(directory.path) * 2


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs posix_fadvise")
def test_a_growing_file_sets_out_for_the_disk_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the call is watched: how much the kernel has written cannot be asked for one file."""
    monkeypatch.setattr(writing, "_EARLY_BYTES", 1000)
    started: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, offset, size, _advice: started.append((offset, size)))
    with (tmp_path / "blob").open("wb", buffering=0) as file:
        file.write(b"head")
        growing = GrowingFile(file.fileno())
        for _ in range(5):
            growing.write((b"x" * 600,))
    assert started == [(4, 1200), (1204, 1200)]
    assert (tmp_path / "blob").read_bytes() == b"head" + b"x" * 3000


def test_a_growing_file_is_on_the_disk_once_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(writing, "sync_file", synced.append)
    with (tmp_path / "blob").open("wb", buffering=0) as file:
        growing = GrowingFile(file.fileno())
        growing.write((b"x",))
        assert synced == []
        growing.sync()
        assert synced == [file.fileno()]


def test_a_pipe_is_written_to_and_nothing_more() -> None:
    reading, filling = os.pipe()
    growing = GrowingFile(filling)
    assert growing.write((b"through ", b"a pipe")) == 14
    growing.sync()
    assert os.read(reading, 100) == b"through a pipe"
    os.close(reading)
    os.close(filling)


def test_where_the_system_is_not_linux_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        share_extents(0, 0, 0, 0)
