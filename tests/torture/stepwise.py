"""
The program, but with frames of 32 KiB, after each of which an export notes how far it is.

As it is, it notes that every 256 MiB, and a scene that is copied a thousand times cannot be so large.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from unittest.mock import patch

FRAME_BYTES = 32 * 1024


@contextlib.contextmanager
def in_small_steps() -> Iterator[None]:
    """Let this process write bundles so."""
    from ostore.places.bundle import journal
    from ostore.streams import bytes_at, chunks, frames, verified

    with (
        patch.object(journal, "EVERY_BYTES", 1),
        patch.object(chunks, "CHUNK_BYTES", FRAME_BYTES),
        patch.object(bytes_at, "CHUNK_BYTES", FRAME_BYTES),
        # A blob of two frames is hashed in a thread of its own.
        patch.object(verified, "_INLINE_BYTES", FRAME_BYTES),
        patch.object(journal, "MAX_FRAME_CONTENT", FRAME_BYTES),
        patch.object(frames, "MAX_FRAME_CONTENT", FRAME_BYTES),
    ):
        yield


if __name__ == "__main__":
    from ostore.cli.main import main

    with in_small_steps():
        sys.exit(main())
