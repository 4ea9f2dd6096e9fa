"""
Restore the models of an ostore bundle on a machine that has Python but no ostore.

Every bundle contains this file, because an offline machine may have no way to install ostore. Plain `tar` restores a
bundle too, but it checks nothing. This program checks every byte against the bundle's index. It publishes a model, that
is, makes it visible to Ollama, only when all blobs of the model are complete and on the disk.

    python3 restore.py BUNDLE [--models DIR] [--replace]     into DIR, else $OLLAMA_MODELS, else ~/.ollama/models
    python3 restore.py BUNDLE --verify-only                  check the bundle, write nothing
    cat BUNDLE.[0-9]* | python3 restore.py -                 read volumes, or any other pipe

Run it as the owner of the store, or as root. As root, it gives new files to the owner of `blobs/`. It needs Python 3.9
or newer on a POSIX system; a `.tar.zst` bundle also needs the `zstd` program or Python 3.14. It checks no signatures.

If it fails, it takes back what it published. A damaged blob that it has replaced stays replaced. A power cut may leave
files in `.ostore/tx` beside `blobs/`, or in `manifests/.ostore-tmp`; they may be deleted.

The exit codes are those of ostore: 0 done, 2 usage, 3 not found, 4 wrong or missing bytes, 6 busy, 7 no space, 8 unsafe
name or member, 9 the disk failed, 10 the store is damaged, 12 not a bundle, 13 a limit was exceeded.
"""

from __future__ import annotations

import sys

# Python looks for modules in the script's own folder first, and any file may lie beside a bundle.
if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    sys.path.pop(0)

if sys.platform == "win32":
    print("restore: error: needs a POSIX system; on Windows use ostore, or tar as RESTORE.txt says", file=sys.stderr)
    raise SystemExit(2)

import argparse
import errno
import fcntl
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

FAILED, USAGE, NOT_FOUND, INTEGRITY, BUSY, NO_SPACE = 1, 2, 3, 4, 6, 7
UNSAFE, IO, DAMAGED, FORMAT, LIMIT, INTERRUPTED = 8, 9, 10, 12, 13, 130

CHUNK_BYTES = 1024 * 1024  # the most of a blob that is in memory at a time
BLOCK, NAME_BYTES = 512, 100  # the block and the name field of tar
MAX_PADDING = 1024 * 1024  # zero bytes after a plain tar: tar and dd fill up the last block of what they write
INDEX_PATH, SIGNATURE_PATH = "ostore/bundle.json", "ostore/bundle.json.sig"
MAX_INDEX_BYTES = 16 * 1024 * 1024
MAX_SIGNATURE_BYTES = 64 * 1024
MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_MEMBERS = 100_000
MAX_JSON_MARKS = 1_000_000  # commas and brackets; the largest index has about 600,000, and each takes some 60 bytes
MAX_LONG_NAME_BYTES = 1024
MAX_KEY_CHARACTERS = 255  # every key that this program reads is shorter
MAX_DIGITS = 20  # a 64-bit integer with its sign; Python takes minutes to convert a million digits
MAX_SIZE = 2**63 - 1
RECIPES = "recipes"  # what an index may need beyond version 1
MAX_BASES, MAX_STEPS, MAX_DEPTH = 64, 100_000, 8
MAX_HEAD_BYTES = 4 * 1024 * 1024
MAX_OCTAL_SIZE = 8**11 - 1
LOCK_SECONDS = 60.0

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
SEAL = (0x8F92EAB1).to_bytes(4, "little")  # ends zstd's seekable format (contrib/seekable_format of zstd)
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
FILE_PATH = re.compile(r"ostore/[A-Za-z0-9_][A-Za-z0-9._-]{0,90}")
# Ollama's types/model/name.go allows 350 characters for a host, but file names on disks have at most 255 bytes.
NAME = re.compile(
    r"([A-Za-z0-9_][A-Za-z0-9_.:-]{0,254})/([A-Za-z0-9_][A-Za-z0-9_-]{0,79})"
    r"/([A-Za-z0-9_][A-Za-z0-9_.-]{0,79}):([A-Za-z0-9_][A-Za-z0-9_.-]{0,79})"
)


class RestoreError(Exception):
    """An expected failure: its exit code, and one line that says why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Blob(NamedTuple):
    """The size and the SHA-256 (`hex`) that the index lists for a blob, a manifest or another file."""

    hex: str
    size: int

    @property
    def filename(self) -> str:
        return f"sha256-{self.hex}"


class Model(NamedTuple):
    name: str  # host/namespace/model:tag
    parts: tuple[str, ...]  # the four parts of the name
    manifest: Blob
    blobs: list[str]  # distinct; the config first, then the layers in the order of the manifest


class Made(NamedTuple):
    """A blob that a recipe makes of parts of other blobs, its bases. `stored` is the recipe in the bundle."""

    blob: Blob
    bases: list[str]
    stored: Blob


class Step(NamedTuple):
    """The next bytes of a blob: a range of the base with this number, or new bytes if that is -1."""

    base: int
    offset: int
    length: int


class Index(NamedTuple):
    models: list[Model]  # in the order of the bundle
    blobs: list[Blob]  # in the order of the bundle
    requires: list[Blob]  # not in the bundle; the store must have them
    files: list[tuple[str, Blob]]
    recipes: list[Made]  # in the order of the bundle
    members: dict[str, str]  # model -> name of its manifest in the bundle; if `tar` must not publish it, below ostore/

    @property
    def needed(self) -> set[str]:
        """The blobs that models need."""
        return {digest for model in self.models for digest in model.blobs}

    @property
    def arriving(self) -> list[Blob]:
        """The blobs that the bundle holds or makes."""
        return [*self.blobs, *(made.blob for made in self.recipes)]

    @property
    def sizes(self) -> dict[str, int]:
        return {blob.hex: blob.size for blob in (*self.arriving, *self.requires)}


# ---- the command -----------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Run the command line. Returns the exit code; prints at most one line on stderr."""
    os.umask(0o022)  # Ollama often runs as another user and must be able to read new files
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, interrupt)
    try:
        run(parse_arguments(arguments))
    except RestoreError as error:
        return complain(error.code, str(error))
    except OSError as error:
        code = NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else IO
        return complain(code, f"{error.strerror or error}" + (f": {error.filename!r}" if error.filename else ""))
    except KeyboardInterrupt:
        return complain(INTERRUPTED, "interrupted")
    except Exception as error:  # noqa: BLE001 - a traceback would not help an offline user
        return complain(LIMIT if isinstance(error, MemoryError) else FAILED, repr(error))
    return 0


