"""The tar stream inside the frames of a file, to be read in any order. Recipes read their bases so."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from threading import Lock

from ostore.formats.errors import LimitError
from ostore.formats.zstd_frame import MAX_FRAME_CONTENT, FrameSpan
from ostore.streams.bytes_at import BytesAt
from ostore.streams.frames import decode_listed

# Decoded frames that are kept, of at most 8 MiB each.
_KEPT_FRAMES = 4
# To jump among more frames than are kept decodes 8 MiB for as little as a byte. So much may be decoded in all: for each
# byte that was read, for each frame of the file, and for each file.
_PER_BYTE, _PER_FRAME, _FRAMES = 16, 8, 250


class FramedBytes:
    """Decodes only the frames that are needed, and keeps the latest four."""

    def __init__(self, source: BytesAt, spans: Sequence[FrameSpan]) -> None:
        self.source = source
        self.spans = spans
        self._offsets = list(accumulate((span.size for span in spans), initial=0))
        self._starts = list(accumulate((span.content_size for span in spans), initial=0))
        self._kept: dict[int, memoryview] = {}
        self._lock = Lock()
        self.size = self._starts[-1]
        self._may_decode = _PER_FRAME * self.size + _FRAMES * MAX_FRAME_CONTENT

    def read_at(self, size: int, offset: int) -> bytes:
        """
        Return `size` bytes from byte `offset`, or fewer at the end.

        Raises IntegrityError, FormatError, OSError, and LimitError if many short reads are all over the file.
        """
        pieces = []
        size = max(0, min(size, self.size - offset))
        frame = bisect_right(self._starts, offset) - 1
        while size:
            start = offset - self._starts[frame]
            piece = self._frame(frame)[start : start + size]
            pieces.append(piece)
            self._may_decode += _PER_BYTE * len(piece)
            size, offset, frame = size - len(piece), offset + len(piece), frame + 1
        return b"".join(pieces)

    def refuse_changes(self) -> None:
        """Raises IntegrityError if the file has changed since opening."""
        self.source.refuse_changes()

    def _frame(self, number: int) -> memoryview:
        with self._lock:
            content = self._kept.pop(number, None)
            if content is None:
                content = self._decoded(number)
            while len(self._kept) >= _KEPT_FRAMES:
                del self._kept[next(iter(self._kept))]
            self._kept[number] = content
            return content

    def _decoded(self, number: int) -> memoryview:
        span = self.spans[number]
        self._may_decode -= span.content_size
        if self._may_decode < 0:
            raise LimitError("bundle: recipes take too many short ranges from all over the file")
        return decode_listed(self.source, number, span, self._offsets[number])
