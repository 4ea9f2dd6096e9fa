"""The output of `ostore path`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ostore.formats.errors import NotFoundError

if TYPE_CHECKING:
    from ostore.api.path import PathReport

Part = Literal["model", "projector", "adapter"]


def paths(report: PathReport, part: Part) -> list[str]:
    """Return the paths of one kind of file. Raises NotFoundError if there is none."""
    found = [file.path for file in report.parts if file.media_type.endswith(f".{part}")]
    if not found:
        raise NotFoundError(f"{report.name}: has no {part}")
    return found