def run(options: argparse.Namespace) -> None:
    with open_archive(options.bundle) as archive:
        index = read_index(archive)
        if options.verify_only:
            read_members(archive, index, None)
            outcome, where = {model.name: "verified" for model in index.models}, "nothing written"
        else:
            root = find_store(options.models)
            outcome, where = restore(archive, index, Store(root), replace=options.replace), str(root)
    size = sum(blob.size for blob in index.arriving)
    summary = f"{len(index.models)} models, {len(index.arriving)} blobs, {size} bytes -> {where}"
    report([*(f"{model.name}: {outcome[model.name]}" for model in index.models), summary])


def restore(archive: Archive, index: Index, store: Store, *, replace: bool) -> dict[str, str]:
    """Restore all models or none. Returns the outcome of each."""
    store.compare(index.models, replace=replace)
    present = {blob for blob in index.arriving if is_sound(store.blobs / blob.filename, blob)}
    needed = index.needed
    for blob in index.requires:
        # What recipes make tells whether their bases are right, so a blob that only they need is not hashed.
        if is_sound(store.blobs / blob.filename, blob, by_size=blob.hex not in needed):
            present.add(blob)
    building = bases_of(index, present)
    lacking = [
        f"sha256:{blob.hex}"
        for blob in index.requires
        if blob not in present and (blob.hex in needed or blob.hex in building)
    ]
    if lacking:
        raise RestoreError(NOT_FOUND, f"the bundle requires blobs that the store does not have: {' '.join(lacking)}")
    missing = [blob for blob in index.arriving if blob not in present]
    refuse_short_space(nearest(store.state), [*missing, *(model.manifest for model in index.models)])
    with open_inbox(store, present) as inbox:
        read_members(archive, index, inbox)
        return inbox.publish(index, replace=replace)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(prog="restore.py", description="Restore the models of an ostore bundle.", allow_abbrev=False)
    parser.add_argument("bundle", metavar="BUNDLE", help="a .tar.zst or .tar bundle; - is standard input")
    parser.add_argument("--models", metavar="DIR", help="the store (default: $OLLAMA_MODELS, else ~/.ollama/models)")
    parser.add_argument("--replace", action="store_true", help="replace models of the same name that differ")
    parser.add_argument("--verify-only", action="store_true", help="check the bundle, write nothing")
    return parser.parse_args(arguments)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RestoreError(USAGE, message)  # argparse would print several lines


def find_store(given: str | None) -> Path:
    """
    Find the store: the command line's, else that of $OLLAMA_MODELS, else the default.

    The variable is read as Ollama reads it (envconfig/config.go).
    """
    named = os.environ.get("OLLAMA_MODELS", "").strip().strip("\"'") if given is None else given
    if given == "":
        raise RestoreError(USAGE, "--models: expected a folder")
    root = Path(named).absolute() if named else Path.home() / ".ollama" / "models"
    if named and not root.parent.is_dir():
        raise RestoreError(NOT_FOUND, f"no such folder: {str(root.parent)!r}; is the disk mounted?")
    if os.path.lexists(root) and not root.is_dir():
        raise RestoreError(USAGE, f"not a folder: {str(root)!r}")
    return root


def interrupt(number: int, _frame: object) -> NoReturn:
    """Turn a signal into an exception, so that staged files are removed."""
    raise RestoreError(128 + number, "interrupted")


def report(lines: list[str]) -> None:
    """Print the result. If that fails, the models stay restored, but the exit code says that nobody saw the result."""
    try:
        say("\n".join(map(printable, lines)), sys.stdout)
    except OSError as error:
        sys.stdout = None  # else Python flushes it again at exit and ends with code 120
        raise RestoreError(IO, f"done, but the result could not be printed: {error.strerror}") from error


def complain(code: int, message: str) -> int:
    try:
        say(f"restore: error: {printable(message)}", sys.stderr)
    except OSError:
        sys.stderr = None  # for the same reason as in `report`
    return code


def say(text: str, stream: Any) -> None:  # noqa: ANN401 - None if it was closed before the start
    if stream is None:  # print would write to standard output instead, or silently to nowhere
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    print(text, file=stream, flush=True)


def printable(text: str) -> str:
    """Escape all but printable ASCII: a terminal may obey control characters, and a plain locale has only ASCII."""
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text)


# ---- the bundle's bytes ----------------------------------------------------------------------------------------------


@contextmanager
def open_archive(bundle: str) -> Iterator[Archive]:
    """Open a bundle. Its first bytes say whether it is zstd or plain tar; its name does not matter."""
    with ExitStack() as stack:
        file = stack.enter_context(open_bundle(bundle))
        source = Source(file)
        if not source.head:
            raise RestoreError(FORMAT, "not a bundle: empty")
        if not source.head.startswith(ZSTD_MAGIC):
            yield Archive(source.read, padding=MAX_PADDING)
            return
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):  # find a truncated bundle before reading all of it
            refuse_unsealed(os.pread(file.fileno(), 4, max(0, status.st_size - 4)))
        try:
            zstd = importlib.import_module("compression.zstd")
        except ImportError:
            program = ZstdProgram(source)
            stack.callback(program.close)
            yield Archive(program.read, program.finish)
            return
        decoder = stack.enter_context(zstd.ZstdFile(source, options={zstd.DecompressionParameter.window_log_max: 23}))
        yield Archive(decoder.read, lambda: refuse_unsealed(source.tail), (EOFError, zstd.ZstdError))


def open_bundle(bundle: str) -> FileIO:
    if bundle != "-":
        try:
            return open_regular(bundle, USAGE)
        except (FileNotFoundError, ValueError) as error:
            raise RestoreError(NOT_FOUND, f"no such bundle: {bundle!r}") from error
    if os.isatty(0):
        raise RestoreError(USAGE, "refusing to read a bundle from a terminal")
    # Unbuffered, because Python aborts at exit if a thread still waits for a buffered stdin.
    return os.fdopen(0, "rb", buffering=0, closefd=False)


def refuse_unsealed(tail: bytes) -> None:
    """Check the last bytes of the bundle. They end the seek table, so a bundle without them was cut off."""
    if tail != SEAL:
        raise RestoreError(INTEGRITY, "truncated: the end of the bundle is missing")


