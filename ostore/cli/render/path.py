"""The output of `ostore path`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from ostore.formats.errors import NotFoundError

if TYPE_CHECKING:
    from ostore.api.path import PathReport

Part = Literal["model", "projector", "adapter"]


def paths(report: PathReport, part: Part) -> bytes:
    """Return the paths of one kind of file, a line each, byte for byte. Raises NotFoundError if there is none."""
    found = [file.path for file in report.parts if file.media_type.endswith(f".{part}")]
    if not found:
        raise NotFoundError(f"{report.name}: has no {part}")
    return b"".join(os.fsencode(path) + b"\n" for path in found)
