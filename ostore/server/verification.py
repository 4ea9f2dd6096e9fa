"""
Hash blobs before they are served, in one thread: small ones first, but those that a client waits for before all.

What was found is remembered for as long as the file is the same: disk, inode, size, mtime and ctime.
"""

from __future__ import annotations

import enum
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ostore.formats.digest import Digest
from ostore.formats.errors import OstoreError
from ostore.formats.manifest import Descriptor
from ostore.server.contents import NO_STAMP, Stamp
from ostore.server.supplies import Supply

_CHUNK_BYTES = 1024 * 1024
# A disk that answers no more must not keep the server from ending.
_JOIN_SECONDS = 5


class State(enum.StrEnum):
    """What is known of the bytes of a blob."""

    READY = "ready"
    WAITING = "waiting"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Extent:
    """How many blobs of each state there are, and how many bytes are hashed, of how many."""

    blobs: dict[State, int]
    hashed: int
    total: int


class Verification:
    """
    The states of all blobs that are served.

    `damaged` is told of each damaged blob once for each change of its file. `changed` is called after each blob. Both
    are called in the thread that hashes.
    """

    def __init__(self, supply: Supply, damaged: Callable[[Descriptor, str], None], changed: Callable[[], None]) -> None:
        self._supply, self._damaged, self._changed = supply, damaged, changed
        self._known: dict[Digest, tuple[Stamp, State]] = {}
        self._waiting: dict[Digest, Descriptor] = {}
        self._asked: dict[Digest, Descriptor] = {}
        self._sizes: dict[Digest, int] = {}
        self._current: Digest | None = None
        self._news = threading.Condition()
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="hashing", daemon=True)
        self.hashed_bytes = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, in the middle of a blob too."""
        with self._news:
            self._is_over = True
            self._news.notify()
        self._thread.join(_JOIN_SECONDS)

    def want(self, blobs: Iterable[Descriptor], stamps: Mapping[Digest, Stamp]) -> None:
        """
        Set the blobs that are served, and the stamps of their files.

        What is known of a file stays known for as long as it is the same; what is known of others is forgotten.
        """
        wanted = list(blobs)
        with self._news:
            self._sizes = {blob.digest: blob.size for blob in wanted}
            self._known = {
                digest: known
                for digest, known in self._known.items()
                if digest in self._sizes and known[0] == stamps.get(digest, NO_STAMP)
            }
            # One that is being hashed is known soon.
            unknown = (blob for blob in wanted if blob.digest not in self._known and blob.digest != self._current)
            self._waiting = {blob.digest: blob for blob in sorted(unknown, key=lambda blob: (blob.size, blob.digest))}
            self._news.notify()

    def state(self, blob: Descriptor, stamp: Stamp) -> State:
        """Return what is known of a blob whose file has this stamp. If nothing is, it is hashed next."""
        with self._news:
            known = self._known.get(blob.digest)
            if known and known[0] == stamp:
                return known[1]
            if blob.digest != self._current:
                self._asked[blob.digest] = blob
                self._news.notify()
            return State.WAITING

    def known(self, blobs: Iterable[Descriptor]) -> set[State]:
        """Return what was last known of these blobs."""
        with self._news:
            return {self._known[blob.digest][1] if blob.digest in self._known else State.WAITING for blob in blobs}

    def extent(self) -> Extent:
        """Return how far it is."""
        with self._news:
            states = {digest: state for digest, (_, state) in self._known.items() if digest in self._sizes}
            blobs = dict.fromkeys(State, 0)
            for digest in self._sizes:
                blobs[states.get(digest, State.WAITING)] += 1
            hashed = sum(self._sizes[digest] for digest in states)
            return Extent(blobs, hashed, sum(self._sizes.values()))

    def _work(self) -> None:
        while (blob := self._next()) is not None:
            stamp, reason = self._judge(blob)
            with self._news:
                if self._is_over:
                    return
                before = self._known.get(blob.digest)
                self._known[blob.digest] = (stamp, State.DAMAGED if reason else State.READY)
                self._current = None
            if reason and (before is None or before[0] != stamp):
                self._damaged(blob, reason)
            self._changed()

    def _next(self) -> Descriptor | None:
        """Wait for the next blob to hash. None at the end."""
        with self._news:
            while not self._is_over:
                for queue in (self._asked, self._waiting):
                    if queue:
                        digest = next(iter(queue))
                        blob = queue.pop(digest)
                        self._waiting.pop(digest, None)
                        self._current = digest
                        return blob
                self._news.wait()
            return None

    def _judge(self, blob: Descriptor) -> tuple[Stamp, str]:
        """Hash a blob. Return the stamp of its file, and what is wrong with it, if anything."""
        stamp = NO_STAMP
        try:
            content = self._supply.opened(blob)
            if content is None:
                return stamp, "it is missing, a link, or of another size"
            stamp = content.stamp
            try:
                hashed, position = hashlib.sha256(), 0
                while position < blob.size and not self._is_over:
                    chunk = content.read(position, min(_CHUNK_BYTES, blob.size - position))
                    hashed.update(chunk)
                    position += len(chunk)
                    self.hashed_bytes += len(chunk)
            finally:
                content.close()
        except (OstoreError, OSError) as error:
            return stamp, str(error)
        except Exception as error:  # noqa: BLE001 - all other blobs wait for this thread
            # Lack of memory, say, is not of the file: with no stamp, it is hashed again.
            return NO_STAMP, f"{type(error).__name__}: {error}"
        return stamp, "" if hashed.hexdigest() == blob.digest.hex else "its bytes have another digest"