class Source:
    """The bytes of the bundle file or pipe. `head` is the first four bytes, `tail` the last four read so far."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self.head = self.tail = b""
        while missing := len(ZSTD_MAGIC) - len(self.head):
            if not (data := file.read(missing)):
                break
            self.head += data
        self._ahead = self.head

    def read(self, count: int) -> bytes:
        """Return at least one and at most `count` bytes, or none at the end."""
        data = self._ahead[:count] or self._file.read(count)
        self._ahead = self._ahead[count:]
        self.tail = (self.tail + data[-4:])[-4:]
        return data


class ZstdProgram:
    """Decompress with the zstd program. A thread writes its input, so that reading its output cannot block."""

    def __init__(self, source: Source) -> None:
        program = shutil.which("zstd")
        if program is None:
            raise RestoreError(USAGE, "a .tar.zst bundle needs the zstd program, or Python 3.14 or newer")
        self._source = source
        self._error: BaseException | None = None
        # The window of a bundle has at most 8 MiB. A hostile file may ask for 2 GiB.
        command = [program, "-dcq", "--memory=8MB"]
        pipe = subprocess.PIPE
        self._child: Any = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._feeder.start()

    def read(self, count: int) -> bytes:
        data: bytes = self._child.stdout.read(count)
        return data

    def finish(self) -> None:
        """Wait for zstd after the last byte, and raise the error of zstd or of the thread, if any."""
        status = self._child.wait()
        # zstd succeeds only at the end of its input. If it fails, the thread may wait for input without end.
        self._feeder.join(None if status == 0 else 1.0)
        if self._error is not None:
            raise self._error
        if status != 0:
            raise zstd_error(self._child.stderr.read(1000).decode("ascii", "replace"))
        refuse_unsealed(self._source.tail)

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        self._feeder.join(1.0)
        self._child.stdout.close()
        self._child.stderr.close()

    def _feed(self) -> None:
        try:
            with self._child.stdin as pipe:
                while data := self._source.read(CHUNK_BYTES):
                    pipe.write(data)
        except BrokenPipeError:
            pass  # zstd has failed; `finish` reads its exit status
        except (OSError, ValueError, MemoryError) as error:
            self._error = error


def zstd_error(said: str) -> RestoreError:
    return RestoreError(LIMIT if "too much memory" in said else INTEGRITY, f"zstd: {' '.join(said.split())}")


# ---- the bundle's members --------------------------------------------------------------------------------------------


class Archive:
    """
    The tar stream of a bundle. Its members are read in the order of the index.

    Python's tarfile is not used: it trusts headers, and crafted headers made it hang (CVE-2025-8194). This class only
    compares the name in a header with the index, and ignores mode, owner and time.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        finish: Callable[[], None] = lambda: None,
        zstd_errors: tuple[type[Exception], ...] = (),
        padding: int = 0,
    ) -> None:
        """
        `read` returns at most the given number of bytes, none at the end. `finish` checks the end of the bundle. Up to
        `padding` zero bytes may follow the archive.
        """
        self._read, self._finish, self._zstd_errors, self._padding = read, finish, zstd_errors, padding
        self._offset = 0
        self._ahead: tuple[str, int] | None = None
        self.known = {INDEX_PATH}

    def peek(self) -> tuple[str, int]:
        """Return the path and size of the next member, or ("", 0) at the end of the archive."""
        if self._ahead is None:
            self._ahead = self._next_member()
        return self._ahead

    def enter(self, path: str, *, limit: int = MAX_SIZE, size: int | None = None) -> int:
        """Enter the next member, which must have this path and size. Returns the size; the caller then reads `body`."""
        (found, found_size), self._ahead = self.peek(), None
        if found != path:
            self._refuse(found, found_size, path)
        if size not in (None, found_size):
            raise RestoreError(INTEGRITY, f"member {path!r}: expected {size} bytes, got {found_size}")
        if found_size > limit:
            raise RestoreError(LIMIT, f"member {path!r}: expected at most {limit} bytes, got {found_size}")
        self.known.discard(path)
        return found_size

    def body(self, size: int) -> Iterator[bytes]:
        """Yield the bytes of the member, in pieces."""
        for left in range(size, 0, -CHUNK_BYTES):
            yield self._exactly(min(left, CHUNK_BYTES))
        if any(self._exactly(-size % BLOCK)):
            raise RestoreError(FORMAT, f"tar: data in the padding before byte {self._offset}")

    def verified(self, path: str, blob: Blob) -> Iterator[bytes]:
        """Enter a member and yield its bytes. Raises after the last piece if their SHA-256 is not that of `blob`."""
        self.enter(path, size=blob.size)
        digest = hashlib.sha256()
        for piece in self.body(blob.size):
            digest.update(piece)
            yield piece
        if digest.hexdigest() != blob.hex:
            raise RestoreError(INTEGRITY, f"member {path!r}: expected sha256 {blob.hex}, got {digest.hexdigest()}")

    def close(self) -> None:
        """Check that the archive and the bundle end here."""
        path, _ = self.peek()
        if path:
            raise RestoreError(UNSAFE, f"member {path!r}: repeated, or not in the index")
        rest, end = self._exactly(BLOCK), self._offset + self._padding
        while rest:
            if any(rest) or self._offset > end:
                raise RestoreError(FORMAT, f"more data after the end of the archive, at byte {self._offset}")
            rest = self._some(BLOCK)
        self._finish()

    def _refuse(self, found: str, size: int, expected: str) -> NoReturn:
        early = found
        while found not in ("", expected):  # the loop ends, because it accepts each name once
            if found not in self.known:
                raise RestoreError(UNSAFE, f"member {found!r}: repeated, or not in the index")
            self.known.discard(found)
            drain(self.body(size))
            found, size = self._next_member()
        if not found:
            raise RestoreError(INTEGRITY, f"member {expected!r}: listed in the index, but not in the archive")
        raise RestoreError(FORMAT, f"member {early!r}: expected {expected!r} first")

    def _next_member(self) -> tuple[str, int]:
        kind, name, size = self._header()
        if kind == b"L":  # GNU tar: a name of more than 100 bytes; the next header has its first 100
            if size > MAX_LONG_NAME_BYTES:
                raise RestoreError(LIMIT, f"member name: expected at most {MAX_LONG_NAME_BYTES} bytes, got {size}")
            long_name = b"".join(self.body(size))
            kind, name, size = self._header()
            if name != long_name[:NAME_BYTES] or len(long_name) <= NAME_BYTES + 1 or long_name[-1:] != b"\0":
                raise RestoreError(UNSAFE, f"member {name!r}: the long name does not match the header")
            name = plain_name(long_name[:-1])
        if kind not in (b"0", b""):
            raise RestoreError(UNSAFE, f"member {name!r}: expected a regular file, got type {kind!r}")
        return name.decode("ascii"), size

    def _header(self) -> tuple[bytes, bytes, int]:
        """Read a header. Returns its type, name field and size; the type is empty for a block of zeros."""
        block = self._exactly(BLOCK)
        is_first = self._offset == BLOCK
        if not any(block) and not is_first:
            return b"", b"", 0
        if block[148:156] != b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * ord(" ")):
            what = "not a bundle: no tar header" if is_first else "tar: damaged header"
            raise RestoreError(FORMAT if is_first else INTEGRITY, f"{what} before byte {self._offset}")
        kind, name, number = block[156:157], plain_name(block[:NAME_BYTES].rstrip(b"\0")), block[124:136]
        if kind == b"0" and block[257:265] != b"ustar  \0":
            raise RestoreError(FORMAT, f"member {name!r}: expected a GNU tar header")
        if kind == b"0" and (any(block[157:257]) or any(block[345:])):
            raise RestoreError(UNSAFE, f"member {name!r}: expected no link target and no extension in its header")
        if re.fullmatch(rb"[0-7]{11}\0", number):
            return kind, name, int(number[:11], 8)
        size = int.from_bytes(number[1:], "big")  # base-256, for sizes of 8 GiB and more
        if number[:1] != b"\x80" or not MAX_OCTAL_SIZE < size <= MAX_SIZE:
            raise RestoreError(FORMAT, f"member {name!r}: invalid size {number!r}")
        return kind, name, size

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._some(count - len(data))
            if not more:
                self._finish()  # raises a more exact error, if there is one
                raise RestoreError(INTEGRITY, f"truncated at byte {self._offset} of the tar stream")
            data = data + more if data else more
        return data

    def _some(self, count: int) -> bytes:
        try:
            data = self._read(count)
        except self._zstd_errors as error:
            raise zstd_error(str(error)) from error
        self._offset += len(data)
        return data


