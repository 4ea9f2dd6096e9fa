"""
A registry with one model, for measuring clients. It paces each TCP connection and lets each request wait.

Real registries pace connections, and a request across a continent waits for its first byte. nginx's `limit_rate` counts
a request anew, so it flatters clients that ask for small ranges.
"""

from __future__ import annotations

import http.server
import os
import re
import socket
import sys
import threading
import time
from pathlib import Path

_SO_MAX_PACING_RATE = 47
_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")


class _Registry(http.server.BaseHTTPRequestHandler):
    """Answers for `/v2/library/model/manifests/latest` and the blobs in the folder."""

    protocol_version = "HTTP/1.1"
    folder: Path
    pace: int
    wait: float

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.pace:
            self.connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, self.pace)

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        path = self.folder / (name.replace(":", "-") if "/blobs/" in self.path else "manifest")
        if not path.is_file():
            self.send_error(404)
            return
        time.sleep(self.wait)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            found = _RANGE.fullmatch(self.headers.get("Range", ""))
            first = int(found[1]) if found else 0
            end = min(size, int(found[2]) + 1) if found and found[2] else size
            self.send_response(206 if found else 200)
            if found:
                self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
            self.send_header("Content-Length", str(end - first))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            self.wfile.flush()
            while first < end:
                first += os.sendfile(self.connection.fileno(), file.fileno(), first, end - first)

    def log_message(self, *_arguments: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, *_arguments: object) -> None:
        """A client that goes is no error here."""


def main() -> None:
    """Serve FOLDER at PORT, PACE bytes a second for each connection (0: all), WAIT seconds before each answer."""
    folder, port, pace, wait = sys.argv[1:]
    _Registry.folder, _Registry.pace, _Registry.wait = Path(folder), int(pace), float(wait)
    server = _Server(("127.0.0.1", int(port)), _Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
