"""Run one input through one target, and check the result, the time and the memory."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Sequence

from ostore.formats.errors import OstoreError
from tests.torture.fuzz.targets import Target

# Of processor time: the machine may have others to serve.
MAX_SECONDS = 1.0
MAX_BYTES = 256 * 1024 * 1024
_PIECES = (
    b"\0", b"\xff", b'"', b"'", b"\\", b"{", b"}", b"[", b"]", b",", b":", b"/", b"..", b"\n", b"\r", b" ", b"*", b"-1",
    b"0", b"1e999", b"9" * 21, b"null", b"NaN", b"\\u0000", b"\\ud800", b"\xc5\xbf", b"\xe2\x84\xaa", b'"digest"',
    b'"Digest"', b"sha256:", b"sha256-", b'""', b"{}", b"[]", b'"""', b"\x80", b"\x28\xb5\x2f\xfd", b"\x5e\x2a\x4d\x18",
)  # fmt: skip


def attempt(target: Target, data: bytes) -> bool:
    """
    Let a target read an input; whether it did, or refused it.

    Raises whatever else escapes it, and TimeoutError or MemoryError for an input that costs too much.
    """
    started, peak = time.process_time(), _peak_bytes()
    try:
        target.run(data)
    except OstoreError:
        return False
    else:
        return True
    finally:
        if time.process_time() - started > MAX_SECONDS:
            raise TimeoutError(f"{time.process_time() - started:.1f} seconds")
        if _peak_bytes() - peak > MAX_BYTES:
            raise MemoryError(f"{_peak_bytes() - peak} bytes")


def mutated(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """One of the seeds with one to four small changes."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 2, 4))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((0, 1, 1, 2, 4, 16, 200)))
        other = chance.choice(seeds)
        start = chance.randrange(len(other) + 1)
        data[at:end] = chance.choice(
            (
                b"",
                bytes(byte ^ 1 << chance.randrange(8) for byte in data[at : at + 1]),
                chance.choice(_PIECES),
                chance.randbytes(end - at),
                data[at:end] * 2,
                other[start : start + chance.choice((1, 8, 100, 1000))],
            )
        )
    return bytes(data)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