def plain_name(name: bytes) -> bytes:
    if b"\0" in name or not name.isascii():
        raise RestoreError(UNSAFE, f"member {name!r:.120}: expected a name in ASCII")
    return name


def read_index(archive: Archive) -> Index:
    """Read the index, which is the first member, and tell the archive the names of all other members."""
    if archive.peek()[0] != INDEX_PATH:
        raise RestoreError(FORMAT, f"not a bundle: expected {INDEX_PATH!r} as its first member")
    index = parse_index(b"".join(archive.body(archive.enter(INDEX_PATH, limit=MAX_INDEX_BYTES))))
    archive.known.update(path for path, _ in index.files)
    archive.known.update(f"blobs/{blob.filename}" for blob in index.blobs)
    archive.known.update(recipe_path(made) for made in index.recipes)
    archive.known.update(index.members.values())
    return index


def read_members(archive: Archive, index: Index, inbox: Inbox | None) -> None:
    """Read and verify all members after the index. Blobs and manifests go to the inbox, if there is one."""
    if archive.peek()[0] == SIGNATURE_PATH:
        archive.known.add(SIGNATURE_PATH)
        drain(archive.body(archive.enter(SIGNATURE_PATH, limit=MAX_SIGNATURE_BYTES)))
    for path, file in index.files:
        drain(archive.verified(path, file))
    for blob in index.blobs:
        pieces = archive.verified(f"blobs/{blob.filename}", blob)
        if inbox is None or inbox.has(blob):
            drain(pieces)
        else:
            inbox.write_blob(blob, pieces)
    sizes = index.sizes
    for made in index.recipes:
        steps, new = open_recipe(made, archive.verified(recipe_path(made), made.stored), sizes)
        if inbox is None or inbox.has(made.blob):
            drain(new)
        else:
            inbox.write_blob(made.blob, follow(made, steps, new, [inbox.path_of(base) for base in made.bases], sizes))
    for model in index.models:
        raw = b"".join(archive.verified(index.members[model.name], model.manifest))
        check_manifest(raw, model, sizes)
        if inbox is not None:
            inbox.write_manifest(model, raw)
    archive.close()


