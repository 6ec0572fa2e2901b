"""A server on this machine that answers as badly as the tests want."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `body` or, by file name, `files`, after `failures` answers of 503.

    `cut` sends one byte too few.
    """

    body = b"labels"
    files: dict[str, bytes] | None = None
    failures = 0
    cut = False
    asked = 0

    def do_GET(self):
        type(self).asked += 1
        if type(self).asked <= self.failures:
            self.send_error(503)
            return
        name = self.path.rpartition("/")[2]
        body = self.body if self.files is None else self.files.get(name)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:-1] if self.cut else body)

    def log_message(self, *arguments):
        pass


@contextmanager
def serving() -> Iterator[Callable[..., tuple[str, type[Server]]]]:
    """Start servers with settings of `Server`; each is its address and its class."""
    servers = []

    def start(**settings) -> tuple[str, type[Server]]:
        handler = type("Handler", (Server,), settings)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
