"""A small server in this process, for deciders that ask one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Reply = Callable[[dict[str, Any]], tuple[int, bytes] | tuple[int, bytes, dict[str, str]]]
"""Status, body and, if any, headers of the answer to a request's body."""


def fixed(status: int, body: Any) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _: (status, raw)


@contextmanager
def server(reply: Reply, *, hang_up: bool = False) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server's URL and the bodies it was sent; `hang_up` drops a connection after each answer."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            bodies.append({"path": self.path, "key": self.headers["authorization"], **body})
            status, raw, *headers = reply(body)
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            for name, value in (headers[0] if headers else {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)
            self.close_connection = hang_up

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    instance = Server(("127.0.0.1", 0), Handler)
    thread = Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{instance.server_address[1]}", bodies
    finally:
        instance.shutdown()
        instance.server_close()
        thread.join()
