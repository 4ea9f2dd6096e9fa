"""How the tar stream of a bundle becomes bytes: plain, or in zstd frames. One file, volumes and a pipe share it."""

from __future__ import annotations

from dataclasses import dataclass

import zstandard

from ostore.formats.export_state import ExportState
from ostore.formats.outcome import Forecast, Outcome
from ostore.formats.selection import Selection
from ostore.formats.zstd_frame import MAX_FRAME_CONTENT
from ostore.places.bundle.inbox import TarOutput
from ostore.streams.bytes_at import Output
from ostore.streams.frames import FrameWriter, encode_frame
from ostore.streams.plain import PlainWriter

# zstd takes some 20 % off weights in 16 bits, and less off quantised ones.
_LEAST_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Encoding:
    """A plain tar stream, or frames of a zstd `level`; None tries 1 and stores what does not shrink."""

    is_plain: bool
    level: int | None
    jobs: int

    @property
    def made_by(self) -> str:
        """What decides the bytes of a bundle beside the selection and the program that the index names."""
        if self.is_plain:
            return "tar"
        return f"level {self.level or 'auto'}, zstandard {zstandard.__version__}, zstd {zstandard.ZSTD_VERSION}"

    def writer(self, output: Output, state: ExportState | None = None) -> TarOutput:
        """Return what takes the tar stream. It goes on behind what the state says is written. The caller closes it."""
        if self.is_plain:
            return PlainWriter(output, state.offset if state else 0)
        return FrameWriter(output, self.level, self.jobs, state.spans if state else ())

    def start_of(self, head: bytes) -> bytes:
        """Return the first bytes of a bundle that begins with that head: its first frame."""
        return head if self.is_plain else b"".join(encode_frame([head[:MAX_FRAME_CONTENT]], self.level))

    def least_size(self, selection: Selection) -> int:
        """Return the bytes that a bundle will hardly be smaller than."""
        return selection.stored_size if self.is_plain else int(selection.stored_size * _LEAST_SHARE)


def all_added(selection: Selection) -> Forecast:
    """Forecast that everything is written: a bundle begins empty."""
    return Forecast(dict.fromkeys((model.name for model in selection.models), Outcome.ADDED), selection.blobs)
