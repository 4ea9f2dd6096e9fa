"""What the server counts, as Prometheus reads it, and one line for each request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ostore.server.verification import Extent, State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Longer ones are cut: a request line may have eight thousand characters.
_MAX_SHOWN = 300


@dataclass
class Figures:
    """Requests by status, and bytes of blobs that were sent."""

    requests: Counter[int] = field(default_factory=Counter)
    sent_bytes: int = 0

    def metrics(self, extent: Extent, *, models: int, transfers: int, connections: int, hashed_bytes: int) -> str:
        """Return all figures in the text format of Prometheus."""
        rows = (
            ("requests_total", "counter", "Requests that were answered.", self._by_status()),
            ("sent_bytes_total", "counter", "Bytes of blobs that were sent.", [("", self.sent_bytes)]),
            ("hashed_bytes_total", "counter", "Bytes of blobs that were hashed.", [("", hashed_bytes)]),
            ("connections", "gauge", "Open connections.", [("", connections)]),
            ("transfers", "gauge", "Blobs that are being sent.", [("", transfers)]),
            ("models", "gauge", "Models that are served.", [("", models)]),
            ("blobs", "gauge", "Blobs that are served, by what is known of their bytes.", _by_state(extent)),
        )
        return "".join(
            f"# HELP ostore_{name} {text}\n# TYPE ostore_{name} {kind}\n"
            + "".join(f"ostore_{name}{labels} {value}\n" for labels, value in values)
            for name, kind, text, values in rows
        )

    def _by_status(self) -> list[tuple[str, int]]:
        return [(f'{{code="{status}"}}', count) for status, count in sorted(self.requests.items())]


def _by_state(extent: Extent) -> Iterator[tuple[str, int]]:
    for state in State:
        yield f'{{state="{state}"}}', extent.blobs[state]


def health(extent: Extent, models: int, *, left: int) -> str:
    """Return how far the hashing is, as JSON. `left` is the number of things in the place that cannot be served."""
    done = "damaged" if extent.blobs[State.DAMAGED] or left else "ready"
    document = {
        "status": "hashing" if extent.blobs[State.WAITING] else done,
        "models": models,
        "left_out": left,
        "blobs": {str(state): count for state, count in extent.blobs.items()},
        "hashed_bytes": extent.hashed,
        "total_bytes": extent.total,
    }
    return json.dumps(document) + "\n"


def access_line(moment: str, client: str, request: str, *, status: int, sent: int, seconds: float, agent: str) -> str:
    """Return the line of one request for the log. Whoever prints it escapes it."""
    return f"{moment} {client} {_shown(request)} {status} {sent} {seconds:.3f}s {_shown(agent)}"


def _shown(text: str) -> str:
    # Quoted, so that no text can look like the next field.
    return json.dumps(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...", ensure_ascii=True)
