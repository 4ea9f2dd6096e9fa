"""Write a page to a file: completely or not at all, and over another file only with `--replace`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ostore.formats.errors import UsageError
from ostore.formats.remedy import command
from ostore.streams.writing import refuse_to_overwrite, write_whole

_LIBRARIES = ("jinja2", "squarify")


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
    """Write a page as `write_whole` does: completely or not at all. Raises UsageError, OSError."""
    write_whole(path, page.encode("utf-8"), replace=replace)
