"""Write a page to a file: completely or not at all, and over another file only with `--replace`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path

from ostore.formats.errors import UsageError
from ostore.formats.remedy import command
from ostore.streams.durable import Directory, naming, sync_file
from ostore.streams.writing import refuse_to_overwrite, write_all

_LIBRARIES = ("jinja2", "squarify")
# The umask applies, as to any file that a person makes.
_MODE = 0o666


def require(path: Path, *, replace: bool) -> None:
    """Check a destination before any work. Raises UsageError or NotFoundError if it cannot be made or written."""
    if any(importlib.util.find_spec(name) is None for name in _LIBRARIES):
        raise UsageError(
            "a page needs libraries that are not installed", hint=command("pip", "install", "ostore[report]")
        )
    if path.name in {"", "-"}:
        raise UsageError(f"{path}: expected the name of a file for the page")
    refuse_to_overwrite(path, replace=replace)


def write_page(path: Path, page: str, *, replace: bool) -> None:
    """
    Write a page to a temporary file beside `path`, flush it to the disk, and give it its name.

    Raises UsageError if the file exists and `replace` is false, OSError. An error removes the temporary file.
    """
    part = f".{path.name}.{os.urandom(4).hex()}.part"
    with Directory.open(path.parent) as directory, naming(path):
        try:
            fd = directory.create(part, _MODE)
            try:
                write_all(fd, [page.encode("utf-8")])
                sync_file(fd)
            finally:
                os.close(fd)
            _give_name(directory, part, path, replace=replace)
            directory.sync()
        finally:
            # An error here must not hide the first one.
            with contextlib.suppress(OSError):
                directory.unlink(part)


def _give_name(directory: Directory, part: str, path: Path, *, replace: bool) -> None:
    if not replace:
        # A link fails if another program has created the file meanwhile. A rename would overwrite it.
        try:
            if directory.link(part, directory, path.name):
                return
        except FileExistsError:
            # The check below tells what is there now.
            pass
    refuse_to_overwrite(path, replace=replace)
    directory.rename(part, directory, path.name)