def drain(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass


# ---- the index and the manifests -------------------------------------------------------------------------------------


def parse_index(raw: bytes) -> Index:
    value, rest = parse_json(raw, "index", is_strict=True)
    top = fields(value, "index")
    version = top.get("version")
    if rest or top.get("format") != "ostore-bundle" or type(version) is not int or version < 1:
        raise RestoreError(FORMAT, f"not a bundle: {INDEX_PATH!r} is not the index of an ostore bundle")
    if version > 1 or any(need != RECIPES for need in elements(top, "needs")):
        raise RestoreError(FORMAT, f"made by a newer ostore: version {version}, needs {top.get('needs')!r:.80}")
    if sum(len(elements(top, key)) for key in ("models", "blobs", RECIPES, "requires", "files")) > MAX_MEMBERS:
        raise RestoreError(LIMIT, f"index: expected at most {MAX_MEMBERS} members")
    blobs = [parse_blob(entry, "index: blobs") for entry in elements(top, "blobs")]
    requires = [parse_blob(entry, "index: requires") for entry in elements(top, "requires")]
    models = [parse_model(entry) for entry in elements(top, "models")]
    files = [parse_file(entry) for entry in elements(top, "files")]
    recipes = [parse_made(entry) for entry in elements(top, RECIPES)]
    if recipes and RECIPES not in elements(top, "needs"):
        raise RestoreError(FORMAT, f"index: expected {RECIPES!r} in needs, because there are recipes")
    made = [recipe.blob for recipe in recipes]
    refuse_repeats([blob.hex for blob in (*blobs, *requires, *made)])
    check_order(recipes, {blob.hex for blob in (*blobs, *requires)})
    refuse_repeats([model.name.lower() for model in models])  # Ollama and many disks ignore case
    refuse_repeats([INDEX_PATH, SIGNATURE_PATH, *(path for path, _ in files)])
    stored = sum(recipe.stored.size for recipe in recipes)
    if max(stored, sum(blob.size for blob in (*blobs, *requires, *made))) > MAX_SIZE:
        raise RestoreError(LIMIT, f"index: expected at most {MAX_SIZE} bytes of blobs")
    bases = {base for recipe in recipes for base in recipe.bases}.intersection(blob.hex for blob in requires)
    needed = {digest for model in models for digest in model.blobs}
    if {blob.hex for blob in (*blobs, *requires, *made)} != needed | bases:
        raise RestoreError(FORMAT, "index: expected exactly the blobs that its models need")
    elsewhere = {blob.hex for blob in (*requires, *made)}
    members = {
        model.name: "/".join(("manifests" if elsewhere.isdisjoint(model.blobs) else "ostore/manifests", *model.parts))
        for model in models
    }
    return Index(models, blobs, requires, files, recipes, members)


def parse_model(entry: object) -> Model:
    model = fields(entry, "index: models")
    name = model.get("name")
    match = NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise RestoreError(UNSAFE, f"index: expected host/namespace/model:tag, got {name!r:.90}")
    manifest = parse_blob(model.get("manifest"), f"index: manifest of {name}", MAX_MANIFEST_BYTES)
    blobs = [parse_digest(text, f"index: blobs of {name}") for text in elements(model, "blobs")]
    refuse_repeats(blobs)
    return Model(match[0], match.groups(), manifest, blobs)


def parse_made(entry: object) -> Made:
    recipe, blob = fields(entry, "index: recipes"), parse_blob(entry, "index: recipes")
    bases = [parse_digest(text, "index: bases") for text in elements(recipe, "bases")]
    if not 1 <= len(bases) <= MAX_BASES:
        raise RestoreError(LIMIT, f"index: expected 1 to {MAX_BASES} bases, got {len(bases)}")
    refuse_repeats(bases)
    stored = parse_blob(recipe.get("stored"), "index: stored", min(MAX_SIZE, blob.size + MAX_HEAD_BYTES))
    if not stored.size:
        raise RestoreError(LIMIT, "index: expected a recipe to have at least one byte")
    return Made(blob, bases, stored)


def check_order(recipes: list[Made], others: set[str]) -> None:
    """Refuse a recipe whose bases are not there when its turn comes, so there is no circle."""
    depths = dict.fromkeys(others, 0)
    for made in recipes:
        for base in made.bases:
            if base not in depths:
                raise RestoreError(FORMAT, f"index: base sha256:{base} is not listed before its recipe")
        depths[made.blob.hex] = 1 + max(depths[base] for base in made.bases)
        if depths[made.blob.hex] > MAX_DEPTH:
            raise RestoreError(LIMIT, f"index: expected at most {MAX_DEPTH} recipes on top of each other")


def bases_of(index: Index, present: set[Blob]) -> set[str]:
    """Return the blobs that are needed to make those that are missing."""
    found: set[str] = set()
    for made in reversed(index.recipes):  # a base that is made too has its recipe earlier
        if made.blob not in present:
            found.update(made.bases)
    return found


def parse_file(entry: object) -> tuple[str, Blob]:
    path = fields(entry, "index: files").get("path")
    if not isinstance(path, str) or FILE_PATH.fullmatch(path) is None:
        raise RestoreError(UNSAFE, f"index: expected ostore/NAME, got {path!r:.90}")
    return path, parse_blob(entry, f"index: {path}", MAX_FILE_BYTES)


def parse_blob(entry: object, what: str, limit: int = MAX_SIZE) -> Blob:
    blob = fields(entry, what)
    size = blob.get("size")
    if type(size) is not int or not 0 <= size <= MAX_SIZE:  # isinstance would accept a bool
        raise RestoreError(FORMAT, f"{what}: expected a size, got {size!r:.90}")
    if size > limit:
        raise RestoreError(LIMIT, f"{what}: expected at most {limit} bytes, got {size}")
    return Blob(parse_digest(blob.get("digest"), what), size)


def parse_digest(text: object, what: str) -> str:
    match = DIGEST.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise RestoreError(UNSAFE, f"{what}: expected 'sha256:' and 64 lower-case hex digits, got {text!r:.90}")
    return match[1]


def refuse_repeats(keys: list[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise RestoreError(UNSAFE, f"index: {key!r} occurs twice, perhaps in another case")
        seen.add(key)


def check_manifest(raw: bytes, model: Model, sizes: dict[str, int]) -> None:
    """Refuse a manifest that two programs could read differently, or that does not match the index."""
    what = f"manifest of {model.name}"
    value, rest = parse_json(raw, what)
    version = fields(value, what).get("schemaversion")
    if rest or type(version) is not int or version != 2:  # noqa: PLR2004 - the only version of manifests
        raise RestoreError(FORMAT, f"{what}: expected one JSON document of schemaVersion 2")
    needed = references(value, what)
    if list(dict.fromkeys(blob.hex for blob in needed)) != model.blobs:
        raise RestoreError(INTEGRITY, f"{what}: expected the blobs that the index lists, got others")
    if any(blob.size != sizes[blob.hex] for blob in needed):
        raise RestoreError(INTEGRITY, f"{what}: expected the blob sizes that the index lists, got others")


def references(value: object, what: str) -> list[Blob]:
    """Return the blobs that a manifest names. Ollama writes null or an empty digest if there is no config."""
    manifest = fields(value, what)
    if manifest.get("manifests"):
        raise RestoreError(UNSAFE, f"{what}: expected one manifest, got a list of manifests")
    config = manifest.get("config")
    has_config = config is not None and fields(config, what).get("digest") not in (None, "")
    layers = [] if manifest.get("layers") is None else elements(manifest, "layers")
    return [parse_blob(entry, what) for entry in (*([config] if has_config else []), *layers)]


TWINS = object()  # replaces a JSON object in which a key occurs twice


def fold(key: str) -> str:
    """
    Fold the case of a key as Go does when it compares keys.

    Go folds single characters: the long s equals an s, but a ligature equals no two letters.
    """
    if key.isascii():
        return key.lower()
    if len(key) > MAX_KEY_CHARACTERS:
        return key
    characters = [(character.casefold(), character) for character in key]
    return "".join(small if len(small) == 1 else character for small, character in characters)


def folded(pairs: list[tuple[str, Any]]) -> object:
    members = {fold(key): value for key, value in pairs}
    return members if len(members) == len(pairs) else TWINS


def exact(pairs: list[tuple[str, Any]]) -> object:
    if folded(pairs) is TWINS:
        raise RestoreError(UNSAFE, "index: a key occurs twice, perhaps in another case")
    return dict(pairs)


def integer(digits: str) -> object:
    return int(digits) if len(digits) <= MAX_DIGITS else digits


def short_integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("an integer of more than 64 bits")
    return int(digits)


# DECODER reads as Go does; STRICT_DECODER accepts what ostore writes. `int` raises for NaN, which is not JSON.
DECODER = json.JSONDecoder(object_pairs_hook=folded, parse_int=integer, parse_constant=int)
STRICT_DECODER = json.JSONDecoder(object_pairs_hook=exact, parse_int=short_integer, parse_constant=int)


def parse_json(raw: bytes, what: str, *, is_strict: bool = False) -> tuple[object, str]:
    """
    Return the first JSON value, and the text after it without white space around it.

    Strict parsing is for the index, which ostore writes. Manifests are parsed as Ollama does it.
    """
    try:
        text = raw.decode("utf-8", "strict" if is_strict else "replace").strip(" \t\r\n")
        if sum(map(text.count, ",[{")) > MAX_JSON_MARKS:
            raise RestoreError(LIMIT, f"{what}: expected at most {MAX_JSON_MARKS} JSON values")
        value, end = (STRICT_DECODER if is_strict else DECODER).raw_decode(text)
        if is_strict:  # Python reads a lone surrogate and 1e999, but cannot write them
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise RestoreError(LIMIT, f"{what}: JSON nested too deeply") from None
    except ValueError as error:
        raise RestoreError(FORMAT, f"{what}: not JSON: {error}") from error
    return value, text[end:]


def fields(value: object, what: str) -> dict[str, Any]:
    if value is TWINS:
        raise RestoreError(UNSAFE, f"{what}: a key occurs twice, perhaps in another case")
    if not isinstance(value, dict):
        raise RestoreError(FORMAT, f"{what}: expected a JSON object, got {value!r:.90}")
    return value


def elements(top: dict[str, Any], key: str) -> list[Any]:
    value = top.get(key, [])
    if not isinstance(value, list):
        raise RestoreError(FORMAT, f"{key}: expected a JSON array, got {value!r:.90}")
    return value


# ---- recipes ---------------------------------------------------------------------------------------------------------


def recipe_path(made: Made) -> str:
    return f"recipes/{made.blob.filename}"


def open_recipe(made: Made, stored: Iterator[bytes], sizes: dict[str, int]) -> tuple[list[Step], Iterator[bytes]]:
    """Read the first line of a recipe. Returns its steps and the new bytes."""
    head, new = split_head(stored, recipe_name(made))
    return parse_steps(head, made, [sizes[base] for base in made.bases]), new


def follow(
    made: Made, steps: list[Step], new: Iterator[bytes], paths: list[Path], sizes: dict[str, int]
) -> Iterator[bytes]:
    """Yield the bytes of a blob that is made of ranges of its bases, the files `paths`, and of new bytes."""
    digest = hashlib.sha256()
    with ExitStack() as opened:
        bases = [opened.enter_context(open_regular(path, DAMAGED)) for path in paths]
        for piece in pieces_of(steps, [base.fileno() for base in bases], Forward(new)):
            digest.update(piece)
            yield piece
    drain(new)
    if digest.hexdigest() == made.blob.hex:
        return
    what = recipe_name(made)
    for base, path in zip(made.bases, paths):
        if not is_sound(path, Blob(base, sizes[base])):
            raise RestoreError(INTEGRITY, f"{what}: sha256:{base} in the store is damaged, and it is made of that")
    raise RestoreError(INTEGRITY, f"{what}: it makes other bytes, with sha256 {digest.hexdigest()}")


def recipe_name(made: Made) -> str:
    return f"recipe for sha256:{made.blob.hex}"


def split_head(stored: Iterator[bytes], what: str) -> tuple[bytes, Iterator[bytes]]:
    """Return the first line of a recipe, and its new bytes."""
    head = b""
    for piece in stored:
        head += piece
        end = head.find(b"\n", 0, MAX_HEAD_BYTES) + 1
        if end:
            return head[:end], chain([head[end:]], stored)
        if len(head) >= MAX_HEAD_BYTES:
            raise RestoreError(LIMIT, f"{what}: expected a first line of at most {MAX_HEAD_BYTES} bytes")
    raise RestoreError(FORMAT, f"{what}: its first line does not end")


def parse_steps(head: bytes, made: Made, sizes: list[int]) -> list[Step]:
    what = recipe_name(made)
    value, rest = parse_json(head, what, is_strict=True)
    entries = fields(value, what).get("steps")
    if rest or not isinstance(entries, list):
        raise RestoreError(FORMAT, f"{what}: expected one JSON document with a list of steps")
    if len(entries) > MAX_STEPS:
        raise RestoreError(LIMIT, f"{what}: expected at most {MAX_STEPS} steps, got {len(entries)}")
    steps = [parse_step(entry, sizes, what) for entry in entries]
    new = sum(length for base, _, length in steps if base < 0)
    if new != made.stored.size - len(head) or sum(length for _, _, length in steps) != made.blob.size:
        raise RestoreError(FORMAT, f"{what}: its steps make another number of bytes than the index says")
    return steps


def parse_step(entry: object, sizes: list[int], what: str) -> Step:
    kind, *rest = entry if isinstance(entry, list) and entry else [None]
    numbers = [number for number in rest if type(number) is int]  # a bool is an int too
    if kind == "new" and len(rest) == len(numbers) == 1 and numbers[0] > 0:
        return Step(-1, 0, numbers[0])
    if kind == "copy" and len(rest) == len(numbers) == 3 and numbers[2] > 0:  # noqa: PLR2004 - base, offset, length
        base, offset, length = numbers
        if not 0 <= base < len(sizes) or offset < 0 or offset + length > sizes[base]:
            raise RestoreError(UNSAFE, f"{what}: step {entry!r:.90} is outside its base")
        return Step(base, offset, length)
    raise RestoreError(FORMAT, f"{what}: expected a step, got {entry!r:.90}")


def pieces_of(steps: list[Step], bases: list[int], new: Forward) -> Iterator[bytes]:
    for base, start, length in steps:
        if base < 0:
            yield from new.take(length)
            continue
        for offset in range(start, start + length, CHUNK_BYTES):
            yield os.pread(bases[base], min(CHUNK_BYTES, start + length - offset), offset)


class Forward:
    """The new bytes of a recipe, in the lengths that its steps take."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._ahead = pieces, b""

    def take(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._ahead:
                self._ahead = next(self._pieces)  # there are as many bytes as the steps take
            piece, self._ahead = self._ahead[:size], self._ahead[size:]
            size -= len(piece)
            yield piece


# ---- the store -------------------------------------------------------------------------------------------------------


class Store:
    """A model store of Ollama. Its paths are made only from checked digests and names."""

    def __init__(self, root: Path) -> None:
        self.root, self.blobs, self.manifests = root, root / "blobs", root / "manifests"
        # `blobs` may be a link to another disk. Staged blobs must be on that disk, so that a rename publishes them.
        self.state = Path(os.path.realpath(self.blobs)).parent / ".ostore"

    @property
    def like(self) -> os.stat_result:
        """The owner and mode for new files: those of `blobs`, or of the nearest folder above it that exists."""
        return nearest(self.blobs).stat()

    def manifest_path(self, model: Model) -> Path:
        return self.manifests.joinpath(*model.parts)

    def compare(self, models: list[Model], *, replace: bool) -> dict[str, str]:
        """Return the outcome that each model would have. Raises if a model cannot be restored."""
        existing = {"/".join(parts).casefold(): parts for parts in walk(self.manifests, 4)}
        return {model.name: self._compare(model, existing, replace=replace) for model in models}

    def _compare(self, model: Model, existing: dict[str, tuple[str, ...]], *, replace: bool) -> str:
        twin = existing.get("/".join(model.parts).casefold())
        if twin not in (None, model.parts):
            raise RestoreError(UNSAFE, f"{model.name}: differs only by case from {'/'.join(twin)!r} in the store")
        raw = read_manifest(self.manifest_path(model))
        if twin is None:
            return "added"
        if hashlib.sha256(raw).hexdigest() == model.manifest.hex:
            return "already there"
        if is_broken(raw):
            return "repaired"
        if not replace:
            raise RestoreError(USAGE, f"{model.name}: the store has another model of this name; --replace replaces it")
        return "replaced"

    def give(self, path: Path) -> None:
        """Give a new file or folder to the owner of the store, because Ollama must be able to touch and delete it."""
        if os.geteuid() == 0:
            os.chown(path, self.like.st_uid, self.like.st_gid)

    def make_folder(self, folder: Path, undo: ExitStack) -> None:
        """Make a folder and the missing folders above it, and sync them to the disk."""
        if folder.is_dir():
            return
        self.make_folder(folder.parent, undo)
        with suppress(FileExistsError):  # Ollama may have made it meanwhile
            folder.mkdir(0o755)
            undo.callback(quietly, folder.rmdir)
            self.give(folder)
            sync_path(folder.parent)

    def make_state(self) -> None:
        """Make `.ostore/tx`. Refuses a folder that another user could change."""
        for folder in (self.state, self.state / "tx"):
            with suppress(FileExistsError):
                folder.mkdir()
                folder.chmod(stat.S_IMODE(self.like.st_mode) & ~stat.S_IWOTH)
                self.give(folder)
            found = folder.lstat()
            is_ours = found.st_uid in (0, os.geteuid(), self.like.st_uid) or found.st_gid == self.like.st_gid
            if not stat.S_ISDIR(found.st_mode) or found.st_mode & stat.S_IWOTH or not is_ours:
                raise RestoreError(UNSAFE, f"expected a folder that no other user can change, got {str(folder)!r}")
        if self.state.stat().st_dev != nearest(self.blobs).stat().st_dev:
            raise RestoreError(IO, f"not on the disk of the blobs: {str(self.state)!r}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store lock. Its file is never removed, because then two programs could hold the lock at once."""
        lock = self.state / "lock"
        descriptor = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            self.give(lock)
            deadline = time.monotonic() + LOCK_SECONDS
            while not try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise RestoreError(BUSY, f"another ostore holds the store lock: {str(lock)!r}")
                time.sleep(0.05)
            yield
        finally:
            os.close(descriptor)


@contextmanager
def open_inbox(store: Store, present: set[Blob]) -> Iterator[Inbox]:
    """Make a private folder for staged files, where Ollama does not look, and remove it at the end."""
    with ExitStack() as undo, ExitStack() as cleanup:
        store.make_folder(store.root, undo)
        store.make_state()
        folder = store.state / "tx" / f"{os.getpid()}-{os.urandom(4).hex()}"
        folder.mkdir(0o700)
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        # ostore deletes the folders of ended programs; the lock of this file shows that this one still runs.
        descriptor = os.open(folder / "alive", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        cleanup.callback(os.close, descriptor)
        try_lock(descriptor)
        letters = folder / "m"
        if nearest(store.manifests).stat().st_dev != folder.stat().st_dev:
            # The manifests are on another disk, so they are staged there. Ollama reads files at depth 4 as manifests;
            # these are at depth 3.
            letters = store.manifests / ".ostore-tmp" / folder.name
            cleanup.callback(quietly, letters.parent.rmdir)
            cleanup.callback(shutil.rmtree, letters, ignore_errors=True)
        letters.mkdir(0o700, parents=True)
        yield Inbox(store, folder, letters, present)
        undo.pop_all()


class Inbox:
    """
    Stages blobs and manifests, then publishes all of them, manifests last.

    Ollama has no lock. When a version before 0.21 starts, it deletes every blob that no manifest names. So each blob,
    staged here or found in the store, keeps a second name in the folder, a hard link, until all manifests are there.
    """

    def __init__(self, store: Store, folder: Path, letters: Path, present: set[Blob]) -> None:
        self._store, self._folder, self._letters = store, folder, letters
        self._present = {blob for blob in present if self._pin(blob)}
        self._staged: list[Blob] = []
        self._manifests: dict[str, Path] = {}

    def has(self, blob: Blob) -> bool:
        return blob in self._present

    def path_of(self, digest: str) -> Path:
        """Return the file of a blob that is staged or was found in the store."""
        filename = Blob(digest, 0).filename
        staged = self._folder / filename
        return staged if staged.exists() else self._store.blobs / filename

    def write_blob(self, blob: Blob, pieces: Iterator[bytes]) -> None:
        part = self._folder / f"{blob.filename}.part"
        self._write(part, pieces)
        part.rename(self._folder / blob.filename)
        self._staged.append(blob)

    def write_manifest(self, model: Model, raw: bytes) -> None:
        self._manifests[model.name] = self._letters / f"{len(self._manifests):06}.json"
        self._write(self._manifests[model.name], iter([raw]))

    def publish(self, index: Index, *, replace: bool) -> dict[str, str]:
        """Publish everything. Returns the outcome of each model; an error takes back what was published."""
        store, needed = self._store, index.needed
        kept = [*index.arriving, *(blob for blob in index.requires if blob.hex in needed)]
        with store.locked(), ExitStack() as undo:
            # Compared again, because another program may have published meanwhile.
            outcome = store.compare(index.models, replace=replace)
            store.make_folder(store.blobs, undo)
            for blob in self._staged:
                self._place_blob(blob, undo)
            sync_path(store.blobs)
            for model in index.models:
                path = store.manifest_path(model)
                if outcome[model.name] != "already there":
                    self._place_manifest(self._manifests[model.name], path, undo)
                else:
                    sync_path(path)
                    for folder in list(path.parents)[:4]:  # up to `manifests`
                        sync_path(folder)
            for pause_seconds in (0.0, 0.1, 0.2):
                self._settle(kept, pause_seconds, undo)
            undo.pop_all()
        return outcome

    def _pin(self, blob: Blob) -> bool:
        """Give a blob of the store its second name, if the disk has hard links. Returns False if the blob is gone."""
        path = self._store.blobs / blob.filename
        with suppress(OSError):
            os.link(path, self._folder / blob.filename)
        with suppress(OSError):  # another user may own the blob
            os.utime(path)  # since 0.21 Ollama keeps young blobs; it also sets the time of a blob that it reuses
        try:
            sync_path(path)  # Ollama does not sync its files, and a model will need this blob
        except FileNotFoundError:
            return False
        return True

    def _write(self, path: Path, pieces: Iterator[bytes]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            self._store.give(path)
            sync(file.fileno())

    def _place_blob(self, blob: Blob, undo: ExitStack) -> None:
        staged, target = self._folder / blob.filename, self._store.blobs / blob.filename
        is_new = not os.path.lexists(target)
        os.utime(staged)
        second = self._folder / f"{blob.filename}.again"
        try:
            os.link(staged, second)
        except OSError:  # the disk has no hard links
            second = staged
        second.replace(target)
        if is_new:  # after the rename, so that only a published blob is taken back; a replaced one stays
            undo.callback(self._take_back, blob)

    def _take_back(self, blob: Blob) -> None:
        """Remove a published blob, unless a manifest names it: Ollama may have pulled a model that needs it."""
        with suppress(OSError, RestoreError):
            paths = [self._store.manifests.joinpath(*parts) for parts in walk(self._store.manifests, 4)]
            if not any(blob.hex.encode() in read_manifest(path) for path in paths):
                (self._store.blobs / blob.filename).unlink()

    def _place_manifest(self, staged: Path, target: Path, undo: ExitStack) -> None:
        self._store.make_folder(target.parent, undo)
        if os.path.lexists(target):
            former = staged.with_suffix(".former")
            try:
                os.link(target, former, follow_symlinks=False)
            except OSError:  # the disk has no hard links
                shutil.copy2(target, former, follow_symlinks=False)
            undo.callback(quietly, lambda: former.replace(target))
        else:
            undo.callback(quietly, target.unlink)
        staged.replace(target)
        sync_path(target.parent)

    def _settle(self, blobs: list[Blob], pause_seconds: float, undo: ExitStack) -> None:
        """Put back blobs that Ollama deletes meanwhile: it may have listed the manifests before ours were published."""
        time.sleep(pause_seconds)
        lost = [blob for blob in blobs if not (self._store.blobs / blob.filename).exists()]
        for blob in lost:
            if not (self._folder / blob.filename).exists():
                raise RestoreError(DAMAGED, f"sha256:{blob.hex}: removed by another program during the restore")
            self._place_blob(blob, undo)
        if lost:
            sync_path(self._store.blobs)


# ---- the disk --------------------------------------------------------------------------------------------------------


def refuse_short_space(folder: Path, blobs: list[Blob]) -> None:
    """Refuse a disk with too little free space before anything is written."""
    needed = sum(-(-blob.size // 4096) * 4096 for blob in blobs) * 101 // 100
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RestoreError(NO_SPACE, f"{str(folder)!r}: expected {needed} bytes of free space, got {free}")


def is_sound(path: Path, blob: Blob, *, by_size: bool = False) -> bool:
    """
    Whether the store has the blob and its SHA-256, or `by_size` its size, is right.

    After a power cut a file may have the name alone.
    """
    if path.is_symlink() or not path.exists():
        return False  # a link is replaced; its target stays as it is
    with open_regular(path, DAMAGED) as file:
        digest = hashlib.sha256()
        if by_size:
            return os.fstat(file.fileno()).st_size == blob.size
        if os.fstat(file.fileno()).st_size == blob.size:
            while data := file.read(CHUNK_BYTES):
                digest.update(data)
        return digest.hexdigest() == blob.hex


def read_manifest(path: Path) -> bytes:
    """Return the bytes of a manifest of the store, or b"" if there is no such file."""
    try:
        with open_regular(path, DAMAGED) as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        return b""
    except NotADirectoryError:
        raise RestoreError(DAMAGED, f"expected only folders above {str(path)!r}, got a file") from None


def is_broken(raw: bytes) -> bool:
    """Whether a manifest of the store is empty or incomplete, so that replacing it loses no model."""
    try:
        references(parse_json(raw, "manifest")[0], "manifest")
    except RestoreError as error:
        return error.code == FORMAT
    return False


def open_regular(path: str | Path, otherwise: int) -> FileIO:
    """Open a regular file for reading. Raises with the exit code `otherwise` for anything else, and never waits."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else a FIFO would wait for its writer
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RestoreError(otherwise, f"not a regular file: {str(path)!r}")
    return os.fdopen(descriptor, "rb", buffering=0)


def walk(folder: Path, depth: int) -> Iterator[tuple[str, ...]]:
    """Yield the paths, as tuples of names, of all entries exactly `depth` levels below a folder."""
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if depth == 1:
            yield (name,)
        else:
            yield from ((name, *rest) for rest in walk(folder / name, depth - 1))


def nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return path if path.exists() else nearest(path.parent)


def try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)  # some network disks have no locks
    return True


def sync_path(path: Path) -> None:
    """Sync a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Sync to the disk. Never try again after an error: a second fsync succeeds although the first lost data."""
    try:
        if sys.platform == "darwin":  # where fsync does not empty the drive's cache
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # some network disks cannot sync
            raise


def quietly(action: Callable[[], object]) -> None:
    """Clean up without raising, so that the first error is the one reported."""
    with suppress(OSError):
        action()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
